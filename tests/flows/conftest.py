"""One Prefect server for all flow tests: starting it takes seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lifecycle.processes import free_port, process, wait_for
from tests.world import World, small_world


@pytest.fixture(scope="session")
def prefect_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A fresh Prefect server of our own; returns what its clients must know."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    env = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    log = home / "server.log"
    arguments = ["-W", "ignore", "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with process(arguments, env, log) as server:
        wait_for(f"http://127.0.0.1:{port}/api/health", server, log)
        yield env


@pytest.fixture
def world(tmp_path: Path, database_url: str, prefect_env: dict[str, str]) -> Iterator[World]:
    with small_world(tmp_path, database_url) as world:
        world.extra.update(prefect_env)
        yield world


@pytest.fixture
def sqlite_world(tmp_path: Path, prefect_env: dict[str, str]) -> Iterator[World]:
    with small_world(tmp_path, f"sqlite:///{tmp_path / 'tern.db'}") as world:
        world.extra.update(prefect_env)
        yield world
