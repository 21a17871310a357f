"""One SMTP connection: commands and mails out, replies in, pipelined where the server offers it (RFC 2920).

smtplib greets, starts TLS and logs in; the rest is here, because its `sendmail` waits for an answer four times a
mail, and does not tell a connection that broke before the final dot (not taken) from one that broke after it
(nobody knows).
"""

from __future__ import annotations

import contextlib
import re
import smtplib
import socket
import ssl
import time

from lifecycle.channels.base import Refused
from lifecycle.channels.replies import At, Reply, parse, refusal, seconds_to_wait
from lifecycle.errors import ChannelDown
from lifecycle.messages.records import Mail
from lifecycle.settings.channels import Smtp

_DOT = b".\r\n"
_RESET = b"RSET\r\n"
_LOGIN_REFUSED = frozenset({530, 534, 535, 538})
_LONGEST_REPLY = 65_536
_REPLY_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])(.*))?", re.DOTALL)


class Lost(Exception):
    """The connection is of no use any more. `silent`: no answer came in time. `whole`: the network has taken the
    mail up to its final dot, so that the server may have it."""

    def __init__(self, why: str, *, silent: bool = False, whole: bool = False) -> None:
        super().__init__(why)
        self.silent = silent
        self.whole = whole


class Connection:
    """Ready for mail. `largest`: bytes of a mail that the server takes at most. `carried`: mails offered so far.
    `offered`: the mail whose commands the server has, and whose content it has not."""

    def __init__(self, peer: smtplib.SMTP, timeout_seconds: float) -> None:
        assert peer.sock is not None
        self._peer, self._socket, self._timeout = peer, peer.sock, timeout_seconds
        # Else the end of a mail waits until the server has acknowledged its beginning.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pipelining = "pipelining" in peer.esmtp_features
        size = peer.esmtp_features.get("size", "")
        self.largest = int(size) if size.isdigit() and int(size) else None
        self.carried = 0
        self.offered: Mail | None = None
        self._commands: list[tuple[At, bytes]] = []
        self._needs_reset = False
        self._reset = b""
        self._resting = True
        self._broken = False
        self._unread = b""

    @property
    def at_rest(self) -> bool:
        """Between two mails, so that the connection may be kept."""
        return self._resting and not self._broken

    def offer(self, mail: Mail) -> Refused | None:
        """MAIL, RCPT and DATA, unless they left together with the mail before. None: the server waits for the
        content. Raises Lost."""
        replies = self._exchange(mail)
        refused = next(((at, reply) for at, reply in replies.items() if reply.code >= 400), None)
        if refused is None:
            return None
        self.offered = None
        self._needs_reset = True
        self._resting = True
        self._end_without_content(replies)
        return refusal(refused[1], at=refused[0])

    def hear(self) -> None:
        """Raises Lost where the server has spoken or hung up since it asked for the content."""
        self._socket.settimeout(0)
        try:
            heard = self._unread or self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            raise Lost(words(error)) from None
        finally:
            self._socket.settimeout(self._timeout)
        raise Lost("the server says more than it was asked" if heard else "the server closed the connection")

    def hand_over(self, mail: Mail, following: Mail | None) -> Reply:
        """The content, and in the same breath the commands for the mail that follows. Raises Lost."""
        self.offered = None
        content = dot_stuffed(mail.content) + _DOT
        self._write(content + (b"" if following is None else self._prepare(following)), whole_at=len(content))
        try:
            reply = self._reply(mail)
            if reply.code < 400 and reply.code // 10 != 25:
                raise Lost("the server's answer is not SMTP")
        except Lost as lost:
            lost.whole = True
            raise
        self._resting = following is None
        self._needs_reset = self._resting and reply.code >= 400
        self._broken = self._broken or reply.code == 421
        return reply

    def quit(self) -> None:
        if self.at_rest:
            with contextlib.suppress(Lost):
                self._write(b"QUIT\r\n")
                self._reply(None)
        self.close()

    def close(self) -> None:
        self._broken = True
        self._peer.close()

    def _prepare(self, mail: Mail) -> bytes:
        """Its commands together; DATA is the last of a group."""
        sender, recipient = mail.envelope_from.encode("ascii"), mail.envelope_to.encode("ascii")
        mail_command = b"MAIL FROM:<%b>\r\n" % sender
        self._commands = [("mail", mail_command), ("rcpt", b"RCPT TO:<%b>\r\n" % recipient), ("data", b"DATA\r\n")]
        self._reset = _RESET if self._needs_reset else b""
        self._needs_reset = False
        self._resting = False
        self.offered = mail
        self.carried += 1
        return self._reset + b"".join(command for _, command in self._commands)

    def _exchange(self, mail: Mail) -> dict[At, Reply]:
        """The replies to a mail's commands: to all of them, or up to the first that is refused where they go out
        one by one. What breaks after a refusal does not change it."""
        if self.offered is not mail:
            together = self._prepare(mail)
            if self.pipelining:
                self._write(together)
        if self._reset:
            self._wait_for_reset()
        replies: dict[At, Reply] = {}
        refused = False
        for at, command in self._commands:
            try:
                if not self.pipelining:
                    self._write(command)
                replies[at] = self._expected(at, self._reply(mail))
            except Lost:
                self._broken = True
                if not refused:
                    raise
                break
            refused = refused or replies[at].code >= 400
            self._broken = self._broken or replies[at].code == 421
            if self._broken or (refused and not self.pipelining):
                break
        return replies

    def _wait_for_reset(self) -> None:
        if not self.pipelining:
            self._write(_RESET)
        self._reset = b""
        if self._reply(None).code >= 300:
            raise Lost("the server does not take RSET")

    @staticmethod
    def _expected(at: At, reply: Reply) -> Reply:
        if reply.code < 400 and (reply.code // 100 == 3) != (at == "data"):
            raise Lost("the server's answer is not SMTP")
        return reply

    def _end_without_content(self, replies: dict[At, Reply]) -> None:
        """The server waits for the content of a mail that it has refused."""
        if self._broken or "data" not in replies or replies["data"].code >= 400:
            return
        if replies["rcpt"].code < 400:  # they would get an empty mail
            self._broken = True
            return
        try:
            self._write(_DOT)
            self._reply(None)
        except Lost:
            self._broken = True

    def _write(self, data: bytes, *, whole_at: int | None = None) -> None:
        view, done = memoryview(data), 0
        try:
            while done < len(data):
                done += self._socket.send(view[done:])
        except OSError as error:
            whole = whole_at is not None and done >= whole_at
            raise Lost(words(error), silent=isinstance(error, TimeoutError), whole=whole) from None

    def _reply(self, mail: Mail | None) -> Reply:
        until = time.monotonic() + self._timeout
        lines: list[bytes] = []
        while True:
            match = _REPLY_LINE.fullmatch(self._line(until))
            if match is None or len(lines) > 1000:
                raise Lost("the server's answer is not SMTP")
            lines.append(match[3] or b"")
            if match[2] != b"-":
                break
        code = int(match[1])
        if code < 400:
            return Reply(code, "", "")
        text = b"\n".join(lines).decode("utf-8", "replace")
        return parse(code, text, recipient=mail.envelope_to if mail else "")

    def _line(self, until: float) -> bytes:
        while (end := self._unread.find(b"\n")) < 0:
            if len(self._unread) > _LONGEST_REPLY:
                raise Lost("the server's answer is not SMTP")
            if time.monotonic() > until:
                raise Lost("timed out", silent=True)
            try:
                received = self._socket.recv(8192)
            except OSError as error:
                raise Lost(words(error), silent=isinstance(error, TimeoutError)) from None
            if not received:
                raise Lost("the server closed the connection")
            self._unread += received
        line, self._unread = self._unread[:end], self._unread[end + 1 :]
        return line.rstrip(b"\r")


def connect(settings: Smtp, password: str) -> Connection:
    """Raises ChannelDown where the server cannot be reached, trusted or logged in to."""
    where = f"SMTP server {settings.host}:{settings.port}"
    try:
        return Connection(_greeted(settings, password), settings.timeout_seconds)
    except smtplib.SMTPAuthenticationError as error:
        raise ChannelDown(
            f"{where} does not accept the login ({error.smtp_code})", login=error.smtp_code >= 500
        ) from None
    except smtplib.SMTPNotSupportedError as error:
        raise ChannelDown(f"{where} cannot do what config/channels.yaml asks: {error}") from None
    except smtplib.SMTPResponseException as error:
        raise _turned_away(where, error) from None
    except ssl.SSLError as error:
        raise ChannelDown(f"{where}: no secure connection: {error.reason or error}") from None
    except UnicodeEncodeError:
        raise ChannelDown(f"{where}: user name or password is not ASCII, as SMTP needs it", login=True) from None
    except (OSError, smtplib.SMTPException) as error:
        raise ChannelDown(f"{where} cannot be reached: {words(error)}") from None


def dot_stuffed(content: bytes) -> bytes:
    """As it goes over the line (RFC 5321, 4.5.2), with an end of line at its end."""
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    return (b"." if stuffed.startswith(b".") else b"") + stuffed + (b"" if stuffed.endswith(b"\r\n") else b"\r\n")


def words(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, TimeoutError):
        return "timed out"
    return str(getattr(error, "strerror", None) or error)


def _greeted(settings: Smtp, password: str) -> smtplib.SMTP:
    host, port, hello, timeout = settings.host, settings.port, settings.hello_name, settings.timeout_seconds
    context = ssl.create_default_context() if settings.security != "none" else None
    if settings.security == "tls":
        peer: smtplib.SMTP = smtplib.SMTP_SSL(host, port, hello, timeout=timeout, context=context)
    else:
        peer = smtplib.SMTP(host, port, hello, timeout=timeout)
    try:
        if settings.security == "starttls":
            peer.starttls(context=context)
        peer.ehlo_or_helo_if_needed()
        if settings.username:
            peer.login(settings.username, password)
    except BaseException:
        peer.close()
        raise
    return peer


def _turned_away(where: str, error: smtplib.SMTPResponseException) -> ChannelDown:
    said = error.smtp_error if isinstance(error.smtp_error, str) else error.smtp_error.decode("utf-8", "replace")
    reply = parse(error.smtp_code, said)
    told = f"{reply.code} {reply.status} {reply.text}".replace("  ", " ").rstrip()
    login = reply.code in _LOGIN_REFUSED
    return ChannelDown(f"{where} turns us away ({told})", seconds_to_wait(reply.text), login=login)
