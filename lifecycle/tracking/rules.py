"""Who made a hit: a person, a privacy proxy, a prefetch, a scanner, or nobody can tell.

Rules look at the User-Agent (`agents`), at the time since sending and at bursts: several links of one message
in a moment, and the address that did so. Frames in, frames out; `classify` applies them to the database.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pandas as pd

from lifecycle.settings.channels import Tracking
from lifecycle.tracking.agents import judge_agent

RULES_VERSION = "2026-11-22"
CLASSES = ("person", "proxy", "unknown", "prefetch", "scanner")
"""From the strongest to the weakest sign of a reader: a message's best hit says how it was opened."""

IP_MEMORY = timedelta(hours=24)
_OWN_NETWORKS = tuple(
    ipaddress.ip_network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)


@dataclass(frozen=True)
class Bursts:
    """What only a machine does. `events`: ids of the clicks in bursts. `addresses`: ip, since, until."""

    events: frozenset[int]
    addresses: pd.DataFrame


def rules_version(tracking: Tracking) -> str:
    """The rules with the numbers they use: other numbers in config/channels.yaml are other rules."""
    return f"{RULES_VERSION}/{tracking.scanner_seconds:g}s/{tracking.burst_links}in{tracking.burst_seconds:g}s"


def find_bursts(clicks: pd.DataFrame, tracking: Tracking) -> Bursts:
    """Messages of which `burst_links` different links were followed within `burst_seconds`.

    clicks: one row per click: event_id, message_id, link_id, occurred_at (aware UTC), ip.
    """
    span = pd.Timedelta(seconds=tracking.burst_seconds)
    enough = clicks.groupby("message_id")["link_id"].transform("nunique") >= tracking.burst_links
    suspects = clicks[enough].sort_values(["message_id", "occurred_at", "event_id"])
    rows = suspects[["message_id", "link_id", "occurred_at", "event_id", "ip"]].itertuples(index=False)
    events: set[int] = set()
    seen: set[tuple[str, pd.Timestamp]] = set()
    for _, of_message in itertools.groupby(rows, key=lambda row: row.message_id):
        followed = list(of_message)
        for row in _in_burst(followed, tracking.burst_links, span):
            events.add(row.event_id)
            seen.add((row.ip, row.occurred_at))
    return Bursts(frozenset(events), _remembered(seen, span))


def judge(events: pd.DataFrame, bursts: Bursts, tracking: Tracking) -> pd.DataFrame:
    """Class and evidence of every event, by the first rule that applies.

    events: one row per open or click: event_id, occurred_at and sent_at (aware UTC; sent_at may be missing),
    user_agent, ip, prefetch and read (bool). Returns event_id, class, evidence.
    """
    by_agent, agent_says = _by_agent(events["user_agent"])
    seconds = (events["occurred_at"] - events["sent_at"]).dt.total_seconds()
    soon = (seconds >= 0) & (seconds < tracking.scanner_seconds)
    moment = seconds.round(1).astype(str) + " s after sending"
    burst = f"{tracking.burst_links} links of one message within {tracking.burst_seconds:g} s"
    rules: list[tuple[pd.Series, str | pd.Series, str | pd.Series]] = [
        (events["read"], "person", "the messenger says that it was read"),
        (events["prefetch"], "prefetch", "the request says so: Sec-Purpose or HEAD"),
        (by_agent.isin(["prefetch", "scanner"]), by_agent, agent_says),
        (events["event_id"].isin(bursts.events), "scanner", burst),
        ((by_agent == "proxy") & soon, "prefetch", agent_says + ", " + moment),
        (by_agent == "proxy", "proxy", agent_says),
        (soon, "scanner", moment),
        (seconds < 0, "unknown", "before its message was sent: clocks disagree"),
        (_by_address(events, bursts), "scanner", f"its address followed {burst} in the last 24 h"),
        (by_agent == "unknown", "unknown", agent_says),
        (events["sent_at"].isna(), "unknown", "its message was never sent"),
        (by_agent == "", "person", "an ordinary program at a person's pace"),
    ]
    result = pd.DataFrame({"event_id": events["event_id"], "class": "", "evidence": ""}, index=events.index)
    for applies, class_, evidence in rules:
        undecided = applies & (result["class"] == "")
        result.loc[undecided, "class"] = class_ if isinstance(class_, str) else class_[undecided]
        result.loc[undecided, "evidence"] = evidence if isinstance(evidence, str) else evidence[undecided]
    return result


def _by_agent(agents: pd.Series) -> tuple[pd.Series, pd.Series]:
    """What each User-Agent alone decides, and why; empty where it decides nothing."""
    agents = agents.fillna("")
    judged = {agent: judge_agent(agent) for agent in agents.unique()}
    classes = {agent: verdict.class_ if verdict else "" for agent, verdict in judged.items()}
    reasons = {agent: verdict.evidence if verdict else "" for agent, verdict in judged.items()}
    return agents.map(classes), agents.map(reasons)


def _in_burst(clicks: Sequence[Any], enough: int, span: pd.Timedelta) -> Iterator[Any]:
    """Of one message's clicks in order of time: those in any window of `span` with `enough` different links."""
    inside: Counter[int] = Counter()
    first = told = 0
    for last, click in enumerate(clicks):
        inside[click.link_id] += 1
        while click.occurred_at - clicks[first].occurred_at > span:
            inside[clicks[first].link_id] -= 1
            first += 1
        if len(+inside) >= enough:
            yield from clicks[max(first, told) : last + 1]
            told = last + 1


def _remembered(seen: Iterable[tuple[str, pd.Timestamp]], span: pd.Timedelta) -> pd.DataFrame:
    """From shortly before a burst until a day later its address is a scanner's. Our own networks never are:
    there it would be the proxy in front of us, and stand for everybody."""
    addresses = {ip for ip, _ in seen}
    public = {ip for ip in addresses if isinstance(ip, str) and _is_public(ip)}
    frame = pd.DataFrame(sorted((at, ip) for ip, at in seen if ip in public), columns=["at", "ip"])
    frame["at"] = pd.to_datetime(frame["at"], utc=True)
    return pd.DataFrame({"ip": frame["ip"], "since": frame["at"] - span, "until": frame["at"] + IP_MEMORY})


def _is_public(ip: str) -> bool:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local or any(address in net for net in _OWN_NETWORKS))


def _by_address(events: pd.DataFrame, bursts: Bursts) -> pd.Series:
    known = pd.Series(False, index=events.index)
    suspects = events.loc[events["ip"].isin(bursts.addresses["ip"].unique()), ["ip", "occurred_at"]]
    if suspects.empty:
        return known
    ordered = suspects.sort_values("occurred_at").reset_index(names="row")
    newest = pd.merge_asof(ordered, bursts.addresses, left_on="occurred_at", right_on="since", by="ip")
    known.loc[newest.loc[newest["until"] >= newest["occurred_at"], "row"]] = True
    return known
