"""How fast each way is driven, over all processes: messages a second, connections, pauses.

A lane is a channel, its account and a mailbox provider. The row of an account without a provider holds for all of
its lanes together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from lifecycle.db.bulk import upsert
from lifecycle.db.schema import lane_slots, lanes
from lifecycle.settings.channels import EmailChannel, Way
from lifecycle.settings.mailboxes import limits_of

RATE_REST = timedelta(minutes=10)
"""Gmail's procedure for 4.7.28: nothing for ten minutes, then one connection, then one more at a time; ten minutes
more after each relapse (deliverability notes, 1.1)."""

POLICY_REST = timedelta(hours=1)
"""After a refusal for good of all we send there (5.7.x); doubled each time, up to a day."""


@dataclass(frozen=True)
class Lane:
    """`provider`: empty for channels other than e-mail."""

    channel: str
    account: str
    provider: str

    @property
    def whole_account(self) -> Lane:
        return Lane(self.channel, self.account, "")

    def __str__(self) -> str:
        return " to ".join(part for part in (self.channel, self.provider) if part)


@dataclass(frozen=True)
class Pause:
    until: datetime
    reason: str


def paused(connection: Connection, lane: Lane, now: datetime) -> Pause | None:
    """The longer of the lane's own pause and its account's."""
    rows = lanes.c
    query = (
        select(rows.paused_until, rows.reason)
        .where(
            rows.channel == lane.channel,
            rows.account == lane.account,
            rows.mailbox_provider.in_(("", lane.provider)),
            rows.paused_until > now,
        )
        .order_by(rows.paused_until.desc())
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    return Pause(found.paused_until, found.reason or "") if found else None


def rates(settings: Way, lane: Lane) -> dict[Lane, float]:
    """Messages a second that the lane must keep to, its own and its account's; empty: no limit."""
    found: dict[Lane, float] = {}
    if settings.per_second is not None:
        found[lane.whole_account] = settings.per_second
    if isinstance(settings, EmailChannel) and lane.provider:
        found |= {lane: rate} if (rate := limits_of(settings, lane.provider).per_second) else {}
    return found


def admit(connection: Connection, lane: Lane, rate: float, messages: int, now: datetime) -> timedelta:
    """Book the next `messages` places on a lane of `rate` a second. Returns how long the first has to wait.

    The generic cell rate algorithm (ITU-T I.371): one instant, from which the next may leave.
    """
    row = _locked(connection, lane, now)
    begins = max(row.next_at or now, now)
    _set(connection, lane, next_at=begins + timedelta(seconds=messages / rate))
    return begins - now


def take_slot(
    connection: Connection, settings: Way, lane: Lane, claim: str, now: datetime, until: datetime
) -> bool:
    """One of the connections that the provider allows us; false where all are in use."""
    if not isinstance(settings, EmailChannel) or not lane.provider:
        return True
    slots = lane_slots.c
    connection.execute(delete(lane_slots).where(slots.lease_until <= now))
    _locked(connection, replace(lane, account=""), now)
    recovering = select(func.min(lanes.c.connections)).where(
        lanes.c.channel == lane.channel, lanes.c.mailbox_provider == lane.provider
    )
    allowed = limits_of(settings, lane.provider).connections
    allowed = min(allowed, connection.execute(recovering).scalar() or allowed)
    used = select(func.count()).where(slots.channel == lane.channel, slots.mailbox_provider == lane.provider)
    if connection.execute(used).scalar_one() >= allowed:
        return False
    values = {"channel": lane.channel, "mailbox_provider": lane.provider, "claim": claim, "lease_until": until}
    connection.execute(insert(lane_slots), values)
    return True


def keep_slot(connection: Connection, claim: str, until: datetime) -> None:
    connection.execute(update(lane_slots).where(lane_slots.c.claim == claim).values(lease_until=until))


def free_slot(connection: Connection, claim: str) -> None:
    connection.execute(delete(lane_slots).where(lane_slots.c.claim == claim))


def pause(
    connection: Connection, lane: Lane, reason: str, now: datetime, *, for_good: bool, retry_after: float | None
) -> datetime:
    """The peer takes nothing from us on this lane. Returns until when nothing leaves; then one connection does."""
    row = _locked(connection, lane, now)
    rest = min(POLICY_REST * 2**row.failures, timedelta(days=1)) if for_good else RATE_REST
    until = now + max(rest, timedelta(seconds=retry_after or 0))
    values = {"paused_until": until, "reason": reason, "connections": 1, "failures": min(row.failures + 1, 10)}
    _set(connection, lane, **values, changed_at=now)
    return until


def rest(connection: Connection, lane: Lane, reason: str, now: datetime, seconds: float) -> datetime:
    """The way itself is closed for a while, whoever the mail is for. Returns until when."""
    _locked(connection, lane.whole_account, now)
    until = now + timedelta(seconds=seconds)
    _set(connection, lane.whole_account, paused_until=until, reason=reason, changed_at=now)
    return until


def recovered(connection: Connection, settings: Way, lane: Lane, now: datetime) -> None:
    """The peer takes mail again: one connection more, until there are as many as configured."""
    if not isinstance(settings, EmailChannel) or not lane.provider:
        return
    rows = lanes.c
    found = connection.execute(
        select(rows.connections).where(*_is(lane), rows.connections.is_not(None)).with_for_update()
    ).scalar()
    if found is None:
        return
    more = found + 1
    full = more >= limits_of(settings, lane.provider).connections
    values: dict[str, Any] = (
        {"connections": None, "failures": 0, "reason": None} if full else {"connections": more}
    )
    _set(connection, lane, **values, changed_at=now)


def resume(connection: Connection, channel: str, provider: str | None, now: datetime) -> int:
    """A person ends the pauses of a channel, or of its lanes to one provider. Returns how many."""
    query = update(lanes).where(lanes.c.channel == channel, lanes.c.paused_until > now)
    if provider is not None:
        query = query.where(lanes.c.mailbox_provider == provider)
    return connection.execute(query.values(paused_until=None, failures=0, reason=None, changed_at=now)).rowcount


def _locked(connection: Connection, lane: Lane, now: datetime) -> Row[Any]:
    """The lane's row, made where there is none, so that others wait for us."""
    query = select(lanes).where(*_is(lane)).with_for_update()
    found = connection.execute(query).one_or_none()
    if found is None:
        key = {"channel": lane.channel, "account": lane.account, "mailbox_provider": lane.provider}
        upsert(connection, lanes, [{**key, "changed_at": now, "failures": 0}], key=tuple(key))
        found = connection.execute(query).one()
    return found


def _set(connection: Connection, lane: Lane, **values: Any) -> None:
    connection.execute(update(lanes).where(*_is(lane)).values(**values))


def _is(lane: Lane) -> tuple[Any, ...]:
    rows = lanes.c
    return rows.channel == lane.channel, rows.account == lane.account, rows.mailbox_provider == lane.provider
