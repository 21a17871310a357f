"""Checking rows and taking them in."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Connection, Engine, Table

from lifecycle.customers.intake import take_in_rows
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import changed_customers, metadata
from lifecycle.platforms.records import OrderRow
from lifecycle.quality import frames
from lifecycle.quality.checks import check_orders
from lifecycle.quality.gate import check_rows
from lifecycle.settings import ROOT, load_config
from tests.bench.databases import Database
from tests.bench.figures import Comparison, Figure, timed
from tests.bench.plain_checks import failing_orders
from tests.customers.rows import NOW, SECRET, ago, line, order

_BATCH = 1_000
_WHERE: dict[str, Any] = {"source": "bench.csv", "now": NOW, "run_id": None}


def measure(database: Database, share: float) -> list[Comparison]:
    rows = _orders(round(20_000 * share))
    lines = sum(len(row.lines) for row in rows)
    config = load_config(ROOT / "config", env={})
    batches = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    check_orders(rows[:1], now=NOW)  # Great Expectations is imported here
    with database.fresh() as engine, database.fresh() as other:
        with timed("gate: Great Expectations, rejected rows to quarantine", lines) as checking:
            gate = check_rows(engine, "atlas", "orders", batches, max_rejected_share=1.0, **_WHERE)
        with timed("intake of the others: people, orders, lines", lines) as taking:
            take_in_rows(engine, config, "atlas", batches, gate, secret=SECRET, **_WHERE)
        return [
            [checking, _plain_checks(rows, lines, gate.rejected), _frames_alone(rows, lines)],
            [taking, _bare_insert(engine, other, lines)],
        ]


def _orders(count: int) -> list[OrderRow]:
    """Four lines each, of 0.4 as many customers; one order in 200 has a line of no quantity."""
    chance = random.Random(20)
    return [_order(number, chance, max(1, 2 * count // 5)) for number in range(count)]


def _order(number: int, chance: random.Random, customers: int) -> OrderRow:
    customer = chance.randrange(customers)
    lines = [
        line(sku=f"SKU-{chance.randrange(5_000)}", unit_price=Decimal(chance.randrange(100, 9_000)) / 100)
        for _ in range(4)
    ]
    if number % 200 == 0:
        lines[0].quantity = 0
    total = sum(((each.unit_price or 0) * (each.quantity or 0) for each in lines), Decimal(0))
    return order(
        str(number),
        customer_id=f"C{customer}",
        email=f"c{customer}@example.com",
        ordered_at=ago(minutes=chance.randrange(60 * 24 * 700) + 1),
        total=total,
        lines=lines,
        country="FR",
    )


def _plain_checks(rows: Sequence[OrderRow], lines: int, rejected: int) -> Figure:
    """The same rules on the same frames as masks in pandas, down to which orders fail; no reasons are written."""
    with timed("plain pandas checks of the same rules", lines) as figure:
        failed = failing_orders(rows, now=NOW)
    if len(failed) != rejected:
        raise RuntimeError(f"plain checks reject {len(failed)} orders, Great Expectations {rejected}")
    return figure


def _frames_alone(rows: Sequence[OrderRow], lines: int) -> Figure:
    """Only what both checks do first: rows into typed frames."""
    with timed("only making the frames that both check", lines) as figure:
        frames.order_frame(rows)
        frames.line_frame([each for row in rows for each in row.lines])
        frames.refund_frame([each for row in rows for each in row.refunds])
    return figure


def _bare_insert(engine: Engine, other: Engine, lines: int) -> Figure:
    """The driver's executemany of every row that was stored, ready-made, into the same tables, in one commit."""
    with reading(engine) as connection:
        copied = (table for table in metadata.sorted_tables if table is not changed_customers)  # triggers fill it
        stored = [(table, rows) for table in copied if (rows := list(_raw(connection, table)))]
    mark = "?" if engine.dialect.name == "sqlite" else "%s"
    with timed("bare executemany of the rows that were stored", lines) as figure, writing(other) as connection:
        for table, rows in stored:
            marks = ", ".join([mark] * len(table.c))
            connection.exec_driver_sql(f"insert into {table.name} ({_columns(table)}) values ({marks})", rows)
    return figure


def _raw(connection: Connection, table: Table) -> Iterator[tuple[Any, ...]]:
    """Rows as the driver gives and takes them."""
    for row in connection.exec_driver_sql(f"select {_columns(table)} from {table.name}"):
        yield tuple(Jsonb(value) if isinstance(value, dict | list) else value for value in row)


def _columns(table: Table) -> str:
    return ", ".join(column.name for column in table.c)
