"""Planning a campaign: a verdict for everybody in its audience."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import Any

import numpy as np
from sqlalchemy import Engine, func, select

from lifecycle.db.engine import reading
from lifecycle.db.schema import (
    consents,
    customer_metrics,
    customers,
    messages,
    segment_members,
    suppressions,
    verdicts,
)
from lifecycle.planning.caps import COUNTED_STATES
from lifecycle.planning.plan import make_plan
from lifecycle.planning.records import Plan
from lifecycle.settings import ROOT, load_config
from tests.bench.databases import Database, fill, settle
from tests.bench.figures import Comparison, Figure, timed
from tests.bench.row_by_row import judge_one_by_one
from tests.planning.people import DAY, NOW, consent, hashed, message, note_build

_CAMPAIGN = "winback"
_WIDEST = timedelta(days=60)
_SAMPLE = 1_000


def measure(database: Database, share: float) -> list[Comparison]:
    people, count = round(100_000 * share), round(1_000_000 * share)
    config = load_config(ROOT / "config", env={})
    with database.fresh() as engine:
        _add_people(engine, people)
        fill(engine, messages, _messages(people, count))
        settle(engine)
        with timed("plan: every rule, verdicts with evidence, hashed", people) as planning:
            plan = make_plan(engine, config, _CAMPAIGN, as_of=NOW, now=NOW)
        sample = Random(20).sample(range(1, people + 1), min(_SAMPLE, people))
        return [[planning, _one_by_one(engine, plan, sample), _bare_read(engine)]]


def _add_people(engine: Engine, count: int) -> None:
    """All dormant; one in 50 has withdrawn, one in 100 is suppressed."""
    everybody, long_ago = range(1, count + 1), NOW - 900 * DAY
    fill(engine, customers, _customers(count))
    fill(engine, consents, (consent(i, at=long_ago) for i in everybody))
    fill(engine, consents, (consent(i, at=NOW - 9 * DAY, status="withdrawn") for i in everybody if i % 50 == 1))
    fill(engine, suppressions, (_suppression(i) for i in everybody if i % 100 == 2))
    built = NOW - DAY / 24
    members = ({"segment": "dormant", "customer_id": i, "valid_from": built} for i in everybody)
    fill(engine, segment_members, members)
    fill(engine, customer_metrics, (_metrics(i) for i in everybody))
    note_build(engine, built)


def _customers(count: int) -> Iterator[dict[str, Any]]:
    seeds = np.random.default_rng(20).integers(1, 2**31 - 1, count).tolist()
    for i, seed in enumerate(seeds, start=1):
        address = f"c{i}@example.com"
        given = {"customer_id": i, "email": address, "email_key": address, "email_hash": hashed(i), "seed": seed}
        yield given | {"first_seen_at": NOW - 900 * DAY, "updated_at": NOW - 900 * DAY}


def _metrics(customer_id: int) -> dict[str, Any]:
    ones = (
        "frequency", "order_days", "order_lines", "gross_minor", "refunded_minor", "monetary_minor", "orders_12m",
        "spend_12m_minor", "r", "f", "m",
    )  # fmt: skip
    at = NOW - 200 * DAY
    words = {"last_shop": "atlas", "rfm_segment": "hibernating", "first_order_at": at, "last_order_at": at}
    return {"customer_id": customer_id} | words | dict.fromkeys(ones, 1)


def _suppression(customer_id: int) -> dict[str, Any]:
    words = {"channel": "email", "purpose": "marketing", "reason": "unsubscribe", "evidence": "bench"}
    return {"address_hash": hashed(customer_id), "occurred_at": NOW - DAY, "recorded_at": NOW - DAY} | words


def _messages(people: int, count: int) -> Iterator[dict[str, Any]]:
    """Of 180 days, in the order in which they were sent; a tenth is winback, a fifth vip_thanks."""
    random = np.random.default_rng(21)
    whom = random.integers(1, people + 1, count).tolist()
    seconds_ago = np.sort(random.integers(1, 180 * 86_400, count))[::-1].tolist()
    campaigns = ("winback", "vip_thanks", "vip_thanks", *["news"] * 7)
    for number, (customer, seconds) in enumerate(zip(whom, seconds_ago, strict=True)):
        at, shop = NOW - timedelta(seconds=seconds), "atlas" if number % 3 else "harbour"
        yield message(customer, at, what=campaigns[number % 10], occurrence=str(number), shop=shop)


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
