"""What a customer has bought, as of an instant: one definition, computed by the database.

An order counts once it is paid and worth more than nothing. Money given back lowers the spend from the day it
was given back, so that an earlier `as_of` still sees the order as it stood then; a return booked as an order of
its own lowers it from its own date. Customers without a counted order have no row.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, FromClause, Select, and_, case, cast, func, or_, select

from lifecycle.db.instants import whole_days
from lifecycle.db.schema import Big

YEAR = timedelta(days=365)


def metrics(orders: FromClause, refunds: FromClause, as_of: datetime) -> Select:
    """One row per customer with a counted order up to and including `as_of`.

    Columns: customer_id, first_order_at, last_order_at, last_shop, recency_days, frequency, monetary_minor,
    orders_12m, spend_12m_minor; money in the base currency. The last 12 months are (as_of - 365 days, as_of].
    """
    booked = _booked(orders, refunds, as_of).subquery("booked")
    newest = case((booked.c.newest == 1, booked.c.shop))
    paid_at = case((booked.c.counted == 1, booked.c.ordered_at))
    in_12m = booked.c.ordered_at > as_of - YEAR
    totals = (
        select(
            booked.c.customer_id,
            func.min(paid_at).label("first_order_at"),
            func.max(paid_at).label("last_order_at"),
            func.max(newest).label("last_shop"),
            _total(booked.c.counted).label("frequency"),
            _total(booked.c.spend_minor).label("monetary_minor"),
            _total(case((in_12m, booked.c.counted), else_=0)).label("orders_12m"),
            _total(case((in_12m, booked.c.spend_minor), else_=0)).label("spend_12m_minor"),
        )
        .group_by(booked.c.customer_id)
        .having(func.max(booked.c.counted) == 1)
        .subquery("totals")
    )
    return select(totals, whole_days(totals.c.last_order_at, as_of).label("recency_days"))


def _booked(orders: FromClause, refunds: FromClause, as_of: datetime) -> Select:
    """Counted orders and returns seen at `as_of`, with what each adds to the spend; `newest` numbers each
    customer's counted orders from the newest, of equally old ones from the one taken in last."""
    later = (
        select(refunds.c.order_key, _total(refunds.c.amount_base_minor).label("minor"))
        .where(refunds.c.refunded_at > as_of)
        .group_by(refunds.c.order_key)
        .subquery("given_back_later")
    )
    returned = orders.c.status == "returned"
    paid = or_(
        orders.c.status == "paid",
        and_(orders.c.status == "refunded", later.c.order_key.is_not(None)),
    )
    counted = case((returned, 0), else_=1)
    kept = orders.c.total_base_minor - orders.c.refunded_base_minor + func.coalesce(later.c.minor, 0)
    return (
        select(
            orders.c.customer_id,
            orders.c.ordered_at,
            orders.c.shop,
            counted.label("counted"),
            case((returned, orders.c.total_base_minor), else_=kept).label("spend_minor"),
            func.row_number()
            .over(
                partition_by=orders.c.customer_id,
                order_by=(counted.desc(), orders.c.ordered_at.desc(), orders.c.order_key.desc()),
            )
            .label("newest"),
        )
        .outerjoin_from(orders, later, later.c.order_key == orders.c.order_key)
        .where(orders.c.customer_id.is_not(None), orders.c.ordered_at <= as_of)
        .where(or_(returned, and_(orders.c.total_minor > 0, paid)))
    )


def _total(column: ColumnElement[int]) -> ColumnElement[int]:
    return cast(func.sum(column), Big)
