"""How fast, with how many connections, and what happens after a lane is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select

from lifecycle.channels.base import Accepted, Outcome, Refused
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import lane_slots, lanes
from lifecycle.ledger.drain import BatchResult
from lifecycle.ledger.lanes import Lane, admit, recovered, resume, take_slot
from lifecycle.ledger.reserve import reserve
from lifecycle.ledger.taking import open_batches
from lifecycle.messages.records import Mail
from lifecycle.settings import Config
from tests.conftest import FakeClock
from tests.ledger.people import NOW, SECRET, ScriptedChannel, add_people, add_plan, ledger, states

Send = Callable[..., BatchResult]
GMAIL = [f"person.{number}@gmail.com" for number in range(12)]
TOO_FAST = Refused("421 4.7.28", "unusual rate of mail", permanent=False, scope="lane", kind="policy")


def channel(config: Config, **changes: Any) -> Config:
    file = config.channels_file.model_dump(mode="json")
    file["channels"][0] |= changes
    return replace(config, channels_file=type(config.channels_file).model_validate(file))


def reserved(engine: Engine, config: Config, addresses: list[str]) -> None:
    reserve(engine, config, add_plan(engine, config, add_people(engine, addresses)), now=NOW, secret=SECRET)


@pytest.mark.parametrize("rate", [1, 4])
def test_no_more_than_so_many_a_second(
    engine: Engine, config: Config, send: Send, clock: FakeClock, rate: int
) -> None:
    """Over batches, each a drain of its own: in any second at most `rate` begin, but for one chunk at its edge."""
    config = channel(config, per_second=rate)
    reserved(engine, config, [f"person.{number}@example.com" for number in range(16)])
    left: list[datetime] = []

    def answer(mail: Mail) -> Outcome:
        left.append(clock())
        return Accepted(mail.key)

    assert send(ScriptedChannel(answer), config=config).accepted == 16
    assert (left[-1] - left[0]).total_seconds() == pytest.approx(16 / rate - 1)
    for first in left:
        assert sum(first <= each < first + timedelta(seconds=1) for each in left) <= rate


def test_queue_that_is_too_long_is_left_to_the_next_drain(
    engine: Engine, config: Config, send: Send, clock: FakeClock
) -> None:
    config = channel(config, per_second=1)
    reserved(engine, config, ["person@example.com"])
    with writing(engine) as connection:
        admit(connection, Lane("email", "main", ""), 1, 60, clock())
    result = send(config=config)
    assert result.held == 1 and result.problem == "email to other has a queue of 60 seconds"
    clock.tick(seconds=60)
    assert send(config=config).accepted == 1


def test_connections_to_a_provider_are_counted_over_all_processes(
    engine: Engine, config: Config, send: Send, clock: FakeClock
) -> None:
    config = channel(config, mailbox_providers={"google": {"connections": 2}})
    reserved(engine, config, GMAIL)
    lane, until = Lane("email", "", "google"), clock() + timedelta(seconds=60)
    with writing(engine) as connection:
        settings = config.channel("email")
        assert [take_slot(connection, settings, lane, name, clock(), until) for name in "abc"] == [
            True,
            True,
            False,
        ]
    result = send(config=config)
    assert (result.full, result.accepted, states(engine)) == (True, 0, {"reserved": 12})
    assert {claim for (claim,) in ledger(engine, "claim")} == {None}
    clock.tick(seconds=60)
    assert send(config=config).accepted == 12
    with reading(engine) as connection:
        assert connection.execute(select(lane_slots)).all() == []


def test_procedure_after_too_much_mail(engine: Engine, config: Config, send: Send, clock: FakeClock) -> None:
    """Ten minutes of rest, one connection, ten minutes more after a relapse, then one more at a time."""
    reserved(engine, config, [*GMAIL, "person@gmx.de"])
    refusing = ScriptedChannel(lambda mail: TOO_FAST if mail.envelope_to in GMAIL else Accepted(mail.key))
    result = send(refusing)
    assert result.accepted == 1, "other providers are not concerned"
    assert result.problem is not None and "rests until 2026-11-22 09:10 UTC: 421 4.7.28" in result.problem
    assert set(ledger(engine, "attempts")) == {(0,), (1,)}
    clock.tick(minutes=9, seconds=59)
    assert send().accepted == 0
    clock.tick(seconds=1)
    assert send(refusing).accepted == 0, "a relapse"
    clock.tick(minutes=9, seconds=59)
    assert send().accepted == 0
    clock.tick(seconds=1)
    assert send().accepted == 12
    assert lane_row(engine, "google")[:2] == (1 + 3, 2), "three batches of four went well"


def test_recovery_ends_with_the_configured_number(engine: Engine, config: Config, clock: FakeClock) -> None:
    config = channel(config, mailbox_providers={"google": {"connections": 3}})
    lane = Lane("email", "main", "google")
    with writing(engine) as connection:
        key = {"channel": "email", "account": "main", "mailbox_provider": "google"}
        connection.execute(lanes.insert().values(**key, connections=1, failures=4, changed_at=clock()))
    seen = []
    for _ in range(3):
        with writing(engine) as connection:
            recovered(connection, config.channel("email"), lane, clock())
        seen.append(lane_row(engine, "google")[:2])
    assert seen == [(2, 4), (None, 0), (None, 0)]


def test_person_ends_a_pause(engine: Engine, config: Config, send: Send, clock: FakeClock) -> None:
    reserved(engine, config, GMAIL)
    blocked = Refused("550 5.7.1", "blocked", permanent=True, scope="lane", kind="policy")
    send(ScriptedChannel(lambda mail: blocked))
    with writing(engine) as connection:
        assert resume(connection, "email", "gmx", clock()) == 0
        assert resume(connection, "email", "google", clock()) == 1
    assert send().accepted == 12


def test_lanes_of_one_plan_take_turns(engine: Engine, config: Config, clock: FakeClock) -> None:
    yahoo = [f"person.{number}@yahoo.com" for number in range(5)]
    reserved(engine, config, [*GMAIL, *yahoo, "person@example.com"])
    found = [batch.mailbox_provider for batch in open_batches(engine, now=clock())]
    assert found == ["google", "other", "yahoo", "google", "yahoo", "google"]


def lane_row(engine: Engine, provider: str) -> tuple[Any, ...]:
    with reading(engine) as connection:
        mine = (lanes.c.mailbox_provider == provider, lanes.c.account == "main")
        row = connection.execute(select(lanes).where(*mine)).one()
    return row.connections, row.failures, row.paused_until
