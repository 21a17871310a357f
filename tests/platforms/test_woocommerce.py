from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from lifecycle.errors import PlatformBusy, PlatformRejected
from lifecycle.platforms import open_platform, woocommerce
from lifecycle.platforms.base import Platform, Window
from lifecycle.platforms.records import CustomerRow, OrderRow
from lifecycle.settings import ROOT, load_config
from lifecycle.settings.models import Pulling
from sandbox.faults import Faults
from sandbox.stock import Stock
from sandbox.woocommerce import create_app
from tests.contracts.platform import END, Naps, PlatformContract, key

SOME = Window(datetime(2026, 8, 20, 1, 2, 3, 500_000, tzinfo=UTC), END)


class TestWooCommerce(PlatformContract):
    shop_name = "harbour"
    token = "ck_right:cs_right"
    windowed = ("orders",)

    @classmethod
    def create_app(cls, stock: Stock, faults: Faults, naps: Naps) -> ASGIApp:
        return create_app(stock.path, "harbour", cls.token, faults=faults)

    @classmethod
    def shown_name(cls) -> str:
        return "WooCommerce"

    def test_no_row_is_lost_when_rows_change_while_we_read(self, own_platform: Platform, own_stock: Stock) -> None:
        wanted = self.stored(own_stock, "orders")
        oldest_first = iter(sorted(wanted, key=int))
        found: list[str] = []
        for page in own_platform.pages("orders", Window(None, END)):
            found.extend(map(key, own_platform.parse("orders", page.body)))
            changed = next(oldest_first)
            own_stock.refund("harbour", int(changed), 1, END + timedelta(minutes=1))
            wanted.pop(changed)
        assert wanted
        assert set(wanted) <= set(found)


def opened(answer: Callable[[httpx.Request], httpx.Response] | None = None) -> Platform:
    shop = load_config(ROOT / "config", env={}).shop("harbour")
    transport = httpx.MockTransport(answer) if answer else None
    pulling = Pulling(page_size=250, max_attempts=2)
    return open_platform(shop, pulling, {"TERN_HARBOUR_TOKEN": "ck:cs"}, transport=transport, sleep=Naps())


def test_what_is_asked_for() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json=[], headers={"X-WP-TotalPages": "0"})

    for entity in ("orders", "customers"):
        assert [page.rows for page in opened(answer).pages(entity, SOME)] == [0]
    orders, customers = asked
    assert str(orders.url).startswith("https://harbour.example.com/wp-json/wc/v3/orders?")
    assert dict(orders.url.params) == {
        "per_page": "100",
        "page": "1",
        "orderby": "id",
        "order": "asc",
        "status": "any",
        "dates_are_gmt": "true",
        "modified_after": "2026-08-20T01:02:03",
        "modified_before": "2026-11-22T00:00:00",
    }
    assert "modified_after" not in customers.url.params
    assert customers.url.params["role"] == "all"
    assert orders.headers["Authorization"] == httpx.BasicAuth("ck", "cs")._auth_header


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>maintenance</html>", headers={"X-WP-TotalPages": "1"}),
        httpx.Response(200, json={"code": "odd"}, headers={"X-WP-TotalPages": "1"}),
        httpx.Response(200, json=[]),
    ],
)
def test_an_answer_that_is_no_page_is_busy(answer: httpx.Response) -> None:
    with pytest.raises(PlatformBusy, match="shop harbour: WooCommerce's answer was cut or is not JSON"):
        list(opened(lambda _request: answer).pages("orders", SOME))


def test_a_shop_without_the_api_is_rejected() -> None:
    body = {"code": "rest_no_route", "message": "No route", "data": {"status": 404}}
    with pytest.raises(PlatformRejected, match=r"there is no WooCommerce API at https://harbour.example.com"):
        list(opened(lambda _request: httpx.Response(404, json=body)).pages("orders", SOME))


def order(**changes: Any) -> OrderRow:
    node = {
        "id": 727,
        "status": "processing",
        "currency": "GBP",
        "date_created": "2026-07-22T16:28:02",
        "date_created_gmt": "2026-07-22T15:28:02",
        "date_modified_gmt": "2026-07-22T15:28:08",
        "date_paid_gmt": None,
        "total": "29.35",
        "customer_id": 0,
        "billing": {"first_name": "Ann", "last_name": "Lee", "country": "GB", "email": "ann@example.com"},
    }
    (row,) = opened().parse("orders", json.dumps([{**node, **changes}]).encode())
    assert isinstance(row, OrderRow)
    return row


