"""Rows in, rows out: the ones that pass, and the ones that do not with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from lifecycle.platforms.records import CustomerRow, OrderRow
from lifecycle.quality import frames, suites
from lifecycle.quality.suites import Expected
from lifecycle.quality.validation import failures

R = TypeVar("R", bound=OrderRow | CustomerRow)
_LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True)
class Rejection(Generic[R]):
    """`index` is the row's place in the list that was checked; `reason` names the value, never an address."""

    index: int
    row: R
    expectation: str
    reason: str


@dataclass(frozen=True, slots=True)
class Checked(Generic[R]):
    accepted: list[R]
    rejected: list[Rejection[R]]


@dataclass(frozen=True, slots=True)
class _Check:
    """A suite for the rows themselves (`part` None), or for the parts of each row that `part` names."""

    part: str | None
    frame: Callable[[Sequence[Any]], Any]
    suite: tuple[Expected, ...]


_ORDERS = (
    _Check(None, frames.order_frame, suites.ORDERS),
    _Check("lines", frames.line_frame, suites.LINES),
    _Check("refunds", frames.refund_frame, suites.REFUNDS),
)
_CONSENTS = (_Check("consents", frames.consent_frame, suites.CONSENTS),)
_CUSTOMERS = (_Check(None, frames.customer_frame, suites.CUSTOMERS), *_CONSENTS)


def check_orders(rows: Sequence[OrderRow], *, now: datetime) -> Checked[OrderRow]:
    """Orders with their lines and refunds; one bad line rejects the whole order."""
    return _check(rows, _ORDERS, now)


def check_customers(rows: Sequence[CustomerRow], *, now: datetime) -> Checked[CustomerRow]:
    """Customers with what they consented to."""
    return _check(rows, _CUSTOMERS, now)


def check_consents(rows: Sequence[CustomerRow], *, now: datetime) -> Checked[CustomerRow]:
    """Rows of a file of consents: of the customer, nothing is asked here."""
    return _check(rows, _CONSENTS, now)


def _check(rows: Sequence[R], checks: Sequence[_Check], now: datetime) -> Checked[R]:
    rejected: dict[int, Rejection[R]] = {}
    for check in checks:
        items, owners = _items(rows, check.part)
        for expected, places in failures(check.frame(items), check.suite, now=now):
            for place in places:
                index, number = owners[place]
                where = f" ({check.part.removesuffix('s')} {number})" if check.part else ""
                reason = _reason(expected, items[place]) + where
                rejected.setdefault(index, Rejection(index, rows[index], expected.name, reason))
    accepted = [row for index, row in enumerate(rows) if index not in rejected]
    return Checked(accepted, [rejected[index] for index in sorted(rejected)])


def _items(rows: Sequence[R], part: str | None) -> tuple[Sequence[Any], list[tuple[int, int]]]:
    """The rows or their parts, and for each of them its row's index and its number within the row."""
    if part is None:
        return rows, [(index, 1) for index in range(len(rows))]
    items = [item for row in rows for item in getattr(row, part)]
    owners = [
        (index, number) for index, row in enumerate(rows) for number in range(1, len(getattr(row, part)) + 1)
    ]
    return items, owners


def _reason(expected: Expected, item: Any) -> str:
    if expected.column == "conflict":
        return f"order_id {_shown(item.order_id)} comes several times; it must {expected.must}"
    value = getattr(item, expected.column)
    if value is None or value == "":
        return f"{expected.column} is missing"
    return f"{expected.column} is {_shown(value)}; it must {expected.must}"


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    text = str(value)
    if "@" in text:
        return "an address"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
