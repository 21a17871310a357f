"""A year of daily plans, simulated: under the rules as they are, and under other caps beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
from sqlalchemy import Engine, func, select

from lifecycle.db.engine import open_database, reading
from lifecycle.db.schema import consents, customers, microseconds, orders, segment_members, suppressions
from lifecycle.planning.simulation.replay import simulate
from lifecycle.segments.backfill import backfill
from lifecycle.settings import ROOT, Config, load_config
from tests.bench.databases import Database, fill, fill_columns, settle
from tests.bench.figures import Comparison, Figure, apart, timed
from tests.planning.people import DAY, NOW, consent, hashed

_DAYS, _YEARS = 365, 3
_LAST = (NOW - DAY).date()
_FIRST = _LAST - (_DAYS - 1) * DAY
_STRICTER = {"email_2_per_7_days": {"limit": 1, "days": 14}}


def measure(database: Database, share: float) -> list[Comparison]:
    """Rows are customers times days."""
    people = round(100_000 * share)
    with database.fresh() as engine:
        _fill(engine, people)
        backfill(engine, _config(), first=_FIRST - DAY, last=_LAST, now=NOW)
        settle(engine)
        with reading(engine) as connection:
            spans = connection.execute(select(func.count()).select_from(segment_members)).scalar_one()
        url = engine.url.render_as_string(hide_password=False)
    what = f"a year of daily plans, 2 campaigns, {spans:,} memberships"
    return [
        [
            _apart(what, url, people, False),
            _apart("the same, and under stricter caps beside it", url, people, True),
        ]
    ]


def _apart(what: str, url: str, people: int, beside: bool) -> Figure:
    figure, sent = apart(_simulate, what, url, people, beside)
    return replace(figure, what=f"{figure.what}: {sent} messages")


def _simulate(what: str, url: str, people: int, beside: bool) -> tuple[Figure, str]:
    engine, config = open_database(url), _config()
    other = _stricter(config) if beside else None
    with timed(what, people * _DAYS) as figure:
        found = simulate(engine, config, first=_FIRST, last=_LAST, now=NOW, other=other)
    each = [found.configured, *([found.other] if found.other else [])]
    return figure, " and ".join(f"{replayed.sent:,}" for replayed in each)


def _config() -> Config:
    return load_config(ROOT / "config", env={})


def _stricter(config: Config) -> Config:
    caps = tuple(rule.model_copy(update=_STRICTER.get(rule.name, {})) for rule in config.caps_file.caps)
    return replace(config, caps_file=config.caps_file.model_copy(update={"caps": caps}))


def _fill(engine: Engine, people: int) -> None:
    """Five orders a customer in three years, a tenth of the customers has a third of them; all agreed, one in ten
    has withdrawn in the year, one in a hundred is suppressed."""
    chance = np.random.default_rng(20)
    seeds = chance.integers(1, 2**31 - 1, people).tolist()
    fill(engine, customers, _customers(seeds))
    minutes_ago = np.sort(chance.integers(1, _YEARS * _DAYS * 24 * 60, 5 * people))[::-1]
    fill_columns(engine, orders, _orders(people, chance, minutes_ago))
    long_ago = NOW - 4 * _DAYS * DAY
    shops = [{"shop": "atlas"}, {"shop": "harbour"}]
    said = (consent(i, at=long_ago, **shop) for i in range(1, people + 1) for shop in shops)
    fill(engine, consents, said)
    days = chance.integers(0, _DAYS, people).tolist()
    left = (
        consent(i, at=NOW - days[i - 1] * DAY, status="withdrawn", shop="atlas") for i in range(1, people + 1, 10)
    )
    fill(engine, consents, left)
    fill(engine, suppressions, (_suppression(i, days[i - 1]) for i in range(2, people + 1, 100)))


def _customers(seeds: list[int]) -> Iterator[dict[str, Any]]:
    since = {"first_seen_at": NOW - 4 * _DAYS * DAY, "updated_at": NOW}
    for i, seed in enumerate(seeds, start=1):
        address = f"c{i}@example.com"
        given = {"customer_id": i, "email": address, "email_key": address, "email_hash": hashed(i), "seed": seed}
        yield given | since | {"country": ("FR", "DE", "GB", "IT")[i % 4]}


def _orders(people: int, chance: np.random.Generator, minutes_ago: Any) -> dict[str, Any]:
    count = len(minutes_ago)
    keys, placed = np.arange(1, count + 1), microseconds(NOW) - 60_000_000 * minutes_ago
    totals = chance.integers(500, 30_000, count)
    return {
        "order_key": keys,
        "shop": np.where(keys % 3, "atlas", "harbour"),
        "order_id": keys.astype(str),
        "customer_id": (1 + people * chance.random(count) ** 2).astype(int),
        "ordered_at": placed,
        "updated_at": placed,
        "status": "paid",
        "currency": "EUR",
        "total_minor": totals,
        "total_base_minor": totals,
        "line_count": 1,
        "content_hash": "",
        "landed_at": microseconds(NOW),
    }


def _suppression(customer_id: int, days_ago: int) -> dict[str, Any]:
    at = NOW - timedelta(days=days_ago)
    words = {"channel": "email", "purpose": "marketing", "reason": "unsubscribe", "evidence": "bench"}
    return {"address_hash": hashed(customer_id), "occurred_at": at, "recorded_at": at} | words
