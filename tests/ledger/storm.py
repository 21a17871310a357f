"""Processes that send and are killed at any moment, and a mail server that fails in every way it can."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from lifecycle.db.engine import reading
from lifecycle.db.schema import messages
from lifecycle.settings import ROOT
from sandbox.mailbox import DROP, HALF_REPLY, STALL, Mailbox, Stage

STAGES: tuple[Stage, ...] = ("mail", "rcpt", "data", "dot", "taken")
_BUSY, _REFUSED = "451 4.3.0 try again later", "554 5.6.0 cannot read this"


class Colony:
    """Forks sending processes; knows which of them live."""

    def __init__(self, database_url: str, server: str, data_dir: Path, on: Sequence[str] = ()) -> None:
        """`server`: host:port. `on`: what a program of another host is started with."""
        arguments = ["-m", "tests.ledger.sending_process", database_url, server, str(data_dir)]
        self._parent: Any = subprocess.Popen(
            [*on, sys.executable, *arguments],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._alive: set[int] = set()
        self._told = threading.Condition(self._lock)
        self.killed = self.ended = self.begun = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def fork(self) -> None:
        """Returns once the process lives."""
        with self._told:
            before = self.begun
            self._parent.stdin.write("\n")
            self._parent.stdin.flush()
            assert self._told.wait_for(lambda: self.begun > before, timeout=60)

    def kill_one(self, rng: random.Random) -> None:
        with self._lock:
            if not self._alive:
                return
            victim = rng.choice(sorted(self._alive))
            self._alive.discard(victim)
            try:
                os.kill(victim, signal.SIGKILL)
                self.killed += 1
            except ProcessLookupError:
                pass

    def living(self) -> int:
        with self._lock:
            return len(self._alive)

    def wait_for_all(self, seconds: float) -> None:
        with self._told:
            assert self._told.wait_for(lambda: not self._alive, timeout=seconds), "a process hangs"

    def close(self) -> None:
        self._parent.stdin.close()
        self._parent.wait(30)
        self._parent.stdout.close()

    def _listen(self) -> None:
        for line in self._parent.stdout:
            number = int(line)
            with self._told:
                if number > 0:
                    self._alive.add(number)
                    self.begun += 1
                else:
                    self.ended += -number in self._alive
                    self._alive.discard(-number)
                self._told.notify_all()


class Weather:
    """The server's fault hook: now and then it misbehaves, now and then somebody dies. `clear` ends both."""

    def __init__(self, seed: int, *, faults: float, deaths: float) -> None:
        self._random, self._faults, self._deaths = random.Random(seed), faults, deaths
        self._lock = threading.Lock()
        self.colony: Colony | None = None
        self.clear = False
        self.seen: Counter[str] = Counter()

    def __call__(self, stage: Stage, address: str) -> str | None:
        with self._lock:
            if self.clear:
                return None
            if self.colony is not None and self._random.random() < self._deaths:
                delay = self._random.choice((0.0, self._random.uniform(0, 0.02)))
                threading.Timer(delay, self.colony.kill_one, (self._random,)).start()
            if self._random.random() >= self._faults:
                return None
            answers = (_BUSY, _REFUSED, DROP, HALF_REPLY, STALL if self._random.random() < 0.2 else DROP)
            if stage == "taken":  # it has the mail: only its answer can be lost
                answers = (DROP, HALF_REPLY, DROP)
            if stage == "data":
                answers = (DROP,)
            answer = self._random.choice(answers)
            if stage in ("mail", "rcpt") and answer == _REFUSED:
                answer = _BUSY
            self.seen[f"{stage}: {answer}"] += 1
            return answer


@dataclass(frozen=True)
class Outcome:
    """states: of the ledger. arrived: mails at the server by message. problems: sentences; none: all is well."""

    states: Counter[str]
    arrived: Counter[int]
    problems: list[str]


def compare(engine: Engine, mailbox: Mailbox) -> Outcome:
    """The server's own record against the ledger, message by message."""
    arrived = Counter(int(kept.message["X-Send-ID"]) for kept in mailbox.mails())
    with reading(engine) as connection:
        query = select(messages.c.message_id, messages.c.state, messages.c.purpose, messages.c.reason)
        rows = {row.message_id: row for row in connection.execute(query)}
    problems = [
        f"message {number} arrived {times} times"
        for number, times in arrived.items()
        if times > 1 and rows[number].purpose != "transactional"
    ]
    for number, row in rows.items():
        if row.state == "accepted" and not arrived[number]:
            problems.append(f"message {number} is accepted and never arrived")
        if row.state not in ("accepted", "unknown") and arrived[number]:
            problems.append(f"message {number} is {row.state} and arrived")
        if row.state in ("reserved", "sending"):
            problems.append(f"message {number} is still {row.state}")
        if row.state in ("refused", "unknown") and not row.reason:
            problems.append(f"message {number} is {row.state} and nobody says why")
    return Outcome(Counter(row.state for row in rows.values()), arrived, problems)


def rage(colony: Colony, weather: Weather, *, kills: int, at_once: int, seconds: float) -> None:
    """Keep `at_once` processes alive until so many were killed, or time is over."""
    weather.colony = colony
    until = time.monotonic() + seconds
    while colony.killed < kills and time.monotonic() < until:
        if colony.living() < at_once:
            colony.fork()
        else:
            time.sleep(0.002)  # the killed ones say nothing
    weather.clear = True
