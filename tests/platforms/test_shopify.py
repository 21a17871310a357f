from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import graphql
import httpx
import pytest
from graphql.validation import NoDeprecatedCustomRule, specified_rules
from starlette.types import ASGIApp

from lifecycle.errors import PlatformBusy, PlatformRejected
from lifecycle.platforms import open_platform, shopify, shopify_queries
from lifecycle.platforms.base import Platform, Window
from lifecycle.platforms.records import CustomerRow, OrderRow
from lifecycle.settings import ROOT, load_config
from lifecycle.settings.models import Pulling
from sandbox.faults import Fault, Faults
from sandbox.querying import load_schema, read_operation, requested_cost
from sandbox.servers import serve
from sandbox.shopify import DEAREST_QUERY, SCHEMA, Plan, create_app
from sandbox.stock import Stock
from tests.contracts.platform import END, EVERYTHING, Naps, PlatformContract, key, rows

SOME = Window(datetime(2026, 8, 20, tzinfo=UTC), END)


class ShopifyContract(PlatformContract):
    shop_name = "atlas"
    token = "shpat_right"

    @classmethod
    def create_app(cls, stock: Stock, faults: Faults, naps: Naps) -> ASGIApp:
        return create_app(stock.path, "atlas", cls.token, faults=faults, clock=naps.clock)

    @classmethod
    def shown_name(cls) -> str:
        return "Shopify"


class TestShopify(ShopifyContract):
    """The first pull is a bulk export."""

    def test_a_cut_export_is_fetched_again(
        self, platform: Platform, stock: Stock, faults: Faults, naps: Naps
    ) -> None:
        faults.plan(Fault("cut", path=".jsonl"), Fault("error", path=".jsonl"))
        assert sorted(map(key, rows(platform, "orders", EVERYTHING))) == sorted(self.stored(stock, "orders"))
        assert {1, 2} <= set(naps.taken)


class TestShopifyPageByPage(ShopifyContract):
    changes = {"bulk_first_pull": False}  # noqa: RUF012


@pytest.fixture
def naps() -> Naps:
    return Naps()


@pytest.fixture
def serving(stock: Stock, naps: Naps) -> Iterator[Callable[..., Platform]]:
    """A platform before a server with limits of its own."""
    with ExitStack() as stack:

        def start(plan: Plan) -> Platform:
            app = create_app(stock.path, "atlas", "t", plan=plan, clock=naps.clock)
            return opened(stack.enter_context(serve(app)), naps)

        yield start


def opened(url: str, naps: Naps, transport: httpx.BaseTransport | None = None, **changes: Any) -> Platform:
    shop = load_config(ROOT / "config", env={}).shop("atlas").model_copy(update={"url": url, **changes})
    pulling = Pulling(page_size=50, timeout_seconds=5, max_attempts=3)
    return open_platform(shop, pulling, {"TERN_ATLAS_TOKEN": "t"}, transport=transport, sleep=naps)


def answering(naps: Naps, *answers: Any, **changes: Any) -> tuple[Platform, list[dict[str, Any]]]:
    """A platform whose requests get these answers one after the other (the last one again and again)."""
    asked: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content)["variables"])
        given = answers[min(len(asked), len(answers)) - 1]
        return given if isinstance(given, httpx.Response) else httpx.Response(200, json=given)

    return opened("https://atlas.example.com", naps, httpx.MockTransport(answer), **changes), asked


@pytest.fixture(scope="session")
def schema(shared: Path) -> graphql.GraphQLSchema:
    assert SCHEMA.is_relative_to(shared)
    return load_schema(SCHEMA)


QUERIES = {
    **{f"page of {entity}": query for entity, query in shopify_queries.PAGE.items()},
    **{f"export of {e}": q.replace("$query", json.dumps("x")) for e, q in shopify_queries.BULK.items()},
    "more lines": shopify_queries.MORE_LINES,
    "run export": shopify_queries.RUN_BULK,
    "export status": shopify_queries.BULK_STATUS,
}


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_is_valid_and_nothing_in_it_deprecated(name: str, schema: graphql.GraphQLSchema) -> None:
    document = graphql.parse(QUERIES[name])
    assert not graphql.validate(schema, document, [*specified_rules, NoDeprecatedCustomRule])


@pytest.mark.parametrize("name", [name for name in QUERIES if not name.startswith("export of")])
def test_no_query_costs_more_than_one_may(name: str) -> None:
    operation = read_operation(QUERIES[name], None)
    sizes = shopify_queries.LARGEST_PAGE
    first = sizes.get(name.removeprefix("page of "), 1)
    cost = requested_cost(operation, {"first": first, "query": "", "id": "1"})
    assert cost <= DEAREST_QUERY
    if name.startswith("page of"):
        assert requested_cost(operation, {"first": first + 1, "query": ""}) > DEAREST_QUERY


