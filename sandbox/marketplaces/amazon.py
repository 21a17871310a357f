"""Login with Amazon and the Selling Partner API's Solicitations and Messaging, one seller account.

The wording of refusals is that of public reports (github.com/amzn/selling-partner-api-models, issues 19 and 1030).
"""

from __future__ import annotations

import secrets
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lifecycle.clock import Clock, utc_now
from sandbox.marketplaces.trouble import Troubled

REVIEW_REQUEST = "productReviewAndSellerFeedback"
LONGEST_TEXT = {
    "confirmCustomizationDetails": 800,
    "confirmDeliveryDetails": 2000,
    "confirmOrderDetails": 2000,
    "confirmServiceDetails": 2000,
    "digitalAccessKey": 400,
    "unexpectedProblem": 2000,
}
WITHOUT_TEXT = ("invoice", "legalDisclosure", "warranty")
TOKEN_SECONDS = 3600


@dataclass
class Order:
    order_id: str
    may_be_asked: bool = True
    """A review request: not yet sent, and its time has come and not gone."""
    message_types: frozenset[str] = frozenset((*LONGEST_TEXT, *WITHOUT_TEXT))


@dataclass
class Seen:
    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


class AmazonStandIn:
    """`rate`: requests a second of each operation with `burst` at once; None: no limit."""

    def __init__(
        self,
        *,
        client_id: str = "amzn1.application-oa2-client.stand-in",
        client_secret: str = "s3cret",
        refresh_token: str = "Atzr|stand-in",
        marketplace_id: str = "ATVPDKIKX0DER",
        rate: float | None = None,
        burst: int = 5,
        clock: Clock = utc_now,
    ) -> None:
        self._login = {"client_id": client_id, "client_secret": client_secret, "refresh_token": refresh_token}
        self._marketplace_id = marketplace_id
        self._rate, self._burst, self._clock = rate, burst, clock
        self._tokens: dict[str, datetime] = {}
        self._used: defaultdict[str, list[datetime]] = defaultdict(list)
        self._lock = threading.Lock()
        self.orders: dict[str, Order] = {}
        self.has_the_role = True
        self.solicited: list[str] = []
        self.messages: list[tuple[str, str, Any]] = []
        self.seen: list[Seen] = []
        self.tokens_given = 0
        solicitations, messaging = "/solicitations/v1/orders/{order_id}", "/messaging/v1/orders/{order_id}"
        self.app = Troubled(
            Starlette(
                routes=[
                    Route("/auth/o2/token", self._token, methods=["POST"]),
                    Route(solicitations, self._solicitation_actions),
                    Route(f"{solicitations}/solicitations/{REVIEW_REQUEST}", self._solicit, methods=["POST"]),
                    Route(messaging, self._messaging_actions),
                    Route(f"{messaging}/messages/{{kind}}", self._message, methods=["POST"]),
                ],
                exception_handlers={_Problem: _Problem.answer},
            )
        )

    def add(self, *orders: Order) -> None:
        self.orders.update({order.order_id: order for order in orders})

    def expire_tokens(self) -> None:
        self._tokens.clear()

    async def _token(self, request: Request) -> Response:
        form = dict(await request.form())
        if (
            form.get("client_id") != self._login["client_id"]
            or form.get("client_secret") != self._login["client_secret"]
        ):
            return JSONResponse(
                {"error": "invalid_client", "error_description": "Client authentication failed"}, 401
            )
        if form.get("grant_type") != "refresh_token":
            return JSONResponse({"error": "unsupported_grant_type"}, 400)
        if form.get("refresh_token") != self._login["refresh_token"]:
            return JSONResponse(
                {"error": "invalid_grant", "error_description": "The refresh token is invalid"}, 400
            )
        token = f"Atza|{secrets.token_hex(16)}"
        self._tokens[token] = self._clock() + timedelta(seconds=TOKEN_SECONDS)
        self.tokens_given += 1
        return JSONResponse(
            {
                "access_token": token,
                "token_type": "bearer",
                "expires_in": TOKEN_SECONDS,
                "refresh_token": form["refresh_token"],
            }
        )

    async def _admitted(self, request: Request, operation: str) -> Order:
        body = await request.json() if await request.body() else None
        self.seen.append(
            Seen(request.method, request.url.path, dict(request.query_params), body, dict(request.headers))
        )
        expires = self._tokens.get(request.headers.get("x-amz-access-token", ""))
        if expires is None or expires <= self._clock():
            raise _Problem(
                403,
                "Unauthorized",
                "Access to requested resource is denied.",
                "The access token you provided has expired.",
            )
        if not self.has_the_role:
            raise _Problem(403, "Unauthorized", "Access to requested resource is denied.")
        if not self._within_rate(operation):
            raise _Problem(
                429, "QuotaExceeded", "You exceeded your quota for the requested resource.", rate=self._rate
            )
        if request.query_params.get("marketplaceIds") != self._marketplace_id:
            raise _Problem(400, "InvalidInput", "Missing or invalid request parameters: [marketplaceIds]")
        order = self.orders.get(request.path_params["order_id"])
        if order is None:
            raise _Problem(404, "NotFound", f"No order {request.path_params['order_id']} found.")
        return order

    def _within_rate(self, operation: str) -> bool:
        if self._rate is None:
            return True
        now, span = self._clock(), timedelta(seconds=self._burst / self._rate) if self._burst else None
        with self._lock:
            if span is None:
                return False
            self._used[operation] = [at for at in self._used[operation] if at > now - span]
            if len(self._used[operation]) >= self._burst:
                return False
            self._used[operation].append(now)
        return True

    async def _solicitation_actions(self, request: Request) -> Response:
        order = await self._admitted(request, "getSolicitationActionsForOrder")
        path = f"/solicitations/v1/orders/{order.order_id}"
        names = [REVIEW_REQUEST] if order.may_be_asked else []
        return self._answer(self._actions(path, "solicitations", names))

    async def _messaging_actions(self, request: Request) -> Response:
        order = await self._admitted(request, "getMessagingActionsForOrder")
        path = f"/messaging/v1/orders/{order.order_id}"
        return self._answer(self._actions(path, "messages", sorted(order.message_types)))

    def _actions(self, path: str, kind: str, names: Iterable[str]) -> Any:
        query = f"marketplaceIds={self._marketplace_id}"
        return {
            "_links": {
                "actions": [{"href": f"{path}/{kind}/{name}?{query}", "name": name} for name in names],
                "self": {"href": f"{path}?{query}"},
            }
        }

    async def _solicit(self, request: Request) -> Response:
        order = await self._admitted(request, "createProductReviewAndSellerFeedbackSolicitation")
        if not order.may_be_asked:
            raise _Problem(
                403, "Unauthorized", "The requested solicitation is not available for this amazonOrderId."
            )
        order.may_be_asked = False
        self.solicited.append(order.order_id)
        return self._answer({}, 201)

    async def _message(self, request: Request) -> Response:
        kind = request.path_params["kind"]
        order = await self._admitted(request, kind)
        body = await request.json()
        if kind not in order.message_types:
            raise _Problem(403, "Unauthorized", "The requested message is not available for this amazonOrderId.")
        if kind in LONGEST_TEXT and not 1 <= len(body.get("text", "")) <= LONGEST_TEXT[kind]:
            raise _Problem(400, "InvalidInput", "Invalid Input")
        if kind in WITHOUT_TEXT and "text" in body:
            raise _Problem(400, "InvalidInput", "Invalid Input")
        self.messages.append((order.order_id, kind, body))
        return self._answer({}, 201)

    def _answer(self, body: Any, status: int = 200) -> Response:
        headers = {"x-amzn-RequestId": secrets.token_hex(16)}
        if self._rate is not None:
            headers["x-amzn-RateLimit-Limit"] = str(self._rate)
        return JSONResponse(body, status, headers, media_type="application/hal+json")


class _Problem(Exception):
    def __init__(
        self, status: int, code: str, message: str, details: str = "", *, rate: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"errors": [{"code": code, "message": message, "details": details}]}
        self.headers = {"x-amzn-RateLimit-Limit": str(rate)} if rate is not None else {}

    @staticmethod
    async def answer(_request: Request, problem: Exception) -> Response:
        assert isinstance(problem, _Problem)
        return JSONResponse(problem.body, problem.status, problem.headers)
