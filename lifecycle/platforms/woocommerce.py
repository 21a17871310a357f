"""WooCommerce REST API v3: https://woocommerce.github.io/woocommerce-rest-api-docs/

A kept page is one answer, a JSON list of orders or customers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx

from lifecycle.platforms.base import Page, Window
from lifecycle.platforms.calling import Caller
from lifecycle.platforms.reading import amount, dig, instant, next_second, objects, text, whole
from lifecycle.platforms.records import ConsentFact, CustomerRow, LineRow, OrderRow, RefundRow, Row
from lifecycle.settings.models import Shop, zone

STATUSES = {  # https://woocommerce.com/document/managing-orders/order-statuses/
    "checkout-draft": "open",
    "pending": "open",
    "on-hold": "open",
    "processing": "paid",
    "completed": "paid",
    "refunded": "refunded",
    "cancelled": "cancelled",
    "failed": "cancelled",
    "trash": "cancelled",
}

CONSENTS = {"yes": "granted", "1": "granted", "no": "withdrawn", "0": "withdrawn"}
"""What check-out plugins write into the meta field that config/shops.yaml names as consent_field."""

LARGEST_PAGE = 100
"""WordPress refuses a per_page above it."""

_LOCALE_FIELD = "wpml_language"
"""WooCommerce itself knows no language; WPML, the usual plugin for shops with several, writes it here."""


class WooCommerce:
    name = "woocommerce"
    entities: Sequence[str] = ("customers", "orders")

    def __init__(self, caller: Caller, url: str, token: str) -> None:
        """`token` is `consumer_key:consumer_secret`.

        It travels as HTTP Basic, which WooCommerce takes over HTTPS only; plain HTTP would need OAuth 1.0a. The
        exception is a shop on this machine (check_url lets no other http:// through): a stand-in or a
        development site whose proxy tells WordPress that the request was secure.
        """
        self._caller = caller
        self._base = f"{url}/wp-json/wc/v3"
        key, _, secret = token.partition(":")
        self._auth = httpx.BasicAuth(key, secret)

    def pages(self, entity: str, window: Window) -> Iterator[Page]:
        """Pages from the last to the first.

        Pages are counted, there are no cursors. A row that changes while we read leaves the window, and every
        row after it moves up by one: reading forwards, the first row of the next page would be skipped. Reading
        backwards, rows only ever move into pages still to be read, so that at worst one comes twice. Rows cannot
        enter before the place where we read: ids grow, and `until` lies in the past.

        Customers have no filter by date: each pull reads them all, and their content hash tells who changed.
        """
        asked = {"per_page": min(self._caller.pulling.page_size, LARGEST_PAGE), "orderby": "id", "order": "asc"}
        asked |= _changed(window) if entity == "orders" else {"role": "all"}
        with self._caller.client() as client:
            first, last_page = self._get(client, entity, asked, 1)
            for number in range(last_page, 1, -1):
                yield self._get(client, entity, asked, number)[0]
            yield self._get(client, entity, asked, 1)[0] if last_page > 1 else first

    def parse(self, entity: str, body: bytes) -> list[Row]:
        nodes = objects(json.loads(body))
        if entity == "orders":
            return [_order(node) for node in nodes]
        return [_customer(node, self._caller.shop) for node in nodes]

    def _get(self, client: httpx.Client, entity: str, asked: Mapping[str, Any], number: int) -> tuple[Page, int]:
        """Page `number` and how many there are."""

        def get() -> tuple[Page, int]:
            response = self._caller.send(
                client, "GET", f"{self._base}/{entity}", params={**asked, "page": number}, auth=self._auth
            )
            rows, pages = self._caller.decode(response), whole(response.headers.get("X-WP-TotalPages"))
            if not isinstance(rows, list) or pages is None:
                raise self._caller.cut()
            return Page(response.content, len(rows)), pages

        return self._caller.attempt(get)


def _changed(window: Window) -> dict[str, Any]:
    """The half-open window as WooCommerce understands it: both of its ends are excluded, seconds are whole.

    Dates go without a `Z`: WordPress would turn them into the site's time, although they are compared in UTC.
    """
    asked: dict[str, Any] = {
        "status": "any",
        "dates_are_gmt": "true",
        "modified_before": f"{next_second(window.until):%Y-%m-%dT%H:%M:%S}",
    }
    if window.since is not None:
        asked["modified_after"] = f"{next_second(window.since) - timedelta(seconds=1):%Y-%m-%dT%H:%M:%S}"
    return asked


def _order(node: dict[str, Any]) -> OrderRow:
    total, updated_at = amount(node.get("total")), _gmt(node, "date_modified_gmt")
    refunds = [_refund(refund, updated_at) for refund in objects(node.get("refunds"))]
    bill_to, ship_to, customer_id = node.get("billing"), node.get("shipping"), text(node.get("customer_id"))
    goes_to = ship_to if text(dig(ship_to, "country")) else bill_to
    return OrderRow(
        order_id=text(node.get("id")),
        customer_id=None if customer_id == "0" else customer_id,
        ordered_at=_gmt(node, "date_created_gmt"),
        updated_at=updated_at,
        status=_status(text(node.get("status")), total),
        currency=text(node.get("currency")),
        total=total,
        refunded=sum((refund.amount for refund in refunds if refund.amount is not None), Decimal(0)),
        discount=amount(node.get("discount_total")) or Decimal(0),
        tax=amount(node.get("total_tax")) or Decimal(0),
        shipping=amount(node.get("shipping_total")) or Decimal(0),
        email=text(dig(bill_to, "email")),
        phone=text(dig(bill_to, "phone")),
        name=_name(bill_to),
        country=text(dig(goes_to, "country")),
        region=text(dig(goes_to, "state")),
        locale=text(_meta(node, _LOCALE_FIELD)),
        paid_at=_gmt(node, "date_paid_gmt"),
        lines=[_line(line) for line in objects(node.get("line_items"))],
        refunds=refunds,
        attributes={"number": node["number"]} if text(node.get("number")) else {},
        raw=node,
    )


def _status(word: str | None, total: Decimal | None) -> str | None:
    status = STATUSES.get(word, word) if word else None
    return "returned" if status == "paid" and total is not None and total < 0 else status


def _line(node: Mapping[str, Any]) -> LineRow:
    return LineRow(
        sku=text(node.get("sku")) or text(node.get("product_id")),  # a sku is optional in WooCommerce
        title=text(node.get("name")),
        quantity=whole(node.get("quantity")),
        unit_price=amount(node.get("price")),
    )


def _refund(node: Mapping[str, Any], updated_at: datetime | None) -> RefundRow:
    """From the summary inside the order: its total is negative, and it has no date. A refund changes the order,
    so the order's last change is the nearest instant known without one more request per refunded order."""
    total = amount(node.get("total"))
    return RefundRow(text(node.get("id")) or "?", updated_at, -total if total is not None else None)


def _customer(node: dict[str, Any], shop: Shop) -> CustomerRow:
    bill_to, ship_to, customer_id = node.get("billing"), node.get("shipping"), text(node.get("id"))
    lives_at = bill_to if text(dig(bill_to, "country")) else ship_to
    return CustomerRow(
        customer_id=customer_id,
        email=text(node.get("email")) or text(dig(bill_to, "email")),
        updated_at=_gmt(node, "date_modified_gmt") or _gmt(node, "date_created_gmt"),
        created_at=_gmt(node, "date_created_gmt"),
        phone=text(dig(bill_to, "phone")),
        name=_name(node) or _name(bill_to),
        country=text(dig(lives_at, "country")),
        region=text(dig(lives_at, "state")),
        locale=text(_meta(node, _LOCALE_FIELD)),
        consents=_consents(node, customer_id, shop) if shop.consent_field else [],
        raw=node,
    )


def _consents(node: Mapping[str, Any], customer_id: str | None, shop: Shop) -> list[ConsentFact]:
    field, said = shop.consent_field, text(_meta(node, shop.consent_field))
    status = CONSENTS.get(said.lower()) if said else None
    if status is None:
        return []
    return [
        ConsentFact(
            channel="email",
            topic="promotions",
            status=status,
            basis="express" if status == "granted" else "request",
            occurred_at=instant(_meta(node, f"{field}_at"), zone(shop.timezone)),
            source="woocommerce",
            evidence=f"customer {customer_id}: meta field {field} {said}",
            first_hand=True,
        )
    ]


def _meta(node: Mapping[str, Any], key: str) -> Any:
    return next((item.get("value") for item in objects(node.get("meta_data")) if item.get("key") == key), None)


def _name(node: Any) -> str | None:
    return " ".join(filter(None, (text(dig(node, "first_name")), text(dig(node, "last_name"))))) or None


def _gmt(node: Mapping[str, Any], name: str) -> datetime | None:
    """`…_gmt` dates carry no offset and are UTC."""
    return instant(node.get(name), UTC)
