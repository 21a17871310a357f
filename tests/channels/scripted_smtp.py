"""A mail server that does at each step what a list says, and keeps account of what it has taken."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

Step = Literal["greeting", "mail", "rcpt", "data", "content", "dot", "rset"]

DROP, STALL, HALF, NONSENSE = "drop", "stall", "half", "nonsense"
"""Instead of an answer. At `dot` the mail is then not taken."""

TAKE_AND = "take and "
"""In front of one of those: at `dot` the mail is taken; elsewhere the same as without."""

OK = "ok"
"""Anything else is the line to answer with; 421 closes the connection."""


@dataclass
class Script:
    """`moves`: one for each step from the first connection on; afterwards all goes well. `at`: for a step by its
    name, each time or from a list."""

    moves: Iterator[str] = field(default_factory=lambda: iter(()))
    at: dict[Step, Iterator[str]] = field(default_factory=dict)

    def next(self, step: Step) -> str:
        return next(self.at[step], OK) if step in self.at else next(self.moves, OK)


class ScriptedServer:
    """`taken`: (recipient, content) of the mails it has taken. `asked`: recipients whose content it asked for.
    `heard`: lines outside contents, in order. `rude`: what the client should not have done."""

    def __init__(self, script: Script, *, extensions: Iterable[str] = ("PIPELINING",), asks_reset: bool = False):
        self._script, self._extensions = script, tuple(extensions)
        self._asks_reset = asks_reset
        self.taken: list[tuple[str, bytes]] = []
        self.asked: list[str] = []
        self.heard: list[str] = []
        self.rude: list[str] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="scripted", daemon=True)
        self._peer: socket.socket | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def hang_up(self) -> None:
        """On the client, at once, whatever is under way."""
        assert self._peer is not None
        self._peer.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._peer = peer
            with closing(peer), suppress(_Gone, OSError):
                peer.settimeout(20)
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._talk(_Peer(peer))

    def _talk(self, peer: _Peer) -> None:
        self._answer(peer, "greeting", "220 scripted.example")
        sender = recipient = None
        while True:
            line = peer.line()
            self.heard.append(line)
            verb = line.partition(" ")[0].upper()
            if peer.unread and (verb in ("DATA", "EHLO", "QUIT") or "PIPELINING" not in self._extensions):
                self.rude.append(f"more follows {verb}")
            if verb == "EHLO":
                peer.say(
                    "\r\n".join(f"250-{word}" for word in ("scripted.example", *self._extensions)) + "\r\n250 HELP"
                )
            elif verb == "QUIT":
                peer.say("221 bye")
                return
            elif verb == "RSET":
                sender = recipient = None
                self._answer(peer, "rset", "250 ok")
            elif verb == "MAIL":
                if sender is not None and self._asks_reset:
                    peer.say("503 nested MAIL")
                elif self._answer(peer, "mail", "250 ok"):
                    sender, recipient = line, None
            elif verb == "RCPT":
                if sender is None:
                    peer.say("503 MAIL first")
                elif self._answer(peer, "rcpt", "250 ok"):
                    recipient = line.partition("<")[2].rstrip(">")
            elif verb == "DATA":
                if recipient is None:
                    peer.say("554 no valid recipients")
                elif self._answer(peer, "data", "354 go on"):
                    self._take(peer, recipient)
                    sender = recipient = None
            else:
                self.rude.append(line)
                peer.say("500 what?")

    def _take(self, peer: _Peer, recipient: str) -> None:
        self.asked.append(recipient)
        if (move := self._script.next("content")) in (DROP, TAKE_AND + DROP):
            peer.line()
            peer.drop()
        elif move in (STALL, TAKE_AND + STALL):
            peer.stall()
        lines = list(iter(peer.line, "."))
        move = self._script.next("dot")
        if move == OK or move.startswith((TAKE_AND, "2")):
            content = "".join(f"{line.removeprefix('.')}\r\n" for line in lines)
            self.taken.append((recipient, content.encode("ascii")))
        self._do(peer, move.removeprefix(TAKE_AND), "250 taken")

    def _answer(self, peer: _Peer, step: Step, good: str) -> bool:
        """Whether it was a good one."""
        return self._do(peer, self._script.next(step).removeprefix(TAKE_AND), good)

    def _do(self, peer: _Peer, move: str, good: str) -> bool:
        if move == DROP:
            peer.drop()
        if move == STALL:
            peer.stall()
        if move == HALF:
            peer.send(good.encode()[:2])
            raise _Gone
        if move == NONSENSE:
            peer.say("and so on")
            return False
        peer.say(good if move == OK else move)
        if move.startswith("421"):
            raise _Gone
        return move == OK or move.startswith(("2", "3"))


class _Gone(Exception):
    pass


class _Peer:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.unread = b""

    def line(self) -> str:
        while b"\r\n" not in self.unread:
            received = self._connection.recv(65536)
            if not received:
                raise _Gone
            self.unread += received
        line, _, self.unread = self.unread.partition(b"\r\n")
        return line.decode("ascii")

    def say(self, words: str) -> None:
        self.send(words.encode() + b"\r\n")

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def drop(self) -> None:
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Gone

    def stall(self) -> None:
        """Until the client hangs up."""
        while self._connection.recv(65536):
            pass
        raise _Gone
