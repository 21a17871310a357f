"""Batches: which are open, and how a process takes one as its own."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Engine, and_, func, or_, select, update

from lifecycle.customers import handles
from lifecycle.db.engine import reading
from lifecycle.db.schema import customers, messages, orders, plans
from lifecycle.ledger import holds
from lifecycle.ledger.records import Batch
from lifecycle.ledger.settling import Claimed, oldest_to_send, too_old
from lifecycle.messages.records import Recipient
from lifecycle.settings.channels import Way


def open_batches(
    engine: Engine, *, now: datetime, plan_id: int | None = None, campaign: str | None = None
) -> list[Batch]:
    """Batches with messages that are due and not on hold; all of them, or of one plan or campaign.

    Oldest plan first; of one plan the mailbox providers take turns, so that those that are worked on at the same
    time are of different lanes.
    """
    rows = messages.c
    query = (
        select(rows.plan_id, rows.batch, rows.channel, func.count(), rows.mailbox_provider)
        .where(rows.state == "reserved", rows.plan_id.is_not(None), due(now), ~holds.held())
        .group_by(rows.plan_id, rows.batch, rows.channel, rows.mailbox_provider)
        .order_by(rows.plan_id, rows.batch)
    )
    if plan_id is not None:
        query = query.where(rows.plan_id == plan_id)
    if campaign is not None:
        query = query.where(rows.what == campaign)
    with reading(engine) as connection:
        found = [Batch(*row) for row in connection.execute(query)]
    turns: dict[tuple[int, str], int] = {}
    turn: dict[Batch, int] = {}
    for batch in found:
        lane = batch.plan_id, batch.mailbox_provider
        turn[batch] = turns[lane] = turns.get(lane, 0) + 1
    return sorted(found, key=lambda batch: (batch.plan_id, turn[batch], batch.batch))


def due(now: datetime) -> ColumnElement[bool]:
    return or_(messages.c.not_before.is_(None), messages.c.not_before <= now)


def take(connection: Connection, batch: Batch, claim: str, settings: Way, now: datetime) -> bool:
    """Claim what is due; false where somebody else's claim is alive."""
    open_rows = and_(
        messages.c.plan_id == batch.plan_id,
        messages.c.batch == batch.batch,
        messages.c.state.in_(("reserved", "sending")),
    )
    # In order of the key, so that two who want the same batch wait for each other instead of deadlocking.
    locked = select(messages.c.lease_until).where(open_rows).order_by(messages.c.message_id).with_for_update()
    if any(lease is not None and lease > now for lease in connection.execute(locked).scalars()):
        return False
    address_hash = handles.address_hash_of(settings.kind, messages.c.customer_id, messages.c.shop)
    connection.execute(
        update(messages)
        .where(open_rows, messages.c.state == "reserved", due(now), ~too_old(oldest_to_send(settings, now)))
        .values(
            claim=claim,
            lease_until=now + timedelta(seconds=settings.lease_seconds),
            address_hash=func.coalesce(address_hash, messages.c.address_hash),
        )
    )
    return True


def claimed(connection: Connection, claim: str, settings: Way) -> list[Claimed]:
    """The messages of a claim, in order, with what is known about their people now."""
    names = ("message_id", "plan_id", "what", "customer_id", "channel", "purpose", "shop", "template", "locale")
    query = (
        select(
            *(messages.c[name] for name in names),
            handles.address_of(settings.kind, messages.c.customer_id, messages.c.shop).label("address"),
            customers.c.name,
            customers.c.country,
            messages.c.address_hash,
            messages.c.attempts,
        )
        .join_from(messages, customers, customers.c.customer_id == messages.c.customer_id)
        .where(messages.c.claim == claim, messages.c.state == "reserved")
        .order_by(messages.c.message_id)
    )
    if settings.kind != "email":
        query = query.add_columns(newest_order().label("order_id"))
    found = []
    for row in connection.execute(query).mappings():
        values = dict(row)
        address_hash, attempts = values.pop("address_hash"), values.pop("attempts")
        found.append(Claimed(Recipient(**values), address_hash, attempts))
    return found


def topic_of(connection: Connection, plan_id: int) -> str:
    definition = connection.execute(select(plans.c.definition).where(plans.c.plan_id == plan_id)).scalar_one()
    return str(definition["topic"])


def newest_order() -> ColumnElement[str]:
    """The platform's id of the order that a message can be about: the newest of those delivered, else of all."""
    return (
        select(orders.c.order_id)
        .where(
            orders.c.customer_id == messages.c.customer_id,
            orders.c.shop == messages.c.shop,
            orders.c.status.not_in(("cancelled", "returned")),
        )
        .order_by(orders.c.delivered_at.is_(None), orders.c.delivered_at.desc(), orders.c.ordered_at.desc())
        .limit(1)
        .correlate(messages)
        .scalar_subquery()
    )
