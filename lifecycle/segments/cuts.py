"""Cut points: where one score ends and the next begins. Pure numbers, no database.

A score compares a customer's value with a few cut points, so that scoring is a row expression: no sort of
everybody is needed to score some, and a day's scores can be told again from the cut points kept with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from lifecycle.settings.segments import Score

Values = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cut:
    """Reached by a value of `value` or more; with `customer_id`, at exactly `value` only by customers from that
    number on. `value` None: reached by nobody."""

    value: int | None
    customer_id: int | None = None


Cuts = tuple[Cut, ...]
"""Upwards; how many of them a value reaches is its bin, counted from 0."""


def cut_points(score: Score, values: Values, customer_ids: Values, *, reverse: bool, digits: int = 0) -> Cuts:
    """The cut points of `score` over everybody's `values`.

    `reverse`: low values are good, so the lowest bin has the highest score. `digits`: of minor units, for
    thresholds and shifts, which are given in whole units.

    - rank_shares: the score is 1 and the number of n-ths of all customers who are strictly worse, so that equal
      customers score equally.
    - rank_quantiles: quantiles of the rank, ties broken by customer_id; pandas' qcut(rank(method="first"), n).
    - value_quantiles: quantiles of the values, Hyndman and Fan's type 7, bins closed on the side that `closed`
      names, each quantile moved by `shift`. Where quantiles collapse onto one value, the scores between them stay
      empty.
    - percentile_bins: n equal bins, closed on the right, of the mean rank over the number of customers, from 0 to
      1, or from the lowest to the highest that there is.
    - thresholds: as given.
    """
    n = score.scores or 0
    if score.by == "thresholds":
        return tuple(Cut(_edge(Fraction(t) * 10**digits, score.closed)) for t in score.thresholds or ())
    if not len(values):
        return (Cut(None),) * (n - 1)
    match score.by:
        case "rank_shares":
            return _rank_shares(values, n, reverse)
        case "rank_quantiles":
            return _rank_quantiles(values, customer_ids, n)
        case "value_quantiles":
            return _value_quantiles(values, n, score.closed, Fraction(score.shift) * 10**digits)
        case _:
            return _percentile_bins(values, n, score.edges == "observed")


def top_share(values: Values, share: float) -> Cut:
    """Reached by those than whom less than `share` of all are strictly higher."""
    exact = Fraction(Decimal(str(share)))
    count = ceil(exact * len(values))
    return Cut(_smallest(values, [len(values) + 1 - count])[0]) if count else Cut(None)


def _rank_shares(values: Values, n: int, reverse: bool) -> Cuts:
    worse = [ceil(Fraction(i * len(values), n)) for i in range(1, n)]
    if reverse:
        return tuple(
            Cut(value) for value in _smallest(values, [len(values) + 1 - each for each in reversed(worse)])
        )
    return tuple(Cut(value + 1) for value in _smallest(values, worse))


def _rank_quantiles(values: Values, customer_ids: Values, n: int) -> Cuts:
    ranks = [(len(values) - 1) * i // n + 2 for i in range(1, n)]
    found = _smallest(values, [min(rank, len(values)) for rank in ranks])
    return tuple(
        Cut(value, _holder(values, customer_ids, value, rank)) if rank <= len(values) else Cut(None)
        for value, rank in zip(found, ranks, strict=True)
    )


def _holder(values: Values, customer_ids: Values, value: int, rank: int) -> int:
    """Who has `rank` among equals that are ordered by customer_id."""
    before = int(np.count_nonzero(values < value))
    equals = customer_ids[values == value]
    place = rank - 1 - before
    return int(np.partition(equals, place)[place])


def _value_quantiles(values: Values, n: int, closed: str, shift: Fraction) -> Cuts:
    steps = [divmod((len(values) - 1) * i, n) for i in range(1, n)]
    ranks = [rank for whole, _ in steps for rank in (whole + 1, min(whole + 2, len(values)))]
    found = _smallest(values, ranks)
    return tuple(
        Cut(_edge(found[2 * i] + Fraction(rest * (found[2 * i + 1] - found[2 * i]), n) + shift, closed))
        for i, (_, rest) in enumerate(steps)
    )


def _percentile_bins(values: Values, n: int, observed: bool) -> Cuts:
    distinct, counts = np.unique(values, return_counts=True)
    twice_the_rank = 2 * np.cumsum(counts) - counts + 1
    low, high = (twice_the_rank[0], twice_the_rank[-1]) if observed else (0, 2 * len(values))
    cuts = []
    for i in range(1, n):
        above = n * (twice_the_rank - low) > i * (high - low)
        cuts.append(Cut(int(distinct[np.argmax(above)]) if above.any() else None))
    return tuple(cuts)


def _edge(bound: Fraction, closed: str) -> int:
    """The lowest whole number that is in the upper bin."""
    return ceil(bound) if closed == "left" else floor(bound) + 1


def _smallest(values: Values, ranks: Sequence[int]) -> list[int]:
    """The values of these ranks, counted from 1."""
    places = [rank - 1 for rank in ranks]
    return [int(value) for value in np.partition(values, sorted(set(places)))[places]]
