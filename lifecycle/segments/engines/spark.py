"""Metrics on Apache Spark, over Parquet files made for each query.

Which cluster is configuration: a master's URL. Without one a cluster of two processes starts on this machine.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, Table
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql.compiler import IdentifierPreparer

from lifecycle.segments.engines.copying import OnCopy, as_arrays, tables_read

if TYPE_CHECKING:
    import pyarrow as pa

HERE = "local-cluster[2,1,1024]"
"""Two executors on this machine, processes of their own with one core and 1,024 MiB each."""
_LOCAL = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "4",  # the 200 that it makes without are for clusters
    "spark.scheduler.minRegisteredResourcesRatio": "1.0",  # nobody begins before all executors are there
}


@dataclass(frozen=True, kw_only=True)
class OnSpark(OnCopy):
    """`scratch` must be a folder that all machines of the cluster see."""

    session: Any

    def __call__(self, query: Select[Any]) -> dict[str, NDArray[Any]]:
        files = 2 * self.session.sparkContext.defaultParallelism
        with TemporaryDirectory(prefix="tern-spark-", dir=self.scratch) as folder:
            for table, batches in tables_read(self, query):
                path = Path(folder, table.name)
                write_files(path, batches, _divided_by(table), files)
                self.session.read.parquet(path.as_uri()).createOrReplaceTempView(table.name)
            with _without_advice():
                return as_arrays(self.session.sql(as_sql(query)).toArrow())


@contextmanager
def spark_session(master: str) -> Iterator[Any]:
    with _without_advice():
        from pyspark.sql import SparkSession

        builder = SparkSession.builder.master(master).appName("tern")
        builder = builder.config("spark.ui.showConsoleProgress", "false")
        if master.startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # master and workers trust whoever reaches them
            for name, value in _LOCAL.items():
                builder = builder.config(name, value)
        session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    try:
        yield session
    finally:
        session.stop()


def write_files(folder: Path, batches: pa.RecordBatchReader, key: str, files: int) -> None:
    """As many Parquet files; rows of one `key` are in one of them."""
    import pyarrow.parquet as pq

    folder.mkdir()
    with ExitStack() as stack:
        writers = [
            stack.enter_context(pq.ParquetWriter(folder / f"{i}.parquet", batches.schema)) for i in range(files)
        ]
        for batch in batches:
            place = batch[key].fill_null(0).to_numpy() % files
            for i, writer in enumerate(writers):
                writer.write_batch(batch.take(np.flatnonzero(place == i)))


def as_sql(query: Select[Any]) -> str:
    return str(query.compile(dialect=_SparkSQL(), compile_kwargs={"literal_binds": True}))


def _divided_by(table: Table) -> str:
    """The customer, where a row says whose it is."""
    return "customer_id" if "customer_id" in table.c else next(iter(table.primary_key)).name


class _Names(IdentifierPreparer):
    def __init__(self, dialect: DefaultDialect) -> None:
        super().__init__(dialect, initial_quote="`")


class _SparkSQL(DefaultDialect):
    """As far as metrics need it: standard SQL, with other quotes around names."""

    name = "spark"
    preparer: Any = _Names
    supports_statement_cache = True


@contextmanager
def _without_advice() -> Iterator[None]:
    """PySpark says of pandas 3 that it is too new; no frame of pandas is made here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
