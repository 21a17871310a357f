"""The statements by which messages move through their states, each guarded by the fencing token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, TypeGuard, cast

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, func, or_, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from lifecycle.channels.base import Accepted, Outcome, Refused, Unknown
from lifecycle.customers import handles
from lifecycle.customers.consent import counts_at, newest_first
from lifecycle.customers.suppression import active_suppressions, suppress
from lifecycle.db.bulk import upsert
from lifecycle.db.schema import Instant, consents, message_events, messages, suppressions, verdicts
from lifecycle.messages.records import Recipient
from lifecycle.settings.channels import PLATFORM_KINDS, Way

STOPPED_MARKETING = "131050"
"""WhatsApp: the person has told it to stop this business' marketing; other messages still arrive."""


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


def oldest_to_send(settings: Way, now: datetime) -> datetime:
    return now - timedelta(hours=settings.expire_hours)


def expired(reserved_at: datetime, hours: int) -> Forbidden:
    reason = f"expired: reserved on {reserved_at:%Y-%m-%d} and not sent within {hours} hours"
    return Forbidden("condition_gone", "expired", reason)


def mark_sending(settings: Way, topic: str) -> ReturningUpdate[tuple[int]]:
    """Reserved to sending, where the claim is ours, the address is still theirs, and nobody has said no since.
    Returns the message_id of each that may leave.

    Parameters: ids, mine, at, until, oldest (as for `too_old`).

    `send_at` moves to now, so that caps count the mail and not its reservation. That breaks none: of messages
    within one window the last to be reserved was judged while each other had either left within it, or waited for
    less than `expire_hours`, which no window is shorter than; so all were counted.
    """
    at = cast(datetime, bindparam("at", type_=Instant()))
    oldest = cast(datetime, bindparam("oldest", type_=Instant()))
    return (
        update(messages)
        .where(
            messages.c.message_id.in_(bindparam("ids", expanding=True)),
            messages.c.claim == bindparam("mine"),
            messages.c.state == "reserved",
            ~too_old(oldest),
            messages.c.address_hash == _address_hash(settings),
            ~_banned(settings, at),
            or_(messages.c.purpose != "marketing", _agreed(settings, topic, at)),
        )
        .values(
            state="sending",
            send_at=bindparam("at", type_=Instant()),
            sent_at=bindparam("at", type_=Instant()),
            attempts=messages.c.attempts + 1,
            lease_until=bindparam("until", type_=Instant()),
        )
        .returning(messages.c.message_id)
    )


def why_forbidden(
    connection: Connection, settings: Way, topic: str, claimed: Claimed, claim: str, now: datetime
) -> Forbidden:
    """Why `mark_sending` left a message out. Raises ClaimLost and OutOfDate."""
    reason = _ban(settings, now).with_only_columns(suppressions.c.reason)
    status = _newest_consent(settings, topic, now)
    found = connection.execute(
        select(
            messages.c.state,
            messages.c.claim,
            messages.c.purpose,
            messages.c.reserved_at,
            _address_hash(settings).label("address_hash"),
            reason.order_by(suppressions.c.occurred_at.desc()).limit(1).scalar_subquery().label("reason"),
            status.label("status"),
        ).where(messages.c.message_id == claimed.recipient.message_id)
    ).one()
    if (found.state, found.claim) != ("reserved", claim):
        raise ClaimLost
    if found.purpose == "marketing" and found.reserved_at < oldest_to_send(settings, now):
        return expired(found.reserved_at, settings.expire_hours)
    if found.address_hash is None:
        return Forbidden("no_address", None, "no address any more")
    if found.address_hash != claimed.address_hash:
        raise OutOfDate
    if found.reason is not None:
        return Forbidden("suppressed", found.reason, f"suppressed since planning: {found.reason}")
    if found.status == "granted" or (found.status is None and settings.kind in PLATFORM_KINDS):
        raise OutOfDate  # given again between the two statements
    return Forbidden("no_consent", found.status or "never_given", "consent withdrawn since planning")


def _address_hash(settings: Way) -> ColumnElement[str | None]:
    return handles.address_hash_of(settings.kind, messages.c.customer_id, messages.c.shop)


def _ban(settings: Way, at: datetime) -> Select[Any]:
    """The suppressions that stand against a message (of `messages`)."""
    rows = suppressions.c
    return (
        active_suppressions(at=at)  # as of no instant: the clock of who wrote it may be ahead
        .where(
            rows.address_hash == messages.c.address_hash,
            rows.channel == settings.kind,
            rows.purpose.in_(("all", messages.c.purpose)),
            or_(rows.shop.is_(None), rows.shop == messages.c.shop),
        )
        .correlate(messages)
    )


def _banned(settings: Way, at: datetime) -> ColumnElement[bool]:
    return _ban(settings, at).exists()


def _newest_consent(settings: Way, topic: str, at: datetime) -> ColumnElement[str]:
    """One look by the index for each person; ranking everybody's facts first would read all there are."""
    return (
        select(consents.c.status)
        .where(
            consents.c.customer_id == messages.c.customer_id,
            consents.c.shop == messages.c.shop,
            consents.c.channel == settings.kind,
            consents.c.topic == topic,
            counts_at(at),
        )
        .order_by(*newest_first())
        .limit(1)
        .correlate(messages)
        .scalar_subquery()
    )


