"""Both models fitted to a shop's customers, or a sentence that says what is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from math import ceil

from lifecycle.segments.prediction.bgnbd import fit_bgnbd
from lifecycle.segments.prediction.gamma_gamma import correlation, fit_gamma_gamma
from lifecycle.segments.prediction.likelihood import Undetermined
from lifecycle.segments.prediction.records import DAYS_PER_WEEK, Fitted
from lifecycle.segments.prediction.summary import Purchases, compress

MIN_CUSTOMERS = 100
"""Simulated with CDNOW's parameters, a year of 100 customers can be fitted in two cases of three, and the sum of
their expected orders is then right to 13 % (root mean square); with 2,000 always, to 3.5 %."""
MIN_REPEAT_CUSTOMERS = 30
"""Only repeat orders tell rates and dropout: about eight for each parameter of BG/NBD, ten for gamma-gamma's."""
MIN_HISTORY_DAYS = 90
"""Who orders every two or three months must have had the time to come back once."""
MOST_HORIZONS = 2
"""How many times the history a horizon may be. CDNOW's is as long as the history, and predicted well."""

_FALLBACK = "so segments fall back to RFM"
_NO_SPEND = "so expected spend is left out"


def fit(purchases: Purchases, *, as_of: datetime, horizon_days: int, penalty: float = 0.0) -> Fitted:
    """The models as of `as_of`, for predictions over `horizon_days`; never raises for what the data are like.

    `penalty`: see `likelihood.maximise`.
    """
    fitted = Fitted(as_of, horizon_days, purchases.customers, purchases.repeat_customers)
    problem = _below_floor(purchases, max(MIN_HISTORY_DAYS, ceil(horizon_days / MOST_HORIZONS)))
    if problem:
        return replace(fitted, problem=f"{problem}, {_FALLBACK}")
    (frequency, recency, age), _, times = compress(purchases.frequency, purchases.recency_days, purchases.age_days)
    try:
        _, orders = fit_bgnbd(frequency, recency / DAYS_PER_WEEK, age / DAYS_PER_WEEK, times, penalty=penalty)
    except Undetermined as error:
        return replace(fitted, problem=f"The model of orders could not be fitted: {error}, {_FALLBACK}")
    return _with_spend(replace(fitted, orders=orders), purchases, penalty)


def _with_spend(fitted: Fitted, purchases: Purchases, penalty: float) -> Fitted:
    spent = (purchases.frequency > 0) & (purchases.spend_repeat_minor > 0)
    frequency, total = purchases.frequency[spent], purchases.spend_repeat_minor[spent]
    if len(total) < MIN_REPEAT_CUSTOMERS:
        found = f"{_people(len(total))} spent something on a second day"
        return replace(fitted, spend_problem=f"{found}; at least {MIN_REPEAT_CUSTOMERS} are needed, {_NO_SPEND}")
    try:
        _, spend = fit_gamma_gamma(frequency, total, penalty=penalty)
    except Undetermined as error:
        return replace(fitted, spend_problem=f"The model of spend could not be fitted: {error}, {_NO_SPEND}")
    return replace(fitted, spend=spend, spenders=len(total), correlation=correlation(frequency, total))


def _below_floor(purchases: Purchases, history_days: int) -> str | None:
    if purchases.customers < MIN_CUSTOMERS:
        return f"{_people(purchases.customers)} ordered; at least {MIN_CUSTOMERS} are needed"
    if purchases.repeat_customers < MIN_REPEAT_CUSTOMERS:
        found = _people(purchases.repeat_customers)
        return f"{found} bought on two days or more; at least {MIN_REPEAT_CUSTOMERS} are needed"
    if purchases.history_days < history_days:
        return f"Orders go back {purchases.history_days} days; at least {history_days} are needed"
    return None


def _people(count: int) -> str:
    return "1 customer has" if count == 1 else f"{count:,} customers have"
