"""Published RFM tables, reproduced by configuration alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Engine

from lifecycle.segments.export import export
from lifecycle.settings import Config
from tests.segments.history import Order, add_customers, add_orders

ANALYSIS_DATE = datetime(2006, 12, 31, tzinfo=UTC)
RECIPE: dict[str, Any] = {
    "by": "value_quantiles",
    "scores": 5,
    "recency": {"shift": 1},
    "frequency": {"shift": 1},
    "monetary": {"shift": 1},
    "match": "first",
    "otherwise": "others",
    "map": [
        {"name": "champions", "r": [5, 5], "f": [5, 5], "m": [5, 5]},
        {"name": "potential_loyalist", "r": [3, 5], "f": [3, 5], "m": [2, 5]},
        {"name": "loyal_customers", "r": [2, 4], "f": [2, 4], "m": [2, 4]},
        {"name": "promising", "r": [3, 4], "f": [1, 3], "m": [3, 5]},
        {"name": "new_customers", "r": [4, 5], "f": [1, 3], "m": [1, 5]},
        {"name": "cant_lose", "r": [1, 2], "f": [3, 4], "m": [4, 5]},
        {"name": "at_risk", "r": [1, 2], "f": [2, 5], "m": [4, 5]},
        {"name": "need_attention", "r": [1, 3], "f": [3, 5], "m": [3, 5]},
        {"name": "about_to_sleep", "r": [2, 3], "f": [1, 3], "m": [1, 4]},
        {"name": "lost", "r": [1, 1], "f": [1, 5], "m": [1, 5]},
    ],
}
"""R package rfm 0.3, reference page of rfm_segment_summary: its intervals, the first that fits counts; its bins
are [low, high) of quantiles to each of which it adds 1."""
PUBLISHED = {  # customers, orders, revenue: the table of that page
    "about_to_sleep": (102, 283, 23449),
    "at_risk": (28, 216, 22227),
    "cant_lose": (47, 274, 32446),
    "champions": (35, 316, 31646),
    "lost": (148, 393, 35324),
    "loyal_customers": (170, 799, 76562),
    "need_attention": (10, 57, 4562),
    "new_customers": (104, 329, 28837),
    "potential_loyalist": (342, 2211, 204856),
    "promising": (9, 28, 4249),
}
SCORES = {  # customer: recency_days, orders, revenue, score: introduction to the package, first rows
    "Abbey O'Reilly": (205, 6, 472, 343),
    "Add Senger": (140, 3, 340, 412),
    "Aden Lesch": (194, 4, 405, 323),
    "Admiral Senger": (132, 5, 448, 433),
    "Agness O'Keefe": (90, 9, 843, 555),
    "Aileen Barton": (84, 9, 763, 555),
    "Ailene Hermann": (281, 8, 699, 355),
    "Aiyanna Bruen": (246, 4, 157, 321),
    "Ala Schmidt": (349, 3, 363, 212),
    "Alannah Borer": (619, 4, 196, 121),
}


@pytest.fixture
def rfm_data(engine: Engine, shared: Path) -> list[str]:
    """The orders of rfm_data_orders are stored; the names of the customers, from number 1 on."""
    orders = pd.read_csv(shared / "data" / "rfm_r_orders" / "rfm_data_orders.csv", parse_dates=["order_date"])
    names = sorted(set(orders["customer_id"]))
    numbers = {name: number for number, name in enumerate(names, start=1)}
    add_customers(engine, numbers.values())
    dated = orders["order_date"].dt.tz_localize("UTC")
    rows = zip(orders["customer_id"], dated, orders["revenue"], strict=True)
    add_orders(
        engine, [Order(numbers[name], at.to_pydatetime(), 100 * int(revenue)) for name, at, revenue in rows]
    )
    return names


def test_the_table_of_the_r_package_rfm(
    engine: Engine, changed: Callable[..., Config], rfm_data: list[str]
) -> None:
    config = changed(segments_file={"recipe": "published", "recipes": {"published": RECIPE}, "segments": {}})
    frame = export(engine, config, as_of=ANALYSIS_DATE)
    frame["name"] = [rfm_data[number - 1] for number in frame["customer_id"]]
    by_segment = frame.groupby("rfm_segment").agg(
        customers=("customer_id", "size"), orders=("frequency", "sum"), revenue=("monetary_minor", "sum")
    )
    found = {name: (row.customers, row.orders, row.revenue // 100) for name, row in by_segment.iterrows()}
    assert found == PUBLISHED

    frame["score"] = 100 * frame["r"] + 10 * frame["f"] + frame["m"]
    people = frame.set_index("name")
    for name, wanted in SCORES.items():
        row = people.loc[name]
        assert (row["recency_days"], row["frequency"], row["monetary_minor"] // 100, row["score"]) == wanted, name
