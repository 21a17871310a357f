"""Delivery status notifications (RFC 3464, RFC 6533) and the fields they are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.header import decode_header, make_header
from email.message import Message
from email.parser import HeaderParser
from typing import Literal

from lifecycle.channels import replies
from lifecycle.channels.base import BounceClass

Fields = Mapping[str, str]
"""By lower-case name; of one that is there twice the first."""

Action = Literal["failed", "delayed", "delivered", "relayed", "expanded"]

MOST_RECIPIENTS = 20
_STATUS_TYPES = frozenset({"message/delivery-status", "message/global-delivery-status"})
_STATUS = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.]*\d)")
_CODE = re.compile(r"(?<![\d.])([45]\d\d)(?=[ -](?:#?\d\.\d|[A-Za-z<(\[])|$)")
_MOST_DEPTH = 30


@dataclass(frozen=True)
class Failure:
    """Why a mail did not arrive. `text`: the server's words, without addresses."""

    bounce: BounceClass
    status: str
    text: str


@dataclass(frozen=True)
class RecipientStatus:
    """What a notification says of one recipient. addresses: those that it goes by, the original one among them."""

    action: Action
    addresses: tuple[str, ...]
    failure: Failure


def own_parts(message: Message, depth: int = 0) -> Iterator[Message]:
    """All parts, depth first, but none of the mails that are attached."""
    yield message
    if message.get_content_maintype() == "multipart" and message.is_multipart() and depth < _MOST_DEPTH:
        for part in message.get_payload():
            if isinstance(part, Message):
                yield from own_parts(part, depth + 1)


def fields_of(message: Message) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in message.items():
        found.setdefault(name.strip().lower(), " ".join(str(value).split()))
    return found


def decoded(value: str) -> str:
    """A header as a person reads it."""
    try:
        return str(make_header(decode_header(value)))
    except (ValueError, LookupError, UnicodeError):  # of an unknown or wrong encoding
        return value


def blocks(part: Message) -> list[Fields]:
    """The groups of fields in a part that is made of them: status report, feedback report, returned headers."""
    return [
        fields_of(HeaderParser().parsestr(text)) for text in re.split(r"\n\s*\n", text_of(part)) if text.strip()
    ]


def statuses(message: Message) -> list[RecipientStatus] | None:
    """One for each recipient that a notification tells of; None where the mail has no such part."""
    found = [part for part in own_parts(message) if part.get_content_type() in _STATUS_TYPES]
    if not found:
        return None
    groups = [block for part in found for block in blocks(part)]
    told = [_recipient(block) for block in groups if {"action", "final-recipient", "status"} & block.keys()]
    return [each for each in told if each is not None][:MOST_RECIPIENTS]


def failure(words: str, status: str = "", recipient: str = "") -> Failure:
    """status: as the notification names it; where it says little, the one in the words counts."""
    match, code_match = _STATUS.search(words), _CODE.search(words)
    if match and (not status or status.endswith(".0.0")):
        status = match[1]
    code = int(code_match[1]) if code_match else None
    reply = replies.parse(code or 0, _CODE.sub("", words, count=1).strip(" -"), recipient=recipient)
    return Failure(replies.classified(status, code, reply.text), status, reply.text)


def _recipient(block: Fields) -> RecipientStatus | None:
    names = [_address(block.get(name, "")) for name in ("original-recipient", "final-recipient")]
    addresses = tuple(dict.fromkeys(name for name in names if name))
    match = _STATUS.search(block.get("status", ""))
    status = match[1] if match else ""
    words = block.get("diagnostic-code", "").partition(";")[2] or block.get("diagnostic-code", "")
    action = _action(block.get("action", ""), status)
    return (
        RecipientStatus(action, addresses, failure(words, status, next(iter(addresses), ""))) if action else None
    )


def _action(named: str, status: str) -> Action | None:
    word = named.split("(")[0].strip().lower()
    if word in ("failed", "delayed", "delivered", "relayed", "expanded"):
        return word  # type: ignore[return-value]
    by_class: dict[str, Action] = {"5": "failed", "4": "delayed", "2": "relayed"}
    return by_class.get(status[:1])


def _address(value: str) -> str:
    """Of `rfc822; <anna@example.com>`."""
    return (value.partition(";")[2] or value).strip(" <>")


def text_of(part: Message) -> str:
    """A part's text, whatever its encoding. The standard library reads status reports as messages in a part."""
    payload = part.get_payload()
    if isinstance(payload, list):
        payload = "\n\n".join(_flat(each) for each in payload if isinstance(each, Message))
        if str(part.get("content-transfer-encoding", "")).strip().lower() not in ("base64", "quoted-printable"):
            return payload.replace("\r\n", "\n")
        part = Message()  # encoded, which RFC 2046 forbids and some servers do
        part["Content-Transfer-Encoding"] = "base64" if _looks_base64(payload) else "quoted-printable"
        part.set_payload(payload)
    raw = part.get_payload(decode=True)
    if not isinstance(raw, bytes):
        return ""
    try:
        text = raw.decode(part.get_content_charset("utf-8"), "replace")
    except (LookupError, ValueError):  # a character set that nobody knows
        text = raw.decode("utf-8", "replace")
    return text.replace("\r\n", "\n")


def _flat(message: Message) -> str:
    head = "\n".join(f"{name}: {value}" for name, value in message.items())
    body = message.get_payload()
    return head + ("\n\n" if head else "") + (body if isinstance(body, str) else "")


def _looks_base64(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9+/=\s]+", text) is not None
