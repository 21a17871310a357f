"""A Shopify shop on loopback: Admin GraphQL 2026-10 over the stock, its cost limit and its bulk exports.

Costs follow Shopify's published rule (https://shopify.dev/docs/apps/build/apis/graphql-admin/rate-limits): a
scalar 0, an object 1, a connection 2 and its nodes, a mutation 10. What Shopify really takes off for nested
connections is not published; this is the most it can be.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from graphql import GraphQLSchema
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from lifecycle.settings import ROOT
from sandbox.exporting import Exports
from sandbox.faults import Faults, FaultyAnswers
from sandbox.querying import (
    Field,
    Operation,
    Projection,
    QueryError,
    kind_of,
    load_schema,
    pack,
    page_size,
    read_filter,
    read_operation,
    requested_cost,
    unpack,
)
from sandbox.storeroom import Storeroom

VERSION = "2026-10"
SCHEMA = ROOT.parent / "shared" / "specs" / "shopify" / f"admin_{VERSION}.introspection.json.gz"
"""Shopify's schema; where it is absent, queries are only parsed."""

DEAREST_QUERY = 1_000


@dataclass(frozen=True)
class Plan:
    """How much a shop's plan lets an app ask for. The defaults are Shopify Plus."""

    bucket: float = 20_000
    restored_per_second: float = 1_000
    deepest_page: int = 25_000


def create_app(
    stock: Path,
    shop: str,
    token: str,
    *,
    plan: Plan | None = None,
    faults: Faults | None = None,
    introspection: Path = SCHEMA,
    clock: Callable[[], float] = time.monotonic,
) -> Starlette:
    """`stock`: the database of sandbox.stock. `clock` tells seconds to the cost limit."""
    schema = load_schema(introspection) if introspection.exists() else None
    stand = _Shop(Storeroom(stock, shop), stock.parent / "exports" / shop, token, plan or Plan(), schema, clock)
    return Starlette(
        routes=[
            Route(f"/admin/api/{VERSION}/graphql.json", stand.graphql, methods=["POST"]),
            Route("/exports/{name}", stand.export),
        ],
        middleware=[Middleware(FaultyAnswers, faults=faults or Faults())],
    )


