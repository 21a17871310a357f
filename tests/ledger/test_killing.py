"""`kill -9` at random points, several processes at once, and a server that fails: nobody twice, nobody lost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from lifecycle.clock import utc_now
from lifecycle.ledger.audit import audit
from lifecycle.ledger.recover import recover
from lifecycle.ledger.reserve import reserve
from lifecycle.messages.links import prepare_links
from lifecycle.settings import Config, Environment
from sandbox.mailbox import MailboxServer
from tests.ledger.people import SECRET, add_people, add_plan, numbered
from tests.ledger.storm import Colony, Weather, compare, rage

KILLS = {"sqlite": 120, "postgresql": 100}
AT_ONCE = 4


def reserved(engine: Engine, config: Config, environment: Environment, people: list[str], locale: str) -> None:
    """Reserved an hour ago, so that the other process' clock is later."""
    an_hour_ago = utc_now() - timedelta(hours=1)
    plan_id = add_plan(engine, config, add_people(engine, people), locale=locale, created_at=an_hour_ago)
    prepare_links(engine, config, environment, plan_id)
    reserve(engine, config, plan_id, now=an_hour_ago, secret=SECRET)


@pytest.fixture
def weather() -> Weather:
    return Weather(seed=20261124, faults=0.02, deaths=0.2)


@pytest.fixture
def server(tmp_path: Path, weather: Weather) -> Iterator[MailboxServer]:
    with MailboxServer(tmp_path / "mailbox", fault=weather) as running:
        yield running


@pytest.fixture
def colony(database_url: str, server: MailboxServer, tmp_path: Path) -> Iterator[Colony]:
    running = Colony(database_url, f"127.0.0.1:{server.port}", tmp_path)
    yield running
    running.close()


@pytest.mark.timeout(280)
def test_two_hundred_kills_and_a_failing_server(
    engine: Engine,
    config: Config,
    environment: Environment,
    tmp_path: Path,
    server: MailboxServer,
    weather: Weather,
    colony: Colony,
) -> None:
    addresses = [*numbered(900), *(f"{each}@gmail.com" for each in range(300)), *numbered(12, "gone.person")]
    reserved(engine, config, environment, addresses, "fr")
    kills = KILLS[engine.dialect.name]
    rage(colony, weather, kills=kills, at_once=AT_ONCE, seconds=200)
    colony.wait_for_all(60)
    for _ in range(3):  # what was put off for a moment, and what the last victims held
        colony.fork()
        colony.wait_for_all(60)
    found = compare(engine, server.mailbox)
    print(f"{colony.killed} kills, {dict(weather.seen)}, {dict(found.states)}")
    assert found.problems == []
    assert colony.killed >= kills
    assert found.states["accepted"] > 900 and set(found.states) == {"accepted", "refused", "unknown"}
    assert found.states["unknown"] <= colony.killed + weather.seen.total()
    broken = [each for each in audit(engine, data_dir=tmp_path, now=utc_now()) if not each.passed]
    assert broken == []


def test_two_processes_at_once_send_nothing_twice(
    engine: Engine,
    config: Config,
    environment: Environment,
    tmp_path: Path,
    server: MailboxServer,
    weather: Weather,
    colony: Colony,
) -> None:
    weather.clear = True
    reserved(engine, config, environment, numbered(60), "en")
    for _ in range(2):
        colony.fork()
    colony.wait_for_all(60)
    found = compare(engine, server.mailbox)
    assert (found.problems, found.states) == ([], {"accepted": 60})
    assert recover(engine, config, now=utc_now(), wire_dir=tmp_path / "wire").unknown == 0
