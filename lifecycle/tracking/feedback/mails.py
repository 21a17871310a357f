"""One mail at our bounce addresses, read: a bounce, a complaint, an unsubscribe, or none of them.

In this order (deliverability notes, 2): the token in the address that it came to, the status report (RFC 3464) or
feedback report (RFC 5965), the returned mail's own marks, the words of servers that follow no standard.
"""

from __future__ import annotations

import email
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from email.message import Message

from flufl.bounce import all_failures

from lifecycle.channels.http import without_addresses
from lifecycle.tokens import Purpose
from lifecycle.tracking.feedback.autoreplies import from_daemon, is_auto_reply
from lifecycle.tracking.feedback.dsn import (
    Failure,
    Fields,
    RecipientStatus,
    blocks,
    decoded,
    failure,
    fields_of,
    own_parts,
    statuses,
    text_of,
)
from lifecycle.tracking.feedback.identify import email_hash, message_of_headers, message_of_key, token_in
from lifecycle.tracking.feedback.records import Report

READ_BYTES = 1_000_000
"""Of a mail; its report comes before the mail that it returns."""

_WORDS_BYTES = 100_000
_LONGEST_WORDS = 1500
_OUR_KEYS = re.compile(rb"^Message-ID:\s*(<\d{1,19}\.[0-9a-f]{16}@[\x21-\x3d\x3f-\x7e]{1,250}>)", re.M | re.I)
_MOST_KEYS = 20
_RETURNED = frozenset(
    {"message/rfc822", "text/rfc822-headers", "message/rfc822-headers", "message/global", "message/global-headers"}
)
_COPY_BEGINS = re.compile(r"^\s*(?:[-=_]{3,}|(?:Return-Path|Received|Message-ID|DKIM-Signature):)", re.M | re.I)
_HAS_STATUS = re.compile(r"(?<![\d.])(?:[45]\.\d{1,3}\.\d{1,3}(?![\d.]*\d)|[45]\d\d[ -][A-Za-z#<\d])")

logger = logging.getLogger(__name__)
logging.getLogger("flufl.bounce").setLevel(logging.CRITICAL + 1)  # what it logs may hold addresses


@dataclass(frozen=True, slots=True)
class Arrived:
    """A mail as it came. recipients: of its envelope, or those that its headers name. envelope_from: empty for the
    null sender of bounces, None where it is not known."""

    content: bytes
    recipients: Sequence[str]
    envelope_from: str | None = None


def read_mail(mail: Arrived, secret: bytes, *, source: str, now: datetime) -> list[Report]:
    """What the mail says; of a bounce one report for each recipient that it tells of. Never empty, never raises
    for what stands in a mail."""
    digest = hashlib.sha256(
        "\n".join(mail.recipients).encode("utf-8", "replace") + b"\n" + mail.content
    ).hexdigest()
    plain = Report("notice", source, now, key=f"mail:{digest}")
    try:
        reports = list(_Reading(mail, secret, plain).reports())
    except Exception as error:  # noqa: BLE001 (a mail that nobody has thought of must not stop the others)
        logger.warning("a mail could not be read: %s", type(error).__name__)
        return [replace(plain, kind="unclear", text="the mail cannot be read")]
    return [replace(each, key=f"{each.key}.{n}") if n else each for n, each in enumerate(reports)]


