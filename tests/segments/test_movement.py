"""Who moved, and which metric crossed what."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from lifecycle.errors import TernError, UsageError
from lifecycle.segments.build import build
from lifecycle.segments.movement import COLUMNS, moves, reasons
from lifecycle.settings import Config
from tests.segments.happenings import PEOPLE, RICH, Happening, happenings
from tests.segments.history import NOW, Order, add_customers, add_orders, clear, members_at
from tests.segments.test_segments import a_few

DAY = timedelta(days=1)


@pytest.fixture
def quiet_shop(changed: Callable[..., Config]) -> Config:
    segments = {
        "dormant": {"rule": "dormant", "days": 90},
        "regulars": {"rule": "expression", "where": "orders >= 3 and spend > 50 and not in dormant"},
        "best": {"rule": "vip", "top_share": 0.3},
    }
    return changed(segments_file={"segments": segments})


def test_each_crossing_is_told_with_its_values(engine: Engine, quiet_shop: Config) -> None:
    add_customers(engine, [1, 2, 3])
    add_orders(
        engine,
        [
            Order(1, NOW - 91 * DAY, 2_000),
            Order(2, NOW - 60 * DAY, 4_000),
            Order(2, NOW - 50 * DAY, 4_000),
            Order(3, NOW - 10 * DAY, 9_000),
        ],
    )
    build(engine, quiet_shop, as_of=NOW - 2 * DAY, now=NOW)
    add_orders(engine, [Order(2, NOW - DAY, 5_000)], first_key=10)
    build(engine, quiet_shop, as_of=NOW, now=NOW)

    found = moves(engine, quiet_shop, as_of=NOW, segment="dormant")
    assert list(found.columns) == list(COLUMNS)
    assert [tuple(row) for row in found.itertuples(index=False)] == [
        (1, "dormant", "entered", "no longer: last order at most 90 days ago", "89", "91")
    ]
    entered = moves(engine, quiet_shop, as_of=NOW, segment="regulars")
    assert [tuple(row) for row in entered.itertuples(index=False)] == [
        (2, "regulars", "entered", "orders >= 3", "2", "3")
    ]
    best = moves(engine, quiet_shop, as_of=NOW, segment="best")
    assert {tuple(row) for row in best.itertuples(index=False)} == {
        (2, "best", "entered", "spend_12m in the top share of best", "80.00", "130.00"),
        (3, "best", "left", "no longer: spend_12m in the top share of best", "90.00", "90.00"),
    }
    everything = reasons(moves(engine, quiet_shop, as_of=NOW))
    assert {"segment": "dormant", "moved": "entered", "why": "no longer: last order at most 90 days ago",
            "customers": 1} in everything  # fmt: skip


def test_a_score_that_changed_because_others_moved_says_so(engine: Engine, config: Config) -> None:
    add_customers(engine, range(1, 11))
    twice = [Order(c, NOW - (20 + c) * DAY, 100) for c in range(1, 6)]
    add_orders(engine, [*twice, *twice, *(Order(c, NOW - (20 + c) * DAY, 100) for c in range(6, 11))])
    build(engine, config, as_of=NOW - 2 * DAY, now=NOW)
    add_orders(engine, [Order(c, NOW - DAY, 100) for c in range(6, 11) for _ in range(2)], first_key=100)
    build(engine, config, as_of=NOW, now=NOW)
    told = moves(engine, config, as_of=NOW)
    assert "f 1 → 3 by orders" in set(told[told["customer_id"] == 6]["why"])
    left_behind = told[told["customer_id"] == 1].set_index("why")
    row = left_behind.loc["f 3 → 1 by orders, because others moved the cut point"]
    assert set(row["from_value"]) == set(row["to_value"]) == {"2"}


@a_few
@given(first=st.lists(happenings(), max_size=10), then=st.lists(happenings(), max_size=5))
def test_everybody_who_moved_is_told_and_nobody_else(
    engine: Engine, changed: Callable[..., Config], first: list[Happening], then: list[Happening]
) -> None:
    rich = changed(segments_file=RICH)
    clear(engine)
    add_customers(engine, PEOPLE)
    for happen in first:
        happen(engine)
    build(engine, rich, as_of=NOW - 30 * DAY, now=NOW)
    for happen in then:
        happen(engine)
    build(engine, rich, as_of=NOW, now=NOW)
    before, after = members_at(engine, rich, NOW - 30 * DAY), members_at(engine, rich, NOW)
    found = moves(engine, rich, as_of=NOW)
    for way, wanted in (
        ("entered", {(s, who) for s in after for who in after[s] - before[s]}),
        ("left", {(s, who) for s in before for who in before[s] - after[s]}),
    ):
        told = found[found["moved"] == way]
        assert set(zip(told["segment"], told["customer_id"], strict=True)) == wanted
    assert (found["why"] != "").all()


def test_without_two_builds_there_is_no_movement(engine: Engine, config: Config) -> None:
    with pytest.raises(TernError, match=r"no segments were built until .*; run: tern segment"):
        moves(engine, config, as_of=NOW)
    build(engine, config, as_of=NOW, now=NOW)
    with pytest.raises(TernError, match="no segments were built until"):
        moves(engine, config, as_of=NOW)
    with pytest.raises(UsageError, match='segment "dorment" is not defined; did you mean "dormant"'):
        moves(engine, config, as_of=NOW, segment="dorment")
