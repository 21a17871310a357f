"""The published results for the CDNOW cohort, from orders in a database.

Fader, Hardie and Lee, Marketing Science 24 (2005), table 2 and the worked example; for gamma-gamma Fader and
Hardie (2013); single customers and the correlation as in the documentation of `lifetimes`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine

from lifecycle.db.engine import reading
from lifecycle.db.schema import orders
from lifecycle.segments.prediction.bgnbd import BgNbd
from lifecycle.segments.prediction.calibration import calibrate
from lifecycle.segments.prediction.fit import fit
from lifecycle.segments.prediction.predict import predictions
from lifecycle.segments.prediction.summary import Purchases, load_purchases, purchase_summary
from tests.segments.prediction.shop import (
    CDNOW,
    CDNOW_END,
    CDNOW_SPLIT,
    add_orders,
    cdnow_master,
    cdnow_sample,
    summarise,
)

HOLDOUT_DAYS = 273


@pytest.fixture(scope="module")
def sample(shared: Path) -> Purchases:
    return summarise(cdnow_sample(shared), CDNOW_SPLIT)


def test_the_summary_of_the_database_is_the_published_one(engine: Engine, shared: Path, sample: Purchases) -> None:
    add_orders(engine, cdnow_sample(shared))
    with reading(engine) as connection:
        # The cohort counts eight purchases of nothing, which are orders of a zero total.
        summary = purchase_summary(orders, as_of=CDNOW_SPLIT, counted=orders.c.status == "paid")
        found = load_purchases(connection, summary)
    for name in ("customer_id", "frequency", "recency_days", "age_days", "spend_repeat_minor"):
        assert np.array_equal(getattr(found, name), getattr(sample, name)), name
    assert found.customers == 2357
    assert np.count_nonzero(found.frequency == 0) == 1411
    assert found.repeat_customers == 946
    first = found.customer_id == 1
    assert found.frequency[first] == 2
    assert found.recency_days[first] / 7 == pytest.approx(30.43, abs=0.005)
    assert found.age_days[first] / 7 == pytest.approx(38.86, abs=0.005)
    assert found.spend_repeat_minor[first] / 2 == pytest.approx(2235, abs=0.5)


def test_bgnbd_has_the_published_parameters(sample: Purchases) -> None:
    fitted = fit(sample, as_of=CDNOW_SPLIT, horizon_days=HOLDOUT_DAYS)
    assert fitted.orders is not None
    values = fitted.orders.values
    assert values["r"] == pytest.approx(0.243, abs=0.0005)
    assert values["alpha"] == pytest.approx(4.414, abs=0.0005)
    assert values["a"] == pytest.approx(0.793, abs=0.0005)
    assert values["b"] == pytest.approx(2.426, abs=0.0005)
    assert fitted.orders.log_likelihood == pytest.approx(-9582.4, abs=0.05)


def test_gamma_gamma_has_the_published_parameters(sample: Purchases) -> None:
    fitted = fit(sample, as_of=CDNOW_SPLIT, horizon_days=HOLDOUT_DAYS)
    assert fitted.spend is not None
    assert fitted.spenders == 946
    assert fitted.spend.values["p"] == pytest.approx(6.25, abs=0.005)
    assert fitted.spend.values["q"] == pytest.approx(3.74, abs=0.005)
    assert fitted.spend.values["v"] / 100 == pytest.approx(15.44, abs=0.01)
    assert fitted.correlation == pytest.approx(0.1139, abs=0.0001)


def test_single_customers_are_as_published(sample: Purchases) -> None:
    fitted = fit(sample, as_of=CDNOW_SPLIT, horizon_days=HOLDOUT_DAYS)
    assert fitted.gamma_gamma is not None
    assert CDNOW.expected(2, 30.43, 38.86, 39)[0] == pytest.approx(1.226, abs=0.0005)
    assert CDNOW.expected(0, 0, 38.86, 39)[0] < CDNOW.expected(2, 30.43, 38.86, 39)[0]
    spend = fitted.gamma_gamma.mean_spend(sample.frequency[:10], sample.spend_repeat_minor[:10]) / 100
    published = [24.658619, 18.911489, 35.170981, 35.170981, 35.170981, 71.462843, 18.911489, 35.170981, 27.282408]
    assert spend[:9] == pytest.approx(published, abs=0.01)


def test_the_hold_out_is_expected_a_little_low_as_in_the_paper(shared: Path, sample: Purchases) -> None:
    """The paper's figure 3: expected means follow those seen up to 7+, mostly from below."""
    whole = summarise(cdnow_sample(shared), CDNOW_END)
    found = calibrate(sample, whole, began_at=CDNOW_SPLIT, holdout_days=HOLDOUT_DAYS)
    assert [row["frequency"] for row in found.rows] == ["0", "1", "2", "3", "4", "5", "6", "7+"]
    assert sum(row["customers"] for row in found.rows) == 2357
    assert found.seen == (whole.frequency - sample.frequency).sum()
    assert 0.85 < found.expected / found.seen < 1
    for row in found.rows:
        assert 0.7 < row["expected"] / row["seen"] < 1.1


def test_the_whole_cohort_fits_too(shared: Path) -> None:
    master = summarise(cdnow_master(shared), CDNOW_SPLIT)
    fitted = fit(master, as_of=CDNOW_SPLIT, horizon_days=HOLDOUT_DAYS)
    assert fitted.problem is None and fitted.spend_problem is None
    assert fitted.customers == 23_570
    assert fitted.orders is not None
    for name, value in fitted.orders.values.items():
        in_sample = getattr(CDNOW, name)
        assert value == pytest.approx(in_sample, rel=0.15), name
    predicted = predictions(master, fitted, as_of=CDNOW_SPLIT, horizon_days=90)
    assert len(predicted) == 23_570
    assert not predicted.drop(columns="next_order_at").isna().any().any()


def test_the_penalty_draws_parameters_towards_one(sample: Purchases) -> None:
    plain = fit(sample, as_of=CDNOW_SPLIT, horizon_days=90)
    drawn = fit(sample, as_of=CDNOW_SPLIT, horizon_days=90, penalty=1.0)
    assert isinstance(plain.bgnbd, BgNbd) and isinstance(drawn.bgnbd, BgNbd)
    for name in ("r", "alpha", "a", "b"):
        assert abs(np.log(getattr(drawn.bgnbd, name))) < abs(np.log(getattr(plain.bgnbd, name)))