class _Reading:
    def __init__(self, mail: Arrived, secret: bytes, plain: Report) -> None:
        self._mail, self._secret, self._plain = mail, secret, plain
        self._message = email.message_from_bytes(mail.content[:READ_BYTES])
        self._headers = fields_of(self._message)

    def reports(self) -> Iterator[Report]:
        token = next(filter(None, (token_in(each, self._secret) for each in self._mail.recipients)), None)
        told = statuses(self._message)
        if token is not None:
            self._plain = replace(self._plain, message_id=token.message_id)
        if token is not None and token.purpose is Purpose.UNSUBSCRIBE:
            is_report = told is not None
            yield self._plain if is_report else replace(self._plain, kind="unsubscribed", detail={"via": "mail"})
        elif feedback := self._parts("message/feedback-report"):
            yield self._feedback(feedback[0])
        elif told is not None:
            yield from self._notification(told)
        else:
            yield self._without_report()

    def _feedback(self, part: Message) -> Report:
        fields: Fields = next(iter(blocks(part)), {})
        about = self._about(fields)
        kind = fields.get("feedback-type", "").strip().lower()
        if kind == "abuse":
            return replace(about, kind="complained", text=without_addresses(fields.get("user-agent", "")))
        if kind == "not-spam":
            return about
        return replace(about, kind="unclear", detail={"feedback_type": without_addresses(kind)[:50]})

    def _notification(self, told: Iterable[RecipientStatus]) -> Iterator[Report]:
        about = self._about()
        reports = [self._of_recipient(about, status) for status in told]
        yield from reports or [replace(about, kind="unclear", text="a status report about nobody")]

    def _of_recipient(self, about: Report, status: RecipientStatus) -> Report:
        if status.action == "failed":
            return self._bounced(about, status.failure, status.addresses)
        if status.action == "delivered":
            return replace(about, kind="delivered", named=self._hashes(status.addresses))
        return about

    def _without_report(self) -> Report:
        """Bounces of servers that follow no standard, and all that is no bounce."""
        about = self._about()
        subject = decoded(self._headers.get("subject", ""))
        if is_auto_reply(self._headers, subject):
            return about
        named = [each.strip(" <>") for each in self._headers.get("x-failed-recipients", "").split(",")]
        failed = [each for each in named if each]
        if not failed and not self._is_of_a_server():
            return replace(about, kind="unclear", text="no bounce") if about.message_id is not None else about
        words = self._words()
        if not failed:
            delayed, failed = self._guessed()
            if delayed and not failed:
                return about
        if not failed and not _HAS_STATUS.search(words):
            return replace(about, kind="unclear", text=without_addresses(subject))
        why = failure(words, recipient=next(iter(failed), ""))
        return self._bounced(self._found_in_text(), why, failed)

    def _bounced(self, about: Report, why: Failure, addresses: Iterable[str]) -> Report:
        return replace(
            about,
            kind="bounced",
            named=self._hashes(addresses),
            bounce=why.bounce,
            status=why.status,
            text=without_addresses(why.text),
        )

    def _about(self, fields: Fields | None = None) -> Report:
        """The plain report, of the message that the mail returns, where its address does not say which."""
        if self._plain.message_id is not None:
            return self._plain
        returned = [part for part in own_parts(self._message) if part.get_content_type() in _RETURNED]
        for headers in (fields or {}, *(self._headers_of(part) for part in returned)):
            if (message_id := message_of_headers(headers, self._secret)) is not None:
                return replace(self._plain, message_id=message_id)
        return self._plain

    def _found_in_text(self) -> Report:
        """As `_about`, or of the mail that stands in the text, as old servers return it."""
        about = self._about()
        keys = _OUR_KEYS.findall(self._mail.content[:READ_BYTES])[:_MOST_KEYS] if about.message_id is None else []
        found = (message_of_key(key.decode("ascii"), self._secret) for key in keys)
        return replace(about, message_id=next((each for each in found if each is not None), about.message_id))

    def _headers_of(self, part: Message) -> Fields:
        payload = part.get_payload()
        if isinstance(payload, list) and payload and isinstance(payload[0], Message):
            return fields_of(payload[0])
        return next(iter(blocks(part)), {})

    def _parts(self, content_type: str) -> list[Message]:
        return [part for part in own_parts(self._message) if part.get_content_type() == content_type]

    def _is_of_a_server(self) -> bool:
        sender = self._mail.envelope_from
        return sender == "" or from_daemon(self._headers) or self._headers.get("return-path", "").strip() == "<>"

    def _guessed(self) -> tuple[list[str], list[str]]:
        """Addresses that are only late, and those that failed."""
        message = email.message_from_bytes(self._mail.content[:_WORDS_BYTES])
        try:
            late, failed = all_failures(message)
        except Exception:  # noqa: BLE001 (its many heuristics were not made for every mail; then nothing is found)
            return [], []
        return [each.decode("ascii", "replace") for each in late], [
            each.decode("ascii", "replace") for each in failed
        ]

    def _words(self) -> str:
        """What the server writes, from the line with a code on, without the mail that it returns."""
        parts = self._parts("text/plain") or self._parts("text/html")
        words = text_of(parts[0])[:_WORDS_BYTES] if parts else ""
        if parts and parts[0].get_content_subtype() == "html":
            words = re.sub(r"<[^>]*>", " ", words)
        begun = _COPY_BEGINS.search(words)
        words = words[: begun.start() if begun else None]
        code = _HAS_STATUS.search(words)
        return words[words.rfind("\n", 0, code.start()) + 1 if code else 0 :][:_LONGEST_WORDS]

    def _hashes(self, addresses: Iterable[str]) -> tuple[str, ...]:
        found = (email_hash(each, self._secret) for each in addresses)
        return tuple(dict.fromkeys(each for each in found if each))
