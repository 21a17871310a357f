"""SMTP submission to a relay or an e-mail service: one connection, many mails, one honest answer for each."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from lifecycle.channels.base import Accepted, Outcome, Refused, Unknown, nothing_known
from lifecycle.channels.replies import refusal
from lifecycle.channels.smtp_connection import Connection, Lost, connect
from lifecycle.errors import ChannelDown
from lifecycle.messages.records import Mail, Outgoing, Sent
from lifecycle.settings.channels import Smtp

LOST_IN_A_ROW = 5
"""After so many connections in a row that broke or fell silent we stop: each may cost somebody a mail."""

_ENVELOPE = re.compile(r"[!-;=?-~]+@[!-;=?-~]+")
_LONGEST_LINE = 998
"""RFC 5321, 4.5.3.1.6, without the end of the line."""


class SmtpChannel:
    """Connects with the first mail and keeps the connection until something breaks it, or until it has carried
    `per_connection` mails. Of several channels each has its own connection. Accepted carries the Message-ID."""

    at_once = 1000

    def __init__(self, settings: Smtp, password: str = "", *, per_connection: int | None = None) -> None:
        self._settings = settings
        self._password = password
        self._per_connection = per_connection
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.quit()

    def send(
        self, messages: Sequence[Mail], begin: Callable[[Outgoing], None]
    ) -> Iterator[tuple[Outgoing, Outcome]]:
        """Answers in the order of the mails, those that cannot be sent at all first. Every mail that was begun is
        answered, also before ChannelDown."""
        waiting: deque[Mail] = deque()
        for mail in messages:
            problem = _problem(mail)
            if problem is None:
                waiting.append(mail)
            else:
                yield mail, _unfit(problem)
        try:
            yield from self._stream(waiting, begin)
        finally:
            if self._connection is not None and not self._connection.at_rest:
                self._hang_up()

    def look_up(self, sent: Sequence[Sent]) -> Mapping[int, Outcome]:
        return nothing_known(sent)

    def _stream(
        self, waiting: deque[Mail], begin: Callable[[Outgoing], None]
    ) -> Iterator[tuple[Outgoing, Outcome]]:
        lost = 0
        while waiting:
            outcome = self._attempt(waiting, begin)
            if outcome is None:
                continue
            yield waiting.popleft(), outcome
            lost = lost + 1 if _is_lost(outcome) else 0
            if waiting:
                self._stop_where_hopeless(outcome, lost)

    def _attempt(self, waiting: Sequence[Mail], begin: Callable[[Outgoing], None]) -> Outcome | None:
        """Send the first that waits. None: the server had closed the connection, and it is to be tried on a new
        one, once."""
        mail, connection = waiting[0], self._connected()
        if not _fits(mail, connection):
            return _unfit(f"the mail is larger than the {connection.largest:,} bytes that the server takes")
        reused = connection.carried > 0
        try:
            refused = connection.offer(mail)
            if refused is None:
                connection.hear()
        except Lost as lost:
            self._hang_up()
            return None if reused and not lost.silent else _not_handed_over(lost)
        if refused is None:
            begin(mail)
            return self._hand_over(connection, waiting)
        if not connection.at_rest:
            self._hang_up()
        if reused and _is_about_the_connection(refused):
            self._hang_up()
            return None
        return refused

    def _hand_over(self, connection: Connection, waiting: Sequence[Mail]) -> Outcome:
        mail = waiting[0]
        try:
            reply = connection.hand_over(mail, self._following(connection, waiting))
        except Lost as lost:
            self._hang_up()
            if lost.whole:
                return Unknown(f"the connection was lost before the server confirmed the mail: {lost}")
            return _not_handed_over(lost)
        return refusal(reply, at="dot") if reply.code >= 400 else Accepted(mail.key)

    def _following(self, connection: Connection, waiting: Sequence[Mail]) -> Mail | None:
        """The mail that can be offered together with the content of the first that waits."""
        if not connection.pipelining or len(waiting) < 2 or self._is_worn(connection):
            return None
        return waiting[1] if _fits(waiting[1], connection) else None

    def _stop_where_hopeless(self, outcome: Outcome, lost: int) -> None:
        """Raises ChannelDown where the others would fare no better."""
        where = f"SMTP server {self._settings.host}:{self._settings.port}"
        if isinstance(outcome, Refused) and outcome.scope == "lane":
            self._hang_up()
            said = f"{outcome.code} {outcome.text}"
            raise ChannelDown(f"{where} takes nothing from us for now ({said})", outcome.retry_after)
        if lost >= LOST_IN_A_ROW:
            raise ChannelDown(f"{where} broke off {lost} times in a row")

    def _connected(self) -> Connection:
        """Raises ChannelDown."""
        current = self._connection
        if current is not None and current.offered is None and (self._is_worn(current) or not current.at_rest):
            current.quit()
            self._connection = None
        if self._connection is None:
            self._connection = connect(self._settings, self._password)
        return self._connection

    def _is_worn(self, connection: Connection) -> bool:
        return self._per_connection is not None and connection.carried >= self._per_connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _problem(mail: Mail) -> str | None:
    """Why a mail cannot go over any line as it is; SMTPUTF8 and 8BITMIME are never used."""
    for name, address in (("sender", mail.envelope_from), ("recipient", mail.envelope_to)):
        if not _ENVELOPE.fullmatch(address):
            return f"the {name}'s address is not one that plain SMTP can carry"
    content = mail.content
    lines = content.split(b"\r\n")
    if not content.isascii():
        return "the mail has characters that are not ASCII"
    if content.count(b"\n") != len(lines) - 1 or content.count(b"\r") != len(lines) - 1:
        return "the mail has a line that does not end with CR LF"
    if max(map(len, lines)) > _LONGEST_LINE:
        return f"the mail has a line of more than {_LONGEST_LINE} characters"
    return None


def _unfit(problem: str) -> Refused:
    return Refused("", problem, permanent=True, scope="message", kind="content")


def _fits(mail: Mail, connection: Connection) -> bool:
    return connection.largest is None or len(mail.content) <= connection.largest


def _not_handed_over(lost: Lost) -> Refused:
    return Refused("", f"the mail could not be handed over: {lost}", permanent=False, kind="soft")


def _is_lost(outcome: Outcome) -> bool:
    return isinstance(outcome, Unknown) or (
        isinstance(outcome, Refused) and not outcome.code and not outcome.permanent
    )


def _is_about_the_connection(refused: Refused) -> bool:
    """The server was leaving (421), or had not understood where we are (503); but not that we are too fast."""
    code, _, status = refused.code.partition(" ")
    return code == "503" or (code == "421" and not status.startswith("4.7."))
