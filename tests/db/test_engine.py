"""Migrations and transactions, on both databases."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError

from lifecycle.db.engine import lock_reservations, migrate, open_database, reading, writing
from lifecycle.db.runs import booked, sending_runs
from lifecycle.db.schema import customers, fx_rates, metadata, orders, pull_bookmarks, runs
from lifecycle.errors import NotReady, TernError


def test_migrations_lead_to_exactly_the_schema(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, metadata) == []


def test_migrating_again_changes_nothing(database_url: str) -> None:
    before, after = migrate(database_url)
    assert before == after


def test_a_database_that_is_not_migrated_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="the database is empty; run: tern init"):
        open_database(f"sqlite:///{tmp_path / 'new.db'}")


def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="the database does not answer"):
        open_database(f"postgresql+psycopg://nobody@/x?host={tmp_path}")


def test_instants_come_back_to_the_microsecond(engine: Engine) -> None:
    moment = datetime(2026, 3, 29, 1, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    with writing(engine) as connection:
        connection.execute(
            pull_bookmarks.insert().values(shop="atlas", entity="orders", watermark=moment, moved_at=moment)
        )
    with reading(engine) as connection:
        (found,) = connection.execute(select(pull_bookmarks.c.watermark)).scalars()
    assert found == moment
    assert found.utcoffset() == timedelta(0)


def test_a_naive_datetime_never_reaches_the_database(engine: Engine) -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 (the point of the test)
    with pytest.raises(Exception, match="naive datetime"), writing(engine) as connection:
        connection.execute(pull_bookmarks.insert().values(shop="a", entity="b", watermark=naive, moved_at=naive))


def test_decimals_stay_exact(engine: Engine) -> None:
    rate = Decimal("0.8612345678")
    with writing(engine) as connection:
        connection.execute(
            fx_rates.insert().values(currency="USD", base="EUR", valid_from="2026-01-01", rate=rate, source="test")
        )
    with reading(engine) as connection:
        assert connection.execute(select(fx_rates.c.rate)).scalar() == rate


def test_an_error_undoes_the_whole_transaction(engine: Engine) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    row = {"shop": "a", "entity": "b", "watermark": now, "moved_at": now}
    with pytest.raises(IntegrityError), writing(engine) as connection:
        connection.execute(pull_bookmarks.insert().values(row))
        connection.execute(orders.insert().values(shop="a", order_id="1", ordered_at=now))
    with reading(engine) as connection:
        assert connection.execute(select(pull_bookmarks)).all() == []


def test_two_reservations_wait_for_each_other(engine: Engine) -> None:
    """The second one sees what the first one has written, never the state before."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    first_holds, seen = threading.Event(), []

    def second() -> None:
        first_holds.wait(10)
        with writing(engine) as connection:
            lock_reservations(connection)
            seen.extend(connection.execute(select(pull_bookmarks.c.shop)).scalars())

    thread = threading.Thread(target=second)
    thread.start()
    with writing(engine) as connection:
        lock_reservations(connection)
        first_holds.set()
        thread.join(0.2)
        assert thread.is_alive()
        connection.execute(pull_bookmarks.insert().values(shop="first", entity="x", watermark=now, moved_at=now))
    thread.join(10)
    assert seen == ["first"]


def test_runs_are_booked_with_their_children(engine: Engine) -> None:
    with booked(engine, "daily") as outer:
        with booked(engine, "pull-shop") as inner:
            inner.say("12 orders")
        with pytest.raises(TernError), booked(engine, "run-campaign"):
            raise TernError("nothing could be sent")
    with reading(engine) as connection:
        found = {row.flow: row for row in connection.execute(select(runs))}
    assert found["pull-shop"].parent_run_id == outer.run_id == found["run-campaign"].parent_run_id
    assert found["pull-shop"].summary["sentences"] == ["12 orders"]
    assert (found["daily"].state, found["run-campaign"].state) == ("completed", "failed")
    assert found["run-campaign"].summary["error"] == "nothing could be sent"
    assert found["daily"].summary["peak_mb"] >= found["pull-shop"].summary["peak_mb"] > 0
    assert sending_runs(engine) == [outer.run_id], "a child is no run of its own"


def test_runs_worth_a_report_are_no_dry_runs_and_newest_first(engine: Engine) -> None:
    for parameters in ({"dry_run": False}, {"dry_run": True}, {}):
        with booked(engine, "run-campaign", parameters=parameters) as run:
            newest = run
    with booked(engine, "pull-shop"):
        pass
    found = sending_runs(engine)
    assert len(found) == 2
    assert found[0] == newest.run_id
    assert sending_runs(engine, since=newest.started_at + timedelta(seconds=1)) == []


def test_an_unforeseen_error_is_kept_without_the_row_it_quotes(engine: Engine) -> None:
    row = {"seed": 1, "email": "ann@example.com", "email_key": "ann@example.com"}
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(IntegrityError) as caught, booked(engine, "pull-shop"), writing(engine) as connection:
        for _ in range(2):
            connection.execute(customers.insert().values(**row, first_seen_at=now, updated_at=now))
    assert "parameters hidden" in str(caught.value)
    with reading(engine) as connection:
        (summary,) = connection.execute(select(runs.c.summary)).scalars()
    assert summary["error"] == "an unforeseen IntegrityError; see the log of the run"
