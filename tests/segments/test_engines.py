"""Metrics computed by another engine over a copy are those of the database, to the last row and column."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import Engine, func, insert, select

from lifecycle.db.arrays import arrays
from lifecycle.db.engine import open_engine, reading, writing
from lifecycle.db.schema import event_classes, identities, message_events, orders, refunds
from lifecycle.errors import ConfigError, TernError
from lifecycle.segments.build import build
from lifecycle.segments.engines import open_compute
from lifecycle.segments.engines.copying import OnCopy, columns_read
from lifecycle.segments.metrics import Sources, metrics
from lifecycle.segments.moments import At
from lifecycle.segments.state import Compute
from lifecycle.settings import ROOT
from lifecycle.settings.segments import CountedOrders
from tests.segments.happenings import RICH, Happening, happenings, stored
from tests.segments.history import NOW, Order, add_customers, add_orders, clear
from tests.segments.test_segments import histories

PEOPLE = range(1, 9)
on_one_database = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WAYS_OF_COUNTING: list[dict[str, Any]] = [
    {},
    {"guests": "drop"},
    {"currency": "EUR"},
    {"statuses": ("paid", "open")},
    {"statuses": ("paid", "refunded"), "totals": "any"},
    {"refunds": "ignore", "totals": "not_negative"},
    {"returns": "drop", "currency": "USD"},
]


def everybodys(sources: Sources, as_of: datetime, wanted: Sequence[str] | None = None) -> Any:
    found = metrics(sources, At(as_of), wanted).subquery("metrics")
    return select(found).order_by(found.c.customer_id)


def assert_equal(found: dict[str, NDArray[Any]], wanted: dict[str, NDArray[Any]]) -> None:
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype, name
        assert found[name].tolist() == values.tolist(), name
        assert found[name].flags.writeable


def assert_same(engine: Engine, compute: Compute, sources: Sources, as_of: datetime) -> None:
    query = everybodys(sources, as_of)
    with reading(engine) as connection:
        assert_equal(compute(query), arrays(connection, query))


def fill(engine: Engine, history: Sequence[Order], more: Sequence[Happening]) -> None:
    """Of some events newer rules say that it was no person; half of the people have an identity."""
    clear(engine)
    add_customers(engine, PEOPLE)
    add_orders(engine, history)
    for happen in more:
        happen(engine)
    known = {"shop": "atlas", "linked_by": "platform_id", "linked_at": NOW}
    with writing(engine) as connection:
        for who in PEOPLE[::2]:
            connection.execute(insert(identities).values(**known, platform_customer_id=str(who), customer_id=who))
        for event in connection.execute(select(message_events.c.event_id)).scalars().all()[::2]:
            judged = {"event_id": event, "rules_version": "2", "class": "scanner", "evidence": ""}
            connection.execute(insert(event_classes).values(judged))
        dollars = orders.update().where(orders.c.order_key % 3 == 0).values(currency="USD", total_base_minor=777)
        connection.execute(dollars)


@on_one_database
@given(
    history=histories(),
    more=st.lists(happenings(), max_size=10),
    back=st.sampled_from([timedelta(0), timedelta(days=30), timedelta(days=375)]),
    counted=st.sampled_from(WAYS_OF_COUNTING),
    windows=st.sampled_from([(), (30, 90)]),
    landed=st.sampled_from([None, NOW - timedelta(days=1), NOW]),
)
def test_duckdb_computes_what_the_database_does(
    engine: Engine,
    history: list[Order],
    more: list[Happening],
    back: timedelta,
    counted: dict[str, Any],
    windows: tuple[int, ...],
    landed: datetime | None,
) -> None:
    fill(engine, history, more)
    with open_compute("duckdb", engine) as compute:
        assert compute is not None
        assert_same(engine, compute, Sources(CountedOrders(**counted), windows, landed), NOW - back)


@settings(on_one_database, max_examples=8)
@given(history=histories(), more=st.lists(happenings(), max_size=10))
def test_a_full_build_leaves_the_same_rows(
    engine: Engine, changed, history: list[Order], more: list[Happening]
) -> None:
    fill(engine, history, more)
    config = changed(segments_file=RICH)
    with open_compute("duckdb", engine) as compute:
        build(engine, config, as_of=NOW, now=NOW, compute=compute)
    with reading(engine) as connection:
        found = stored(connection)
    fill(engine, history, more)
    build(engine, config, as_of=NOW, now=NOW)
    with reading(engine) as connection:
        assert found == stored(connection)


def test_a_copy_in_a_file_is_removed(engine: Engine, tmp_path: Path) -> None:
    fill(engine, [Order(1, NOW, 100), Order(2, NOW, 100, refund=50, refunded_at=NOW)], [])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with open_compute("duckdb", engine, scratch=scratch) as compute:
        assert compute is not None
        assert_same(engine, compute, Sources(CountedOrders()), NOW)
    assert not list(scratch.iterdir())


def test_a_build_copies_the_state_that_it_sees(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("nobody else writes while a build does")
    fill(engine, [Order(1, NOW, 100)], [])
    query = everybodys(Sources(CountedOrders()), NOW)
    with open_compute("duckdb", engine) as compute, reading(engine) as connection:
        assert isinstance(compute, OnCopy)
        connection.execute(select(func.count()).select_from(orders))
        add_orders(engine, [Order(2, NOW, 100)], first_key=2)
        assert compute.seeing(connection)(query)["customer_id"].tolist() == [1]
        assert compute(query)["customer_id"].tolist() == [1, 2]


@pytest.mark.parametrize("copying", [False, True])
def test_a_build_keeps_its_lock_while_it_copies(tmp_path: Path, _sqlite_template: Path, copying: bool) -> None:
    """Two SQLite libraries in one process give up each other's locks."""
    path = tmp_path / "tern.db"
    shutil.copy(_sqlite_template, path)
    store = open_engine(f"sqlite:///{path}")
    add_customers(store, [1])
    begin = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('begin immediate')"
    with open_compute("duckdb", store) as compute, writing(store) as connection:
        connection.execute(orders.delete())
        if copying and compute is not None:
            compute(everybodys(Sources(CountedOrders()), NOW))
        other = subprocess.run([sys.executable, "-c", begin], capture_output=True, text=True, check=False)
        assert "database is locked" in other.stderr
    store.dispose()


