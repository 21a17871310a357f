"""What is said when there is too little to predict from, and what a hold-out shows when there is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import numpy as np
import pytest

from lifecycle.segments.prediction.calibration import calibrate, default_holdout_days
from lifecycle.segments.prediction.chart import calibration_svg
from lifecycle.segments.prediction.fit import fit
from lifecycle.segments.prediction.predict import COLUMNS, predictions
from lifecycle.segments.prediction.summary import Purchases
from tests.segments.prediction.shop import CDNOW, simulated_orders, summarise

AS_OF = datetime(2026, 6, 30, 9, tzinfo=UTC)


def purchases(frequency: list[int], recency: list[int], age: list[int], spend: list[int]) -> Purchases:
    columns = (range(1, len(frequency) + 1), frequency, recency, age, spend)
    return Purchases(*(np.array(column, dtype=np.int64) for column in columns))


def shop(size: int = 1_000, weeks: int = 60, seed: int = 1) -> Purchases:
    return summarise(simulated_orders(CDNOW, size, weeks, AS_OF, seed), AS_OF)


NOBODY = purchases([], [], [], [])
ONE = purchases([3], [20], [200], [900])
ALL_ONE_TIME = purchases([0] * 500, [0] * 500, [200] * 500, [0] * 500)
ALL_THE_SAME = purchases([3] * 500, [100] * 500, [200] * 500, [900] * 500)
TODAY = purchases([0, 1] * 250, [0] * 500, [0] * 500, [0, 900] * 250)
FEW_COME_BACK = purchases([0] * 400 + [1] * 12, [0] * 400 + [50] * 12, [200] * 412, [0] * 400 + [900] * 12)
YOUNG = purchases([0, 1] * 250, [0, 30] * 250, [60] * 500, [0, 900] * 250)


@pytest.mark.parametrize(
    ("history", "problem"),
    [
        (NOBODY, "0 customers have ordered; at least 100 are needed, so segments fall back to RFM"),
        (ONE, "1 customer has ordered; at least 100 are needed, so segments fall back to RFM"),
        (
            ALL_ONE_TIME,
            "0 customers have bought on two days or more; at least 30 are needed, so segments fall back to RFM",
        ),
        (
            FEW_COME_BACK,
            "12 customers have bought on two days or more; at least 30 are needed, so segments fall back to RFM",
        ),
        (YOUNG, "Orders go back 60 days; at least 90 are needed, so segments fall back to RFM"),
        (TODAY, "Orders go back 0 days; at least 90 are needed, so segments fall back to RFM"),
    ],
)
def test_below_the_floor_the_problem_names_it(history: Purchases, problem: str) -> None:
    fitted = fit(history, as_of=AS_OF, horizon_days=90)
    assert fitted.problem == problem
    assert fitted.bgnbd is None and fitted.gamma_gamma is None and fitted.parameters() == {}
    assert predictions(history, fitted, as_of=AS_OF, horizon_days=90).empty


def test_customers_who_are_all_alike_tell_no_parameters() -> None:
    fitted = fit(ALL_THE_SAME, as_of=AS_OF, horizon_days=90)
    assert fitted.problem is not None
    assert fitted.problem.startswith("The model of orders could not be fitted: ")
    assert fitted.problem.endswith(", so segments fall back to RFM")


def test_the_horizon_may_be_twice_the_history_and_no_more() -> None:
    history = shop(weeks=20)
    days = history.history_days
    assert fit(history, as_of=AS_OF, horizon_days=2 * days).problem is None
    problem = fit(history, as_of=AS_OF, horizon_days=2 * days + 1).problem
    assert problem == f"Orders go back {days} days; at least {days + 1} are needed, so segments fall back to RFM"


def test_orders_are_predicted_where_spend_cannot_be() -> None:
    """Everybody spends the same each day; then nobody has spent anything."""
    history = shop()
    for spend, sentence in (
        (history.frequency * 900, "The model of spend could not be fitted: "),
        (history.frequency * 0, "0 customers have spent something on a second day; at least 30 are needed"),
    ):
        fitted = fit(replace(history, spend_repeat_minor=spend), as_of=AS_OF, horizon_days=90)
        assert fitted.problem is None and fitted.spend_problem is not None
        assert fitted.spend_problem.startswith(sentence)
        assert fitted.spend_problem.endswith(", so expected spend is left out")
        assert fitted.parameters()["gamma_gamma"] == {"problem": fitted.spend_problem}
        frame = predictions(history, fitted, as_of=AS_OF, horizon_days=90)
        assert frame["expected_spend_minor"].isna().all() and not frame["expected_orders"].isna().any()


def test_customers_who_never_leave_have_a_prediction_or_a_problem() -> None:
    """Dropout is nothing or next to it: the summit lies at the edge."""
    rng = np.random.default_rng(2)
    age = rng.integers(200, 400, 2_000)
    frequency = rng.poisson(rng.gamma(2, 0.02, 2_000) * age).clip(max=age)
    recency = np.where(frequency > 0, age - rng.integers(0, 10, 2_000), 0)
    history = purchases(frequency.tolist(), recency.tolist(), age.tolist(), (900 * frequency).tolist())
    fitted = fit(history, as_of=AS_OF, horizon_days=90)
    frame = predictions(history, fitted, as_of=AS_OF, horizon_days=90)
    assert frame.empty if fitted.problem else np.isfinite(frame["expected_orders"]).all()


def test_predictions_have_one_row_for_everybody_and_no_gaps() -> None:
    history = shop()
    fitted = fit(history, as_of=AS_OF, horizon_days=90)
    frame = predictions(history, fitted, as_of=AS_OF, horizon_days=90)
    assert tuple(frame.columns) == COLUMNS
    assert frame["customer_id"].tolist() == history.customer_id.tolist()
    assert frame["alive"].between(0, 1).all()
    assert (frame["expected_orders"] >= 0).all() and (frame["expected_spend_minor"] >= 0).all()
    assert str(frame["expected_spend_minor"].dtype) == "Int64"
    assert str(frame["next_order_at"].dtype) == "datetime64[us, UTC]"
    expected = frame["next_order_at"].dropna()
    assert len(expected) and (expected > AS_OF).all() and (expected <= AS_OF + timedelta(days=730)).all()


def test_the_next_order_is_when_one_is_expected() -> None:
    history = shop()
    fitted = fit(history, as_of=AS_OF, horizon_days=90)
    frame = predictions(history, fitted, as_of=AS_OF, horizon_days=90)
    row = frame[frame["next_order_at"].notna()].iloc[0]
    days = (row["next_order_at"] - AS_OF) / timedelta(days=1)
    longer = predictions(history, fitted, as_of=AS_OF, horizon_days=round(days))
    until = longer.loc[longer["customer_id"] == row["customer_id"], "expected_orders"]
    assert until.item() == pytest.approx(1, abs=0.01)


def test_a_shop_that_follows_the_model_is_predicted_to_the_order() -> None:
    days = 120
    began_at = AS_OF - timedelta(days=days)
    history = simulated_orders(CDNOW, 20_000, 60, AS_OF, seed=3)
    found = calibrate(
        summarise(history, began_at), summarise(history, AS_OF), began_at=began_at, holdout_days=days
    )
    assert found.problem is None
    assert found.expected == pytest.approx(found.seen, rel=0.06)
    for row in found.rows[:4]:
        assert row["expected"] == pytest.approx(row["seen"], rel=0.15, abs=0.02)


def test_a_hold_out_after_too_little_history_says_so() -> None:
    history = simulated_orders(CDNOW, 1_000, 18, AS_OF, seed=4)
    whole = summarise(history, AS_OF)
    days = default_holdout_days(whole.history_days)
    began_at = AS_OF - timedelta(days=days)
    found = calibrate(summarise(history, began_at), whole, began_at=began_at, holdout_days=days)
    assert found.rows == [] and found.expected == 0 and found.seen == 0
    assert found.problem is not None and "Orders go back" in found.problem


def test_the_hold_out_is_a_third_of_the_history_and_at_most_half_a_year() -> None:
    assert [default_holdout_days(days) for days in (0, 90, 300, 2_000)] == [0, 30, 100, 180]


@pytest.mark.parametrize("highest", [0.0, 0.013, 0.9, 6.4, 1000.0])
def test_the_chart_is_whole_says_its_numbers_and_has_no_colour(highest: float) -> None:
    rows = [
        {"frequency": "0", "customers": 1411, "expected": highest / 3, "seen": highest / 2},
        {"frequency": "7+", "customers": 64, "expected": highest, "seen": 0.0},
    ]
    drawn = calibration_svg(rows)
    root = ElementTree.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    assert [child.tag for child in root[:2]] == [f"{space}title", f"{space}desc"]
    words = {element.text for element in root.iter(f"{space}text")}
    assert {"7+", "1,411", f"{highest:.2f}", "expected", "customers"} <= words
    assert "#" not in drawn and "nan" not in drawn
    for rectangle in root.iter(f"{space}rect"):
        assert float(rectangle.attrib["y"]) >= 0 and float(rectangle.attrib["height"]) >= 0
    assert calibration_svg([]) == ""