def test_a_guest_has_an_address_and_no_id() -> None:
    row = order()
    assert (row.customer_id, row.email, row.name, row.country) == (None, "ann@example.com", "Ann Lee", "GB")
    assert row.ordered_at == datetime(2026, 7, 22, 15, 28, 2, tzinfo=UTC)
    assert row.paid_at is None


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        *(({"status": word}, status) for word, status in woocommerce.STATUSES.items()),
        ({"total": "-5.00"}, "returned"),
        ({"status": "awaiting-shipment"}, "awaiting-shipment"),
        ({"status": None}, None),
    ],
)
def test_statuses(changes: dict[str, Any], status: str | None) -> None:
    assert order(**changes).status == status


@pytest.mark.parametrize(
    ("billing", "shipping", "sent_to", "lives_in"),
    [
        ({"country": "US", "state": "NY"}, {"country": "US", "state": "CA"}, ("US", "CA"), ("US", "NY")),
        ({"country": "US", "state": "NY"}, {"country": "FR", "state": ""}, ("FR", None), ("US", "NY")),
        ({"country": "US", "state": "NY"}, {"country": "", "state": "ON"}, ("US", "NY"), ("US", "NY")),
        ({}, {"country": "CA", "state": "ON"}, ("CA", "ON"), ("CA", "ON")),
        ({"state": "NY"}, None, (None, "NY"), (None, None)),
    ],
)
def test_a_region_comes_from_the_same_address_as_its_country(
    billing: Any, shipping: Any, sent_to: tuple[str | None, ...], lives_in: tuple[str | None, ...]
) -> None:
    addresses = {"billing": billing, "shipping": shipping}
    row = order(**addresses)
    assert (row.country, row.region) == sent_to
    (person,) = opened().parse("customers", json.dumps([{"id": 1, **addresses}]).encode())
    assert isinstance(person, CustomerRow)
    assert (person.country, person.region) == lives_in


def test_lines_keep_the_exact_price_and_fall_back_to_the_product_id() -> None:
    lines = [{"name": "Tea", "product_id": 93, "sku": "", "quantity": 3, "price": 0.1}]
    (line,) = order(line_items=lines).lines
    assert (line.sku, line.quantity, line.unit_price) == ("93", 3, Decimal("0.1"))


def test_refunds_are_positive_and_dated_by_the_order() -> None:
    row = order(refunds=[{"id": 1, "reason": "", "total": "-10.00"}, {"id": 2, "total": "-0.35"}])
    assert row.refunded == Decimal("10.35")
    assert [(r.refund_id, r.amount, r.refunded_at) for r in row.refunds] == [
        ("1", Decimal("10.00"), row.updated_at),
        ("2", Decimal("0.35"), row.updated_at),
    ]


def test_the_language_comes_from_wpml() -> None:
    assert order(meta_data=[{"key": "wpml_language", "value": "fr"}]).locale == "fr"


@pytest.mark.parametrize(
    ("said", "at", "fact"),
    [
        ("yes", "2026-07-01T12:00:00", ("granted", "express", datetime(2026, 7, 1, 11, tzinfo=UTC))),
        ("1", "2026-07-01T12:00:00+02:00", ("granted", "express", datetime(2026, 7, 1, 10, tzinfo=UTC))),
        ("No", None, ("withdrawn", "request", None)),
        ("maybe", None, None),
        ("", None, None),
    ],
)
def test_consent(said: str, at: str | None, fact: tuple[Any, ...] | None) -> None:
    meta = [{"key": "newsletter_opt_in", "value": said}, {"key": "newsletter_opt_in_at", "value": at}]
    (row,) = opened().parse("customers", json.dumps([{"id": 7, "meta_data": meta}]).encode())
    assert isinstance(row, CustomerRow)
    assert [(c.status, c.basis, c.occurred_at) for c in row.consents] == ([fact] if fact else [])


def test_a_value_that_cannot_be_read_is_none_and_kept_raw() -> None:
    row = order(total="many", date_created_gmt="yesterday", billing=None, line_items="none", refunds=[None])
    assert (row.total, row.ordered_at, row.lines, row.refunds) == (None, None, [], [])
    assert row.raw["total"] == "many"
