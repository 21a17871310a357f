"""A small IMAP4rev1 server (RFC 3501) with one folder, for the tests: all that reading unseen mails needs.

It answers with literals, writes the UID behind the mail when told so, and refuses or drops on demand.
"""

from __future__ import annotations

import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Step = Literal["login", "search", "fetch", "store"]
Fault = Callable[[Step], bool]
"""True: the connection is dropped at this step."""


@dataclass
class Stored:
    content: bytes
    seen: bool = False


@dataclass
class Folder:
    """user and password: what LOGIN takes. uid_last: whether the UID is written behind the mail."""

    user: str = "bounces"
    password: str = "let me in"
    name: str = "INBOX"
    uid_last: bool = False
    mails: dict[int, Stored] = field(default_factory=dict)
    fault: Fault = lambda _step: False
    logins: int = 0

    def put(self, content: bytes) -> int:
        uid = max(self.mails, default=100) + 7
        self.mails[uid] = Stored(content)
        return uid

    def unseen(self) -> list[int]:
        return [uid for uid, mail in self.mails.items() if not mail.seen]


@contextmanager
def serve_imap(folder: Folder) -> Iterator[int]:
    """The port on loopback while the block runs."""

    class Handler(_Connection):
        mailbox = folder

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class _Dropped(Exception):
    pass


class _Connection(socketserver.StreamRequestHandler):
    mailbox: Folder

    def handle(self) -> None:
        self._say("* OK IMAP4rev1 stand-in")
        try:
            while line := self.rfile.readline():
                tag, _, command = line.decode("latin-1").rstrip("\r\n").partition(" ")
                if not self._answer(tag, command):
                    return
        except _Dropped:
            return

    def _answer(self, tag: str, command: str) -> bool:
        name, _, rest = command.partition(" ")
        verb = name.upper()
        if verb == "UID":
            inner, _, rest = rest.partition(" ")
            verb = f"UID {inner.upper()}"
        match verb:
            case "CAPABILITY":
                self._say("* CAPABILITY IMAP4rev1", f"{tag} OK done")
            case "LOGIN":
                self._login(tag, rest)
            case "SELECT":
                good = rest.strip('"') == self.mailbox.name
                self._say(*([f"* {len(self.mailbox.mails)} EXISTS"] if good else []))
                self._say(f"{tag} OK [READ-WRITE] done" if good else f"{tag} NO [NONEXISTENT] no such folder")
            case "UID SEARCH":
                self._break("search")
                self._say("* SEARCH " + " ".join(map(str, self.mailbox.unseen())), f"{tag} OK done")
            case "UID FETCH":
                self._break("fetch")
                self._fetch(rest)
                self._say(f"{tag} OK done")
            case "UID STORE":
                self._break("store")
                for uid in self._uids(rest):
                    self.mailbox.mails[uid].seen |= "\\Seen" in rest
                self._say(f"{tag} OK done")
            case "LOGOUT":
                self._say("* BYE", f"{tag} OK done")
                return False
            case _:
                self._say(f"{tag} BAD what is that")
        return True

    def _login(self, tag: str, rest: str) -> None:
        self._break("login")
        given = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', rest)
        user, password = (quoted.replace("\\", "") or plain for quoted, plain in given)
        if (user, password) != (self.mailbox.user, self.mailbox.password):
            self._say(f"{tag} NO [AUTHENTICATIONFAILED] no")
            return
        self.mailbox.logins += 1
        self._say(f"{tag} OK done")

    def _fetch(self, rest: str) -> None:
        for uid in self._uids(rest):
            content = self.mailbox.mails[uid].content
            place = list(self.mailbox.mails).index(uid) + 1
            if "BODY.PEEK[]" not in rest:
                self._say(f"* {place} FETCH (UID {uid} RFC822.SIZE {len(content)})")
            elif self.mailbox.uid_last:
                self._literal(f"* {place} FETCH (BODY[] ", content, f" UID {uid})")
            else:
                self._literal(f"* {place} FETCH (UID {uid} BODY[] ", content, ")")

    def _uids(self, rest: str) -> list[int]:
        return [uid for uid in map(int, rest.split(" ")[0].split(",")) if uid in self.mailbox.mails]

    def _literal(self, head: str, content: bytes, tail: str) -> None:
        self.wfile.write(f"{head}{{{len(content)}}}\r\n".encode() + content + f"{tail}\r\n".encode())

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def _break(self, step: Step) -> None:
        if self.mailbox.fault(step):
            raise _Dropped
