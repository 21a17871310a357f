"""Predictions in the database: written, replaced, emptied, and found again as of an instant."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine, delete, func, select

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import customer_predictions, orders, prediction_runs
from lifecycle.segments.prediction.predict import predict
from lifecycle.segments.prediction.store import fit_and_store, load_fitted, replace_predictions
from lifecycle.settings import Config
from tests.segments.prediction.shop import CDNOW, add_orders, simulated_orders

AS_OF = datetime(2026, 6, 30, 9, tzinfo=UTC)
EARLIER = AS_OF - timedelta(days=60)
NOW = datetime(2026, 7, 1, 4, 30, tzinfo=UTC)


@pytest.fixture
def filled(engine: Engine) -> Engine:
    add_orders(engine, simulated_orders(CDNOW, 600, 70, AS_OF, seed=1))
    return engine


def stored(engine: Engine) -> pd.DataFrame:
    with reading(engine) as connection:
        query = select(customer_predictions).order_by(customer_predictions.c.customer_id)
        return pd.DataFrame(connection.execute(query).mappings().all(), columns=customer_predictions.c.keys())


def test_everybody_with_an_order_has_a_row_of_what_predict_says(filled: Engine, config: Config) -> None:
    run = fit_and_store(filled, config, as_of=AS_OF, now=NOW, run_id="daily-1")
    with reading(filled) as connection:
        buyers = connection.execute(select(func.count(orders.c.customer_id.distinct()))).scalar()
        told = predict(connection, run.fitted, as_of=AS_OF, horizon_days=90)
    found = stored(filled)
    assert run.predicted == len(found) == buyers == 600
    assert set(found["prediction_run_id"]) == {run.fitted.prediction_run_id}
    assert np.array_equal(found["alive"], told["alive"])
    assert np.array_equal(found["expected_orders"], told["expected_orders"])
    assert found["expected_spend_minor"].tolist() == told["expected_spend_minor"].tolist()
    assert [None if pd.isna(at) else at.to_pydatetime() for at in told["next_order_at"]] == [
        None if pd.isna(at) else at for at in found["next_order_at"].astype(object)
    ]


def test_a_run_tells_how_it_was_fitted(filled: Engine, config: Config) -> None:
    run = fit_and_store(filled, config, as_of=AS_OF, now=NOW, run_id="daily-1")
    with reading(filled) as connection:
        row = connection.execute(select(prediction_runs)).one()
    assert (row.as_of, row.fitted_at, row.horizon_days, row.run_id) == (AS_OF, NOW, 90, "daily-1")
    assert (row.customers, row.problem) == (600, None)
    assert row.repeat_customers == run.fitted.repeat_customers > 30
    assert set(row.parameters) == {"bg_nbd", "gamma_gamma"}
    for model, names in (("bg_nbd", {"r", "alpha", "a", "b"}), ("gamma_gamma", {"p", "q", "v"})):
        told = row.parameters[model]
        assert set(told["values"]) == set(told["standard_errors"]) == names
        assert told["log_likelihood"] < 0 and told["customers"] > 30
    assert row.calibration == run.calibration.rows != []
    json.dumps(row.calibration)
    assert run.sentence().startswith("600 customers predicted for 90 days as of 2026-06-30 09:00 UTC; of ")
    assert f"days with an order seen in the last {run.calibration.holdout_days} days" in run.sentence()


def test_a_second_run_takes_the_place_of_the_first(filled: Engine, config: Config) -> None:
    first = fit_and_store(filled, config, as_of=AS_OF, now=NOW)
    second = fit_and_store(filled, config, as_of=EARLIER, now=NOW, horizon_days=30)
    found = stored(filled)
    ids = [run.fitted.prediction_run_id for run in (first, second)]
    assert set(found["prediction_run_id"]) == {ids[1]} != {ids[0]}
    assert len(found) == second.predicted < first.predicted
    with reading(filled) as connection:
        assert connection.execute(select(func.count()).select_from(prediction_runs)).scalar() == 2


def test_the_fit_is_found_again_as_of_any_instant(filled: Engine, config: Config) -> None:
    later = fit_and_store(filled, config, as_of=AS_OF, now=NOW)
    earlier = fit_and_store(filled, config, as_of=EARLIER, now=NOW)
    with reading(filled) as connection:
        assert load_fitted(connection, EARLIER - timedelta(microseconds=1)) is None
        assert load_fitted(connection, EARLIER) == earlier.fitted
        assert load_fitted(connection, AS_OF - timedelta(seconds=1)) == earlier.fitted
        assert load_fitted(connection, AS_OF + timedelta(days=400)) == later.fitted
    again = fit_and_store(filled, config, as_of=AS_OF, now=NOW, horizon_days=30)
    with reading(filled) as connection:
        assert load_fitted(connection, AS_OF) == again.fitted


def test_below_the_floor_nobody_has_predictions_any_more(filled: Engine, config: Config) -> None:
    fit_and_store(filled, config, as_of=AS_OF, now=NOW)
    with writing(filled) as connection:
        connection.execute(delete(orders).where(orders.c.customer_id > 90))
    run = fit_and_store(filled, config, as_of=AS_OF, now=NOW)
    problem = "90 customers have ordered; at least 100 are needed, so segments fall back to RFM"
    assert run.fitted.problem == problem
    assert run.sentence() == f"No predictions as of 2026-06-30 09:00 UTC: {problem}"
    assert stored(filled).empty and run.predicted == 0
    with reading(filled) as connection:
        found = load_fitted(connection, AS_OF)
        row = connection.execute(select(prediction_runs).where(prediction_runs.c.problem == problem)).one()
        assert predict(connection, run.fitted, as_of=AS_OF, horizon_days=90).empty
    assert found == run.fitted
    assert row.parameters == {} and row.calibration == []


def test_an_empty_database_and_one_whose_orders_all_lie_ahead_say_so(engine: Engine, config: Config) -> None:
    problem = "0 customers have ordered; at least 100 are needed, so segments fall back to RFM"
    assert fit_and_store(engine, config, as_of=AS_OF, now=NOW).fitted.problem == problem
    add_orders(engine, simulated_orders(CDNOW, 200, 70, AS_OF + timedelta(days=900), seed=2))
    run = fit_and_store(engine, config, as_of=AS_OF, now=NOW)
    assert run.fitted.problem == problem
    assert stored(engine).empty


def test_spend_that_cannot_be_told_is_null(engine: Engine, config: Config) -> None:
    add_orders(engine, simulated_orders(CDNOW, 600, 70, AS_OF, seed=1).assign(total_minor=1_000))
    run = fit_and_store(engine, config, as_of=AS_OF, now=NOW)
    found = stored(engine)
    assert len(found) == 600 and found["expected_spend_minor"].isna().all()
    assert run.sentence().endswith(", so expected spend is left out")
    with reading(engine) as connection:
        assert load_fitted(connection, AS_OF) == run.fitted


def test_the_configuration_says_which_orders_count(
    engine: Engine, changed: Callable[..., Config], config: Config
) -> None:
    history = simulated_orders(CDNOW, 600, 70, AS_OF, seed=1)
    odd = history["customer_id"] % 2 == 1
    add_orders(engine, history.assign(status=np.where(odd, "open", "paid")))
    assert fit_and_store(engine, config, as_of=AS_OF, now=NOW).predicted == 300
    both = changed(segments_file={"orders": {"statuses": ["paid", "open"]}})
    assert fit_and_store(engine, both, as_of=AS_OF, now=NOW).predicted == 600


def test_predictions_are_brought_to_another_instant_and_taken_away(filled: Engine, config: Config) -> None:
    run = fit_and_store(filled, config, as_of=EARLIER, now=NOW)
    with writing(filled) as connection:
        fitted = load_fitted(connection, AS_OF)
        assert fitted == run.fitted
        replace_predictions(connection, fitted, predict(connection, run.fitted, as_of=AS_OF, horizon_days=90))
    assert len(stored(filled)) == 600
    with writing(filled) as connection:
        replace_predictions(connection, None, pd.DataFrame())
    assert stored(filled).empty
