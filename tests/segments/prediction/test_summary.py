"""What the models are told of a customer's orders, on each database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine

from lifecycle.db.engine import reading
from lifecycle.db.schema import orders
from lifecycle.segments.prediction.summary import compress, load_purchases, purchase_summary
from tests.segments.prediction.shop import add_orders, summarise

AS_OF = datetime(2026, 6, 30, 9, tzinfo=UTC)


def summary(engine: Engine, **options: Any) -> dict[int, tuple[int, ...]]:
    with reading(engine) as connection:
        found = load_purchases(connection, purchase_summary(orders, **{"as_of": AS_OF, **options}))
    columns = (found.frequency, found.recency_days, found.age_days, found.spend_repeat_minor)
    told = zip(*(column.tolist() for column in columns), strict=True)
    return dict(zip(found.customer_id.tolist(), told, strict=True))


def history(*rows: tuple[int | None, str, int], **columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["customer_id", "at", "total_minor"])
    return frame.assign(at=pd.to_datetime(frame["at"], utc=True, format="ISO8601"), **columns)


def test_days_are_counted_not_orders(engine: Engine) -> None:
    add_orders(
        engine,
        history(
            (1, "2026-06-01T00:00:00Z", 100),
            (1, "2026-06-01T23:59:59.999999Z", 200),
            (1, "2026-06-02T00:00:00Z", 400),
            (1, "2026-06-11T12:00:00Z", 800),
            (1, "2026-06-11T13:00:00Z", 1600),
            (2, "2026-06-20T12:00:00Z", 3200),
        ),
    )
    assert summary(engine) == {1: (2, 10, 29, 2800), 2: (0, 0, 10, 0)}


def test_an_order_at_the_very_instant_is_seen_and_a_later_one_is_not(engine: Engine) -> None:
    add_orders(
        engine,
        history(
            (1, "2026-06-29T23:00:00Z", 100),
            (1, "2026-06-30T09:00:00Z", 200),
            (2, "2026-06-30T09:00:00.000001Z", 400),
            (3, "2026-07-30T09:00:00Z", 400),
        ),
    )
    assert summary(engine) == {1: (1, 1, 1, 200)}


def test_only_paid_orders_of_known_customers_that_are_worth_something_count(engine: Engine) -> None:
    rows = history(
        (1, "2026-06-01", 100),
        (1, "2026-06-02", 0),
        (1, "2026-06-03", 200),
        (1, "2026-06-04", -200),
        (1, "2026-06-05", 400),
        (None, "2026-06-06", 400),
    )
    add_orders(engine, rows.assign(status=["paid", "paid", "cancelled", "returned", "open", "paid"]))
    assert summary(engine) == {1: (0, 0, 29, 0)}
    assert summary(engine, counted=orders.c.total_minor >= 0) == {1: (3, 4, 29, 600)}


def test_what_was_given_back_is_not_spent(engine: Engine) -> None:
    rows = history((1, "2026-06-01", 100), (1, "2026-06-05", 400), (1, "2026-06-09", 300))
    add_orders(engine, rows.assign(refunded_minor=[100, 150, 300]))
    assert summary(engine) == {1: (2, 8, 29, 250)}
    assert summary(engine, spend=orders.c.total_minor) == {1: (2, 8, 29, 700)}


def test_orders_before_since_are_as_if_they_had_not_been(engine: Engine) -> None:
    add_orders(
        engine,
        history((1, "2026-06-01", 100), (1, "2026-06-05", 200), (1, "2026-06-09", 400), (2, "2026-06-01", 1)),
    )
    since = datetime(2026, 6, 5, tzinfo=UTC)
    assert summary(engine, since=since) == {1: (1, 4, 25, 400)}


def test_an_empty_database_has_nobody(engine: Engine) -> None:
    assert summary(engine) == {}


@pytest.mark.parametrize("seed", [1, 2])
def test_random_histories_are_summed_up_as_by_hand(engine: Engine, seed: int) -> None:
    rng = np.random.default_rng(seed)
    seconds = rng.integers(0, 40 * 86_400, 600)
    rows = pd.DataFrame(
        {
            "customer_id": rng.integers(1, 120, 600),
            "at": pd.Timestamp(AS_OF) + pd.Timedelta(days=5) - pd.to_timedelta(seconds, unit="s"),
            "total_minor": rng.integers(1, 100_000, 600),
        }
    )
    add_orders(engine, rows)
    expected = summarise(rows, AS_OF)
    with reading(engine) as connection:
        found = load_purchases(connection, purchase_summary(orders, as_of=AS_OF))
    for name in ("customer_id", "frequency", "recency_days", "age_days", "spend_repeat_minor"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def test_the_zone_in_which_an_instant_is_given_does_not_matter(engine: Engine) -> None:
    add_orders(engine, history((1, "2026-06-01T23:30:00Z", 100), (1, "2026-06-29T23:30:00Z", 200)))
    tokyo = datetime(2026, 6, 30, 9, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert summary(engine, as_of=tokyo) == {1: (1, 28, 29, 200)}


def test_equal_histories_are_told_once() -> None:
    x, t = np.array([0, 2, 0, 2, 2]), np.array([0, 5, 0, 5, 6])
    (different_x, different_t), place, times = compress(x, t)
    assert sorted(zip(different_x, different_t, times, strict=True)) == [(0, 0, 2), (2, 5, 2), (2, 6, 1)]
    assert np.array_equal(different_x[place], x) and np.array_equal(different_t[place], t)
    empty = np.empty(0, dtype=np.int64)
    assert compress(empty, empty)[1].size == 0
