"""The time over which caps and quotas count: rolling windows (t - length, t], or the calendar period of t.

Instants in arrays are microseconds since 1970.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from lifecycle.clock import as_utc
from lifecycle.db.schema import microseconds
from lifecycle.settings.models import Counting, zone

TICK = timedelta(microseconds=1)


def length(counting: Counting) -> timedelta | None:
    """Of a rolling window; None for a calendar period."""
    if counting.per is not None:
        return None
    return timedelta(days=counting.days or 0, hours=counting.hours or 0)


def begins(counting: Counting, at: datetime) -> datetime:
    """What was sent after this instant, up to `at`, lies in the window of `at`."""
    rolling = length(counting)
    return at - rolling if rolling is not None else _period(counting, at)[0] - TICK


def ends(counting: Counting, at: datetime) -> datetime:
    """The first instant after the calendar period of `at`."""
    return _period(counting, at)[1]


def frees(counting: Counting, sent: NDArray[np.int64], at: datetime) -> NDArray[np.int64]:
    """When messages sent at `sent`, all in the window of `at`, leave it."""
    rolling = length(counting)
    if rolling is not None:
        return sent + microseconds_of(rolling)
    return np.full(len(sent), microseconds(ends(counting, at)), dtype=np.int64)


def microseconds_of(span: timedelta) -> int:
    return span // TICK


def _period(counting: Counting, at: datetime) -> tuple[datetime, datetime]:
    """[start, end) of the calendar period, UTC. A midnight that daylight saving skips is the end of the gap."""
    assert counting.timezone is not None, "per and timezone belong together"
    place = zone(counting.timezone)
    today = at.astimezone(place).date()
    match counting.per:
        case "day":
            first, after = today, today + timedelta(days=1)
        case "week":
            first = today - timedelta(days=today.weekday())
            after = first + timedelta(days=7)
        case "month":
            first = today.replace(day=1)
            after = (first + timedelta(days=31)).replace(day=1)
        case _:
            first = today.replace(month=1, day=1)
            after = first.replace(year=first.year + 1)
    start, end = (as_utc(datetime(day.year, day.month, day.day, tzinfo=place)) for day in (first, after))
    return start, end
