"""AliExpress' Open Platform gateway (/sync) with its station messages, one seller account.

What is not published, and a guess here: the code of a buyer who has had enough messages, what the result of a send
holds, and that the history is read backwards from `start_time`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lifecycle.clock import Clock, utc_now
from sandbox.marketplaces.trouble import Troubled

BUYER, SELLER = 11, 12
LARGEST_PAGE = 20
_TIMESTAMP_WITHIN_MS = 7_200_000


class AliExpressStandIn:
    """`cap`: messages to one buyer; None: no limit. `flat_errors`: in the shape of /rest."""

    def __init__(
        self,
        *,
        app_key: str = "501234",
        app_secret: str = "s3cret",
        session: str = "50000stand-in",
        cap: int | None = None,
        flat_errors: bool = False,
        clock: Clock = utc_now,
    ) -> None:
        self._app_key, self._app_secret, self._session = app_key, app_secret, session
        self._cap, self._flat_errors, self._clock = cap, flat_errors, clock
        self._banned_until: datetime | None = None
        self._ids = count(1)
        self.may_send = True
        self.failing: dict[int, tuple[str, str]] = {}
        """By buyer: the error code and message with which a message to them is refused."""
        self.closed_to_us: set[int] = set()
        self.sessions: list[int] = []
        self.messages: list[dict[str, Any]] = []
        self.history: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.app = Troubled(Starlette(routes=[Route("/sync", self._sync, methods=["POST"])]))

    def ban(self, seconds: int) -> None:
        self._banned_until = self._clock() + timedelta(seconds=seconds)

    def wrote(self, buyer_id: int, text: str, at: datetime, *, by: int = SELLER) -> None:
        """A message that stands in the history."""
        self.history[buyer_id].append(
            {
                "from_account_type": by,
                "to_account_type": BUYER if by == SELLER else SELLER,
                "from_account_id": "1",
                "to_account_id": "2",
                "message_id": str(90_000_000_000 + next(self._ids)),
                "template_id": 1,
                "type": 1,
                "content": json.dumps({"txt": text}),
                "send_time": int(at.timestamp() * 1000),
            }
        )

    async def _sync(self, request: Request) -> Response:
        parameters = {name: str(value) for name, value in (await request.form()).items()}
        try:
            self._check(parameters)
            method = parameters["method"]
            work = {
                "aliexpress/message/session/open": self._open_session,
                "aliexpress/message/send": self._send,
                "aliexpress/message/history/list": self._list,
            }.get(method)
            if work is None:
                raise _Gateway("ISV", "InvalidApiPath", "The specified API is invalid")
            (name,) = (name for name in parameters if name.endswith("_dto"))
            body = json.loads(parameters[name])
            self.calls.append((method, {name: body}))
            result = work(body)
        except _Gateway as problem:
            return JSONResponse(problem.flat() if self._flat_errors else {"error_response": problem.wrapped()})
        answer = {"result": result, "request_id": f"2101{next(self._ids):012d}", "code": "0"}
        if parameters.get("simplify") == "true":
            return JSONResponse(answer)
        return JSONResponse({f"{method.replace('/', '_')}_response": answer})

    def _check(self, parameters: Mapping[str, str]) -> None:
        if parameters.get("app_key") != self._app_key:
            raise _Gateway("ISV", "InvalidAppKey", "The specified App Key is invalid")
        unsigned = {name: value for name, value in parameters.items() if name != "sign"}
        text = "".join(name + unsigned[name] for name in sorted(unsigned))
        right = hmac.new(self._app_secret.encode(), text.encode(), hashlib.sha256).hexdigest().upper()
        if parameters.get("sign") != right or parameters.get("sign_method") != "sha256":
            raise _Gateway(
                "ISV", "IncompleteSignature", "The request signature does not conform to platform standards"
            )
        if abs(int(parameters["timestamp"]) - _ms(self._clock())) > _TIMESTAMP_WITHIN_MS:
            raise _Gateway("ISV", "IllegalTimestamp", "The specified timestamp is out of range")
        if parameters.get("session") != self._session:
            raise _Gateway("ISV", "IllegalAccessToken", "The specified access token is invalid or expired")
        if not self.may_send:
            raise _Gateway("ISV", "InsufficientPermission", "The app has no permission to call this API")
        if self._banned_until is not None and self._clock() < self._banned_until:
            left = max(1, round((self._banned_until - self._clock()).total_seconds()))
            raise _Gateway("ISV", "AppApiCallLimit", f"App Call Limited: This ban will last {left} seconds")

    def _open_session(self, body: Mapping[str, Any]) -> Any:
        buyer_id = body["buyer_id"]
        if buyer_id in self.closed_to_us:
            return {"success": True, "data": {"open_result": "FAIL", "current_buyer_id": buyer_id}}
        self.sessions.append(buyer_id)
        return {"success": True, "data": {"open_result": "SUCCESS", "current_buyer_id": buyer_id}}

    def _send(self, body: Mapping[str, Any]) -> Any:
        buyer_id = body["buyer_id"]
        if buyer_id not in self.sessions:
            return {"success": False, "error_code": "SESSION_NOT_EXIST", "error_message": "open a session first"}
        if buyer_id in self.failing:
            code, message = self.failing[buyer_id]
            return {"success": False, "error_code": code, "error_message": message}
        if self._cap is not None and sum(sent["buyer_id"] == buyer_id for sent in self.messages) >= self._cap:
            return {
                "success": False,
                "error_code": "MESSAGE_SEND_LIMIT",
                "error_message": f"buyer {buyer_id} has received too many messages",
            }
        self.messages.append(dict(body))
        self.wrote(buyer_id, body["message_content_dto"].get("txt", ""), self._clock())
        return {"success": True, "data": {"message_id": self.history[buyer_id][-1]["message_id"]}}

    def _list(self, body: Mapping[str, Any]) -> Any:
        size = body["page_size"]
        if size > LARGEST_PAGE:
            raise _Gateway("ISV", "InvalidParameter", "page_size is larger than 20")
        newest_first = sorted(
            self.history[body["buyer_id"]], key=lambda each: (-each["send_time"], each["message_id"])
        )
        last = body.get("last_message_id")
        older = [each for each in newest_first if each["send_time"] <= body["start_time"]]
        if last is not None:
            older = older[[each["message_id"] for each in older].index(last) + 1 :]
        page, more = older[:size], len(older) > size
        data: dict[str, Any] = {"message_list": page, "has_more": more}
        if page:
            data |= {"next_start_time": page[-1]["send_time"], "last_message_id": page[-1]["message_id"]}
        return {"success": True, "data": data}


class _Gateway(Exception):
    def __init__(self, kind: str, code: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.code, self.message = kind, code, message

    def wrapped(self) -> dict[str, Any]:
        return {"type": self.kind, "code": self.code, "msg": self.message, "request_id": "2101"}

    def flat(self) -> dict[str, Any]:
        return {"type": self.kind, "code": self.code, "message": self.message, "request_id": "2101"}


def _ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)
