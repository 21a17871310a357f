"""When customers order: the BG/NBD model of Fader, Hardie and Lee, "Counting Your Customers" the Easy Way,
Marketing Science 24 (2005), https://www.brucehardie.com/papers/018/fader_et_al_mksc_05.pdf.

While a customer is alive they order at a rate of their own, gamma-distributed over customers (shape r, rate
alpha); after each repeat order they leave for good with a probability of their own, beta-distributed (a, b). So
whoever ordered once is alive for certain: a trait of the model, not a finding.

Throughout, `frequency` is x, `recency` t_x and `age` T of the paper; times are in weeks, which keeps alpha near 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, gammaln, psi  # type: ignore[import-untyped]

from lifecycle.segments.prediction.likelihood import Estimate, Floats, LogLikelihood, Undetermined, maximise
from lifecycle.segments.prediction.quadrature import beta_nodes

_BLOCK = 20_000
_NEWTON_STEPS = 100


@dataclass(frozen=True)
class BgNbd:
    """Fitted, or given. `alpha` is in weeks. All arrays are of one length, or numbers."""

    r: float
    alpha: float
    a: float
    b: float

    def alive(self, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Floats:
        """Probability that the customer has not left, in [0, 1]; 1 for frequency 0. After Fader, Hardie and Lee,
        Computing P(alive) Using the BG/NBD Model (2008), https://www.brucehardie.com/notes/021/."""
        x, t_x, T = _rows(frequency, recency, age)
        repeated = np.maximum(x, 1)
        silence = np.log((self.alpha + T) / (self.alpha + t_x))
        odds_gone = np.log(self.a) - np.log(self.b + repeated - 1) + (self.r + repeated) * silence
        return np.where(x > 0, expit(-odds_gone), 1.0)

    def expected(self, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike, time: ArrayLike) -> Floats:
        """Orders expected in the next `time`, given the history: equation 10 of the paper.

        Its difference of hypergeometric terms over a - 1 cancels near a = 1 and overflows for long histories.
        Before the dropout probability p is integrated out it is P(alive) times the mean, over p in Beta(a, b + x),
        of (1 - (1 + p t / (alpha + T))^-(r + x)) / p, which is smooth and positive: that mean is computed.
        """
        x, t_x, T, t = _rows(frequency, recency, age, time)
        while_alive = np.empty_like(x)
        for block, points, weights in self._dropout(x):
            while_alive[block] = self._orders(x[block], T[block], t[block], points, weights)[0]
        return self.alive(x, t_x, T) * while_alive

    def waiting(self, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike, *, at_most: float) -> Floats:
        """After which time one order is expected, that is `expected` reaches 1; nan when that takes longer than
        `at_most`, because the customer is slow or probably gone."""
        x, t_x, T = _rows(frequency, recency, age)
        alive, time = self.alive(x, t_x, T), np.full_like(x, np.nan)
        comes = self.expected(x, t_x, T, at_most) >= 1
        x, T, wanted = x[comes], T[comes], 1 / alive[comes]
        found = np.empty_like(x)
        for block, points, weights in self._dropout(x):
            orders = partial(self._orders, x[block], T[block], points=points, weights=weights)
            found[block] = _newton(orders, wanted[block])
        time[comes] = np.minimum(found, at_most)
        return time

    def _dropout(self, frequency: Floats) -> Iterator[tuple[slice, Floats, Floats]]:
        """Blocks of rows, each with points and weights of its customers' dropout probability, were they alive."""
        different, place = np.unique(frequency, return_inverse=True)
        points, weights = beta_nodes(self.a, self.b + different)
        for start in range(0, len(frequency), _BLOCK):
            rows = place[start : start + _BLOCK]
            yield slice(start, start + _BLOCK), points[rows], weights[rows]

    def _orders(
        self, frequency: Floats, age: Floats, time: Floats, points: Floats, weights: Floats
    ) -> tuple[Floats, Floats]:
        """Expected in `time` of somebody alive now, and how fast that grows with time."""
        shape, rate = self.r + frequency, self.alpha + age
        growth = np.log1p(points * (time / rate)[:, None])
        orders = -np.expm1(-shape[:, None] * growth) / points
        speed = np.exp(-(shape[:, None] + 1) * growth) * (shape / rate)[:, None]
        return (weights * orders).sum(axis=1), (weights * speed).sum(axis=1)


def fit_bgnbd(
    frequency: ArrayLike, recency: ArrayLike, age: ArrayLike, times: ArrayLike = 1.0, *, penalty: float = 0.0
) -> tuple[BgNbd, Estimate]:
    """The most likely model of customers with these histories, each there `times` often. Raises Undetermined.

    `penalty`: see `maximise`; 0 is plain maximum likelihood.
    """
    x, t_x, T, weight = _rows(frequency, recency, age, times)
    if not (weight @ x > 0 and weight @ T > 0):
        raise Undetermined("nobody has ordered again")
    start = {"r": 1.0, "alpha": float(weight @ T / (weight @ x)), "a": 1.0, "b": 2.0}
    customers = int(weight.sum())
    estimate = maximise(log_likelihood(x, t_x, T, weight), start, customers=customers, penalty=penalty)
    return BgNbd(**estimate.values), estimate


def log_likelihood(frequency: Floats, recency: Floats, age: Floats, times: Floats) -> LogLikelihood:
    """As a function of (r, alpha, a, b): equation 6 of the paper, in logs."""
    x, t_x, T, weight = frequency, recency, age, times
    different, place = np.unique(x, return_inverse=True)
    again = x > 0
    before_last = np.where(again, x - 1, 0.0)

    def at(parameters: Floats) -> tuple[float, Floats]:
        r, alpha, a, b = parameters
        by_count = gammaln(r + different) - gammaln(r) + r * np.log(alpha)
        by_count += gammaln(b + different) - gammaln(b) + gammaln(a + b) - gammaln(a + b + different)
        until_now, until_last = np.log(alpha + T), np.log(alpha + t_x)
        stayed = -(r + x) * until_now
        left = np.where(again, np.log(a) - np.log(b + before_last) - (r + x) * until_last, -np.inf)
        either = np.logaddexp(stayed, left)
        gone = np.exp(left - either)
        fewer = psi(a + b) - psi(a + b + different)
        slopes = (
            (psi(r + different) - psi(r) + np.log(alpha))[place] - (1 - gone) * until_now - gone * until_last,
            r / alpha - (r + x) * ((1 - gone) / (alpha + T) + gone / (alpha + t_x)),
            fewer[place] + gone / a,
            (fewer + psi(b + different) - psi(b))[place] - gone / (b + before_last),
        )
        total = float((weight * (by_count[place] + either)).sum())
        return total, np.array([(weight * slope).sum() for slope in slopes])

    return at


def _newton(orders: Callable[[Floats], tuple[Floats, Floats]], wanted: Floats) -> Floats:
    """When `orders` reaches `wanted`. It grows ever slower, so that from 0 each step stays before the solution."""
    time = np.zeros_like(wanted)
    for _ in range(_NEWTON_STEPS):
        reached, speed = orders(time)
        step = (wanted - reached) / speed
        time += step
        if np.all(np.abs(step) <= 1e-9 * (1 + time)):
            break
    return time


def _rows(*columns: ArrayLike) -> list[Floats]:
    """All of one length, as floats."""
    return [np.asarray(each, dtype=float) for each in np.broadcast_arrays(*(np.atleast_1d(c) for c in columns))]
