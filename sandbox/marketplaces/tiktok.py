"""TikTok Shop's customer engagement, one shop.

Codes 10xxxx and 36009xxx are TikTok's common errors; those of a task and of a single buyer are not published and
are guesses here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lifecycle.clock import Clock, utc_now
from sandbox.marketplaces.trouble import Troubled

MOST_BUYERS, LONGEST_TITLE, LONGEST_BODY, MOST_PRODUCTS, MOST_COUPONS = 50, 70, 500, 4, 1
ORDERED_WITHIN = timedelta(days=365)
_CUSTOM = "/customer_engagement/202502/engagement_tasks/custom"
_FROM_TEMPLATE = "/customer_engagement/202412/engagement_tasks"
_MESSAGES = "/customer_engagement/202412/messages"


@dataclass(frozen=True)
class Task:
    task_id: str
    body: dict[str, Any]

    def is_over(self, now: datetime) -> bool:
        return int(self.body["end_time"]) <= now.timestamp()


class TikTokStandIn:
    """`last_orders`: when each buyer, by anonymised address, ordered last."""

    def __init__(
        self,
        *,
        app_key: str = "6a1",
        app_secret: str = "s3cret",
        token: str = "ROW_stand-in",
        shop_cipher: str = "GCP_stand-in",
        clock: Clock = utc_now,
    ) -> None:
        self._app_key, self._app_secret, self._token, self._shop_cipher = app_key, app_secret, token, shop_cipher
        self._clock = clock
        self.features = {"FUNDAMENTAL", "CUSTOM_MSG"}
        self.scope_granted = True
        self.templates = {"7001"}
        self.last_orders: dict[str, datetime] = {}
        self.tasks: dict[str, Task] = {}
        """By idempotency key."""
        self.sent: list[tuple[str, str]] = []
        """(task_id, buyer)."""
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.app = Troubled(
            Starlette(
                routes=[
                    Route(_CUSTOM, self._create_custom, methods=["POST"]),
                    Route(_FROM_TEMPLATE, self._create_from_template, methods=["POST"]),
                    Route(_MESSAGES, self._send, methods=["POST"]),
                ],
                exception_handlers={_Problem: _Problem.answer},
            )
        )

    async def _admitted(self, request: Request) -> dict[str, Any]:
        query, body = dict(request.query_params), await request.body()
        text = "".join(name + query[name] for name in sorted(query) if name not in ("sign", "access_token"))
        whole = (self._app_secret + request.url.path + text).encode() + body + self._app_secret.encode()
        right = hmac.new(self._app_secret.encode(), whole, hashlib.sha256).hexdigest()
        if query.get("app_key") != self._app_key or query.get("sign") != right:
            raise _Problem(401, 106001, "sign is invalid")
        age = self._clock().timestamp() - int(query["timestamp"])
        if not -30 <= age <= 300:
            raise _Problem(400, 36009004, "timestamp is invalid: it must be within five minutes")
        if request.headers.get("x-tts-access-token") != self._token:
            raise _Problem(401, 105002, "Expired credentials: access token is expired")
        if not self.scope_granted:
            raise _Problem(401, 105005, "Access denied: the scope of this API is not granted")
        if query.get("shop_cipher") != self._shop_cipher:
            raise _Problem(400, 106013, "shop_cipher is missing or invalid")
        read: dict[str, Any] = json.loads(body)
        self.seen.append((request.url.path, query, read))
        return read

    async def _create_custom(self, request: Request) -> Response:
        body = await self._admitted(request)
        if "CUSTOM_MSG" not in self.features:
            raise _Problem(403, 45201001, "The shop has no permission to send custom messages")
        message = body.get("custom_message", {})
        if not 1 <= len(message.get("title", "")) <= LONGEST_TITLE:
            raise _Problem(400, 45201002, "title must have 1 to 70 characters")
        if not 1 <= len(message.get("body", "")) <= LONGEST_BODY:
            raise _Problem(400, 45201002, "body must have 1 to 500 characters")
        return self._created(request, body)

    async def _create_from_template(self, request: Request) -> Response:
        body = await self._admitted(request)
        if body.get("template_id") not in self.templates:
            raise _Problem(400, 45201002, "template_id does not exist")
        return self._created(request, body)

    def _created(self, request: Request, body: dict[str, Any]) -> Response:
        key = request.query_params.get("idempotency_key", "")
        if not key or body.get("channel") != "TIKTOK_IM" or not body.get("task_name"):
            raise _Problem(400, 45201002, "idempotency_key, channel and task_name are required")
        if len(body.get("product_ids", [])) > MOST_PRODUCTS or len(body.get("coupon_ids", [])) > MOST_COUPONS:
            raise _Problem(400, 45201002, "too many cards")
        if int(body.get("end_time", 0)) <= self._clock().timestamp():
            raise _Problem(400, 45201002, "end_time must be in the future")
        task = self.tasks.setdefault(key, Task(f"7{len(self.tasks) + 1:06d}", body))
        return _answer({"task_id": task.task_id})

    async def _send(self, request: Request) -> Response:
        body = await self._admitted(request)
        buyers = body.get("buyer_emails", [])
        if not 1 <= len(buyers) <= MOST_BUYERS:
            raise _Problem(400, 45201003, "buyer_emails must have 1 to 50 addresses")
        task = next((task for task in self.tasks.values() if task.task_id == body.get("task_id")), None)
        if task is None:
            raise _Problem(400, 45201004, "The task does not exist")
        if task.is_over(self._clock()):
            raise _Problem(400, 45201005, "The task has ended and takes no more messages")
        errors = []
        for buyer in buyers:
            ordered_at = self.last_orders.get(buyer)
            if ordered_at is None or ordered_at < self._clock() - ORDERED_WITHIN:
                message = f"{buyer} has not ordered in the past 365 days"
                errors.append({"code": 45201006, "message": message, "detail": {"buyer_email": buyer}})
            else:
                self.sent.append((task.task_id, buyer))
        return _answer({"errors": errors})


def _answer(data: dict[str, Any]) -> Response:
    return JSONResponse({"code": 0, "message": "Success", "request_id": "2026", "data": data})


class _Problem(Exception):
    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code

    @staticmethod
    async def answer(_request: Request, problem: Exception) -> Response:
        assert isinstance(problem, _Problem)
        body = {"code": problem.code, "message": str(problem), "request_id": "2026", "data": None}
        return JSONResponse(body, problem.status)
