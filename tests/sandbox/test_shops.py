from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from lifecycle.errors import UsageError
from lifecycle.processes import NEVER
from sandbox import shopify, woocommerce
from sandbox.servers import serve
from sandbox.stock import Stock
from tests.platforms.goods import small_stock

TOKEN, KEYS = "shpat_1", "ck_1:cs_1"


@pytest.fixture(scope="module")
def atlas(stock: Stock) -> Iterator[str]:
    with serve(shopify.create_app(stock.path, "atlas", TOKEN)) as url:
        yield url


@pytest.fixture(scope="module")
def harbour(stock: Stock) -> Iterator[str]:
    with serve(woocommerce.create_app(stock.path, "harbour", KEYS)) as url:
        yield url


@pytest.fixture
def graphql(atlas: str) -> Callable[..., dict[str, Any]]:
    return lambda query, **variables: ask(atlas, query, variables)


def ask(url: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(
        f"{url}/admin/api/2026-10/graphql.json",
        json={"query": query, "variables": variables},
        headers={"X-Shopify-Access-Token": TOKEN},
    )
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def code_of(answer: dict[str, Any]) -> str | None:
    code: str | None = answer["errors"][0]["extensions"].get("code")
    return code


def get(url: str, path: str, **params: object) -> httpx.Response:
    return httpx.get(f"{url}/wp-json/wc/v3{path}", params=params, auth=tuple(KEYS.split(":")))  # type: ignore[arg-type]


PAGE = """query($n: Int!, $after: String) {
  orders(first: $n, after: $after, sortKey: UPDATED_AT) { %s pageInfo { hasNextPage endCursor } }
}"""


def test_shopify_wants_its_token_and_its_version(atlas: str) -> None:
    endpoint = f"{atlas}/admin/api/2026-10/graphql.json"
    assert httpx.post(endpoint, json={"query": "{ shop { name } }"}).status_code == 401
    assert httpx.post(endpoint.replace("2026-10", "2020-01"), json={}).status_code == 404


def test_shopify_projects_aliases_nodes_and_edges(graphql: Callable[..., dict[str, Any]]) -> None:
    by_nodes = graphql(PAGE % "nodes { id number: name }", n=3)["data"]["orders"]
    by_edges = graphql(PAGE % "edges { cursor node { id number: name } }", n=3)["data"]["orders"]
    assert [edge["node"] for edge in by_edges["edges"]] == by_nodes["nodes"]
    assert set(by_nodes["nodes"][0]) == {"id", "number"}
    assert by_edges["edges"][-1]["cursor"] == by_nodes["pageInfo"]["endCursor"]
    rest = graphql(PAGE % "nodes { id }", n=250, after=by_nodes["pageInfo"]["endCursor"])["data"]["orders"]
    assert rest["pageInfo"]["hasNextPage"] is False
    assert by_nodes["nodes"][-1]["id"] not in {node["id"] for node in rest["nodes"]}


def test_shopify_pages_nested_lines(graphql: Callable[..., dict[str, Any]], atlas: str) -> None:
    query = PAGE % "nodes { id lineItems(first: 1) { nodes { id } pageInfo { hasNextPage endCursor } } }"
    order = next(
        node
        for node in graphql(query, n=40)["data"]["orders"]["nodes"]
        if node["lineItems"]["pageInfo"]["hasNextPage"]
    )
    more = graphql(
        MORE,
        id=order["id"],
        after=order["lineItems"]["pageInfo"]["endCursor"],
    )
    lines = more["data"]["order"]["lineItems"]["nodes"]
    assert lines
    assert order["lineItems"]["nodes"][0] not in lines


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{ orders(first: 5, sortKey: UPDATED_AT) { nodes { nothing } } }", "undefinedField"),
        ("{ orders(sortKey: UPDATED_AT) { nodes { id } } }", "BAD_REQUEST"),
        ("{ orders(first: 251, sortKey: UPDATED_AT) { nodes { id } } }", "BAD_REQUEST"),
        ("{ orders(first: 5, sortKey: UPDATED_AT, query: \"tag:x\") { nodes { id } } }", "BAD_REQUEST"),
        ("{ orders(first: 5, sortKey: UPDATED_AT, after: \"x\") { nodes { id } } }", "BAD_REQUEST"),
    ],
)  # fmt: skip
def test_shopify_refuses_bad_queries(graphql: Callable[..., dict[str, Any]], query: str, code: str) -> None:
    assert code_of(graphql(query)) == code


