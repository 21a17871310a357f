"""`kill -9` at random points, and several processes at once, against a real mail server."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from lifecycle.clock import utc_now
from lifecycle.ledger.audit import audit
from lifecycle.ledger.recover import recover
from lifecycle.ledger.reserve import reserve
from lifecycle.messages.links import prepare_links
from lifecycle.settings import ROOT, Config, Environment
from sandbox.mailbox import Mailbox, MailboxServer, Stage
from tests.ledger.people import SECRET, add_people, add_plan, ledger, numbered, states

KILLS = {"sqlite": 10, "postgresql": 5}
STAGES: tuple[Stage, ...] = ("mail", "rcpt", "dot", "taken")


class Killer:
    """Kills a process a random moment after a random stage of a random mail."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._victim: subprocess.Popen[bytes] | None = None
        self._stage: Stage = "mail"
        self._left = 0

    def aim(self, victim: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._stage, self._left = self._random.choice(STAGES), self._random.randint(1, 9)
            self._victim = victim

    def __call__(self, stage: Stage, address: str) -> None:
        with self._lock:
            if self._victim is None or stage != self._stage:
                return
            self._left -= 1
            if self._left:
                return
            victim, self._victim = self._victim, None
        delay = self._random.choice((0, self._random.uniform(0, 0.006)))
        threading.Timer(delay, os.kill, (victim.pid, signal.SIGKILL)).start()


@pytest.fixture
def start(database_url: str, tmp_path: Path) -> Callable[[int], subprocess.Popen[bytes]]:
    def process(port: int) -> subprocess.Popen[bytes]:
        arguments = ["-m", "tests.ledger.sending_process", database_url, str(port), str(tmp_path)]
        return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE)

    return process


def reserved(engine: Engine, config: Config, environment: Environment, people: list[str], locale: str) -> None:
    """Reserved an hour ago, so that the other process' clock is later."""
    an_hour_ago = utc_now() - timedelta(hours=1)
    plan_id = add_plan(engine, config, add_people(engine, people), locale=locale, created_at=an_hour_ago)
    prepare_links(engine, config, environment, plan_id)
    reserve(engine, config, plan_id, now=an_hour_ago, secret=SECRET)


def compare(engine: Engine, mailbox: Mailbox) -> Counter[str]:
    """The server's record against the ledger, message by message. Returns the states."""
    arrived = Counter(int(kept.message["X-Send-ID"]) for kept in mailbox.mails())
    assert max(arrived.values()) == 1, "somebody got the mail twice"
    rows = dict(ledger(engine, "message_id", "state"))
    assert {message_id for message_id, state in rows.items() if state == "accepted"} <= set(arrived)
    assert {rows[message_id] for message_id in arrived} <= {"accepted", "unknown"}
    return Counter(rows.values())


def test_killed_at_random_points(
    engine: Engine,
    config: Config,
    environment: Environment,
    tmp_path: Path,
    start: Callable[[int], subprocess.Popen[bytes]],
) -> None:
    reserved(engine, config, environment, [*numbered(100), *numbered(8, "gone.person")], "fr")
    killer, kills = Killer(seed=20261122), KILLS[engine.dialect.name]
    with MailboxServer(tmp_path / "mailbox", fault=killer) as server:
        for _ in range(kills):
            victim = start(server.port)
            killer.aim(victim)
            victim.communicate(timeout=60)
            assert victim.returncode == -signal.SIGKILL
        survivor = start(server.port)
        survivor.communicate(timeout=60)
        assert survivor.returncode == 0
        found = compare(engine, server.mailbox)
    assert set(found) == {"accepted", "refused", "unknown"}
    assert found["unknown"] <= kills
    assert found["refused"] + found["unknown"] >= 8
    assert found.total() == 108
    broken = [finding for finding in audit(engine, data_dir=tmp_path, now=utc_now()) if not finding.passed]
    assert broken == []


def test_two_processes_at_once_send_nothing_twice(
    engine: Engine,
    config: Config,
    environment: Environment,
    tmp_path: Path,
    start: Callable[[int], subprocess.Popen[bytes]],
) -> None:
    reserved(engine, config, environment, numbered(60), "en")
    with MailboxServer(tmp_path / "mailbox") as server:
        both = [start(server.port) for _ in range(2)]
        said = [process.communicate(timeout=60)[0].decode() for process in both]
        assert [process.returncode for process in both] == [0, 0]
        found = compare(engine, server.mailbox)
    assert found == {"accepted": 60}
    assert sum(line.count("accepted") for line in said) >= 15
    assert recover(engine, now=utc_now()).unknown == 0
    assert states(engine) == {"accepted": 60}