class _Shop:
    def __init__(
        self,
        storeroom: Storeroom,
        folder: Path,
        token: str,
        plan: Plan,
        schema: GraphQLSchema | None,
        clock: Callable[[], float],
    ) -> None:
        self._storeroom = storeroom
        self._token = token
        self._plan = plan
        self._bucket = _Bucket(plan, clock)
        self._read = lru_cache(maxsize=100)(lambda text: read_operation(text, schema))
        self._exports = Exports(storeroom, folder, self._read)

    async def graphql(self, request: Request) -> Response:
        if request.headers.get("X-Shopify-Access-Token") != self._token:
            said = "[API] Invalid API key or access token (unrecognized login or wrong password)"
            return JSONResponse({"errors": said}, 401)
        asked = await request.json()
        variables = asked.get("variables") or {}
        try:
            operation = self._read(asked.get("query", ""))
            requested = requested_cost(operation, variables)
        except QueryError as error:
            return JSONResponse({"errors": [_entry(error)]})
        if requested > DEAREST_QUERY:
            said = f"Query cost is {requested}, which exceeds the single query max cost limit ({DEAREST_QUERY})."
            return JSONResponse({"errors": [_entry(QueryError(said, "MAX_COST_EXCEEDED"))]})
        if not self._bucket.take(requested):
            return JSONResponse(
                {
                    "errors": [_entry(QueryError("Throttled", "THROTTLED"))],
                    "extensions": {"cost": self._bucket.cost(requested, None)},
                }
            )
        return self._answer(operation, variables, requested, str(request.base_url))

    async def export(self, request: Request) -> Response:
        """Result files are open to whoever knows their signed address, as on Shopify's storage."""
        file = self._exports.file(request.path_params["name"], request.query_params.get("signature", ""))
        return FileResponse(file, media_type="application/jsonl") if file else Response("no such file", 403)

    def _answer(
        self, operation: Operation, variables: Mapping[str, Any], requested: int, base_url: str
    ) -> Response:
        projection = Projection(variables)
        answer: dict[str, Any] = {}
        try:
            answer["data"] = {
                field.key: self._root(field, variables, projection, base_url) for field in operation.fields
            }
        except QueryError as error:
            answer = {"data": None, "errors": [_entry(error)]}
        actual = projection.cost + (10 if operation.is_mutation else 0)
        self._bucket.give_back(max(requested - actual, 0))
        answer["extensions"] = {"cost": self._bucket.cost(requested, actual)}
        return JSONResponse(answer)

    def _root(self, field: Field, variables: Mapping[str, Any], projection: Projection, base_url: str) -> Any:
        if field.name in ("orders", "customers"):
            return self._connection(field, variables, projection)
        if field.name in ("order", "customer"):
            number = str(field.argument("id", variables)).rpartition("/")[2]
            item = self._storeroom.one(kind_of(field.name), int(number)) if number.isdigit() else None
            return projection.of(field, json.loads(item.json)) if item else None
        if field.name == "bulkOperation":
            return projection.of(field, self._exports.status(field.argument("id", variables), base_url))
        if field.name == "bulkOperationRunQuery":
            started = self._exports.start(
                field.argument("query", variables), bool(field.argument("groupObjects", variables)), base_url
            )
            return projection.of(field, started)
        raise QueryError(f"the stand-in shop knows no {field.name}", "undefinedField")

    def _connection(self, field: Field, variables: Mapping[str, Any], projection: Projection) -> dict[str, Any]:
        size, after = page_size(field, variables), field.argument("after", variables)
        if field.argument("sortKey", variables) != "UPDATED_AT":
            raise QueryError(f"the stand-in shop sorts {field.name} by UPDATED_AT only", "BAD_REQUEST")
        *position, seen = unpack(after) if after else [0]
        if seen + size > self._plan.deepest_page:
            raise QueryError(f"paging ends after {self._plan.deepest_page} objects", "BAD_REQUEST")
        items = self._storeroom.by_change(
            kind_of(field.name),
            read_filter(str(field.argument("query", variables) or "")),
            after=(position[0], position[1]) if position else None,
            limit=size + 1,
        )
        cursors = [
            pack(item.updated_at, item.id, seen + number) for number, item in enumerate(items[:size], start=1)
        ]
        nodes = [json.loads(item.json) for item in items[:size]]
        return projection.connection(field, nodes, cursors, more=len(items) > size)


def _entry(error: QueryError) -> dict[str, Any]:
    entry: dict[str, Any] = {"message": str(error)}
    if error.code == "THROTTLED":
        documentation = "https://shopify.dev/api/usage/rate-limits"
        return {**entry, "extensions": {"code": error.code, "documentation": documentation}}
    return {**entry, "extensions": {"code": error.code}} if error.code else entry


class _Bucket:
    """Points that an app may still spend; they flow back all the time."""

    def __init__(self, plan: Plan, clock: Callable[[], float]) -> None:
        self._plan = plan
        self._clock = clock
        self._available = plan.bucket
        self._since = clock()

    def take(self, points: float) -> bool:
        self._refill()
        if points > self._available:
            return False
        self._available -= points
        return True

    def give_back(self, points: float) -> None:
        self._available = min(self._plan.bucket, self._available + points)

    def cost(self, requested: int, actual: int | None) -> dict[str, Any]:
        self._refill()
        return {
            "requestedQueryCost": requested,
            "actualQueryCost": actual,
            "throttleStatus": {
                "maximumAvailable": self._plan.bucket,
                "currentlyAvailable": int(self._available),
                "restoreRate": self._plan.restored_per_second,
            },
        }

    def _refill(self) -> None:
        now = self._clock()
        self.give_back((now - self._since) * self._plan.restored_per_second)
        self._since = now
