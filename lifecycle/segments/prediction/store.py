"""Predictions in the database: one row for each fit, and everybody's predictions of the newest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, insert, literal, select, text

from lifecycle.clock import as_utc
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import Instant, customer_predictions, orders, prediction_runs
from lifecycle.segments.metrics import Sources, counted_orders
from lifecycle.segments.prediction.calibration import calibrate, default_holdout_days
from lifecycle.segments.prediction.fit import fit
from lifecycle.segments.prediction.predict import COLUMNS, predictions
from lifecycle.segments.prediction.records import Calibration, Fitted, PredictionRun
from lifecycle.segments.prediction.summary import load_purchases, purchase_summary
from lifecycle.settings import Config

_BATCH = 50_000


def fit_and_store(
    engine: Engine,
    config: Config,
    *,
    as_of: datetime,
    now: datetime,
    horizon_days: int = 90,
    run_id: str | None = None,
) -> PredictionRun:
    """Fit to the orders up to `as_of`, measure on a hold-out, and replace everybody's predictions, all or nothing.

    Below the floor nobody has predictions any more, and the row in `prediction_runs` says why. What counts as an
    order is what config/segments.yaml says. Fitting reads one state of the database and holds no lock; only the
    writing does.
    """
    as_of = as_utc(as_of)
    counted, spend = counting(config, as_of)
    with reading(engine) as connection:
        whole = load_purchases(connection, purchase_summary(orders, as_of=as_of, counted=counted, spend=spend))
        holdout_days = default_holdout_days(whole.history_days)
        began_at = as_of - timedelta(days=holdout_days)
        before = load_purchases(connection, purchase_summary(orders, as_of=began_at, counted=counted, spend=spend))
    fitted = fit(whole, as_of=as_of, horizon_days=horizon_days)
    calibration = calibrate(before, whole, began_at=began_at, holdout_days=holdout_days)
    frame = predictions(whole, fitted, as_of=as_of, horizon_days=horizon_days)
    with writing(engine) as connection:
        fitted = _store_run(connection, fitted, calibration, now=now, run_id=run_id)
        replace_predictions(connection, fitted, frame)
    return PredictionRun(fitted, calibration, len(frame))


def load_fitted(connection: Connection, as_of: datetime) -> Fitted | None:
    """Of the newest prediction run at or before `as_of`, also one with a problem; None where there is none."""
    run = prediction_runs.c
    query = select(prediction_runs).where(run.as_of <= as_of)
    row = connection.execute(query.order_by(run.as_of.desc(), run.prediction_run_id.desc()).limit(1)).first()
    return Fitted.stored(row) if row else None


def replace_predictions(connection: Connection, fitted: Fitted | None, frame: pd.DataFrame) -> None:
    """In `customer_predictions`, everybody's by `frame`: predictions of a stored `fitted`, none without one."""
    if connection.dialect.name == "postgresql":
        # Two at a time would both insert the same customers.
        connection.execute(text("lock table customer_predictions in exclusive mode"))
    connection.execute(delete(customer_predictions))
    if fitted is None:
        return
    for start in range(0, len(frame), _BATCH):
        rows = list(_rows(fitted, frame.iloc[start : start + _BATCH]))
        connection.execute(insert(customer_predictions), rows)


def counting(config: Config, as_of: datetime) -> tuple[ColumnElement[bool], ColumnElement[int]]:
    """Which orders count, and for how much, as in the metrics of segments: `counted` and `spend` of a summary."""
    counted, o = config.segments_file.counted_orders, orders.c
    total, back = o.total_base_minor, o.refunded_base_minor
    if counted.currency is not None:
        total, back = o.total_minor, o.refunded_minor
    conditions = counted_orders(Sources(counted), orders, literal(as_of, Instant()))
    return and_(*conditions), total - back if counted.refunds == "subtract" else total


def _store_run(
    connection: Connection, fitted: Fitted, calibration: Calibration, *, now: datetime, run_id: str | None
) -> Fitted:
    row = {
        "as_of": fitted.as_of,
        "fitted_at": now,
        "horizon_days": fitted.horizon_days,
        "customers": fitted.customers,
        "repeat_customers": fitted.repeat_customers,
        "problem": fitted.problem,
        "parameters": fitted.parameters(),
        "calibration": calibration.rows,
        "run_id": run_id,
    }
    (key,) = connection.execute(insert(prediction_runs).values(row)).inserted_primary_key or (None,)
    assert key is not None, "the database numbers runs itself"
    return replace(fitted, prediction_run_id=int(key))


def _rows(fitted: Fitted, frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for values in zip(*(_plain(frame[name]) for name in COLUMNS), strict=True):
        yield {"prediction_run_id": fitted.prediction_run_id, **dict(zip(COLUMNS, values, strict=True))}


def _plain(column: pd.Series) -> list[Any]:
    """Python's own values, None where there is none."""
    dated = isinstance(column.dtype, pd.DatetimeTZDtype)
    values = column.dt.to_pydatetime() if dated else column.astype(object)
    return [None if missing else value for value, missing in zip(values, column.isna(), strict=True)]
