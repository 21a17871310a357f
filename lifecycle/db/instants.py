"""What SQL must compute about instants, and databases spell differently. Everything else compares a column with a
cut-off computed in Python.

In SQLite, DuckDB and Spark an instant is integer microseconds since 1970, see lifecycle.db.schema.Instant.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Integer, cast, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from lifecycle.db.schema import Big, Instant

DAY_US = 86_400_000_000


class WholeDays(FunctionElement[int]):
    type = Integer()
    inherit_cache = True


class DayNumber(FunctionElement[int]):
    type = Integer()
    inherit_cache = True


class PlusDays(FunctionElement[datetime]):
    type = Instant()
    inherit_cache = True


class Elapsed(FunctionElement[int]):
    type = Big
    inherit_cache = True


class PlusMicroseconds(FunctionElement[datetime]):
    type = Instant()
    inherit_cache = True


class Quotient(FunctionElement[int]):
    type = Big
    inherit_cache = True


def whole_days(earlier: ColumnElement[datetime], later: datetime) -> ColumnElement[int]:
    """Whole days of 24 hours from `earlier` to `later`, rounded down; `earlier` must not be after `later`."""
    return WholeDays(earlier, literal(later, Instant()))


def day_number(instant: ColumnElement[datetime]) -> ColumnElement[int]:
    """Days from 1970-01-01 to the UTC day of `instant`, which must not be before."""
    return DayNumber(instant)


def plus_days(instant: ColumnElement[datetime], days: int) -> ColumnElement[datetime]:
    """`instant` and so many days of 24 hours."""
    return PlusDays(instant, cast(days, Integer))


def elapsed(earlier: ColumnElement[datetime], later: ColumnElement[datetime]) -> ColumnElement[int]:
    """Microseconds from `earlier` to `later`."""
    return Elapsed(earlier, later)


def plus_microseconds(
    instant: ColumnElement[datetime], microseconds: ColumnElement[int]
) -> ColumnElement[datetime]:
    return PlusMicroseconds(instant, microseconds)


def quotient(dividend: ColumnElement[int], divisor: ColumnElement[int]) -> ColumnElement[int]:
    """Whole number, cut towards zero, as all these databases divide integers."""
    return Quotient(dividend, divisor)


def _operands(element: FunctionElement[Any], compiler: Any, options: Any) -> list[str]:
    return [compiler.process(clause, **options) for clause in element.clauses]


@compiles(WholeDays)
def _(element: WholeDays, compiler: Any, **options: Any) -> str:
    earlier, later = _operands(element, compiler, options)
    return f"(({later} - {earlier}) {_divided(compiler)} {DAY_US})"


@compiles(WholeDays, "postgresql")
def _(element: WholeDays, compiler: Any, **options: Any) -> str:
    earlier, later = _operands(element, compiler, options)
    return f"extract(day from {later} - {earlier})::integer"


@compiles(DayNumber)
def _(element: DayNumber, compiler: Any, **options: Any) -> str:
    (instant,) = _operands(element, compiler, options)
    return f"({instant} {_divided(compiler)} {DAY_US})"


@compiles(DayNumber, "postgresql")
def _(element: DayNumber, compiler: Any, **options: Any) -> str:
    (instant,) = _operands(element, compiler, options)
    return f"(({instant} at time zone 'UTC')::date - date '1970-01-01')"


@compiles(PlusDays)
def _(element: PlusDays, compiler: Any, **options: Any) -> str:
    instant, days = _operands(element, compiler, options)
    return f"({instant} + {days} * {DAY_US})"


@compiles(PlusDays, "postgresql")
def _(element: PlusDays, compiler: Any, **options: Any) -> str:
    instant, days = _operands(element, compiler, options)
    # Hours, because a day of the session's zone has 23 or 25 of them twice a year.
    return f"({instant} + make_interval(hours => 24 * {days}))"


@compiles(Elapsed)
def _(element: Elapsed, compiler: Any, **options: Any) -> str:
    earlier, later = _operands(element, compiler, options)
    return f"({later} - {earlier})"


@compiles(Elapsed, "postgresql")
def _(element: Elapsed, compiler: Any, **options: Any) -> str:
    earlier, later = _operands(element, compiler, options)
    return f"(extract(epoch from {later} - {earlier}) * 1000000)::bigint"


@compiles(PlusMicroseconds)
def _(element: PlusMicroseconds, compiler: Any, **options: Any) -> str:
    instant, microseconds = _operands(element, compiler, options)
    return f"({instant} + {microseconds})"


@compiles(PlusMicroseconds, "postgresql")
def _(element: PlusMicroseconds, compiler: Any, **options: Any) -> str:
    instant, microseconds = _operands(element, compiler, options)
    return f"({instant} + {microseconds} * interval '1 microsecond')"


@compiles(Quotient)
def _(element: Quotient, compiler: Any, **options: Any) -> str:
    dividend, divisor = _operands(element, compiler, options)
    return f"({dividend} {_divided(compiler)} {divisor})"


def _divided(compiler: Any) -> str:
    """The sign that divides whole numbers into a whole one."""
    return {"duckdb": "//", "spark": "div"}.get(compiler.dialect.name, "/")
