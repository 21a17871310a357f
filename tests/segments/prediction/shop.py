"""Orders for these tests: put into a database, simulated by the models themselves, summarised the obvious way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Engine, insert

from lifecycle.db.engine import writing
from lifecycle.db.schema import customers, orders
from lifecycle.segments.prediction.bgnbd import BgNbd
from lifecycle.segments.prediction.summary import Purchases

CDNOW = BgNbd(r=0.243, alpha=4.414, a=0.793, b=2.426)
"""As published: Fader, Hardie and Lee (2005), table 2; weeks."""
CDNOW_BEGAN = datetime(1997, 1, 1, tzinfo=UTC)
CDNOW_SPLIT = datetime(1997, 9, 30, 23, tzinfo=UTC)
"""39 weeks; the published fits end here."""
CDNOW_END = datetime(1998, 6, 30, 23, tzinfo=UTC)


def cdnow_sample(shared: Path) -> pd.DataFrame:
    """customer_id, at, total_minor of each line: one order each."""
    lines = pd.read_csv(shared / "data/cdnow/cdnow_sample.csv")
    return _orders(lines["sample_id"], lines["date"], lines["amount"])


def cdnow_master(shared: Path) -> pd.DataFrame:
    lines = pd.read_parquet(shared / "data/cdnow/cdnow_master.parquet")
    return _orders(lines["customer_id"], lines["date"], lines["amount"])


def _orders(customer: pd.Series, date: pd.Series, amount: pd.Series) -> pd.DataFrame:
    at = pd.to_datetime(date).dt.tz_localize("UTC") + pd.Timedelta(hours=12)
    minor = (amount * 100).round().astype(np.int64)
    return pd.DataFrame({"customer_id": customer.astype(np.int64), "at": at, "total_minor": minor})


def add_orders(engine: Engine, history: pd.DataFrame) -> None:
    """`history`: customer_id, at, total_minor, and optionally status and refunded_minor."""
    history = history.assign(
        status=history.get("status", "paid"), refunded_minor=history.get("refunded_minor", 0)
    ).reset_index(drop=True)
    with writing(engine) as connection:
        people = history["customer_id"].dropna().astype(int).unique().tolist()
        connection.execute(
            insert(customers),
            [
                {"customer_id": i, "seed": i, "first_seen_at": CDNOW_BEGAN, "updated_at": CDNOW_BEGAN}
                for i in people
            ],
        )
        connection.execute(insert(orders), [_order(row) for row in history.itertuples()])


def _order(row: Any) -> dict[str, Any]:
    at = row.at.to_pydatetime()
    return {
        "shop": "atlas",
        "order_id": str(row.Index),
        "customer_id": None if pd.isna(row.customer_id) else int(row.customer_id),
        "ordered_at": at,
        "updated_at": at,
        "status": row.status,
        "currency": "EUR",
        "total_minor": int(row.total_minor),
        "total_base_minor": int(row.total_minor),
        "refunded_minor": int(row.refunded_minor),
        "refunded_base_minor": int(row.refunded_minor),
        "line_count": 1,
        "content_hash": str(row.Index),
        "landed_at": at,
    }


def summarise(history: pd.DataFrame, as_of: datetime) -> Purchases:
    """Of orders that all count."""
    seen = history[history["at"] <= as_of].assign(day=lambda f: f["at"].dt.floor("D"))
    days = seen.groupby(["customer_id", "day"], as_index=False)["total_minor"].sum()
    each = days.groupby("customer_id").agg(first=("day", "min"), last=("day", "max"), days=("day", "size"))
    each["total"] = days.groupby("customer_id")["total_minor"].sum()
    each["of_first"] = days.groupby("customer_id")["total_minor"].first()
    today = pd.Timestamp(as_of).floor("D")
    columns = (
        each.index,
        each["days"] - 1,
        (each["last"] - each["first"]).dt.days,
        (today - each["first"]).dt.days,
        each["total"] - each["of_first"],
    )
    return Purchases(*(np.asarray(column, dtype=np.int64) for column in columns))


@dataclass(frozen=True)
class Simulated:
    """Of each customer: x, t_x, T and what followed within the horizon; and of each order its customer and its
    time after their first. Weeks."""

    frequency: NDArray
    recency: NDArray
    age: NDArray
    followed: NDArray
    alive: NDArray
    customer: NDArray
    time: NDArray


def simulate(model: BgNbd, age: NDArray, horizon: float, seed: int) -> Simulated:
    """The story of the model: order at your own rate, after each order toss your own coin."""
    rng = np.random.default_rng(seed)
    size = len(age)
    rate, dropout = rng.gamma(model.r, 1 / model.alpha, size), rng.beta(model.a, model.b, size)
    x, followed, last, now = (np.zeros(size) for _ in range(4))
    there, alive = np.ones(size, bool), np.ones(size, bool)
    who, when = [np.arange(size)], [np.zeros(size)]
    while there.any():
        now = now + rng.exponential(1, size) / np.maximum(rate, 1e-300)
        before, after = there & (now <= age), there & (now > age) & (now <= age + horizon)
        x, followed, last = x + before, followed + after, np.where(before, now, last)
        who.append(np.flatnonzero(before | after))
        when.append(now[before | after])
        stays = rng.random(size) > dropout
        alive &= ~before | stays
        there = (before | after) & stays
    return Simulated(x, last, age, followed, alive, np.concatenate(who), np.concatenate(when))


def simulated_orders(model: BgNbd, size: int, weeks: int, as_of: datetime, seed: int) -> pd.DataFrame:
    """A shop's first `weeks`, until `as_of`; customers come in all the time. Gamma-gamma spends with p = 6, q = 4
    and v = 15 units."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(0, weeks, size)
    told = simulate(model, age, 0.0, seed)
    ago = np.ceil((age[told.customer] - told.time) * 7 * 86_400).astype(np.int64)
    at = pd.Timestamp(as_of) - pd.to_timedelta(ago, unit="s")
    minor = np.rint(100 * rng.gamma(6, 1 / rng.gamma(4, 1 / 15, size)[told.customer])).astype(np.int64)
    return pd.DataFrame({"customer_id": told.customer + 1, "at": at, "total_minor": np.maximum(minor, 1)})