def test_a_used_up_cost_limit_is_waited_for(serving: Callable[..., Platform], stock: Stock, naps: Naps) -> None:
    platform = serving(Plan(bucket=1_000, restored_per_second=100))
    found = rows(platform, "orders", SOME)
    assert len(found) > 20
    assert naps.taken
    assert all(0 < nap <= DEAREST_QUERY / 100 for nap in naps.taken)


def test_throttling_says_how_long_to_wait(naps: Naps) -> None:
    throttled = {
        "errors": [{"message": "Throttled", "extensions": {"code": "THROTTLED"}}],
        "extensions": {
            "cost": {
                "requestedQueryCost": 752,
                "actualQueryCost": None,
                "throttleStatus": {"maximumAvailable": 2000.0, "currentlyAvailable": 52, "restoreRate": 100.0},
            }
        },
    }
    platform, _ = answering(naps, throttled)
    with pytest.raises(PlatformBusy, match="shop atlas: Shopify's cost limit is used up") as error:
        list(platform.pages("orders", SOME))
    assert error.value.retry_after == 7
    assert naps.taken == [7, 7]


def test_a_page_that_costs_too_much_is_halved(naps: Naps) -> None:
    dear = {"errors": [{"message": "Query cost is 1201", "extensions": {"code": "MAX_COST_EXCEEDED"}}]}
    empty = {"data": {"orders": {"nodes": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}}}
    platform, asked = answering(naps, dear, dear, empty)
    assert [page.rows for page in platform.pages("orders", SOME)] == [0]
    assert [variables["first"] for variables in asked] == [20, 10, 5]


def test_paging_goes_on_where_a_result_set_ends(
    serving: Callable[..., Platform], stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {key(row) for row in rows(serving(Plan()), "orders", SOME)}
    monkeypatch.setattr(shopify, "DEEPEST_PAGE", 25)
    found = [key(row) for row in rows(serving(Plan(deepest_page=25)), "orders", SOME)]
    assert len(whole) > 30
    assert set(found) == whole


def test_an_export_of_nothing_has_no_pages(naps: Naps) -> None:
    started = {"data": {"bulkOperationRunQuery": {"bulkOperation": {"id": "gid://x/1"}, "userErrors": []}}}
    done = {"data": {"bulkOperation": {"id": "gid://x/1", "status": "COMPLETED", "url": None}}}
    platform, _ = answering(naps, started, done)
    assert list(platform.pages("orders", EVERYTHING)) == []


def test_an_export_that_fails_is_busy(naps: Naps) -> None:
    started = {"data": {"bulkOperationRunQuery": {"bulkOperation": {"id": "gid://x/1"}, "userErrors": []}}}
    failed = {"data": {"bulkOperation": {"status": "FAILED", "errorCode": "TIMEOUT"}}}
    platform, _ = answering(naps, started, failed)
    with pytest.raises(PlatformBusy, match=r"shop atlas: Shopify's export ended as FAILED \(TIMEOUT\)"):
        list(platform.pages("orders", EVERYTHING))


def test_other_exports_are_waited_for(naps: Naps) -> None:
    errors = [{"field": None, "message": "busy", "code": "OPERATION_IN_PROGRESS"}]
    platform, _ = answering(
        naps, {"data": {"bulkOperationRunQuery": {"bulkOperation": None, "userErrors": errors}}}
    )
    with pytest.raises(PlatformBusy, match="runs other bulk exports"):
        list(platform.pages("orders", EVERYTHING))
    assert naps.taken == [60, 60]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            {"errors": [{"message": "Access denied", "extensions": {"code": "ACCESS_DENIED"}}]},
            r"shop atlas: Shopify does not let this token read orders and customers \(ACCESS_DENIED\); "
            "give the app behind TERN_ATLAS_TOKEN those rights",
        ),
        (httpx.Response(403), r"does not let this token read .* \(403\)"),
        (httpx.Response(404), r"shop atlas: there is no Shopify API at https://atlas.example.com \(404\); check"),
        (httpx.Response(302), r"shop atlas: Shopify answered 302 at https://atlas.example.com"),
        ({"errors": "[API] This shop is unavailable"}, "did not take the query: .*This shop is unavailable"),
    ],
)
def test_what_a_person_must_mend(naps: Naps, answer: Any, sentence: str) -> None:
    platform, _ = answering(naps, answer)
    with pytest.raises(PlatformRejected, match=sentence):
        list(platform.pages("orders", SOME))
    assert naps.taken == []


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>"), {"data": None}, []])
def test_an_answer_without_data_is_asked_again(naps: Naps, answer: Any) -> None:
    platform, asked = answering(naps, answer)
    with pytest.raises(PlatformBusy, match="shop atlas: Shopify's answer was cut or is not JSON"):
        list(platform.pages("orders", SOME))
    assert len(asked) == 3


