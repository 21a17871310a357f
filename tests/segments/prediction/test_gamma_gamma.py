"""The gamma-gamma model against the paper's formula and against its own story."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import gamma

from lifecycle.segments.prediction.gamma_gamma import GammaGamma, correlation, fit_gamma_gamma, log_likelihood
from lifecycle.segments.prediction.likelihood import Undetermined

PUBLISHED = GammaGamma(p=6.25, q=3.74, v=1544)


def story(model: GammaGamma, size: int, seed: int) -> tuple[NDArray, NDArray, NDArray]:
    """x, the sum of x spends, and the customer's true mean spend."""
    rng = np.random.default_rng(seed)
    x = rng.integers(1, 12, size)
    rate = rng.gamma(model.q, 1 / model.v, size)
    return x, rng.gamma(model.p * x) / rate, model.p / rate


def test_the_likelihood_is_that_of_the_story_integrated() -> None:
    """The mean of the density of the mean spend, over many customers' rates."""
    rates = gamma(PUBLISHED.q, scale=1 / PUBLISHED.v).ppf((np.arange(200_000) + 0.5) / 200_000)
    for x, mean in ((1, 1200.0), (2, 2235.0), (7, 7374.0)):
        density = gamma(PUBLISHED.p * x, scale=1 / (rates * x)).pdf(mean).mean()
        found, _ = log_likelihood(np.array([x]), np.array([x * mean]))(np.array([6.25, 3.74, 1544.0]))
        assert found == pytest.approx(np.log(density), rel=1e-4)


def test_the_derivatives_are_the_likelihoods() -> None:
    x, spend, _ = story(PUBLISHED, 200, seed=1)
    at, parameters = log_likelihood(x.astype(float), spend), np.array([5.0, 3.0, 1200.0])
    for number, step in enumerate(np.diag(1e-5 * parameters)):
        rise = (at(parameters + step)[0] - at(parameters - step)[0]) / (2 * step[number])
        assert rise == pytest.approx(at(parameters)[1][number], rel=1e-5)


def test_a_fit_finds_the_parameters_of_the_story_within_its_standard_errors() -> None:
    x, spend, _ = story(PUBLISHED, 20_000, seed=2)
    found, estimate = fit_gamma_gamma(x, spend)
    for name in ("p", "q", "v"):
        assert abs(getattr(found, name) - getattr(PUBLISHED, name)) < 4 * estimate.standard_errors[name], name
    total, _ = log_likelihood(x.astype(float), spend)(np.array(list(estimate.values.values())))
    assert estimate.log_likelihood == pytest.approx(total)


def test_the_unit_of_money_scales_v_alone() -> None:
    x, spend, _ = story(PUBLISHED, 3_000, seed=3)
    minor, major = fit_gamma_gamma(x, spend)[0], fit_gamma_gamma(x, spend / 100)[0]
    assert (major.p, major.q, 100 * major.v) == pytest.approx((minor.p, minor.q, minor.v), rel=1e-4)


def test_the_mean_spend_is_the_customers_true_one_on_average() -> None:
    x, spend, true_mean = story(PUBLISHED, 200_000, seed=4)
    expected = PUBLISHED.mean_spend(x, spend)
    for times in (1, 3, 11):
        among = x == times
        error = np.std(true_mean[among] - expected[among]) / np.sqrt(among.sum())
        assert abs(np.mean(true_mean[among]) - expected[among].mean()) < 4 * error


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(-10_000, 10**9))
def test_the_mean_spend_lies_between_everybodys_and_the_customers_own(x: int, spend: int) -> None:
    everybody = PUBLISHED.mean_spend(0, 0)
    own = max(spend, 0) / x if x else everybody
    found = PUBLISHED.mean_spend(x, spend)
    assert min(own, everybody) * (1 - 1e-9) <= found <= max(own, everybody) * (1 + 1e-9)


def test_equal_spends_and_endless_means_are_said_to_tell_nothing() -> None:
    with pytest.raises(Undetermined):
        fit_gamma_gamma(np.tile([1, 2, 3, 4], 25), np.tile([500, 1000, 1500, 2000], 25))
    x, spend, _ = story(GammaGamma(p=2.0, q=0.6, v=500.0), 5_000, seed=5)
    with pytest.raises(Undetermined, match="no mean"):
        fit_gamma_gamma(x, spend)


def test_the_correlation_is_none_where_one_of_the_two_does_not_vary() -> None:
    assert correlation([1, 2, 3], [100, 200, 300]) is None
    assert correlation([3, 3, 7], [1000, 1000, 7000 / 3]) is None
    assert correlation([2, 2, 2], [100, 200, 300]) is None
    assert correlation([1, 2, 3], [100, 400, 900]) == pytest.approx(1)
    x, spend, _ = story(PUBLISHED, 500, seed=6)
    assert correlation(x, spend) == pytest.approx(np.corrcoef(x, spend / x)[0, 1])
