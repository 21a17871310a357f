"""What unsubscribing means: the address gets no more marketing on this channel, and the consent is withdrawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, select

from lifecycle.customers.consent import effective_consent, withdraw
from lifecycle.customers.handles import address_hash_of
from lifecycle.customers.suppression import suppress
from lifecycle.db.schema import messages, plans
from lifecycle.settings.channels import Way
from lifecycle.tracking.store import Unsubscribe

_TOPIC = "promotions"
_EMAIL = "email"


def end_marketing(
    connection: Connection, message: Row[Any], entry: Unsubscribe, *, channels: Mapping[str, Way]
) -> None:
    """In the transaction of the raw event. Done twice it changes nothing; after a new opt-in it works again."""
    kind = channels[message.channel].kind if message.channel in channels else _EMAIL
    evidence = f"message {message.message_id}, {entry.via}"
    suppress(
        connection,
        _addresses(connection, message, kind),
        "unsubscribe",
        channel=kind,
        evidence=evidence,
        occurred_at=entry.occurred_at,
        recorded_at=entry.occurred_at,
    )
    topic = _topic(connection, message)
    if not _is_withdrawn(connection, message, kind, topic, entry):
        withdraw(
            connection,
            message.customer_id,
            message.shop,
            kind,
            topic,
            occurred_at=entry.occurred_at,
            recorded_at=entry.occurred_at,
            source="web",
            evidence=evidence,
        )


def _addresses(connection: Connection, message: Row[Any], kind: str) -> list[str]:
    """Hashes of the address that was written to and of the one that the person has by now."""
    query = select(address_hash_of(kind, messages.c.customer_id, messages.c.shop))
    present = connection.execute(query.where(messages.c.message_id == message.message_id)).scalar()
    return [message.address_hash] if present is None else [message.address_hash, present]


def _topic(connection: Connection, message: Row[Any]) -> str:
    """What consent the message was planned on."""
    query = select(plans.c.definition).where(plans.c.plan_id == message.plan_id)
    definition = connection.execute(query).scalar() or {}
    return str(definition.get("topic", _TOPIC))


def _is_withdrawn(connection: Connection, message: Row[Any], kind: str, topic: str, entry: Unsubscribe) -> bool:
    newest = effective_consent(entry.occurred_at).subquery()
    query = select(newest.c.status).where(
        newest.c.customer_id == message.customer_id,
        newest.c.shop == message.shop,
        newest.c.channel == kind,
        newest.c.topic == topic,
    )
    return connection.execute(query).scalar() == "withdrawn"
