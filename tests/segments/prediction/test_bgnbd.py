"""The BG/NBD model against the paper's formulas, against its own story, and as it must be."""

from __future__ import annotations

from math import gamma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import beta, hyp2f1

from lifecycle.segments.prediction.bgnbd import BgNbd, fit_bgnbd, log_likelihood
from lifecycle.segments.prediction.likelihood import Undetermined
from lifecycle.segments.prediction.quadrature import beta_nodes
from tests.segments.prediction.shop import CDNOW, simulate

ANY_MODEL = st.builds(
    BgNbd,
    r=st.floats(0.02, 20),
    alpha=st.floats(0.2, 400),
    a=st.floats(0.02, 50),
    b=st.floats(0.02, 100),
)
ANY_AGE = st.integers(0, 400)
LONG = settings(deadline=None)


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, float, float]:
    """x, t_x, T in weeks; at most one order a day."""
    age_days = 7 * draw(ANY_AGE)
    recency_days = draw(st.integers(0, age_days))
    frequency = draw(st.integers(1, recency_days)) if recency_days else 0
    return frequency, recency_days / 7, age_days / 7


def naive_likelihood(model: BgNbd, x: int, t_x: float, T: float) -> float:
    """Equation 6 as it is printed."""
    r, alpha, a, b = model.r, model.alpha, model.a, model.b
    likelihood = beta(a, b + x) / beta(a, b) * gamma(r + x) * alpha**r / (gamma(r) * (alpha + T) ** (r + x))
    if x:
        gone = beta(a + 1, b + x - 1) / beta(a, b) * gamma(r + x) * alpha**r
        likelihood += gone / (gamma(r) * (alpha + t_x) ** (r + x))
    return likelihood


def naive_expected(model: BgNbd, x: int, t_x: float, T: float, t: float) -> float:
    """Equation 10 as it is printed."""
    r, alpha, a, b = model.r, model.alpha, model.a, model.b
    inner = hyp2f1(r + x, b + x, a + b + x - 1, t / (alpha + T + t))
    top = (a + b + x - 1) / (a - 1) * (1 - ((alpha + T) / (alpha + T + t)) ** (r + x) * inner)
    gone = a / (b + x - 1) * ((alpha + T) / (alpha + t_x)) ** (r + x) if x else 0.0
    return top / (1 + gone)


HISTORIES = [(0, 0.0, 38.86), (2, 30.43, 38.86), (1, 1.71, 38.86), (7, 29.0, 30.0), (12, 10.0, 35.0)]


def test_the_likelihood_is_the_product_of_the_printed_formula() -> None:
    times = np.array([5, 1, 2, 1, 3])
    x, t_x, T = (np.array(column, dtype=float) for column in zip(*HISTORIES, strict=True))
    found, _ = log_likelihood(x, t_x, T, times.astype(float))(np.array([0.5, 6.0, 0.8, 2.5]))
    each = [np.log(naive_likelihood(BgNbd(0.5, 6.0, 0.8, 2.5), *history)) for history in HISTORIES]
    assert found == pytest.approx(float(times @ np.array(each)), rel=1e-12)


@LONG
@given(ANY_MODEL, st.lists(histories(), min_size=1, max_size=5))
def test_the_derivatives_are_those_of_the_likelihood(
    model: BgNbd, several: list[tuple[int, float, float]]
) -> None:
    x, t_x, T = (np.array(column, dtype=float) for column in zip(*several, strict=True))
    at = log_likelihood(x, t_x, T, np.ones_like(x))
    parameters = np.array([model.r, model.alpha, model.a, model.b])
    value, slopes = at(parameters)
    assert np.isfinite(value) and np.isfinite(slopes).all()
    for number, size in enumerate(parameters):
        step = np.zeros(4)
        step[number] = 1e-5 * size
        rise = (at(parameters + step)[0] - at(parameters - step)[0]) / 2e-5
        assert rise == pytest.approx(slopes[number] * size, rel=1e-4, abs=1e-4 + 1e-9 * abs(value))


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("model", [CDNOW, BgNbd(1.5, 12.0, 0.3, 2.0), BgNbd(0.8, 9.0, 2.5, 6.0)])
def test_expected_orders_are_those_of_the_printed_formula(model: BgNbd, history: tuple[int, float, float]) -> None:
    for t in (1.0, 13.0, 39.0, 104.0):
        assert model.expected(*history, t)[0] == pytest.approx(naive_expected(model, *history, t), rel=1e-9)


def test_expected_orders_pass_through_a_of_one() -> None:
    """Where the printed formula divides nothing by nothing."""
    around = [BgNbd(0.5, 6.0, a, 2.0).expected(3, 20, 30, 26)[0] for a in (1 - 1e-9, 1.0, 1 + 1e-9)]
    assert around == pytest.approx([around[1]] * 3, rel=1e-8)
    sides = [naive_expected(BgNbd(0.5, 6.0, a, 2.0), 3, 20, 30, 26) for a in (0.999, 1.001)]
    assert around[1] == pytest.approx(sum(sides) / 2, rel=1e-5)


def test_the_points_of_a_beta_distribution_give_its_means() -> None:
    points, weights = beta_nodes(0.7, np.array([2.0, 30.0, 3000.0]))
    for row, b in enumerate((2.0, 30.0, 3000.0)):
        assert weights[row].sum() == pytest.approx(1)
        assert weights[row] @ points[row] == pytest.approx(0.7 / (0.7 + b))
        assert weights[row] @ points[row] ** 2 == pytest.approx(0.7 * 1.7 / ((0.7 + b) * (1.7 + b)))
    mean, _ = quad(lambda p: p ** (0.7 - 1) * (1 - p) / (1 + 5 * p) / beta(0.7, 2.0), 0, 1, epsabs=1e-12)
    assert weights[0] @ (1 / (1 + 5 * points[0])) == pytest.approx(mean, rel=1e-8)


