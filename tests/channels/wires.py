"""Wires to a peer that is spoken to over HTTP, and how each breaks."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from sandbox.messengers import Break
from tests.contracts.channel import Peer

BREAKS: Mapping[Peer, Break] = {
    Peer.BREAKS_BEFORE_IT_HAS_ALL: "request",
    Peer.HAS_ALL_AND_BREAKS: "whole_request",
    Peer.TAKES_AND_BREAKS: "answer",
    Peer.TAKES_AND_STAMMERS: "half_answer",
    Peer.TAKES_AND_IS_SILENT: "silence",
}


def unused_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
