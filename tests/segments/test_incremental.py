"""What changed since the build before is enough: an incremental build leaves the rows of a full one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select, update

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import changed_customers, orders
from lifecycle.segments.build import build
from lifecycle.settings import Config
from tests.segments.happenings import PEOPLE, RICH, Happening, happenings, stored
from tests.segments.history import NOW, Order, add_customers, add_orders, clear
from tests.segments.test_segments import a_few

DAY = timedelta(days=1)


def dump(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    with reading(engine) as connection:
        return stored(connection)


@pytest.fixture(params=["ten_cells", "eleven_cells", "first_match"])
def rich(request: pytest.FixtureRequest, changed: Callable[..., Config]) -> Config:
    return changed(segments_file={**RICH, "recipe": request.param})


@a_few
@given(
    steps=st.lists(
        st.tuples(st.lists(happenings(), max_size=6), st.sampled_from([timedelta(hours=5), DAY, 40 * DAY])),
        min_size=2,
        max_size=5,
    )
)
def test_incremental_equals_full_row_by_row(
    engine: Engine, rich: Config, steps: list[tuple[list[Happening], timedelta]]
) -> None:
    """Late orders, corrections, refunds, merges of customers, tags, profiles, messages and what became of them."""
    clear(engine)
    add_customers(engine, PEOPLE)
    as_of = NOW - 200 * DAY
    for number, (happened, later) in enumerate(steps):
        as_of += later
        for happen in happened:
            happen(engine)
        built = build(engine, rich, as_of=as_of, now=NOW + 400 * DAY)
        assert built.kind == ("incremental" if number else "full")
        incremental = dump(engine)
        full = build(engine, rich, as_of=as_of, now=NOW + 400 * DAY, full=True)
        assert dump(engine) == incremental
        assert (full.counts, full.customers, full.cuts) == (built.counts, built.customers, built.cuts)
        assert (full.entered, full.left) == (built.entered, built.left)


def test_it_looks_only_at_whom_something_happened_to(engine: Engine, config: Config) -> None:
    add_customers(engine, range(1, 1001))
    add_orders(engine, [Order(c, NOW - (20 + c % 40) * DAY, 100 + c) for c in range(1, 1001)])
    assert build(engine, config, as_of=NOW - 10 * DAY, now=NOW).touched == 1000
    add_orders(engine, [Order(7, NOW - 9 * DAY, 500)], first_key=1001)
    with writing(engine) as connection:
        connection.execute(update(orders).where(orders.c.customer_id == 9).values(status="cancelled"))
    built = build(engine, config, as_of=NOW - 10 * DAY + timedelta(minutes=1), now=NOW)
    assert built.kind == "incremental"
    assert 2 <= built.touched < 100, "two changes, and who is at a cut point that moved"
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(changed_customers)).scalar_one() == 0


def test_other_definitions_are_built_in_full(
    engine: Engine, config: Config, changed: Callable[..., Config]
) -> None:
    add_customers(engine, [1])
    add_orders(engine, [Order(1, NOW - 5 * DAY, 100)])
    build(engine, config, as_of=NOW - 2 * DAY, now=NOW)
    other = changed(segments_file={"segments": {"fresh": {"rule": "active", "days": 9}}})
    built = build(engine, other, as_of=NOW - DAY, now=NOW)
    assert (built.kind, built.counts["fresh"], built.left["new"]) == ("full", 1, 1)
    assert build(engine, other, as_of=NOW, now=NOW).kind == "incremental"
