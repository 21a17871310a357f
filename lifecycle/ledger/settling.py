"""The statements by which one message moves through its states, each guarded by the fencing token.

Built once per batch and run for every message, so they are prepared with named parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, Update, and_, bindparam, exists, insert, or_, select, update

from lifecycle.channels.base import Accepted, Outcome, Refused, Unknown
from lifecycle.customers.consent import effective_consent
from lifecycle.customers.suppression import active_suppressions, suppress
from lifecycle.db.schema import Instant, customers, message_events, messages, verdicts
from lifecycle.messages.records import Recipient
from lifecycle.settings.models import EmailChannel


class ClaimLost(Exception):
    """Another process has taken the batch over; whatever we know, its rows are no longer ours to write."""


@dataclass(frozen=True)
class Claimed:
    """One message of ours. attempts: before this one. address_hash: of the address in `recipient`."""

    recipient: Recipient
    address_hash: str
    attempts: int


@dataclass(frozen=True)
class Forbidden:
    """Why a message must not leave after all; `verdict` and `rule` as planning would have said it."""

    verdict: str
    rule: str | None
    reason: str


class OutOfDate(Exception):
    """The person has another address than the mail was made for; the message waits for the next drain."""


def too_old(oldest: datetime) -> ColumnElement[bool]:
    """Marketing that was reserved before `oldest` and must not leave any more."""
    return and_(messages.c.purpose == "marketing", messages.c.reserved_at < oldest)


def oldest_to_send(settings: EmailChannel, now: datetime) -> datetime:
    return now - timedelta(hours=settings.expire_hours)


def expired(reserved_at: datetime, hours: int) -> Forbidden:
    reason = f"expired: reserved on {reserved_at:%Y-%m-%d} and not sent within {hours} hours"
    return Forbidden("condition_gone", "expired", reason)


def mark_sending(settings: EmailChannel, topic: str) -> Update:
    """Reserved to sending, where the claim is ours, the address is still theirs, and nobody has said no since.

    Parameters: of_message, of_customer, mine, at, until, oldest (as for `too_old`).

    `send_at` moves to now, so that caps count the mail and not its reservation. That breaks none: of messages
    within one window the last to be reserved was judged while each other had either left within it, or waited for
    less than `expire_hours`, which no window is shorter than; so all were counted.
    """
    at = cast(datetime, bindparam("at", type_=Instant()))
    oldest = cast(datetime, bindparam("oldest", type_=Instant()))
    suppressed = active_suppressions().subquery()  # without an instant: the clock of who wrote it may be ahead
    agreed = effective_consent(at).subquery()
    address = select(customers.c.email_hash).where(customers.c.customer_id == bindparam("of_customer"))
    return (
        update(messages)
        .where(
            messages.c.message_id == bindparam("of_message"),
            messages.c.claim == bindparam("mine"),
            messages.c.state == "reserved",
            ~too_old(oldest),
            messages.c.address_hash == address.scalar_subquery(),
            ~exists().where(
                suppressed.c.address_hash == messages.c.address_hash,
                suppressed.c.channel == settings.kind,
                suppressed.c.purpose.in_(("all", messages.c.purpose)),
                or_(suppressed.c.shop.is_(None), suppressed.c.shop == messages.c.shop),
            ),
            or_(
                messages.c.purpose != "marketing",
                exists().where(
                    agreed.c.customer_id == bindparam("of_customer"),
                    agreed.c.shop == messages.c.shop,
                    agreed.c.channel == settings.kind,
                    agreed.c.topic == topic,
                    agreed.c.status == "granted",
                ),
            ),
        )
        .values(
            state="sending",
            send_at=bindparam("at", type_=Instant()),
            sent_at=bindparam("at", type_=Instant()),
            attempts=messages.c.attempts + 1,
            lease_until=bindparam("until", type_=Instant()),
        )
    )


def why_forbidden(
    connection: Connection, settings: EmailChannel, topic: str, claimed: Claimed, claim: str, now: datetime
) -> Forbidden:
    """Why `mark_sending` changed nothing. Raises ClaimLost and OutOfDate."""
    to = claimed.recipient
    found = connection.execute(
        select(
            messages.c.state, messages.c.claim, messages.c.purpose, messages.c.reserved_at, customers.c.email_hash
        )
        .join_from(messages, customers, customers.c.customer_id == messages.c.customer_id)
        .where(messages.c.message_id == to.message_id)
    ).one()
    if (found.state, found.claim) != ("reserved", claim):
        raise ClaimLost
    if found.purpose == "marketing" and found.reserved_at < oldest_to_send(settings, now):
        return expired(found.reserved_at, settings.expire_hours)
    if found.email_hash is None:
        return Forbidden("no_address", None, "no address any more")
    if found.email_hash != claimed.address_hash:
        raise OutOfDate
    suppressed = active_suppressions().subquery()
    reason = connection.execute(
        select(suppressed.c.reason)
        .where(
            suppressed.c.address_hash == claimed.address_hash,
            suppressed.c.channel == settings.kind,
            suppressed.c.purpose.in_(("all", to.purpose)),
            or_(suppressed.c.shop.is_(None), suppressed.c.shop == to.shop),
        )
        .order_by(suppressed.c.occurred_at.desc())
        .limit(1)
    ).scalar()
    if reason is not None:
        return Forbidden("suppressed", reason, f"suppressed since planning: {reason}")
    agreed = effective_consent(now).subquery()
    status = connection.execute(
        select(agreed.c.status).where(
            agreed.c.customer_id == to.customer_id,
            agreed.c.shop == to.shop,
            agreed.c.channel == settings.kind,
            agreed.c.topic == topic,
        )
    ).scalar()
    if status == "granted":  # given again between the two statements
        raise OutOfDate
    return Forbidden("no_consent", status or "never_given", "consent withdrawn since planning")


def settled(outcome: Outcome, *, attempts: int, settings: EmailChannel, now: datetime) -> dict[str, Any]:
    """Columns of a message after the peer's answer. attempts: with this one."""
    final = {"attempts": attempts, "settled_at": now}
    if isinstance(outcome, Accepted):
        return {**final, "state": "accepted", "provider_id": outcome.provider_id}
    if isinstance(outcome, Unknown):
        return {**final, "state": "unknown", "reason": outcome.text}
    reason = f"{outcome.code} {outcome.text}".strip()
    if outcome.permanent and outcome.scope != "lane":
        return {**final, "state": "refused", "reason": reason, "refusal": outcome.scope}
    if attempts >= settings.max_attempts:
        return {**final, "state": "refused", "reason": f"gave up after {attempts} attempts: {reason}"}
    not_before = now + timedelta(minutes=settings.retry_minutes * 2 ** (attempts - 1))
    return {"state": "reserved", "attempts": attempts, "reason": reason, "not_before": not_before}


