"""SMTP submission to a relay or an e-mail service, one connection for many mails.

smtplib speaks the commands; the mail itself is sent here, because `sendmail` does not tell a connection that
broke before the final dot (not taken) from one that broke after it (nobody knows).
"""

from __future__ import annotations

import contextlib
import re
import smtplib
import socket
import ssl
from types import TracebackType
from typing import Self

from lifecycle.channels.base import Accepted, Outcome, Refused, Scope, Unknown
from lifecycle.errors import ChannelDown
from lifecycle.messages.records import Mail
from lifecycle.settings.models import Smtp

_ADDRESS_IS_DEAD = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1", "5.7.13"})
"""Enhanced status codes (RFC 3463 and IANA's registry) that are about the mailbox and will not change."""

_LOGIN_WANTED = frozenset({530, 534, 535, 538})
_ENHANCED = re.compile(r"^([245]\.\d{1,3}\.\d{1,3})\b\s*")
_ADDRESS = re.compile(r"[^\s<>()\[\]:;,\"]+@[^\s<>()\[\]:;,\"]+")


class SmtpChannel:
    """Connects with the first mail and keeps the connection until something breaks it."""

    def __init__(self, settings: Smtp, password: str = "") -> None:
        self._settings = settings
        self._password = password
        self._peer: smtplib.SMTP | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._peer is not None:
            with contextlib.suppress(smtplib.SMTPException, OSError):
                self._peer.quit()
            self._hang_up()

    def send(self, mail: Mail) -> Outcome:
        reused = self._peer is not None
        try:
            outcome = self._transfer(self._connected(), mail)
        except _Lost as lost:
            self._hang_up()
            if lost.after_final_dot:
                return Unknown(f"the connection was lost before the server confirmed the mail: {lost}")
            if not reused or lost.timed_out:
                return Refused("", f"the mail could not be handed over: {lost}", permanent=False)
        else:
            if not reused or not (isinstance(outcome, Refused) and outcome.code.startswith("421")):
                return outcome
        return self.send(mail)  # servers close connections that were idle or have carried enough mails

    def _transfer(self, peer: smtplib.SMTP, mail: Mail) -> Outcome:
        for command, expected in (
            (f"MAIL FROM:<{mail.envelope_from}>", 2),
            (f"RCPT TO:<{mail.envelope_to}>", 2),
            ("DATA", 3),
        ):
            code, text = _ask(peer, command)
            if 400 <= code < 600:
                self._forget(peer, code)
                return _refusal(code, text, sender_refused=command.startswith("MAIL"))
            if code // 100 != expected:
                raise _Lost("the server's answer is not SMTP", after_final_dot=False)
        try:
            peer.send(_dot_stuffed(mail.content))
        except (OSError, smtplib.SMTPException) as error:
            raise _Lost(error, after_final_dot=False) from None
        try:
            peer.send(b".\r\n")
            code, text = _decoded(*peer.getreply())
        except (OSError, smtplib.SMTPException) as error:
            raise _Lost(error, after_final_dot=True) from None
        if 200 <= code < 300:
            return Accepted(mail.message_id)
        if 400 <= code < 600:
            self._forget(peer, code)
            return _refusal(code, text)
        raise _Lost("the server's answer is not SMTP", after_final_dot=True)

    def _connected(self) -> smtplib.SMTP:
        """Raises ChannelDown where the server cannot be reached, trusted or logged in to."""
        if self._peer is None:
            where = f"{self._settings.host}:{self._settings.port}"
            try:
                self._peer = self._connect()
            except smtplib.SMTPAuthenticationError as error:
                raise ChannelDown(f"SMTP server {where} does not accept the login ({error.smtp_code})") from None
            except smtplib.SMTPNotSupportedError as error:
                raise ChannelDown(
                    f"SMTP server {where} cannot do what config/channels.yaml asks: {error}"
                ) from None
            except smtplib.SMTPResponseException as error:
                raise ChannelDown(f"SMTP server {where} turns us away ({error.smtp_code})") from None
            except ssl.SSLError as error:
                raise ChannelDown(f"SMTP server {where}: no secure connection: {error.reason or error}") from None
            except (OSError, smtplib.SMTPException) as error:
                raise ChannelDown(f"SMTP server {where} cannot be reached: {_words(error)}") from None
        return self._peer

    def _connect(self) -> smtplib.SMTP:
        wanted = self._settings
        host, port, hello, timeout = wanted.host, wanted.port, wanted.hello_name, wanted.timeout_seconds
        context = ssl.create_default_context() if wanted.security != "none" else None
        if wanted.security == "tls":
            peer: smtplib.SMTP = smtplib.SMTP_SSL(host, port, hello, timeout=timeout, context=context)
        else:
            peer = smtplib.SMTP(host, port, hello, timeout=timeout)
        try:
            if wanted.security == "starttls":
                peer.starttls(context=context)
            peer.ehlo_or_helo_if_needed()
            if wanted.username:
                peer.login(wanted.username, self._password)
            # The final dot leaves on its own, see `_transfer`, and must not wait for an acknowledgement.
            assert peer.sock is not None
            peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            peer.close()
            raise
        return peer

    def _forget(self, peer: smtplib.SMTP, code: int) -> None:
        """After a refusal: back to the state before MAIL, or a new connection where the server is leaving."""
        if code == 421:
            self._hang_up()
            return
        try:
            peer.rset()
        except (OSError, smtplib.SMTPException):
            self._hang_up()

    def _hang_up(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None


class _Lost(Exception):
    def __init__(self, error: Exception | str, *, after_final_dot: bool) -> None:
        super().__init__(error if isinstance(error, str) else _words(error))
        self.after_final_dot = after_final_dot
        self.timed_out = "timed out" in str(error)


def _ask(peer: smtplib.SMTP, command: str) -> tuple[int, str]:
    try:
        return _decoded(*peer.docmd(command))
    except (OSError, smtplib.SMTPException) as error:
        raise _Lost(error, after_final_dot=False) from None


def _refusal(code: int, text: str, *, sender_refused: bool = False) -> Refused:
    match = _ENHANCED.match(text)
    status = match.group(1) if match else ""
    return Refused(
        code=f"{code} {status}".strip(),
        text=text[match.end() :] if match else text,
        permanent=code >= 500,
        scope=_scope(code, status, sender_refused),
    )


def _scope(code: int, status: str, sender_refused: bool) -> Scope:
    """Bounce classes of RFC 3463: who has to change for the mail to be taken."""
    if status in _ADDRESS_IS_DEAD:
        return "address"
    if code >= 500 and (status.startswith("5.7.") or code in _LOGIN_WANTED or sender_refused):
        return "lane"
    return "message"


def _decoded(code: int, text: bytes) -> tuple[int, str]:
    """Words of the peer on one line, without any address in them."""
    words = " ".join(text.decode("utf-8", "replace").split())
    return code, _ADDRESS.sub("(address)", words)[:300]


def _dot_stuffed(content: bytes) -> bytes:
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    return (b"." if stuffed.startswith(b".") else b"") + stuffed + (b"" if stuffed.endswith(b"\r\n") else b"\r\n")


def _words(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or error)
