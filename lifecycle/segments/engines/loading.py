"""What an engine computed, into a table of the store."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from numpy.typing import NDArray
from sqlalchemy import Connection, Select, Table
from sqlalchemy.types import TypeEngine

from lifecycle.db.arrays import NULL, Arrays
from lifecycle.db.schema import Instant
from lifecycle.segments.engines.copying import as_seen_by
from lifecycle.segments.state import Compute

_BATCH = 100_000


def load(connection: Connection, table: Table, query: Select[Any], compute: Compute) -> None:
    """Insert what `compute` makes of `query` as of the state that `connection` sees. Each of its columns has its
    like in `table`."""
    columns = (as_seen_by(connection, compute) or compute)(query)
    if connection.dialect.name == "postgresql":
        _copy(connection, table, columns)
    else:
        _insert(connection, table, columns)


def _insert(connection: Connection, table: Table, columns: Arrays) -> None:
    marks = ", ".join("?" * len(columns))
    cursor: Any = connection.connection.cursor()
    for batch in _batches(columns):
        rows = zip(*(_with_none(values) for values in batch.values()), strict=True)
        cursor.executemany(f"insert into {table.name} ({', '.join(batch)}) values ({marks})", rows)


def _copy(connection: Connection, table: Table, columns: Arrays) -> None:
    """As CSV, in which Arrow writes a batch at once and PostgreSQL reads instants."""
    import pyarrow as pa
    from pyarrow import csv

    cursor: Any = connection.connection.cursor()
    with cursor.copy(f"copy {table.name} ({', '.join(columns)}) from stdin (format csv)") as copy:
        for batch in _batches(columns):
            text = BytesIO()
            found = pa.table({name: _as_arrow(values, table.c[name].type) for name, values in batch.items()})
            csv.write_csv(found, text, csv.WriteOptions(include_header=False))
            copy.write(text.getvalue())


def _batches(columns: Arrays) -> Iterator[dict[str, NDArray[Any]]]:
    for start in range(0, len(next(iter(columns.values()))), _BATCH):
        yield {name: values[start : start + _BATCH] for name, values in columns.items()}


def _with_none(values: NDArray[Any]) -> list[Any]:
    if not (unknown := values == NULL).any():
        return values.tolist()
    found = values.astype(object)
    found[unknown] = None
    return found.tolist()


def _as_arrow(values: NDArray[Any], kind: TypeEngine[Any]) -> Any:
    import pyarrow as pa

    if values.dtype == object:
        return pa.array(values, pa.string())
    stored_as = pa.timestamp("us", "UTC") if isinstance(kind, Instant) else pa.int64()
    return pa.array(values, stored_as, mask=values == NULL)
