"""Twilio SendGrid, Web API v3: one form for up to 1,000 people in a request.

Source: https://www.twilio.com/docs/sendgrid/api-reference/mail-send and its page of errors, read 2026-11-22.
A 202 takes the whole request and a 400 nothing of it; it names the people in the way by their position.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx

from lifecycle.channels.base import Accepted, Outcome, Refused
from lifecycle.channels.http import seconds_to_wait, without_addresses
from lifecycle.channels.services import (
    Request,
    Result,
    ServiceChannel,
    as_json,
    by_status,
    marks,
    of_all,
    parts_of,
    words_of,
)
from lifecycle.errors import ChannelDown
from lifecycle.messages.factoring import factored
from lifecycle.messages.records import Letter
from lifecycle.settings.channels import EmailService

_SUBSTITUTIONS_BYTES = 10_000
_NOTHING = re.compile(r"(?!)")
"""SendGrid replaces only the words that the request names."""

_OFF = {"enable": False}
_TRACKING = {
    "click_tracking": {"enable": False, "enable_text": False},
    "open_tracking": _OFF,
    "subscription_tracking": _OFF,
    "ganalytics": _OFF,
}
_PERSON = re.compile(r"personalizations[.\[](\d+)\]?\.?(.*)", re.DOTALL)


class SendGridChannel(ServiceChannel):
    name = "SendGrid"
    at_once = 1_000
    largest = 30_000_000

    def __init__(self, settings: EmailService, key: str) -> None:
        super().__init__(settings, "https://api.sendgrid.com", key=key, headers={"Authorization": f"Bearer {key}"})

    def _requests(self, letters: Sequence[Letter]) -> Iterable[Request]:
        shared = factored(letters, placeholder=_place, interpreted=_NOTHING)
        return parts_of(shared, most=self.at_once, values_bytes=_SUBSTITUTIONS_BYTES, weight=self.largest // 2)

    def _ask(self, request: Request) -> Result:
        answer = self._peer.ask(
            "POST",
            "/v3/mail/send",
            content=as_json(_payload(request)),
            headers={"Content-Type": "application/json"},
        )
        status = answer.status_code
        if status == 202:
            number = answer.headers.get("x-message-id")
            return Result(
                [(one, Accepted(f"{number}/{one.send_id}" if number else one.key)) for one in request.letters]
            )
        if status == 413 and len(request.letters) > 1:
            middle = len(request.letters) // 2
            return Result(again=[request.of(request.letters[:middle]), request.of(request.letters[middle:])])
        errors = _errors(answer)
        if status == 400 and (refused := _by_person(errors, request)):
            others = [letter for letter in request.letters if letter.send_id not in refused]
            answers = [(one, refused[one.send_id]) for one in request.letters if one.send_id in refused]
            return Result(answers, [request.of(others)] if others else [])
        return of_all(request.letters, self._of_all(answer, errors))

    def _of_all(self, answer: httpx.Response, errors: Sequence[Mapping[str, Any]]) -> Outcome:
        status = answer.status_code
        words = "; ".join(str(error["message"]) for error in errors if error.get("message"))
        words = without_addresses(words) or words_of(answer, "message")
        about_sender = any(str(error.get("field")).startswith("from") for error in errors)
        if about_sender and status in (400, 403):
            return Refused(str(status), words, permanent=True, scope="lane", kind="policy")
        if status == 403:
            raise ChannelDown(f"SendGrid does not let this key send (403): {words}", taken_none=True, login=True)
        if status == 503:  # "The SendGrid v3 Web API is not available"
            return Refused("503", words, permanent=False, kind="soft", retry_after=seconds_to_wait(answer))
        return by_status(self.name, answer, words)


def _place(name: str) -> str:
    return f"-{name}-"


def _payload(request: Request) -> dict[str, Any]:
    sender, form = request.letters[0], request.form
    contents = (("text/plain", form.text), ("text/html", form.html))
    return {
        "personalizations": [_person(request, letter) for letter in request.letters],
        "from": {"email": sender.sender_address, **({"name": sender.sender_name} if sender.sender_name else {})},
        **({"reply_to": {"email": sender.reply_to}} if sender.reply_to else {}),
        "subject": form.subject,
        "content": [{"type": kind, "value": words} for kind, words in contents if words],
        "tracking_settings": _TRACKING,
    }


def _person(request: Request, letter: Letter) -> dict[str, Any]:
    """Substitutions are not made in headers, so each has them whole."""
    person: dict[str, Any] = {
        "to": [{"email": letter.to}],
        "headers": {**dict(letter.headers), "Message-ID": letter.key},
        "custom_args": marks(letter),
    }
    values = request.values(letter)
    if values:
        person["substitutions"] = {_place(name): value for name, value in values.items()}
    return person


def _errors(answer: httpx.Response) -> list[Mapping[str, Any]]:
    try:
        body = answer.json()
    except ValueError:
        return []
    errors = body.get("errors") if isinstance(body, dict) else None
    return [error for error in errors or () if isinstance(error, dict)]


def _by_person(errors: Iterable[Mapping[str, Any]], request: Request) -> dict[int, Refused]:
    """What is said of single letters, by send_id."""
    refused: dict[int, Refused] = {}
    for error in errors:
        named = _PERSON.fullmatch(str(error.get("field")))
        if named is None or int(named[1]) >= len(request.letters):
            continue
        about_address = re.match(r"to\b", named[2]) is not None
        refused.setdefault(
            request.letters[int(named[1])].send_id,
            Refused(
                "400",
                without_addresses(error.get("message") or "no reason given"),
                permanent=True,
                scope="address" if about_address else "message",
                kind="hard" if about_address else "content",
            ),
        )
    return refused