def order(**changes: Any) -> OrderRow:
    money = {"shopMoney": {"amount": "19.90", "currencyCode": "EUR"}}
    node = {
        "id": "gid://shopify/Order/9007199254740993",
        "processedAt": "2026-11-01T12:00:00Z",
        "updatedAt": "2026-11-02T12:00:00+02:00",
        "displayFinancialStatus": "PAID",
        "totalPriceSet": money,
    }
    body = json.dumps({"data": {"orders": {"nodes": [{**node, **changes}]}}}).encode()
    (row,) = opened("https://atlas.example.com", Naps()).parse("orders", body)
    assert isinstance(row, OrderRow)
    return row


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        *(({"displayFinancialStatus": word}, status) for word, status in shopify.STATUSES.items()),
        ({"cancelledAt": "2026-11-03T00:00:00Z"}, "cancelled"),
        ({"totalPriceSet": {"shopMoney": {"amount": "-3.00", "currencyCode": "EUR"}}}, "returned"),
        ({"displayFinancialStatus": "SOMETHING_NEW"}, "SOMETHING_NEW"),
        ({"displayFinancialStatus": None}, None),
    ],
)
def test_statuses(changes: dict[str, Any], status: str | None) -> None:
    assert order(**changes).status == status


def test_ids_are_exact_and_instants_utc() -> None:
    row = order()
    assert row.order_id == "9007199254740993"
    assert row.updated_at == datetime(2026, 11, 2, 10, tzinfo=UTC)
    assert row.total == Decimal("19.90")


@pytest.mark.parametrize(
    "changes",
    [
        {"totalPriceSet": {"shopMoney": {"amount": "many"}}},
        {"totalPriceSet": "no object"},
        {"totalPriceSet": {"shopMoney": {"amount": "NaN"}}},
    ],
)
def test_a_value_that_cannot_be_read_is_none_and_kept_raw(changes: dict[str, Any]) -> None:
    row = order(**changes, processedAt=7, lineItems={"nodes": ["no line", {"quantity": "1.5"}]}, customer=[])
    assert (row.total, row.ordered_at, row.customer_id) == (None, None, None)
    assert [line.quantity for line in row.lines] == [None]
    assert row.raw["totalPriceSet"] == changes["totalPriceSet"]


@pytest.mark.parametrize(
    ("shipping", "billing", "sent_to"),
    [
        ({"countryCodeV2": "US", "provinceCode": "CA"}, {"countryCodeV2": "FR"}, ("US", "CA")),
        (
            {"countryCodeV2": "FR", "provinceCode": None},
            {"countryCodeV2": "US", "provinceCode": "NY"},
            ("FR", None),
        ),
        ({"countryCodeV2": None}, {"countryCodeV2": "US", "provinceCode": "NY"}, ("US", "NY")),
        (None, {"countryCodeV2": "US", "provinceCode": "NY"}, ("US", "NY")),
        (None, None, (None, None)),
    ],
)
def test_a_region_comes_from_the_same_address_as_its_country(
    shipping: Any, billing: Any, sent_to: tuple[str | None, ...]
) -> None:
    row = order(shippingAddress=shipping, billingAddress=billing)
    assert (row.country, row.region) == sent_to


def test_where_a_customer_lives() -> None:
    node = {
        "id": "gid://shopify/Customer/1",
        "defaultAddress": {"countryCodeV2": "AU", "provinceCode": "NSW"},
    }
    body = json.dumps({"data": {"customers": {"nodes": [node]}}}).encode()
    (row,) = opened("https://atlas.example.com", Naps()).parse("customers", body)
    assert isinstance(row, CustomerRow)
    assert (row.country, row.region, row.timezone) == ("AU", "NSW", None)


@pytest.mark.parametrize(
    ("state", "level", "fact"),
    [
        ("SUBSCRIBED", "CONFIRMED_OPT_IN", ("granted", "double_opt_in")),
        ("SUBSCRIBED", "SINGLE_OPT_IN", ("granted", "express")),
        ("SUBSCRIBED", None, ("granted", "express")),
        ("UNSUBSCRIBED", "SINGLE_OPT_IN", ("withdrawn", "request")),
        *((state, None, None) for state in ("PENDING", "NOT_SUBSCRIBED", "INVALID", "REDACTED", "NEW_STATE")),
    ],
)
def test_consent(state: str, level: str | None, fact: tuple[str, str] | None) -> None:
    address = {"emailAddress": "a@example.com", "marketingState": state, "marketingOptInLevel": level}
    node = {"id": "gid://shopify/Customer/1", "defaultEmailAddress": address}
    body = json.dumps({"data": {"customers": {"nodes": [node]}}}).encode()
    (row,) = opened("https://atlas.example.com", Naps()).parse("customers", body)
    assert isinstance(row, CustomerRow)
    assert [(c.status, c.basis) for c in row.consents] == ([fact] if fact else [])