def settle(connection: Connection, claimed: Claimed, claim: str, values: Mapping[str, Any]) -> None:
    """Write `values` on a message of ours and let it go. Raises ClaimLost."""
    row = {"attempts": claimed.attempts, **values}
    parameters = {f"new_{name}": row.get(name) for name in _SETTLED}
    parameters |= {"of_message": claimed.recipient.message_id, "mine": claim}
    if not connection.execute(_SETTLE, parameters).rowcount:
        raise ClaimLost


_SETTLED = ("state", "attempts", "settled_at", "not_before", "reason", "refusal", "provider_id")
_SETTLE = (
    update(messages)
    .where(
        messages.c.message_id == bindparam("of_message"),
        messages.c.claim == bindparam("mine"),
        messages.c.state.in_(("reserved", "sending")),
    )
    .values(
        {messages.c[name]: bindparam(f"new_{name}") for name in _SETTLED}
        | {messages.c.claim: None, messages.c.lease_until: None}
    )
)


def revise_verdict(connection: Connection, recipient: Recipient, forbidden: Forbidden, now: datetime) -> None:
    connection.execute(
        update(verdicts)
        .where(verdicts.c.plan_id == recipient.plan_id, verdicts.c.customer_id == recipient.customer_id)
        .where(verdicts.c.revised_verdict.is_(None))
        .values(revised_verdict=forbidden.verdict, revised_rule=forbidden.rule, revised_at=now)
    )


def note_bounce(
    connection: Connection, claimed: Claimed, refused: Refused, settings: EmailChannel, now: datetime
) -> None:
    """The address is dead: an event on the message, and nobody writes there again."""
    message_id = claimed.recipient.message_id
    connection.execute(
        insert(message_events).values(
            message_id=message_id,
            kind="bounced",
            occurred_at=now,
            detail={"code": refused.code, "text": refused.text},
            source="smtp",
            dedupe_key=f"bounced:{message_id}",
        )
    )
    suppress(
        connection,
        [claimed.address_hash],
        "hard_bounce",
        channel=settings.kind,
        evidence=f"message {message_id}: {refused.code}",
        occurred_at=now,
        recorded_at=now,
        purpose="all",
    )
