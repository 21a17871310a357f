"""The tracking web app, really served on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from sqlalchemy import Engine

from lifecycle.settings import Config, Environment
from lifecycle.tracking.app import create_app
from lifecycle.tracking.feedback.desk import Desk
from tests.conftest import FakeClock
from tests.tracking.feedback import SECRET
from tests.tracking.ledger import send_mails


@pytest.fixture
def ids(engine: Engine) -> list[int]:
    return send_mails(engine, SECRET)


@pytest.fixture
def desk(engine: Engine, environment: Environment, config: Config, clock: FakeClock) -> Desk:
    return Desk(engine, environment, config, clock=clock)


@pytest.fixture
def web(engine: Engine, environment: Environment, config: Config, clock: FakeClock) -> Iterator[httpx.Client]:
    """A client of the app, which runs in a thread with uvicorn and ends in order."""
    app = create_app(engine, environment, config, clock=clock)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"user-agent": "Mozilla/5.0 (X11)"}) as client:
        yield client
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive(), "the app did not end"