def test_shopify_says_what_does_not_parse(graphql: Callable[..., dict[str, Any]]) -> None:
    assert "Syntax Error" in graphql("{ orders(")["errors"][0]["message"]


def test_the_real_schema_refuses_what_is_not_in_it(shared: Path, graphql: Callable[..., dict[str, Any]]) -> None:
    answer = graphql("{ orders(first: 1) { nodes { totalPriceSet } } }")
    assert "must have a selection of subfields" in answer["errors"][0]["message"]


def test_without_the_schema_queries_are_only_parsed(stock: Stock, tmp_path: Path) -> None:
    app = shopify.create_app(stock.path, "atlas", TOKEN, introspection=tmp_path / "absent.json.gz")
    with serve(app) as url:
        answer = ask(url, PAGE % "nodes { id nothing }", {"n": 1})
        assert "knows no field 'nothing'" in answer["errors"][0]["message"]
        assert len(ask(url, PAGE % "nodes { id }", {"n": 2})["data"]["orders"]["nodes"]) == 2


def test_costs_are_told_in_shopifys_shape(stock: Stock) -> None:
    seconds = [0.0]
    plan = shopify.Plan(bucket=100, restored_per_second=10)
    app = shopify.create_app(stock.path, "atlas", TOKEN, plan=plan, clock=lambda: seconds[0])
    query = PAGE % "nodes { id customer { id } }"
    with serve(app) as url:
        cost = ask(url, query, {"n": 40})["extensions"]["cost"]
        assert cost["requestedQueryCost"] == 2 + 40 * 2
        assert cost["actualQueryCost"] <= cost["requestedQueryCost"]
        left = 100 - cost["actualQueryCost"]
        status = {"maximumAvailable": 100, "currentlyAvailable": left, "restoreRate": 10}
        assert cost["throttleStatus"] == status

        throttled = ask(url, query, {"n": 40})
        assert code_of(throttled) == "THROTTLED"
        assert "data" not in throttled
        assert throttled["extensions"]["cost"] == {
            "requestedQueryCost": 82,
            "actualQueryCost": None,
            "throttleStatus": status,
        }
        seconds[0] = (82 - left) / 10
        assert "data" in ask(url, query, {"n": 40})


def test_a_query_may_cost_a_thousand(graphql: Callable[..., dict[str, Any]]) -> None:
    answer = graphql(PAGE % "nodes { id lineItems(first: 250) { nodes { id } } }", n=250)
    assert code_of(answer) == "MAX_COST_EXCEEDED"
    assert "exceeds the single query max cost limit (1000)" in answer["errors"][0]["message"]


RUN = """mutation($q: String!) {
  bulkOperationRunQuery(query: $q, groupObjects: true) { bulkOperation { id status } userErrors { code message } }
}"""
MORE = """query($id: ID!, $after: String) {
  order(id: $id) { lineItems(first: 250, after: $after) { nodes { id } } }
}"""
STATUS = "query($id: ID!) { bulkOperation(id: $id) { status url rootObjectCount objectCount fileSize } }"


def test_an_export_is_a_file_of_lines(graphql: Callable[..., dict[str, Any]]) -> None:
    query = "{ orders { edges { node { id name lineItems { edges { node { id sku } } } } } } }"
    started = graphql(RUN, q=query)["data"]["bulkOperationRunQuery"]
    assert (started["bulkOperation"]["status"], started["userErrors"]) == ("CREATED", [])
    while (operation := graphql(STATUS, id=started["bulkOperation"]["id"])["data"]["bulkOperation"])[
        "url"
    ] is None:
        time.sleep(0.01)
    assert operation["status"] == "COMPLETED"
    answer = httpx.get(operation["url"])
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert len(lines) == int(operation["objectCount"])
    assert len(answer.content) == int(operation["fileSize"])
    roots = [line for line in lines if "__parentId" not in line]
    assert len(roots) == int(operation["rootObjectCount"]) > 20
    assert set(roots[0]) == {"id", "name"}
    parent = None
    for line in lines:
        parent = line["id"] if "__parentId" not in line else parent
        assert line.get("__parentId", parent) == parent
    assert httpx.get(operation["url"][:-1]).status_code == 403


