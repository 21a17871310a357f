"""What goes wrong between a marketplace and us, on demand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Kind = Literal["none", "deaf", "mute", "silent", "half", "babble", "answer"]
"""No trouble this time; the connection breaks before the request is worked on; after it, without an answer; no
answer comes for `seconds`; half of it; something that is none; or the answer given here, instead of any work."""


@dataclass(frozen=True)
class Trouble:
    kind: Kind
    path: str = ""
    """Only requests whose path ends so, or any."""
    method: str = "POST"
    times: int = 1_000_000
    seconds: float = 2.0
    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Troubled:
    """ASGI, around a whole stand-in on uvicorn, whose transport it closes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._planned: list[list[Any]] = []
        self._lock = threading.Lock()

    def plan(self, *troubles: Trouble) -> None:
        with self._lock:
            self._planned.extend([trouble, trouble.times] for trouble in troubles)

    def clear(self) -> None:
        with self._lock:
            self._planned.clear()

    def _take(self, method: str, path: str) -> Trouble | None:
        with self._lock:
            for planned in self._planned:
                trouble: Trouble = planned[0]
                if planned[1] > 0 and trouble.method == method and path.endswith(trouble.path):
                    planned[1] -= 1
                    return trouble
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        trouble = self._take(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if trouble is None or trouble.kind == "none":
            await self._app(scope, receive, send)
        elif trouble.kind == "answer":
            await JSONResponse(trouble.body, trouble.status, dict(trouble.headers))(scope, receive, send)
        elif trouble.kind == "deaf":
            await _hang_up(send)
        else:
            await self._work_and_fail(trouble, scope, receive, send)

    async def _work_and_fail(self, trouble: Trouble, scope: Scope, receive: Receive, send: Send) -> None:
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self._app(scope, receive, keep)
        if trouble.kind == "babble":
            await Response("<html>it works</html>", answer[0]["status"])(scope, receive, send)
            return
        if trouble.kind == "silent":
            await asyncio.sleep(trouble.seconds)
        if trouble.kind == "half":
            body = b"".join(message.get("body", b"") for message in answer[1:])
            await send(answer[0])
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await _hang_up(send)


async def _hang_up(send: Send) -> None:
    cycle: Any = getattr(send, "__self__")  # noqa: B009
    cycle.transport.close()
    while not cycle.disconnected:
        await asyncio.sleep(0.001)
