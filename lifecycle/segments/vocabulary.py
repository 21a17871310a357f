"""The names that rules and recipes may use, and what each means in terms of a customer's columns.

Every comparison comes down to "at least" and "more than" a bound, exactly: numbers are whole, so a bound with a
fraction is rounded the right way; days since something are compared as instants with a cut-off; shares and means
are compared by multiplying, never by dividing. A comparison with something unknown does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any

from sqlalchemy import ColumnElement, and_, false, literal, not_, true

from lifecycle.db.instants import DAY_US, elapsed
from lifecycle.db.schema import Big, Instant
from lifecycle.money import exponent
from lifecycle.segments.metrics import YEAR_DAYS, window_columns

Columns = Any
"""Something with the columns of a customer's state as attributes: see lifecycle.segments.state."""
Bound = Decimal | int | Fraction | datetime | str | bool
_LONGEST = 40_000
"""Days: more than a hundred years, and within what a datetime can hold."""
_LARGEST = 2**62
"""What the databases' 64-bit integers hold with room to spare."""


@dataclass(frozen=True)
class Metric:
    """`columns`: of a customer's state, which the meaning needs. `nullable`: may be unknown."""

    columns: tuple[str, ...]
    nullable: bool = False
    sort: str = "a number"

    def known(self, c: Columns) -> ColumnElement[bool]:
        return and_(*(c[name].is_not(None) for name in self.columns)) if self.nullable else true()

    def at_least(self, c: Columns, bound: Any, as_of: datetime) -> ColumnElement[bool]:
        raise NotImplementedError

    def more_than(self, c: Columns, bound: Any, as_of: datetime) -> ColumnElement[bool]:
        raise NotImplementedError

    def compare(self, c: Columns, op: str, bound: Bound, as_of: datetime) -> ColumnElement[bool]:
        """Whether the metric is known and stands so to `bound`; op is one of = != < <= > >=."""
        at_least, more = (lambda: self.at_least(c, bound, as_of)), (lambda: self.more_than(c, bound, as_of))
        holds = {
            ">=": at_least,
            ">": more,
            "<": lambda: not_(at_least()),
            "<=": lambda: not_(more()),
            "=": lambda: and_(at_least(), not_(more())),
            "!=": lambda: not_(and_(at_least(), not_(more()))),
        }[op]()
        return and_(self.known(c), holds) if self.nullable else holds


@dataclass(frozen=True)
class Whole(Metric):
    """A whole number; money in minor units with so many `digits`."""

    digits: int = 0

    def at_least(self, c: Columns, bound: Any, as_of: datetime) -> ColumnElement[bool]:
        return self._reaches(c, ceil(Fraction(bound) * 10**self.digits))

    def more_than(self, c: Columns, bound: Any, as_of: datetime) -> ColumnElement[bool]:
        return self._reaches(c, floor(Fraction(bound) * 10**self.digits) + 1)

    def _reaches(self, c: Columns, bound: int) -> ColumnElement[bool]:
        if abs(bound) > _LARGEST:
            return true() if bound < 0 else false()
        return c[self.columns[0]] >= bound


@dataclass(frozen=True)
class Days(Metric):
    """Whole days of 24 hours since an instant."""

    def at_least(self, c: Columns, bound: Any, as_of: datetime) -> ColumnElement[bool]:
        days = ceil(Fraction(bound))
        if abs(days) > _LONGEST:
            return true() if days < 0 else false()
        return c[self.columns[0]] <= literal(as_of - timedelta(days=days), Instant())

    def more_than(self, c: Columns, bound: Any, as_of: datetime) -> ColumnElement[bool]:
        return self.at_least(c, floor(Fraction(bound)) + 1, as_of)


@dataclass(frozen=True)
class When(Metric):
    sort: str = "an instant"

    def at_least(self, c: Columns, bound: Any, as_of: datetime) -> ColumnElement[bool]:
        return c[self.columns[0]] >= literal(bound, Instant())

    def more_than(self, c: Columns, bound: Any, as_of: datetime) -> ColumnElement[bool]:
        return c[self.columns[0]] > literal(bound, Instant())


@dataclass(frozen=True)
class Share(Metric):
    """The first column over the second; unknown where that is not above zero."""

    digits: int = 0

    def known(self, c: Columns) -> ColumnElement[bool]:
        return c[self.columns[1]] > 0

    def at_least(self, c: Columns, bound: Any, as_of: datetime) -> ColumnElement[bool]:
        part, whole, exact = c[self.columns[0]], c[self.columns[1]], Fraction(bound) * 10**self.digits
        return part * exact.denominator >= whole * exact.numerator

    def more_than(self, c: Columns, bound: Any, as_of: datetime) -> ColumnElement[bool]:
        part, whole, exact = c[self.columns[0]], c[self.columns[1]], Fraction(bound) * 10**self.digits
        return part * exact.denominator > whole * exact.numerator


