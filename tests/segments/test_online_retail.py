"""RFM of a real shop with 5,800 customers, confirmed customer by customer by pandas."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import Engine

from lifecycle.segments.build import build
from lifecycle.settings import Config
from tests.segments.history import NOW, Order, add_customers, add_orders, stored_metrics


@pytest.fixture(scope="module")
def invoices(shared: Path) -> pd.DataFrame:
    """One row per invoice of a known customer: customer, at, total in pence; the newest is from yesterday."""
    folder = shared / "data" / "online_retail_ii"
    columns = ["Invoice", "Quantity", "InvoiceDate", "Price", "Customer ID"]
    lines = pd.concat(pd.read_parquet(path, columns=columns) for path in sorted(folder.glob("*.parquet")))
    lines = lines.dropna(subset=["Customer ID"])
    lines["total"] = (lines["Price"] * 100).round().astype("int64") * lines["Quantity"]
    keys = {"customer": ("Customer ID", "first"), "at": ("InvoiceDate", "min"), "total": ("total", "sum")}
    found = lines.groupby("Invoice").agg(**keys).reset_index()
    found["customer"] = found["customer"].astype("int64")
    found["at"] = found["at"].dt.tz_localize("UTC")
    found["at"] += pd.Timestamp(NOW - timedelta(days=1)) - found["at"].max()
    return found


def test_rfm_of_online_retail_ii(engine: Engine, config: Config, invoices: pd.DataFrame) -> None:
    cancelled = invoices["Invoice"].str.startswith("C")
    history = [
        Order(int(row.customer), row.at.to_pydatetime(), int(row.total), "returned" if back else "paid")
        for row, back in zip(invoices.itertuples(), cancelled, strict=True)
    ]
    add_customers(engine, sorted({int(customer) for customer in invoices["customer"]}))
    add_orders(engine, history)
    built = build(engine, config, as_of=NOW, now=NOW)

    wanted = _pandas_rfm(config, invoices, cancelled)
    stored = pd.DataFrame.from_dict(stored_metrics(engine), orient="index").sort_index()
    pd.testing.assert_frame_equal(stored[list(wanted.columns)], wanted, check_dtype=False, check_names=False)
    cells = wanted["rfm_segment"].value_counts()
    assert {cell: built.counts[cell] for cell in cells.index} == cells.to_dict()
    assert len(wanted) > 5_000


def _pandas_rfm(config: Config, invoices: pd.DataFrame, cancelled: pd.Series) -> pd.DataFrame:
    bought = invoices[~cancelled & (invoices["total"] > 0)]
    by_customer = bought.groupby("customer")
    rfm = pd.DataFrame(
        {
            "recency_days": (pd.Timestamp(NOW) - by_customer["at"].max()).dt.days,
            "frequency": by_customer.size(),
            "monetary_minor": by_customer["total"].sum(),
        }
    )
    given_back = invoices[cancelled].groupby("customer")["total"].sum()
    rfm["monetary_minor"] += given_back.reindex(rfm.index).fillna(0)
    for score, column, sign in (("r", "recency_days", -1), ("f", "frequency", 1), ("m", "monetary_minor", 1)):
        below = (sign * rfm[column]).rank(method="min") - 1
        rfm[score] = 1 + (5 * below // len(rfm)).astype(int)
    grid = {
        (r, f): cell.name
        for cell in config.segments_file.rfm.cells
        for r in range(cell.r[0], cell.r[1] + 1)
        for f in range(cell.f[0], cell.f[1] + 1)
    }
    rfm["rfm_segment"] = [grid[scores] for scores in zip(rfm["r"], rfm["f"], strict=True)]
    return rfm.sort_index()
