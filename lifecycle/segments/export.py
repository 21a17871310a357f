"""Members at any instant with all their metrics, straight from the orders: no build is needed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO

import pandas as pd
from sqlalchemy import ColumnElement, Connection, Engine, Select, case, select

from lifecycle.db.engine import reading
from lifecycle.db.schema import identities
from lifecycle.errors import UsageError
from lifecycle.segments.definitions import scored_metrics
from lifecycle.segments.rules import conditions, with_spend_rank
from lifecycle.settings import Config
from lifecycle.wholefile import whole_file

COLUMNS = (
    "customer_id", "shop_customer_ids", "segments", "recency_days", "frequency", "monetary_minor", "currency",
    "r", "f", "m", "rfm_segment", "first_order_at", "last_order_at", "orders_12m", "spend_12m_minor",
)  # fmt: skip
_INSTANTS = ("first_order_at", "last_order_at")
_EXCEL_ROWS = 1_048_575


def export(engine: Engine, config: Config, *, as_of: datetime) -> pd.DataFrame:
    """COLUMNS, one row per customer with a counted order at `as_of`, by customer_id.

    shop_customer_ids is `shop:id` of every shop that knows the customer today, joined by `|`; segments are joined
    by `|`, the RFM cell first. Instants are UTC, money is in minor units of `currency`, the base currency.
    """
    with reading(engine) as connection:
        rows = connection.execute(_with_segments(config, as_of))
        frame = pd.DataFrame(rows.all(), columns=list(rows.keys()))
        known_as = _shop_customer_ids(connection)
    frame["shop_customer_ids"] = [known_as.get(customer, "") for customer in frame["customer_id"]]
    frame["currency"] = config.base_currency
    for column in _INSTANTS:
        frame[column] = pd.to_datetime(frame[column], utc=True)
    return frame[list(COLUMNS)]


def write_export(frame: pd.DataFrame, path: Path) -> None:
    """Write CSV, Parquet or Excel, as the name ends, whole or not at all.

    In CSV and Excel, which know no zones, instants are ISO texts ending in Z. Raises UsageError for another
    ending, a missing folder, and more rows than an Excel sheet holds.
    """
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise UsageError(f"{path.name}: unknown kind of file; end the name in {', '.join(_WRITERS)}")
    if path.suffix.lower() == ".xlsx" and len(frame) > _EXCEL_ROWS:
        raise UsageError(f"{path.name}: an Excel sheet holds {_EXCEL_ROWS:,} rows, not {len(frame):,}; write .csv")
    with whole_file(path) as file:
        write(frame, file)


def _with_segments(config: Config, as_of: datetime) -> Select:
    ranked = with_spend_rank(scored_metrics(config, as_of).subquery("scored")).subquery("ranked")
    rules = conditions(ranked, config.segments_file.segments, base_currency=config.base_currency, as_of=as_of)
    segments: ColumnElement[str] = ranked.c.rfm_segment
    for name, holds in rules.items():
        segments = segments.concat(case((holds, f"|{name}"), else_=""))
    return select(ranked, segments.label("segments")).order_by(ranked.c.customer_id)


def _shop_customer_ids(connection: Connection) -> Mapping[int, str]:
    known_as: dict[int, list[str]] = defaultdict(list)
    columns = (identities.c.customer_id, identities.c.shop, identities.c.platform_customer_id)
    for customer, shop, platform_id in connection.execute(select(*columns)):
        known_as[customer].append(f"{shop}:{platform_id}")
    return {customer: "|".join(sorted(ids)) for customer, ids in known_as.items()}


def _as_texts(frame: pd.DataFrame) -> pd.DataFrame:
    texts = {column: frame[column].map(lambda t: t.isoformat().replace("+00:00", "Z")) for column in _INSTANTS}
    return frame.assign(**texts)


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