@dataclass(frozen=True)
class Gap(Metric):
    """Mean days from one order to the next, to the microsecond: from first to last, over one order less."""

    def known(self, c: Columns) -> ColumnElement[bool]:
        return c.frequency >= 2

    def at_least(self, c: Columns, bound: Any, as_of: datetime) -> ColumnElement[bool]:
        return self._reaches(c, ceil(Fraction(bound) * DAY_US))

    def more_than(self, c: Columns, bound: Any, as_of: datetime) -> ColumnElement[bool]:
        return self._reaches(c, floor(Fraction(bound) * DAY_US) + 1)

    def _reaches(self, c: Columns, microseconds: int) -> ColumnElement[bool]:
        if abs(microseconds) > _LONGEST * DAY_US:
            return true() if microseconds < 0 else false()
        return elapsed(c.first_order_at, c.last_order_at) >= (c.frequency - 1) * literal(microseconds, Big)


@dataclass(frozen=True)
class Real(Metric):
    """A probability or an expectation; money with so many `digits`."""

    digits: int = 0

    def at_least(self, c: Columns, bound: Any, as_of: datetime) -> ColumnElement[bool]:
        return c[self.columns[0]] >= float(bound) * 10**self.digits

    def more_than(self, c: Columns, bound: Any, as_of: datetime) -> ColumnElement[bool]:
        return c[self.columns[0]] > float(bound) * 10**self.digits


@dataclass(frozen=True)
class Word(Metric):
    """A text: equal or not, nothing else."""

    sort: str = "a word"

    def compare(self, c: Columns, op: str, bound: Bound, as_of: datetime) -> ColumnElement[bool]:
        same = c[self.columns[0]] == str(bound)
        return (
            and_(self.known(c), same if op == "=" else not_(same))
            if self.nullable
            else (same if op == "=" else not_(same))
        )


PREDICTED = ("alive", "expected_orders", "expected_spend", "next_order_at")
"""Metrics that come from a fitted model and are kept beside the others."""


def vocabulary(currency: str, windows: tuple[int, ...] = ()) -> Mapping[str, Metric]:
    """Every name but `attributes.…`, which are words. `currency`: of the amounts of money."""
    digits = exponent(currency)
    named: dict[str, Metric] = {
        "recency_days": Days(("last_order_at",)),
        "days_since_first_order": Days(("first_order_at",)),
        "days_since_previous_order": Days(("previous_order_at",), nullable=True),
        "days_since_message": Days(("last_messaged_at",), nullable=True),
        "days_since_open": Days(("last_opened_at",), nullable=True),
        "days_since_click": Days(("last_clicked_at",), nullable=True),
        "orders": Whole(("frequency",)),
        "order_days": Whole(("order_days",)),
        "order_lines": Whole(("order_lines",)),
        "spend": Whole(("monetary_minor",), digits=digits),
        "gross_spend": Whole(("gross_minor",), digits=digits),
        "refunded": Whole(("refunded_minor",), digits=digits),
        "refund_share": Share(("refunded_minor", "gross_minor"), nullable=True),
        "average_order": Share(("monetary_minor", "frequency"), nullable=True, digits=digits),
        "days_between_orders": Gap(("first_order_at", "last_order_at", "frequency"), nullable=True),
        "first_order_at": When(("first_order_at",)),
        "last_order_at": When(("last_order_at",)),
        "previous_order_at": When(("previous_order_at",), nullable=True),
        "r": Whole(("r",)),
        "f": Whole(("f",)),
        "m": Whole(("m",), nullable=True),
        "rfm_segment": Word(("rfm_segment",)),
        "shop": Word(("last_shop",)),
        "country": Word(("country",), nullable=True),
        "language": Word(("language",), nullable=True),
        "alive": Real(("alive",), nullable=True),
        "expected_orders": Real(("expected_orders",), nullable=True),
        "expected_spend": Real(("expected_spend_minor",), nullable=True, digits=digits),
        "next_order_at": When(("next_order_at",), nullable=True),
    }
    for days in (YEAR_DAYS, *windows):
        orders, spend = window_columns(days)
        named[orders] = Whole((orders,))
        named[spend.removesuffix("_minor")] = Whole((spend,), digits=digits)
    return named


def attribute(name: str) -> Metric:
    """Of `attributes.…`: what a shop says of a customer beside the known columns."""
    return Word((name,), nullable=True)
