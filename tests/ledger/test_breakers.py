"""A storm stops its own lane within a known number of messages, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from lifecycle.channels.base import Accepted, Outcome, Refused
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import breakers, holds
from lifecycle.ledger.breakers import CERTAINTY, Counts, count_reports, forget, why_stop
from lifecycle.ledger.drain import BatchResult
from lifecycle.ledger.holds import breakers_open, lift
from lifecycle.ledger.reserve import reserve
from lifecycle.messages.records import Mail
from lifecycle.settings import Config
from tests.conftest import FakeClock
from tests.ledger.people import NOW, SECRET, ScriptedChannel, add_people, add_plan, ledger, states

DEAD = Refused("550 5.1.1", "User unknown", permanent=True, scope="address", kind="hard")


def tail(seen: int, sent: int, share: float) -> float:
    """Probability of at least `seen` in `sent`, summed the long way."""
    return sum(comb(sent, k) * share**k * (1 - share) ** (sent - k) for k in range(seen, sent + 1))


@given(sent=st.integers(0, 600), bounced=st.integers(0, 80), complained=st.integers(0, 6))
def test_stops_exactly_where_the_binomial_tail_says(sent: int, bounced: int, complained: int) -> None:
    bounced, complained = min(bounced, sent), min(complained, sent)
    expected = (sent >= 100 and bounced >= 0.1 * sent) or (
        sent >= 200
        and (
            (bounced > 0 and tail(bounced, sent, 0.05) < CERTAINTY)
            or (complained > 0 and tail(complained, sent, 0.001) < CERTAINTY)
        )
    )
    assert (why_stop(Counts(sent, bounced, complained), 0.05, 0.001) is not None) == expected


@pytest.mark.parametrize(
    ("counts", "stops"),
    [
        (Counts(500, 0, 3), False),  # .014, as in the deliverability notes, 8
        (Counts(1_000, 0, 3), False),
        (Counts(5_000, 0, 10), False),  # .03
        (Counts(5_000, 0, 12), True),
        (Counts(199, 19, 0), False),
        (Counts(99, 99, 0), False),
        (Counts(100, 10, 0), True),
    ],
)
def test_known_cases(counts: Counts, stops: bool) -> None:
    assert (why_stop(counts, 0.05, 0.001) is not None) == stops


def addresses(number: int, domain: str) -> list[str]:
    return [f"person.{each}@{domain}" for each in range(number)]


@pytest.fixture
def two_lanes(engine: Engine, config: Config, changed: Callable[..., Config]) -> Config:
    """400 people at each of two providers, in batches of 50."""
    channel = config.channels_file.model_dump(mode="json")["channels"][0] | {"batch_size": 50}
    file = {**config.channels_file.model_dump(mode="json"), "channels": [channel]}
    config = replace(config, channels_file=type(config.channels_file).model_validate(file))
    people = add_people(engine, addresses(400, "gmail.com") + addresses(400, "gmx.de"))
    reserve(engine, config, add_plan(engine, config, people), now=NOW, secret=SECRET)
    return config


def storm(mail: Mail) -> Outcome:
    return DEAD if mail.envelope_to.endswith("@gmail.com") else Accepted(mail.key)


def test_storm_stops_its_lane_within_two_hundred_and_others_go_on(
    engine: Engine, two_lanes: Config, send: Callable[..., BatchResult]
) -> None:
    result = send(ScriptedChannel(storm), config=two_lanes)
    assert result.accepted == 400
    assert 100 <= result.refused <= 200
    assert result.problem is not None and "paused by the breaker" in result.problem and "google" in result.problem
    lanes = {(provider, state) for provider, state in ledger(engine, "mailbox_provider", "state")}
    assert lanes == {("google", "refused"), ("google", "reserved"), ("gmx", "accepted")}
    with reading(engine) as connection:
        (hold,) = connection.execute(select(holds)).all()
    assert (hold.campaign, hold.channel, hold.mailbox_provider) == ("winback", "email", "google")
    assert (hold.set_by, hold.lifted_at) == ("breaker", None)
    assert send(ScriptedChannel(), config=two_lanes).accepted == 0, "it stays stopped"
    (said,) = breakers_open(engine)
    assert said.startswith(f"winback on email to google is stopped, {400 - result.refused} messages wait: ")


def test_person_who_has_looked_lets_it_go_on(
    engine: Engine, two_lanes: Config, send: Callable[..., BatchResult], clock: FakeClock
) -> None:
    send(ScriptedChannel(storm), config=two_lanes)
    with writing(engine) as connection:
        assert lift(connection, "winback", by="Ada", at=clock(), provider="gmx") == 0
        assert lift(connection, "winback", by="Ada", at=clock(), provider="google") == 1
        forget(connection, "winback", None, "google")
    assert send(ScriptedChannel(), config=two_lanes).accepted > 200
    assert set(states(engine)) == {"accepted", "refused"}


def test_reports_that_come_in_later_stop_it_too(
    engine: Engine, two_lanes: Config, send: Callable[..., BatchResult], clock: FakeClock
) -> None:
    assert send(ScriptedChannel(), config=two_lanes).accepted == 800
    mine = [number for number, lane in ledger(engine, "message_id", "mailbox_provider") if lane == "gmx"]
    with writing(engine) as connection:
        assert count_reports(connection, two_lanes, {mine[0]: "complained"}, clock()) == []
        (why,) = count_reports(connection, two_lanes, dict.fromkeys(mine[1:5], "complained"), clock())
        assert why.startswith("winback, email to gmx: 5 complaints about 400 mails")
        counted = connection.execute(select(breakers).where(breakers.c.mailbox_provider == "gmx")).one()
    assert (counted.sent, counted.bounced, counted.complained) == (400, 0, 5)
