"""A mailbox to which bounces are delivered, read over IMAP.

A mail is marked as seen after its commit. One that cannot be written down stays unseen and keeps no other waiting.
"""

from __future__ import annotations

import imaplib
import re
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from email.utils import getaddresses

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from lifecycle.errors import NotReady
from lifecycle.settings.channels import Bounces
from lifecycle.tracking.feedback.intake import Taken
from lifecycle.tracking.feedback.mails import Arrived

MAX_MAIL_BYTES = 10_240_000
_MOST_MAILS, _MOST_BYTES = 50, 20_000_000
"""Of one batch: one request for its mails, one transaction."""

_TIMEOUT_SECONDS = 60
_RECIPIENT_HEADERS = ("Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "To", "Cc")
_UID = re.compile(rb"\bUID (\d+)", re.IGNORECASE)
_SIZE = re.compile(rb"\bRFC822\.SIZE (\d+)", re.IGNORECASE)

Take = Callable[[Sequence[Arrived]], Taken]
"""Writes down all or none."""


@dataclass
class Read:
    """taken: mails that are written down and seen. too_large, failed: left unseen, for a person to look at."""

    taken: int = 0
    too_large: int = 0
    failed: int = 0

    def sentence(self) -> str:
        said = f"{self.taken:,} mails read"
        said += f", {self.too_large:,} too large" if self.too_large else ""
        return said + (f", {self.failed:,} could not be written down" if self.failed else "")


def read_imap(settings: Bounces, password: str, take: Take) -> Read:
    """Take in every unseen mail of the folder, in batches.

    Raises NotReady where the mailbox cannot be read, OperationalError where the database is away; what is not
    taken by then stays unseen.
    """
    _check_ascii(settings, password)
    counts = Read()
    try:
        with _opened(settings, password) as mailbox:
            sizes = _unseen(mailbox)
            fitting = {uid: size for uid, size in sizes.items() if size <= MAX_MAIL_BYTES}
            counts.too_large = len(sizes) - len(fitting)
            for batch in _batches(fitting):
                seen = _take(_fetched(mailbox, batch), take)
                counts.taken += len(seen)
                counts.failed += len(batch) - len(seen)
                if seen:
                    _asked(mailbox, "STORE", _set(seen), "+FLAGS.SILENT", r"(\Seen)")
    except (imaplib.IMAP4.error, OSError) as error:
        raise NotReady(f"the mailbox at {settings.imap_host} cannot be read: {_words(error)}") from None
    return counts


def _check_ascii(settings: Bounces, password: str) -> None:
    given = {"imap_folder": settings.imap_folder, "imap_user": settings.imap_user, "imap_password_env": password}
    for field, value in given.items():
        if not (value.isascii() and value.isprintable()):
            raise NotReady(f"bounces.{field}: IMAP knows ASCII letters only here; give the mailbox other ones")


@contextmanager
def _opened(settings: Bounces, password: str) -> Iterator[imaplib.IMAP4]:
    host, port = settings.imap_host, settings.imap_port
    context = ssl.create_default_context()
    mailbox: imaplib.IMAP4
    if settings.imap_security == "tls":
        mailbox = imaplib.IMAP4_SSL(host, port, ssl_context=context, timeout=_TIMEOUT_SECONDS)
    else:
        mailbox = imaplib.IMAP4(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        if settings.imap_security == "starttls":
            mailbox.starttls(context)
        try:
            mailbox.login(settings.imap_user, password)
        except mailbox.abort:
            raise
        except mailbox.error:
            raise NotReady(
                f"the mailbox at {host} does not accept the login; check bounces.imap_user and "
                f"{settings.imap_password_env or 'bounces.imap_password_env'}"
            ) from None
        if mailbox.select(_quoted(settings.imap_folder))[0] != "OK":
            raise NotReady(f'bounces.imap_folder: the mailbox at {host} has no folder "{settings.imap_folder}"')
        yield mailbox
    finally:
        with suppress(imaplib.IMAP4.error, OSError):
            mailbox.logout()
        with suppress(OSError):  # a logout that fails leaves the connection open
            mailbox.shutdown()


def _unseen(mailbox: imaplib.IMAP4) -> dict[bytes, int]:
    """Sizes in bytes by UID, oldest first."""
    uids = b" ".join(each for each in _asked(mailbox, "SEARCH", "UNSEEN") if isinstance(each, bytes)).split()
    sizes: dict[bytes, int] = {}
    for start in range(0, len(uids), 500):
        for line in _asked(mailbox, "FETCH", _set(uids[start : start + 500]), "(UID RFC822.SIZE)"):
            if isinstance(line, bytes) and (uid := _UID.search(line)) and (size := _SIZE.search(line)):
                sizes[uid[1]] = int(size[1])
    return sizes


def _batches(sizes: dict[bytes, int]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    total = 0
    for uid, size in sizes.items():
        if batch and (len(batch) == _MOST_MAILS or total + size > _MOST_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(uid)
        total += size
    if batch:
        yield batch


def _fetched(mailbox: imaplib.IMAP4, uids: Iterable[bytes]) -> dict[bytes, Arrived]:
    """By UID, which a server may write before the mail or behind it."""
    found: dict[bytes, Arrived] = {}
    content: bytes | None = None
    for item in _asked(mailbox, "FETCH", _set(uids), "(UID BODY.PEEK[])"):
        head, content = (item[0], item[1]) if isinstance(item, tuple) else (item, content)
        if content is not None and (uid := _UID.search(head)):
            found[uid[1]] = _arrived(content)
            content = None
    return found


def _take(mails: dict[bytes, Arrived], take: Take) -> list[bytes]:
    """UIDs of those that are written down. Where the database refuses them together each is tried alone."""
    try:
        take(list(mails.values()))
    except OperationalError:
        raise
    except SQLAlchemyError:
        if len(mails) == 1:
            return []
        return [uid for each, mail in mails.items() for uid in _take({each: mail}, take)]
    return list(mails)


def _arrived(content: bytes) -> Arrived:
    headers = BytesHeaderParser().parsebytes(content)
    named = [str(value) for name in _RECIPIENT_HEADERS for value in headers.get_all(name, [])]
    return Arrived(content, [address for _, address in getaddresses(named) if address])


def _asked(mailbox: imaplib.IMAP4, command: str, *arguments: str) -> list[bytes | tuple[bytes, bytes]]:
    status, data = mailbox.uid(command, *arguments)
    if status != "OK":
        raise imaplib.IMAP4.error(f"{command} was refused")
    return [each for each in data if each is not None]


def _set(uids: Iterable[bytes]) -> str:
    return b",".join(uids).decode("ascii")


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _words(error: Exception) -> str:
    """What a person can use of it, and nothing that the server says of the mails."""
    if isinstance(error, OSError):
        return error.strerror or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
    return "the connection was lost" if isinstance(error, imaplib.IMAP4.abort) else "a command was refused"
