"""Reads a SQLite file through ADBC in a process of its own, run as a script: the file's URI is its argument,
standard input a JSON list of queries, standard output their results as one Arrow stream after the other.

ADBC brings a SQLite of its own. Two of them on one file in one process undo each other's locks, because closing a
file gives up all that its process has locked there: https://www.sqlite.org/howtocorrupt.html, section 2.2.1.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing

_ROWS_AT_ONCE = "65536"  # with ADBC's own 1,024 it needs nearly twice the time


def write_results(uri: str) -> None:
    import pyarrow as pa
    from adbc_driver_sqlite import dbapi

    with closing(dbapi.connect(uri)) as store, closing(store.cursor()) as cursor:
        cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": _ROWS_AT_ONCE})
        for query in json.load(sys.stdin):
            cursor.execute(query)
            batches = cursor.fetch_record_batch()
            with pa.ipc.new_stream(sys.stdout.buffer, batches.schema) as stream:
                for batch in batches:
                    stream.write_batch(batch)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    write_results(sys.argv[1])
