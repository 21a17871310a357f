"""Who is dead, and what becomes of what they held."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from lifecycle.channels.base import Accepted, Refused
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import messages, suppressions
from lifecycle.ledger.claims import is_orphan, new_claim
from lifecycle.ledger.recover import recover, settle_own
from lifecycle.ledger.reserve import reserve
from lifecycle.ledger.wirelog import WireLog
from lifecycle.settings import Config
from tests.ledger.people import NOW, SECRET, add_people, add_plan, ledger, numbered

DEAD = Refused("550 5.1.1", "User unknown", permanent=True, scope="address", kind="hard")
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


def test_dead_process_on_this_machine(
    engine: Engine, config: Config, tmp_path: Path, claim_of_the_dead: str
) -> None:
    hold(engine, config, claim_of_the_dead)
    recovered = recover(engine, config, wire_dir=tmp_path, now=NOW)
    assert (recovered.unknown, recovered.released) == (1, 3)
    assert "1 messages are unknown" in recovered.sentence()
    assert ledger(engine, "state", "claim") == [("unknown", claim_of_the_dead), *[("reserved", None)] * 3]
    assert ledger(engine, "reason")[0] == ("the sending process ended before the answer was written down",)
    again = recover(engine, config, wire_dir=tmp_path, now=NOW)
    assert (again.unknown, again.released) == (0, 0)


def test_living_process_keeps_its_claim_until_the_lease_ends(
    engine: Engine, config: Config, tmp_path: Path
) -> None:
    hold(engine, config, new_claim())
    assert recover(engine, config, wire_dir=tmp_path, now=NOW + timedelta(seconds=59)).released == 0
    assert recover(engine, config, wire_dir=tmp_path, now=NOW + timedelta(seconds=60)).released == 3


@pytest.mark.parametrize(("place", "value"), [(0, "another-host"), (1, "another-boot")])
def test_process_elsewhere_is_judged_by_its_lease(
    engine: Engine, config: Config, tmp_path: Path, claim_of_the_dead: str, place: int, value: str
) -> None:
    parts = claim_of_the_dead.split(":")
    parts[place] = value
    hold(engine, config, ":".join(parts))
    assert recover(engine, config, wire_dir=tmp_path, now=NOW).released == 0
    assert recover(engine, config, wire_dir=tmp_path, now=NOW + timedelta(seconds=60)).released == 3


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


@pytest.fixture
def on_their_way(engine: Engine, config: Config, claim_of_the_dead: str) -> str:
    """Four messages that a dead process has marked as on their way."""
    hold(engine, config, claim_of_the_dead)
    with writing(engine) as connection:
        connection.execute(update(messages).values(state="sending", attempts=1, sent_at=NOW))
    return claim_of_the_dead


def write_log(folder: Path, claim: str) -> None:
    """The first was accepted, the second refused, the third had begun; of the fourth nothing is said."""
    log = WireLog(folder, claim)
    for number in (1, 2, 3):
        log.begun(number)
    log.answered(1, Accepted("<1@atlas.example.com>"))
    log.answered(2, DEAD)
    log.close(settled=False)


def test_wire_log_tells_what_a_dead_process_knew(
    engine: Engine, config: Config, tmp_path: Path, on_their_way: str
) -> None:
    write_log(tmp_path, on_their_way)
    recovered = recover(engine, config, now=NOW, wire_dir=tmp_path)
    assert (recovered.settled, recovered.unknown, recovered.released) == (2, 1, 1)
    assert ledger(engine, "state", "attempts") == [
        ("accepted", 1),
        ("refused", 1),
        ("unknown", 1),
        ("reserved", 0),
    ]
    assert ledger(engine, "provider_id")[0] == ("<1@atlas.example.com>",)
    with reading(engine) as connection:
        assert connection.execute(select(suppressions.c.reason)).scalars().all() == ["hard_bounce"]
    assert list(tmp_path.glob("*.wire")) == []


def test_without_its_log_all_that_was_on_its_way_is_unknown(
    engine: Engine, config: Config, tmp_path: Path, on_their_way: str
) -> None:
    assert recover(engine, config, now=NOW, wire_dir=tmp_path).unknown == 4


def test_log_from_before_a_restart_proves_what_it_says_and_nothing_else(
    engine: Engine, config: Config, tmp_path: Path, on_their_way: str
) -> None:
    parts = on_their_way.split(":")
    parts[1] = "0a0a0a0a-another-boot"
    before = ":".join(parts)
    with writing(engine) as connection:
        connection.execute(update(messages).values(claim=before, lease_until=NOW))
    write_log(tmp_path, before)
    recover(engine, config, now=NOW, wire_dir=tmp_path)
    assert ledger(engine, "state") == [("accepted",), ("refused",), ("unknown",), ("unknown",)]


def test_process_that_only_stands_still_may_still_send_what_it_has_not_begun(
    engine: Engine, config: Config, tmp_path: Path, on_their_way: str
) -> None:
    mine = new_claim()
    with writing(engine) as connection:
        connection.execute(update(messages).values(claim=mine, lease_until=NOW))
    write_log(tmp_path, mine)
    recover(engine, config, now=NOW, wire_dir=tmp_path)
    assert ledger(engine, "state") == [("accepted",), ("refused",), ("unknown",), ("unknown",)]
    settle_own(engine, config, mine, now=NOW, wire_dir=tmp_path)
    assert ledger(engine, "state")[3] == ("reserved",)


def test_host_that_was_cut_off_tells_later_what_others_could_not_know(
    engine: Engine, config: Config, tmp_path: Path, on_their_way: str
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    write_log(here, on_their_way)
    assert recover(engine, config, now=NOW, wire_dir=elsewhere).unknown == 4
    late = recover(engine, config, now=NOW, wire_dir=here)
    assert (late.settled, late.unknown, late.released) == (2, 0, 1)
    assert ledger(engine, "state") == [("accepted",), ("refused",), ("unknown",), ("reserved",)]
    assert list(here.glob("*.wire")) == []


def test_order_mail_is_sent_again(engine: Engine, config: Config, tmp_path: Path, on_their_way: str) -> None:
    with writing(engine) as connection:
        connection.execute(update(messages).where(messages.c.message_id < 3).values(purpose="transactional"))
    recover(engine, config, now=NOW, wire_dir=tmp_path)
    assert ledger(engine, "state", "attempts") == [*[("reserved", 1)] * 2, *[("unknown", 1)] * 2]


def test_line_cut_off_in_the_middle_proves_nothing_about_the_others(
    engine: Engine, config: Config, tmp_path: Path, on_their_way: str
) -> None:
    write_log(tmp_path, on_their_way)
    (path,) = tmp_path.glob("*.wire")
    path.write_bytes(path.read_bytes()[:-10])
    recover(engine, config, now=NOW, wire_dir=tmp_path)
    assert ledger(engine, "state") == [("accepted",), ("unknown",), ("unknown",), ("unknown",)]
