"""What a query reads, taken out of the store as Arrow: only its columns, all of one state, no row objects.

Instants leave as the whole microseconds that they are in SQLite: a copy is the same wherever it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Column, Connection, Engine, Select, Table, Text, select
from sqlalchemy.sql import visitors
from sqlalchemy.sql.selectable import AliasedReturnsRows

from lifecycle.db.schema import Real
from lifecycle.errors import ConfigError
from lifecycle.segments.state import NULL

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = "65536"
"""Rows that ADBC takes out of SQLite at once: with its own 1,024 it needs nearly twice the time."""


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


def tables_read(copy: OnCopy, query: Select[Any]) -> Iterator[tuple[Table, pa.RecordBatchReader]]:
    """Each table of the store that `query` reads, with the columns that it reads; take one before the next."""
    with closing(_connect(copy.store)) as store, closing(store.cursor()) as cursor:
        for statement in _one_state(copy):
            cursor.execute(statement)
        if copy.store.dialect.name == "sqlite":
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": _BATCH})
        for table, columns in columns_read(query).items():
            cursor.execute(str(select(*columns).compile(copy.store)))
            yield table, cursor.fetch_record_batch().cast(_schema(columns))


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


def _connect(store: Engine) -> Any:
    """A connection of ADBC. Its transaction begins by itself."""
    if store.dialect.name == "postgresql":
        from adbc_driver_postgresql import dbapi as postgresql

        uri = store.url.set(drivername="postgresql").render_as_string(hide_password=False)
        return postgresql.connect(uri)
    from adbc_driver_sqlite import dbapi as sqlite

    if store.url.database in (None, "", ":memory:"):
        raise ConfigError("TERN_DATABASE_URL: a database in memory cannot be copied out of; use sqlite:///path")
    return sqlite.connect(f"file:{quote(str(Path(store.url.database).resolve()))}?mode=ro")


def _one_state(copy: OnCopy) -> list[str]:
    """What makes all that is read next the same state; in SQLite any transaction does. There none can be shared,
    but nobody else writes while one that writes asks, and one that only reads begins with its first read."""
    if copy.store.dialect.name != "postgresql":
        return []
    statements = ["set transaction isolation level repeatable read, read only"]
    if copy.seen_by is not None:
        snapshot = copy.seen_by.exec_driver_sql("select pg_export_snapshot()").scalar_one()
        statements.append(f"set transaction snapshot '{snapshot}'")
    return statements
