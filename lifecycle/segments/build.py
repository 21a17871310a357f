"""Builds the segments as of an instant: metrics, scores, and who entered and who left which segment.

A full build looks at everybody. An incremental one looks at whom a change of the data, time, or a moved cut point
can have moved since the build before, and leaves the same rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.schema import CreateTable, DropTable

from lifecycle.db.arrays import arrays
from lifecycle.db.engine import analyze, writing
from lifecycle.db.schema import (
    Big,
    Instant,
    customer_metrics,
    customer_windows,
    segment_members,
    segment_runs,
)
from lifecycle.errors import TernError, UsageError
from lifecycle.segments.changes import forget_changes, touch
from lifecycle.segments.cuts import Cuts
from lifecycle.segments.definitions import Definitions, Told, cuts_as_json, cuts_from_json, define
from lifecycle.segments.engines import open_compute
from lifecycle.segments.engines.loading import load
from lifecycle.segments.members import hold_members
from lifecycle.segments.metrics import metrics, window_columns
from lifecycle.segments.moments import At, touched
from lifecycle.segments.prediction.columns import refresh_predictions
from lifecycle.segments.records import SegmentBuild
from lifecycle.segments.state import Compute, metric_columns, stored_scorable, stored_state
from lifecycle.settings import Config

_OPEN = segment_members.c.valid_to.is_(None)
SCORES = ("r", "f", "m")


def build(
    engine: Engine,
    config: Config,
    *,
    as_of: datetime,
    now: datetime,
    run_id: str | None = None,
    full: bool = False,
    compute: Compute | None = None,
) -> SegmentBuild:
    """Bring metrics, scores and membership spans up to `as_of`, all or nothing.

    Incremental where that gives the same: definitions as in the build before, which was for an earlier instant.
    Building again for the same `as_of` corrects that build: equal orders change nothing. `full`: look at everybody
    in any case. `compute`: where a full build has the metrics computed; None: by the configured engine. Raises
    UsageError for an `as_of` after `now`, ConfigError for unsound definitions or an engine that is not installed,
    and TernError for an `as_of` before the newest build, whose spans must not be rewritten.
    """
    if as_of > now:
        raise UsageError(f"segments cannot be built as of {as_of:%Y-%m-%d %H:%M} UTC: that is in the future")
    definitions = define(config)
    with writing(engine, one_state=True) as connection:
        hold_members(connection, alone=True)
        before = _newest_run(connection)
        _refuse_earlier(before, as_of)
        if definitions.uses_predictions:
            refresh_predictions(connection, config, as_of)
        wanted_hash = definitions_hash(definitions, as_of)
        incremental = before is not None and before.hash == wanted_hash and before.as_of < as_of and not full
        with work_tables(connection, definitions) as work:
            building = _Building(connection, definitions, as_of, work)
            if incremental and before:
                done = building.whom_it_concerns(before)
            else:
                where = (
                    open_compute(config.segments_file.engine, engine) if compute is None else nullcontext(compute)
                )
                with where as computing:
                    done = building.everybody(computing)
        record_run(connection, definitions, done, wanted_hash, now=now, run_id=run_id)
    return done


@dataclass(frozen=True)
class _Run:
    """The build before."""

    as_of: datetime
    hash: str
    cuts: Mapping[str, Cuts]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class WorkTables:
    """Temporary. `computed`: metrics of whom a build looks at. `placed`: one row for each of them with the cell
    and, by rule segment, whether they are in it. `wanted`: the same as (customer_id, segment)."""

    computed: Table
    placed: Table
    wanted: Table
    rules: Mapping[str, Column[int]]


@contextmanager
def work_tables(connection: Connection, definitions: Definitions) -> Iterator[WorkTables]:
    metadata, temporary = MetaData(), ["temporary"]
    computed = Table(
        "computed",
        metadata,
        *(
            Column(name, kind, primary_key=name == "customer_id", autoincrement=False)
            for name, kind in metric_columns(definitions).items()
        ),
        prefixes=temporary,
    )
    rules = {segment: Column(f"rule_{i}", Integer) for i, segment in enumerate(definitions.rules)}
    placed = Table(
        "placed",
        metadata,
        Column("customer_id", Big, primary_key=True, autoincrement=False),
        Column("rfm_segment", Text),
        *rules.values(),
        prefixes=temporary,
    )
    wanted = Table(
        "wanted",
        metadata,
        Column("customer_id", Big, primary_key=True, autoincrement=False),
        Column("segment", Text, primary_key=True),
        prefixes=temporary,
    )
    tables = [computed, placed, wanted, touched]
    for table in tables:
        connection.execute(CreateTable(table))
    yield WorkTables(computed, placed, wanted, rules)
    for table in tables:
        connection.execute(DropTable(table))


@dataclass(frozen=True)
class _Building:
    connection: Connection
    definitions: Definitions
    as_of: datetime
    work: WorkTables

    def everybody(self, compute: Compute | None) -> SegmentBuild:
        forget_changes(self.connection)
        for table in (customer_metrics, customer_windows):
            self.connection.execute(delete(table))
        undo(self.connection, self.as_of)
        self._compute(At(self.as_of), compute)
        cuts = self._cuts(self.work.computed)
        self._store(self.definitions.tell_scores(self.work.computed.c, self.as_of, cuts))
        analyze(self.connection, customer_metrics)
        self._place(cuts, among=None)
        entered, left = self._move(among=None)
        return self._done("full", cuts, entered, left, self._count(), touched=self._customers())

    def whom_it_concerns(self, before: _Run) -> SegmentBuild:
        """Compute again whom a change or time touches, then look at whom the new cut-offs may move."""
        touch(self.connection, self.definitions, before.as_of, self.as_of)
        analyze(self.connection, touched)
        for table in (customer_metrics, customer_windows):
            again = table.c.customer_id.in_(select(touched.c.customer_id))
            self.connection.execute(delete(table).where(again))
        self._compute(At(self.as_of, among=touched))
        self._store(None)
        cuts = self._cuts(stored_state(self.definitions))
        self._touch_movable(cuts, before)
        analyze(self.connection, touched)
        self._score(cuts)
        self._place(cuts, among=touched)
        entered, left = self._move(among=touched)
        counts = {
            segment: before.counts.get(segment, 0) + entered.get(segment, 0) - left.get(segment, 0)
            for segment in self.definitions.segments
        }
        looked_at = self.connection.execute(select(func.count()).select_from(touched)).scalar_one()
        return self._done("incremental", cuts, entered, left, counts, touched=looked_at)

    def _done(
        self,
        kind: str,
        cuts: Mapping[str, Cuts],
        entered: Mapping[str, int],
        left: Mapping[str, int],
        counts: Mapping[str, int],
        touched: int,
    ) -> SegmentBuild:
        everywhere = dict.fromkeys(self.definitions.segments, 0)
        return SegmentBuild(
            as_of=self.as_of,
            kind=kind,
            customers=self._customers(),
            counts=counts,
            entered={**everywhere, **entered},
            left={**everywhere, **left},
            touched=touched,
            cuts=cuts,
        )

    def _compute(self, at: At, compute: Compute | None = None) -> None:
        computed = self.work.computed
        rows = metrics(self.definitions.sources, at).subquery("rows")
        names = [column.name for column in computed.c]
        query = select(*(rows.c[name] for name in names))
        if compute is not None:
            load(self.connection, computed, query.order_by(rows.c.customer_id), compute)
        else:
            self.connection.execute(insert(computed).from_select(names, query))
        analyze(self.connection, computed)

    def _cuts(self, source: FromClause) -> Mapping[str, Cuts]:
        columns = (source.c[name] for name in self.definitions.score_columns)
        return self.definitions.cuts(arrays(self.connection, select(*columns)), self.as_of)

    def _store(self, told: Told | None) -> None:
        """`computed` into the tables; without scores until they are told."""
        computed = self.work.computed
        stored = [column.name for column in customer_metrics.c if column.name in computed.c]
        scores: Mapping[str, Any] = {"r": literal(0), "f": literal(0), "m": null()}
        name: Any = literal("")
        if told is not None:
            scores, name = {**scores, **told.scores}, told.cell
        rows = select(*(computed.c[each] for each in stored), *(scores[letter] for letter in SCORES), name)
        self.connection.execute(insert(customer_metrics).from_select([*stored, *SCORES, "rfm_segment"], rows))
        for days in self.definitions.sources.windows:
            orders, spend = (computed.c[name] for name in window_columns(days))
            booked = select(literal(days), computed.c.customer_id, orders, spend).where(
                or_(orders != 0, spend != 0)
            )
            names = ["days", "customer_id", "orders", "spend_minor"]
            self.connection.execute(insert(customer_windows).from_select(names, booked))

    def _touch_movable(self, cuts: Mapping[str, Cuts], before: _Run) -> None:
        """Whoever, with the same metrics, may be scored or placed differently than in the build before."""
        state = stored_state(self.definitions)
        now = self.definitions.tell(state.c, self.as_of, cuts)
        then = self.definitions.tell(state.c, before.as_of, before.cuts)
        differently = now.differs_from(then)
        if differently:
            known = exists().where(touched.c.customer_id == state.c.customer_id)
            movable = select(state.c.customer_id).where(or_(*differently), not_(known))
            self.connection.execute(insert(touched).from_select(["customer_id"], movable))

    def _score(self, cuts: Mapping[str, Cuts]) -> None:
        told = self.definitions.tell_scores(stored_scorable(self.definitions), self.as_of, cuts)
        again = customer_metrics.c.customer_id.in_(select(touched.c.customer_id))
        statement = update(customer_metrics).where(again)
        self.connection.execute(statement.values(**told.scores, rfm_segment=told.cell))

    def _place(self, cuts: Mapping[str, Cuts], among: Table | None) -> None:
        placed, state = self.work.placed, stored_state(self.definitions, among)
        told = self.definitions.tell(state.c, self.as_of, cuts)
        holds = [case((told.conditions[segment], 1), else_=0) for segment in self.work.rules]
        rows = select(state.c.customer_id, state.c.rfm_segment, *holds)
        names = [column.name for column in placed.c]
        self.connection.execute(insert(placed).from_select(names, rows))
        analyze(self.connection, placed)

    def _move(self, among: Table | None) -> tuple[dict[str, int], dict[str, int]]:
        """Close the spans of those who left, open spans for those who entered. How many, by segment."""
        connection, wanted = self.connection, self.work.wanted
        opened = ["segment", "customer_id", "valid_from"]
        when = literal(self.as_of, Instant())
        if connection.execute(select(segment_members.c.segment).limit(1)).first() is None:
            for rows in self._placements():
                connection.execute(insert(segment_members).from_select(opened, rows.add_columns(when)))
            return dict(self._count()), {}
        for rows in self._placements():
            connection.execute(insert(wanted).from_select(["segment", "customer_id"], rows))
        analyze(connection, wanted)
        same = and_(
            wanted.c.customer_id == segment_members.c.customer_id, wanted.c.segment == segment_members.c.segment
        )
        leaving = update(segment_members).where(_OPEN, not_(exists().where(same)))
        if among is not None:
            leaving = leaving.where(segment_members.c.customer_id.in_(select(among.c.customer_id)))
        connection.execute(leaving.values(valid_to=self.as_of))
        entering = select(wanted.c.segment, wanted.c.customer_id, when).where(not_(exists().where(same, _OPEN)))
        rows = entering.order_by(wanted.c.segment, wanted.c.customer_id)
        connection.execute(insert(segment_members).from_select(opened, rows))
        return (
            self._moved(segment_members.c.valid_from, among),
            self._moved(segment_members.c.valid_to, among),
        )

    def _placements(self) -> Iterator[Select[Any]]:
        """(segment, customer_id) of everybody placed, segment by segment, in the order of the spans' key."""
        placed = self.work.placed
        for segment in self.definitions.segments:
            holds = placed.c.rfm_segment == segment
            if segment in self.work.rules:
                holds = self.work.rules[segment] == 1
            rows = select(literal(segment), placed.c.customer_id).where(holds)
            yield rows.order_by(placed.c.customer_id)

    def _moved(self, edge: ColumnElement[datetime], among: Table | None) -> dict[str, int]:
        query = select(segment_members.c.segment, func.count()).where(edge == self.as_of)
        if among is not None:
            query = query.where(segment_members.c.customer_id.in_(select(among.c.customer_id)))
        return {
            segment: count for segment, count in self.connection.execute(query.group_by(segment_members.c.segment))
        }

    def _count(self) -> Mapping[str, int]:
        """Members now, every defined segment named."""
        query = select(segment_members.c.segment, func.count()).where(_OPEN).group_by(segment_members.c.segment)
        found = {segment: count for segment, count in self.connection.execute(query)}
        return dict.fromkeys(self.definitions.segments, 0) | found

    def _customers(self) -> int:
        return self.connection.execute(select(func.count()).select_from(customer_metrics)).scalar_one()


