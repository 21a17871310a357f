"""Postmark's Email and Messages API on loopback: up to 500 mails in a request, each with its own answer."""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.services.keeping import Conduct, Delivered, Misbehaving, Problem, address_of, is_address

_MAILS = 500
_LARGEST_REQUEST, _LARGEST_PART = 50_000_000, 5_000_000
_FIELDS = frozenset(
    {
        "From", "To", "Cc", "Bcc", "Subject", "Tag", "HtmlBody", "TextBody", "ReplyTo", "Headers",
        "TrackOpens", "TrackLinks", "Attachments", "Metadata", "MessageStream"
    }
)  # fmt: skip


class Postmark:
    def __init__(
        self, token: str, conduct: Conduct | None = None, streams: Iterable[str] = ("outbound", "broadcast")
    ) -> None:
        self.delivered: list[Delivered] = []
        self.conduct = conduct or Conduct()
        self._token, self._streams = token, frozenset(streams)
        self.app = Starlette(
            routes=[
                Route("/email/batch", self._send, methods=["POST"]),
                Route("/messages/outbound", self._find),
            ],
            middleware=[Middleware(Misbehaving, conduct=self.conduct)],
            exception_handlers={Problem: Problem.answer},
        )

    async def _send(self, request: Request) -> Response:
        self._admit(request)
        raw = await request.body()
        if len(raw) > _LARGEST_REQUEST:
            raise _no(413, 0, "Payload too large")
        try:
            mails = json.loads(raw)
        except ValueError:
            raise _no(422, 402, "Received invalid JSON") from None
        if not isinstance(mails, list):
            raise _no(422, 403, "Incompatible JSON")
        if len(mails) > _MAILS:
            raise _no(422, 410, f"You can only send up to {_MAILS} messages per batch")
        return JSONResponse([self._take(mail) for mail in mails])

    def _take(self, mail: Mapping[str, Any]) -> dict[str, Any]:
        code, message = self._wrong(mail)
        if code:
            return {"ErrorCode": code, "Message": message}
        number = str(uuid.uuid4())
        named = [(each["Name"], each["Value"]) for each in mail.get("Headers", ())]
        keeps = dict(named).get("X-PM-KeepID", "").lower() == "true"
        self.delivered.append(
            Delivered(
                number=number,
                to=mail["To"],
                sender=address_of(mail["From"]),
                reply_to=mail.get("ReplyTo", ""),
                subject=mail["Subject"],
                html=mail.get("HtmlBody", ""),
                text=mail.get("TextBody", ""),
                headers=tuple(
                    (name, f"<{number}@mtasv.net>" if name == "Message-ID" and not keeps else value)
                    for name, value in named
                    if name != "X-PM-KeepID"
                ),
                marks=mail.get("Metadata", {}),
                kept={name: mail.get(name) for name in ("MessageStream", "TrackOpens", "TrackLinks", "From")},
            )
        )
        return {"To": mail["To"], "MessageID": number, "ErrorCode": 0, "Message": "OK"}

    def _wrong(self, mail: Mapping[str, Any]) -> tuple[int, str]:
        unknown = set(mail) - _FIELDS
        if unknown:
            return 403, f"Unknown fields: {', '.join(sorted(unknown))}"
        if not is_address(address_of(mail.get("From", ""))):
            return 300, "Invalid 'From' address."
        if not is_address(mail.get("To")):
            return 300, f"Invalid 'To' address: '{mail.get('To')}'."
        if said := self.conduct.refuses(mail["To"].lower()):
            return int(said.partition("|")[0]), said.partition("|")[2]
        if mail.get("MessageStream", "outbound") not in self._streams:
            return 1235, "The stream provided does not exist on this server."
        bodies = [mail.get("HtmlBody", ""), mail.get("TextBody", "")]
        if not any(bodies):
            return 300, "Provide either email TextBody or HtmlBody or both."
        if any(len(body.encode()) > _LARGEST_PART for body in bodies):
            return 300, "The body is larger than 5 MB."
        return _wrong_extras(mail)

    async def _find(self, request: Request) -> Response:
        self._admit(request)
        asked = request.query_params
        if not 1 <= int(asked.get("count", 0)) <= 500 or "offset" not in asked:
            raise _no(422, 600, "count and offset are required")
        wanted = {name[9:]: value for name, value in asked.items() if name.startswith("metadata_")}
        if len(wanted) > 1:
            raise _no(422, 600, "You can only search by a single metadata field at a time")
        found = [mail for mail in self.delivered if wanted.items() <= mail.marks.items()]
        messages = [{"MessageID": mail.number, "Status": "Sent", "Metadata": mail.marks} for mail in found]
        return JSONResponse({"TotalCount": len(found), "Messages": messages[: int(asked["count"])]})

    def _admit(self, request: Request) -> None:
        if not secrets.compare_digest(request.headers.get("x-postmark-server-token", ""), self._token):
            raise _no(401, 10, "The Server Token you provided in the X-Postmark-Server-Token header was invalid.")


def _wrong_extras(mail: Mapping[str, Any]) -> tuple[int, str]:
    for name, value in mail.get("Metadata", {}).items():
        if len(name) > 20 or not isinstance(value, str) or len(value) > 80:
            return 300, "Invalid metadata content."
    for each in mail.get("Headers", ()):
        if set(each) != {"Name", "Value"} or re.search(r"[\r\n]", each["Name"] + each["Value"]):
            return 300, "Invalid header."
    return 0, ""


def _no(status: int, code: int, message: str) -> Problem:
    return Problem(status, {"ErrorCode": code, "Message": message})
