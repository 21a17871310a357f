"""After a crash: what is known of the messages of dead processes is written down, the rest is unknown or free."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, func, select, update

from lifecycle.channels.base import Outcome, Unknown
from lifecycle.db.engine import writing
from lifecycle.db.schema import messages
from lifecycle.ledger import lanes
from lifecycle.ledger.claims import is_here, is_orphan
from lifecycle.ledger.settling import is_dead_address, note_bounce, settle, settled
from lifecycle.ledger.wirelog import WireRecord, all_logs, forget, read_log
from lifecycle.settings import Config

_OPEN = ("reserved", "sending")


@dataclass(frozen=True)
class Recovered:
    """unknown: messages that a dead process was sending. released: messages that it had claimed, or that had
    provably not begun to leave. settled: answers it had heard and not written down."""

    unknown: int
    released: int
    settled: int = 0

    def sentence(self) -> str:
        return (
            f"took over from processes that are gone: {self.settled:,} answers written down, {self.unknown:,} "
            f"messages are unknown, {self.released:,} are free to be sent"
        )


def recover(engine: Engine, config: Config, *, now: datetime, wire_dir: Path) -> Recovered:
    """Settle and free the claims of dead processes; nothing is sent. A live process that lost its claim stops by
    itself.

    Dead: its lease has run out, or it was on this machine and is gone. Marketing that is unknown is never sent
    again; an order mail is, with the same Message-ID or idempotency key, which the next drain does.
    """
    counts: Counter[str] = Counter()
    with writing(engine) as connection:
        for claim in _dead_claims(connection, now):
            record = read_log(wire_dir, claim) or WireRecord(claim, whole=False)
            # A process that only stands still may go on and send what it has not begun.
            record.whole = record.whole and is_orphan(claim)
            _settle(connection, config, record, now, counts)
            held = and_(messages.c.claim == claim, messages.c.state == "reserved")
            free = update(messages).where(held).values(claim=None, lease_until=None)
            counts["released"] += connection.execute(free).rowcount
            lanes.free_slot(connection, claim)
        _send_orders_again(connection, config, now, counts)
    _late(engine, config, wire_dir, now, counts)
    return Recovered(counts["unknown"], counts["released"], counts["settled"])


def settle_own(engine: Engine, config: Config, claim: str, *, now: datetime, wire_dir: Path) -> None:
    """What a process that was taken for dead knows of its messages, once it has stopped sending them."""
    if (record := read_log(wire_dir, claim)) is not None:
        with writing(engine) as connection:
            _settle(connection, config, record, now, Counter())
        forget(wire_dir, claim)


def _late(engine: Engine, config: Config, wire_dir: Path, now: datetime, counts: Counter[str]) -> None:
    """What this machine knows of messages that others have called unknown, because they could not ask it."""
    for record in all_logs(wire_dir):
        if is_here(record.claim) and not is_orphan(record.claim):
            continue
        record.whole = record.whole and is_orphan(record.claim)
        with writing(engine) as connection:
            if _is_held(connection, record.claim, now):
                continue
            _settle(connection, config, record, now, counts)
        forget(wire_dir, record.claim)


def _settle(
    connection: Connection, config: Config, record: WireRecord, now: datetime, counts: Counter[str]
) -> None:
    held = and_(messages.c.claim == record.claim, messages.c.state.in_(("sending", "unknown")))
    # In order of the key, as the holder goes, should it live after all.
    query = select(messages).where(held).order_by(messages.c.message_id).with_for_update()
    rows: dict[int, dict[str, Any]] = {}
    for row in connection.execute(query).all():
        values = _values(config, row, record, now)
        if values is not None:
            _note_bounce(connection, config, row, record.answers.get(row.message_id), now)
            rows[row.message_id] = values
            name = values["state"]
            counts["released" if name == "reserved" else "unknown" if name == "unknown" else "settled"] += 1
    settle(connection, record.claim, rows)


def _values(config: Config, row: Row[Any], record: WireRecord, now: datetime) -> dict[str, Any] | None:
    """Columns of a message of a dead process; None: nothing new is known."""
    outcome: Outcome | None = record.answers.get(row.message_id)
    if outcome is None and record.whole and row.message_id not in record.begun:
        return {"state": "reserved", "attempts": row.attempts - 1}
    if outcome is None or isinstance(outcome, Unknown) or row.channel not in config.channels:
        if row.state == "unknown":
            return None
        reason = outcome.text if isinstance(outcome, Unknown) else (
            "the sending process ended before the answer was written down"
        )  # fmt: skip
        return {"state": "unknown", "attempts": row.attempts, "settled_at": now, "reason": reason}
    settings = config.channels[row.channel]
    return settled(outcome, message_id=row.message_id, attempts=row.attempts, settings=settings, now=now)


def _note_bounce(
    connection: Connection, config: Config, row: Row[Any], outcome: Outcome | None, now: datetime
) -> None:
    if is_dead_address(outcome) and row.channel in config.channels:
        note_bounce(connection, row.message_id, row.address_hash, outcome, config.channels[row.channel], now)


def _send_orders_again(connection: Connection, config: Config, now: datetime, counts: Counter[str]) -> None:
    """What a person waits for: rather twice with the same key than not at all."""
    for name, channel in config.channels.items():
        again = update(messages).where(
            messages.c.state == "unknown",
            messages.c.purpose == "transactional",
            messages.c.channel == name,
            messages.c.attempts < channel.max_attempts,
        )
        values = {"state": "reserved", "claim": None, "lease_until": None, "settled_at": None}
        number = connection.execute(again.values(values)).rowcount
        counts["released"] += number


def _is_held(connection: Connection, claim: str, now: datetime) -> bool:
    """By a process that cannot be seen from here, in another container, and whose lease has not run out."""
    query = select(func.max(messages.c.lease_until)).where(messages.c.claim == claim, messages.c.state.in_(_OPEN))
    lease_until = connection.execute(query).scalar()
    return lease_until is not None and lease_until > now and not is_orphan(claim)


def _dead_claims(connection: Connection, now: datetime) -> list[str]:
    query = (
        select(messages.c.claim, func.max(messages.c.lease_until).label("lease_until"))
        .where(messages.c.state.in_(_OPEN), messages.c.claim.is_not(None))
        .group_by(messages.c.claim)
    )
    found = connection.execute(query).all()
    return [row.claim for row in found if row.lease_until <= now or is_orphan(row.claim)]
