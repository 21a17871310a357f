"""What unsubscribing means: the address gets no more marketing on this channel, and the consent is withdrawn."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select

from lifecycle.customers.consent import effective_consent, withdraw
from lifecycle.customers.suppression import suppress
from lifecycle.db.schema import plans
from lifecycle.tracking.store import Unsubscribe

_TOPIC = "promotions"


def end_marketing(connection: Connection, message: Row[Any], entry: Unsubscribe) -> None:
    """In the transaction of the raw event. Done twice it changes nothing; after a new opt-in it works again."""
    evidence = f"message {message.message_id}, {entry.via}"
    suppress(
        connection,
        [message.address_hash],
        "unsubscribe",
        channel=message.channel,
        evidence=evidence,
        occurred_at=entry.occurred_at,
        recorded_at=entry.occurred_at,
    )
    topic = _topic(connection, message)
    if not _is_withdrawn(connection, message, topic, entry):
        withdraw(
            connection,
            message.customer_id,
            message.shop,
            message.channel,
            topic,
            occurred_at=entry.occurred_at,
            recorded_at=entry.occurred_at,
            source="web",
            evidence=evidence,
        )


def _topic(connection: Connection, message: Row[Any]) -> str:
    """What consent the message was planned on."""
    query = select(plans.c.definition).where(plans.c.plan_id == message.plan_id)
    definition = connection.execute(query).scalar() or {}
    return str(definition.get("topic", _TOPIC))


def _is_withdrawn(connection: Connection, message: Row[Any], topic: str, entry: Unsubscribe) -> bool:
    newest = effective_consent(entry.occurred_at).subquery()
    query = select(newest.c.status).where(
        newest.c.customer_id == message.customer_id,
        newest.c.shop == message.shop,
        newest.c.channel == message.channel,
        newest.c.topic == topic,
    )
    return connection.execute(query).scalar() == "withdrawn"
