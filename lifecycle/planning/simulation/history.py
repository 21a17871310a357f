"""What happened whatever was sent: who was in which segment, bought where, and for whom something changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Select, and_, case, delete, insert, literal, select, union

from lifecycle.customers.consent import months_later
from lifecycle.customers.handles import holders
from lifecycle.db.arrays import arrays
from lifecycle.db.engine import analyze
from lifecycle.db.schema import Instant, consents, customer_metrics, customers, microseconds, orders, suppressions
from lifecycle.planning.reasons import BOUGHT
from lifecycle.planning.simulation.days import Day, by_day, in_microseconds
from lifecycle.planning.simulation.spans import Membership, Spans
from lifecycle.segments.changes import crossed
from lifecycle.segments.definitions import Definitions, define
from lifecycle.segments.members import newest_build
from lifecycle.segments.metrics import metrics
from lifecycle.segments.moments import At, AtPoints, points
from lifecycle.settings import Config
from lifecycle.settings.policies import policies

NO_SHOP = -1
_CHUNK_BUILDS = 30
_SHOP = {"last_shop"}

Places = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class People:
    """customer_id, ascending, and seed. Other arrays have a place for each of them."""

    ids: NDArray[np.int64]
    seed: NDArray[np.int64]

    @classmethod
    def of(cls, connection: Connection, ids: Iterable[NDArray[np.int64]]) -> People:
        wanted = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *ids]))
        found = arrays(connection, select(customers.c.customer_id, customers.c.seed))
        kept = np.flatnonzero(np.isin(found["customer_id"], wanted))
        kept = kept[np.argsort(found["customer_id"][kept])]
        return cls(found["customer_id"][kept], found["seed"][kept])

    def find(self, customer_ids: NDArray[np.int64]) -> tuple[NDArray[np.bool_], Places]:
        """Which of them are here, and the places of those that are."""
        known = np.isin(customer_ids, self.ids)
        return known, np.searchsorted(self.ids, customer_ids[known])


class History:
    """`step` through the days from the first."""

    def __init__(
        self,
        connection: Connection,
        config: Config,
        people: People,
        days: Sequence[Day],
        spans: Mapping[str, Spans],
        *,
        stored: bool,
    ) -> None:
        """`stored`: the spans are those of the tables, and so are the newest build's shops."""
        self.people, self.days = people, days
        self.shops = shop_names(connection, config)
        self.members = Membership(spans, people.ids, [day.at for day in days])
        self.members_when_built = Membership(spans, people.ids, [day.since for day in days])
        self.shop = np.full(len(people.ids), NO_SHOP, dtype=np.int64)
        self._moves = _Shops(connection, config, self, stored=stored).moves()
        kinds = sorted({channel.kind for channel in config.channels.values()})
        self.changed = _changed(connection, self, kinds)
        """By day: for whom there may be other reasons not to write than on the day before; known up to today."""

    def step(self, number: int) -> None:
        """Go on to this day."""
        self.members.step(number)
        self.members_when_built.step(number)
        asked, shop = self._moves[number]
        moved = asked[self.shop[asked] != shop]
        self.shop[asked] = shop
        self.changed[number] = np.union1d(self.changed[number], moved)


def shop_names(connection: Connection, config: Config) -> tuple[str, ...]:
    """Those that are configured, as written, then others that people have bought at."""
    found: set[str] = set()
    for column in (orders.c.shop, customer_metrics.c.last_shop):
        found |= set(connection.execute(select(column).distinct()).scalars())
    return (*config.shops, *sorted(found - set(config.shops)))


def place_of_shop(column: ColumnElement[str], names: Sequence[str]) -> ColumnElement[int]:
    return case({name: place for place, name in enumerate(names)}, value=column, else_=NO_SHOP)


Moves = tuple[Places, NDArray[np.int64]]
"""Whose shop is another from a day on, and which."""


