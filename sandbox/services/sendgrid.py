"""SendGrid's Web API v3 on loopback: one request, checked as its page of errors says, for up to 1,000 people."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.services.keeping import Conduct, Delivered, Misbehaving, Problem, is_address

_LARGEST_REQUEST = 30_000_000
_PEOPLE = 1_000
_OWN_BYTES = 10_000
_FIELDS = frozenset(
    {
        "personalizations", "from", "reply_to", "reply_to_list", "subject", "content", "attachments",
        "template_id", "headers", "categories", "custom_args", "send_at", "batch_id", "asm",
        "ip_pool_name", "mail_settings", "tracking_settings"
    }
)  # fmt: skip
_PERSON = frozenset(
    {
        "from", "to", "cc", "bcc", "subject", "headers", "substitutions", "dynamic_template_data",
        "custom_args", "send_at"
    }
)  # fmt: skip
_OWN_HEADERS = frozenset(
    {
        "x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding",
        "to", "from", "subject", "reply-to", "cc", "bcc"
    }
)  # fmt: skip


class SendGrid:
    def __init__(self, key: str, conduct: Conduct | None = None) -> None:
        self.delivered: list[Delivered] = []
        self.conduct = conduct or Conduct()
        self._key = key
        self.app = Starlette(
            routes=[Route("/v3/mail/send", self._send, methods=["POST"])],
            middleware=[Middleware(Misbehaving, conduct=self.conduct)],
            exception_handlers={Problem: Problem.answer},
        )

    async def _send(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self._key}":
            raise _problems(401, ("authorization required", None))
        raw = await request.body()
        if len(raw) > _LARGEST_REQUEST:
            raise _problems(413, ("content too large", None))
        try:
            mail = json.loads(raw)
        except ValueError:
            raise _problems(400, ("Bad Request", None)) from None
        wrong = [*_of_mail(mail), *_of_people(mail, self.conduct.refuses)]
        if wrong:
            raise _problems(400, *wrong)
        number = secrets.token_urlsafe(16)
        self.delivered += [_written(mail, person, number) for person in mail["personalizations"]]
        return Response(status_code=202, headers={"X-Message-Id": number})


def _problems(status: int, *wrong: tuple[str, str | None]) -> Problem:
    errors = [{"message": message, "field": field, "help": None} for message, field in wrong]
    return Problem(status, {"errors": errors})


def _of_mail(mail: Any) -> list[tuple[str, str | None]]:
    if not isinstance(mail, dict):
        return [("Invalid type. Expected: object, given: array.", None)]
    wrong: list[tuple[str, str | None]] = [
        (f"Additional property {name} is not allowed", name) for name in set(mail) - _FIELDS
    ]
    if not is_address((mail.get("from") or {}).get("email")):
        wrong.append(("The from email does not contain a valid address.", "from.email"))
    if not mail.get("subject"):
        wrong.append(("The subject is required.", "subject"))
    kinds = [part.get("type") for part in mail.get("content") or ()]
    if not kinds or kinds != sorted(kinds, key=["text/plain", "text/html"].index):
        wrong.append(("text/plain must be first, followed by text/html.", "content"))
    if any(not part.get("value") for part in mail.get("content") or ()):
        wrong.append(("The content value must be a string at least one character in length.", "content.0.value"))
    return wrong


def _of_people(mail: Mapping[str, Any], refuses: Callable[[str], str | None]) -> list[tuple[str, str | None]]:
    people = mail.get("personalizations") or []
    if not 1 <= len(people) <= _PEOPLE:
        return [(f"The personalization block is limited to {_PEOPLE} personalizations.", "personalizations")]
    wrong: list[tuple[str, str | None]] = []
    seen: set[str] = set()
    for number, person in enumerate(people):
        at = f"personalizations.{number}"
        address = person["to"][0].get("email")
        if not is_address(address):
            wrong.append(("Does not contain a valid address.", f"{at}.to.0.email"))
        elif said := refuses(address.lower()):
            field, _, message = said.partition("|")
            wrong.append((message, f"{at}.{field}"))
        elif address.lower() in seen:
            wrong.append((f"You have included {address} more than once.", "personalizations"))
        seen.add(str(address).lower())
        wrong += [(f"{name} is not allowed", at) for name in set(person) - _PERSON]
        for name in ("substitutions", "custom_args"):
            own = person.get(name, {})
            if sum(len(f"{key}{value}".encode()) for key, value in own.items()) > _OWN_BYTES:
                wrong.append((f"The {name} are larger than {_OWN_BYTES} bytes.", f"{at}.{name}"))
            if not all(isinstance(value, str) for value in own.values()):
                wrong.append(("Bad Request", None))
        if any(name.lower() in _OWN_HEADERS for name in person.get("headers", {})):
            wrong.append(("The header is reserved.", f"{at}.headers"))
    return wrong


def _written(mail: Mapping[str, Any], person: Mapping[str, Any], number: str) -> Delivered:
    def filled(words: str) -> str:
        for tag, value in person.get("substitutions", {}).items():
            words = words.replace(tag, value)
        return words

    contents = {part["type"]: filled(part["value"]) for part in mail["content"]}
    return Delivered(
        number=number,
        to=person["to"][0]["email"],
        sender=mail["from"]["email"],
        reply_to=filled((mail.get("reply_to") or {}).get("email", "")),
        subject=filled(person.get("subject") or mail["subject"]),
        html=contents.get("text/html", ""),
        text=contents.get("text/plain", ""),
        headers=tuple({**mail.get("headers", {}), **person.get("headers", {})}.items()),
        marks=person.get("custom_args", {}),
        kept={"tracking": mail.get("tracking_settings"), "name": mail["from"].get("name", "")},
    )
