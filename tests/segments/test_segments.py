"""Metrics, scores and segments against the obvious slow way, on random histories."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from lifecycle.segments.build import build
from lifecycle.segments.export import export
from lifecycle.settings import Config
from tests.segments.history import (
    NOW,
    PUBLISHED,
    Order,
    add_customers,
    add_orders,
    clear,
    expected,
    expected_members,
    members_at,
    stored_metrics,
)

on_one_database = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
a_few = settings(on_one_database, max_examples=6)
"""For properties of many builds each, which run for three recipes on both databases."""
TICK = timedelta(microseconds=1)


def instants() -> st.SearchStrategy[datetime]:
    """Around every edge of a window, to the microsecond, and after `as_of`."""
    edges = [NOW - timedelta(days=days) for days in (0, 1, 30, 60, 90, 120, 365, 400, 800)]
    return st.builds(
        lambda edge, nudge: edge + nudge,
        st.sampled_from(edges),
        st.sampled_from([-TICK, timedelta(0), TICK, timedelta(hours=30)]),
    )


@st.composite
def placed(draw: st.DrawFn) -> Order:
    status = draw(st.sampled_from(["paid"] * 5 + ["refunded", "returned", "open", "cancelled"]))
    total = draw(st.sampled_from([0, 1, 2_500, 2_500, 9_900, 50_000, 50_001]))
    at = draw(instants())
    refunded = total > 0 and (status == "refunded" or (status == "paid" and draw(st.booleans())))
    return Order(
        customer=draw(st.sampled_from([None, *range(1, 9)])),
        at=at,
        total=-total if status == "returned" else total,
        status=status,
        shop=draw(st.sampled_from(["atlas", "harbour"])),
        refund=(total if status == "refunded" else total // 2) if refunded else 0,
        refunded_at=at + draw(st.sampled_from([timedelta(0), timedelta(days=45)])) if refunded else None,
    )


def histories() -> st.SearchStrategy[list[Order]]:
    return st.lists(placed(), max_size=40)


@on_one_database
@given(history=histories(), back=st.sampled_from([timedelta(0), timedelta(days=30), timedelta(days=375)]))
@example(history=[], back=timedelta(0))
@example(history=[Order(1, NOW, 100)], back=timedelta(0))
@example(history=[Order(c, NOW - timedelta(days=c), 100) for c in range(1, 9)], back=timedelta(0))
@example(history=[Order(1, NOW + TICK, 100)], back=timedelta(0))
@example(history=[Order(1, NOW - TICK, 100, refund=50, refunded_at=NOW)], back=timedelta(0))
@example(history=[Order(1, NOW, 100, shop=shop) for shop in ("harbour", "atlas")], back=timedelta(0))
@example(history=[Order(1, NOW, 100), Order(1, NOW, -900, "returned")], back=timedelta(0))
def test_build_and_export_equal_the_slow_way(
    engine: Engine, config: Config, history: list[Order], back: timedelta
) -> None:
    clear(engine)
    add_customers(engine, range(1, 9))
    add_orders(engine, history)
    as_of = NOW - back
    people = expected(config, history, as_of)

    built = build(engine, config, as_of=as_of, now=NOW)
    not_stored = ("segments", "recency_days")
    assert stored_metrics(engine) == {
        c: {k: v for k, v in person.items() if k not in not_stored} for c, person in people.items()
    }
    assert members_at(engine, config, as_of) == expected_members(config, history, as_of)
    assert built.customers == len(people)
    assert built.counts == {s: len(m) for s, m in expected_members(config, history, as_of).items()}

    frame = export(engine, config, as_of=as_of)
    assert list(frame["customer_id"]) == sorted(people)
    for row in frame.to_dict("records"):
        person = people[row["customer_id"]]
        for column in PUBLISHED:
            assert row[column] == person[column], column
        assert row["segments"].split("|")[0] == person["rfm_segment"]
        assert set(row["segments"].split("|")) == person["segments"]


def test_scores_are_fifths_of_ranks(engine: Engine, config: Config) -> None:
    add_customers(engine, range(1, 11))
    add_orders(engine, [Order(c, NOW - timedelta(days=10 - c), c * 100) for c in range(1, 11)])
    frame = export(engine, config, as_of=NOW)
    assert list(frame["r"]) == list(frame["m"]) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert set(frame["f"]) == {1}, "who is equal scores equally"


@pytest.mark.parametrize(("share", "vips"), [(0.0, 0), (0.05, 1), (0.1, 1), (0.11, 2), (1.0, 10)])
def test_vip_is_the_top_share_of_recent_buyers(engine: Engine, changed, share: float, vips: int) -> None:
    rules = {"vip": {"rule": "vip", "top_share": share}}
    add_customers(engine, range(1, 13))
    long_ago = [Order(c, NOW - timedelta(days=365), 99_900) for c in (11, 12)]
    add_orders(engine, [Order(c, NOW - timedelta(days=1), c) for c in range(1, 11)] + long_ago)
    built = build(engine, changed(segments_file={"segments": rules}), as_of=NOW, now=NOW)
    assert built.counts["vip"] == vips
