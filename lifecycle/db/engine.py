"""Connections: SQLite in WAL mode by default, PostgreSQL where TERN_DATABASE_URL says so."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.schema import CreateTable, DropTable

from lifecycle.errors import ConfigError, NotReady

MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_TIMEOUT_MS = 60_000
_RESERVE_LOCK = 0x7E5E  # any constant: one lock for every reservation
_INTAKE_LOCK = 0x7E5F


def open_engine(url: str) -> Engine:
    """An engine, whether or not the database is migrated. Raises ConfigError for an unusable URL."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError("TERN_DATABASE_URL is no database URL; use sqlite:///path or postgresql://…") from None
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True, hide_parameters=True)
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, hide_parameters=True)  # an error must not carry addresses
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def open_database(url: str) -> Engine:
    """An engine on a database that is migrated to this code's newest revision. Raises NotReady."""
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
    except OperationalError as error:
        raise NotReady(f"the database does not answer: {_first_line(error)}") from None
    wanted = newest_revision()
    if found == wanted:
        return engine
    if found is None:
        raise NotReady("the database is empty; run: tern init")
    raise NotReady(f"the database is at revision {found}, this code needs {wanted}; run: tern init")


def migrate(url: str) -> tuple[str | None, str]:
    """Create or migrate. Returns the revision before (None for a new database) and after."""
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            before = MigrationContext.configure(connection).get_current_revision()
            connection.rollback()
            if engine.dialect.name == "sqlite":  # else a table that triggers of others name cannot be rebuilt
                connection.exec_driver_sql("pragma legacy_alter_table = on")
            configuration = _alembic()
            configuration.attributes["connection"] = connection
            command.upgrade(configuration, "head")
            connection.commit()
    except OperationalError as error:
        raise NotReady(f"the database does not answer: {_first_line(error)}") from None
    finally:
        engine.dispose()
    return before, newest_revision()


def newest_revision() -> str:
    revision = ScriptDirectory.from_config(_alembic()).get_current_head()
    assert revision is not None, "the migrations folder is part of the program"
    return revision


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one state of the database."""
    options: dict[str, Any] = {}
    if engine.dialect.name == "postgresql":
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


@contextmanager
def one_session(engine: Engine, work_tables: Sequence[Table]) -> Iterator[Connection]:
    """A long transaction that sees one state of the database, beside which others write, with empty temporary
    tables of its own to work in."""
    options = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with engine.connect().execution_options(**options) as connection:
        for table in work_tables:
            connection.execute(CreateTable(table))
        connection.commit()
        try:
            with connection.begin():
                yield connection
        finally:
            for table in work_tables:
                connection.execute(DropTable(table))
            connection.commit()


@contextmanager
def writing(engine: Engine, *, one_state: bool = False) -> Iterator[Connection]:
    """A transaction that writes: all of it or nothing. SQLite takes the write lock at once (BEGIN IMMEDIATE),
    because a read that turns into a write later may act on what another process has changed since.

    `one_state`: all its statements see the database as the first of them does; a lock that it takes must be that
    first one. In SQLite that is always so."""
    options: dict[str, Any] = {"tern_write": True}
    if one_state and engine.dialect.name == "postgresql":
        options["isolation_level"] = "REPEATABLE READ"
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


def analyze(connection: Connection, table: Table) -> None:
    """PostgreSQL does not look at a table that was filled in this transaction by itself."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"analyze {table.name}"))


def lock_reservations(connection: Connection) -> None:
    """Wait until no other transaction reserves. First statement of a reserving transaction; on SQLite
    `writing` alone is this lock. INSERT … SELECT without it breaks caps on PostgreSQL (measured)."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _RESERVE_LOCK})


def lock_intake(connection: Connection) -> None:
    """Wait until no other transaction takes in rows. First statement of one that does: two shops pulled at the
    same time would otherwise make two people of one address. On SQLite `writing` alone is this lock."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _INTAKE_LOCK})


def _alembic() -> AlembicConfig:
    configuration = AlembicConfig()
    configuration.set_main_option("script_location", str(MIGRATIONS))
    return configuration


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # we begin transactions ourselves, see _begin_sqlite
    connection.execute(f"pragma busy_timeout = {_BUSY_TIMEOUT_MS}")
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")  # a send that is confirmed survives a power cut
    connection.execute("pragma foreign_keys = on")
    connection.execute("pragma cache_size = -65536")
    connection.execute("pragma temp_store = memory")


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("tern_write", False)
    connection.exec_driver_sql("begin immediate" if immediate else "begin")


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", error)).strip().splitlines()[0]