class _Shops:
    """The shop of everybody's newest counted order, as the audience of each day has it: as of the day's build; of
    the newest build as it is kept."""

    def __init__(self, connection: Connection, config: Config, history: History, *, stored: bool) -> None:
        self._connection, self._history = connection, history
        self._definitions: Definitions = define(config)
        self._newest = newest_build(connection) if stored else None

    def moves(self) -> list[Moves]:
        """Of each day."""
        days = self._history.days
        builds = list(dict.fromkeys(day.since for day in days))
        found = {build: moves for build, moves in self._of_builds(builds)}
        nobody = (np.empty(0, dtype=np.intp), np.empty(0, dtype=np.int64))
        return [found.pop(day.since, nobody) for day in days]

    def _of_builds(self, builds: Sequence[datetime]) -> Iterator[tuple[datetime, Moves]]:
        computed = [build for build in builds if build != self._newest]
        if computed:
            yield computed[0], self._everybody(metrics(self._definitions.sources, At(computed[0]), _SHOP))
        for start in range(1, len(computed), _CHUNK_BUILDS):
            yield from self._later(computed[start - 1], computed[start : start + _CHUNK_BUILDS])
        if self._newest is not None and self._newest in builds:
            columns = (customer_metrics.c.customer_id, customer_metrics.c.last_shop)
            yield self._newest, self._everybody(select(*columns))

    def _everybody(self, query: Select) -> Moves:
        shop = np.full(len(self._history.people.ids), NO_SHOP, dtype=np.int64)
        found = self._read(query)
        known, places = self._history.people.find(found["customer_id"])
        shop[places] = found["shop"][known]
        return np.arange(len(shop)), shop

    def _later(self, before: datetime, builds: Sequence[datetime]) -> Iterator[tuple[datetime, Moves]]:
        """Those only for whom an order or a refund came in between."""
        connection = self._connection
        connection.execute(delete(points))
        for build in builds:
            touched = union(*crossed(self._definitions, before, build, _SHOP)).subquery("touched")
            rows = select(touched.c.customer_id, literal(build, Instant()))
            connection.execute(insert(points).from_select(["customer_id", "as_of"], rows))
            before = build
        analyze(connection, points)
        asked = arrays(connection, select(points.c.customer_id, points.c.as_of))
        found = self._read(metrics(self._definitions.sources, AtPoints(), _SHOP))
        for build in builds:
            yield build, self._moved(build, asked, found)

    def _moved(
        self, build: datetime, asked: Mapping[str, NDArray[np.int64]], found: Mapping[str, NDArray[np.int64]]
    ) -> Moves:
        """Who has no counted order any more is asked for and not found."""
        people, at = self._history.people, microseconds(build)
        _, whom = people.find(asked["customer_id"][asked["as_of"] == at])
        now = found["as_of"] == at
        known, places = people.find(found["customer_id"][now])
        shop = np.full(len(people.ids), NO_SHOP, dtype=np.int64)
        shop[places] = found["shop"][now][known]
        return whom, shop[whom]

    def _read(self, query: Select) -> dict[str, NDArray[np.int64]]:
        rows = query.subquery("metrics_of")
        shop = place_of_shop(rows.c.last_shop, self._history.shops).label("shop")
        return arrays(self._connection, select(*(c for c in rows.c if c.name != "last_shop"), shop))


def _changed(connection: Connection, history: History, kinds: Iterable[str]) -> list[Places]:
    """For whom, on each day, consent, suppression or order may say something else than on the day before."""
    people, days = history.people, history.days
    parts: list[tuple[Places, Places]] = []
    for customer_id, number in _moments(connection, days, kinds):
        known, places = people.find(customer_id)
        parts.append((number[known], places))
    number, places = (np.concatenate(each) for each in zip(*parts, strict=True))
    return [np.unique(each) for each in by_day(number, places, len(days))]


def _moments(
    connection: Connection, days: Sequence[Day], kinds: Iterable[str]
) -> Iterator[tuple[NDArray[np.int64], Places]]:
    """customer_id and the number of the first day that sees a change; unknown instants are before them all."""
    at, since = in_microseconds([day.at for day in days]), in_microseconds([day.since for day in days])
    said = consents.c
    found = arrays(connection, select(said.customer_id, said.occurred_at, said.recorded_at, said.expires_at))
    for name in ("occurred_at", "recorded_at", "expires_at"):
        yield found["customer_id"], np.searchsorted(at, found[name])
    for years in {law.reconfirm_years for law in policies().countries.values()} - {None}:
        too_old = in_microseconds([months_later(day.at, -12 * (years or 0)) for day in days])
        yield found["customer_id"], np.searchsorted(too_old, found["occurred_at"])
    ban = suppressions.c
    for kind in kinds:
        person = holders(kind)
        query = select(person.c.customer_id, ban.occurred_at, ban.recorded_at, ban.lifted_at, ban.expires_at)
        theirs = and_(ban.address_hash == person.c.address_hash, ban.channel == kind)
        found = arrays(connection, query.join_from(person, suppressions, theirs))
        for name in ("occurred_at", "recorded_at", "lifted_at", "expires_at"):
            yield found["customer_id"], np.searchsorted(at, found[name])
    bought = select(orders.c.customer_id, orders.c.ordered_at).where(
        orders.c.customer_id.is_not(None),
        orders.c.status.in_(BOUGHT),
        orders.c.ordered_at > days[0].since,
        orders.c.ordered_at <= days[-1].at,
    )
    found = arrays(connection, bought)
    for instants in (at, since):  # an order ends the reason to write until a build has seen it
        yield found["customer_id"], np.searchsorted(instants, found["ordered_at"])
