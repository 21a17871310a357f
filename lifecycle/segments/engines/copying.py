"""What a query reads, taken out of the store as Arrow: only its columns, all of one state, no row objects.

Instants leave as the whole microseconds that they are in SQLite: a copy is the same wherever it comes from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Column, Connection, Engine, Select, Table, Text, select
from sqlalchemy.sql import visitors
from sqlalchemy.sql.selectable import AliasedReturnsRows

from lifecycle.db.arrays import NULL
from lifecycle.db.schema import Real
from lifecycle.errors import ConfigError, TernError
from lifecycle.segments.engines import sqlite_reader
from lifecycle.segments.state import Compute

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class OnCopy:
    """A Compute that copies what each query reads to where it runs."""

    store: Engine
    scratch: Path | None = None
    """Folder for what does not fit into memory."""
    seen_by: Connection | None = None
    """Copy the state of the store that this transaction sees, without what it wrote itself; None: the newest."""

    def __call__(self, query: Select[Any]) -> dict[str, NDArray[Any]]:
        raise NotImplementedError

    def seeing(self, connection: Connection) -> Self:
        return replace(self, seen_by=connection)


def as_seen_by(connection: Connection, compute: Compute | None) -> Compute | None:
    """The same, of the state that `connection` sees."""
    return compute.seeing(connection) if isinstance(compute, OnCopy) else compute


def tables_read(copy: OnCopy, query: Select[Any]) -> Iterator[tuple[Table, pa.RecordBatchReader]]:
    """Each table of the store that `query` reads, with the columns that it reads; take one before the next."""
    read = columns_read(query)
    statements = [str(select(*columns).compile(copy.store)) for columns in read.values()]
    results = _from_postgresql if copy.store.dialect.name == "postgresql" else _from_sqlite
    with closing(results(copy, statements)) as found:
        for (table, columns), batches in zip(read.items(), found, strict=True):
            yield table, batches.cast(_schema(columns))


def columns_read(query: Select[Any]) -> dict[Table, list[Column[Any]]]:
    """The columns of tables that a query names anywhere; the key of a table of which it names none."""
    found: dict[Table, dict[str, Column[Any]]] = {}
    for each in visitors.iterate(query):
        if isinstance(table := _table(each), Table):
            found.setdefault(table, {})
        if isinstance(each, Column) and isinstance(table := _table(each.table), Table):
            found.setdefault(table, {})[each.name] = table.c[each.name]
    return {table: list(columns.values()) or list(table.primary_key) for table, columns in found.items()}


def as_arrays(table: pa.Table) -> dict[str, NDArray[Any]]:
    """As lifecycle.segments.state.arrays gives them."""
    return {name: np.require(_as_array(table[name]), requirements="W") for name in table.column_names}


def _as_array(column: pa.ChunkedArray) -> NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column.to_numpy()
    if pa.types.is_floating(column.type):
        return column.cast(pa.float64()).to_numpy()
    return column.cast(pa.int64()).fill_null(NULL).to_numpy()


def _table(element: Any) -> Any:
    while isinstance(element, AliasedReturnsRows):
        element = element.element
    return element


def _schema(columns: Sequence[Column[Any]]) -> pa.Schema:
    import pyarrow as pa

    def kind(column: Column[Any]) -> pa.DataType:
        if isinstance(column.type, Text):
            return pa.string()
        return pa.float64() if isinstance(column.type, type(Real)) else pa.int64()

    return pa.schema([(column.name, kind(column)) for column in columns])


def _from_postgresql(copy: OnCopy, statements: Sequence[str]) -> Generator[pa.RecordBatchReader, None, None]:
    from adbc_driver_postgresql import dbapi

    uri = copy.store.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with closing(dbapi.connect(uri)) as store, closing(store.cursor()) as cursor:
        cursor.execute("set transaction isolation level repeatable read, read only")
        if copy.seen_by is not None:
            snapshot = copy.seen_by.exec_driver_sql("select pg_export_snapshot()").scalar_one()
            cursor.execute(f"set transaction snapshot '{snapshot}'")
        for statement in statements:
            cursor.execute(statement)
            yield cursor.fetch_record_batch()


def _from_sqlite(copy: OnCopy, statements: Sequence[str]) -> Generator[pa.RecordBatchReader, None, None]:
    """Transactions cannot share a state here; but while one that writes asks, nobody else does, and one that only
    reads begins with its first read."""
    import pyarrow as pa

    if copy.store.url.database in (None, "", ":memory:"):
        raise ConfigError("TERN_DATABASE_URL: a database in memory cannot be copied out of; use sqlite:///path")
    uri = f"file:{quote(str(Path(copy.store.url.database).resolve()))}?mode=ro"
    # -P, because this folder has a module that is named like the duckdb package.
    command = [sys.executable, "-P", sqlite_reader.__file__, uri]
    with TemporaryFile() as errors, Popen(command, stdin=PIPE, stdout=PIPE, stderr=errors) as reader:
        assert reader.stdin and reader.stdout
        with reader.stdin as stdin:
            stdin.write(json.dumps(statements).encode())
        for _ in statements:
            try:
                batches = pa.ipc.open_stream(reader.stdout)
            except pa.ArrowInvalid:
                reader.wait()
                errors.seek(0)
                raise TernError(f"the database cannot be copied out of: {_last_line(errors.read())}") from None
            yield batches


def _last_line(output: bytes) -> str:
    return (output.decode(errors="replace").strip().splitlines() or ["its reader ended early"])[-1]
