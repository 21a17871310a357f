"""When a metric is looked at: everybody at one instant, or some customers at instants of their own.

With points one statement computes what changed on each of many days, where a build asks for one day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Column, ColumnElement, FromClause, MetaData, Select, Table, literal, select

from lifecycle.db.instants import plus_days
from lifecycle.db.schema import Big, Instant

points = Table(
    "points",
    MetaData(),
    Column("customer_id", Big, primary_key=True, autoincrement=False),
    Column("as_of", Instant, primary_key=True),
    prefixes=["temporary"],
    sqlite_with_rowid=False,  # kept in the order of its key, in which metrics are grouped
)
"""Whom to look at, and when: filled by who asks."""

touched = Table(
    "touched",
    MetaData(),
    Column("customer_id", Big, primary_key=True, autoincrement=False),
    prefixes=["temporary"],
)
"""Whom to look at again."""


@dataclass(frozen=True)
class At:
    """Everybody, or everybody in `among` (a table with customer_id), at one instant."""

    as_of: datetime
    among: FromClause | None = None

    @property
    def keys(self) -> list[ColumnElement]:
        """What distinguishes the looks at one customer."""
        return []

    @property
    def now(self) -> ColumnElement[datetime]:
        return literal(self.as_of, Instant())

    def ago(self, days: int) -> ColumnElement[datetime]:
        return literal(self.as_of - timedelta(days=days), Instant())

    def whose(self, customer_id: ColumnElement[int]) -> ColumnElement[int]:
        """The same customer, by the column that rows are best grouped by."""
        return customer_id

    def on(self, query: Select, customer_id: ColumnElement[int]) -> Select:
        """`query`, whose rows have `customer_id`, for these customers."""
        return query if self.among is None else query.where(customer_id.in_(select(self.among.c.customer_id)))


@dataclass(frozen=True)
class AtPoints:
    """Every (customer_id, as_of) in `points`."""

    points: FromClause = points

    @property
    def keys(self) -> list[ColumnElement]:
        return [self.points.c.as_of]

    @property
    def now(self) -> ColumnElement[datetime]:
        return self.points.c.as_of

    def ago(self, days: int) -> ColumnElement[datetime]:
        return plus_days(self.points.c.as_of, -days)

    def whose(self, customer_id: ColumnElement[int]) -> ColumnElement[int]:
        return self.points.c.customer_id

    def on(self, query: Select, customer_id: ColumnElement[int]) -> Select:
        return query.join(self.points, self.points.c.customer_id == customer_id)


Moment = At | AtPoints
