"""Every day of a range of the past as if it had been built on that day.

Membership goes into the tables at the end, in one transaction; what came before and what comes after the range
stays. A backfill that is killed goes on where it stopped, if nothing has changed in between.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    Integer,
    MetaData,
    Table,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.schema import CreateTable, DropTable

from lifecycle.db.arrays import EPOCH
from lifecycle.db.bulk import load_numbers
from lifecycle.db.engine import analyze, one_session, reading, writing
from lifecycle.db.instants import plus_microseconds
from lifecycle.db.schema import Big, Instant, changed_customers, orders, segment_members, segment_runs
from lifecycle.errors import UsageError
from lifecycle.segments.build import build
from lifecycle.segments.definitions import Definitions, cuts_as_json, cuts_from_json, define
from lifecycle.segments.members import hold_members
from lifecycle.segments.moments import points
from lifecycle.segments.snapshot import Predict
from lifecycle.segments.sweep import Day, Sweep
from lifecycle.settings import Config
from lifecycle.wholefile import whole_file

OnDay = Callable[[Day, int, int], None]
"""Called with each day, its number and how many there are."""
_CHUNK_DAYS = 30


@dataclass(frozen=True)
class Backfilled:
    days: int
    resumed: int
    """Days that an earlier, killed backfill had done."""
    spans: int
    last: Day

    def sentence(self) -> str:
        resumed = f", {self.resumed:,} of them by an earlier try" if self.resumed else ""
        return (
            f"{self.days:,} days built until {self.last.as_of:%Y-%m-%d}{resumed}: {self.spans:,} memberships; "
            f"{self.last.customers:,} customers on the last day"
        )


def days_of(first: date, last: date) -> list[datetime]:
    """The instants for which a range is built: the beginning of each day, UTC, as `--as-of` reads a date."""
    begin = datetime.combine(first, time(), UTC)
    return [begin + timedelta(days=i) for i in range((last - first).days + 1)]


def backfill(
    engine: Engine,
    config: Config,
    *,
    first: date,
    last: date,
    now: datetime,
    scratch: Path | None = None,
    run_id: str | None = None,
    predict: Predict | None = None,
    on_day: OnDay = lambda day, number, of: None,
) -> Backfilled:
    """Replace what the tables say of membership from the first to the last day. Sends nothing.

    Spans of earlier and later builds stay, and join on. Where no later build is, the last day becomes the newest
    build. `scratch`: folder for what a killed backfill has done. Raises UsageError for a range that is empty or
    reaches into the future, and ConfigError for unsound definitions.
    """
    days = _checked(first, last, now)
    definitions = define(config)
    with one_session(engine, [points]) as connection:
        sweep = Sweep(connection, definitions, predict)
        kept = _Checkpoint(scratch, days, definitions, connection)
        done = kept.resume(sweep)
        resumed = len(done)
        if not done:
            done = [sweep.begin(days[0], until=days[-1])]
            on_day(done[0], 1, len(days))
        while len(done) < len(days):
            for day in sweep.go_on(days[len(done) : len(done) + _CHUNK_DAYS]):
                done.append(day)
                on_day(day, len(done), len(days))
            kept.save(sweep, done)
        over, still = sweep.spans.all(), sweep.still_open()
    with writing(engine, one_state=True) as connection:
        hold_members(connection, alone=True)
        newest = _Splice(connection, definitions, days).put(over, still)
        _record(connection, definitions, done, newest, now=now, run_id=run_id)
    kept.forget()
    if newest:
        build(engine, config, as_of=days[-1], now=now, run_id=run_id, full=True)
    return Backfilled(len(days), resumed, len(over) + len(still), done[-1])


def foretell(engine: Engine, config: Config, *, first: date, last: date, now: datetime) -> str:
    """What `backfill` would do, in a sentence; nothing is changed. Raises the same errors."""
    days = _checked(first, last, now)
    define(config)
    with reading(engine) as connection:
        between = segment_runs.c.as_of.between(days[0], days[-1])
        replaced = connection.execute(select(func.count()).select_from(segment_runs).where(between)).scalar_one()
        placed = select(func.count()).select_from(orders).where(orders.c.ordered_at <= days[-1])
        seen = connection.execute(placed).scalar_one()
    return (
        f"{len(days):,} days from {first} to {last} would be built from {seen:,} orders, in place of {replaced:,} "
        "builds that there are; nothing was done"
    )


def _checked(first: date, last: date, now: datetime) -> list[datetime]:
    if last < first:
        raise UsageError(f"--to {last} is before --from {first}")
    days = days_of(first, last)
    if days[-1] > now:
        raise UsageError(f"segments cannot be built as of {last}: that is in the future")
    return days


def _record(
    connection: Connection,
    definitions: Definitions,
    done: Sequence[Day],
    newest: bool,
    *,
    now: datetime,
    run_id: str | None,
) -> None:
    """A run for each day in place of those that were. The hash of a newest one is empty, so that whatever is built
    next looks at everybody, should the build that follows here be killed."""
    span = segment_runs.c.as_of.between(done[0].as_of, done[-1].as_of)
    connection.execute(delete(segment_runs).where(span))
    meaning = json.loads(definitions.text)
    rows = [
        {
            "as_of": day.as_of,
            "built_at": now,
            "kind": "backfill",
            "definitions_hash": "" if newest and day is done[-1] else definitions.hash,
            "definitions": meaning,
            "cuts": cuts_as_json(day.cuts),
            "customers": day.customers,
            "counts": dict(day.counts),
            "run_id": run_id,
        }
        for day in done
    ]
    connection.execute(insert(segment_runs), rows)


_spanned = Table(
    "spanned",
    MetaData(),
    Column("segment", Integer, nullable=False),
    Column("customer_id", Big, nullable=False),
    Column("valid_from", Big, nullable=False),
    Column("valid_to", Big),
    prefixes=["temporary"],
)
"""New memberships: numbers of segments, microseconds since 1970."""


class _Splice:
    """Puts memberships between what there was before the range and what comes after it."""

    def __init__(self, connection: Connection, definitions: Definitions, days: Sequence[datetime]) -> None:
        self._connection, self._segments, self._first = connection, definitions.segments, days[0]
        later = select(func.min(segment_runs.c.as_of)).where(segment_runs.c.as_of > days[-1])
        self._next: datetime | None = connection.execute(later).scalar()

    def put(self, over: NDArray[np.int64], still: NDArray[np.int64]) -> bool:
        """`over`: segment, customer, from, to; `still`: without the to. True where the range is the newest there
        is."""
        self._connection.execute(CreateTable(_spanned))
        names = ["segment", "customer_id", "valid_from", "valid_to"]
        load_numbers(self._connection, _spanned, names, over[np.lexsort((over[:, 1], over[:, 0]))])
        load_numbers(self._connection, _spanned, names[:3], still)
        analyze(self._connection, _spanned)
        self._clear_range()
        for number, segment in enumerate(self._segments):
            self._put_segment(number, segment)
        self._join_on()
        self._connection.execute(DropTable(_spanned))
        return self._next is None

    def _clear_range(self) -> None:
        """Keep of each old span what lies before the range and what lies after it."""
        spans, connection = segment_members.c, self._connection
        in_range = or_(spans.valid_to.is_(None), spans.valid_to > self._first)
        if self._next is not None:
            in_range = and_(in_range, spans.valid_from < self._next)
            reaches_over = or_(spans.valid_to.is_(None), spans.valid_to > self._next)
            rest = select(spans.segment, spans.customer_id, literal(self._next, Instant()), spans.valid_to)
            connection.execute(
                insert(segment_members).from_select(
                    ["segment", "customer_id", "valid_from", "valid_to"], rest.where(in_range, reaches_over)
                )
            )
        connection.execute(delete(segment_members).where(in_range, spans.valid_from >= self._first))
        cut = update(segment_members).where(in_range, spans.valid_from < self._first)
        connection.execute(cut.values(valid_to=self._first))

    def _put_segment(self, number: int, segment: str) -> None:
        rows = select(
            literal(segment),
            _spanned.c.customer_id,
            plus_microseconds(EPOCH, _spanned.c.valid_from),
            case(
                (_spanned.c.valid_to.is_not(None), plus_microseconds(EPOCH, _spanned.c.valid_to)),
                else_=null() if self._next is None else literal(self._next, Instant()),
            ),
        )
        rows = rows.where(_spanned.c.segment == number).order_by(_spanned.c.customer_id, _spanned.c.valid_from)
        names = ["segment", "customer_id", "valid_from", "valid_to"]
        self._connection.execute(insert(segment_members).from_select(names, rows))

    def _join_on(self) -> None:
        """A membership that went on over an edge of the range is one span, not two."""
        for edge in filter(None, (self._first, self._next)):
            if self._one_ends_at(edge):
                self._lengthen(edge)
                self._drop_covered(edge)

    def _one_ends_at(self, edge: datetime) -> bool:
        ending = select(segment_members.c.segment).where(segment_members.c.valid_to == edge).limit(1)
        return self._connection.execute(ending).first() is not None

    def _lengthen(self, edge: datetime) -> None:
        """Spans that end at the edge and are followed by one end where that one does."""
        ending, following = segment_members, segment_members.alias("following")
        follows = and_(_same_membership(following, ending), following.c.valid_from == edge)
        until = select(following.c.valid_to).where(follows).scalar_subquery()
        longer = update(ending).where(ending.c.valid_to == edge, exists().where(follows))
        self._connection.execute(longer.values(valid_to=until))

    def _drop_covered(self, edge: datetime) -> None:
        """Spans that begin at the edge, within one that was lengthened over it."""
        beginning, longer = segment_members, segment_members.alias("longer")
        covers = and_(
            _same_membership(longer, beginning),
            longer.c.valid_from < edge,
            or_(longer.c.valid_to.is_(None), longer.c.valid_to > edge),
        )
        covered = delete(beginning).where(beginning.c.valid_from == edge, exists().where(covers))
        self._connection.execute(covered)


def _same_membership(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    return and_(one.c.segment == other.c.segment, one.c.customer_id == other.c.customer_id)


class _Checkpoint:
    """What a backfill has done so far, in a file, until it is in the tables."""

    def __init__(
        self, folder: Path | None, days: Sequence[datetime], definitions: Definitions, connection: Connection
    ) -> None:
        self._days = days
        self._path = folder / f"segments-{days[0]:%Y%m%d}-{days[-1]:%Y%m%d}.npz" if folder else None
        self._of = f"{definitions.hash} {_state_of_data(connection)}"

    def save(self, sweep: Sweep, done: Sequence[Day]) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        told = json.dumps({"of": self._of, "days": [_day_as_json(day) for day in done]})
        with whole_file(self._path) as file:
            np.savez(file, told=np.array(told), spans=sweep.spans.all(), **sweep.since())  # type: ignore[arg-type]

    def resume(self, sweep: Sweep) -> list[Day]:
        """Bring `sweep` to the last day that was done; the days until then, none where it is to begin anew."""
        if self._path is None or not self._path.exists():
            return []
        try:
            with np.load(self._path) as file:
                found = {name: file[name] for name in file.files}
            told = json.loads(str(found.pop("told")))
        except (ValueError, KeyError, OSError, zipfile.BadZipFile):
            return []
        if told["of"] != self._of:
            return []
        done = [_day_from_json(day) for day in told["days"]]
        sweep.begin(done[-1].as_of, until=self._days[-1])
        sweep.spans.parts = [found.pop("spans")]
        sweep.restore(found)
        return done

    def forget(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _state_of_data(connection: Connection) -> str:
    """Another one as soon as a change is logged or a build has looked at the log."""
    builds = select(func.max(segment_runs.c.segment_run_id), func.max(segment_runs.c.built_at))
    changes = select(func.max(changed_customers.c.change_id))
    return f"{tuple(connection.execute(builds).one())} {connection.execute(changes).scalar()}"


def _day_as_json(day: Day) -> dict[str, Any]:
    return {
        "as_of": day.as_of.isoformat(),
        "customers": day.customers,
        "counts": dict(day.counts),
        "cuts": cuts_as_json(day.cuts),
    }


def _day_from_json(stored: Mapping[str, Any]) -> Day:
    return Day(
        datetime.fromisoformat(stored["as_of"]),
        stored["customers"],
        stored["counts"],
        cuts_from_json(stored["cuts"]),
    )
