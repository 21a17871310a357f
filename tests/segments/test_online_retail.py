"""RFM of a real shop with 5,800 customers, confirmed customer by customer by pandas."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
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


COUNTS = {  # of the two years, net of returns; each confirmed below, customer by customer
    "ten_cells": {
        "about_to_sleep": 423, "at_risk": 644, "cant_lose": 64, "champions": 787, "hibernating": 1644,
        "loyal_customers": 1090, "need_attention": 285, "new_customers": 66, "potential_loyalists": 706,
        "promising": 169,
    },
    "eleven_cells": {
        "about_to_sleep": 293, "at_risk": 516, "cant_lose": 99, "champions": 1146, "hibernating": 1033,
        "lost": 671, "loyal_customers": 660, "need_attention": 344, "new_customers": 342,
        "potential_loyalists": 606,
        "promising": 168,
    },
    "first_match": {
        "about_to_sleep": 243, "at_risk": 702, "champions": 1334, "lost": 451, "loyal_customers": 1772,
        "need_attention": 333, "others": 215, "potential_loyalists": 828,
    },
}  # fmt: skip


@pytest.mark.parametrize("recipe", COUNTS)
def test_rfm_of_online_retail_ii(engine: Engine, config: Config, invoices: pd.DataFrame, recipe: str) -> None:
    config = config.with_recipe(recipe)
    cancelled = invoices["Invoice"].str.startswith("C")
    history = [
        Order(int(row.customer), row.at.to_pydatetime(), int(row.total), "returned" if back else "paid")
        for row, back in zip(invoices.itertuples(), cancelled, strict=True)
    ]
    add_customers(engine, sorted({int(customer) for customer in invoices["customer"]}))
    add_orders(engine, history)
    built = build(engine, config, as_of=NOW, now=NOW)

    wanted = _pandas_rfm(config, recipe, invoices, cancelled)
    stored = pd.DataFrame.from_dict(stored_metrics(engine), orient="index").sort_index()
    stored["recency_days"] = (pd.Timestamp(NOW) - stored["last_order_at"]).dt.days
    pd.testing.assert_frame_equal(stored[list(wanted.columns)], wanted, check_dtype=False, check_names=False)
    cells = wanted["rfm_segment"].value_counts()
    assert {cell: built.counts[cell] for cell in cells.index} == cells.to_dict()
    assert cells.to_dict() == COUNTS[recipe]


def _pandas_rfm(config: Config, recipe: str, invoices: pd.DataFrame, cancelled: pd.Series) -> pd.DataFrame:
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
    score = {"ten_cells": _share_scores, "eleven_cells": _rank_scores, "first_match": _quantile_scores}[recipe]
    for letter, column in (("r", "recency_days"), ("f", "frequency"), ("m", "monetary_minor")):
        rfm[letter] = score(rfm[column], reverse=letter == "r")
    rfm["rfm_segment"] = [config.recipe.cells[scores] for scores in zip(rfm["r"], rfm["f"], rfm["m"], strict=True)]
    return rfm.sort_index()


def _share_scores(values: pd.Series, *, reverse: bool) -> pd.Series:
    worse = values.rank(method="min", ascending=not reverse) - 1
    return 1 + (5 * worse // len(values)).astype(int)


def _rank_scores(values: pd.Series, *, reverse: bool) -> pd.Series:
    """qcut of rank(method="first"), ties in the order of the customers."""
    bins = pd.qcut(values.rank(method="first"), 5, labels=False).astype(int)
    return 5 - bins if reverse else bins + 1


def _quantile_scores(values: pd.Series, *, reverse: bool) -> pd.Series:
    """Bins [low, high) of type-7 quantiles."""
    bins = np.searchsorted(values.quantile([0.2, 0.4, 0.6, 0.8]).to_numpy(), values, side="right")
    return pd.Series(5 - bins if reverse else bins + 1, index=values.index)
