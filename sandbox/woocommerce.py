"""A WooCommerce shop on loopback: REST API v3 over the stock.

It takes Basic authentication over plain HTTP, which a real shop does over HTTPS only.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.faults import Faults, FaultyAnswers
from sandbox.shops import SHOPS
from sandbox.storeroom import Item, Kind, Span, Storeroom

LARGEST_PAGE = 100


def create_app(stock: Path, shop: str, token: str, *, faults: Faults | None = None) -> Starlette:
    """`stock`: the database of sandbox.stock. `token` is `consumer_key:consumer_secret`."""
    stand = _Shop(Storeroom(stock, shop), shop, token)
    base = "/wp-json/wc/v3"
    return Starlette(
        routes=[
            Route(f"{base}/orders", stand.orders),
            Route(f"{base}/orders/{{order_id:int}}/refunds", stand.refunds),
            Route(f"{base}/customers", stand.customers),
        ],
        middleware=[Middleware(FaultyAnswers, faults=faults or Faults())],
        exception_handlers={_Problem: _Problem.answer, 404: _no_route},
    )


class _Problem(Exception):
    """WordPress's shape of an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @staticmethod
    async def answer(_request: Request, problem: Exception) -> Response:
        assert isinstance(problem, _Problem)
        body = {"code": problem.code, "message": str(problem), "data": {"status": problem.status}}
        return JSONResponse(body, problem.status)


async def _no_route(request: Request, _error: Exception) -> Response:
    said = "No route was found matching the URL and request method."
    return await _Problem.answer(request, _Problem(404, "rest_no_route", said))


class _Shop:
    def __init__(self, storeroom: Storeroom, shop: str, token: str) -> None:
        self._storeroom = storeroom
        self._own_time = ZoneInfo(SHOPS[shop].timezone)
        self._secret = f"Basic {base64.b64encode(token.encode()).decode()}"

    async def orders(self, request: Request) -> Response:
        self._admit(request)
        if request.query_params.get("status", "any") != "any":
            raise _invalid("status")  # the stand-in keeps no index of them
        own_time = ZoneInfo("UTC") if request.query_params.get("dates_are_gmt") == "true" else self._own_time
        after, before = (_seconds(request, name, own_time) for name in ("modified_after", "modified_before"))
        # WordPress's date queries leave out both ends.
        return self._page(request, "orders", Span(None if after is None else after + 1, before), "desc")

    async def customers(self, request: Request) -> Response:
        self._admit(request)
        return self._page(request, "customers", Span(), "asc")

    async def refunds(self, request: Request) -> Response:
        self._admit(request)
        item = self._storeroom.one("orders", request.path_params["order_id"])
        if item is None:
            raise _Problem(404, "woocommerce_rest_invalid_order_id", "Invalid order ID.")
        order = json.loads(item.json)
        return JSONResponse(
            [
                {
                    "id": refund["id"],
                    "amount": refund["total"].removeprefix("-"),
                    "reason": refund["reason"],
                    "date_created": order["date_modified"],
                    "date_created_gmt": order["date_modified_gmt"],
                    "line_items": [],
                }
                for refund in order["refunds"]
            ]
        )

    def _admit(self, request: Request) -> None:
        if not secrets.compare_digest(request.headers.get("Authorization", ""), self._secret):
            raise _Problem(401, "woocommerce_rest_cannot_view", "Sorry, you cannot list resources.")

    def _page(self, request: Request, kind: Kind, span: Span, usual_order: str) -> Response:
        page, size = _whole(request, "page", 1), _whole(request, "per_page", 10)
        if size > LARGEST_PAGE:
            raise _invalid("per_page")
        if request.query_params.get("orderby") != "id":
            raise _invalid("orderby")  # the only order that the stand-in knows
        order = request.query_params.get("order", usual_order)
        total = self._storeroom.count(kind, span)
        items = self._storeroom.by_id(
            kind, span, offset=(page - 1) * size, limit=size, newest_first=order == "desc"
        )
        headers = {"X-WP-Total": str(total), "X-WP-TotalPages": str(ceil(total / size))}
        links = _links(request, page, ceil(total / size))
        return Response(_list(items), 200, headers | links, "application/json; charset=UTF-8")


def _list(items: Sequence[Item]) -> str:
    return f"[{','.join(item.json for item in items)}]"


def _links(request: Request, page: int, pages: int) -> dict[str, str]:
    around = {"prev": page - 1, "next": page + 1}
    base, asked = request.url.replace(query=""), dict(request.query_params)
    links = [
        f'<{base}?{urlencode({**asked, "page": number})}>; rel="{name}"'
        for name, number in around.items()
        if 1 <= number <= pages
    ]
    return {"Link": ", ".join(links)} if links else {}


def _whole(request: Request, name: str, default: int) -> int:
    value = request.query_params.get(name, str(default))
    if not value.isdigit() or int(value) < 1:
        raise _invalid(name)
    return int(value)


def _seconds(request: Request, name: str, own_time: ZoneInfo) -> int | None:
    value = request.query_params.get(name)
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise _invalid(name) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=own_time)
    return int(moment.astimezone(UTC).timestamp())


def _invalid(name: str) -> _Problem:
    return _Problem(400, "rest_invalid_param", f"Invalid parameter(s): {name}")
