"""Which of the real sends of a grocer's 27 campaigns to 1,559 households some usual caps allow.

The data are `complete_journey` beside the project (84.51°, CC0): which campaign targeted whom, and from when.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Text, cast, insert, update

from lifecycle.db.engine import writing
from lifecycle.db.schema import consents, customer_metrics, customers, messages, segment_members
from lifecycle.ledger.audit import audit
from lifecycle.ledger.reserve import reserve
from lifecycle.planning.plan import make_plan
from lifecycle.settings import Config
from lifecycle.settings.policies import cap_rules
from tests.planning.people import SECRET, consent, hashed, note_build, verdict_rows, with_caps

BUILT = datetime(2016, 11, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Campaign:
    name: str
    date: str
    households: frozenset[int]

    @property
    def at(self) -> datetime:
        return datetime.fromisoformat(f"{self.date}T09:00:00+00:00")


@pytest.fixture(scope="module")
def journey(shared: Path) -> list[Campaign]:
    """By date; of one date by number."""
    folder = shared / "data" / "complete_journey"
    if not folder.is_dir():
        pytest.skip("../shared/data/complete_journey is absent")
    meant = defaultdict(set)
    for row in _rows(folder / "campaigns.csv"):
        meant[row["campaign_id"]].add(int(row["household_id"]))
    described = sorted(
        _rows(folder / "campaign_descriptions.csv"), key=lambda row: (row["start_date"], int(row["campaign_id"]))
    )
    return [
        Campaign(f"campaign_{row['campaign_id']}", row["start_date"], frozenset(meant[row["campaign_id"]]))
        for row in described
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_it_is_all_there(journey: Sequence[Campaign]) -> None:
    assert len(journey) == 27
    assert sum(len(campaign.households) for campaign in journey) == 6_589
    assert len(frozenset().union(*(campaign.households for campaign in journey))) == 1_559


ALLOWED_AND_CAPPED: dict[str, tuple[list[dict[str, Any]], int, dict[str, int]]] = {
    "one_a_week": ([{"name": "one_a_week", "limit": 1, "days": 7}], 6_552, {"one_a_week": 37}),
    "one_in_30_days": ([{"name": "one_in_30_days", "limit": 1, "days": 30}], 5_010, {"one_in_30_days": 1_579}),
    "two_in_30_days": ([{"name": "two_in_30_days", "limit": 2, "days": 30}], 6_490, {"two_in_30_days": 99}),
    "aliexpress": ([], 6_242, {"aliexpress_mail_1_per_14_days": 347}),
}
"""The rules, how many of the 6,589 sends they allow, and how many each of them stops. The second of AliExpress,
two in 7 days, has nothing left to stop."""


@pytest.mark.parametrize(
    ("database_url", "rules"),
    [("sqlite", rules) for rules in ALLOWED_AND_CAPPED],  # each as long again on PostgreSQL
    indirect=["database_url"],
)
def test_real_sends_under_usual_caps(
    engine: Engine, changed: Callable[..., Config], journey: Sequence[Campaign], tmp_path: Path, rules: str
) -> None:
    """Each campaign is planned and reserved on its first day, as it would have been sent."""
    own, allowed, capped = ALLOWED_AND_CAPPED[rules]
    config = as_campaigns(changed, journey, own, on_aliexpress=rules == "aliexpress")
    add_households(engine, journey)
    found: dict[tuple[str, int], str | None] = {}
    for campaign in journey:
        plan = make_plan(engine, config, campaign.name, as_of=campaign.at, now=campaign.at)
        rows = verdict_rows(engine, plan.plan_id)
        assert {row.verdict for row in rows.values()} <= {"selected", "capped", "lost_to"}
        found |= {(campaign.name, household): row.rule for household, row in rows.items()}
        reserved = reserve(engine, config, plan.plan_id, now=campaign.at, secret=SECRET)
        assert (reserved.reserved, reserved.revised) == (plan.counts["selected"], {})
        deliver(engine, campaign.at)

    caps = {rule.name: (rule.limit or 0, timedelta(days=rule.days or 0)) for rule in all_rules(config)}
    assert found == slowly(journey, caps)
    counted = Counter(found.values())
    assert (counted.pop(None), dict(counted)) == (allowed, capped)
    findings = audit(engine, data_dir=tmp_path, now=journey[-1].at)
    assert [finding.sentence for finding in findings if not finding.passed] == []


def as_campaigns(
    changed: Callable[..., Config],
    journey: Sequence[Campaign],
    caps: Sequence[Mapping[str, Any]],
    *,
    on_aliexpress: bool,
) -> Config:
    """Each on its date; of two on one date the smaller number goes first."""
    config = with_caps(changed, *caps)
    like = config.campaign("winback").model_dump() | {"exclude": []}
    campaigns = [
        like | {"name": each.name, "segments": [each.name], "schedule": {"dates": [each.date]}, "priority": number}
        for number, each in enumerate(journey)
    ]
    shop = config.shops["atlas"].model_dump()
    if on_aliexpress:
        shop |= {"platform": "file", "marketplace": "aliexpress"}
    return changed(
        shops_file={"shops": [shop]},
        caps_file={"caps": list(caps)},
        campaigns_file={"global_hold_out": 0, "look_ahead_days": 0, "campaigns": campaigns},
    )


def all_rules(config: Config) -> list[Any]:
    return [*config.caps_file.caps, *cap_rules(config)]


def add_households(engine: Engine, journey: Sequence[Campaign]) -> None:
    """Customers of atlas, each in a segment for every campaign that was meant for them."""
    households = sorted(frozenset().union(*(campaign.households for campaign in journey)))
    ones = dict.fromkeys(
        ("frequency", "order_days", "order_lines", "gross_minor", "refunded_minor", "monetary_minor", "orders_12m",
         "spend_12m_minor", "r", "f", "m"), 1,
    )  # fmt: skip
    measured = {
        "first_order_at": BUILT,
        "last_order_at": BUILT,
        "last_shop": "atlas",
        "rfm_segment": "hibernating",
    }
    with writing(engine) as connection:
        connection.execute(
            insert(customers),
            [
                {
                    "customer_id": i,
                    "email": f"c{i}@example.com",
                    "email_key": f"c{i}@example.com",
                    "email_hash": hashed(i),
                    "seed": i,
                    "first_seen_at": BUILT,
                    "updated_at": BUILT,
                }
                for i in households
            ],
        )
        connection.execute(insert(consents), [consent(i, at=BUILT) for i in households])
        connection.execute(insert(customer_metrics), [ones | measured | {"customer_id": i} for i in households])
        connection.execute(
            insert(segment_members),
            [
                {"segment": campaign.name, "customer_id": i, "valid_from": BUILT}
                for campaign in journey
                for i in campaign.households
            ],
        )
    note_build(engine, BUILT)


def deliver(engine: Engine, at: datetime) -> None:
    """What is reserved is sent at once, and accepted."""
    with writing(engine) as connection:
        connection.execute(
            update(messages)
            .where(messages.c.state == "reserved")
            .values(
                state="accepted",
                sent_at=at,
                settled_at=at,
                provider_id=cast(messages.c.message_id, Text),
            )
        )


def slowly(
    journey: Sequence[Campaign], caps: Mapping[str, tuple[int, timedelta]]
) -> dict[tuple[str, int], str | None]:
    """By campaign and household: the rule that stops it, of several the one whose slot frees last; None: sent."""
    sent: dict[int, list[datetime]] = defaultdict(list)
    found: dict[tuple[str, int], str | None] = {}
    for campaign in journey:
        for household in campaign.households:
            stopped = {}
            for name, (limit, window) in caps.items():
                within = [at for at in sent[household] if campaign.at - window < at <= campaign.at]
                if len(within) >= limit:
                    stopped[name] = within[-limit] + window
            found[campaign.name, household] = max(stopped, key=lambda name: stopped[name], default=None)
            if not stopped:
                sent[household].append(campaign.at)
    return found
