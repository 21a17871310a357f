"""What goes wrong with a platform, on demand: the next requests of a stand-in are answered badly."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, replace
from typing import Literal

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FaultKind = Literal["error", "busy", "hang", "cut"]
"""500; 429 with Retry-After; silence for `seconds`; half of the right answer."""


@dataclass(frozen=True)
class Fault:
    kind: FaultKind
    path: str = ""
    """Only requests whose path holds it."""
    seconds: float = 2.0
    times: int = 1


class Faults:
    """Given to a stand-in's create_app; `plan` makes trouble, in the order in which it was planned."""

    def __init__(self) -> None:
        self._planned: list[Fault] = []
        self._lock = threading.Lock()

    def plan(self, *faults: Fault) -> None:
        with self._lock:
            self._planned.extend(faults)

    def clear(self) -> None:
        with self._lock:
            self._planned.clear()

    def take(self, path: str) -> Fault | None:
        with self._lock:
            for position, fault in enumerate(self._planned):
                if fault.path in path:
                    left = [replace(fault, times=fault.times - 1)] if fault.times > 1 else []
                    self._planned[position : position + 1] = left
                    return fault
        return None


class FaultyAnswers:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._faults.take(scope["path"]) if scope["type"] == "http" else None
        if fault is None:
            await self._app(scope, receive, send)
        elif fault.kind == "cut":
            await self._cut(scope, receive, send)
        elif fault.kind == "busy":
            headers = {"Retry-After": f"{fault.seconds:g}"}
            await JSONResponse({"errors": "Too many requests"}, 429, headers)(scope, receive, send)
        else:
            if fault.kind == "hang":
                await asyncio.sleep(fault.seconds)
            await JSONResponse({"errors": "Internal server error"}, 500)(scope, receive, send)

    async def _cut(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, keep)
        start, body = messages[0], b"".join(message.get("body", b"") for message in messages[1:])
        half = body[: len(body) // 2]
        others = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        await send({**start, "headers": [*others, (b"content-length", str(len(half)).encode())]})
        await send({"type": "http.response.body", "body": half})
