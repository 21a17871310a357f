"""An LMTP server (RFC 2033) to which the mail server hands what comes to the bounce domain.

A mail is answered with 250 after its commit. Where the database does not take it the answer is 451, and the mail
server keeps it and comes again.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import Envelope, Session
from sqlalchemy.exc import SQLAlchemyError

from lifecycle.errors import NotReady
from lifecycle.processes import NEVER
from lifecycle.tracking.feedback.desk import Desk
from lifecycle.tracking.feedback.intake import Taken
from lifecycle.tracking.feedback.mails import Arrived
from lifecycle.tracking.feedback.records import Entry
from lifecycle.tracking.group_commit import GroupCommit

MAX_MAIL_BYTES = 10_240_000
"""Postfix's own message_size_limit: what it has taken fits."""

MOST_RECIPIENTS = 50
_SOURCE = "lmtp"
_TAKEN = "250 2.0.0 taken"
_LATER = "451 4.3.0 not now, please keep it"
logger = logging.getLogger(__name__)


def serve_lmtp(desk: Desk, host: str, port: int, *, started: Callable[[int], None] = lambda _port: None) -> None:
    """Serve until Ctrl-C or SIGTERM; mails in hand are written down and answered first.

    `port` 0: any free one. `started` is told the port. Raises NotReady where it cannot listen.
    """
    asyncio.run(_serve_until_told(desk, host, port, started))


async def _serve_until_told(desk: Desk, host: str, port: int, started: Callable[[int], None]) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    async with lmtp_server(desk, host, port) as found:
        started(found)
        await told.wait()


@asynccontextmanager
async def lmtp_server(desk: Desk, host: str, port: int) -> AsyncIterator[int]:
    """Serves while the block runs. Yields the port. Raises NotReady where it cannot listen."""
    if port == NEVER:
        raise NotReady(f"port {port} is not for servers of this project; give bounces.lmtp_port another one")
    writer = GroupCommit(desk.engine, desk.write)
    intake = _Intake(desk, writer)
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(lambda: _Lmtp(intake, loop=loop), host, port, backlog=200)
    except OSError as error:
        raise NotReady(
            f"cannot listen on {host}:{port}: {error.strerror or error}; end what uses the port, or set another "
            "bounces.lmtp_port in config/channels.yaml"
        ) from None
    writer.start()
    try:
        async with server:
            yield server.sockets[0].getsockname()[1]
    finally:
        await intake.quiet()
        await writer.stop()


class _Lmtp(LMTP):
    line_length_limit = 100_000  # reports have long lines, and who reports does not come again

    def __init__(self, handler: _Intake, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            handler, data_size_limit=MAX_MAIL_BYTES, enable_SMTPUTF8=True, hostname="tern", ident="Tern", loop=loop
        )


class _Intake:
    """What aiosmtpd calls for each command."""

    def __init__(self, desk: Desk, writer: GroupCommit[Sequence[Entry], Taken]) -> None:
        self._desk, self._writer = desk, writer
        self._in_hand: set[asyncio.Task[str] | asyncio.Future[str]] = set()

    async def handle_RCPT(
        self, _server: LMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if len(envelope.rcpt_tos) >= MOST_RECIPIENTS:
            return "452 4.5.3 too many recipients at once"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, _server: LMTP, _session: Session, envelope: Envelope) -> str:
        work = asyncio.ensure_future(self._take(envelope))
        self._in_hand.add(work)
        work.add_done_callback(self._in_hand.discard)
        return await asyncio.shield(work)

    async def quiet(self) -> None:
        """Returns when nothing is in hand."""
        while self._in_hand:
            await asyncio.wait(self._in_hand)

    async def _take(self, envelope: Envelope) -> str:
        """One answer for each recipient, as LMTP wants it."""
        content = envelope.original_content or b""
        try:
            entries = await asyncio.to_thread(self._read, content, envelope)
            await self._writer.write(entries)
            answer = _TAKEN
        except SQLAlchemyError:
            logger.exception("a mail could not be written down")
            answer = _LATER
        return "\r\n".join([answer] * len(envelope.rcpt_tos))

    def _read(self, content: bytes, envelope: Envelope) -> list[Entry]:
        sender = envelope.mail_from or ""
        arrived = [Arrived(content, [each], sender.strip("<>")) for each in envelope.rcpt_tos]
        return [entry for mail in arrived for entry in self._desk.read(mail, source=_SOURCE)]