def undo(connection: Connection, as_of: datetime) -> None:
    """What an earlier build for this very instant opened and closed, so that it can be corrected and no span is
    empty."""
    spans = segment_members.c
    connection.execute(delete(segment_members).where(spans.valid_from == as_of))
    connection.execute(update(segment_members).where(spans.valid_to == as_of).values(valid_to=None))


def definitions_hash(definitions: Definitions, as_of: datetime) -> str:
    """Another one wherever a build must look at everybody: predictions are other ones every day."""
    return f"{definitions.hash}, predictions as of {as_of}" if definitions.uses_predictions else definitions.hash


def record_run(
    connection: Connection,
    definitions: Definitions,
    done: SegmentBuild,
    hash_: str,
    *,
    now: datetime,
    run_id: str | None,
) -> None:
    connection.execute(delete(segment_runs).where(segment_runs.c.as_of == done.as_of))
    connection.execute(
        insert(segment_runs).values(
            as_of=done.as_of,
            built_at=now,
            kind=done.kind,
            definitions_hash=hash_,
            definitions=json.loads(definitions.text),
            cuts=cuts_as_json(done.cuts),
            customers=done.customers,
            counts=dict(done.counts),
            run_id=run_id,
        )
    )


def _newest_run(connection: Connection) -> _Run | None:
    found = connection.execute(select(segment_runs).order_by(segment_runs.c.as_of.desc()).limit(1)).one_or_none()
    if found is None:
        return None
    return _Run(found.as_of, found.definitions_hash, cuts_from_json(found.cuts), found.counts)


def _refuse_earlier(newest: _Run | None, as_of: datetime) -> None:
    if newest is not None and as_of < newest.as_of:
        raise TernError(
            f"segments are already built until {newest.as_of:%Y-%m-%d %H:%M:%S} UTC, so they cannot be built as "
            f"of {as_of:%Y-%m-%d %H:%M:%S}; to look back run: "
            f"tern segments export --as-of {as_of:%Y-%m-%dT%H:%M:%SZ} --out FILE; to build the past again: "
            f"tern backfill segments --from {as_of:%Y-%m-%d} --to {newest.as_of:%Y-%m-%d}"
        )
