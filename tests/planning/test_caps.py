"""Caps against the obvious slow way: random rules, histories, zones and clocks, to the microsecond."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from lifecycle.planning.plan import make_plan
from lifecycle.settings import Config
from lifecycle.settings.models import CampaignsFile, CapRule
from tests.planning.people import (
    DAY,
    NOW,
    add_members,
    add_messages,
    add_people,
    clear,
    hashed,
    message,
    verdict_rows,
    with_caps,
)

TICK = timedelta(microseconds=1)
PEOPLE = range(1, 26)
FIRST = ("vip_thanks", "flash")
"""Campaigns that go before winback; `late` goes after it. Nobody but winback has an audience."""
TAGS = {"winback": ["sale", "spring"], "flash": ["sale"], "vip_thanks": ["thank_you"], "late": []}
ZONES = ("Europe/Paris", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Havana")
CLOCKS = [
    *(NOW + timedelta(hours=hours) for hours in (0, 13, 15)),
    datetime(2026, 3, 29, 1, 30, tzinfo=UTC),  # Paris has just skipped an hour
    datetime(2026, 10, 25, 1, 15, tzinfo=UTC),  # and repeats one
    datetime(2026, 3, 8, 5, 30, tzinfo=UTC),  # Havana skips midnight
    datetime(2026, 11, 1, 4, 30, tzinfo=UTC),  # and has it twice
    datetime(2027, 1, 1, 0, 0, tzinfo=UTC),
    datetime(2026, 11, 30, 23, 30, tzinfo=UTC),
]


def a_rule(random: Random, number: int) -> dict[str, Any]:
    window: dict[str, Any] = random.choice(
        [
            *({"days": days} for days in (1, 3, 7, 30)),
            *({"hours": hours} for hours in (1, 16, 36)),
            *({"per": per, "timezone": random.choice(ZONES)} for per in ("day", "week", "month", "year")),
        ]
    )
    return window | {
        "name": f"rule_{number}",
        "limit": random.choice([1, 1, 1, 2, 2, 3, 0, None]),
        "channels": random.choice([None, None, ["email"], ["email", "chat"]]),
        "campaigns": random.choice([None, None, None, ["winback"], ["winback", "vip_thanks"], ["vip_thanks"]]),
        "purposes": random.choice([None, None, ["marketing"], ["marketing", "transactional"], ["transactional"]]),
        "tags": random.choice([None, None, None, ["sale"], ["thank_you"], ["spring", "thank_you"]]),
        "shops": random.choice([None, None, None, ["atlas"], ["harbour", "atlas"]]),
        "segments": random.choice([None, None, None, ["vip"], ["vip", "dormant"]]),
        "scope": random.choice(["customer", "customer", "customer_and_shop", "address"]),
        "learns_from_refusals": random.random() < 0.2,
    }


def a_message(random: Random, rules: Sequence[CapRule], at: datetime, number: int) -> dict[str, Any]:
    rule = random.choice(rules)
    edge = at - random.randrange(4) * timedelta(days=rule.days or 1, hours=rule.hours or 0)
    if rule.per is not None and random.random() < 0.8:
        edge = _bound(rule, at, -1)
    what = random.choice(["winback", *FIRST, "late"])
    today = what != "winback" and random.random() < 0.3
    return message(
        random.choice(PEOPLE),
        edge + random.choice([timedelta(0), TICK, -TICK, timedelta(hours=-random.randrange(200))]),
        what=what,
        occurrence=NOW_DATE if today else f"earlier {number}",
        channel=random.choice(["email", "email", "email", "chat"]),
        purpose=random.choice(["marketing"] * 5 + ["review_request", "transactional"]),
        tags=f",{','.join(sorted(TAGS[what]))}," if TAGS[what] else None,
        shop=random.choice(["atlas", "harbour"]),
        state=(state := random.choice(["reserved", "sending", "accepted", "accepted", "unknown", "refused"])),
        refusal=random.choice([None, "buyer", "address"]) if state == "refused" else None,
        address_hash=hashed(random.choice(PEOPLE)) if random.random() < 0.3 else None,
    )


NOW_DATE = "today"


@settings(max_examples=45, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_caps_equal_the_slow_way(engine: Engine, changed: Callable[..., Config], seed: int) -> None:
    random = Random(seed)
    at = random.choice(CLOCKS) + random.choice([timedelta(0), TICK, -TICK])
    clear(engine)
    rules = [a_rule(random, number) for number in range(random.randint(1, 4))]
    config = _with_more_campaigns(changed, rules)
    shops = {i: random.choice(["atlas", "harbour"]) for i in PEOPLE}
    add_people(engine, PEOPLE, shops=shops, built=at - DAY / 24)
    vip = [i for i in PEOPLE if random.random() < 0.5]
    add_members(engine, "vip", vip, since=at - 10 * DAY, until=None)
    today = at.astimezone(ZoneInfo(config.campaigns_file.timezone)).date().isoformat()
    ledger = _ledger(engine, random, config, at, today)

    plan = make_plan(engine, config, "winback", as_of=at, now=at)

    found = verdict_rows(engine, plan.plan_id)
    for person in PEOPLE:
        row = found[person]
        expected = _slowly(config, ledger, person, shops[person], person in vip, at, today)
        assert (row.verdict, row.rule, row.blocking_message_id, row.frees_at) == expected


def _ledger(engine: Engine, random: Random, config: Config, at: datetime, today: str) -> list[dict[str, Any]]:
    """A campaign writes to a person once a day in a channel: of two messages of today the second is of another."""
    rows, taken = [], set()
    for number in range(random.randrange(20, 120)):
        row = a_message(random, config.caps_file.caps, at, number)
        row["address_hash"] = row["address_hash"] or hashed(row["customer_id"])
        key = row["what"], row["customer_id"], row["channel"]
        if row["occurrence"] == NOW_DATE:
            row["occurrence"] = today if key not in taken else f"earlier {number}"
            taken.add(key)
        rows.append(row)
    ids = add_messages(engine, rows)
    return [row | {"message_id": message_id} for row, message_id in zip(rows, ids, strict=True)]


def _with_more_campaigns(changed: Callable[..., Config], caps: Sequence[Mapping[str, Any]]) -> Config:
    config = with_caps(changed, *caps)
    winback = config.campaign("winback")
    nobody = {"segments": ["champions"]}
    flash, late = (winback.model_dump() | nobody | {"name": name} for name in ("flash", "late"))
    every = [campaign.model_dump() for campaign in config.campaigns_file.campaigns]
    tagged = [campaign | {"tags": TAGS[campaign["name"]]} for campaign in (flash, *every, late)]
    elsewhere = [c | nobody if c["name"] == "vip_thanks" else c for c in tagged]
    file = config.campaigns_file.model_dump() | {"campaigns": elsewhere}
    return replace(config, campaigns_file=CampaignsFile.model_validate(file))


def _slowly(
    config: Config,
    ledger: Sequence[Mapping[str, Any]],
    person: int,
    shop: str,
    is_vip: bool,
    at: datetime,
    today: str,
) -> tuple[str, str | None, int | None, datetime | None]:
    blocks: list[tuple[int, bool, int | None, int | None, datetime | None]] = []
    for position, rule in enumerate(config.caps_file.caps):
        if rule.limit is None or not _concerns_winback(rule, shop, is_vip):
            continue
        if rule.limit == 0:
            blocks.append((position, True, None, None, None))
            continue
        mine = []
        for row in ledger:
            if _is_counted(rule, row, person, shop):
                waits = row["state"] in ("reserved", "sending")
                sent = at if waits else row["send_at"]
                if sent <= at and _same_window(rule, sent, at):
                    mine.append((sent, row["message_id"], row))
        mine.sort(key=lambda each: each[:2], reverse=True)
        holding = [each for each in mine if each[2]["state"] != "refused"]
        won = [i for _, i, row in holding if row["what"] in FIRST and row["occurrence"] == today]
        until: list[tuple[datetime, int]] = []
        if len(holding) >= rule.limit:
            sent, blocking, _ = holding[rule.limit - 1]
            until.append((_frees(rule, sent, at), blocking))
        refused = [each for each in mine if each[2]["state"] == "refused"] if rule.learns_from_refusals else []
        if refused:
            until.append((_frees(rule, refused[0][0], at), refused[0][1]))
        if until:
            frees_at, blocking = max(until, key=lambda each: each[0])
            unaided = len(holding) - len(won) >= rule.limit or bool(refused)
            winner = next((i for _, i, row in holding if i in won), None)
            blocks.append((position, unaided, blocking, winner, frees_at))
    if not blocks:
        return "selected", None, None, None
    last = max(blocks, key=lambda block: (block[4] is None, block[4] or at, -block[0]))
    name = config.caps_file.caps[last[0]].name
    if any(block[1] for block in blocks):
        return "capped", name, last[2], last[4]
    return "lost_to", name, last[3], last[4]


def _concerns_winback(rule: CapRule, shop: str, is_vip: bool) -> bool:
    return (
        "marketing" in (rule.purposes or ["marketing"])
        and "email" in (rule.channels or ["email"])
        and "winback" in (rule.campaigns or ["winback"])
        and bool(set(rule.tags or ["sale"]) & set(TAGS["winback"]))
        and shop in (rule.shops or [shop])
        and (rule.segments is None or "dormant" in rule.segments or is_vip)
    )


def _is_counted(rule: CapRule, row: Mapping[str, Any], person: int, shop: str) -> bool:
    if row["state"] == "refused" and row["refusal"] != "buyer":
        return False
    if rule.scope == "address":
        if row["address_hash"] != hashed(person):
            return False
    elif row["customer_id"] != person or (rule.scope == "customer_and_shop" and row["shop"] != shop):
        return False
    if rule.purposes is None and row["purpose"] == "transactional":
        return False
    tags = (row["tags"] or "").strip(",").split(",")
    return (
        (rule.purposes is None or row["purpose"] in rule.purposes)
        and (rule.channels is None or row["channel"] in rule.channels)
        and (rule.campaigns is None or row["what"] in rule.campaigns)
        and (rule.tags is None or any(tag in rule.tags for tag in tags))
        and (rule.shops is None or row["shop"] in rule.shops)
    )


def _same_window(rule: CapRule, sent: datetime, at: datetime) -> bool:
    if rule.per is None:
        return sent > at - timedelta(days=rule.days or 0, hours=rule.hours or 0)
    return _period(rule, sent) == _period(rule, at)


def _period(rule: CapRule, instant: datetime) -> Any:
    day = instant.astimezone(ZoneInfo(rule.timezone or "")).date()
    return {
        "day": day,
        "week": day.isocalendar()[:2],
        "month": (day.year, day.month),
        "year": day.year,
    }[rule.per or ""]


def _frees(rule: CapRule, sent: datetime, at: datetime) -> datetime:
    if rule.per is None:
        return sent + timedelta(days=rule.days or 0, hours=rule.hours or 0)
    return _bound(rule, at, 1)


def _bound(rule: CapRule, at: datetime, direction: int) -> datetime:
    """The nearest edge of the calendar period: the first instant after it, or its own first one."""
    inside, outside = at, at + direction * 400 * DAY
    while abs(outside - inside) > TICK:
        middle = inside + (outside - inside) // 2
        if _period(rule, middle) == _period(rule, at):
            inside = middle
        else:
            outside = middle
    return max(inside, outside)


def test_zero_missing_and_null_differ(engine: Engine, changed: Callable[..., Config]) -> None:
    add_people(engine, [1])
    none_at_all = with_caps(changed, {"name": "never", "limit": 0, "days": 7})
    plan = make_plan(engine, none_at_all, "winback", as_of=NOW, now=NOW)
    assert verdict_rows(engine, plan.plan_id)[1].verdict == "capped"
    no_limit = with_caps(changed, {"name": "off", "limit": None, "days": 7})
    plan = make_plan(engine, no_limit, "winback", as_of=NOW, now=NOW)
    assert verdict_rows(engine, plan.plan_id)[1].verdict == "selected"
    with pytest.raises(ValueError, match="limit"):
        with_caps(changed, {"name": "forgotten", "days": 7})


@pytest.mark.parametrize(
    ("window", "says"),
    [
        ({}, "exactly one of days, hours and per"),
        ({"days": 1, "hours": 24}, "exactly one of days, hours and per"),
        ({"per": "month"}, "per and timezone belong together"),
        ({"days": 7, "timezone": "Europe/Paris"}, "per and timezone belong together"),
        ({"per": "day", "timezone": "Europe/Pari"}, "Europe/Paris"),
        ({"days": -1}, "greater than 0"),
        ({"days": 7, "limit": -1}, "greater than or equal to 0"),
    ],
)
def test_a_window_that_cannot_be_is_an_error(
    changed: Callable[..., Config], window: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        with_caps(changed, {"name": "odd", "limit": 1, **window})
