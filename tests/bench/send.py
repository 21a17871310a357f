"""Composing mails and sending them through the ledger."""

from __future__ import annotations

import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from lifecycle.channels import open_channel
from lifecycle.ledger.drain import drain, open_batches, total
from lifecycle.ledger.reserve import reserve
from lifecycle.messages.compose import Composer
from lifecycle.messages.links import prepare_links
from lifecycle.messages.records import Mail, Recipient
from lifecycle.settings import ROOT, Config, Environment, load_config
from sandbox.mailbox import Mailbox
from tests.bench.databases import Database, settle
from tests.bench.figures import Comparison, Figure, timed
from tests.conftest import FakeClock
from tests.ledger.conftest import without_hold_out
from tests.ledger.people import NOW, SECRET, add_people, add_plan, numbered


def measure(database: Database, share: float) -> list[Comparison]:
    count = round(1_000 * share)
    folder = database.folder / f"mail of {database.name}"
    with _mail_server(folder) as port, database.fresh() as engine:
        smtp = {"TERN_SMTP_HOST": "127.0.0.1", "TERN_SMTP_PORT": str(port), "TERN_SMTP_SECURITY": "none"}
        config = without_hold_out(load_config(ROOT / "config", env=smtp))
        environment = Environment(ROOT / "config", ROOT / "templates", folder, "", SECRET)
        plan_id = _reserve(engine, config, environment, count)
        sending, composing, mails = _send(engine, config, environment, plan_id, count)
        comparison = [sending, _smtplib_alone(port, mails), composing]
    if (kept := Mailbox(folder).count()) != 2 * count:
        raise RuntimeError(f"the mail server has {kept} mails, not twice {count}")
    return [comparison]


@contextmanager
def _mail_server(folder: Path) -> Iterator[int]:
    """The sandbox's, in a process of its own, so that its work is not in our CPU time. Yields its port."""
    command = [sys.executable, "-W", "ignore", "-m", "sandbox.mailbox", "--folder", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline().rpartition(":")[2])
        finally:
            server.terminate()


def _reserve(engine: Engine, config: Config, environment: Environment, count: int) -> int:
    plan_id = add_plan(engine, config, add_people(engine, numbered(count)))
    prepare_links(engine, config, environment, plan_id)
    reserve(engine, config, plan_id, now=NOW, secret=SECRET)
    settle(engine)
    return plan_id


class _Watched:
    """A composer that keeps what it made and knows how long it took."""

    def __init__(self) -> None:
        self.figure = Figure("of Tern's time, composing", cpu_seconds=0.0)
        self.mails: list[Mail] = []
        self.composer: Composer | None = None

    def compose(self, recipient: Recipient) -> Mail:
        assert self.composer is not None and self.figure.cpu_seconds is not None
        began, cpu_began = time.perf_counter(), time.process_time()
        self.mails.append(self.composer.compose(recipient))
        self.figure.seconds += time.perf_counter() - began
        self.figure.cpu_seconds += time.process_time() - cpu_began
        self.figure.rows += 1
        return self.mails[-1]


def _send(
    engine: Engine, config: Config, environment: Environment, plan_id: int, count: int
) -> tuple[Figure, Figure, Sequence[Mail]]:
    """Batch by batch as the task does it, with a composer and a connection for each."""
    settings, clock, watched, results = config.channels["email"], FakeClock(NOW), _Watched(), []
    with timed("compose and drain: a commit before every mail", count, cpu=True) as sending:
        for batch in open_batches(engine, now=NOW, plan_id=plan_id):
            watched.composer = Composer(engine, config, environment, plan_id, clock=clock)
            with open_channel(settings, {}) as channel:
                how: Any = {"channel": channel, "settings": settings, "secret": SECRET, "clock": clock}
                results.append(drain(engine, batch, compose=watched.compose, **how))
    if (done := total(results)).accepted != count:
        raise RuntimeError(f"of {count} messages: {done.sentence()}")
    return sending, watched.figure, watched.mails


def _smtplib_alone(port: int, mails: Sequence[Mail]) -> Figure:
    """The same bytes, ready-made, by sendmail over one connection to the same server; nothing is remembered."""
    measured = timed("smtplib alone, the same bytes, no ledger", len(mails), cpu=True)
    with measured as figure, smtplib.SMTP("127.0.0.1", port) as peer:
        for mail in mails:
            peer.sendmail(mail.envelope_from, mail.envelope_to, mail.content)
    return figure
