"""Two hosts drain one ledger; one is cut off from database and mail server in the middle, and comes back."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine

from lifecycle.clock import utc_now
from lifecycle.db.engine import writing
from lifecycle.ledger.audit import audit
from lifecycle.ledger.lanes import resume
from lifecycle.settings import Config, Environment
from sandbox.mailbox import MailboxServer, Stage
from tests.ledger.networks import Host, can_make, host, relay
from tests.ledger.people import numbered, states
from tests.ledger.storm import Colony, compare
from tests.ledger.test_killing import reserved

MESSAGES, CUT_AFTER = 200, 25


class Cutter:
    """Pulls the cable once so many mails have arrived."""

    def __init__(self) -> None:
        self.host: Host | None = None
        self.cut = threading.Event()
        self._arrived = 0

    def __call__(self, stage: Stage, address: str) -> None:
        self._arrived += stage == "taken"
        if self._arrived == CUT_AFTER and self.host is not None and not self.cut.is_set():
            self.host.pull_cable()
            self.cut.set()


@contextmanager
def colony_on(there: Host, database_url: str, server: MailboxServer, data_dir: Path) -> Iterator[Colony]:
    match = re.fullmatch(r"(.*)@/(\w+)\?host=(.*)", database_url)
    assert match is not None, "the test database is reached by a socket"
    user, name, folder = match.groups()
    data_dir.mkdir()
    with (
        relay(there.address, f"{folder}/.s.PGSQL.5432") as database,
        relay(there.address, ("127.0.0.1", server.port)) as mail,
    ):
        url = f"{user}@{there.address}:{database}/{name}"
        colony = Colony(url, f"{there.address}:{mail}", data_dir, on=there.command)
        yield colony
        colony.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_host_that_is_cut_off_and_comes_back(
    engine: Engine, database_url: str, config: Config, environment: Environment, tmp_path: Path
) -> None:
    if not can_make():
        pytest.skip("network namespaces want root, the program ip, and a kernel that lets us")
    reserved(engine, config, environment, numbered(MESSAGES), "en")
    cutter = Cutter()
    with (
        MailboxServer(tmp_path / "mailbox", fault=cutter) as server,
        host(1) as first,
        host(2) as second,
        colony_on(first, database_url, server, tmp_path / "first") as lost,
        colony_on(second, database_url, server, tmp_path / "second") as other,
    ):
        cutter.host = first
        lost.fork()
        assert cutter.cut.wait(60), "the first host sends nothing"
        until(other, lambda: states(engine).get("reserved", 0) + states(engine).get("sending", 0) == 0)
        before = compare(engine, server.mailbox)
        first.put_cable_back()
        lost.wait_for_all(90)
        with writing(engine) as connection:
            resume(connection, "email", None, utc_now())  # the way rests a minute: no mail server was there
        lost.fork()  # the next run on that host settles what only it knows, and sends what had not begun to leave
        lost.wait_for_all(60)
        after = compare(engine, server.mailbox)
    assert [each for each in before.problems if "times" in each] == []
    assert before.states["unknown"] >= 1, "the other host could not know"
    assert after.problems == []
    assert after.states["accepted"] + after.states["unknown"] == MESSAGES
    assert after.states["unknown"] <= 1
    assert [each for each in audit(engine, data_dir=tmp_path, now=utc_now()) if not each.passed] == []


def until(colony: Colony, done: Callable[[], bool], seconds: float = 90) -> None:
    """Run after run of a host, until it has done it."""
    ends = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ends, "the other host does not finish"
        colony.fork()
        colony.wait_for_all(60)
