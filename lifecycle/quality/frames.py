"""Rows as typed pandas frames for the checks. Text is object, numbers float64, instants datetime64[us, UTC].

A value that is none of its type (a naive instant, an amount that is not finite) is missing in the frame and
stands untouched in the row.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lifecycle.platforms.records import ConsentFact, CustomerRow, LineRow, OrderRow, RefundRow

if TYPE_CHECKING:
    import pandas as pd


def order_frame(rows: Sequence[OrderRow]) -> pd.DataFrame:
    """One row per order, indexed by its place in `rows`."""
    frame = _frame(
        rows,
        text=("order_id", "currency", "status", "country"),
        numbers=("total", "refunded", "discount", "tax", "shipping"),
        instants=("ordered_at", "updated_at"),
    )
    frame["conflict"] = _series(_conflicts(rows), "object")
    return frame


def line_frame(lines: Sequence[LineRow]) -> pd.DataFrame:
    return _frame(lines, text=("sku",), numbers=("quantity", "unit_price"))


def refund_frame(refunds: Sequence[RefundRow]) -> pd.DataFrame:
    return _frame(refunds, numbers=("amount",))


def customer_frame(rows: Sequence[CustomerRow]) -> pd.DataFrame:
    """One row per customer, indexed by its place in `rows`."""
    return _frame(rows, text=("customer_id",), instants=("updated_at",))


def consent_frame(facts: Sequence[ConsentFact]) -> pd.DataFrame:
    return _frame(facts, text=("channel", "topic", "status"), instants=("occurred_at",))


def _conflicts(rows: Sequence[OrderRow]) -> list[str | None]:
    """The same text for orders that contradict each other: one order, one updated_at, several contents.

    A row that moved to a later page while the pages were read comes twice and does not contradict itself.
    """
    places: dict[tuple[str | None, datetime | None], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[row.order_id, row.updated_at].append(place)
    conflicts: list[str | None] = [None] * len(rows)
    for (order_id, updated_at), found in places.items():
        if order_id and len(found) > 1 and not _all_equal([rows[place] for place in found]):
            for place in found:
                conflicts[place] = f"{order_id} {updated_at}"
    return conflicts


def _all_equal(rows: Sequence[OrderRow]) -> bool:
    first, *others = (dataclasses.replace(row, raw=None) for row in rows)
    return all(other == first for other in others)


def _frame(
    items: Sequence[Any], *, text: Iterable[str] = (), numbers: Iterable[str] = (), instants: Iterable[str] = ()
) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, Any] = {}
    kinds: tuple[tuple[Iterable[str], Callable[[Any], Any], str], ...] = (
        (text, _text, "object"),
        (numbers, _number, "float64"),
        (instants, _instant, "datetime64[us, UTC]"),
    )
    for names, convert, dtype in kinds:
        for name in names:
            columns[name] = _series([convert(getattr(item, name)) for item in items], dtype)
    return pd.DataFrame(columns)


def _series(values: list[Any], dtype: str) -> pd.Series[Any]:
    import pandas as pd

    return pd.Series(values, dtype=dtype)


def _text(value: Any) -> str | None:
    return value or None


def _number(value: Any) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (OverflowError, ValueError):
        return None


def _instant(value: datetime | None) -> datetime | None:
    return value if value is not None and value.tzinfo is not None else None
