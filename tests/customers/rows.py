"""Rows as connectors make them, a platform that hands out given ones, and tables as plain values."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, Table, select

from lifecycle.customers.intake import Intake, take_in_rows
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import metadata
from lifecycle.platforms.base import Page, Window
from lifecycle.platforms.records import ConsentFact, CustomerRow, LineRow, OrderRow, RefundRow, Row
from lifecycle.quality.gate import GateResult, check_rows
from lifecycle.settings import Config

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
SECRET = b"a secret for tests, 32 characters"


def ago(**delta: float) -> datetime:
    return NOW - timedelta(**delta)


def line(**changes: Any) -> LineRow:
    return LineRow(**{"sku": "MUG", "title": "A mug", "quantity": 2, "unit_price": Decimal("4.50")} | changes)


def refund(**changes: Any) -> RefundRow:
    return RefundRow(**{"refund_id": "R1", "refunded_at": ago(days=1), "amount": Decimal("4.50")} | changes)


def order(order_id: str | None = "1001", **changes: Any) -> OrderRow:
    """A paid order of customer C1 with one line; `raw` is what a platform would have sent."""
    values: dict[str, Any] = {
        "customer_id": "C1",
        "ordered_at": ago(days=10),
        "updated_at": ago(days=9),
        "status": "paid",
        "currency": "EUR",
        "total": Decimal("9.00"),
        "lines": [line()],
    }
    values |= changes
    return OrderRow(order_id, raw={"id": order_id, "total": str(values["total"])}, **values)


def customer(customer_id: str | None = "C1", email: str | None = None, **changes: Any) -> CustomerRow:
    values: dict[str, Any] = {"updated_at": ago(days=9), "raw": {"id": customer_id}} | changes
    return CustomerRow(customer_id, email, **values)


def granted(occurred_at: datetime | None, status: str = "granted") -> ConsentFact:
    return ConsentFact("email", "promotions", status, "express", occurred_at, source="shopify")


def withdrawn(occurred_at: datetime | None) -> ConsentFact:
    return granted(occurred_at, "withdrawn")


class Given:
    """A platform with the pages that it is given."""

    name = "given"
    entities = ("customers", "orders")

    def __init__(self, *pages: Sequence[Row]) -> None:
        self._pages = pages

    def pages(self, entity: str, window: Window) -> Iterator[Page]:
        for rows in self._pages:
            yield Page(pickle.dumps(rows), len(rows))

    def parse(self, entity: str, body: bytes) -> list[Row]:
        return list(pickle.loads(body))


def take(
    engine: Engine,
    config: Config,
    rows: Sequence[Row],
    *,
    shop: str = "atlas",
    entity: str | None = None,
    now: datetime = NOW,
    max_rejected_share: float = 1.0,
) -> Intake:
    """Rows through the gate and into the tables, as a file's would."""
    if entity is None:
        entity = "orders" if rows and isinstance(rows[0], OrderRow) else "customers"
    batches = [list(rows[start : start + 3]) for start in range(0, len(rows), 3)]
    where = {"source": "test.csv", "now": now, "run_id": None}
    gate = check_rows(engine, shop, entity, batches, max_rejected_share=max_rejected_share, **where)
    return take_in_rows(engine, config, shop, batches, gate, secret=SECRET, **where)


def take_unchecked(
    engine: Engine, config: Config, rows: Sequence[Row], *, shop: str = "atlas", now: datetime = NOW
) -> Intake:
    """Good rows past the gate: Great Expectations takes a tenth of a second, a property test has hundreds."""
    entity = "orders" if isinstance(rows[0], OrderRow) else "customers"
    gate = GateResult(shop, entity, len(rows), 0, len(rows), 0, {}, {})
    return take_in_rows(
        engine, config, shop, [list(rows)], gate, secret=SECRET, now=now, run_id=None, source="test.csv"
    )


def empty(engine: Engine) -> None:
    """Every table: a property test cleans up between examples rather than make a database for each."""
    with writing(engine) as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())


def contents(engine: Engine, table: Table, *columns: str) -> list[tuple[Any, ...]]:
    """The rows of a table in the order of its key; all columns unless some are named."""
    query = select(*(table.c[name] for name in columns)) if columns else select(table)
    with reading(engine) as connection:
        return [tuple(row) for row in connection.execute(query.order_by(*table.primary_key))]


def everything(engine: Engine, tables: Iterable[Table]) -> dict[str, list[tuple[Any, ...]]]:
    return {table.name: contents(engine, table) for table in tables}
