"""How good predictions are: fitted to the orders before a period, compared with the orders in it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np

from lifecycle.segments.prediction.bgnbd import BgNbd
from lifecycle.segments.prediction.fit import fit
from lifecycle.segments.prediction.likelihood import Floats
from lifecycle.segments.prediction.records import DAYS_PER_WEEK, Calibration
from lifecycle.segments.prediction.summary import Purchases, Whole, compress

MOST_HOLDOUT_DAYS = 180
"""Half a year shows every habit but those of a season; the fit should keep the rest."""
LAST_GROUP = 7


def default_holdout_days(history_days: int) -> int:
    """The last third of the history, at most half a year."""
    return min(history_days // 3, MOST_HOLDOUT_DAYS)


def calibrate(before: Purchases, whole: Purchases, *, began_at: datetime, holdout_days: int) -> Calibration:
    """`before`: as of `began_at`, when the period of `holdout_days` began; `whole`: as of its end, with the same
    orders counted."""
    fitted = fit(before, as_of=began_at, horizon_days=holdout_days)
    if fitted.bgnbd is None:
        return Calibration(holdout_days, problem=fitted.problem)
    expected = expected_orders(fitted.bgnbd, before, holdout_days)
    return Calibration(holdout_days, _by_frequency(before.frequency, expected, _seen(before, whole)))


def expected_orders(model: BgNbd, purchases: Purchases, horizon_days: float) -> Floats:
    """Of each customer: days with an order in the next `horizon_days`."""
    (x, t_x, T), place, _ = compress(purchases.frequency, purchases.recency_days, purchases.age_days)
    return model.expected(x, t_x / DAYS_PER_WEEK, T / DAYS_PER_WEEK, horizon_days / DAYS_PER_WEEK)[place]


def _seen(before: Purchases, whole: Purchases) -> Whole:
    """Of each customer of `before`: further days with an order."""
    place = np.searchsorted(whole.customer_id, before.customer_id)
    return whole.frequency[place] - before.frequency


def _by_frequency(frequency: Whole, expected: Floats, seen: Whole) -> list[dict[str, Any]]:
    group = np.minimum(frequency, LAST_GROUP)
    customers, sum_expected, sum_seen = (np.bincount(group, weights=each) for each in (None, expected, seen))
    return [
        {
            "frequency": f"{LAST_GROUP}+" if each == LAST_GROUP else str(each),
            "customers": int(customers[each]),
            "expected": float(sum_expected[each] / customers[each]),
            "seen": float(sum_seen[each] / customers[each]),
        }
        for each in np.flatnonzero(customers).tolist()
    ]
