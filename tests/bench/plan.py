"""Planning a campaign: a verdict with its evidence for everybody in its audience; then reserving who was selected.

The ledger holds the same number of messages a day, whether it is 18 days long or 180.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, func, select

from lifecycle.db.engine import reading
from lifecycle.db.schema import (
    consents,
    customer_metrics,
    customers,
    messages,
    microseconds,
    segment_members,
    suppressions,
    verdicts,
)
from lifecycle.ledger.reserve import reserve
from lifecycle.planning.counting import COUNTED_STATES
from lifecycle.planning.plan import make_plan
from lifecycle.planning.records import Plan
from lifecycle.settings import ROOT, load_config
from tests.bench.databases import Database, fill, fill_columns, settle
from tests.bench.figures import Comparison, Figure, timed
from tests.bench.row_by_row import judge_one_by_one
from tests.planning.people import DAY, NOW, SECRET, hashed, note_build

_CAMPAIGN = "winback"
_WIDEST = timedelta(days=60)
_SAMPLE = 1_000


def measure(database: Database, share: float) -> list[Comparison]:
    """100,000 candidates against 1,000,000 messages and against 10,000,000, as many a day."""
    short, long = (_measure(database, round(100_000 * share), round(n * share), 18 * n // 10**6) for n in _SIZES)
    return [*short, *long]


def measure_large(database: Database, share: float) -> list[Comparison]:
    """1,000,000 candidates against both."""
    people = round(1_000_000 * share)
    short, long = (_measure(database, people, round(n * share), 18 * n // 10**6) for n in _SIZES)
    return [*short, *long]


_SIZES = (1_000_000, 10_000_000)


def _measure(database: Database, people: int, count: int, days: int) -> list[Comparison]:
    config = load_config(ROOT / "config", env={})
    with database.fresh() as engine:
        _add_people(engine, people)
        fill_columns(engine, messages, _messages(people, count, days))
        settle(engine)
        title = f"plan against {count:,} messages of {days} days: every rule, verdicts with evidence, hashed"
        with timed(title, people, cpu=True) as planning:
            plan = make_plan(engine, config, _CAMPAIGN, as_of=NOW, now=NOW)
        sample = Random(20).sample(range(1, people + 1), min(_SAMPLE, people))
        one_by_one = _one_by_one(engine, plan, sample)
        bare = _bare_read(engine)
        with timed("reserve who was selected: judged again, a row each", plan.messages, cpu=True) as reserving:
            reserve(engine, config, plan.plan_id, now=NOW, secret=SECRET)
        return [[planning, one_by_one, bare], [reserving]]


def _add_people(engine: Engine, count: int) -> None:
    """All dormant; one in 50 has withdrawn, one in 100 is suppressed."""
    everybody = np.arange(1, count + 1)
    long_ago, built = microseconds(NOW - 900 * DAY), microseconds(NOW - DAY / 24)
    fill(engine, customers, _customers(count))
    yes = _consent(everybody, "granted", long_ago)
    fill_columns(engine, consents, yes)
    fill_columns(engine, consents, _consent(everybody[::50], "withdrawn", microseconds(NOW - 9 * DAY)))
    fill(engine, suppressions, (_suppression(i) for i in range(2, count + 1, 100)))
    fill_columns(engine, segment_members, {"segment": "dormant", "customer_id": everybody, "valid_from": built})
    ones = (
        "frequency", "order_days", "order_lines", "gross_minor", "refunded_minor", "monetary_minor", "orders_12m",
        "spend_12m_minor", "r", "f", "m",
    )  # fmt: skip
    at = microseconds(NOW - 200 * DAY)
    words = {"last_shop": "atlas", "rfm_segment": "hibernating", "first_order_at": at, "last_order_at": at}
    fill_columns(engine, customer_metrics, {"customer_id": everybody} | words | dict.fromkeys(ones, 1))
    note_build(engine, NOW - DAY / 24)


def _customers(count: int) -> Iterator[dict[str, Any]]:
    seeds = np.random.default_rng(20).integers(1, 2**31 - 1, count).tolist()
    for i, seed in enumerate(seeds, start=1):
        address = f"c{i}@example.com"
        given = {"customer_id": i, "email": address, "email_key": address, "email_hash": hashed(i), "seed": seed}
        where = {"country": ("FR", "GB", "US", "DE")[i % 4], "region": "CA" if i % 4 == 2 else None}
        yield given | where | {"first_seen_at": NOW - 900 * DAY, "updated_at": NOW - 900 * DAY}


def _consent(whose: NDArray[np.int64], status: str, at: int) -> dict[str, Any]:
    return {
        "customer_id": whose, "shop": "atlas", "channel": "email", "topic": "promotions", "status": status,
        "basis": "double_opt_in", "occurred_at": at, "recorded_at": at, "source": "bench",
    }  # fmt: skip


def _suppression(customer_id: int) -> dict[str, Any]:
    words = {"channel": "email", "purpose": "marketing", "reason": "unsubscribe", "evidence": "bench"}
    return {"address_hash": hashed(customer_id), "occurred_at": NOW - DAY, "recorded_at": NOW - DAY} | words


def _messages(people: int, count: int, days: int) -> dict[str, Any]:
    """In the order in which they were sent; a tenth is winback, a fifth vip_thanks."""
    random = np.random.default_rng(21)
    ago = np.sort(random.integers(1, days * 86_400 * 1_000_000, count))[::-1]
    at = microseconds(NOW) - ago
    number = np.arange(count)
    whom = random.integers(1, people + 1, count)
    campaigns = np.array(["winback", "vip_thanks", "vip_thanks", *["news"] * 7])
    shops = np.array(["harbour", "atlas", "atlas"])
    return {
        "what": campaigns[number % 10], "occurrence": number.astype(str), "customer_id": whom, "channel": "email",
        "purpose": "marketing", "shop": shops[number % 3], "template": "vip", "locale": "en",
        "address_hash": np.char.add("h", whom.astype(str)), "batch": 1, "state": "accepted", "send_at": at,
        "sent_at": at, "reserved_at": at,
    }  # fmt: skip


def _one_by_one(engine: Engine, plan: Plan, sample: list[int]) -> Figure:
    """The obvious loop: four small queries and an insert a person, prepared once; as many verdicts, all equal."""
    times = plan.audience / len(sample)
    label = f"one by one: {len(sample):,} of them measured, times {times:,.0f}"
    config = load_config(ROOT / "config", env={})
    with timed(label, plan.audience) as figure:
        found = judge_one_by_one(engine, config, _CAMPAIGN, sample, at=NOW)
    figure.seconds *= times
    with reading(engine) as connection:
        query = select(verdicts.c.customer_id, verdicts.c.verdict).where(verdicts.c.plan_id == plan.plan_id)
        planned = dict(connection.execute(query).tuples().all())
    if found != {customer: planned[customer] for customer in sample}:
        raise RuntimeError("the plan and the loop judge somebody differently")
    return figure


def _bare_read(engine: Engine) -> Figure:
    """Only what the caps must look at: the candidates' messages in the widest window, counted."""
    query = (
        select(func.count(), func.max(messages.c.shop))
        .join_from(segment_members, messages, messages.c.customer_id == segment_members.c.customer_id)
        .where(segment_members.c.segment == "dormant", segment_members.c.valid_to.is_(None))
        .where(messages.c.send_at > NOW - _WIDEST, messages.c.send_at <= NOW)
        .where(messages.c.state.in_(COUNTED_STATES), messages.c.purpose != "transactional")
    )
    with timed("bare read: the candidates' messages of 60 days") as figure, reading(engine) as connection:
        figure.rows = connection.execute(query).one()[0]
    return figure
