"""What each customer will probably do."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd
from sqlalchemy import ColumnElement, Connection, FromClause

from lifecycle.db import schema
from lifecycle.db.schema import microseconds
from lifecycle.segments.prediction.bgnbd import BgNbd
from lifecycle.segments.prediction.gamma_gamma import GammaGamma
from lifecycle.segments.prediction.likelihood import Floats
from lifecycle.segments.prediction.records import DAYS_PER_WEEK, Fitted
from lifecycle.segments.prediction.summary import Purchases, compress, load_purchases, purchase_summary

FARTHEST_DAYS = 730
"""Somebody who is expected back in more than two years is not expected."""
COLUMNS = ("customer_id", "alive", "expected_orders", "expected_spend_minor", "next_order_at")
_SECONDS_A_DAY = 86_400


def predict(
    connection: Connection,
    fitted: Fitted,
    *,
    as_of: datetime,
    horizon_days: int,
    orders: FromClause = schema.orders,
    counted: ColumnElement[bool] | None = None,
    spend: ColumnElement[int] | None = None,
) -> pd.DataFrame:
    """`predictions` of everybody with a counted order in `orders` up to and including `as_of`, which need not be
    that of the fit. `counted`, `spend`: see `purchase_summary`."""
    summary = purchase_summary(orders, as_of=as_of, counted=counted, spend=spend)
    return predictions(load_purchases(connection, summary), fitted, as_of=as_of, horizon_days=horizon_days)


def predictions(purchases: Purchases, fitted: Fitted, *, as_of: datetime, horizon_days: int) -> pd.DataFrame:
    """COLUMNS, one row per customer, by customer_id; no rows when the models could not be fitted.

    alive: probability in [0, 1]. expected_orders: days with an order in the horizon. expected_spend_minor: these
    times the expected spend of such a day; Int64, null when the model of spend could not be fitted.
    next_order_at: when the expected number of further orders reaches 1, P(alive) taken into account; UTC, whole
    seconds, NaT when that is more than two years away. Not the last order and the customer's usual gap: who is
    late already is probably slow or gone.
    """
    model = fitted.bgnbd
    if model is None:
        purchases, model = _nobody(), BgNbd(1.0, 1.0, 1.0, 1.0)
    history, place, _ = compress(purchases.frequency, purchases.recency_days, purchases.age_days)
    x, t_x, T = history[0], history[1] / DAYS_PER_WEEK, history[2] / DAYS_PER_WEEK
    expected = model.expected(x, t_x, T, horizon_days / DAYS_PER_WEEK)[place]
    waiting_days = DAYS_PER_WEEK * model.waiting(x, t_x, T, at_most=FARTHEST_DAYS / DAYS_PER_WEEK)[place]
    return pd.DataFrame(
        {
            "customer_id": purchases.customer_id,
            "alive": model.alive(x, t_x, T)[place],
            "expected_orders": expected,
            "expected_spend_minor": _spend(fitted.gamma_gamma, purchases, expected),
            "next_order_at": _instants(as_of, waiting_days),
        }
    )


def _spend(model: GammaGamma | None, purchases: Purchases, expected_orders: Floats) -> pd.Series:
    if model is None:
        return pd.Series(pd.NA, index=range(purchases.customers), dtype="Int64")
    mean = model.mean_spend(purchases.frequency, purchases.spend_repeat_minor)
    return pd.Series(np.rint(expected_orders * mean).astype(np.int64), dtype="Int64")


def _instants(as_of: datetime, days: Floats) -> pd.Series:
    comes = np.isfinite(days)
    seconds = np.rint(np.where(comes, days, 0.0) * _SECONDS_A_DAY).astype(np.int64)
    instants = (microseconds(as_of) // 1_000_000 + seconds) * 1_000_000
    found = pd.Series(instants.view("datetime64[us]")).dt.tz_localize("UTC")
    return found.where(comes)


def _nobody() -> Purchases:
    return Purchases(*(np.empty(0, dtype=np.int64) for _ in range(5)))
