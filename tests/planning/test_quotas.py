"""Quotas against the obvious slow way: random quotas, ledgers, shops, zones and clocks, to the microsecond."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert

from lifecycle.db.engine import writing
from lifecycle.db.schema import orders
from lifecycle.ledger.audit import audit
from lifecycle.ledger.reserve import reserve
from lifecycle.planning.plan import make_plan
from lifecycle.settings import Config
from lifecycle.settings.models import Quota
from tests.planning.people import (
    DAY,
    NOW,
    SECRET,
    SEEDS,
    add_members,
    add_messages,
    add_people,
    clear,
    message,
    verdict_rows,
    with_caps,
)

TICK = timedelta(microseconds=1)
PEOPLE = range(1, 25)
ZONES = ("Europe/Paris", "America/New_York", "Asia/Kathmandu", "America/Havana")
CLOCKS = [
    *(NOW + timedelta(hours=hours) for hours in (0, 13, 15)),
    datetime(2026, 3, 29, 1, 30, tzinfo=UTC),  # Paris has just skipped an hour
    datetime(2026, 3, 8, 5, 30, tzinfo=UTC),  # Havana skips midnight
    datetime(2026, 11, 1, 4, 30, tzinfo=UTC),  # and has it twice
    datetime(2027, 1, 1, 0, 0, tzinfo=UTC),
    datetime(2026, 11, 30, 23, 0, tzinfo=UTC),
]
ADDRESSES = {
    "atlas": "news@atlas.example.com",
    "bazaar": "hello@atlas.example.com",
    "harbour": "news@harbour.example",
}
"""Two shops send from one domain."""
DOMAINS = {"atlas": "atlas.example.com", "bazaar": "atlas.example.com", "harbour": "harbour.example"}
LEVELS = ("", "bronze", "gold")


def a_quota(random: Random, number: int, at: datetime) -> dict[str, Any]:
    window: dict[str, Any] = random.choice(
        [
            *({"days": days} for days in (1, 7)),
            *({"hours": hours} for hours in (1, 24, 36)),
            *({"per": per, "timezone": random.choice(ZONES)} for per in ("day", "week", "month", "year")),
        ]
    )
    scope = random.choice(["shop", "shop", "channel", "sender_domain"])
    limit: Any = random.choice([0, 1, 3, 5, 8, 12, 20, None])
    if scope == "shop" and random.random() < 0.4:
        limit = {level: random.randrange(12) for level in LEVELS if random.random() < 0.7} or {"gold": 3}
    ramp = None
    if window.get("per") == "day" and random.random() < 0.6:
        limits = [random.randrange(10) for _ in range(random.randint(1, 4))]
        started = at.astimezone(ZoneInfo(window["timezone"])).date() - timedelta(days=random.randint(-1, 5))
        ramp = {"starts_on": started, "limits": limits}
    return window | {
        "name": f"quota_{number}",
        "scope": scope,
        "limit": limit,
        "ramp": ramp,
        "channels": random.choice([None, None, ["email"], ["chat", "email"]]),
        "purposes": random.choice([None, None, ["marketing"], ["marketing", "transactional"]]),
        "campaigns": random.choice([None, None, None, ["winback"], ["vip_thanks"]]),
        "shops": random.choice([None, None, ["atlas"], ["harbour", "bazaar"]]),
        "tags": random.choice([None, None, None, ["sale"], ["thanks"]]),
    }


def a_world(random: Random, changed: Callable[..., Config], at: datetime) -> Config:
    config = with_caps(changed, tags=["sale"])
    quotas = [a_quota(random, number, at) for number in range(random.randint(1, 3))]
    return _with_shops(config, changed, quotas, {shop: random.choice(LEVELS) for shop in ADDRESSES})


def _with_shops(
    config: Config, changed: Callable[..., Config], quotas: Sequence[Mapping[str, Any]], levels: Mapping[str, str]
) -> Config:
    known = config.shops["atlas"].model_dump()
    shops = [
        known | {"name": name, "service_level": levels[name], "sender": known["sender"] | {"address": address}}
        for name, address in ADDRESSES.items()
    ]
    return changed(
        shops_file={"shops": shops},
        campaigns_file=config.campaigns_file.model_dump(),
        caps_file={"caps": [], "quotas": list(quotas)},
    )


def some_messages(random: Random, quotas: Sequence[Quota], at: datetime, most: int) -> list[dict[str, Any]]:
    return [_a_message(random, random.choice(quotas), at, number) for number in range(random.randrange(most))]


def _a_message(random: Random, quota: Quota, at: datetime, number: int) -> dict[str, Any]:
    edge = at - random.randrange(3) * timedelta(days=quota.days or 1, hours=quota.hours or 0)
    if quota.per is not None and random.random() < 0.5:
        edge = _bound(quota, at, -1)
    sent_at = min(edge + random.choice([TICK * 0, TICK, -TICK, -timedelta(minutes=random.randrange(6_000))]), at)
    state = random.choice(["reserved", "sending", "accepted", "accepted", "accepted", "unknown", "refused"])
    return message(
        random.choice(PEOPLE),
        sent_at,
        occurrence=f"{at.isoformat()} {number}",
        what=random.choice(["winback", "vip_thanks"]),
        channel=random.choice(["email", "email", "email", "chat"]),
        purpose=random.choice(["marketing"] * 5 + ["transactional"]),
        tags=random.choice([None, ",sale,", ",thanks,", ",presale,"]),
        shop=random.choice(list(ADDRESSES)),
        state=state,
        sent_at=None if state == "reserved" else sent_at,
    )


@dataclass(frozen=True)
class Room:
    """A group of a quota: its shops, what is left, and when a slot frees; None where it is over its limit."""

    name: str
    shops: frozenset[str]
    free: int
    frees_at: datetime | None


def rooms(config: Config, ledger: Sequence[Mapping[str, Any]], at: datetime) -> Iterator[Room]:
    for quota in config.caps_file.quotas:
        if (quota.limit is None and quota.ramp is None) or not _concerns_winback(quota):
            continue
        groups: dict[str, set[str]] = {}
        for shop in ADDRESSES:
            if shop in (quota.shops or [shop]):
                groups.setdefault({"shop": shop, "channel": "email"}.get(quota.scope, DOMAINS[shop]), set()).add(
                    shop
                )
        for group, shops in groups.items():
            sent = [
                row
                for row in ledger
                if _is_counted(quota, row, at)
                and row["shop"] in shops
                and (quota.scope != "channel" or row["channel"] == "email")
            ]
            limit = _limit(config, quota, group, at)
            waits = ("reserved", "sending")
            left = sorted(at if row["state"] in waits else row["sent_at"] for row in sent)
            first_to_free = [*left, at][max(len(sent) - limit, 0)]
            frees_at: datetime | None = first_to_free + timedelta(days=quota.days or 0, hours=quota.hours or 0)
            if quota.per is not None:
                frees_at = _bound(quota, at, 1)
            if limit == 0:
                frees_at = None
            yield Room(quota.name, frozenset(shops), max(limit - len(sent), 0), frees_at)


def _concerns_winback(quota: Quota) -> bool:
    return (
        "email" in (quota.channels or ["email"])
        and "winback" in (quota.campaigns or ["winback"])
        and "sale" in (quota.tags or ["sale"])
    )


def _is_counted(quota: Quota, row: Mapping[str, Any], at: datetime) -> bool:
    waits = row["state"] in ("reserved", "sending")
    tags = (row["tags"] or "").strip(",").split(",")
    return (
        row["state"] != "refused"
        and (waits or _same_window(quota, row["sent_at"], at))
        and (row["purpose"] != "transactional" if quota.purposes is None else row["purpose"] in quota.purposes)
        and (quota.channels is None or row["channel"] in quota.channels)
        and (quota.campaigns is None or row["what"] in quota.campaigns)
        and (quota.shops is None or row["shop"] in quota.shops)
        and (quota.tags is None or any(tag in quota.tags for tag in tags))
    )


def _limit(config: Config, quota: Quota, group: str, at: datetime) -> int:
    limit = quota.limit
    if isinstance(limit, dict):
        limit = limit.get(config.shops[group].service_level, 0)
    ordinary = 10**9 if limit is None else limit
    if quota.ramp is None:
        return ordinary
    days = {quota.ramp.starts_on + timedelta(days=n): each for n, each in enumerate(quota.ramp.limits)}
    today = at.astimezone(ZoneInfo(quota.timezone or "")).date()
    return 0 if today < min(days) else min(days.get(today, ordinary), ordinary)


def _same_window(quota: Quota, sent: datetime, at: datetime) -> bool:
    if quota.per is None:
        return at - timedelta(days=quota.days or 0, hours=quota.hours or 0) < sent <= at
    return sent <= at and _period(quota, sent) == _period(quota, at)


def _period(quota: Quota, instant: datetime) -> Any:
    day = instant.astimezone(ZoneInfo(quota.timezone or "")).date()
    week = day.isocalendar()[:2]
    return {"day": day, "week": week, "month": (day.year, day.month), "year": day.year}[quota.per or ""]


def _bound(quota: Quota, at: datetime, direction: int) -> datetime:
    """The nearest edge of the calendar period: the first instant after it, or its own first one."""
    inside, outside = at, at + direction * 400 * DAY
    while abs(outside - inside) > TICK:
        middle = inside + (outside - inside) // 2
        if _period(quota, middle) == _period(quota, at):
            inside = middle
        else:
            outside = middle
    return max(inside, outside)


def most_that_fit(wanted: Mapping[str, int], limits: Sequence[Room]) -> int:
    """All numbers of messages for each shop are tried."""
    return max(
        sum(each)
        for each in itertools.product(*(range(count + 1) for count in wanted.values()))
        if _fits(dict(zip(wanted, each, strict=True)), limits)
    )


def _fits(taken: Mapping[str, int], limits: Sequence[Room]) -> bool:
    return all(sum(taken.get(shop, 0) for shop in room.shops) <= room.free for room in limits)


@settings(max_examples=14, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_quotas_equal_the_slow_way(
    engine: Engine, changed: Callable[..., Config], tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    at = random.choice(CLOCKS) + random.choice([TICK * 0, TICK, -TICK])
    clear(engine)
    config = a_world(random, changed, at)
    shops = {i: random.choice(list(ADDRESSES)) for i in PEOPLE}
    add_people(engine, PEOPLE, shops=shops, built=at - DAY / 24)
    ledger = some_messages(random, config.caps_file.quotas, at, 40)
    add_messages(engine, ledger)

    plan = make_plan(engine, config, "winback", as_of=at, now=at)

    rows = verdict_rows(engine, plan.plan_id)
    decided = {i: (row.verdict, row.rule, row.frees_at) for i, row in rows.items()}
    limits = list(rooms(config, ledger, at))
    selected = check(decided, shops, limits)

    later = at + random.choice([TICK, timedelta(minutes=1), timedelta(hours=2)])
    others = [row | {"state": "accepted"} for row in some_messages(random, config.caps_file.quotas, later, 12)]
    others = [row | {"sent_at": row["send_at"]} for row in others]
    add_messages(engine, others)
    reserved = reserve(engine, config, plan.plan_id, now=later, secret=SECRET)

    rows = verdict_rows(engine, plan.plan_id)
    assert {row.revised_verdict for row in rows.values()} <= {None, "quota"}
    left = {i: (rows[i].revised_verdict or "selected", rows[i].revised_rule, None) for i in selected}
    limits = [Room(room.name, room.shops, room.free, None) for room in rooms(config, [*ledger, *others], later)]
    written_to = check(left, shops, limits)
    assert reserved.reserved == len(written_to)
    findings = audit(engine, data_dir=tmp_path, now=later)
    assert "no plan went over a quota" in [finding.sentence for finding in findings if finding.passed]


def check(
    decided: Mapping[int, tuple[str, str | None, datetime | None]],
    shops: Mapping[int, str],
    limits: Sequence[Room],
) -> set[int]:
    """As many as fit, of each shop those of the smallest seeds; the others name the first quota that is full.
    Returns who is selected."""
    selected = {i for i, (verdict, *_) in decided.items() if verdict == "selected"}
    taken, wanted = Counter(shops[i] for i in selected), Counter(shops[i] for i in decided)
    assert _fits(taken, limits)
    assert len(selected) == most_that_fit(wanted, limits)
    for i, (verdict, rule, frees_at) in decided.items():
        full = [room for room in limits if sum(taken[shop] for shop in room.shops) == room.free]
        mine = [room for room in full if shops[i] in room.shops]
        if i in selected:
            assert (rule, frees_at) == (None, None)
            continue
        assert (verdict, rule) == ("quota", mine[0].name)
        assert frees_at == mine[0].frees_at
        assert all(SEEDS[i] > SEEDS[other] for other in selected if shops[other] == shops[i])
    return selected


def test_zero_missing_and_null_differ(engine: Engine, changed: Callable[..., Config]) -> None:
    add_people(engine, [1])

    def verdict(**quota: Any) -> str:
        config = _with_quotas(changed, {"name": "daily", "per": "day", "timezone": "Europe/Paris"} | quota)
        plan = make_plan(engine, config, "winback", as_of=NOW, now=NOW)
        return str(verdict_rows(engine, plan.plan_id)[1].verdict)

    assert verdict(limit=0) == "quota"
    assert verdict(limit=None) == "selected"
    assert verdict(limit={"gold": 1}) == "quota", "the shop's level is not among them"
    assert verdict(limit={"": 1}) == "selected"
    with pytest.raises(ValueError, match="limit"):
        verdict()


def test_a_ramp_day_by_day(engine: Engine, changed: Callable[..., Config]) -> None:
    """Before it starts nothing, then each day its own, and the quota's own afterwards."""
    add_people(engine, range(1, 21), built=NOW - 3 * DAY)
    ramp = {"starts_on": date(2026, 11, 21), "limits": [2, 5, 30]}
    quota = {"name": "warm_up", "per": "day", "timezone": "Asia/Tokyo", "scope": "sender_domain", "ramp": ramp}

    def selected(at: datetime, limit: int | None) -> int:
        config = _with_quotas(changed, quota | {"limit": limit})
        return make_plan(engine, config, "winback", as_of=at, now=at).counts["selected"]

    days = [NOW + days * DAY for days in range(-2, 4)]
    assert [selected(day, 12) for day in days] == [0, 2, 5, 12, 12, 12]
    assert [selected(day, None) for day in days] == [0, 2, 5, 20, 20, 20]
    midnight_in_tokyo = datetime(2026, 11, 21, 15, tzinfo=UTC)
    assert [selected(at, 12) for at in (midnight_in_tokyo - TICK, midnight_in_tokyo)] == [2, 5]


