"""Mailgun's API v3 on loopback: messages, with variables by recipient, and the events about them."""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import FormData
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.services.keeping import Conduct, Delivered, Misbehaving, Problem, address_of, is_address

_LARGEST = 25_000_000
_PEOPLE = 1_000
_EVENTS = 300
_OWN = re.compile(r"%recipient\.([^%\s]+)%")


class Mailgun:
    def __init__(self, key: str, domain: str, conduct: Conduct | None = None) -> None:
        self.delivered: list[Delivered] = []
        self.events: list[dict[str, Any]] = []
        self.conduct = conduct or Conduct()
        self._login = "Basic " + base64.b64encode(f"api:{key}".encode()).decode()
        self._domain = domain
        self.app = Starlette(
            routes=[
                Route("/v3/{domain}/messages", self._send, methods=["POST"]),
                Route("/v3/{domain}/events", self._events),
            ],
            middleware=[Middleware(Misbehaving, conduct=self.conduct)],
            exception_handlers={Problem: Problem.answer},
        )

    async def _send(self, request: Request) -> Response:
        self._admit(request)
        if len(await request.body()) > _LARGEST:
            raise _no(413, "Request payload is too large")
        async with request.form(max_fields=5_000, max_part_size=_LARGEST) as form:
            people = [address_of(to) for to in form.getlist("to") if isinstance(to, str)]
            variables = self._variables(form, people)
            number = f"<{time.strftime('%Y%m%d%H%M%S')}.{secrets.token_hex(8)}@{self._domain}>"
            if variables is None:
                self._take(form, ", ".join(people), None, number)
            else:
                for address in people:
                    self._take(form, address, variables.get(address, {}), number)
        return JSONResponse({"id": number, "message": "Queued. Thank you."})

    def _variables(self, form: FormData, people: list[str]) -> Mapping[str, Mapping[str, str]] | None:
        """By recipient; None for a single mail. Raises Problem for what Mailgun refuses."""
        if not is_address(address_of(str(form.get("from", "")))):
            raise _no(400, "'from' parameter is not a valid address. please check documentation")
        if not people:
            raise _no(400, "'to' parameter is missing")
        if len(people) > _PEOPLE:
            raise _no(400, "message recipients limit exceeded")
        if not (form.get("text") or form.get("html")):
            raise _no(400, "Need at least one of 'text' or 'html' parameters specified")
        for address in people:
            if not is_address(address):
                raise _no(400, "'to' parameter is not a valid address. please check documentation")
            if said := self.conduct.refuses(address.lower()):
                raise _no(int(said.partition("|")[0]), said.partition("|")[2])
        if "recipient-variables" not in form:
            return None
        try:
            variables = json.loads(str(form["recipient-variables"]))
        except ValueError:
            variables = None
        if not isinstance(variables, dict):
            raise _no(400, "'recipient-variables' parameter is not a valid JSON")
        return variables

    def _take(self, form: FormData, to: str, own: Mapping[str, str] | None, number: str) -> None:
        def filled(name: str) -> str:
            words = str(form.get(name, ""))
            return words if own is None else _OWN.sub(lambda place: str(own.get(place[1], "")), words)

        headers = [(name[2:], filled(name)) for name in form if name.startswith("h:")]
        marks = {name[2:]: filled(name) for name in form if name.startswith("v:")}
        named = next((value for name, value in headers if name.lower() == "message-id"), number)
        self.delivered.append(
            Delivered(
                number=number,
                to=to,
                sender=address_of(str(form["from"])),
                reply_to=dict(headers).get("Reply-To", ""),
                subject=filled("subject"),
                html=filled("html"),
                text=filled("text"),
                headers=tuple(each for each in headers if each[0] != "Reply-To"),
                marks=marks,
                kept={"options": {name: str(form[name]) for name in form if name.startswith("o:")},
                      "from": str(form["from"])},
            )
        )  # fmt: skip
        self.events.append(
            {
                "event": "accepted",
                "id": secrets.token_urlsafe(16),
                "timestamp": time.time(),
                "recipient": to,
                "user-variables": marks,
                "message": {"headers": {"message-id": named.strip("<>"), "to": to}},
            }
        )

    async def _events(self, request: Request) -> Response:
        self._admit(request)
        asked = request.query_params
        if "begin" in asked and "end" not in asked and "ascending" not in asked:
            raise _no(400, "'ascending' must be provided if the range end is not specified")
        found = [
            event
            for event in self.events
            if event["recipient"] == asked.get("recipient", event["recipient"])
            and event["timestamp"] >= float(asked.get("begin", 0))
        ]
        return JSONResponse({"items": found[: min(int(asked.get("limit", 100)), _EVENTS)], "paging": {}})

    def _admit(self, request: Request) -> None:
        if not secrets.compare_digest(request.headers.get("authorization", ""), self._login):
            raise _no(401, "Invalid private key")
        if request.path_params["domain"] != self._domain:
            raise _no(404, f"Domain not found: {request.path_params['domain']}")


def _no(status: int, message: str) -> Problem:
    return Problem(status, {"message": message})
