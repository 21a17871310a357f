"""Membership as spans: who was in which segment at any instant that was built."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select, update

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import orders, segment_runs
from lifecycle.errors import TernError, UsageError
from lifecycle.segments.build import build
from lifecycle.settings import Config
from tests.segments.history import (
    NOW,
    Order,
    add_customers,
    add_orders,
    clear,
    expected_members,
    members_at,
    spans,
)
from tests.segments.test_segments import histories, on_one_database

DAY = timedelta(days=1)


@on_one_database
@given(steps=st.lists(st.tuples(histories(), st.sampled_from([0, 1, 40])), min_size=1, max_size=5))
def test_members_at_each_build_are_those_of_the_data_then(
    engine: Engine, config: Config, steps: list[tuple[list[Order], int]]
) -> None:
    """More orders come before each build, late ones among them; 0 days later builds the same instant again."""
    clear(engine)
    add_customers(engine, range(1, 9))
    history: list[Order] = []
    wanted = {}
    as_of = NOW - 400 * DAY
    for number, (more, days) in enumerate(steps):
        add_orders(engine, more, first_key=len(history) + 1)
        history += more
        as_of += days * DAY
        before = wanted.get(max((t for t in wanted if t < as_of), default=None))
        built = build(engine, config, as_of=as_of, now=NOW + number * DAY)
        wanted[as_of] = expected_members(config, history, as_of)
        for segment, people in wanted[as_of].items():
            earlier = before[segment] if before else set()
            assert built.entered[segment] == len(people - earlier)
            assert built.left[segment] == len(earlier - people)

    assert {t: members_at(engine, config, t) for t in wanted} == wanted
    for _, group in itertools.groupby(spans(engine), key=lambda span: span[:2]):
        ends = [instant for _, _, start, end in group for instant in (start, end)]
        assert None not in ends[:-1], "an open span is the last"
        assert sorted(set(filter(None, ends))) == list(filter(None, ends)), "spans are not empty and do not touch"
    with reading(engine) as connection:
        assert connection.execute(select(segment_runs.c.as_of).order_by("as_of")).scalars().all() == sorted(wanted)


def test_building_again_changes_nothing(engine: Engine, config: Config) -> None:
    add_customers(engine, [1, 2])
    add_orders(engine, [Order(1, NOW - 100 * DAY, 100), Order(2, NOW - DAY, 100)])
    first = build(engine, config, as_of=NOW, now=NOW)
    before = spans(engine)
    assert build(engine, config, as_of=NOW, now=NOW + DAY, run_id=None) == first
    assert spans(engine) == before
    with reading(engine) as connection:
        [run] = connection.execute(select(segment_runs)).all()
    assert (run.as_of, run.built_at, run.customers, run.counts) == (NOW, NOW + DAY, 2, first.counts)


def test_building_again_corrects_what_was_wrong(engine: Engine, config: Config) -> None:
    """An order that turns out to be cancelled: who left because of it never left, who entered never entered."""
    add_customers(engine, [1])
    add_orders(engine, [Order(1, NOW - 100 * DAY, 100)])
    build(engine, config, as_of=NOW - DAY, now=NOW)
    before = spans(engine)
    add_orders(engine, [Order(1, NOW, 100)], first_key=2)
    assert build(engine, config, as_of=NOW, now=NOW).left["dormant"] == 1
    with writing(engine) as connection:
        connection.execute(update(orders).where(orders.c.order_key == 2).values(status="cancelled"))
    corrected = build(engine, config, as_of=NOW, now=NOW)
    assert not any(corrected.entered.values()) and not any(corrected.left.values())
    assert spans(engine) == before


def test_an_earlier_instant_is_refused(engine: Engine, config: Config) -> None:
    build(engine, config, as_of=NOW, now=NOW)
    with pytest.raises(
        TernError, match=r"built until 2026-11-22 09:00:00 UTC.*segments export --as-of 2026-11-21"
    ):
        build(engine, config, as_of=NOW - DAY, now=NOW)


def test_the_future_is_refused(engine: Engine, config: Config) -> None:
    with pytest.raises(UsageError, match="2027-11-22 09:00 UTC: that is in the future"):
        build(engine, config, as_of=NOW + 365 * DAY, now=NOW)


def test_members_of_a_segment_that_is_no_longer_defined_leave(
    engine: Engine, config: Config, changed: Callable[..., Config]
) -> None:
    add_customers(engine, [1])
    add_orders(engine, [Order(1, NOW - DAY, 100)])
    build(engine, config, as_of=NOW, now=NOW)
    later = build(engine, changed(segments_file={"segments": {}}), as_of=NOW + DAY, now=NOW + DAY)
    assert later.left["new"] == 1
    assert members_at(engine, config, NOW + DAY)["new"] == set()
    assert members_at(engine, config, NOW)["new"] == {1}
