"""The stand-in's own promises: what it confirmed is kept, also when it is killed."""

from __future__ import annotations

import signal
import smtplib
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.mailbox import DROP, Mailbox, MailboxServer, main

CONTENT = "Subject: =?utf-8?q?Zo=C3=A9?=\r\nX-Send-ID: 7\r\n\r\nHello\r\n"


def deliver(port: int, recipient: str = "person@example.com") -> None:
    with smtplib.SMTP("127.0.0.1", port, "test") as peer:
        peer.sendmail("b+token@bounce.example.com", [recipient], CONTENT)


def test_keeps_envelope_content_and_order(tmp_path: Path) -> None:
    with MailboxServer(tmp_path) as server:
        for number in (1, 2, 3):
            deliver(server.port, f"person.{number}@example.com")
        first, *others = server.mailbox.mails()
        assert [kept.envelope_to for kept in server.mailbox.mails(after=first.mail_id)] == [
            "person.2@example.com", "person.3@example.com",
        ]  # fmt: skip
    assert len(others) == 2
    assert (first.envelope_from, first.envelope_to) == ("b+token@bounce.example.com", "person.1@example.com")
    assert first.content == CONTENT.encode()
    assert (first.message["Subject"], first.message["X-Send-ID"]) == ("Zoé", "7")


def test_people_who_are_gone(tmp_path: Path) -> None:
    with MailboxServer(tmp_path) as server, pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        deliver(server.port, "gone.person@example.com")
    ((code, words),) = refused.value.recipients.values()
    assert (code, words[:5]) == (550, b"5.1.1")
    assert server.mailbox.count() == 0


def test_closes_while_a_client_hangs_on(tmp_path: Path) -> None:
    with MailboxServer(tmp_path) as server:
        peer = smtplib.SMTP("127.0.0.1", server.port, "test")
    peer.close()


def test_fault_at_any_stage(tmp_path: Path) -> None:
    for stage in ("mail", "rcpt", "data", "dot", "taken"):
        folder = tmp_path / stage
        with (
            MailboxServer(folder, fault=lambda at, address, stage=stage: DROP if at == stage else None) as server,  # type: ignore[misc]
            pytest.raises(smtplib.SMTPServerDisconnected),
        ):
            deliver(server.port)
        assert server.mailbox.count() == (1 if stage == "taken" else 0)


def test_what_it_confirmed_survives_its_own_killing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sandbox.mailbox", "--folder", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        deliver(port)
        process.send_signal(signal.SIGKILL)
    assert Mailbox(tmp_path).count() == 1


def test_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with MailboxServer(tmp_path) as server:
        assert main(["--port", str(server.port), "--folder", str(tmp_path)]) == 1
    assert f"port {server.port} on 127.0.0.1 cannot be used: " in capsys.readouterr().err
