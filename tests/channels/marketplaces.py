"""What the tests of the marketplaces' channels share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lifecycle.channels.base import Channel, Outcome
from sandbox.marketplaces.trouble import Kind, Trouble, Troubled
from sandbox.servers import serve
from tests.conftest import SHARED
from tests.contracts.channel import Peer, send_all

SPECS = SHARED / "specs"

BREAKS: dict[Peer, Kind] = {
    Peer.BREAKS_BEFORE_IT_HAS_ALL: "deaf",
    Peer.HAS_ALL_AND_BREAKS: "deaf",
    Peer.TAKES_AND_BREAKS: "mute",
    Peer.TAKES_AND_IS_SILENT: "silent",
    Peer.TAKES_AND_STAMMERS: "half",
}
TIMEOUT = 0.4


class Clock:
    def __init__(self, now: datetime = datetime(2026, 11, 22, 12, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **time: float) -> None:
        self.now += timedelta(**time)


def spec(name: str) -> Any:
    file = SPECS / name
    if not file.exists():
        pytest.skip(f"{file} is not on this machine")
    return json.loads(file.read_text())


@contextmanager
def served(app: Troubled, peer: Peer, path: str, *, after: int = 0) -> Iterator[str]:
    """Its address; with the trouble that the peer means at requests whose path ends with `path`, but the first
    `after`."""
    if peer in BREAKS:
        app.plan(Trouble("none", path, times=after), Trouble(BREAKS[peer], path, seconds=2 * TIMEOUT))
    with serve(app) as url:
        if peer is not Peer.IS_NOT_THERE:
            yield url
    if peer is Peer.IS_NOT_THERE:
        yield url


def answers(channel: Channel, *messages: Any) -> list[Outcome]:
    found = send_all(channel, messages, [])
    return [found[message.send_id] for message in messages]
