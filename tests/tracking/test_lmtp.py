"""LMTP: a mail is answered for after its commit and never before."""

from __future__ import annotations

import asyncio
import os
import smtplib
import socket
import subprocess
import sys
from collections.abc import Sequence

import pytest
from sqlalchemy import Engine, text

from lifecycle.db.engine import writing
from lifecycle.db.schema import message_events, suppressions, unmatched_reports
from lifecycle.errors import NotReady
from lifecycle.tracking.feedback.desk import Desk
from lifecycle.tracking.feedback.lmtp import MAX_MAIL_BYTES, lmtp_server
from tests.tracking.feedback import (
    SECRET,
    bounce_address,
    bounce_of,
    database_url,
    rows,
    serving,
    unsubscribe_address,
)

__all__ = ["database_url"]


def replies(port: int, lines: Sequence[str]) -> list[str]:
    """What the server says to commands and data written at once."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        peer.sendall("".join(f"{line}\r\n" for line in lines).encode())
        with peer.makefile() as file:
            return [line.rstrip() for line in file]


def test_a_bounce_by_lmtp_is_written_down_before_it_is_answered(
    desk: Desk, engine: Engine, ids: list[int]
) -> None:
    with serving(desk) as port, smtplib.LMTP("127.0.0.1", port) as client:
        for message_id in ids[:2]:
            assert client.sendmail("", [bounce_address(message_id)], bounce_of(message_id)) == {}
            assert len(rows(engine, suppressions)) == message_id - 100
    assert {event.source for event in rows(engine, message_events)} == {"lmtp"}


def test_each_recipient_of_a_mail_gets_an_answer(desk: Desk, engine: Engine, ids: list[int]) -> None:
    lines = [
        "LHLO tern", "MAIL FROM:<p@example.com>", f"RCPT TO:<{unsubscribe_address(101)}>",
        f"RCPT TO:<{unsubscribe_address(102)}>", "DATA", "Subject: unsubscribe", "", ".", "QUIT",
    ]  # fmt: skip
    with serving(desk) as port:
        said = replies(port, lines)
    assert [line for line in said if line.startswith("250 2.0.0")] == ["250 2.0.0 taken"] * 2
    assert said[-1].startswith("221")
    assert {event.message_id for event in rows(engine, message_events)} == {101, 102}


def test_while_the_database_is_away_the_mail_stays_with_the_mail_server(
    desk: Desk, engine: Engine, ids: list[int]
) -> None:
    with serving(desk) as port, smtplib.LMTP("127.0.0.1", port) as client:
        with writing(engine) as connection:
            connection.execute(text("alter table message_events rename to gone"))
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("", [bounce_address(101)], bounce_of(101))
        assert refused.value.smtp_code == 451
        with writing(engine) as connection:
            connection.execute(text("alter table gone rename to message_events"))
        assert client.sendmail("", [bounce_address(101)], bounce_of(101)) == {}
    assert len(rows(engine, suppressions)) == 1


def test_what_is_too_large_is_refused_and_the_next_is_taken(desk: Desk, engine: Engine, ids: list[int]) -> None:
    with serving(desk) as port, smtplib.LMTP("127.0.0.1", port) as client:
        client.ehlo_or_helo_if_needed()
        client.mail("")
        client.rcpt(bounce_address(101))
        assert client.data(b"x" * 76 + b"\r\n" + (b"x" * 76 + b"\r\n") * (MAX_MAIL_BYTES // 78))[0] == 552
        long_line = bounce_of(101).replace(b"\r\n\r\n", b"\r\nX-Long: " + b"y" * 50_000 + b"\r\n\r\n", 1)
        assert client.sendmail("", [bounce_address(101)], long_line) == {}
    assert len(rows(engine, suppressions)) == 1


def test_garbage_is_taken_and_leaves_nothing(desk: Desk, engine: Engine, ids: list[int]) -> None:
    with serving(desk) as port, smtplib.LMTP("127.0.0.1", port) as client:
        for content in (b"", b"\x00\xff\xfe", b"Subject: Buy now\r\n\r\nCheap!"):
            assert client.sendmail("spam@example.net", ["b+x@bounce.brand.example"], content) == {}
    assert rows(engine, message_events) == rows(engine, unmatched_reports) == []


def test_a_port_in_use_is_a_sentence(desk: Desk) -> None:
    async def listen(port: int) -> None:
        async with lmtp_server(desk, "127.0.0.1", port):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(NotReady, match="cannot listen on"):
        asyncio.run(listen(taken.getsockname()[1]))
    with pytest.raises(NotReady, match="not for servers"):
        asyncio.run(listen(2024))


def test_the_server_ends_in_order_on_sigterm(engine: Engine, ids: list[int], database_url: str) -> None:
    program = (
        "from lifecycle.tracking.feedback.desk import Desk; from lifecycle.workplace import open_workplace\n"
        "from lifecycle.tracking.feedback.lmtp import serve_lmtp\n"
        "place = open_workplace()\n"
        "serve_lmtp(Desk(place.engine, place.environment, place.config), '127.0.0.1', 0,"
        " started=lambda port: print(port, flush=True))\n"
        "print('ended')"
    )
    env = {**os.environ, "TERN_DATABASE_URL": database_url, "TERN_SECRET": SECRET.decode()}
    server = subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    with smtplib.LMTP("127.0.0.1", int(server.stdout.readline())) as client:
        assert client.sendmail("", [bounce_address(101)], bounce_of(101)) == {}
    server.terminate()
    said, _ = server.communicate(timeout=20)
    assert (server.returncode, said) == (0, "ended\n")
    assert len(rows(engine, suppressions)) == 1
