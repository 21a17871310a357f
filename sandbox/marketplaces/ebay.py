"""eBay's OAuth and Commerce Message API, one seller account.

Which of the errors 355010 to 355021 stands for which fault of a message is not published outside of eBay's own
documents; the ones here are guesses in that range. 20957 is the Trading API's.
"""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lifecycle.clock import Clock, utc_now
from sandbox.marketplaces.trouble import Troubled

SCOPE = "https://api.ebay.com/oauth/api_scope/commerce.message"
TOKEN_SECONDS = 7200
LONGEST_TEXT, MOST_MEDIA = 2000, 5
_FIELDS = frozenset(
    {"conversationId", "emailCopyToSender", "messageMedia", "messageText", "otherPartyUsername", "reference"}
)


class EbayStandIn:
    """`users`: who can be written to. `cap`: messages to one of them, then 20957; None: no limit."""

    def __init__(
        self,
        *,
        client_id: str = "Stand-In-PRD",
        client_secret: str = "s3cret",
        refresh_token: str = "v^1.1#stand-in",
        cap: int | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._basic = "Basic " + base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        self._refresh_token = refresh_token
        self._cap, self._clock = cap, clock
        self._tokens: dict[str, tuple[datetime, bool]] = {}
        self.users: set[str] = set()
        self.grants_scope = True
        self.messages: list[dict[str, Any]] = []
        self.seen: list[dict[str, Any]] = []
        self.tokens_given = 0
        self.app = Troubled(
            Starlette(
                routes=[
                    Route("/identity/v1/oauth2/token", self._token, methods=["POST"]),
                    Route("/commerce/message/v1/send_message", self._send, methods=["POST"]),
                ]
            )
        )

    def expire_tokens(self) -> None:
        self._tokens.clear()

    async def _token(self, request: Request) -> Response:
        form = dict(await request.form())
        if request.headers.get("authorization") != self._basic:
            body = {"error": "invalid_client", "error_description": "client authentication failed"}
            return JSONResponse(body, 401)
        if form.get("grant_type") != "refresh_token" or form.get("refresh_token") != self._refresh_token:
            body = {
                "error": "invalid_grant",
                "error_description": "the provided authorization refresh token is invalid",
            }
            return JSONResponse(body, 400)
        token = f"v^1.1#{secrets.token_hex(16)}"
        granted = self.grants_scope and SCOPE in str(form.get("scope", "")).split()
        self._tokens[token] = self._clock() + timedelta(seconds=TOKEN_SECONDS), granted
        self.tokens_given += 1
        return JSONResponse(
            {"access_token": token, "expires_in": TOKEN_SECONDS, "token_type": "User Access Token"}
        )

    async def _send(self, request: Request) -> Response:
        expires, granted = self._tokens.get(
            request.headers.get("authorization", "").removeprefix("Bearer "), (None, False)
        )
        if expires is None or expires <= self._clock():
            return _error(401, 1001, "Invalid access token", "OAuth")
        if not granted:
            return _error(403, 1100, "Access denied: insufficient permissions to fulfill the request.", "ACCESS")
        body = await request.json()
        self.seen.append(body)
        problem = self._problem(body)
        if problem is not None:
            return problem
        self.messages.append(body)
        return JSONResponse(
            {
                "createdDate": self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                "messageBody": body["messageText"],
                "messageId": secrets.token_hex(8),
                "readStatus": False,
                "recipientUserName": body["otherPartyUsername"],
                "senderUserName": "stand-in",
                "subject": "",
            },
            201,
        )

    def _problem(self, body: dict[str, Any]) -> Response | None:
        user, text, reference = body.get("otherPartyUsername"), body.get("messageText", ""), body.get("reference")
        if not set(body) <= _FIELDS or len(body.get("messageMedia", [])) > MOST_MEDIA:
            return _error(400, 355010, "Invalid request.")
        if user not in self.users:
            return _error(400, 355006, f"Invalid value for otherPartyUsername: {user}.")
        if not 1 <= len(text) <= LONGEST_TEXT:
            return _error(400, 355012, "Invalid value for messageText.")
        if reference is not None and reference.get("referenceType") != "LISTING":
            return _error(400, 355016, "Invalid value for referenceType.")
        if (
            self._cap is not None
            and sum(sent["otherPartyUsername"] == user for sent in self.messages) >= self._cap
        ):
            return _error(400, 20957, "Service is not available.")
        return None


def _error(status: int, error_id: int, message: str, domain: str = "API_MESSAGE") -> Response:
    error = {
        "errorId": error_id,
        "domain": domain,
        "category": "REQUEST",
        "message": message,
        "longMessage": message,
    }
    return JSONResponse({"errors": [error]}, status)
