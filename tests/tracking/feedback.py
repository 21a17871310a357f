"""What the tests of feedback share: a desk, sent mails, and what is written down."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from lifecycle import tokens
from lifecycle.db.engine import reading
from lifecycle.messages.keys import mail_key
from lifecycle.tokens import Purpose, Token
from lifecycle.tracking.feedback.desk import Desk
from lifecycle.tracking.feedback.lmtp import lmtp_server
from sandbox import bouncing

SECRET = b"a secret for tests, 32 characters"


@pytest.fixture
def database_url(_sqlite_template: Path, tmp_path: Path) -> str:
    """What each kind of database makes of it is tested in test_intake."""
    shutil.copy(_sqlite_template, tmp_path / "tern.db")
    return f"sqlite:///{tmp_path / 'tern.db'}"


def bounce_address(message_id: int, secret: bytes = SECRET) -> str:
    return f"b+{tokens.sign(Token(Purpose.BOUNCE, message_id), secret)}@bounce.brand.example"


def unsubscribe_address(message_id: int) -> str:
    return f"u+{tokens.sign(Token(Purpose.UNSUBSCRIBE, message_id), SECRET)}@bounce.brand.example"


def address(message_id: int) -> str:
    """Whom `send_mails` sent that message to."""
    return f"p{message_id - 100}@example.com"


def sent_mail(message_id: int, *, key: str | None = None) -> bytes:
    """As it left. `key`: another Message-ID."""
    key = mail_key(SECRET, message_id, "brand.example") if key is None else key
    return (
        f"From: Brand <news@brand.example>\r\nTo: <{address(message_id)}>\r\nSubject: We miss you\r\n"
        f"Message-ID: {key}\r\nX-Send-ID: {message_id}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
        "Your mailbox is full of spam? Ours is blocked no more: user unknown, 550 5.7.1, 4.2.2.\r\n"
    ).encode()


def bounce_of(message_id: int) -> bytes:
    return bouncing.postfix(bounce_address(message_id), address(message_id), sent_mail(message_id))


def rows(engine: Engine, table: Any) -> list[Any]:
    with reading(engine) as connection:
        return list(connection.execute(select(table)))


@contextmanager
def serving(desk: Desk, port: int = 0) -> Iterator[int]:
    """The LMTP server in a thread of its own; yields its port."""
    ports: list[int] = []
    started, loop, over = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def run() -> None:
        async with lmtp_server(desk, "127.0.0.1", port) as found:
            ports.append(found)
            started.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert started.wait(10)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()
        assert not thread.is_alive()