@pytest.mark.parametrize("query", ["{ shop { name } }", "{ orders {", "{ order(id: 1) { id } }"])
def test_not_everything_can_be_exported(graphql: Callable[..., dict[str, Any]], query: str) -> None:
    payload = graphql(RUN, q=query)["data"]["bulkOperationRunQuery"]
    assert (payload["bulkOperation"], payload["userErrors"][0]["code"]) == (None, "INVALID")


def test_woocommerce_wants_its_keys(harbour: str) -> None:
    answer = httpx.get(f"{harbour}/wp-json/wc/v3/orders?orderby=id")
    assert answer.status_code == 401
    assert answer.json() == {
        "code": "woocommerce_rest_cannot_view",
        "message": "Sorry, you cannot list resources.",
        "data": {"status": 401},
    }


def test_woocommerce_counts_pages_and_links_them(harbour: str) -> None:
    first = get(harbour, "/orders", orderby="id", order="asc", per_page=10)
    total, pages = int(first.headers["X-WP-Total"]), int(first.headers["X-WP-TotalPages"])
    assert (len(first.json()), pages) == (10, -(-total // 10))
    assert first.links.keys() == {"next"}
    found, url = list(first.json()), first.links["next"]["url"]
    while url:
        answer = httpx.get(url, auth=tuple(KEYS.split(":")))  # type: ignore[arg-type]
        found += answer.json()
        url = answer.links.get("next", {}).get("url")
    assert answer.links.keys() == {"prev"}
    assert [order["id"] for order in found] == sorted({order["id"] for order in found})
    assert len(found) == total
    assert get(harbour, "/orders", orderby="id", page=pages + 1).json() == []


def test_woocommerce_windows_leave_out_both_ends(harbour: str) -> None:
    orders = get(harbour, "/orders", orderby="id", order="asc", per_page=100).json()
    first, second, third = (order["date_modified_gmt"] for order in orders[:3])
    window = {"modified_after": first, "modified_before": third, "dates_are_gmt": "true", "orderby": "id"}
    assert [order["date_modified_gmt"] for order in get(harbour, "/orders", **window).json()] == [second]
    local = {**window, "dates_are_gmt": "false"}
    summer = orders[0]["date_modified"] != first
    assert summer
    assert [order["date_modified_gmt"] for order in get(harbour, "/orders", **local).json()] != [second]


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"per_page": 101}, 400),
        ({"page": 0}, 400),
        ({"orderby": "price"}, 400),
        ({"modified_after": "yesterday"}, 400),
        ({"status": "broken"}, 400),
    ],
)
def test_woocommerce_refuses_bad_parameters(harbour: str, params: dict[str, object], status: int) -> None:
    answer = get(harbour, "/orders", **{"orderby": "id", **params})
    assert (answer.status_code, answer.json()["code"]) == (status, "rest_invalid_param")
    assert answer.json()["data"] == {"status": status}


def test_woocommerce_knows_refunds_and_its_routes(tmp_path: Path) -> None:
    stock = small_stock(tmp_path)
    with serve(woocommerce.create_app(stock.path, "harbour", KEYS)) as url:
        order = get(url, "/orders", orderby="id", order="asc").json()[0]
        stock.refund("harbour", order["id"], 125, datetime(2026, 11, 22, 12, tzinfo=UTC))
        (refund,) = get(url, f"/orders/{order['id']}/refunds").json()
        assert refund["amount"] == "1.25"
        assert get(url, "/orders/1/refunds").json()["code"] == "woocommerce_rest_invalid_order_id"
        assert get(url, "/carts").json()["code"] == "rest_no_route"


def test_a_taken_port_is_named() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        """Never asked."""

    with serve(app) as url:
        port = int(url.rpartition(":")[2])
        with (
            pytest.raises(UsageError, match=f"port {port} on 127.0.0.1 is taken; stop the program"),
            serve(app, port),
        ):
            pass
    with pytest.raises(UsageError, match=f"port {NEVER} is not for servers"), serve(app, NEVER):
        pass
