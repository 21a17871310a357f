"""Segments: all at once, a day later, every day of a year; beside pandas, public packages and DuckDB by hand.

Every step runs in a process of its own and is measured inside it, without imports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, Select, func, select, update

from lifecycle.db.arrays import Arrays
from lifecycle.db.engine import open_database, reading, writing
from lifecycle.db.schema import customer_metrics, customers, microseconds, orders, segment_runs
from lifecycle.segments.backfill import backfill, days_of
from lifecycle.segments.build import build
from lifecycle.segments.definitions import define
from lifecycle.segments.engines import Kind, open_compute
from lifecycle.segments.engines.copying import as_arrays, tables_read
from lifecycle.segments.engines.duckdb import as_sql
from lifecycle.segments.metrics import metrics
from lifecycle.segments.moments import At
from lifecycle.segments.snapshot import take_snapshot
from lifecycle.settings import ROOT, Config, load_config
from lifecycle.settings.segments import Recipe
from tests.bench.databases import Database, fill_columns, settle
from tests.bench.figures import Comparison, Figure, apart, timed
from tests.bench.peers import plain_pandas, public_packages
from tests.bench.peers.bare import bare_sql
from tests.segments.history import NOW

_DAYS, _SAMPLE, _ROUNDS = 365, 10, 3
_DAY_MINUTES = 24 * 60
_PUBLISHED = ("first_order_at", "last_order_at", "frequency", "monetary_minor", "orders_12m", "spend_12m_minor")
_FIXED = {
    "recency": {"thresholds": [30, 90, 180, 365]},
    "frequency": {"thresholds": [2, 3, 5, 8]},
    "monetary": {"thresholds": [100, 300, 600, 1000]},
}


def measure(database: Database, share: float) -> list[Comparison]:
    with _filled(database, 1_000_000, 5_000_000, share) as many:
        full = many.first_build()
        reads, by_hand = many.snapshots(full), [many.by_hand(None), many.by_hand(_PUBLISHED)]
        day = many.next_day(1)
    with _filled(database, 200_000, 1_000_000, share) as fewer:
        fewer_full = fewer.first_build()
        fewer_day = fewer.next_day(1)
        fixed = fewer.next_day(2, fixed=True)
        year = fewer.year(3, fewer_full[0])
    growth = _growth([full, day], [fewer_full, fewer_day])
    return [full, [*day, replace(full[0], what="the first build")], fixed, year, *growth, reads, *by_hand]


def measure_large(database: Database, share: float) -> list[Comparison]:
    """On SQLite as it comes; filling takes minutes."""
    if database.name != "SQLite":
        return []
    with _filled(database, 200_000, 1_000_000, share) as fewer:
        fewer_measured = [fewer.first_build(), fewer.next_day(1)]
    with _filled(database, 2_000_000, 10_000_000, share) as many:
        measured = [many.first_build(), many.next_day(1)]
    return [*measured, *_growth(measured, fewer_measured)]


def _growth(many: list[Comparison], fewer: list[Comparison]) -> list[Comparison]:
    """The same steps by the number of orders; seconds divided by seconds say how they grow."""
    names = ("first build", "a day later")
    return [
        [replace(each[0], what=f"{name} of {each[0].rows:,} orders") for each in pair]
        for name, *pair in zip(names, many, fewer, strict=True)
    ]


@dataclass(frozen=True)
class _Store:
    """A database of paid orders, none of which has a refund: the packages know none."""

    engine: Engine
    customers: int
    orders: int

    @property
    def url(self) -> str:
        return self.engine.url.render_as_string(hide_password=False)

    def first_build(self) -> Comparison:
        what = "first build: 13 metrics, scores, 15 segments, stored with spans"
        building, built = apart(_build, what, self.url, self.orders, NOW)
        figures = [
            self._pandas("plain pandas: 6 metrics, scores, the same segments, nothing stored", built, ""),
            self._pandas("the same pandas, read through ADBC as Arrow", built, "adbc"),
        ]
        return [building, *figures, *public_packages(self.engine, self.orders, NOW, built.sums)]

    def _pandas(self, what: str, built: _Built, reader: str) -> Figure:
        figure, found = plain_pandas(what, self.engine, self.orders, NOW, reader=reader)
        same = all(found[each] == built.sums[each] for each in ("customers", "frequency", "monetary_minor"))
        if not same or built.counts != dict.fromkeys(built.counts, 0) | found["counts"]:
            raise RuntimeError(f"{what}: {found}, but Tern {built}")
        return figure

    def snapshots(self, full: Comparison) -> Comparison:
        """Everybody as of an instant, in memory as the others have it; first with no more metrics than pandas."""
        ways: list[tuple[Kind, str, tuple[str, ...] | None]] = [
            ("database", "6 metrics, scores, segments, nothing stored, by the database itself", _PUBLISHED),
            ("duckdb", "13 metrics, scores, segments, nothing stored, by DuckDB with its copy", None),
            ("database", "13 metrics, scores, segments, nothing stored, by the database itself", None),
        ]
        taken = [
            apart(_snapshot, f"snapshot: {what}", self.url, self.orders, kind, wanted)
            for kind, what, wanted in ways
        ]
        if any(counts != taken[0][1] for _, counts in taken):
            raise RuntimeError("DuckDB and the database make other segments")
        return [*(figure for figure, _ in taken), *full[1:]]

    def by_hand(self, wanted: tuple[str, ...] | None) -> Comparison:
        figure, beside = apart(_by_hand, self.url, self.orders, wanted)
        return [figure, *beside]

    def next_day(self, number: int, *, fixed: bool = False) -> Comparison:
        """`fixed`: after a build of the day before by cut points that do not move."""
        if fixed:
            apart(_build, "", self.url, self.orders, NOW + timedelta(days=number - 1), fixed)
        as_of, count = NOW + timedelta(days=number), self._change(number)
        day, built = apart(_build, "", self.url, count, as_of, fixed)
        again, in_full = apart(_build, "the same day in full: equal", self.url, count, as_of, fixed, True)
        if (built.kind, in_full.kind) != ("incremental", "full") or built.sums != in_full.sums:
            raise RuntimeError(f"a day later: {built}, but in full {in_full}")
        if built.counts != in_full.counts:
            raise RuntimeError(f"a day later: {built.counts}, but in full {in_full.counts}")
        cuts = "fixed thresholds" if fixed else "ten_cells by rank shares: cut points move"
        what = f"a day later, 1 % of orders new, late or changed; {cuts}; {built.touched:,} customers looked at"
        return [replace(day, what=what), again]

    def _change(self, number: int) -> int:
        """Of 1 % of the orders three fifths are new of that day, a fifth comes up to a month late, and a fifth
        are old ones whose amount changes. How many there are then."""
        fifth = round(self.orders / 500)
        chance = np.random.default_rng(20 + number)
        ago = np.concatenate(
            [chance.integers(1, _DAY_MINUTES, 3 * fifth), chance.integers(_DAY_MINUTES, 31 * _DAY_MINUTES, fifth)]
        )
        first_key = 1 + self.orders + 4 * fifth * (number - 1)
        rows = _orders(self.customers, chance, ago, NOW + timedelta(days=number), first_key)
        fill_columns(self.engine, orders, rows)
        with writing(self.engine) as connection:
            more = {"total_minor": orders.c.total_minor + 100, "total_base_minor": orders.c.total_base_minor + 100}
            connection.execute(update(orders).where(orders.c.order_key % 500 == number).values(more))
        return first_key - 1 + 4 * fifth

    def year(self, number: int, full: Figure) -> Comparison:
        """Until the midnight before NOW and so many days; the last day becomes the newest build."""
        last = (NOW + timedelta(days=number)).date()
        days = days_of(last - timedelta(days=_DAYS - 1), last)
        filling, counts = apart(_backfill, self.url, days)
        sample = [days[place] for place in np.linspace(0, _DAYS - 1, _SAMPLE).astype(int)]
        naive, found = apart(_day_by_day, self.url, sample)
        if found != [counts[day] for day in sample]:
            raise RuntimeError("the backfill and a snapshot of a day count other members")
        what = f"plain pandas day by day, read once, {_SAMPLE} days times {_DAYS / _SAMPLE:g}, no spans"
        plain, told = plain_pandas(what, self.engine, _DAYS, days[-1], days=_SAMPLE)
        if told["counts"] != {name: count for name, count in counts[days[0]].items() if count}:
            raise RuntimeError(f"the backfill counts {counts[days[0]]} on the first day, pandas {told['counts']}")
        return [filling, replace(full, what="one first build of the same database", rows=1), naive, plain]


@contextmanager
def _filled(database: Database, customer_count: int, order_count: int, share: float) -> Iterator[_Store]:
    """Orders of three years in the order in which they were placed."""
    with database.fresh() as engine:
        store = _Store(engine, round(customer_count * share), round(order_count * share))
        now = microseconds(NOW)
        ids = np.arange(1, store.customers + 1)
        fill_columns(engine, customers, {"customer_id": ids, "seed": ids, "first_seen_at": now, "updated_at": now})
        chance = np.random.default_rng(20)
        ago = np.sort(chance.integers(1, _DAYS * 3 * _DAY_MINUTES, store.orders))[::-1]
        fill_columns(engine, orders, _orders(store.customers, chance, ago, NOW))
        settle(engine)
        yield store


def _orders(
    customer_count: int,
    chance: np.random.Generator,
    minutes_ago: NDArray[np.int64],
    now: datetime,
    first_key: int = 1,
) -> dict[str, Any]:
    """Paid; a tenth of the customers has a third of them."""
    count = len(minutes_ago)
    keys = np.arange(first_key, first_key + count)
    placed = microseconds(now) - 60_000_000 * minutes_ago
    totals = chance.integers(500, 30_000, count)
    return {
        "order_key": keys,
        "shop": np.where(keys % 2, "atlas", "harbour"),
        "order_id": keys.astype(str),
        "customer_id": (1 + customer_count * chance.random(count) ** 2).astype(int),
        "ordered_at": placed,
        "updated_at": placed,
        "status": "paid",
        "currency": "EUR",
        "total_minor": totals,
        "total_base_minor": totals,
        "line_count": 1,
        "content_hash": "",
        "landed_at": microseconds(now),
    }


@dataclass(frozen=True)
class _Built:
    kind: str
    touched: int
    counts: Mapping[str, int]
    sums: Mapping[str, int]


def _build(
    what: str, url: str, rows: int, as_of: datetime, fixed: bool = False, full: bool = False
) -> tuple[Figure, _Built]:
    engine, config = _open(url), _config(fixed)
    with timed(what, rows) as figure:
        done = build(engine, config, as_of=as_of, now=as_of, full=full)
    summed = ("frequency", "order_days", "monetary_minor", "spend_12m_minor", "r", "f", "m")
    query = select(
        func.count().label("customers"), *(func.sum(customer_metrics.c[each]).label(each) for each in summed)
    )
    with reading(engine) as connection:
        sums = connection.execute(query).mappings().one()
    return figure, _Built(done.kind, done.touched, done.counts, {name: int(each) for name, each in sums.items()})


def _snapshot(
    what: str, url: str, rows: int, kind: Kind, wanted: tuple[str, ...] | None
) -> tuple[Figure, Mapping[str, int]]:
    engine, definitions = _open(url), define(_config())
    with open_compute(kind, engine) as compute, reading(engine) as connection, timed(what, rows) as figure:
        found = take_snapshot(connection, definitions, NOW, wanted=wanted, compute=compute)
    return figure, found.counts(definitions)


def _by_hand(url: str, rows: int, wanted: tuple[str, ...] | None) -> tuple[Figure, Comparison]:
    """Both on the same tables in the memory of DuckDB; medians, taken in turns."""
    engine, definitions = _open(url), define(_config())
    which = f"{len(wanted)} metrics" if wanted else "13 metrics"
    with open_compute("duckdb", engine) as compute, reading(engine) as connection, _OnOneCopy() as copied:
        with timed(f"the copy out of the database, of the columns for {which}", rows) as copying:
            copied.take(compute, metrics(definitions.sources, At(NOW), wanted))
        ours, bare = [], []
        for _ in range(_ROUNDS):
            with timed(f"{which}, scores, segments on DuckDB, copied already", rows) as figure:
                found = take_snapshot(connection, definitions, NOW, wanted=wanted, compute=copied)
            ours.append(figure)
            with timed("the same by hand in one statement of SQL", rows) as figure:
                table = copied.database.sql(bare_sql(microseconds(NOW), published=bool(wanted))).to_arrow_table()
            bare.append(figure)
    _check_equal({**found.columns, **found.members}, as_arrays(table))
    return _middle(ours), [_middle(bare), copying]


def _check_equal(ours: Arrays, theirs: Arrays) -> None:
    wrong = [name for name, values in ours.items() if not np.array_equal(values, theirs[name])]
    if wrong:
        raise RuntimeError(f"Tern and SQL by hand differ in {', '.join(wrong)}")


def _middle(figures: Comparison) -> Figure:
    return replace(figures[0], seconds=median(figure.seconds for figure in figures))


class _OnOneCopy:
    """A Compute on DuckDB, of tables that were copied before."""

    def __enter__(self) -> _OnOneCopy:
        import duckdb

        self.database = duckdb.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()

    def take(self, copy: Any, query: Select[Any]) -> None:
        for table, batches in tables_read(copy, query):
            self.database.register("incoming", batches)
            self.database.execute(f"create table {table.name} as select * from incoming")

    def __call__(self, query: Select[Any]) -> dict[str, NDArray[Any]]:
        return as_arrays(self.database.sql(as_sql(query)).to_arrow_table())


def _backfill(url: str, days: list[datetime]) -> tuple[Figure, Mapping[datetime, Mapping[str, int]]]:
    engine, now = _open(url), days[-1] + timedelta(hours=9)
    with timed(f"backfill of {len(days)} days, spans stored, the last day built", len(days)) as figure:
        backfill(engine, _config(), first=days[0].date(), last=days[-1].date(), now=now)
    query = select(segment_runs.c.as_of, segment_runs.c.counts).where(segment_runs.c.as_of.in_(days))
    with reading(engine) as connection:
        return figure, dict(connection.execute(query).tuples().all())


def _day_by_day(url: str, sample: list[datetime]) -> tuple[Figure, list[Mapping[str, int]]]:
    """What a rebuild for each day would be, with nothing stored."""
    engine, definitions = _open(url), define(_config())
    what = f"naive: a snapshot for each day, {len(sample)} of them times {_DAYS / len(sample):g}, no spans"
    with reading(engine) as connection, timed(what, _DAYS) as figure:
        found = [take_snapshot(connection, definitions, day) for day in sample]
    figure.seconds *= _DAYS / len(sample)
    return figure, [snapshot.counts(definitions) for snapshot in found]


def _open(url: str) -> Engine:
    engine = open_database(url)
    with engine.connect():
        return engine


def _config(fixed: bool = False) -> Config:
    """`fixed`: with a recipe of cut points that do not move with the customers."""
    config = load_config(ROOT / "config", env={})
    if not fixed:
        return config
    file = config.segments_file
    recipe = Recipe.model_validate(file.chosen.model_dump(exclude_unset=True) | _FIXED)
    return replace(config, segments_file=file.model_copy(update={"recipes": {file.recipe: recipe}}))
