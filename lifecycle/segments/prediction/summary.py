"""What the models need to know of a customer's orders, computed by the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, FromClause, Select, and_, case, cast, func, literal, select

from lifecycle.db.arrays import arrays
from lifecycle.db.instants import DAY_US, day_number
from lifecycle.db.schema import Big, microseconds

Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Purchases:
    """The columns of `purchase_summary`, one place per customer, by customer_id."""

    customer_id: Whole
    frequency: Whole
    recency_days: Whole
    age_days: Whole
    spend_repeat_minor: Whole

    @property
    def customers(self) -> int:
        return len(self.customer_id)

    @property
    def repeat_customers(self) -> int:
        return int(np.count_nonzero(self.frequency))

    @property
    def history_days(self) -> int:
        """From the first order of all."""
        return int(self.age_days.max(initial=0))


def purchase_summary(
    orders: FromClause,
    *,
    as_of: datetime,
    since: datetime | None = None,
    counted: ColumnElement[bool] | None = None,
    spend: ColumnElement[int] | None = None,
) -> Select:
    """One row per customer with a counted order up to and including `as_of`; orders before `since` are as if they
    had not been.

    customer_id; frequency: UTC days with an order, without the first of them; recency_days: from the first to the
    last; age_days: from the first to that of `as_of` (T in the literature); spend_repeat_minor: what was spent on
    all of them but the first, less what was given back of it. The same as summary_data_from_transaction_data of
    `lifetimes` with freq="D", whose monetary_value is the mean of this spend.

    `counted`: which orders of known customers count, by default those paid and worth more than nothing.
    `spend`: of an order, in minor units, by default in the base currency.
    """
    o = orders.c
    counted = and_(o.status == "paid", o.total_minor > 0) if counted is None else counted
    spend = o.total_base_minor - o.refunded_base_minor if spend is None else spend
    seen = [o.customer_id.is_not(None), o.ordered_at <= as_of, counted]
    if since is not None:
        seen.append(o.ordered_at >= since)
    days = (
        select(o.customer_id, day_number(o.ordered_at).label("day"), _total(spend).label("spend_minor"))
        .where(*seen)
        .group_by(o.customer_id, day_number(o.ordered_at))
        .subquery("days")
    )
    first_day = func.min(days.c.day).over(partition_by=days.c.customer_id)
    d = select(days, first_day.label("first_day")).subquery("days_since_first").c
    today = literal(microseconds(as_of) // DAY_US, Big)
    repeated = case((d.day > d.first_day, d.spend_minor), else_=0)
    return select(
        d.customer_id,
        (func.count() - 1).label("frequency"),
        (func.max(d.day) - d.first_day).label("recency_days"),
        (today - d.first_day).label("age_days"),
        _total(repeated).label("spend_repeat_minor"),
    ).group_by(d.customer_id, d.first_day)


def load_purchases(connection: Connection, summary: Select) -> Purchases:
    """The rows of a `purchase_summary`, by customer_id."""
    columns = arrays(connection, summary)
    order = np.argsort(columns["customer_id"])
    return Purchases(**{name: column[order] for name, column in columns.items()})


def compress(*columns: Whole) -> tuple[tuple[Whole, ...], Whole, Whole]:
    """The different rows of `columns`, none negative: their columns, where each given row is among them, and how
    often each is there. A million customers have far fewer different histories."""
    spans = [int(column.max(initial=0)) + 1 for column in columns]
    key = np.ravel_multi_index(columns, spans)
    different, place, times = np.unique(key, return_inverse=True, return_counts=True)
    return np.unravel_index(different, spans), place, times


def _total(column: ColumnElement[int]) -> ColumnElement[int]:
    return cast(func.sum(column), Big)
