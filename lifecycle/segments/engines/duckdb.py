"""Metrics on DuckDB, inside this process, over a copy made for each query."""

from __future__ import annotations

from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from numpy.typing import NDArray
from sqlalchemy import Select

from lifecycle.segments.engines.copying import OnCopy, as_arrays, tables_read


@dataclass(frozen=True)
class OnDuckDB(OnCopy):
    """With `scratch` the copy is in a file there, otherwise in memory."""

    def __call__(self, query: Select[Any]) -> dict[str, NDArray[Any]]:
        import duckdb

        with TemporaryDirectory(prefix="tern-duckdb-", dir=self.scratch) as folder:
            path = f"{folder}/copy.duckdb" if self.scratch else ":memory:"
            with duckdb.connect(path, config={"temp_directory": folder}) as database:
                for table, batches in tables_read(self, query):
                    database.register("incoming", batches)
                    database.execute(f"create table {table.name} as select * from incoming")
                return as_arrays(database.sql(as_sql(query)).to_arrow_table())


def as_sql(query: Select[Any]) -> str:
    import duckdb_engine

    return str(query.compile(dialect=duckdb_engine.Dialect(), compile_kwargs={"literal_binds": True}))
