"""Where every line of the input went: into which table, or why not. The lines add up, or it says so."""

from __future__ import annotations

from datetime import UTC, datetime, time

from sqlalchemy import ColumnElement, Engine, case, func, select

from lifecycle.db.engine import reading
from lifecycle.db.schema import orders, quarantine
from lifecycle.errors import TernError
from sandbox.stock import Stock

_SERVED = "served by"


def account(stock: Stock, engine: Engine) -> list[dict[str, object]]:
    """Rows of `lines` and `where`, the last one the sum. Raises TernError when it is not the input's."""
    rows = [(lines, where) for where, lines in stock.accounting.items() if not where.startswith(_SERVED)]
    rows += _stored(engine, stock)
    rows += _quarantined(engine)
    total = sum(lines for lines, _ in rows)
    if total != stock.lines_read:
        raise TernError(f"{stock.lines_read:,} lines were read and {total:,} are accounted for")
    table: list[dict[str, object]] = [{"lines": lines, "where": where} for lines, where in rows if lines]
    return [*table, {"lines": total, "where": "lines of the input, all accounted for"}]


def _stored(engine: Engine, stock: Stock) -> list[tuple[int, str]]:
    kinds: tuple[tuple[ColumnElement[bool], str], ...] = (
        (orders.c.status == "returned", "stored: returns and cancellations, which lower spend"),
        (orders.c.total_minor == 0, "stored: orders of a zero total, which do not count as orders"),
        (orders.c.status != "paid", "stored: unpaid, cancelled and refunded orders, which do not count"),
        (orders.c.customer_id.is_(None), "stored: orders of guests, whom no segment can hold"),
    )
    kind = case(*kinds, else_="stored: orders of known customers")
    opened = datetime.combine(stock.anchor, time.min, UTC)  # what the shoppers buy comes after it
    query = select(func.sum(orders.c.line_count), kind).where(orders.c.ordered_at < opened).group_by(kind)
    with reading(engine) as connection:
        return [(int(lines), where) for lines, where in connection.execute(query.order_by(kind))]


def _quarantined(engine: Engine) -> list[tuple[int, str]]:
    query = (
        select(func.sum(quarantine.c.lines), quarantine.c.expectation, func.min(quarantine.c.reason))
        .where(quarantine.c.entity == "orders", quarantine.c.resolved_at.is_(None))
        .group_by(quarantine.c.expectation)
    )
    with reading(engine) as connection:
        return [
            (int(lines), f"in quarantine: {expectation}, for example: {reason}")
            for lines, expectation, reason in connection.execute(query)
        ]
