"""Whose metrics may differ between two builds, whatever the reason: a change of the data, or time going by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, insert, select, union

from lifecycle.db.schema import changed_customers, message_events, messages, orders, refunds
from lifecycle.segments.definitions import Definitions
from lifecycle.segments.metrics import YEAR_DAYS, window_columns
from lifecycle.segments.moments import touched


def touch(connection: Connection, definitions: Definitions, since: datetime, until: datetime) -> None:
    """Fill `touched`, which is empty, with everybody whose metrics may differ as of `until` from those as of
    `since`, and take the changes that are counted in out of the log.

    The transaction sees one state of the database, so that a change that is not seen stays in the log.
    """
    logged = select(changed_customers.c.customer_id)
    found = union(logged, *crossed(definitions, since, until)).subquery("found")
    connection.execute(insert(touched).from_select(["customer_id"], select(found)))
    forget_changes(connection)


def forget_changes(connection: Connection) -> None:
    connection.execute(delete(changed_customers))


def crossed(
    definitions: Definitions, since: datetime, until: datetime, columns: Collection[str] | None = None
) -> Iterator[Select]:
    """customer_id of those for whom something of the unchanged data begins or ceases to count in (since, until],
    in any of these columns of metrics; None: in any."""

    def between(instant: ColumnElement[datetime], days: int = 0) -> ColumnElement[bool]:
        earlier = timedelta(days=days)
        return and_(instant > since - earlier, instant <= until - earlier)

    def asked(*names: str) -> bool:
        return columns is None or not set(names).isdisjoint(columns)

    for days in (0, YEAR_DAYS, *definitions.sources.windows):
        if days and not asked(*window_columns(days)):
            continue
        yield select(orders.c.customer_id).where(
            orders.c.customer_id.is_not(None), between(orders.c.ordered_at, days)
        )
    yield (
        select(orders.c.customer_id)
        .join_from(refunds, orders, orders.c.order_key == refunds.c.order_key)
        .where(orders.c.customer_id.is_not(None), between(refunds.c.refunded_at))
    )
    if asked("last_messaged_at"):
        yield select(messages.c.customer_id).where(between(messages.c.sent_at))
    if asked("last_opened_at", "last_clicked_at"):
        yield _reacted(between)


def _reacted(between: Callable[[ColumnElement[datetime]], ColumnElement[bool]]) -> Select:
    return (
        select(messages.c.customer_id)
        .join_from(message_events, messages, messages.c.message_id == message_events.c.message_id)
        .where(message_events.c.kind.in_(("opened", "clicked")), between(message_events.c.occurred_at))
    )
