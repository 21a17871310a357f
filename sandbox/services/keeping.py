"""What the stand-ins share: the mails that they would have delivered, and how they misbehave."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ADDRESS = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+\.[A-Za-z]{2,}")


@dataclass(frozen=True)
class Delivered:
    """One mail as the person gets it. `headers`: in order, without those that each mail has. `marks`: what the
    service says again in its reports."""

    number: str
    to: str
    sender: str
    reply_to: str
    subject: str
    html: str
    text: str
    headers: tuple[tuple[str, str], ...]
    marks: Mapping[str, str]
    kept: Mapping[str, Any] = field(default_factory=dict)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


Ending = Literal["answers", "breaks", "is_silent", "stammers"]


@dataclass
class Conduct:
    """How the service behaves; to be changed while it runs.

    takes: False: it keeps nothing, whatever it does then. answer: given instead of its own to all that sends.
    refuses: by address, in lower case, what is wrong with it: `code|words` as the service says it. requests: how
    many it had; bodies: what was in them.
    """

    takes: bool = True
    ends: Ending = "answers"
    answer: Callable[[], Response] | None = None
    refuses: Callable[[str], str | None] = lambda address: None
    requests: int = 0
    bodies: list[bytes] = field(default_factory=list)


class Misbehaving:
    """ASGI middleware around what the service does right."""

    def __init__(self, app: ASGIApp, conduct: Conduct) -> None:
        self._app, self._conduct = app, conduct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        conduct = self._conduct
        conduct.requests += 1
        body = await _whole(receive)
        conduct.bodies.append(body)
        if conduct.answer is not None:
            await conduct.answer()(scope, receive, send)
            return
        said: list[Message] = []
        if conduct.takes:

            async def note(message: Message) -> None:
                said.append(message)

            await self._app(scope, _again(body, receive), note)
        await self._end(conduct.ends, said, receive, send)

    async def _end(self, ends: Ending, said: list[Message], receive: Receive, send: Send) -> None:
        """An answer that announces more than it has is one whose connection breaks."""
        if ends == "answers":
            for message in said:
                await send(message)
        elif ends == "is_silent":
            while (await receive())["type"] != "http.disconnect":
                pass
        elif ends == "breaks" or not said:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"99")]})
        else:
            body = b"".join(message.get("body", b"") for message in said[1:])
            half = body[: len(body) // 2]
            headers = [(b"content-length", str(len(half) or 99).encode())]
            await send({**said[0], "headers": headers})
            if half:
                await send({"type": "http.response.body", "body": half})


class Problem(Exception):
    """An answer without success, in the service's own shape."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(body)
        self.status, self.body, self.headers = status, body, headers

    @staticmethod
    async def answer(_request: Request, problem: Exception) -> Response:
        assert isinstance(problem, Problem)
        return JSONResponse(problem.body, problem.status, problem.headers)


def is_address(text: Any) -> bool:
    return isinstance(text, str) and _ADDRESS.fullmatch(text) is not None


def address_of(mailbox: str) -> str:
    """Of `"Name" <address>`, or of an address alone."""
    return mailbox.rpartition("<")[2].removesuffix(">").strip()


async def _whole(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body that was read already, and then what still comes."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