def _agreed(settings: Way, topic: str, at: datetime) -> ColumnElement[bool]:
    newest = _newest_consent(settings, topic, at)
    if settings.kind in PLATFORM_KINDS:  # the platform asks its buyers itself; we only know who told us no
        return func.coalesce(newest, "granted") == "granted"
    return newest == "granted"


def settled(outcome: Outcome, *, message_id: int, attempts: int, settings: Way, now: datetime) -> dict[str, Any]:
    """Columns of a message after the peer's answer. attempts: with this one.

    A refusal of all that we send is not the message's: it costs it no attempt.
    """
    final = {"attempts": attempts, "settled_at": now}
    if isinstance(outcome, Accepted):
        return {**final, "state": "accepted", "provider_id": outcome.provider_id}
    if isinstance(outcome, Unknown):
        return {**final, "state": "unknown", "reason": outcome.text}
    reason = f"{outcome.code} {outcome.text}".strip()
    if outcome.scope == "lane":
        return {"state": "reserved", "attempts": attempts - 1, "reason": reason}
    if outcome.permanent:
        return {**final, "state": "refused", "reason": reason, "refusal": outcome.scope}
    if attempts >= settings.max_attempts:
        return {**final, "state": "refused", "reason": f"gave up after {attempts} attempts: {reason}"}
    wait = backoff(settings.retry_minutes, attempts, message_id)
    if outcome.retry_after is not None:
        wait = max(timedelta(seconds=outcome.retry_after), timedelta(0))
    return {"state": "reserved", "attempts": attempts, "reason": reason, "not_before": now + wait}


def backoff(minutes: float, attempts: int, message_id: int) -> timedelta:
    """Doubled with each attempt, give or take a fifth, so that what was refused together does not come back
    together. The same for the same message and attempt."""
    digest = sha256(f"{message_id}:{attempts}".encode()).digest()
    jitter = 0.8 + 0.4 * int.from_bytes(digest[:4]) / 2**32
    return timedelta(minutes=minutes * 2 ** (attempts - 1) * jitter)


def settle(connection: Connection, claim: str, rows: Mapping[int, Mapping[str, Any]]) -> None:
    """Write columns on messages of ours, by message_id, and let them go: also on those that another process has
    meanwhile called unknown. Raises ClaimLost where one is no longer ours."""
    if not rows:
        return
    parameters = [
        {f"new_{name}": row.get(name) for name in _SETTLED}
        | {"of_message": message_id, "mine": claim, "kept_claim": claim if row["state"] == "unknown" else None}
        for message_id, row in sorted(rows.items())
    ]
    if connection.execute(_SETTLE, parameters).rowcount != len(parameters):
        raise ClaimLost


_SETTLED = ("state", "attempts", "settled_at", "not_before", "reason", "refusal", "provider_id")
_SETTLE = (
    update(messages)
    .where(
        messages.c.message_id == bindparam("of_message"),
        messages.c.claim == bindparam("mine"),
        or_(*(messages.c.state == each for each in ("reserved", "sending", "unknown"))),  # IN is not for many rows
    )
    .values(
        {messages.c[name]: bindparam(f"new_{name}") for name in _SETTLED}
        | {messages.c.claim: bindparam("kept_claim"), messages.c.lease_until: None}
    )
)


def revise_verdict(connection: Connection, recipient: Recipient, forbidden: Forbidden, now: datetime) -> None:
    connection.execute(
        update(verdicts)
        .where(verdicts.c.plan_id == recipient.plan_id, verdicts.c.customer_id == recipient.customer_id)
        .where(verdicts.c.revised_verdict.is_(None))
        .values(revised_verdict=forbidden.verdict, revised_rule=forbidden.rule, revised_at=now)
    )


def is_dead_address(outcome: Outcome | None) -> TypeGuard[Refused]:
    return isinstance(outcome, Refused) and outcome.permanent and outcome.scope == "address"


def note_bounce(
    connection: Connection, message_id: int, address_hash: str, refused: Refused, settings: Way, now: datetime
) -> None:
    """The address is dead, or its owner has told the platform no: an event, and nobody writes there again."""
    values = {
        "message_id": message_id,
        "kind": "bounced",
        "occurred_at": now,
        "detail": {"code": refused.code, "text": refused.text, "class": refused.kind},
        "source": "smtp" if settings.kind == "email" else settings.kind,
        "dedupe_key": f"bounced:{message_id}",
    }
    upsert(connection, message_events, [values], key=["dedupe_key"])
    said_no = refused.code == STOPPED_MARKETING and settings.kind == "whatsapp"
    suppress(
        connection,
        [address_hash],
        "unsubscribe" if said_no else "hard_bounce",
        channel=settings.kind,
        evidence=f"message {message_id}: {refused.code}",
        occurred_at=now,
        recorded_at=now,
        purpose="marketing" if said_no else "all",
    )
