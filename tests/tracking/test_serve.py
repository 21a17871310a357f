"""`python -m lifecycle.tracking.serve`: starts, says where, ends in order, and explains what it cannot do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
from sqlalchemy import Engine, select

from lifecycle import tokens
from lifecycle.db.engine import reading
from lifecycle.db.schema import message_events
from lifecycle.tokens import Purpose, Token
from tests.tracking.ledger import send_mails

SECRET = "a secret for tests, 32 characters"


def start(url: str, data: Path, *arguments: str) -> subprocess.Popen[str]:
    env = {**os.environ, "TERN_DATABASE_URL": url, "TERN_DATA": str(data), "TERN_SECRET": SECRET}
    command = [sys.executable, "-m", "lifecycle.tracking.serve", *arguments]
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_it_serves_and_ends_in_order(engine: Engine, database_url: str, tmp_path: Path) -> None:
    [message_id] = send_mails(engine, SECRET.encode(), 1)
    server = start(database_url, tmp_path, "--port", "0")
    assert server.stdout is not None
    url = server.stdout.readline().split()[-1]
    pixel = tokens.sign(Token(Purpose.OPEN, message_id), SECRET.encode())
    assert httpx.get(f"{url}/o/{pixel}.gif", headers={"x-forwarded-for": "203.0.113.9"}).status_code == 200
    server.send_signal(signal.SIGINT)
    _, errors = server.communicate(timeout=20)
    assert (server.returncode, errors) == (0, "")
    with reading(engine) as connection:
        assert connection.execute(select(message_events.c.ip)).scalars().all() == ["203.0.113.9"]


def test_a_port_in_use_is_a_sentence(engine: Engine, database_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start(database_url, tmp_path, "--port", str(port))
        _, errors = server.communicate(timeout=20)
    assert server.returncode == 1
    assert errors == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; "
        "end what uses the port or give another one with --port\n"
    )


def test_a_database_that_is_not_migrated_is_a_sentence(tmp_path: Path) -> None:
    server = start(f"sqlite:///{tmp_path}/new.db", tmp_path)
    _, errors = server.communicate(timeout=20)
    assert (server.returncode, errors) == (1, "the database is empty; run: tern init\n")
