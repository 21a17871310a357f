"""Who is in which segment on each day, from the stored spans or from another config/segments.yaml."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, or_, select

from lifecycle.db.arrays import NULL, arrays
from lifecycle.db.schema import segment_members
from lifecycle.planning.simulation.days import by_day, in_microseconds
from lifecycle.segments.definitions import define
from lifecycle.segments.prediction.columns import predictor
from lifecycle.segments.sweep import Sweep
from lifecycle.settings import Config

_FOR_EVER = int(np.iinfo(np.int64).max)
_CHUNK_DAYS = 30

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Spans:
    """Of one segment: customer_id, half-open [since, until) in microseconds since 1970."""

    customer_id: NDArray[np.int64]
    since: NDArray[np.int64]
    until: NDArray[np.int64]


def segments_asked(config: Config) -> tuple[str, ...]:
    """Those that campaigns and caps name."""
    names = [name for each in config.campaigns.values() for name in (*each.segments, *each.exclude)]
    names += [name for rule in config.caps_file.caps for name in rule.segments or ()]
    return tuple(dict.fromkeys(names))


def stored_spans(
    connection: Connection, segments: Iterable[str], first: datetime, last: datetime
) -> dict[str, Spans]:
    """Spans that meet [first, last]."""
    return {segment: _stored(connection, segment, first, last) for segment in segments}


def _stored(connection: Connection, segment: str, first: datetime, last: datetime) -> Spans:
    spans = segment_members.c
    query = select(spans.customer_id, spans.valid_from, spans.valid_to).where(
        spans.segment == segment,
        spans.valid_from <= last,
        or_(spans.valid_to.is_(None), spans.valid_to > first),
    )
    found = arrays(connection, query)
    until = found["valid_to"]
    return Spans(found["customer_id"], found["valid_from"], np.where(until == NULL, _FOR_EVER, until))


def swept_spans(
    connection: Connection,
    config: Config,
    segments: Iterable[str],
    builds: Sequence[datetime],
    on_progress: Callable[[str, int, int], None],
) -> dict[str, Spans]:
    """As a backfill of these days would leave them, without storing any. Uses the temporary table `points`."""
    definitions = define(config)
    sweep = Sweep(connection, definitions, predictor(config))
    sweep.begin(builds[0], until=builds[-1])
    for start in range(1, len(builds), _CHUNK_DAYS):
        for number, _ in enumerate(sweep.go_on(builds[start : start + _CHUNK_DAYS]), start=start + 1):
            on_progress("days of other segments built", number, len(builds))
    still = sweep.still_open()
    rows = np.concatenate([sweep.spans.all(), np.column_stack([still, np.full(len(still), _FOR_EVER)])])
    numbers = {name: number for number, name in enumerate(definitions.segments)}
    return {segment: Spans(*rows[rows[:, 0] == numbers[segment], 1:].T) for segment in segments}


class Membership:
    """Who is in each segment at an instant of each day; `step` through the days from the first."""

    def __init__(self, spans: Mapping[str, Spans], ids: NDArray[np.int64], at: Sequence[datetime]) -> None:
        """`ids`: customer_ids, ascending; others are left out."""
        days = in_microseconds(at)
        self.masks: dict[str, Flags] = {name: np.zeros(len(ids), dtype=bool) for name in spans}
        self._enter: dict[str, list[NDArray[np.intp]]] = {}
        self._leave: dict[str, list[NDArray[np.intp]]] = {}
        for name, each in spans.items():
            enter = np.searchsorted(days, each.since)
            leave = np.searchsorted(days, each.until)
            known = np.isin(each.customer_id, ids) & (enter < leave)
            person = np.searchsorted(ids, each.customer_id[known])
            self._enter[name] = by_day(enter[known], person, len(days))
            self._leave[name] = by_day(leave[known], person, len(days))

    def step(self, number: int) -> None:
        for name, mask in self.masks.items():
            mask[self._leave[name][number]] = False  # first: the next span of a person may begin at once
            mask[self._enter[name][number]] = True

    def any_of(self, segments: Iterable[str]) -> Flags:
        found: Flags = np.logical_or.reduce([self.masks[name] for name in segments])
        return found
