"""The result of a query as columns of numbers, for what is computed over everybody at once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Select, cast, func, literal, select
from sqlalchemy.types import Text, TypeEngine

from lifecycle.db.instants import elapsed
from lifecycle.db.schema import Big, Instant, Real

Arrays = Mapping[str, NDArray[Any]]
"""Columns by name, all of one length. Instants are microseconds since 1970."""
NULL = int(np.iinfo(np.int64).min)
"""What stands for an unknown whole number or instant in an array; an unknown text is None, an unknown real nan."""

EPOCH = literal(datetime(1970, 1, 1, tzinfo=UTC), Instant())
_BATCH = 50_000


def arrays(connection: Connection, query: Select[Any]) -> dict[str, NDArray[Any]]:
    """The result of `query` as arrays; whole numbers are int64, instants among them."""
    rows = query.subquery("rows")
    plain = {each.name: _plain(each) for each in rows.c}
    if all(_array_type(each.type) is np.int64 for each in rows.c):
        return _whole_numbers(connection, plain)
    kinds = {each.name: _array_type(each.type) for each in rows.c}
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in plain}
    result = connection.execute(select(*plain.values()).execution_options(yield_per=_BATCH))
    for batch in result.partitions(_BATCH):
        for (name, collected), values in zip(parts.items(), zip(*batch, strict=True), strict=True):
            collected.append(np.array(values, dtype=kinds[name]))
    return {
        name: np.concatenate(each) if each else np.array([], dtype=kinds[name]) for name, each in parts.items()
    }


def _whole_numbers(connection: Connection, columns: Mapping[str, ColumnElement[int]]) -> dict[str, NDArray[Any]]:
    """Each column as one text of numbers: five times faster than a million rows of Python objects."""
    texts = [func.aggregate_strings(cast(each, Text), ",") for each in columns.values()]
    (found,) = connection.execute(select(*texts))
    return {
        name: np.fromstring(numbers or "", dtype=np.int64, sep=",")
        for name, numbers in zip(columns, found, strict=True)
    }


def _plain(each: ColumnElement[Any]) -> ColumnElement[Any]:
    """As a whole number without nulls, where it is one."""
    if isinstance(each.type, Instant):
        return func.coalesce(elapsed(EPOCH, each), literal(NULL, Big))
    return func.coalesce(each, literal(NULL, Big)) if _array_type(each.type) is np.int64 else each


def _array_type(kind: TypeEngine[Any]) -> Any:
    if isinstance(kind, Text):
        return object
    return np.float64 if isinstance(kind, type(Real)) else np.int64
