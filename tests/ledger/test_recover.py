"""Who is dead, and what becomes of what they held."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest
from sqlalchemy import Engine, update

from lifecycle.db.engine import writing
from lifecycle.db.schema import messages
from lifecycle.ledger.claims import is_orphan, new_claim
from lifecycle.ledger.recover import recover
from lifecycle.ledger.reserve import reserve
from lifecycle.settings import Config
from tests.ledger.people import NOW, SECRET, add_people, add_plan, ledger, numbered

CLAIM_OF_ANOTHER = [sys.executable, "-c", "from lifecycle.ledger.claims import new_claim; print(new_claim())"]


@pytest.fixture(scope="module")
def claim_of_the_dead() -> str:
    """A claim that a process of this machine took before it ended."""
    return subprocess.run(CLAIM_OF_ANOTHER, capture_output=True, text=True, check=True).stdout.strip()


def hold(engine: Engine, config: Config, claim: str, *, lease_seconds: float = 60) -> None:
    """Four messages claimed, the first of them on its way."""
    plan_id = add_plan(engine, config, add_people(engine, numbered(4)))
    reserve(engine, config, plan_id, now=NOW, secret=SECRET)
    with writing(engine) as connection:
        lease = NOW + timedelta(seconds=lease_seconds)
        connection.execute(update(messages).values(claim=claim, lease_until=lease))
        first = update(messages).where(messages.c.message_id == 1)
        connection.execute(first.values(state="sending", sent_at=NOW))


def test_dead_process_on_this_machine(engine: Engine, config: Config, claim_of_the_dead: str) -> None:
    hold(engine, config, claim_of_the_dead)
    recovered = recover(engine, now=NOW)
    assert (recovered.unknown, recovered.released) == (1, 3)
    assert "1 messages are unknown" in recovered.sentence()
    assert ledger(engine, "state", "claim") == [("unknown", None), *[("reserved", None)] * 3]
    assert ledger(engine, "reason")[0] == ("the sending process ended before the answer was written down",)
    again = recover(engine, now=NOW)
    assert (again.unknown, again.released) == (0, 0)


def test_living_process_keeps_its_claim_until_the_lease_ends(engine: Engine, config: Config) -> None:
    hold(engine, config, new_claim())
    assert recover(engine, now=NOW + timedelta(seconds=59)).released == 0
    assert recover(engine, now=NOW + timedelta(seconds=60)).released == 3


@pytest.mark.parametrize(("place", "value"), [(0, "another-host"), (1, "another-boot")])
def test_process_elsewhere_is_judged_by_its_lease(
    engine: Engine, config: Config, claim_of_the_dead: str, place: int, value: str
) -> None:
    parts = claim_of_the_dead.split(":")
    parts[place] = value
    hold(engine, config, ":".join(parts))
    assert recover(engine, now=NOW).released == 0
    assert recover(engine, now=NOW + timedelta(seconds=60)).released == 3


def test_claims_are_told_apart() -> None:
    assert new_claim() != new_claim()
    assert not is_orphan(new_claim())


def test_process_number_used_again(claim_of_the_dead: str) -> None:
    """The number lives, but its process started at another time."""
    host, boot, _, started, random = claim_of_the_dead.split(":")
    mine = new_claim().split(":")[2]
    assert is_orphan(":".join((host, boot, mine, str(int(started) + 10**9), random)))


def test_process_that_only_waits_to_be_buried() -> None:
    with subprocess.Popen(CLAIM_OF_ANOTHER, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        claim = process.stdout.read().strip()  # to its end, but nobody has waited for it yet
        while not is_orphan(claim):
            pass


@pytest.mark.parametrize("strange", ["", "x", "a:b:c:d:e", "a:b:c:d", "::::"])
def test_strange_claims_are_left_to_their_lease(strange: str) -> None:
    assert not is_orphan(strange)
