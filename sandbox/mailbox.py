"""A mail server that keeps what it gets, for the demo and the tests.

What it has answered with 250 is on disk before the answer leaves, so that a sender killed at any moment can be
compared with it. Recipients whose local part begins with `gone.` do not exist.

    python -m sandbox.mailbox --port 2525 --folder data/sandbox/mailbox
"""

from __future__ import annotations

import argparse
import asyncio
import email
import email.policy
import sqlite3
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

Stage = Literal["mail", "rcpt", "data", "dot", "taken"]
"""Where a fault may strike: at MAIL, at RCPT, in the middle of the data, after the final dot with the mail not
kept, after it is kept."""

Fault = Callable[[Stage, str], str | None]
"""(stage, address) to a reply line, DROP, STALL, HALF_REPLY or None. The address is the sender at `mail`."""

DROP, STALL, HALF_REPLY = "drop", "stall", "half reply"


@dataclass(frozen=True)
class Kept:
    mail_id: int
    received_at: datetime
    envelope_from: str
    envelope_to: str
    content: bytes

    @cached_property
    def message(self) -> EmailMessage:
        return email.message_from_bytes(self.content, policy=email.policy.default)


class Mailbox:
    """The mails in a folder, as any process may read them while the server runs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "mailbox.db"
        with closing(self.connect()) as connection:
            connection.execute(
                "create table if not exists mails (mail_id integer primary key, received_at text not null, "
                "envelope_from text not null, envelope_to text not null, content blob not null) strict"
            )

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=60)
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        return connection

    def mails(self, after: int = 0) -> list[Kept]:
        """In the order of arrival, those with a larger mail_id than `after`."""
        query = (
            "select mail_id, received_at, envelope_from, envelope_to, content from mails "
            "where mail_id > ? order by mail_id"
        )
        with closing(self.connect()) as connection:
            rows = connection.execute(query, (after,)).fetchall()
        return [Kept(row[0], datetime.fromisoformat(row[1]), *row[2:]) for row in rows]

    def count(self) -> int:
        with closing(self.connect()) as connection:
            return int(connection.execute("select count(*) from mails").fetchone()[0])


class MailboxServer:
    """In this process, on its own thread: `with MailboxServer(folder) as server: server.port`.

    `login` wants TLS. `implicit_tls`: TLS from the first byte instead of STARTTLS. `pipelining`: announced or not.
    `largest`: bytes of a mail, as announced.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        fault: Fault | None = None,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        login: tuple[str, str] | None = None,
        pipelining: bool = True,
        largest: int = 2**25,
    ) -> None:
        self.mailbox = Mailbox(folder)
        self.port = port
        self.connections = 0
        self._keeper = _Keeper(self.mailbox, fault or _no_fault, pipelining)
        self._implicit_tls = tls if implicit_tls else None
        self._options: dict[str, Any] = {"hostname": "mailbox.example", "auth_required": login is not None}
        self._options["data_size_limit"] = largest
        if tls and not implicit_tls:
            self._options["tls_context"] = tls
        if login:
            self._options["authenticator"] = _only(login)
        self._loop = asyncio.new_event_loop()
        self._open: set[_Session] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mailbox", daemon=True)

    def __enter__(self) -> Self:
        """Raises OSError where the port is taken."""
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)
        except OSError:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(30)
        self._stop()

    def wait(self) -> None:
        """Until the thread ends, which is never; Ctrl-C breaks it."""
        self._thread.join()

    async def _listen(self) -> None:
        self._server = await self._loop.create_server(
            self._session, "127.0.0.1", self.port, ssl=self._implicit_tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def _session(self) -> _Session:
        self.connections += 1
        return _Session(self._keeper, self._open, loop=self._loop, **self._options)

    async def _close(self) -> None:
        self._server.close()
        for session in list(self._open):
            session.abort()
        while self._open:
            await asyncio.sleep(0)
        self._keeper.close()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Session(SMTP):
    """One connection. aiosmtpd's handler has no hook between DATA and the final dot."""

    def __init__(self, keeper: _Keeper, open_sessions: set[_Session], **options: Any) -> None:
        super().__init__(keeper, **options)
        self._sessions = open_sessions

    def connection_made(self, transport: Any) -> None:
        self._sessions.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._sessions.discard(self)
        super().connection_lost(error)

    async def smtp_DATA(self, arg: str) -> None:
        recipients = self.envelope.rcpt_tos if self.envelope else []
        if recipients and (answer := self.event_handler.fault("data", recipients[0])):
            await self.push("354 End data with <CR><LF>.<CR><LF>")
            await self._reader.readuntil(b"\r\n")
            await self.misbehave(answer)
        await super().smtp_DATA(arg)

    async def misbehave(self, answer: str) -> str:
        """The reply to give, unless the fault is not to give one."""
        if answer == STALL:
            await asyncio.Event().wait()
        if answer in (DROP, HALF_REPLY):
            if answer == HALF_REPLY:
                self._writer.write(b"25")
                await self._writer.drain()
                self._writer.close()
            else:
                self.abort()
            await asyncio.Event().wait()  # until the loss of the connection cancels this
        return answer

    def abort(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()


class _Keeper:
    """aiosmtpd's hooks; runs on the server's thread."""

    def __init__(self, mailbox: Mailbox, fault: Fault, pipelining: bool) -> None:
        self.fault = fault
        self._pipelining = pipelining
        self._mailbox = mailbox
        self._connection: sqlite3.Connection | None = None

    async def handle_EHLO(
        self, server: _Session, session: Any, envelope: Any, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        first, *others = responses
        return [first, *(["250-PIPELINING"] if self._pipelining else []), *others]

    async def handle_MAIL(
        self, server: _Session, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if answer := self.fault("mail", address):
            return await server.misbehave(answer)
        envelope.mail_from = address
        return "250 2.1.0 Ok"

    async def handle_RCPT(
        self, server: _Session, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if answer := self.fault("rcpt", address):
            return await server.misbehave(answer)
        if address.startswith("gone."):
            return f"550 5.1.1 <{address}>: Recipient address rejected: User unknown"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: _Session, session: Any, envelope: Any) -> str:
        recipient = envelope.rcpt_tos[0]
        if answer := self.fault("dot", recipient):
            return await server.misbehave(answer)
        mail_id = self._keep(envelope)
        if answer := self.fault("taken", recipient):
            return await server.misbehave(answer)
        return f"250 2.0.0 Ok: kept as {mail_id}"

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _keep(self, envelope: Any) -> int | None:
        if self._connection is None:
            self._connection = self._mailbox.connect()
        row = (datetime.now(UTC).isoformat(), envelope.mail_from, ", ".join(envelope.rcpt_tos), envelope.content)
        statement = "insert into mails (received_at, envelope_from, envelope_to, content) values (?, ?, ?, ?)"
        return self._connection.execute(statement, row).lastrowid


def _no_fault(stage: Stage, address: str) -> None:
    return None


def _only(login: tuple[str, str]) -> Callable[..., AuthResult]:
    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        given = (data.login, data.password) if isinstance(data, LoginPassword) else None
        return AuthResult(success=given == tuple(word.encode() for word in login), handled=False)

    return authenticate


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox.mailbox", description="Keeps the mail it gets.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        with MailboxServer(options.folder, port=options.port) as server:
            print(f"mailbox: listening on 127.0.0.1:{server.port}", flush=True)
            server.wait()
    except OSError as error:
        print(f"mailbox: port {options.port} on 127.0.0.1 cannot be used: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