def test_a_store_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    store = open_engine(f"sqlite:///{tmp_path / 'none.db'}")
    wanted = r"^the database cannot be copied out of: .*failed to open"
    with open_compute("duckdb", store) as compute, pytest.raises(TernError, match=wanted):
        assert compute is not None
        compute(select(orders.c.order_key))


def test_only_what_is_read_is_copied() -> None:
    read = columns_read(everybodys(Sources(CountedOrders()), NOW, ["frequency"]))
    names = {table.name: {column.name for column in columns} for table, columns in read.items()}
    assert names == {
        "orders": {"customer_id", "ordered_at", "order_key", "status", "total_minor"},
        "refunds": {"order_key", "refunded_at"},
    }
    assert columns_read(select(func.count()).select_from(refunds)) == {refunds: list(refunds.primary_key)}


def test_the_database_itself_needs_nothing(engine: Engine) -> None:
    with open_compute("database", engine) as compute:
        assert compute is None


@pytest.mark.parametrize("module", ["duckdb", "duckdb_engine", "adbc_driver_sqlite.dbapi"])
def test_without_the_extra_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    wanted = r"^engine: duckdb needs the extra: pip install tern\[accelerator\]$"
    with pytest.raises(ConfigError, match=wanted), open_compute("duckdb", open_engine("sqlite://")):
        pass


def test_spark_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = open_engine("sqlite://")
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(ConfigError, match=r"^engine: spark needs PySpark: pip"), open_compute("spark", store):
        pass
    monkeypatch.setitem(sys.modules, "pyspark", ModuleType("pyspark"))
    env = {"PATH": str(tmp_path)}
    with pytest.raises(ConfigError, match="needs Java 17 or newer"), open_compute("spark", store, env=env):
        pass


def test_a_database_in_memory_cannot_be_copied() -> None:
    with (
        open_compute("duckdb", open_engine("sqlite://")) as compute,
        pytest.raises(ConfigError, match="TERN_DATABASE_URL"),
    ):
        assert compute is not None
        compute(select(orders.c.order_key))


def test_text_and_reals_come_back_as_such(engine: Engine) -> None:
    fill(engine, [Order(1, NOW, 100)], [])
    query = select(orders.c.shop, orders.c.country, orders.c.paid_at, (orders.c.total_minor * 0.5).label("half"))
    with open_compute("duckdb", engine) as compute:
        assert compute is not None
        found = compute(query)
    assert found["shop"].tolist() == ["atlas"]
    assert found["country"].tolist() == [None]
    assert found["paid_at"].tolist() == [np.iinfo(np.int64).min]
    assert found["half"].tolist() == [50.0]


def test_importing_the_engines_loads_none() -> None:
    code = (
        "import sys, lifecycle.segments.build, lifecycle.segments.engines\n"
        "loaded = {'duckdb', 'duckdb_engine', 'adbc_driver_manager', 'pyspark'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)
