"""The days of a range: when each is judged, and which build of the segments it looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from lifecycle.clock import as_utc
from lifecycle.db.arrays import arrays
from lifecycle.db.schema import instant, microseconds, segment_runs
from lifecycle.errors import PlanError, UsageError
from lifecycle.settings import Config
from lifecycle.settings.models import zone

OPENS = time(9)
"""When campaigns are sent, in their time zone."""

_FRESH = timedelta(days=1)


@dataclass(frozen=True)
class Day:
    """`number`: from 0. `at`: when it is judged, UTC. `since`: the build that chose the people."""

    number: int
    date: date
    at: datetime
    since: datetime


def instants(config: Config, first: date, last: date, now: datetime) -> list[datetime]:
    """When each day is judged, UTC. Raises UsageError for a range that is empty or reaches into the future."""
    if last < first:
        raise UsageError(f"--to {last} is before --from {first}")
    name = config.campaigns_file.timezone
    dates = (first + timedelta(days=days) for days in range((last - first).days + 1))
    found = [as_utc(datetime.combine(each, OPENS, zone(name))) for each in dates]
    if found[-1] > now:
        raise UsageError(f"--to {last} cannot be simulated: {OPENS:%H:%M} {name} of that day is in the future")
    return found


def begins(config: Config, day: date) -> datetime:
    """The day's midnight in the campaigns' time zone, UTC."""
    return as_utc(datetime.combine(day, time(), zone(config.campaigns_file.timezone)))


def stored_builds(connection: Connection, until: datetime) -> list[datetime]:
    query = select(segment_runs.c.as_of).where(segment_runs.c.as_of <= until).distinct()
    return [instant(each) for each in np.sort(arrays(connection, query)["as_of"]).tolist()]


def days_of(first: date, at: Sequence[datetime], builds: Sequence[datetime]) -> list[Day]:
    """Each day with its newest build. Raises PlanError where there is none for the first, or no day has one that
    is not older than a day."""
    newest = np.searchsorted(in_microseconds(builds), in_microseconds(at), side="right") - 1
    if newest[0] >= 0:
        days = [
            Day(number, first + timedelta(days=number), each, builds[place])
            for number, (each, place) in enumerate(zip(at, newest.tolist(), strict=True))
        ]
        if any(is_fresh(day) for day in days):
            return days
    last = first + timedelta(days=len(at) - 1)
    raise PlanError(
        f"no segments are built for {first} to {last}; run: tern backfill segments --from {first} --to {last}"
    )


def is_fresh(day: Day) -> bool:
    return day.at - day.since <= _FRESH


def in_microseconds(instants: Sequence[datetime]) -> NDArray[np.int64]:
    return np.array([microseconds(each) for each in instants], dtype=np.int64)


def by_day(number: NDArray[np.intp], values: NDArray[np.intp], days: int) -> list[NDArray[np.intp]]:
    """`values` of each day's number; those of later days are left out."""
    order = np.argsort(number, kind="stable")
    return np.split(values[order], np.searchsorted(number[order], np.arange(1, days + 1)))[:days]
