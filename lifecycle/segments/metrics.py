"""What a customer has bought, as of an instant: one definition, computed by the database.

What counts as an order is configuration (`orders` in config/segments.yaml). By default an order counts once it
is paid and worth more than nothing. Money given back lowers the spend from the day it was given back, so that an
earlier `as_of` still sees the order as it stood then; a return booked as an order of its own lowers it from its
own date. Customers without a counted order have no row.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    FromClause,
    Select,
    and_,
    bindparam,
    case,
    cast,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from lifecycle.db import schema
from lifecycle.db.instants import day_number
from lifecycle.db.schema import Big
from lifecycle.segments.moments import Moment
from lifecycle.settings.segments import CountedOrders

YEAR_DAYS = 365
GIVEN_BACK: BindParameter[Any] = bindparam(
    "given_back", ("returned", "refunded"), expanding=True, literal_execute=True
)
"""Written out in the statement, because only then SQLite sees that the index of such orders will do."""


@dataclass(frozen=True)
class Sources:
    """The tables that are read, and how."""

    counting: CountedOrders
    windows: tuple[int, ...] = ()
    """Further windows, in days, beside the 12 months."""
    landed_by: datetime | None = None
    """Only orders that had been landed here by then. What a later version changed of one counts all the same."""
    orders: FromClause = field(default=schema.orders)
    refunds: FromClause = field(default=schema.refunds)
    identities: FromClause = field(default=schema.identities)
    messages: FromClause = field(default=schema.messages)
    message_events: FromClause = field(default=schema.message_events)
    event_classes: FromClause = field(default=schema.event_classes)


class _OfOneCustomer(FunctionElement[int]):
    """customer_id of the rows of a subquery that is told by an inequality too which of them to look at."""

    type = Big
    inherit_cache = True


@compiles(_OfOneCustomer)
def _(element: _OfOneCustomer, compiler: Any, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(_OfOneCustomer, "spark")
def _(element: _OfOneCustomer, compiler: Any, **options: Any) -> str:
    # A bare column is taken out of the subquery, which then pairs every order with every instant.
    return f"{compiler.process(element.clauses, **options)} + 0"


def window_columns(days: int) -> tuple[str, str]:
    """Names of the metrics of a window: orders and spend."""
    name = "12m" if days == YEAR_DAYS else f"{days}d"
    return f"orders_{name}", f"spend_{name}_minor"


def metrics(sources: Sources, moment: Moment, wanted: Collection[str] | None = None) -> Select:
    """One row per customer (and instant, for points) with a counted order up to and including that instant.

    Columns: customer_id, as_of (for points), and those of `customer_metrics` before r, f, m, then orders_Nd and
    spend_Nd_minor of each further window; of these the `wanted` ones, None: all. Money is in the base currency, or
    in the one that is counted. A window of N days is (as_of - N days, as_of]. Of orders at the same instant the
    last by shop is the newest, so that the order in which they were taken in does not matter.
    """
    totals = _totals(sources, moment)
    of_orders = [name for name in totals if wanted is None or name in wanted or name == "last_order_at"]
    if wanted is None or "refunded_minor" in wanted:
        of_orders += [name for name in ("gross_minor", "monetary_minor") if name not in of_orders]
    bought = _bought(sources, moment, {name: totals[name] for name in of_orders}).subquery("bought")
    columns: dict[str, ColumnElement[Any]] = {name: bought.c[name] for name in totals if name in of_orders}
    columns["last_shop"] = _newest(sources, moment, bought, "shop", operator.eq)
    columns["previous_order_at"] = _newest(sources, moment, bought, "ordered_at", operator.lt)
    source: FromClause = bought
    for extra, adjust in (
        (_given_back(sources, moment), _less_given_back),
        (_messaged(sources, moment), _as_it_is),
        (_engaged(sources, moment), _as_it_is),
    ):
        beside = extra.subquery()
        found = adjust(columns, beside, bought)
        if wanted is None or set(found) & set(wanted):
            source = source.outerjoin(beside, _same(bought, beside))
            columns |= found
    names = [name for name in columns if wanted is None or name in wanted]
    keys = [bought.c[key] for key in ("customer_id", *(key.name for key in moment.keys))]
    return select(*keys, *(columns[name].label(name) for name in names)).select_from(source)


def _totals(sources: Sources, moment: Moment) -> dict[str, ColumnElement[Any]]:
    """What the counted orders of a customer come to, by name."""
    orders = sources.orders.c
    total, back, _ = _amounts(sources)
    spend = total
    if sources.counting.refunds == "subtract":
        spend = total - back + _given_back_later(sources, moment)
    totals: dict[str, ColumnElement[Any]] = {
        "first_order_at": func.min(orders.ordered_at),
        "last_order_at": func.max(orders.ordered_at),
        "frequency": func.count(),
        "order_days": func.count(day_number(orders.ordered_at).distinct()),
        "order_lines": _total(orders.line_count),
        "gross_minor": _total(total),
        "monetary_minor": _total(spend),
    }
    for days in (YEAR_DAYS, *sources.windows):
        for name, value in zip(window_columns(days), (literal(1), spend), strict=True):
            totals[name] = _total(case((orders.ordered_at > moment.ago(days), value), else_=0))
    return totals


def _bought(sources: Sources, moment: Moment, totals: Mapping[str, ColumnElement[Any]]) -> Select:
    """Per customer: the totals of the counted orders."""
    whose = moment.whose(sources.orders.c.customer_id)
    query = select(
        whose.label("customer_id"), *moment.keys, *(total.label(name) for name, total in totals.items())
    )
    query = moment.on(query.select_from(sources.orders), sources.orders.c.customer_id)
    query = query.where(*counted_orders(sources, sources.orders, moment.now))
    return query.group_by(whose, *moment.keys)


def _less_given_back(
    columns: Mapping[str, ColumnElement[Any]], back: FromClause, bought: FromClause
) -> dict[str, ColumnElement[Any]]:
    """The amounts after returns, and with what counts no more."""
    gone, returned = _or_none(back.c.gone_minor), _or_none(back.c.returned_minor)
    adjusted: dict[str, ColumnElement[Any]] = {}
    if "gross_minor" in bought.c:
        adjusted["gross_minor"] = bought.c.gross_minor + gone
    if "monetary_minor" in bought.c:
        adjusted["monetary_minor"] = bought.c.monetary_minor - returned
    if "gross_minor" in adjusted and "monetary_minor" in adjusted:
        adjusted["refunded_minor"] = bought.c.gross_minor - bought.c.monetary_minor + gone + returned
    for name in columns:
        if name.startswith("spend_"):
            adjusted[name] = bought.c[name] - _or_none(back.c[f"returned_{name}"])
    return adjusted


def _as_it_is(
    columns: Mapping[str, ColumnElement[Any]], beside: FromClause, bought: FromClause
) -> dict[str, ColumnElement[Any]]:
    return {column.name: column for column in beside.c if column.name not in ("customer_id", "as_of")}


def _newest(
    sources: Sources,
    moment: Moment,
    bought: FromClause,
    column: str,
    when: Callable[[Any, Any], ColumnElement[bool]],
) -> ColumnElement[Any]:
    """The last value of a column of those of a customer's counted orders that were placed when the newest was
    (eq), or before it (lt)."""
    orders = sources.orders.alias("newest")
    now = bought.c.as_of if moment.keys else moment.now
    whose = _OfOneCustomer(orders.c.customer_id) if when is operator.lt else orders.c.customer_id
    query = select(func.max(orders.c[column])).where(
        whose == bought.c.customer_id,
        when(orders.c.ordered_at, bought.c.last_order_at),
        *counted_orders(
            sources, orders, now, placed=False
        ),  # `when` says so already, and an index serves only one
    )
    return query.correlate(bought).scalar_subquery()


def _given_back(sources: Sources, moment: Moment) -> Select:
    """Per customer: returns booked as orders, and orders that were paid back in full and so count no more.
    Positive amounts; only returns lower the spend, the others are in it no longer."""
    orders, counting = sources.orders.c, sources.counting
    whose = moment.whose(orders.customer_id)
    total, _, _ = _amounts(sources)
    is_return = and_(orders.status == "returned", true() if counting.returns == "subtract" else false())
    gone = and_(orders.status == "refunded", not_(_still_counts(sources, sources.orders, moment.now)))
    returned = case((is_return, -total), else_=0)
    query = select(
        whose.label("customer_id"),
        *moment.keys,
        _total(returned).label("returned_minor"),
        _total(case((gone, total), else_=0)).label("gone_minor"),
        *(
            _total(case((orders.ordered_at > moment.ago(days), returned), else_=0)).label(
                f"returned_{window_columns(days)[1]}"
            )
            for days in (YEAR_DAYS, *sources.windows)
        ),
    ).select_from(sources.orders)
    query = moment.on(query, orders.customer_id).where(orders.status.in_(GIVEN_BACK), or_(is_return, gone))
    query = query.where(*_seen(sources, sources.orders, moment.now))
    return query.group_by(whose, *moment.keys)


def counted_orders(
    sources: Sources, orders: FromClause, now: ColumnElement[datetime], *, placed: bool = True
) -> list[ColumnElement[bool]]:
    """What an order must be to count at `now`; without `placed` it may have been placed later."""
    statuses = [status for status in sources.counting.statuses if status != "refunded"]
    refunded = and_(orders.c.status == "refunded", _still_counts(sources, orders, now))
    floor = {
        "positive": [orders.c.total_minor > 0],
        "not_negative": [orders.c.total_minor >= 0],
        "any": [],
    }
    return [
        *_seen(sources, orders, now, placed=placed),
        *floor[sources.counting.totals],
        or_(orders.c.status.in_(statuses), refunded),
    ]


def _still_counts(sources: Sources, orders: FromClause, now: ColumnElement[datetime]) -> ColumnElement[bool]:
    """Whether an order that is paid back in full today was, at `now`, still one."""
    if sources.counting.refunds == "ignore" or "refunded" in sources.counting.statuses:
        return true()
    refunds = sources.refunds.alias("still")
    later = select(refunds.c.order_key).where(
        refunds.c.order_key == orders.c.order_key, refunds.c.refunded_at > now
    )
    return later.correlate_except(refunds).exists()


def _given_back_later(sources: Sources, moment: Moment) -> ColumnElement[int]:
    """What will be given back of an order after the instant, and so still counted then. Few orders have a refund:
    the others are not looked up."""
    _, back, amount = _amounts(sources)
    refunds, orders = sources.refunds, sources.orders
    later = select(func.sum(amount)).where(
        refunds.c.order_key == orders.c.order_key, refunds.c.refunded_at > moment.now
    )
    correlated = later.correlate_except(refunds).scalar_subquery()
    return case((back != 0, _or_none(cast(correlated, Big))), else_=0)


def _messaged(sources: Sources, moment: Moment) -> Select:
    """Per customer: when a message was last accepted, or may have arrived."""
    messages = sources.messages.c
    query = select(messages.customer_id, *moment.keys, func.max(messages.sent_at).label("last_messaged_at"))
    query = moment.on(query.select_from(sources.messages), messages.customer_id)
    query = query.where(messages.state.in_(("accepted", "unknown")), messages.sent_at <= moment.now)
    return query.group_by(messages.customer_id, *moment.keys)


def _engaged(sources: Sources, moment: Moment) -> Select:
    """Per customer: when they last opened and clicked, as people, by the newest rules that judged the event."""
    messages, events, classes = sources.messages.c, sources.message_events.c, sources.event_classes.c
    newest = (
        select(classes.event_id, func.max(classes.rules_version).label("rules_version"))
        .group_by(classes.event_id)
        .subquery("newest_rules")
    )
    query = (
        select(
            messages.customer_id,
            *moment.keys,
            func.max(case((events.kind == "opened", events.occurred_at))).label("last_opened_at"),
            func.max(case((events.kind == "clicked", events.occurred_at))).label("last_clicked_at"),
        )
        .select_from(sources.message_events)
        .join(sources.messages, messages.message_id == events.message_id)
        .join(newest, newest.c.event_id == events.event_id)
        .join(
            sources.event_classes,
            and_(classes.event_id == events.event_id, classes.rules_version == newest.c.rules_version),
        )
    )
    query = moment.on(query, messages.customer_id)
    query = query.where(
        events.kind.in_(("opened", "clicked")), classes["class"] == "person", events.occurred_at <= moment.now
    )
    return query.group_by(messages.customer_id, *moment.keys)


def _seen(
    sources: Sources, orders: FromClause, now: ColumnElement[datetime], *, placed: bool = True
) -> list[ColumnElement[bool]]:
    """Orders of known customers that had been placed, in the currency that counts."""
    counting = sources.counting
    conditions: list[ColumnElement[bool]] = [orders.c.customer_id.is_not(None)]
    if placed:
        conditions.append(orders.c.ordered_at <= now)
    if sources.landed_by is not None:
        conditions.append(orders.c.landed_at <= sources.landed_by)
    if counting.currency is not None:
        conditions.append(orders.c.currency == counting.currency)
    if counting.guests == "drop":
        conditions.append(orders.c.customer_id.in_(select(sources.identities.c.customer_id)))
    return conditions


def _amounts(sources: Sources) -> tuple[ColumnElement[int], ColumnElement[int], ColumnElement[int]]:
    """An order's total and what was given back of it until today, and one refund, in the currency that counts."""
    orders, refunds = sources.orders.c, sources.refunds.c
    if sources.counting.currency is None:
        return orders.total_base_minor, orders.refunded_base_minor, refunds.amount_base_minor
    return orders.total_minor, orders.refunded_minor, refunds.amount_minor


def _same(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    names = [name for name in ("customer_id", "as_of") if name in one.c]
    return and_(*(one.c[name] == other.c[name] for name in names))


def _or_none(column: ColumnElement[int]) -> ColumnElement[int]:
    return func.coalesce(column, 0)


def _total(column: ColumnElement[int]) -> ColumnElement[int]:
    return cast(func.sum(column), Big)
