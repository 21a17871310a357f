"""One of them, once, from the store to its result in memory. Prints JSON: seconds of reading and computing, the
peak memory of this process in MB, and sums to compare. Imports nothing of Tern.

python run.py pandas|lifetimes|pymc_summary|pymc_segments URL AS_OF [--reader=adbc] [--days=N]
"""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_QUERY = (
    "select customer_id, ordered_at, total_base_minor from orders "
    "where status = 'paid' and total_minor > 0 and customer_id is not null"
)
_CELLS = {
    "champions": "5[4-5]",
    "loyal_customers": "[3-4][4-5]",
    "potential_loyalists": "[4-5][2-3]",
    "new_customers": "51",
    "promising": "41",
    "need_attention": "33",
    "about_to_sleep": "3[1-2]",
    "cant_lose": "[1-2]5",
    "at_risk": "[1-2][3-4]",
    "hibernating": "[1-2][1-2]",
}
_WITH_FIRST = {"include_first_transaction": True}
_DAY = pd.Timedelta(days=1)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("method", "url", "as_of"):
        parser.add_argument(name)
    parser.add_argument("--reader", default="")
    parser.add_argument("--days", type=int, default=0)
    given = parser.parse_args()
    as_of = pd.Timestamp(given.as_of).tz_convert(None)
    compute = prepare(given.method, given.days)
    began = time.perf_counter()
    orders = read(given.url, as_of, given.reader)
    read_at = time.perf_counter()
    found = compute(orders, as_of)
    done = time.perf_counter()
    print(json.dumps({"read": read_at - began, "compute": done - read_at, "peak_mb": peak_mb(), **found()}))


def prepare(method: str, days: int) -> Callable[[pd.DataFrame, pd.Timestamp], Callable[[], dict[str, Any]]]:
    """The import, which is not measured, and what is; that returns what tells its sums."""
    if method == "pandas":
        return (lambda orders, as_of: day_by_day(orders, as_of, days)) if days else plain
    if method == "lifetimes":
        from lifetimes.utils import summary_data_from_transaction_data as summarize

        return lambda orders, as_of: package(summarize, "lifetimes", orders, as_of, **_WITH_FIRST)
    from pymc_marketing import clv

    if method == "pymc_segments":  # it always counts the first
        return lambda orders, as_of: package(clv.rfm_segments, "pymc-marketing", orders, as_of)
    return lambda orders, as_of: package(clv.rfm_summary, "pymc-marketing", orders, as_of, **_WITH_FIRST)


def read(url: str, as_of: pd.Timestamp, reader: str) -> pd.DataFrame:
    """Orders that count, `ordered_at` as an instant of UTC without a zone. Later ones are left out here: asked
    for that, SQLite takes an index with which it needs four times the time."""
    if url.startswith("sqlite"):
        orders = read_sqlite(url.removeprefix("sqlite:///"), reader)
        orders["ordered_at"] = pd.to_datetime(orders.ordered_at, unit="us")
    else:
        orders = read_postgresql(url, reader)
        orders["ordered_at"] = pd.to_datetime(orders.ordered_at, utc=True).dt.tz_convert(None)
    return orders[orders.ordered_at <= as_of]


def read_sqlite(path: str, reader: str) -> pd.DataFrame:
    if reader == "adbc":
        from adbc_driver_sqlite import dbapi

        with closing(dbapi.connect(path)) as connection:
            return pd.read_sql(_QUERY, connection)
    with closing(sqlite3.connect(path)) as connection:
        return pd.read_sql(_QUERY, connection)


def read_postgresql(url: str, reader: str) -> pd.DataFrame:
    if reader == "adbc":
        from adbc_driver_postgresql import dbapi

        with closing(dbapi.connect(url.replace("+psycopg", ""))) as connection:
            return pd.read_sql(_QUERY, connection)
    from sqlalchemy import create_engine

    with create_engine(url).connect() as connection:
        return pd.read_sql(_QUERY, connection)


def plain(orders: pd.DataFrame, as_of: pd.Timestamp) -> Callable[[], dict[str, Any]]:
    return told(segmented(orders, as_of))


def told(people: pd.DataFrame) -> Callable[[], dict[str, Any]]:
    return lambda: {
        "customers": len(people),
        "frequency": int(people.frequency.sum()),
        "monetary_minor": int(people.monetary.sum()),
        "counts": {
            **{name: int(count) for name, count in people.cell.value_counts().items()},
            **{name: int(people[name].sum()) for name in ("new", "one_time", "vip", "high_value", "dormant")},
        },
    }


def day_by_day(orders: pd.DataFrame, as_of: pd.Timestamp, days: int) -> Callable[[], dict[str, Any]]:
    """So many days, evenly spread over the year that ends at `as_of`; the first of them is told."""
    for back in np.linspace(0, 364, days).astype(int).tolist():
        day = as_of - back * _DAY
        people = segmented(orders[orders.ordered_at <= day], day)
    return told(people)


def segmented(orders: pd.DataFrame, as_of: pd.Timestamp) -> pd.DataFrame:
    """Metrics, scores by rank, the ten cells and the five segments of the life cycle, one row a customer."""
    by_customer = orders.groupby("customer_id")
    people = by_customer.agg(
        first=("ordered_at", "min"),
        last=("ordered_at", "max"),
        frequency=("total_base_minor", "count"),
        monetary=("total_base_minor", "sum"),
    )
    year = orders[orders.ordered_at > as_of - 365 * _DAY].groupby("customer_id").total_base_minor
    people["orders_12m"] = year.count().reindex(people.index, fill_value=0)
    people["spend_12m"] = year.sum().reindex(people.index, fill_value=0)
    people["recency_days"] = (as_of - people["last"]) // _DAY
    for score, values in (("r", -people.recency_days), ("f", people.frequency), ("m", people.monetary)):
        people[score] = 1 + (5 * (values.rank(method="min") - 1) // len(people)).astype(int)
    people["cell"] = cells()[5 * people.r + people.f - 6]
    buyers = people.spend_12m[people.orders_12m > 0]
    ahead = buyers.rank(method="min", ascending=False) - 1
    people["new"] = people["first"] >= as_of - 30 * _DAY
    people["one_time"] = people.frequency == 1
    people["vip"] = (20 * ahead < len(buyers)).reindex(people.index, fill_value=False)
    people["high_value"] = people.spend_12m > 50_000
    people["dormant"] = people["last"] < as_of - 90 * _DAY
    return people


def cells() -> np.ndarray:
    """By 5 (r - 1) + f - 1."""
    scores = [f"{r}{f}" for r in range(1, 6) for f in range(1, 6)]
    return np.array([next(name for name, of in _CELLS.items() if re.fullmatch(of, each)) for each in scores])


def package(
    summarize: Callable[..., pd.DataFrame], name: str, orders: pd.DataFrame, as_of: pd.Timestamp, **options: bool
) -> Callable[[], dict[str, Any]]:
    """With the first order counted, so that the sums are everybody's: frequency is days with an order, monetary
    value the mean of a day."""
    columns = ("customer_id", "ordered_at", "total_base_minor")
    people = summarize(orders, *columns, observation_period_end=as_of, **options)
    return lambda: {
        "version": version(name),
        "customers": len(people),
        "order_days": int(people.frequency.sum()),
        "monetary_minor": round((people.frequency * people.monetary_value).sum()),
    }


def peak_mb() -> float | None:
    """None where the kernel does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
