"""The suites of lifecycle.quality as masks in pandas, as one would write them without a library for checks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from lifecycle.platforms.records import OrderRow
from lifecycle.quality import frames, suites
from lifecycle.quality.suites import Expected


def failing_orders(rows: Sequence[OrderRow], *, now: datetime) -> set[int]:
    """Places in `rows` of orders that fail, themselves or in one of their lines and refunds."""
    failed = _failing(frames.order_frame(rows), suites.ORDERS, now)
    for part, frame, suite in (
        ("lines", frames.line_frame, suites.LINES),
        ("refunds", frames.refund_frame, suites.REFUNDS),
    ):
        owners = [index for index, row in enumerate(rows) for _ in getattr(row, part)]
        items = [item for row in rows for item in getattr(row, part)]
        failed |= {owners[place] for place in _failing(frame(items), suite, now)}
    return failed


def _failing(frame: pd.DataFrame, suite: Sequence[Expected], now: datetime) -> set[int]:
    return {place for expected in suite for place in frame.index[_mask(frame, expected, now)]}


def _mask(frame: pd.DataFrame, expected: Expected, now: datetime) -> pd.Series[bool]:
    """True where a row fails."""
    column, arguments = frame[expected.column], expected.arguments
    match expected.kind:
        case "ExpectColumnValuesToNotBeNull":
            return column.isna()
        case "ExpectColumnValuesToBeUnique":
            return column.notna() & column.duplicated(keep=False)
        case "ExpectColumnValuesToBeInSet":
            return column.notna() & ~column.isin(arguments["value_set"])
        case "ExpectColumnValuesToNotBeInSet":
            return column.isin(arguments["value_set"])
        case "ExpectColumnPairValuesAToBeGreaterThanB":
            failing = frame[arguments["column_A"]] < frame[arguments["column_B"]]
        case "ExpectColumnValuesToBeBetween":
            failing = pd.Series(False, index=frame.index)
            if "min_value" in arguments:
                failing |= column < _limit(arguments["min_value"], now)
            if "max_value" in arguments:
                failing |= column > _limit(arguments["max_value"], now)
        case other:
            raise NotImplementedError(other)
    return failing & frame["status"].isin(expected.only_status) if expected.only_status else failing


def _limit(value: Any, now: datetime) -> float | datetime:
    return now + timedelta(days=1) if value is suites.TOMORROW else value
