"""Soft bounces: an address that keeps refusing rests for a while.

A day with at least one soft bounce or full mailbox counts once. What lies longer back than the window counts no
more, nor what was before the last delivery or the last rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from lifecycle.db.bulk import rows_in
from lifecycle.db.schema import message_events, messages, suppressions
from lifecycle.settings.channels import Bounces

SCORED = frozenset({"soft", "full"})
"""Classes of bounces that count."""


@dataclass
class History:
    """What is known of one address: (message, instant, class) of bounces, (message, instant) of signs of life."""

    bounces: list[tuple[int, datetime, str | None]] = field(default_factory=list)
    arrivals: list[tuple[int, datetime]] = field(default_factory=list)
    rested_at: datetime | None = None


def scored_days(history: History, *, now: datetime, window_days: int) -> int:
    """UTC days with a soft bounce in (now - window, now], after the last mail that arrived and the last rest.

    A mail that was delivered first and came back later did not arrive.
    """
    came_back = {message_id for message_id, _, _ in history.bounces}
    marks = [at for message_id, at in history.arrivals if message_id not in came_back and at <= now]
    since = max([now - timedelta(days=window_days), *marks, *filter(None, [history.rested_at])])
    days = {at.astimezone(UTC).date() for _, at, kind in history.bounces if kind in SCORED and since < at <= now}
    return len(days)


def worn_out(
    connection: Connection, address_hashes: Collection[str], bounces: Bounces, *, now: datetime
) -> dict[str, int]:
    """Of these addresses those that must rest now, with their scored days."""
    found = _histories(connection, address_hashes, now - timedelta(days=bounces.soft_window_days))
    days = {
        each: scored_days(history, now=now, window_days=bounces.soft_window_days)
        for each, history in found.items()
    }  # fmt: skip
    return {each: number for each, number in days.items() if number >= bounces.soft_days}


def _histories(connection: Connection, address_hashes: Iterable[str], since: datetime) -> dict[str, History]:
    wanted = sorted(set(address_hashes))
    found: defaultdict[str, History] = defaultdict(History)
    event = message_events.c
    columns = (messages.c.address_hash, event.message_id, event.kind, event.occurred_at, event.detail)
    query = select(*columns).join_from(message_events, messages, messages.c.message_id == event.message_id)
    for row in rows_in(connection, query.where(event.occurred_at > since), messages.c.address_hash, wanted):
        history = found[row.address_hash]
        if row.kind == "bounced":
            history.bounces.append((row.message_id, row.occurred_at, (row.detail or {}).get("class")))
        else:
            history.arrivals.append((row.message_id, row.occurred_at))
    rests = select(suppressions.c.address_hash, func.max(suppressions.c.occurred_at).label("at"))
    rests = rests.where(suppressions.c.reason == "soft_bounce").group_by(suppressions.c.address_hash)
    for row in rows_in(connection, rests, suppressions.c.address_hash, wanted):
        found[row.address_hash].rested_at = row.at
    return found
