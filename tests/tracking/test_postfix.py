"""A real Postfix as relay: what the world refuses comes back as Postfix writes it, and counts within seconds."""

from __future__ import annotations

import os
import shutil
import smtplib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from lifecycle.db.schema import message_events, suppressions, unmatched_reports
from lifecycle.settings import Config, Environment
from lifecycle.tracking.feedback.desk import Desk
from sandbox.mailbox import MailboxServer
from sandbox.postfix import PROGRAM, Postfix, missing, relay
from tests.tracking.feedback import SECRET, address, bounce_address, rows, sent_mail, serving
from tests.tracking.ledger import send_mails

REPLIES = {
    address(101): "550 5.1.1 <{}>: Recipient address rejected: User unknown",
    address(102): "552 5.2.2 <{}>: mailbox is full",
    address(103): "550 5.7.1 blocked: our list says that you send spam",
    address(104): "451 4.7.1 greylisted, try again later",
}
PATIENCE_SECONDS = 20


@pytest.fixture(scope="module", autouse=True)
def _postfix() -> None:
    """Installed where the tests may: TERN_TESTS_INSTALL=1, as root, on Debian."""
    if not Path(PROGRAM).exists() and os.environ.get("TERN_TESTS_INSTALL") == "1" and shutil.which("apt-get"):
        subprocess.run(
            ["apt-get", "install", "-y", "--no-install-recommends", "postfix"],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            check=False,
        )
    if why := missing():
        pytest.skip(f"{why} (TERN_TESTS_INSTALL=1 lets the tests install it)")


def world(stage: str, to: str) -> str | None:
    reply = REPLIES.get(to) if stage == "rcpt" else None
    return reply.format(to) if reply else None


def wait_for(what: Callable[[], bool], postfix: Postfix) -> float:
    """Seconds until it is so."""
    begun = time.monotonic()
    while not what():
        assert time.monotonic() - begun < PATIENCE_SECONDS, postfix.log()[-3000:]
        time.sleep(0.02)
    return time.monotonic() - begun


def test_what_the_world_refuses_is_suppressed_in_seconds(
    engine: Engine, environment: Environment, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    send_mails(engine, SECRET, 5)
    desk = Desk(engine, environment, config)
    with (
        MailboxServer(tmp_path / "world", fault=world) as sink,
        serving(desk) as lmtp_port,
        relay(world_port=sink.port, lmtp_port=lmtp_port) as postfix,
        smtplib.SMTP("127.0.0.1", postfix.port) as client,
    ):
        begun = time.monotonic()
        for message_id in range(101, 106):
            sender = bounce_address(message_id).replace("bounce.brand.example", "bounce.test")
            client.sendmail(sender, [address(message_id)], sent_mail(message_id))
        wait_for(lambda: bool(rows(engine, suppressions)), postfix)
        seconds = time.monotonic() - begun
        wait_for(lambda: len(rows(engine, message_events)) == 3, postfix)
        assert [mail.envelope_to for mail in sink.mailbox.mails()] == [address(105)]
    with capsys.disabled():
        print(f"\nfrom the mail's leaving to the suppression, through a real Postfix: {seconds:.2f} s")
    assert seconds < 5
    found = {event.message_id: event.detail for event in rows(engine, message_events)}
    classes = {message_id: (detail["class"], detail["status"]) for message_id, detail in found.items()}
    assert classes == {101: ("hard", "5.1.1"), 102: ("full", "5.2.2"), 103: ("policy", "5.7.1")}
    assert not any("@" in detail["text"] for detail in found.values())
    [ban] = rows(engine, suppressions)
    assert (ban.reason, ban.purpose, ban.evidence) == ("hard_bounce", "all", "message 101: 5.1.1")
    assert rows(engine, unmatched_reports) == []


def test_postfix_keeps_the_report_while_nobody_listens(
    engine: Engine, environment: Environment, config: Config, tmp_path: Path
) -> None:
    send_mails(engine, SECRET, 1)
    desk = Desk(engine, environment, config)
    with MailboxServer(tmp_path / "world", fault=world) as sink:
        with serving(desk) as lmtp_port:
            pass  # its port is free again
        with relay(world_port=sink.port, lmtp_port=lmtp_port) as postfix:
            sender = bounce_address(101).replace("bounce.brand.example", "bounce.test")
            with smtplib.SMTP("127.0.0.1", postfix.port) as client:
                client.sendmail(sender, [address(101)], sent_mail(101))
            wait_for(lambda: "status=deferred" in postfix.log(), postfix)
            with serving(desk, lmtp_port):
                wait_for(lambda: bool(rows(engine, suppressions)), postfix)