@pytest.mark.parametrize("model", [CDNOW, BgNbd(r=1.2, alpha=8.0, a=1.0, b=4.0)])
def test_expectations_are_what_happens_when_the_story_is_played(model: BgNbd) -> None:
    age = np.random.default_rng(1).uniform(4, 52, 300_000)
    told = simulate(model, age, horizon=26, seed=2)
    expected = model.expected(told.frequency, told.recency, age, 26)
    alive = model.alive(told.frequency, told.recency, age)
    for group in (0, 1, 2, 3, 4):
        among = told.frequency == group if group < 4 else told.frequency >= 4
        for predicted, seen in ((expected[among], told.followed[among]), (alive[among], told.alive[among])):
            error = np.std(seen - predicted) / np.sqrt(among.sum())
            assert abs(np.mean(seen) - predicted.mean()) <= 4 * error + 1e-12, group


def test_a_fit_finds_the_parameters_of_the_story_within_its_standard_errors() -> None:
    model = BgNbd(r=0.6, alpha=8.0, a=0.8, b=3.0)
    told = simulate(model, np.random.default_rng(3).uniform(0, 100, 50_000), horizon=0, seed=4)
    found, estimate = fit_bgnbd(told.frequency, told.recency, told.age)
    for name in ("r", "alpha", "a", "b"):
        assert abs(getattr(found, name) - getattr(model, name)) < 4 * estimate.standard_errors[name], name
        assert estimate.standard_errors[name] < 0.1 * getattr(model, name)


def test_standard_errors_are_the_spread_of_repeated_fits() -> None:
    model, fits = BgNbd(r=0.8, alpha=6.0, a=0.7, b=2.0), []
    for seed in range(40):
        age = np.random.default_rng(seed).uniform(20, 80, 3_000)
        told = simulate(model, age, horizon=0, seed=1000 + seed)
        fits.append(fit_bgnbd(told.frequency, told.recency, told.age)[1])
    for name in ("r", "alpha", "a", "b"):
        spread = np.std([each.values[name] for each in fits])
        claimed = np.mean([each.standard_errors[name] for each in fits])
        assert 0.65 < claimed / spread < 1.5, name


def test_weights_stand_for_as_many_customers() -> None:
    told = simulate(CDNOW, np.full(2_000, 39.0), horizon=0, seed=5)
    twice = [np.repeat(column, 2) for column in (told.frequency, told.recency, told.age)]
    one, heavy = fit_bgnbd(*twice)[1], fit_bgnbd(told.frequency, told.recency, told.age, 2.0)[1]
    assert heavy.values == pytest.approx(one.values, rel=1e-4)
    assert heavy.standard_errors == pytest.approx(one.standard_errors, rel=1e-3)
    assert heavy.log_likelihood == pytest.approx(one.log_likelihood)


@LONG
@given(ANY_MODEL, histories(), st.floats(0.1, 104))
def test_predictions_are_numbers_in_their_range(
    model: BgNbd, history: tuple[int, float, float], time: float
) -> None:
    x, t_x, T = history
    alive, expected = model.alive(x, t_x, T)[0], model.expected(x, t_x, T, time)[0]
    assert 0 <= alive <= 1
    assert alive == 1 or x > 0
    at_full_rate = (model.r + x) / (model.alpha + T) * time
    assert 0 <= expected <= alive * at_full_rate * (1 + 1e-9)


@LONG
@given(ANY_MODEL, histories(), st.floats(0.1, 50), st.floats(0.1, 50))
def test_predictions_move_as_they_must(
    model: BgNbd, history: tuple[int, float, float], time: float, more: float
) -> None:
    x, t_x, T = history
    rounding = 1 - 1e-9
    assert model.expected(x, t_x, T, time + more)[0] >= model.expected(x, t_x, T, time)[0] * rounding
    assert model.alive(x, t_x, T + more)[0] <= model.alive(x, t_x, T)[0]
    assert model.expected(x, t_x, T + more, time)[0] * rounding <= model.expected(x, t_x, T, time)[0]
    assert model.alive(x, t_x + (T - t_x) / 2, T)[0] >= model.alive(x, t_x, T)[0]


@LONG
@given(ANY_MODEL, histories())
def test_one_order_is_expected_after_the_waiting_time(model: BgNbd, history: tuple[int, float, float]) -> None:
    x, t_x, T = history
    waiting = model.waiting(x, t_x, T, at_most=104.0)[0]
    if np.isnan(waiting):
        assert model.expected(x, t_x, T, 104.0)[0] < 1
    else:
        assert 0 < waiting <= 104
        assert model.expected(x, t_x, T, waiting)[0] == pytest.approx(1, rel=1e-6)


def test_many_rows_are_predicted_as_one_by_one() -> None:
    told = simulate(CDNOW, np.full(50_000, 39.0), horizon=0, seed=6)
    together = CDNOW.expected(told.frequency, told.recency, told.age, 13)
    for row in (0, 19_999, 20_000, 20_001, 49_999):
        alone = CDNOW.expected(told.frequency[row], told.recency[row], told.age[row], 13)[0]
        assert together[row] == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize(
    ("x", "t_x", "T"),
    [
        ([0] * 50, [0.0] * 50, [30.0] * 50),
        ([3] * 50, [20.0] * 50, [30.0] * 50),
        ([0], [0.0], [0.0]),
        ([0, 1], [0.0, 1.0], [5.0, 5.0]),
    ],
)
def test_histories_that_tell_nothing_are_said_to(x: list[int], t_x: list[float], T: list[float]) -> None:
    with pytest.raises(Undetermined):
        fit_bgnbd(x, t_x, T)
