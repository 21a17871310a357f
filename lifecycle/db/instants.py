"""The two things about instants that SQL must compute and that SQLite and PostgreSQL spell differently.

Everything else compares a column with a cut-off computed in Python.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Integer, cast, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from lifecycle.db.schema import Instant

_DAY_US = 86_400_000_000


class _WholeDays(FunctionElement[int]):
    type = Integer()
    inherit_cache = True


class _PlusDays(FunctionElement[datetime]):
    type = Instant()
    inherit_cache = True


def whole_days(earlier: ColumnElement[datetime], later: datetime) -> ColumnElement[int]:
    """Whole days of 24 hours from `earlier` to `later`, rounded down; `earlier` must not be after `later`."""
    return _WholeDays(earlier, literal(later, Instant()))


def plus_days(instant: ColumnElement[datetime], days: int) -> ColumnElement[datetime]:
    """`instant` and so many days of 24 hours."""
    return _PlusDays(instant, cast(days, Integer))


@compiles(_WholeDays, "sqlite")
def _(element: _WholeDays, compiler: Any, **options: Any) -> str:
    earlier, later = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(({later} - {earlier}) / {_DAY_US})"


@compiles(_WholeDays, "postgresql")
def _(element: _WholeDays, compiler: Any, **options: Any) -> str:
    earlier, later = (compiler.process(clause, **options) for clause in element.clauses)
    return f"extract(day from {later} - {earlier})::integer"


@compiles(_PlusDays, "sqlite")
def _(element: _PlusDays, compiler: Any, **options: Any) -> str:
    instant, days = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({instant} + {days} * {_DAY_US})"


@compiles(_PlusDays, "postgresql")
def _(element: _PlusDays, compiler: Any, **options: Any) -> str:
    instant, days = (compiler.process(clause, **options) for clause in element.clauses)
    # Hours, because a day of the session's zone has 23 or 25 of them twice a year.
    return f"({instant} + make_interval(hours => 24 * {days}))"
