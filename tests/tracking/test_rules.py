"""Who made a hit: labelled User-Agents, labelled mailings, and each rule at its edges."""

from __future__ import annotations

import pandas as pd
import pytest

from lifecycle.settings import Config
from lifecycle.settings.channels import Tracking
from lifecycle.tracking.agents import judge_agent
from lifecycle.tracking.rules import find_bursts, judge, rules_version
from tests.tracking.corpus import CHROME, GMAIL_PREFETCH, PEOPLE, PROXIES, SCANNERS, STRANGE, Seen, corpus, frame

RULES = Tracking(base_url="https://t.example.com")
"""As shipped: 2 s after sending, 3 links within 2 s."""


def judged(seen: list[Seen], rules: Tracking = RULES) -> list[str]:
    return list(result(seen, rules)["class"])


def result(seen: list[Seen], rules: Tracking = RULES) -> pd.DataFrame:
    events = frame(seen)
    return judge(events, find_bursts(events[events["kind"] == "clicked"], rules), rules)


@pytest.mark.parametrize(
    ("agents", "expected"),
    [
        (PEOPLE, None),
        (PROXIES, "proxy"),
        ((GMAIL_PREFETCH,), "prefetch"),
        (SCANNERS, "scanner"),
        (STRANGE, "unknown"),
    ],
    ids=["people", "proxies", "prefetch", "scanners", "strange"],
)
def test_user_agents(agents: tuple[str, ...], expected: str | None) -> None:
    for agent in agents:
        verdict = judge_agent(agent)
        assert (verdict.class_ if verdict else None) == expected, agent


def test_precision_and_recall_on_a_labelled_mailing(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """What is missed is meant: patient scanners, eager people, people behind the address of a scanner."""
    rules = config.channels_file.tracking
    events = frame([hit for seed in range(3) for hit in _numbered(seed)])
    found = judge(events, find_bursts(events[events["kind"] == "clicked"], rules), rules)["class"]
    lines = [f"{len(events):,} labelled hits, rules {rules_version(rules)}", "class     hits  precision  recall"]
    for name in ("person", "proxy", "prefetch", "scanner", "unknown"):
        is_, said = events["label"] == name, found == name
        both = int((is_ & said).sum())
        precision, recall = both / max(int(said.sum()), 1), both / max(int(is_.sum()), 1)
        lines.append(f"{name:<8} {int(is_.sum()):>5} {precision:>10.3f} {recall:>7.3f}")
        assert precision > 0.9 and recall > 0.9, lines[-1]
    with capsys.disabled():
        print("\n" + "\n".join(lines))


def _numbered(seed: int) -> list[Seen]:
    return [
        Seen(**{**hit.__dict__, "message_id": hit.message_id + seed * 10_000})
        for hit in corpus(seed, messages=1500)
    ]


def clicks(*links_at: tuple[int, float], message_id: int = 1, ip: str = "205.0.0.1") -> list[Seen]:
    return [Seen("clicked", message_id, at, CHROME, ip, "", link) for link, at in links_at]


def test_a_burst_is_three_different_links_of_one_message_within_two_seconds() -> None:
    assert judged(clicks((1, 10), (2, 11), (3, 12))) == ["scanner"] * 3
    assert judged(clicks((1, 10), (2, 11), (3, 12.1))) == ["person"] * 3
    assert judged(clicks((1, 10), (2, 11), (1, 12), (2, 12.5))) == ["person"] * 4
    assert judged([*clicks((1, 10), (2, 10)), *clicks((3, 10), message_id=2)]) == ["person"] * 3


def test_a_burst_takes_in_all_its_clicks_in_whatever_order_they_are_stored() -> None:
    assert judged(clicks((3, 13), (1, 10), (2, 11.5), (4, 12))) == ["scanner"] * 4
    assert judged(clicks((1, 10), (2, 11), (3, 12), (1, 13.9), (5, 60))) == ["scanner"] * 5, "60 s: its address"
    assert judged(clicks((1, 10), (2, 11), (3, 12), (1, 60), ip="10.0.0.1")) == ["scanner"] * 3 + ["person"]


def test_the_address_of_a_burst_is_a_scanners_for_a_day() -> None:
    burst = clicks((1, 10), (2, 10.5), (3, 11))
    day = 24 * 3600
    others = [
        Seen("opened", 2, 8.4, CHROME, "205.0.0.1", ""),
        Seen("opened", 3, 7.9, CHROME, "205.0.0.1", ""),
        Seen("clicked", 4, 11 + day, CHROME, "205.0.0.1", "", 1),
        Seen("clicked", 5, 11.1 + day, CHROME, "205.0.0.1", "", 1),
        Seen("clicked", 6, 30, CHROME, "205.0.0.2", "", 1),
        Seen("opened", 7, 30, PROXIES[0], "205.0.0.1", ""),
    ]
    assert judged(burst + others)[3:] == ["scanner", "person", "scanner", "person", "person", "proxy"]


@pytest.mark.parametrize("ip", ["127.0.0.1", "10.1.2.3", "192.168.0.4", "172.16.9.9", "::1", "fd00::1", "unix"])
def test_a_proxy_in_front_of_us_is_never_taken_for_a_scanner(ip: str) -> None:
    hits = [*clicks((1, 10), (2, 10.5), (3, 11), ip=ip), Seen("opened", 2, 60, CHROME, ip, "")]
    assert judged(hits) == ["scanner"] * 3 + ["person"]


def test_too_soon_for_a_person() -> None:
    hits = [
        Seen("clicked", 1, 1.9, CHROME, "81.0.0.1", "", 1),
        Seen("clicked", 2, 2.0, CHROME, "81.0.0.2", "", 1),
        Seen("opened", 3, 0.5, CHROME, "81.0.0.3", ""),
        Seen("opened", 4, 0.5, "Mozilla/5.0", "17.0.0.3", ""),
        Seen("opened", 5, 2.5, "Mozilla/5.0", "17.0.0.3", ""),
        Seen("clicked", 6, -0.5, CHROME, "81.0.0.4", "", 1),
    ]
    assert judged(hits) == ["scanner", "person", "scanner", "prefetch", "proxy", "unknown"]
    assert result(hits)["evidence"].iloc[0] == "1.9 s after sending"


def test_what_says_itself_that_it_is_a_prefetch_is_one() -> None:
    assert judged([Seen("clicked", 1, 60, CHROME, "81.0.0.1", "", 1, prefetch=True)]) == ["prefetch"]


def test_a_scanner_gives_itself_away_by_its_burst_whatever_it_calls_itself() -> None:
    hits = [Seen("clicked", 1, 60 + n / 10, "Mozilla/5.0", "205.0.0.1", "", n) for n in range(1, 5)]
    assert judged(hits) == ["scanner"] * 4


def test_without_agent_address_or_time_nothing_breaks() -> None:
    events = frame([Seen("opened", 1, 60, None, "81.0.0.1", ""), Seen("opened", 2, 60, CHROME, "81.0.0.1", "")])
    events["ip"], events["sent_at"] = None, pd.to_datetime([None, None], utc=True)
    nobody = find_bursts(events[events["kind"] == "clicked"], RULES)
    assert list(judge(events, nobody, RULES)["class"]) == ["scanner", "unknown"]
    assert judge(events[:0], nobody, RULES).empty


def test_other_numbers_are_other_rules() -> None:
    slower = RULES.model_copy(update={"scanner_seconds": 30})
    assert rules_version(slower) != rules_version(RULES)
    assert judged([Seen("clicked", 1, 20, CHROME, "81.0.0.1", "", 1)], slower) == ["scanner"]
