"""Quiet hours: who is not written to now, because it is night where they live, and until when.

A person's clock is that of the zones they may live in (lifecycle.customers.zones), all of them at once. Of whom
nothing is known the shops' own zones count. The hours are those of config/caps.yaml and those of the law of the
person's country; both must be over.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, time, timedelta
from functools import cache, lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    Text,
    and_,
    cast,
    delete,
    false,
    func,
    insert,
    null,
    select,
)

from lifecycle.customers.zones import zones_of
from lifecycle.db.schema import Big, Instant, customers
from lifecycle.planning.judgement import Judgement, candidates, standing, work_tables

LOOK_AHEAD = timedelta(days=7)

_PLACE = ("timezone", "country", "region", "phone_zone")
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)

places = Table(
    "places",
    work_tables,
    *(Column(name, Text, primary_key=True, comment="empty: unknown") for name in _PLACE),
    Column("verdict", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("frees_at", Instant),
    prefixes=["temporary"],
)
"""Where candidates live and may not be written to now."""


class NoCommonHour(Exception):
    """For seven days the zones have no instant in common that lies outside of the quiet hours."""


def opens_at(zones: Sequence[str], quiet: str, at: datetime) -> datetime | None:
    """None where `at` lies outside of the quiet hours in all `zones`, else the first instant after it that does.

    `quiet`: local time, half-open, across midnight or not: in `21:00-08:00` 21:00:00 is quiet and 08:00:00 is not.
    It is asked of the clock on the wall: where daylight saving skips 08:00 they end with the gap, where 07:30
    comes twice both are quiet. `at` is aware, the result UTC. Raises NoCommonHour where LOOK_AHEAD does not reach.
    """
    at = at.astimezone(UTC)
    opens = _first_open(zones, _hours(quiet), at, at + LOOK_AHEAD)
    return None if opens == at else opens


def quiet_hours(
    connection: Connection, judgement: Judgement, hours_of_country: Callable[[str | None], str | None]
) -> Select:
    """customer_id, verdict, rule, blocking_message_id (null), frees_at of candidates still standing whom it is too
    early or too late to write to at `judgement.at`. Concerns marketing only.

    `hours_of_country`: quiet hours that the law of a country (ISO 3166-1; None: unknown) demands, or None. The
    rule that holds longest is named: `quiet_hours`, or the law's, for example `quiet_hours_kr`, also where both
    end at once. Where the zones of a place have no hour in common within seven days the verdict is policy, the
    rule `no_common_hour`, and nothing frees.

    Fills the temporary table `places`: zones are looked at once for each place, not for each person.
    """
    held = []
    if judgement.campaign.purpose == "marketing":
        held = [row for place in _inhabited(connection) if (row := _judged(place, judgement, hours_of_country))]
    connection.execute(delete(places))
    if held:
        connection.execute(insert(places), held)
    there = and_(*(_said(name) == places.c[name] for name in _PLACE))
    return (
        select(candidates.c.customer_id, places.c.verdict, places.c.rule, cast(null(), Big), places.c.frees_at)
        .join_from(candidates, customers, customers.c.customer_id == candidates.c.customer_id)
        .join(places, there)
        .where(standing if held else false())
    )


def _inhabited(connection: Connection) -> Iterable[Row[Any]]:
    """Each place once where a candidate lives who still stands."""
    return connection.execute(
        select(*(_said(name).label(name) for name in _PLACE))
        .join_from(candidates, customers, customers.c.customer_id == candidates.c.customer_id)
        .where(standing)
        .distinct()
    )


def _said(name: str) -> ColumnElement[str]:
    """Never null, so that it can be joined by an index."""
    return func.coalesce(customers.c[name], "")


def _judged(
    place: Row[Any], judgement: Judgement, hours_of_country: Callable[[str | None], str | None]
) -> dict[str, Any] | None:
    """A row of `places`, None where nothing is quiet."""
    country = place.country or None
    own, laws = judgement.config.caps_file.quiet_hours, hours_of_country(country)
    # The law goes first: where both end at once, it is the one that nobody can change.
    rules = [(f"quiet_hours_{(country or 'unknown').lower()}", laws), ("quiet_hours", own)]
    shops = tuple(shop.timezone for shop in judgement.config.shops_file.shops)
    zones = zones_of(*(value or None for value in place)) or shops
    try:
        held = _held(zones, [(rule, _hours(quiet)) for rule, quiet in rules if quiet], judgement.at)
    except NoCommonHour:
        return {**place._mapping, "verdict": "policy", "rule": "no_common_hour", "frees_at": None}
    return {**place._mapping, "verdict": "quiet_hours", "rule": held[0], "frees_at": held[1]} if held else None


def _held(zones: Sequence[str], rules: Sequence[tuple[str, _Hours]], at: datetime) -> tuple[str, datetime] | None:
    """The rule that holds longest and when all of them are open, None where they are now. Raises NoCommonHour."""
    held, opens, asked_at = None, at, None
    while asked_at != opens:
        asked_at = opens
        for rule, hours in rules:
            later = _first_open(zones, hours, opens, at + LOOK_AHEAD)
            if later > opens:
                held, opens = rule, later
    return (held, opens) if held else None


class _Hours(NamedTuple):
    """Since midnight on the wall."""

    begins: timedelta
    ends: timedelta

    def hold(self, wall: timedelta) -> bool:
        if self.begins < self.ends:
            return self.begins <= wall < self.ends
        return wall >= self.begins or wall < self.ends


@cache
def _hours(quiet: str) -> _Hours:
    begins, _, ends = quiet.partition("-")
    return _Hours(*(_since_midnight(time.fromisoformat(part.strip())) for part in (begins, ends)))


def _first_open(zones: Sequence[str], hours: _Hours, at: datetime, until: datetime) -> datetime:
    """From `at` on, in all zones. Before the latest of the zones' own openings not all are open, so each step goes
    there. Raises NoCommonHour."""
    while (latest := max((_open_in(zone, hours, at) for zone in zones), default=at)) > at:
        if latest > until:
            raise NoCommonHour
        at = latest
    return at


@lru_cache(maxsize=10_000)
def _open_in(zone: str, hours: _Hours, at: datetime) -> datetime:
    """The first instant from `at` on outside of the hours in one zone. Between changes of the zone's offset the
    clock on the wall just runs, so that only those changes and the end of the hours are looked at."""
    place = ZoneInfo(zone)
    while hours.hold(wall := _since_midnight(at.astimezone(place).time())):
        at = _first_change(place, at, at + (hours.ends - wall) % _DAY)
    return at


def _first_change(place: ZoneInfo, after: datetime, until: datetime) -> datetime:
    """When the zone's offset changes for the first time in (after, until]; `until` where it does not."""
    offset = _offset(place, after)
    while after < until:
        then = min(after + _HOUR, until)
        if _offset(place, then) != offset:
            start = after.replace(microsecond=0)  # offsets change on whole seconds
            seconds = range(int(_HOUR.total_seconds()) + 2)
            return start + timedelta(
                seconds=bisect_left(
                    seconds, True, key=lambda s: _offset(place, start + timedelta(seconds=s)) != offset
                )
            )
        after = then
    return until


def _offset(place: ZoneInfo, at: datetime) -> timedelta | None:
    return at.astimezone(place).utcoffset()


def _since_midnight(wall: time) -> timedelta:
    return timedelta(hours=wall.hour, minutes=wall.minute, seconds=wall.second, microseconds=wall.microsecond)
