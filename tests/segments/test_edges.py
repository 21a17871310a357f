"""Shops with nobody, with one customer, with everybody alike; and what counts as an order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, insert, update

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import identities, orders
from lifecycle.segments.build import build
from lifecycle.segments.definitions import define
from lifecycle.segments.export import export
from lifecycle.segments.prediction.bgnbd import BgNbd
from lifecycle.segments.prediction.columns import predictor
from lifecycle.segments.prediction.store import fit_and_store
from lifecycle.segments.snapshot import take_snapshot
from lifecycle.settings import Config
from tests.segments.history import NOW, Order, add_customers, add_orders, members_at, stored_metrics
from tests.segments.prediction import shop

DAY = timedelta(days=1)
Changed = Callable[..., Config]


@pytest.mark.parametrize("recipe", ["ten_cells", "eleven_cells", "first_match"])
def test_nobody(engine: Engine, config: Config, recipe: str) -> None:
    config = config.with_recipe(recipe)
    for as_of in (NOW - DAY, NOW):
        built = build(engine, config, as_of=as_of, now=NOW)
        assert (built.customers, set(built.counts.values())) == (0, {0})
    assert export(engine, config, as_of=NOW).empty
    assert fit_and_store(engine, config, as_of=NOW, now=NOW).fitted.problem is not None


@pytest.mark.parametrize(
    ("recipe", "scores"), [("ten_cells", (1, 1, 1)), ("eleven_cells", (5, 1, 1)), ("first_match", (1, 5, 5))]
)
def test_one_customer(engine: Engine, config: Config, recipe: str, scores: tuple[int, ...]) -> None:
    """Alone at every rank and every quantile: with shares nobody is worse, by rank the lowest bin of the longest
    quiet and the fewest orders, by quantiles at or above all of them."""
    config = config.with_recipe(recipe)
    add_customers(engine, [1])
    add_orders(engine, [Order(1, NOW - 5 * DAY, 900)])
    build(engine, config, as_of=NOW, now=NOW)
    row = stored_metrics(engine)[1]
    assert (row["r"], row["f"], row["m"]) == scores
    assert row["rfm_segment"] == config.recipe.cells[scores]


@pytest.mark.parametrize("recipe", ["ten_cells", "first_match"])
def test_everybody_alike_scores_alike(engine: Engine, config: Config, recipe: str) -> None:
    add_customers(engine, range(1, 21))
    add_orders(engine, [Order(c, NOW - 9 * DAY, 700) for c in range(1, 21)])
    config = config.with_recipe(recipe)
    built = build(engine, config, as_of=NOW, now=NOW)
    assert max(built.counts[cell] for cell in config.recipe.names) == 20
    assert built.counts["vip"] == 20, "nobody spends more than anybody else"


def test_everybody_alike_is_told_apart_by_number_where_the_recipe_says_so(engine: Engine, config: Config) -> None:
    add_customers(engine, range(1, 11))
    add_orders(engine, [Order(c, NOW - 9 * DAY, 700) for c in range(1, 11)])
    build(engine, config.with_recipe("eleven_cells"), as_of=NOW, now=NOW)
    rows = stored_metrics(engine)
    assert [rows[c]["f"] for c in range(1, 11)] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert [rows[c]["r"] for c in range(1, 11)] == [5, 5, 4, 4, 3, 3, 2, 2, 1, 1]


def test_a_future_order_counts_from_its_own_date_on(engine: Engine, config: Config) -> None:
    add_customers(engine, [1, 2])
    add_orders(engine, [Order(1, NOW - 100 * DAY, 100), Order(2, NOW + DAY, 100)])
    build(engine, config, as_of=NOW, now=NOW)
    assert set(stored_metrics(engine)) == {1}
    following = build(engine, config, as_of=NOW + 2 * DAY, now=NOW + 2 * DAY)
    assert (following.kind, set(stored_metrics(engine))) == ("incremental", {1, 2})
    assert members_at(engine, config, NOW + 2 * DAY)["new"] == {2}


HISTORY = [
    Order(1, NOW - 50 * DAY, 1_000),
    Order(1, NOW - 40 * DAY, 2_000, "open"),
    Order(1, NOW - 30 * DAY, 0),
    Order(1, NOW - 20 * DAY, -300, "returned"),
    Order(1, NOW - 10 * DAY, 5_000, refund=2_000, refunded_at=NOW - 5 * DAY),
    Order(2, NOW - 60 * DAY, 4_000, "refunded", refund=4_000, refunded_at=NOW - 2 * DAY),
    Order(2, NOW - 70 * DAY, 500, "cancelled"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("counting", "wanted"),
    [
        ({}, {1: (2, 3_700)}),
        ({"returns": "drop"}, {1: (2, 4_000)}),
        ({"refunds": "ignore"}, {1: (2, 5_700), 2: (1, 4_000)}),
        ({"statuses": ["paid", "open"]}, {1: (3, 5_700)}),
        ({"statuses": ["paid", "refunded"]}, {1: (2, 3_700), 2: (1, 0)}),
        ({"statuses": ["paid", "cancelled"]}, {1: (2, 3_700), 2: (1, 500)}),
        ({"totals": "not_negative"}, {1: (3, 3_700)}),
        ({"guests": "drop"}, {2: ()}),
        ({"currency": "GBP"}, {1: (1, 50)}),
    ],
    ids=str,
)  # fmt: skip
def test_what_counts_is_configuration(
    engine: Engine, changed: Changed, counting: dict[str, Any], wanted: dict[int, tuple[int, ...]]
) -> None:
    add_customers(engine, [1, 2])
    add_orders(engine, HISTORY)
    with writing(engine) as connection:
        known = {"shop": "atlas", "platform_customer_id": "7", "linked_by": "platform_id", "linked_at": NOW}
        connection.execute(insert(identities).values(**known, customer_id=2))
        if "currency" in counting:
            pounds = {"currency": "GBP", "total_minor": 50}
            connection.execute(update(orders).where(orders.c.order_key == 1).values(pounds))
    config = changed(segments_file={"orders": counting})
    build(engine, config, as_of=NOW, now=NOW)
    found = {who: (row["frequency"], row["monetary_minor"]) for who, row in stored_metrics(engine).items()}
    assert found == {who: values for who, values in wanted.items() if values}
    frame = export(engine, config, as_of=NOW)
    assert set(frame["currency"]) <= {counting.get("currency", "EUR")}
    assert dict(zip(frame["customer_id"], frame["monetary_minor"], strict=True)) == {
        who: monetary for who, (_, monetary) in found.items()
    }


def test_a_recipe_has_its_own_idea_of_an_order(engine: Engine, changed: Changed) -> None:
    cells = [{"name": "few", "f": [1, 1]}, {"name": "many", "f": [2, 2]}]
    recipe = {
        "orders": {"statuses": ["paid", "open"]},
        "scores": 2,
        "monetary": False,
        "frequency": {"of": "orders_30d", "thresholds": [2]},
        "map": cells,
    }
    config = changed(
        segments_file={"windows": [30], "recipe": "mine", "recipes": {"mine": recipe}, "segments": {}}
    )
    add_customers(engine, [1, 2])
    add_orders(engine, [Order(1, NOW - d * DAY, 100, "open") for d in (3, 5, 40)] + [Order(2, NOW - DAY, 100)])
    built = build(engine, config, as_of=NOW - DAY, now=NOW)
    assert (built.counts, stored_metrics(engine)[1]["m"]) == ({"few": 1, "many": 1}, None)
    assert build(engine, config, as_of=NOW, now=NOW).kind == "incremental"
    frame = export(engine, config, as_of=NOW)
    assert frame["m"].isna().all()


def test_landed_by_sees_what_could_be_known_then(engine: Engine, config: Config) -> None:
    add_customers(engine, [1])
    add_orders(engine, [Order(1, NOW - 50 * DAY, 1_000), Order(1, NOW - 40 * DAY, 2_000)])
    with writing(engine) as connection:
        for key, days in ((1, 50), (2, 3)):
            late = update(orders).where(orders.c.order_key == key).values(landed_at=NOW - days * DAY)
            connection.execute(late)
    assert export(engine, config, as_of=NOW - 10 * DAY).loc[0, "frequency"] == 2
    assert export(engine, config, as_of=NOW - 10 * DAY, landed_by=NOW - 10 * DAY).loc[0, "frequency"] == 1


def test_predictions_in_rules_are_the_same_in_a_build_and_in_a_look_back(engine: Engine, changed: Changed) -> None:
    where = {"where": "alive > 50% and expected_orders >= 0.5 and expected_spend > 1", "rule": "expression"}
    unlikely = {"where": "next_order_at is unknown", "rule": "expression"}
    config = changed(segments_file={"segments": {"promising_ones": where, "unlikely": unlikely}})
    shop.add_orders(engine, shop.simulated_orders(BgNbd(0.8, 6.0, 0.8, 2.5), 400, 60, NOW, seed=3))
    fitted = fit_and_store(engine, config, as_of=NOW - 10 * DAY, now=NOW)
    assert fitted.fitted.problem is None, fitted.fitted.problem
    for as_of in (NOW - 5 * DAY, NOW):
        built = build(engine, config, as_of=as_of, now=NOW)
        with reading(engine) as connection:
            definitions = define(config)
            found = take_snapshot(connection, definitions, as_of, predict=predictor(config))
        assert built.counts == found.counts(definitions)
        assert built.kind == "full", "predictions are other ones every day"
    assert 0 < built.counts["promising_ones"] < 400
