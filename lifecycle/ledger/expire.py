"""Marketing that waited too long is not sent any more: its reason may be gone, and its slot serves others."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, and_, exists, select, update

from lifecycle.db.engine import writing
from lifecycle.db.schema import messages, verdicts
from lifecycle.ledger.settling import Forbidden, expired, too_old


def expire(engine: Engine, *, now: datetime, hours: int) -> int:
    """Refuse marketing that was reserved more than `hours` ago and that nobody holds. Returns how many."""
    waiting = and_(
        messages.c.state == "reserved",
        messages.c.claim.is_(None),
        too_old(now - timedelta(hours=hours)),
    )
    count = 0
    with writing(engine) as connection:
        # In order of the key, as a drain that takes them goes.
        locked = select(messages.c.reserved_at).where(waiting).order_by(messages.c.message_id).with_for_update()
        for reserved_at in sorted(set(connection.execute(locked).scalars())):  # one for each reservation
            forbidden = expired(reserved_at, hours)
            found = update(messages).where(waiting, messages.c.reserved_at == reserved_at)
            values = {"state": "refused", "reason": forbidden.reason, "settled_at": now}
            count += connection.execute(found.values(values)).rowcount
            _revise(connection, forbidden, reserved_at, now)
    return count


def _revise(connection: Connection, forbidden: Forbidden, reserved_at: datetime, now: datetime) -> None:
    refused = exists().where(
        messages.c.plan_id == verdicts.c.plan_id,
        messages.c.customer_id == verdicts.c.customer_id,
        messages.c.reserved_at == reserved_at,
        messages.c.state == "refused",
        messages.c.reason == forbidden.reason,
        messages.c.settled_at == now,
    )
    plan_ids = select(messages.c.plan_id).where(messages.c.reserved_at == reserved_at)
    connection.execute(
        update(verdicts)
        .where(verdicts.c.plan_id.in_(plan_ids), verdicts.c.revised_verdict.is_(None), refused)
        .values(revised_verdict=forbidden.verdict, revised_rule=forbidden.rule, revised_at=now)
    )
