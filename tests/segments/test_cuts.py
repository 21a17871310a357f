"""Scores against what pandas, numpy and other packages make of the same values."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lifecycle.segments.cuts import Cut, Cuts, Values, cut_points, top_share
from lifecycle.settings.segments import Score

SCORES = st.integers(2, 9)
VALUES = st.lists(st.one_of(st.integers(-3, 3), st.integers(-(10**12), 10**12)), min_size=1, max_size=60)


def scores(cuts: Cuts, values: Values, ids: Values, reverse: bool) -> list[int]:
    """By counting the cut points that each value reaches."""

    def reaches(value: int, who: int, cut: Cut) -> bool:
        if cut.value is None:
            return False
        return value > cut.value or (value == cut.value and (cut.customer_id is None or who >= cut.customer_id))

    bins = [sum(reaches(v, i, cut) for cut in cuts) for v, i in zip(values.tolist(), ids.tolist(), strict=True)]
    return [len(cuts) + 1 - each if reverse else 1 + each for each in bins]


def scored(score: Score, values: list[int], *, reverse: bool = False, ids: list[int] | None = None) -> list[int]:
    array, who = np.array(values, dtype=np.int64), np.array(ids or range(len(values)), dtype=np.int64)
    return scores(cut_points(score, array, who, reverse=reverse), array, who, reverse)


def flipped(found: list[int], n: int, reverse: bool) -> list[int]:
    return [n + 1 - each for each in found] if reverse else found


@given(VALUES, SCORES, st.booleans())
@example([5], 5, True)
@example([5] * 9, 5, False)
def test_rank_shares_count_who_is_strictly_worse(values: list[int], n: int, reverse: bool) -> None:
    worse = [sum(other > v if reverse else other < v for other in values) for v in values]
    wanted = [1 + sum(n * each >= i * len(values) for i in range(1, n)) for each in worse]
    assert scored(Score(by="rank_shares", scores=n), values, reverse=reverse) == wanted


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=60), SCORES, st.booleans())
def test_rank_quantiles_are_qcut_of_the_rank_by_first(values: list[int], n: int, reverse: bool) -> None:
    """pandas' own edges are floats: an edge that is a whole rank must not be missed by a rounding error."""
    ranks = pd.Series(values).rank(method="first").astype(int)
    edges = [1 + Fraction((len(values) - 1) * i, n) for i in range(1, n)]
    wanted = [1 + sum(rank > edge for edge in edges) for rank in ranks]
    assert scored(Score(by="rank_quantiles", scores=n), values, reverse=reverse) == flipped(wanted, n, reverse)
    if len(values) > n:
        by_pandas = pd.qcut(pd.Series(values).rank(method="first"), n, labels=False) + 1
        differ = [abs(float(rank) - float(edge)) < 1e-9 for rank in ranks for edge in edges]
        assert any(differ) or list(by_pandas) == wanted


@given(VALUES, SCORES, st.booleans(), st.sampled_from(["left", "right"]))
def test_value_quantiles_are_type_7(values: list[int], n: int, reverse: bool, closed: str) -> None:
    ordered = sorted(values)

    def quantile(i: int) -> Fraction:
        h = Fraction((len(values) - 1) * i, n)
        low = ordered[math.floor(h)]
        return low + (h - math.floor(h)) * (ordered[min(math.floor(h) + 1, len(values) - 1)] - low)

    edges = [quantile(i) for i in range(1, n)]
    assert np.allclose([float(e) for e in edges], np.quantile(values, [i / n for i in range(1, n)]), rtol=1e-9)
    wanted = [1 + sum(v >= edge if closed == "left" else v > edge for edge in edges) for v in values]
    found = scored(Score(by="value_quantiles", scores=n, closed=closed), values, reverse=reverse)  # type: ignore[arg-type]
    assert found == flipped(wanted, n, reverse)


@given(VALUES, SCORES, st.booleans())
def test_percentile_bins_are_equal_parts_of_the_percentile_rank(values: list[int], n: int, reverse: bool) -> None:
    twice = (2 * pd.Series(values).rank(method="average")).astype(int)
    wanted = [math.ceil(Fraction(n * rank, 2 * len(values))) for rank in twice]
    assert scored(Score(by="percentile_bins", scores=n), values, reverse=reverse) == flipped(wanted, n, reverse)


@given(st.lists(st.integers(0, 40), min_size=2, max_size=60).filter(lambda found: len(set(found)) > 1), SCORES)
def test_percentile_bins_of_the_observed_range_are_cut_of_the_percentile_rank(values: list[int], n: int) -> None:
    found = scored(Score(by="percentile_bins", scores=n, edges="observed"), values)
    percentile = pd.Series(values).rank(pct=True)
    low, high = percentile.min(), percentile.max()
    edges = [low + (high - low) * i / n for i in range(1, n)]
    if min(abs(p - edge) for p in percentile for edge in edges) > 1e-9:
        assert found == list(pd.cut(percentile, n, labels=False) + 1)


@pytest.mark.parametrize(("closed", "wanted"), [("left", [1, 2, 2, 3, 3]), ("right", [1, 1, 2, 2, 3])])
def test_thresholds_belong_to_the_side_that_is_said(closed: str, wanted: list[int]) -> None:
    score = Score(by="thresholds", thresholds=(Decimal(30), Decimal(90)), scores=3, closed=closed)  # type: ignore[arg-type]
    assert scored(score, [29, 30, 31, 90, 91]) == wanted


def test_thresholds_of_money_are_in_whole_units() -> None:
    score = Score(by="thresholds", thresholds=(Decimal("9.995"),), scores=2)
    assert cut_points(score, np.array([1]), np.array([1]), reverse=False, digits=2) == (Cut(1000),)


def test_quantiles_that_collapse_leave_the_scores_between_empty() -> None:
    values = [1] * 8 + [2, 3]
    assert scored(Score(by="value_quantiles", scores=5), values) == [4] * 8 + [5, 5]
    assert scored(Score(by="value_quantiles", scores=5, closed="right"), values) == [1] * 8 + [5, 5]
    assert scored(Score(by="rank_quantiles", scores=5), values) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert scored(Score(by="rank_shares", scores=5), values) == [1] * 8 + [5, 5]
    assert scored(Score(by="percentile_bins", scores=5), values) == [3] * 8 + [5, 5]


@pytest.mark.parametrize("by", ["rank_shares", "rank_quantiles", "value_quantiles", "percentile_bins"])
def test_one_customer_and_none(by: str) -> None:
    score = Score(by=by, scores=5)  # type: ignore[arg-type]
    assert (
        cut_points(score, np.array([], dtype=np.int64), np.array([], dtype=np.int64), reverse=False)
        == (Cut(None),) * 4
    )
    (alone,) = scored(score, [7])
    assert alone == {"rank_shares": 1, "rank_quantiles": 1, "value_quantiles": 5, "percentile_bins": 5}[by]


@given(st.lists(st.integers(-5, 5), max_size=30), st.sampled_from([0.0, 0.05, 0.1, 1 / 3, 0.5, 1.0]))
def test_top_share_counts_who_is_strictly_ahead(values: list[int], share: float) -> None:
    cut = top_share(np.array(values, dtype=np.int64), share)
    inside = [cut.value is not None and v >= cut.value for v in values]
    exact = Fraction(Decimal(str(share)))
    assert inside == [sum(other > v for other in values) < exact * len(values) for v in values]
