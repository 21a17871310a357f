"""A backfilled day is what a full build of that day would be; what lies before and after the range stays."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from lifecycle.db.engine import reading
from lifecycle.db.schema import segment_runs
from lifecycle.errors import UsageError
from lifecycle.segments.backfill import backfill, days_of
from lifecycle.segments.build import build
from lifecycle.segments.definitions import define
from lifecycle.segments.snapshot import take_snapshot
from lifecycle.settings import Config
from tests.segments.happenings import PEOPLE, RICH, Happening, happenings
from tests.segments.history import NOW, Order, add_customers, add_orders, clear, members_at, spans
from tests.segments.test_segments import a_few

DAY = timedelta(days=1)
FIRST = (NOW - 40 * DAY).date()


def rebuilt(engine: Engine, config: Config, as_of: datetime) -> dict[str, set[int]]:
    """Members as a rebuild from the orders says."""
    definitions = define(config)
    with reading(engine) as connection:
        found = take_snapshot(connection, definitions, as_of)
    ids, cells = found.columns["customer_id"], found.columns["rfm_segment"]
    members = {cell: set(ids[cells == cell].tolist()) for cell in definitions.recipe.names}
    return members | {segment: set(ids[held].tolist()) for segment, held in found.members.items()}


def sound(engine: Engine) -> None:
    """Spans of one membership neither overlap nor touch, and none is empty."""
    for _, group in itertools.groupby(spans(engine), key=lambda span: span[:2]):
        ends = [instant for _, _, start, end in group for instant in (start, end)]
        assert None not in ends[:-1]
        known = [end for end in ends if end is not None]
        assert sorted(set(known)) == known


@pytest.fixture(params=["ten_cells", "eleven_cells", "first_match"])
def rich(request: pytest.FixtureRequest, changed: Callable[..., Config]) -> Config:
    return changed(segments_file={**RICH, "recipe": request.param})


@a_few
@given(
    happened=st.lists(happenings(), max_size=25),
    before=st.booleans(),
    after=st.booleans(),
    within=st.booleans(),
    days=st.integers(1, 10),
)
def test_every_day_equals_a_full_rebuild(
    engine: Engine, rich: Config, happened: list[Happening], before: bool, after: bool, within: bool, days: int
) -> None:
    clear(engine)
    add_customers(engine, PEOPLE)
    for happen in happened:
        happen(engine)
    last = FIRST + timedelta(days=days - 1)
    end = days_of(FIRST, last)[-1]
    built = [NOW - 60 * DAY] * before + [end - timedelta(hours=3)] * within + [end + timedelta(hours=7)] * after
    for as_of in built:
        build(engine, rich, as_of=as_of, now=NOW + DAY)
    outside = [as_of for as_of in built if not days_of(FIRST, last)[0] <= as_of <= end]
    was = {as_of: members_at(engine, rich, as_of) for as_of in outside}

    backfill(engine, rich, first=FIRST, last=last, now=NOW + DAY)

    for as_of in days_of(FIRST, last):
        assert members_at(engine, rich, as_of) == rebuilt(engine, rich, as_of), as_of
    assert {as_of: members_at(engine, rich, as_of) for as_of in outside} == was
    sound(engine)
    with reading(engine) as connection:
        runs = connection.execute(select(segment_runs).order_by(segment_runs.c.as_of)).all()
    assert [run.as_of for run in runs] == sorted([*outside, *days_of(FIRST, last)])
    for run in runs:
        counted = {segment: len(people) for segment, people in members_at(engine, rich, run.as_of).items()}
        assert run.counts == counted
    if not after:
        following = build(engine, rich, as_of=end + DAY / 2, now=NOW + DAY)
        assert following.kind == "incremental"
        assert members_at(engine, rich, end + DAY / 2) == rebuilt(engine, rich, end + DAY / 2)


def long_history(people: int, days: int) -> list[Order]:
    chance = random.Random(7)
    history = []
    for _ in range(5 * people):
        at = NOW - timedelta(minutes=chance.randrange(days * 1440))
        total = chance.choice([1_000, 2_500, 2_500, 12_345])
        refund = total // 2 if chance.random() < 0.1 else 0
        back = at + timedelta(days=chance.randrange(60)) if refund else None
        history.append(Order(chance.randint(1, people), at, total, refund=refund, refunded_at=back))
    return history


def test_members_on_100_random_dates_equal_a_full_rebuild(
    engine: Engine, config: Config, changed: Callable[..., Config]
) -> None:
    rich = changed(segments_file=RICH)
    add_customers(engine, range(1, 401))
    add_orders(engine, long_history(400, 700))
    first, last = (NOW - 500 * DAY).date(), NOW.date()
    backfill(engine, rich, first=first, last=last, now=NOW)
    chance = random.Random(100)
    for as_of in chance.sample(days_of(first, last), 100):
        assert members_at(engine, rich, as_of) == rebuilt(engine, rich, as_of), as_of
    sound(engine)


class Killed(BaseException):
    pass


def test_a_killed_backfill_goes_on_where_it_stopped(engine: Engine, config: Config, tmp_path: Path) -> None:
    add_customers(engine, range(1, 51))
    add_orders(engine, long_history(50, 300))
    first, last = (NOW - 99 * DAY).date(), NOW.date()

    def die(_day: object, number: int, _of: int) -> None:
        if number == 70:
            raise Killed

    with pytest.raises(Killed):
        backfill(engine, config, first=first, last=last, now=NOW, scratch=tmp_path / "scratch", on_day=die)
    assert spans(engine) == [], "half a backfill is in no table"
    told: list[int] = []
    done = backfill(
        engine,
        config,
        first=first,
        last=last,
        now=NOW,
        scratch=tmp_path / "scratch",
        on_day=lambda d, n, of: told.append(n),
    )
    assert (done.resumed, told) == (61, list(range(62, 101)))
    resumed = spans(engine)
    again = backfill(engine, config, first=first, last=last, now=NOW, scratch=tmp_path / "scratch")
    assert (again.resumed, spans(engine)) == (0, resumed)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_change_of_data_makes_it_begin_anew(engine: Engine, config: Config, tmp_path: Path) -> None:
    add_customers(engine, range(1, 51))
    add_orders(engine, long_history(50, 300))
    first, last = (NOW - 99 * DAY).date(), NOW.date()

    def die(_day: object, number: int, _of: int) -> None:
        if number == 70:
            raise Killed

    with pytest.raises(Killed):
        backfill(engine, config, first=first, last=last, now=NOW, scratch=tmp_path / "scratch", on_day=die)
    add_orders(engine, [Order(1, NOW - 98 * DAY, 1)], first_key=1_000)
    assert backfill(engine, config, first=first, last=last, now=NOW, scratch=tmp_path / "scratch").resumed == 0


def test_a_range_that_cannot_be(engine: Engine, config: Config) -> None:
    with pytest.raises(UsageError, match="--to 2026-01-01 is before --from 2026-02-01"):
        backfill(engine, config, first=date(2026, 2, 1), last=date(2026, 1, 1), now=NOW)
    with pytest.raises(UsageError, match="2026-12-01: that is in the future"):
        backfill(engine, config, first=date(2026, 2, 1), last=date(2026, 12, 1), now=NOW)


def test_nobody_has_bought_yet(engine: Engine, config: Config) -> None:
    done = backfill(engine, config, first=date(2026, 2, 1), last=date(2026, 2, 3), now=NOW)
    assert (done.spans, done.last.customers, set(done.last.counts.values())) == (0, 0, {0})
    assert done.last.as_of == datetime(2026, 2, 3, tzinfo=UTC)
