"""What customers spend on a day with an order: the gamma-gamma model of Fader and Hardie, The Gamma-Gamma Model of
Monetary Value (2013), https://www.brucehardie.com/notes/025/gamma_gamma.pdf.

A customer's spends vary around a mean of their own (gamma with shape p), the means vary over customers (gamma with
shape q and rate v). How much somebody spends must not depend on how often they order: see `correlation`.

`frequency` is x of the paper, the repeat days; `spend` is the sum over them, x times its mean z, in minor units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, psi  # type: ignore[import-untyped]

from lifecycle.segments.prediction.likelihood import Estimate, Floats, LogLikelihood, Undetermined, maximise


@dataclass(frozen=True)
class GammaGamma:
    """Fitted, or given. `v` is in minor units."""

    p: float
    q: float
    v: float

    def mean_spend(self, frequency: ArrayLike, spend: ArrayLike) -> Floats:
        """Expected spend on a day with an order, in minor units: equation 5 of the paper. For frequency 0 the mean
        of all customers. A spend below 0, where more was given back than paid, is taken as 0."""
        x, total = np.asarray(frequency, dtype=float), np.maximum(np.asarray(spend, dtype=float), 0.0)
        return self.p * (self.v + np.where(x > 0, total, 0.0)) / (self.p * x + self.q - 1)


def fit_gamma_gamma(
    frequency: ArrayLike, spend: ArrayLike, *, penalty: float = 0.0
) -> tuple[GammaGamma, Estimate]:
    """The most likely model of customers with repeat days and a spend above 0.

    Raises Undetermined, also when q is not above 1: the mean over all customers is infinite then. The
    log-likelihood is of the mean spend in minor units. `penalty`: see `maximise`; v in units of the mean spend.
    """
    x, total = np.asarray(frequency, dtype=float), np.asarray(spend, dtype=float)
    unit, start = float(total.sum() / x.sum()), {"p": 2.0, "q": 3.0, "v": 1.0}
    scaled = maximise(log_likelihood(x, total / unit), start, customers=len(x), penalty=penalty)
    if scaled.values["q"] <= 1:
        raise Undetermined("spend varies so much that it has no mean")
    estimate = _in_units(scaled, unit, len(x))
    return GammaGamma(**estimate.values), estimate


def correlation(frequency: ArrayLike, spend: ArrayLike) -> float | None:
    """Pearson's, of frequency and mean spend; None where one does not vary. Far from 0, predictions are biased."""
    x, total = np.asarray(frequency, dtype=float), np.asarray(spend, dtype=float)
    x_off, z_off = x - x.mean(), total / x - (total / x).mean()
    # Equal means differ by rounding after the division, and that is no variation.
    if not x_off.any() or np.abs(z_off).max() <= 1e-9 * np.abs(total).max():
        return None
    return float(x_off @ z_off / np.sqrt((x_off @ x_off) * (z_off @ z_off)))


def log_likelihood(frequency: Floats, spend: Floats) -> LogLikelihood:
    """As a function of (p, q, v): equation 1a of the paper, in logs."""
    x, total = frequency, spend
    log_total, log_mean = np.log(total), np.log(total / x)

    def at(parameters: Floats) -> tuple[float, Floats]:
        p, q, v = parameters
        sum_shape, with_v = p * x + q, np.log(v + total)
        each = gammaln(sum_shape) - gammaln(p * x) - gammaln(q) + q * np.log(v)
        each += p * x * log_total - log_mean - sum_shape * with_v
        common = psi(sum_shape)
        slopes = (
            x * (common - psi(p * x) + log_total - with_v),
            common - psi(q) + np.log(v) - with_v,
            q / v - sum_shape / (v + total),
        )
        return float(each.sum()), np.array([slope.sum() for slope in slopes])

    return at


def _in_units(scaled: Estimate, unit: float, customers: int) -> Estimate:
    units = {"p": 1.0, "q": 1.0, "v": unit}
    return Estimate(
        {name: value * units[name] for name, value in scaled.values.items()},
        {name: error * units[name] for name, error in scaled.standard_errors.items()},
        scaled.log_likelihood - customers * float(np.log(unit)),
    )
