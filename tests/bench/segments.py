"""Building segments from all orders."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Engine

from lifecycle.db.engine import reading
from lifecycle.db.schema import orders
from lifecycle.segments.build import build
from lifecycle.settings import ROOT, load_config
from tests.bench.databases import Database, fill, settle
from tests.bench.figures import Comparison, Figure, timed
from tests.segments.history import NOW, add_customers

_DAYS = 3 * 365


def measure(database: Database, share: float) -> list[Comparison]:
    customers, count = round(200_000 * share), round(1_000_000 * share)
    config = load_config(ROOT / "config", env={})
    with database.fresh() as engine:
        add_customers(engine, range(1, customers + 1))
        fill(engine, orders, _orders(customers, count))
        settle(engine)
        with timed(f"build: metrics, scores, {len(config.segment_names)} segments, spans", count) as building:
            build(engine, config, as_of=NOW, now=NOW)
        return [[building, _bare_group_by(engine, count), _pandas_group_by(engine, count)]]


def _orders(customers: int, count: int) -> Iterator[dict[str, Any]]:
    """Paid orders of three years; a tenth of the customers has a third of them."""
    random = np.random.default_rng(20)
    whose = (1 + customers * random.random(count) ** 2).astype(int).tolist()
    minutes_ago = random.integers(1, _DAYS * 24 * 60, count).tolist()
    totals = random.integers(500, 30_000, count).tolist()
    for key, (customer, minutes, total) in enumerate(zip(whose, minutes_ago, totals, strict=True), start=1):
        at = NOW - timedelta(minutes=minutes)
        yield {
            "order_key": key,
            "shop": "atlas" if key % 2 else "harbour",
            "order_id": str(key),
            "customer_id": customer,
            "ordered_at": at,
            "updated_at": at,
            "status": "paid",
            "currency": "EUR",
            "total_minor": total,
            "total_base_minor": total,
            "line_count": 1,
            "content_hash": "",
            "landed_at": NOW,
        }


def _bare_group_by(engine: Engine, count: int) -> Figure:
    """The least that any engine of segments must ask of this database, fetched and thrown away."""
    statement = (
        "select customer_id, count(*), sum(total_base_minor), min(ordered_at), max(ordered_at) "
        "from orders group by customer_id"
    )
    with timed("bare group by in the database: count, sum, min, max", count) as figure, reading(engine) as reader:
        reader.exec_driver_sql(statement).fetchall()
    return figure


def _pandas_group_by(engine: Engine, count: int) -> Figure:
    """The same four numbers, computed outside: the three columns read into a frame and grouped there."""
    statement = "select customer_id, total_base_minor, ordered_at from orders"
    with timed("the same in pandas, rows read from the database", count) as figure, reading(engine) as reader:
        frame = pd.read_sql_query(statement, reader)
        frame.groupby("customer_id").agg(
            {"total_base_minor": ["count", "sum"], "ordered_at": ["min", "max"]},
        )
    return figure