def test_whose_segment_is_worth_more_goes_first(engine: Engine, changed: Callable[..., Config]) -> None:
    """A month ago every message to the dormant was followed by an order, and none to those at risk."""
    config = _with_quotas(changed, {"name": "few", "limit": 4, "days": 1})
    add_people(engine, range(1, 7), segment="at_risk")
    add_people(engine, range(11, 14), segment="dormant", built=NOW - timedelta(hours=1))
    add_messages(
        engine,
        [
            message(i, NOW - 30 * DAY, what="winback", segment="at_risk" if i < 10 else "dormant")
            for i in (*range(1, 7), *range(11, 14))
        ],
    )
    _buy(engine, range(11, 14), NOW - 29 * DAY)

    plan = make_plan(engine, config, "winback", as_of=NOW, now=NOW)

    rows = verdict_rows(engine, plan.plan_id)
    assert {i for i, row in rows.items() if row.verdict == "selected"} == {11, 12, 13, 1}
    slots = next(each for each in (plan.summary or {})["slots"] if each["group"] == "atlas")
    assert (slots["limit"], slots["used"], slots["wanted"], slots["taken"]) == (4, 0, 9, 4)
    assert slots["last_minor"] == pytest.approx(slots["next_minor"])


def test_a_better_campaign_gets_the_shop_s_slots(engine: Engine, changed: Callable[..., Config]) -> None:
    """No cap is shared: only the quota makes them compete."""
    config = _with_quotas(changed, {"name": "few", "limit": 3, "per": "month", "timezone": "Europe/Paris"})
    file = config.campaigns_file.model_dump()
    worth = {"winback": Decimal(5), "vip_thanks": Decimal(9)}
    campaigns = [each | {"priority": 10, "value": worth[each["name"]]} for each in file["campaigns"]]
    config = changed(caps_file=config.caps_file.model_dump(), campaigns_file=file | {"campaigns": campaigns})
    add_people(engine, range(1, 5))
    add_members(engine, "vip", [3, 4], since=NOW - DAY)
    plan = make_plan(engine, config, "winback", as_of=NOW, now=NOW)
    rows = verdict_rows(engine, plan.plan_id)
    assert {i: (row.verdict, row.rule, row.lost_to) for i, row in rows.items()} == {
        1: ("selected", None, None),
        **dict.fromkeys((2, 3, 4), ("quota", "few", None)),
    }


def _with_quotas(changed: Callable[..., Config], *quotas: Mapping[str, Any]) -> Config:
    config = with_caps(changed)
    return changed(
        caps_file={"caps": [], "quotas": list(quotas)}, campaigns_file=config.campaigns_file.model_dump()
    )


def _buy(engine: Engine, people: Iterable[int], at: datetime) -> None:
    order = {
        "shop": "atlas", "ordered_at": at, "updated_at": at, "landed_at": at, "status": "paid", "currency": "EUR",
        "total_minor": 5_000, "total_base_minor": 5_000, "line_count": 1, "content_hash": "",
    }  # fmt: skip
    with writing(engine) as connection:
        connection.execute(insert(orders), [order | {"order_id": f"{i}", "customer_id": i} for i in people])
