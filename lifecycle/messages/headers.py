"""Header lines as mailbox providers want them, written by hand.

The standard library's EmailMessage turns a long List-Unsubscribe into encoded words, which Gmail rejects, and
breaks encoded subjects over 75 columns; `email.header.Header` alone gets subjects right.
"""

from __future__ import annotations

import re
from email.header import Header

from lifecycle.errors import ContentError
from lifecycle.settings.policies import countries, subject_mark

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Whatever some reader may take for the end of a line, and its like."""

_URI = re.compile(r"[!-;=?-~]+")
_ADDRESS = re.compile(r"[!#-'*+\-./0-9=?A-Z^_`a-z{|}~]+@[a-z0-9.-]+", re.IGNORECASE)
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/^_`{|}~-]+( [A-Za-z0-9!#$%&'*+/^_`{|}~-]+)*")
_MAX_LINE = 78


def header(name: str, value: str) -> str:
    """One line, ASCII, never folded. Raises ContentError where the value would break out of its line."""
    if _CONTROL.search(value) or not value.isascii():
        raise ContentError(f"{name} has a line break, a control character or is not ASCII")
    return f"{name}: {value}\r\n"


def uri_header(name: str, *uris: str) -> str:
    """`<…>` around each, folded only between them."""
    for uri in uris:
        if not _URI.fullmatch(uri):
            raise ContentError(f"{name} has an address that cannot stand in a header")
    return f"{name}: " + ",\r\n ".join(f"<{uri}>" for uri in uris) + "\r\n"


def text_header(name: str, text: str) -> str:
    """Any words: as they are where they are short and ASCII, else as encoded words (RFC 2047)."""
    plain = text.isascii() and "=?" not in text and len(name) + len(text) + 2 <= _MAX_LINE
    return header(name, text) if plain else f"{name}: {_encoded(name, text)}\r\n"


def mailbox_header(name: str, display: str, address: str) -> str:
    """`From: Brand <news@brand.example>`, folded, if at all, before the address."""
    check_address(name, address)
    plain = _ATOMS.fullmatch(display) and len(name) + len(display) + 2 <= _MAX_LINE
    words = f"{name}: {display if plain else _encoded(name, display)}"
    on_one_line = len(words.rpartition("\r\n")[2]) + len(address) + 3 <= _MAX_LINE
    space = " " if on_one_line else "\r\n "
    return f"{words}{space}<{address}>\r\n"


def address_header(name: str, address: str) -> str:
    check_address(name, address)
    return f"{name}: {address}\r\n"


def check_address(name: str, address: str) -> None:
    """Raises ContentError for what is no address, or one that needs SMTPUTF8."""
    if not _ADDRESS.fullmatch(address) or len(address) > 254:
        raise ContentError(f"{name} is no address that plain SMTP can carry")


def marked_subject(subject: str, country: str | None, purpose: str) -> str:
    """The subject, after the mark that the law of the recipient's country wants for such a mail, if it wants one.

    A subject that begins with the mark, or with another that the law accepts, stays as it is, and so does none.
    """
    mark = subject_mark(country, purpose)
    if not subject or mark is None:
        return subject
    law = countries().get(country or "")
    accepted = (mark.strip(), *(law.subject_mark.alternatives if law and law.subject_mark else ()))
    return subject if any(_begins_with(subject, each) for each in accepted) else f"{mark.strip()} {subject}"


def _begins_with(subject: str, mark: str) -> bool:
    """As a word of its own: `ADIDAS` does not begin with `AD`."""
    joined = mark[-1:].isascii() and mark[-1:].isalnum() and subject[len(mark) : len(mark) + 1].isalnum()
    return subject.startswith(mark) and not joined


def _encoded(name: str, text: str) -> str:
    if _CONTROL.search(text):
        raise ContentError(f"{name} has a line break or a control character")
    try:
        return Header(text, "utf-8", maxlinelen=76, header_name=name).encode(linesep="\r\n")
    except UnicodeError:
        raise ContentError(f"{name} has a character that cannot be encoded") from None
