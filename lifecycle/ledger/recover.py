"""After a crash: what was on its way is unknown, what was only claimed is free again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, and_, func, select, update

from lifecycle.db.engine import writing
from lifecycle.db.schema import messages
from lifecycle.ledger.claims import is_orphan

_OPEN = ("reserved", "sending")


@dataclass(frozen=True)
class Recovered:
    """unknown: messages that a dead process was sending. released: messages that it had claimed."""

    unknown: int
    released: int

    def sentence(self) -> str:
        return (
            f"took over from processes that are gone: {self.unknown:,} messages are unknown and will not be sent "
            f"again, {self.released:,} are free to be sent"
        )


def recover(engine: Engine, *, now: datetime) -> Recovered:
    """Free the claims of dead processes; nothing is sent. A live process that lost its claim stops by itself.

    Dead: its lease has run out, or it was on this machine and is gone.
    """
    unknown = released = 0
    with writing(engine) as connection:
        for claim in _dead_claims(connection, now):
            held = and_(messages.c.claim == claim, messages.c.state.in_(_OPEN))
            # In order of the key, as the holder goes, should it live after all.
            locked = select(messages.c.message_id).where(held).order_by(messages.c.message_id).with_for_update()
            connection.execute(locked).all()
            lost = {
                "state": "unknown",
                "settled_at": now,
                "reason": "the sending process ended before the answer was written down",
            }
            free = {"claim": None, "lease_until": None}
            sending = update(messages).where(held, messages.c.state == "sending")
            unknown += connection.execute(sending.values({**lost, **free})).rowcount
            released += connection.execute(update(messages).where(held).values(free)).rowcount
    return Recovered(unknown, released)


def _dead_claims(connection: Connection, now: datetime) -> list[str]:
    query = (
        select(messages.c.claim, func.max(messages.c.lease_until).label("lease_until"))
        .where(messages.c.state.in_(_OPEN), messages.c.claim.is_not(None))
        .group_by(messages.c.claim)
    )
    found = connection.execute(query).all()
    return [row.claim for row in found if row.lease_until <= now or is_orphan(row.claim)]
