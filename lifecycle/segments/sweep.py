"""Everybody as arrays, day after day: who is in which segment, and since when.

Day by day the database computes the metrics of those for whom something began or ceased to count; the cut points
move; and whoever a change or a moved cut-off can have moved is placed again, by the same definitions as in a
build.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, insert, literal, select, union

from lifecycle.db.arrays import EPOCH, Arrays, arrays
from lifecycle.db.engine import analyze
from lifecycle.db.instants import elapsed
from lifecycle.db.schema import Instant, microseconds, orders
from lifecycle.segments.changes import crossed
from lifecycle.segments.cuts import Cuts
from lifecycle.segments.definitions import Definitions, Told
from lifecycle.segments.evaluate import evaluate
from lifecycle.segments.metrics import metrics
from lifecycle.segments.moments import AtPoints, points
from lifecycle.segments.snapshot import Predict, lookup, place, predictions, profiles, score, take_snapshot
from lifecycle.segments.state import metric_columns, state_columns

Ints = NDArray[np.int64]
_NONE = -1
SCORED = ("r", "f", "m", "rfm_segment")


@dataclass(frozen=True)
class Day:
    """What is kept of a day: how many are in each segment, and the cut points."""

    as_of: datetime
    customers: int
    counts: Mapping[str, int]
    cuts: Mapping[str, Cuts]


@dataclass
class Spans:
    """Memberships that are over, part by part: number of the segment, customer_id, from and to in microseconds."""

    parts: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, segments: Ints | int, customer_ids: Ints, since: Ints, until: int) -> None:
        if len(customer_ids):
            shape = customer_ids.shape
            columns = [np.broadcast_to(segments, shape), customer_ids, since, np.full(shape, until)]
            self.parts.append(np.stack(columns, axis=1))

    def all(self) -> NDArray[np.int64]:
        """Four columns, one row a span."""
        return np.concatenate(self.parts) if self.parts else np.empty((0, 4), dtype=np.int64)


class Taken(dict[str, NDArray[Any]]):
    """Some places of all columns, taken when they are asked for."""

    def __init__(self, columns: Arrays, places: NDArray[np.intp]) -> None:
        super().__init__()
        self._columns, self._places = columns, places

    def __missing__(self, name: str) -> NDArray[Any]:
        self[name] = found = self._columns[name][self._places]
        return found


class Sweep:
    """`begin` at a day, then `go_on` over those that follow. A place of the arrays is a customer, whether or not
    they have an order yet."""

    def __init__(self, connection: Connection, definitions: Definitions, predict: Predict | None = None) -> None:
        self.spans = Spans()
        self.as_of: datetime
        self._connection, self._definitions, self._predict = connection, definitions, predict
        self._c = state_columns(definitions).c
        self._asked = definitions.columns_used & set(metric_columns(definitions))
        self._cells = {name: number for number, name in enumerate(definitions.recipe.names)}
        self._rules = {name: len(self._cells) + i for i, name in enumerate(definitions.rules)}

    def begin(self, as_of: datetime, until: datetime) -> Day:
        """Everybody as of a day. `until`: the last day that will be asked for."""
        connection, definitions = self._connection, self._definitions
        placed = select(orders.c.customer_id).where(
            orders.c.customer_id.is_not(None), orders.c.ordered_at <= until
        )
        self._ids = arrays(connection, placed.distinct().order_by(orders.c.customer_id))["customer_id"]
        found = take_snapshot(connection, definitions, as_of, predict=self._predict, wanted=self._asked)
        here = np.searchsorted(self._ids, found.columns["customer_id"])
        self._columns = {name: self._spread(values, here) for name, values in found.columns.items()}
        self._columns["customer_id"] = self._ids
        self._columns |= profiles(connection, definitions, self._ids)
        self._live = np.zeros(len(self._ids), dtype=bool)
        self._live[here] = True
        self._cell = self._spread(self._cell_numbers(found.columns["rfm_segment"]), here, _NONE)
        self._cell_since = np.full(len(self._ids), microseconds(as_of))
        self._held = {name: self._spread(held, here) for name, held in found.members.items()}
        self._held_since = {name: np.full(len(self._ids), microseconds(as_of)) for name in self._held}
        self.as_of = as_of
        self._told = definitions.tell(self._c, as_of, found.cuts)
        return self._day(found.cuts)

    def go_on(self, days: Sequence[datetime]) -> Iterator[Day]:
        """The days that follow, one after the other: what a day needs is asked of the database for all of them."""
        self._fill_points(days)
        asked = arrays(self._connection, select(points.c.customer_id, _us(points.c.as_of).label("as_of")))
        found = metrics(self._definitions.sources, AtPoints(), self._asked).subquery("found")
        rows = arrays(
            self._connection, select(*(each for each in found.c if each.name != "as_of"), _us(found.c.as_of))
        )
        for day in days:
            at = microseconds(day)
            of_day = asked["as_of"] == at
            yield self._step(day, asked["customer_id"][of_day], Taken(rows, np.flatnonzero(rows["as_of"] == at)))

    def still_open(self) -> NDArray[np.int64]:
        """Memberships that go on: number of the segment, customer_id, since when."""
        inside = self._cell != _NONE
        parts = [
            np.stack([self._cell[inside].astype(np.int64), self._ids[inside], self._cell_since[inside]], axis=1)
        ]
        for name, held in self._held.items():
            segment = np.full(int(held.sum()), self._rules[name])
            parts.append(np.stack([segment, self._ids[held], self._held_since[name][held]], axis=1))
        return np.concatenate(parts)

    def since(self) -> dict[str, NDArray[Any]]:
        """What a snapshot does not tell of a day: since when everybody is where they are."""
        return {"cells": self._cell_since, **{f"rule {name}": each for name, each in self._held_since.items()}}

    def restore(self, since: Mapping[str, NDArray[Any]]) -> None:
        self._cell_since = since["cells"].copy()
        self._held_since = {name: since[f"rule {name}"].copy() for name in self._held_since}

    def _spread(self, values: NDArray[Any], here: NDArray[np.intp], empty: Any = None) -> NDArray[Any]:
        spread = np.zeros(len(self._ids), dtype=values.dtype)
        if empty is not None:
            spread[:] = empty
        spread[here] = values
        return spread

    def _cell_numbers(self, names: NDArray[Any]) -> NDArray[np.int16]:
        numbers = np.full(len(names), _NONE, dtype=np.int16)
        for name, number in self._cells.items():
            numbers[names == name] = number
        return numbers

    def _fill_points(self, days: Sequence[datetime]) -> None:
        self._connection.execute(delete(points))
        before = self.as_of
        for day in days:
            found = union(*crossed(self._definitions, before, day, self._asked)).subquery("found")
            rows = select(found.c.customer_id, literal(day, Instant()))
            self._connection.execute(insert(points).from_select(["customer_id", "as_of"], rows))
            before = day
        analyze(self._connection, points)

    def _step(self, day: datetime, touched: Ints, rows: Taken) -> Day:
        again = np.searchsorted(self._ids, touched)
        here = np.searchsorted(self._ids, rows["customer_id"])
        for name in self._asked - {"customer_id"}:
            self._columns[name][here] = rows[name]
        self._live[again] = False
        self._live[here] = True
        live = np.flatnonzero(self._live)
        self._columns |= self._predicted(day, live)
        everybody = Taken(self._columns, live)
        cuts = self._definitions.cuts(everybody, day)
        told = self._definitions.tell(self._c, day, cuts)
        movable = self._movable(told, everybody)
        look_at = np.union1d(here, live[movable])
        self._place(told, look_at, gone=again[~self._live[again]])
        self._told, self.as_of = told, day
        return self._day(cuts)

    def _predicted(self, day: datetime, live: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        found = predictions(self._connection, self._definitions, day, self._ids[live], self._predict)
        return {name: self._spread(values, live) for name, values in found.items()}

    def _movable(self, told: Told, everybody: Taken) -> NDArray[np.bool_]:
        if self._definitions.uses_predictions:
            return np.ones(len(everybody["customer_id"]), dtype=bool)
        found_in = lookup(self._connection)
        movable = np.zeros(len(everybody["customer_id"]), dtype=bool)
        for differs in told.differs_from(self._told):
            movable |= evaluate(differs, everybody, found_in)
        return movable

    def _place(self, told: Told, look_at: NDArray[np.intp], gone: NDArray[np.intp]) -> None:
        found_in = lookup(self._connection)
        taken = Taken(self._columns, look_at)
        taken.update(score(told, taken, found_in))
        for name in SCORED:
            self._columns[name][look_at] = taken[name]
        members = place(told, taken, found_in)
        now = microseconds(told.as_of)
        self._move_cells(np.concatenate([look_at, gone]), self._cell_numbers(taken["rfm_segment"]), now)
        for name, held in members.items():
            self._move_rule(name, np.concatenate([look_at, gone]), held, now)

    def _move_cells(self, places: NDArray[np.intp], cells: NDArray[np.int16], now: int) -> None:
        """`cells` of the first places; the others have left."""
        after = np.full(len(places), _NONE, dtype=np.int16)
        after[: len(cells)] = cells
        moved = places[self._cell[places] != after]
        left = moved[self._cell[moved] != _NONE]
        self.spans.add(self._cell[left].astype(np.int64), self._ids[left], self._cell_since[left], now)
        self._cell[places] = after
        self._cell_since[moved] = now

    def _move_rule(self, name: str, places: NDArray[np.intp], held: NDArray[np.bool_], now: int) -> None:
        after = np.zeros(len(places), dtype=bool)
        after[: len(held)] = held
        before = self._held[name][places]
        left = places[before & ~after]
        self.spans.add(self._rules[name], self._ids[left], self._held_since[name][left], now)
        self._held[name][places] = after
        self._held_since[name][places[after & ~before]] = now

    def _day(self, cuts: Mapping[str, Cuts]) -> Day:
        cells = np.bincount(self._cell[self._cell != _NONE], minlength=len(self._cells))
        counts = {name: int(cells[number]) for name, number in self._cells.items()}
        counts |= {name: int(held.sum()) for name, held in self._held.items()}
        return Day(self.as_of, int(self._live.sum()), counts, cuts)


def _us(instant: Any) -> Any:
    return elapsed(EPOCH, instant).label("as_of")
