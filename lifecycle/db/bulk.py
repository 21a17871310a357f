"""Many rows at once. Always executemany: a list in `.values()` is compiled anew for every length and is more
than ten times slower."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Row, Select, Table
from sqlalchemy.dialects import postgresql, sqlite

_IN_LIST = 2_000  # SQLite takes 32,766 variables in one statement, PostgreSQL 65,535


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    key: Sequence[str],
    update: Sequence[str] = (),
    fixed: Mapping[str, Any] | None = None,
) -> None:
    """Insert `rows`; where one with the same unique `key` is there, set its columns `update` to the new values
    and its columns `fixed` to these, or leave it alone when there are none.

    All rows have the same keys.
    """
    if not rows:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    changes = {name: statement.excluded[name] for name in update} | dict(fixed or {})
    if changes:
        statement = statement.on_conflict_do_update(index_elements=list(key), set_=changes)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=list(key))
    connection.execute(statement, list(rows))


def rows_in(
    connection: Connection, query: Select[Any], column: ColumnElement[Any], values: Iterable[Any]
) -> Iterator[Row[Any]]:
    """The rows of `query` whose `column` is one of `values`, however many there are; in no order."""
    wanted = list(dict.fromkeys(values))
    for start in range(0, len(wanted), _IN_LIST):
        yield from connection.execute(query.where(column.in_(wanted[start : start + _IN_LIST])))


def load_numbers(connection: Connection, table: Table, names: Sequence[str], rows: NDArray[np.int64]) -> None:
    """Insert rows of whole numbers, one array row each, past SQLAlchemy: a million in about a second."""
    columns = ", ".join(names)
    cursor: Any = connection.connection.cursor()
    if connection.dialect.name == "postgresql":
        with cursor.copy(f"copy {table.name} ({columns}) from stdin") as copy:
            for row in rows.tolist():
                copy.write_row(row)
        return
    marks = ", ".join("?" * len(names))
    cursor.executemany(f"insert into {table.name} ({columns}) values ({marks})", rows.tolist())
