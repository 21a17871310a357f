"""Members at any instant with all their metrics, straight from the orders: no build is needed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, select
from sqlalchemy.types import TypeEngine

from lifecycle.db.arrays import NULL
from lifecycle.db.engine import reading
from lifecycle.db.instants import DAY_US
from lifecycle.db.schema import Instant, identities, microseconds
from lifecycle.errors import UsageError
from lifecycle.segments.definitions import Definitions, define
from lifecycle.segments.engines import open_compute
from lifecycle.segments.engines.copying import as_seen_by
from lifecycle.segments.snapshot import Predict, Snapshot, take_snapshot
from lifecycle.segments.state import metric_columns
from lifecycle.settings import Config
from lifecycle.wholefile import whole_file

COLUMNS = (
    "customer_id", "shop_customer_ids", "segments", "recency_days", "frequency", "monetary_minor", "currency",
    "r", "f", "m", "rfm_segment", "first_order_at", "last_order_at", "orders_12m", "spend_12m_minor",
)  # fmt: skip
_EXCEL_ROWS = 1_048_575


def export(
    engine: Engine,
    config: Config,
    *,
    as_of: datetime,
    landed_by: datetime | None = None,
    all_metrics: bool = False,
    predict: Predict | None = None,
) -> pd.DataFrame:
    """COLUMNS, one row per customer with a counted order at `as_of`, by customer_id.

    shop_customer_ids is `shop:id` of every shop that knows the customer today, joined by `|`; segments are joined
    by `|`, the cell of the recipe first. Instants are UTC, money is in minor units of `currency`. m is null where
    the recipe leaves money out. `landed_by`: only orders that had been landed here by then. `all_metrics`: every
    other metric of `customer_metrics` and of the windows as well. Raises ConfigError for unsound definitions.
    """
    definitions = define(config)
    with open_compute(config.segments_file.engine, engine) as compute, reading(engine) as connection:
        found = take_snapshot(
            connection,
            definitions,
            as_of,
            landed_by=landed_by,
            predict=predict,
            compute=as_seen_by(connection, compute),
        )
        known_as = _shop_customer_ids(connection)
    return _frame(found, definitions, known_as, all_metrics)


def _frame(
    found: Snapshot, definitions: Definitions, known_as: Mapping[int, str], all_metrics: bool
) -> pd.DataFrame:
    columns = dict(found.columns)
    columns["recency_days"] = (microseconds(found.as_of) - columns["last_order_at"]) // DAY_US
    columns["shop_customer_ids"] = np.array(
        [known_as.get(who, "") for who in columns["customer_id"].tolist()], object
    )
    columns["segments"] = _joined(found)
    columns["currency"] = np.full(len(columns["customer_id"]), definitions.currency, dtype=object)
    names = list(COLUMNS)
    if all_metrics:
        names += [name for name in metric_columns(definitions) if name not in COLUMNS]
    frame = pd.DataFrame({name: _series(columns[name], metric_columns(definitions).get(name)) for name in names})
    if "m" not in definitions.scored:
        frame["m"] = pd.array([pd.NA] * len(frame), dtype="Int64")
    return frame


def _joined(found: Snapshot) -> NDArray[np.object_]:
    """The names of everybody's segments."""
    joined = found.columns["rfm_segment"].astype(object)
    for segment, held in found.members.items():
        joined = joined + np.where(held, f"|{segment}", "").astype(object)
    return joined


def _series(values: NDArray[Any], kind: TypeEngine[Any] | None) -> pd.Series:
    if isinstance(kind, Instant):
        known = pd.Series(np.where(values == NULL, pd.NaT.value, values))
        return pd.to_datetime(known, unit="us", utc=True).where(values != NULL)
    return pd.Series(values, dtype=object if values.dtype == object else values.dtype)


def write_export(frame: pd.DataFrame, path: Path) -> None:
    """Write CSV, Parquet or Excel, as the name ends, whole or not at all.

    In CSV and Excel, which know no zones, instants are ISO texts ending in Z. Raises UsageError for another
    ending, a missing folder, and more rows than an Excel sheet holds.
    """
    check_ending(path)
    if path.suffix.lower() == ".xlsx" and len(frame) > _EXCEL_ROWS:
        raise UsageError(f"{path.name}: an Excel sheet holds {_EXCEL_ROWS:,} rows, not {len(frame):,}; write .csv")
    with whole_file(path) as file:
        _WRITERS[path.suffix.lower()](frame, file)


def check_ending(path: Path) -> None:
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(f"{path.name}: unknown kind of file; end the name in {', '.join(_WRITERS)}")


def _shop_customer_ids(connection: Connection) -> Mapping[int, str]:
    known_as: dict[int, list[str]] = defaultdict(list)
    columns = (identities.c.customer_id, identities.c.shop, identities.c.platform_customer_id)
    for customer, shop, platform_id in connection.execute(select(*columns)):
        known_as[customer].append(f"{shop}:{platform_id}")
    return {customer: "|".join(sorted(ids)) for customer, ids in known_as.items()}


def _as_texts(frame: pd.DataFrame) -> pd.DataFrame:
    instants = [str(name) for name in frame if isinstance(frame[name].dtype, pd.DatetimeTZDtype)]
    return frame.assign(**{name: frame[name].map(_as_text, na_action="ignore") for name in instants})


def _as_text(instant: pd.Timestamp) -> str:
    return instant.isoformat().replace("+00:00", "Z")


def _write_csv(frame: pd.DataFrame, file: IO[bytes]) -> None:
    _as_texts(frame).to_csv(file, index=False)


def _write_parquet(frame: pd.DataFrame, file: IO[bytes]) -> None:
    frame.to_parquet(file, index=False)


def _write_excel(frame: pd.DataFrame, file: IO[bytes]) -> None:
    _as_texts(frame).to_excel(file, index=False, sheet_name="segments")


_WRITERS: Mapping[str, Callable[[pd.DataFrame, IO[bytes]], None]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".xlsx": _write_excel,
}
