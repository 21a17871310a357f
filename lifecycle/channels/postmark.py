"""Postmark: up to 500 letters in a request, each whole, and an answer for each.

Source: https://postmarkapp.com/developer, "Email API", "Messages API" and the list of API error codes, read
2026-11-22.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx

from lifecycle.channels.base import Accepted, Outcome, Refused, Unknown
from lifecycle.channels.http import AnswerLost, seconds_to_wait, without_addresses
from lifecycle.channels.services import (
    Request,
    Result,
    ServiceChannel,
    as_json,
    by_status,
    in_parts,
    mailbox,
    marks,
    of_all,
    send_key,
    size_of,
    words_of,
)
from lifecycle.errors import ChannelDown
from lifecycle.messages.records import Letter, Sent
from lifecycle.settings.channels import EmailService

_LARGEST_PART = 5_000_000
_LARGEST_REQUEST = 50_000_000

_BAD_LOGIN = frozenset({10})
_MAINTENANCE, _INVALID, _INACTIVE, _RATE = 100, 300, 406, 429
_OUR_STANDING = frozenset({400, 401, 405, 412, 413, 1235, 1236})
"""Sender signature unknown or not confirmed, no credit, account not yet or no more allowed to send, no stream."""

_ABOUT_RECIPIENT = re.compile(r"(invalid|error\s+parsing)\s+'to'", re.IGNORECASE)
_ABOUT_SENDER = re.compile(r"(invalid|error\s+parsing)\s+'(from|reply-?to)'", re.IGNORECASE)


class PostmarkChannel(ServiceChannel):
    name = "Postmark"
    at_once = 500
    largest = 10_000_000

    def __init__(self, settings: EmailService, key: str) -> None:
        super().__init__(
            settings, "https://api.postmarkapp.com", key=key, headers={"X-Postmark-Server-Token": key}
        )

    def _requests(self, letters: Sequence[Letter]) -> Iterable[Request]:
        for some in in_parts(letters, self._weight, _LARGEST_REQUEST, self.at_once):
            yield Request(tuple(some))

    def _ask(self, request: Request) -> Result:
        content = b"[" + b",".join(as_json(self._item(letter)) for letter in request.letters) + b"]"
        answer = self._peer.ask(
            "POST", "/email/batch", content=content, headers={"Content-Type": "application/json"}
        )
        if answer.status_code == 200:
            items = self._peer.json(answer)
            if not isinstance(items, list) or len(items) != len(request.letters):
                raise AnswerLost("Postmark did not answer for each letter of the request")
            return Result([(one, _outcome(item)) for one, item in zip(request.letters, items, strict=True)])
        return of_all(request.letters, self._of_all(answer))

    def look_up(self, sent: Sequence[Sent]) -> Mapping[int, Outcome]:
        """One that is not found may only not be written down yet. As `Channel.look_up`."""
        found: dict[int, Outcome] = {}
        for each in sent:
            query = {"count": "1", "offset": "0", "metadata_send_key": send_key(each.key)}
            try:
                answer = self._peer.ask("GET", "/messages/outbound", params=query)
                said = self._peer.json(answer)
            except AnswerLost as lost:
                raise ChannelDown(str(lost)) from None
            messages = said.get("Messages") if isinstance(said, dict) else None
            if answer.status_code != 200 or not isinstance(messages, list):
                raise ChannelDown(f"Postmark does not say what it knows: {words_of(answer, 'Message')}")
            if messages and isinstance(messages[0], dict) and messages[0].get("MessageID"):
                found[each.send_id] = Accepted(str(messages[0]["MessageID"]))
        return found

    def _too_large(self, letter: Letter) -> str | None:
        largest = max(size_of(letter.html), size_of(letter.text))
        if largest > _LARGEST_PART:
            return f"a part of {largest:,} bytes, where {_LARGEST_PART:,} fit"
        return super()._too_large(letter)

    def _weight(self, letter: Letter) -> int:
        return len(as_json(self._item(letter))) + 1

    def _item(self, letter: Letter) -> dict[str, Any]:
        item: dict[str, Any] = {
            "From": mailbox(letter),
            "To": letter.to,
            "Subject": letter.subject,
            "HtmlBody": letter.html or None,
            "TextBody": letter.text or None,
            "ReplyTo": letter.reply_to or None,
            "MessageStream": self._settings.stream or None,
            "Metadata": marks(letter),
            "TrackOpens": False,
            "TrackLinks": "None",
            "Headers": [
                {"Name": name, "Value": value}
                # Postmark gives each mail a Message-ID of its own unless told so.
                for name, value in (*letter.headers, ("Message-ID", letter.key), ("X-PM-KeepID", "true"))
            ],
        }
        return {name: value for name, value in item.items() if value is not None}

    def _of_all(self, answer: httpx.Response) -> Outcome:
        """Of an answer to the whole request: nothing was taken where Postmark names an error of its own."""
        code, words = _said(answer)
        if code in _BAD_LOGIN:
            raise ChannelDown(f"Postmark does not accept the login ({code}): {words}", taken_none=True, login=True)
        if code == _RATE:
            raise ChannelDown(
                f"Postmark takes nothing for the moment: {words}", seconds_to_wait(answer), taken_none=True
            )
        if answer.status_code == 422 and code:
            return _refused(code, words)
        if answer.status_code == 503 and code == _MAINTENANCE:
            return Refused(str(code), words, False, kind="soft", retry_after=seconds_to_wait(answer))
        return by_status("Postmark", answer, words)


def _said(answer: httpx.Response) -> tuple[int, str]:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return 0, f"status {answer.status_code}"
    code = body.get("ErrorCode")
    return code if isinstance(code, int) else 0, without_addresses(body.get("Message") or "no reason given")


def _outcome(item: Any) -> Outcome:
    """Of one letter. ErrorCode may be missing where Postmark takes it but is late."""
    if not isinstance(item, dict):
        return Unknown("Postmark's answer for this letter is none")
    code = item.get("ErrorCode", 0)
    if code == 0 and item.get("MessageID"):
        return Accepted(str(item["MessageID"]))
    if not isinstance(code, int) or code == 0:
        return Unknown("Postmark did not say whether it took this letter")
    return _refused(code, without_addresses(item.get("Message") or "no reason given"))


def _refused(code: int, words: str) -> Refused:
    if code == _INACTIVE or (code == _INVALID and _ABOUT_RECIPIENT.match(words)):
        return Refused(str(code), words, True, "address", "hard")
    if code in _OUR_STANDING or (code == _INVALID and _ABOUT_SENDER.match(words)):
        return Refused(str(code), words, True, "lane", "policy")
    if code in (_MAINTENANCE, _RATE):
        return Refused(str(code), words, False, kind="soft")
    return Refused(str(code), words, True, kind="content")
