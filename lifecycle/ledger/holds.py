"""Campaigns that are paused or cancelled, as a whole or on one way out, by a person or by a breaker."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Engine, Select, and_, exists, func, or_, select, update

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import holds, messages, verdicts
from lifecycle.errors import UsageError
from lifecycle.ledger.lanes import Pause

BREAKER = "breaker"


def pause(
    connection: Connection,
    campaign: str,
    *,
    reason: str,
    by: str,
    at: datetime,
    channel: str | None = None,
    provider: str | None = None,
) -> None:
    """From now on nothing of the campaign leaves there; what is on its way arrives. Reservations stay, and expire
    as they would."""
    values = {
        "campaign": campaign, "channel": channel, "mailbox_provider": provider,
        "reason": reason, "set_by": by, "set_at": at,
    }  # fmt: skip
    connection.execute(holds.insert().values(values))


def lift(
    connection: Connection,
    campaign: str,
    *,
    by: str,
    at: datetime,
    channel: str | None = None,
    provider: str | None = None,
) -> int:
    """End the pauses of a campaign, or only those of one channel or mailbox provider. Returns how many."""
    rows = holds.c
    query = update(holds).where(rows.campaign == campaign, rows.lifted_at.is_(None))
    if channel is not None:
        query = query.where(rows.channel == channel)
    if provider is not None:
        query = query.where(rows.mailbox_provider == provider)
    return connection.execute(query.values(lifted_at=at, lifted_by=by)).rowcount


def standing(connection: Connection, campaign: str, channel: str, provider: str) -> Pause | None:
    """Why nothing of the campaign may leave there now; `until` is when it was set, for nobody knows its end."""
    query = (
        select(holds.c.reason, holds.c.set_by, holds.c.set_at)
        .where(_concerns(campaign, channel, provider))
        .order_by(holds.c.hold_id)
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    return Pause(found.set_at, f"paused by {found.set_by}: {found.reason}") if found else None


def held() -> ColumnElement[bool]:
    """Messages (of `messages`) whose campaign is on hold."""
    return exists().where(_concerns(messages.c.what, messages.c.channel, messages.c.mailbox_provider))


def breakers_open(engine: Engine) -> list[str]:
    """Lanes that a breaker has stopped and for which messages still wait, a sentence each."""
    waiting = func.count(messages.c.message_id)
    rows = holds.c
    query = (
        select(rows.campaign, rows.channel, rows.mailbox_provider, rows.reason, waiting)
        .join(
            messages,
            and_(
                messages.c.state == "reserved",
                messages.c.what == rows.campaign,
                messages.c.channel == rows.channel,
                messages.c.mailbox_provider == rows.mailbox_provider,
            ),
        )
        .where(rows.lifted_at.is_(None), rows.set_by == BREAKER)
        .group_by(rows.campaign, rows.channel, rows.mailbox_provider, rows.reason)
        .order_by(rows.campaign, rows.channel, rows.mailbox_provider)
    )
    with reading(engine) as connection:
        return [
            f"{campaign} on {channel} to {provider or 'everybody'} is stopped, {number:,} messages wait: "
            f"{reason}; tern resume {campaign}, or tern cancel {campaign}"
            for campaign, channel, provider, reason, number in connection.execute(query)
        ]


def active(campaign: str | None = None) -> Select:
    """campaign, channel, mailbox_provider, reason, set_by, set_at of what is on hold, oldest first."""
    rows = holds.c
    query = select(
        rows.campaign, rows.channel, rows.mailbox_provider, rows.reason, rows.set_by, rows.set_at
    ).where(rows.lifted_at.is_(None))
    if campaign is not None:
        query = query.where(rows.campaign == campaign)
    return query.order_by(rows.hold_id)


def cancel(engine: Engine, campaign: str, *, reason: str, by: str, now: datetime) -> int:
    """Take back every message of the campaign that has not begun to leave. Returns how many.

    They are refused, their people's verdict becomes condition_gone by rule `cancelled`, their slots are free; what
    a process is sending at this moment cannot be called back. Raises UsageError without a name or reason.
    """
    if not by.strip() or not reason.strip():
        raise UsageError("a campaign is cancelled by somebody with a name, who says why")
    mine = and_(messages.c.what == campaign, messages.c.state == "reserved")
    said = f"cancelled by {by}: {reason}"
    with writing(engine) as connection:
        # In order of the key, as a drain that takes them goes.
        locked = select(messages.c.message_id).where(mine).order_by(messages.c.message_id).with_for_update()
        connection.execute(locked).all()
        values = {"state": "refused", "reason": said, "settled_at": now, "claim": None, "lease_until": None}
        number = connection.execute(update(messages).where(mine).values(values)).rowcount
        gone = exists().where(
            messages.c.plan_id == verdicts.c.plan_id,
            messages.c.customer_id == verdicts.c.customer_id,
            messages.c.what == campaign,
            messages.c.state == "refused",
            messages.c.reason == said,
            messages.c.settled_at == now,
        )
        connection.execute(
            update(verdicts)
            .where(verdicts.c.revised_verdict.is_(None), gone)
            .values(revised_verdict="condition_gone", revised_rule="cancelled", revised_at=now)
        )
    return number


def _concerns(
    campaign: ColumnElement[str] | str, channel: ColumnElement[str] | str, provider: ColumnElement[str] | str
) -> ColumnElement[bool]:
    rows = holds.c
    return and_(
        rows.lifted_at.is_(None),
        rows.campaign == campaign,
        or_(rows.channel.is_(None), rows.channel == channel),
        or_(rows.mailbox_provider.is_(None), rows.mailbox_provider == provider),
    )
