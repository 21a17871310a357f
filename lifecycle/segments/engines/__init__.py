"""Where metrics are computed: in the store's own database, or over a copy of what they read, by an engine that
scans faster. The definitions are the same Select for all of them, and so is the result, to the last row.

- database: the default. Nothing is copied.
- duckdb: in this process, over a copy; two to three times as fast as PostgreSQL itself, no faster than SQLite.
  Needs the extra `accelerator`.
- spark: on a cluster, for what one machine is too small for. Needs pyspark and Java.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Literal

from sqlalchemy import Engine

from lifecycle.errors import ConfigError
from lifecycle.segments.engines.duckdb import OnDuckDB
from lifecycle.segments.engines.spark import HERE, OnSpark, spark_session
from lifecycle.segments.state import Compute

Kind = Literal["database", "duckdb", "spark"]


@contextmanager
def open_compute(
    kind: Kind, store: Engine, *, scratch: Path | None = None, env: Mapping[str, str] = os.environ
) -> Iterator[Compute | None]:
    """What `build` and `take_snapshot` take as `compute`; None for the database itself.

    `scratch`: folder for copies that do not fit into memory; with a cluster of several machines one that all of
    them see. TERN_SPARK_MASTER names the cluster; without it two executors start on this machine. Raises
    ConfigError where something that the engine needs is not installed.
    """
    match kind:
        case "database":
            yield None
        case "duckdb":
            _need(kind, "duckdb", "duckdb_engine", _driver(store))
            yield OnDuckDB(store, scratch)
        case "spark":
            _need(kind, _driver(store))
            _need_spark(env)
            with spark_session(env.get("TERN_SPARK_MASTER") or HERE) as session:
                yield OnSpark(store, scratch, session=session)


def _driver(store: Engine) -> str:
    return f"adbc_driver_{store.dialect.name}.dbapi"


def _need(kind: Kind, *modules: str) -> None:
    for module in modules:
        if not _there(module):
            raise ConfigError(f"engine: {kind} needs the extra: pip install tern[accelerator]")


def _need_spark(env: Mapping[str, str]) -> None:
    if not _there("pyspark"):
        raise ConfigError("engine: spark needs PySpark: pip install 'pyspark>=4,<5'")
    if not (env.get("JAVA_HOME") or shutil.which("java", path=env.get("PATH"))):
        raise ConfigError(
            "engine: spark needs Java 17 or newer, on the PATH or where JAVA_HOME says: "
            "apt-get install openjdk-17-jre-headless"
        )


def _there(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True
