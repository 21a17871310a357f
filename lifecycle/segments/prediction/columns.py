"""Predictions as columns of a customer's state, for rules: by the newest fit at or before an instant, as of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection

from lifecycle.db.arrays import NULL, Arrays
from lifecycle.segments.snapshot import Predict
from lifecycle.settings import Config


def predictor(config: Config) -> Predict:
    """alive and expected_orders (float64, nan: unknown), expected_spend_minor and next_order_at (int64,
    microseconds since 1970), one place for each of the customers asked for. All unknown where nothing could be
    fitted by then."""

    def columns(connection: Connection, as_of: datetime, ids: NDArray[np.int64]) -> Arrays:
        frame = _predicted(connection, config, as_of).set_index("customer_id").reindex(ids)
        instants = frame["next_order_at"]
        return {
            "alive": frame["alive"].to_numpy(np.float64),
            "expected_orders": frame["expected_orders"].to_numpy(np.float64),
            "expected_spend_minor": frame["expected_spend_minor"].fillna(NULL).to_numpy(np.int64),
            "next_order_at": np.where(instants.isna(), NULL, _microseconds(instants)),
        }

    return columns


def refresh_predictions(connection: Connection, config: Config, as_of: datetime) -> None:
    """Bring `customer_predictions` to `as_of`, so that a build sees what a snapshot of that instant would."""
    from lifecycle.segments.prediction.store import load_fitted, replace_predictions

    fitted = load_fitted(connection, as_of)
    replace_predictions(connection, fitted, _predicted(connection, config, as_of))


def _predicted(connection: Connection, config: Config, as_of: datetime) -> pd.DataFrame:
    # Here and not above: scipy takes half a second to import, and every command would pay it.
    from lifecycle.segments.prediction.predict import predict
    from lifecycle.segments.prediction.store import counting, load_fitted

    fitted = load_fitted(connection, as_of)
    counted, spend = counting(config, as_of)
    if fitted is None or fitted.problem:
        return _NOBODY
    horizon = fitted.horizon_days
    return predict(connection, fitted, as_of=as_of, horizon_days=horizon, counted=counted, spend=spend)


def _microseconds(instants: pd.Series) -> Any:
    return instants.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64)


_NOBODY = pd.DataFrame(
    {
        "customer_id": pd.Series(dtype="int64"),
        "alive": pd.Series(dtype="float64"),
        "expected_orders": pd.Series(dtype="float64"),
        "expected_spend_minor": pd.Series(dtype="Int64"),
        "next_order_at": pd.Series(dtype="datetime64[us, UTC]"),
    }
)
