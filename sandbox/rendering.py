"""Orders and customers as each platform writes them: the JSON that the stand-in shops store and serve.

Only fields that the project's connectors ask for, plus what gives them their usual shape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sandbox.inputs import PRICE_UNIT
from sandbox.people import Person, pick
from sandbox.shops import ShopStand


class Line(NamedTuple):
    sku: str
    title: str
    quantity: int
    price: int
    """Of one piece, in PRICE_UNIT."""


@dataclass(frozen=True)
class Order:
    order_id: int
    number: str
    """The order's name in the input."""
    ordered_at: datetime
    """Aware UTC."""
    customer_id: int | None
    person: Person | None
    email: str | None
    country: str | None
    status: str
    lines: Sequence[Line]

    @property
    def total_cents(self) -> int:
        return round(sum(line.quantity * line.price for line in self.lines) / (PRICE_UNIT // 100))


@dataclass(frozen=True)
class Customer:
    customer_id: int
    person: Person
    created_at: datetime
    updated_at: datetime
    consent: str | None
    """subscribed or unsubscribed; None: never asked."""


def order_json(shop: ShopStand, order: Order) -> str:
    return _shopify_order(shop, order) if shop.platform == "shopify" else _woocommerce_order(shop, order)


def customer_json(shop: ShopStand, customer: Customer) -> str:
    render = _shopify_customer if shop.platform == "shopify" else _woocommerce_customer
    return json.dumps(render(shop, customer), ensure_ascii=False)


def lines_of(shop: ShopStand, stored: str) -> list[Line]:
    """The lines of a rendered order."""
    order = json.loads(stored)
    if shop.platform == "shopify":
        return [
            Line(
                item["sku"],
                item["title"],
                item["quantity"],
                _units(item["originalUnitPriceSet"]["shopMoney"]["amount"]),
            )
            for item in order["lineItems"]
        ]
    return [
        Line(item["sku"], item["name"], item["quantity"], _units(item["price"])) for item in order["line_items"]
    ]


def refunded_json(shop: ShopStand, stored: str, *, refund_id: int, cents: int, at: datetime) -> str:
    """The same order after `cents` of it were paid back."""
    order = json.loads(stored)
    if shop.platform == "shopify":
        refund = {
            "id": f"gid://shopify/Refund/{refund_id}",
            "processedAt": _zulu(at),
            "totalRefundedSet": _bag(shop, cents),
        }
        before = Decimal(order["totalRefundedSet"]["shopMoney"]["amount"])
        whole = before + Decimal(cents) / 100 >= Decimal(order["totalPriceSet"]["shopMoney"]["amount"])
        order["refunds"].append(refund)
        order["totalRefundedSet"] = _bag(shop, int(before * 100) + cents)
        order["displayFinancialStatus"] = "REFUNDED" if whole else "PARTIALLY_REFUNDED"
        order["updatedAt"] = _zulu(at)
    else:
        order["refunds"].append({"id": refund_id, "reason": "", "total": f"-{_cents(cents)}"})
        paid_back = -sum(Decimal(refund["total"]) for refund in order["refunds"])
        if paid_back >= Decimal(order["total"]):
            order["status"] = "refunded"
        order |= _dates("modified", at, ZoneInfo(shop.timezone))
    return json.dumps(order, ensure_ascii=False)


_FINANCIAL = {"open": "PENDING", "paid": "PAID", "refunded": "REFUNDED", "cancelled": "VOIDED", "returned": "PAID"}
_WOO_STATUS = {
    "open": "pending",
    "paid": "completed",
    "refunded": "refunded",
    "cancelled": "cancelled",
    "returned": "completed",
}

_REGIONS: Mapping[str, Mapping[str, float]] = {
    "US": {"CA": 0.3, "TX": 0.2, "NY": 0.2, "FL": 0.15, "IL": 0.1, "HI": 0.05},
    "CA": {"ON": 0.5, "QC": 0.3, "BC": 0.2},
}
"""Made up, of countries with several clocks."""

_WAS_PAID = ("paid", "refunded", "returned")


def _shopify_order(shop: ShopStand, order: Order) -> str:
    person, at, total = order.person, _zulu(order.ordered_at), _bag(shop, order.total_cents)
    name = f"{person.first} {person.last}" if person else None
    place = {"countryCodeV2": order.country, "provinceCode": _region(person, order.country)}
    address = {"name": name, **place} if name or order.country else None
    facts: dict[str, Any] = {
        "id": f"gid://shopify/Order/{order.order_id}",
        "legacyResourceId": str(order.order_id),
        "name": f"#{order.number}",
        "createdAt": at,
        "processedAt": at,
        "updatedAt": at,
        "cancelledAt": at if order.status == "cancelled" else None,
        "displayFinancialStatus": _FINANCIAL[order.status],
        "currencyCode": shop.currency,
        "email": order.email,
        "phone": None,
        "customerLocale": person.locale if person else None,
        "customer": {"id": f"gid://shopify/Customer/{order.customer_id}"} if order.customer_id else None,
        "shippingAddress": address,
        "billingAddress": address,
        "totalPriceSet": total,
        "totalRefundedSet": total if order.status == "refunded" else _bag(shop, 0),
        "totalDiscountsSet": _bag(shop, 0),
        "totalTaxSet": _bag(shop, 0),
        "totalShippingPriceSet": _bag(shop, 0),
        "refunds": [],
    }
    # Written by hand: json.dumps of a million lines takes longer than all the rest of the stock.
    lines = ",".join(
        f'{{"id":"gid://shopify/LineItem/{order.order_id * 10_000 + number}","sku":{_quoted(line.sku)},'
        f'"title":{_quoted(line.title)},"quantity":{line.quantity},"originalUnitPriceSet":{{"shopMoney":'
        f'{{"amount":"{_amount(line.price)}","currencyCode":"{shop.currency}"}}}}}}'
        for number, line in enumerate(order.lines, start=1)
    )
    return f'{json.dumps(facts, ensure_ascii=False)[:-1]},"lineItems":[{lines}]}}'


def _shopify_customer(shop: ShopStand, customer: Customer) -> dict[str, Any]:
    person, updated_at = customer.person, _zulu(customer.updated_at)
    address = {
        "emailAddress": person.email,
        "marketingState": (customer.consent or "not_subscribed").upper(),
        "marketingOptInLevel": "SINGLE_OPT_IN" if customer.consent == "subscribed" else None,
        "marketingUpdatedAt": _consent_at(customer),
        "validFormat": True,
    }
    return {
        "id": f"gid://shopify/Customer/{customer.customer_id}",
        "legacyResourceId": str(customer.customer_id),
        "createdAt": _zulu(customer.created_at),
        "updatedAt": updated_at,
        "firstName": person.first,
        "lastName": person.last,
        "displayName": f"{person.first} {person.last}",
        "locale": person.locale,
        "tags": [],
        "verifiedEmail": True,
        "defaultEmailAddress": address if person.email else None,
        "defaultPhoneNumber": None,
        "defaultAddress": (
            {"countryCodeV2": person.country, "provinceCode": _region(person, person.country)}
            if person.country
            else None
        ),
    }


def _woocommerce_order(shop: ShopStand, order: Order) -> str:
    person, own_time, total = order.person, ZoneInfo(shop.timezone), _cents(order.total_cents)
    address = _address(person, order.country)
    facts: dict[str, Any] = {
        "id": order.order_id,
        "parent_id": 0,
        "number": order.number,
        "status": _WOO_STATUS[order.status],
        "currency": shop.currency,
        **_dates("created", order.ordered_at, own_time),
        **_dates("modified", order.ordered_at, own_time),
        **(_dates("paid", order.ordered_at, own_time) if order.status in _WAS_PAID else {}),
        "discount_total": "0.00",
        "shipping_total": "0.00",
        "total": total,
        "total_tax": "0.00",
        "prices_include_tax": True,
        "customer_id": order.customer_id or 0,
        "billing": {**address, "email": order.email or "", "phone": ""},
        "shipping": address,
        "payment_method": "card",
        "meta_data": [{"id": 1, "key": "wpml_language", "value": person.locale}] if person else [],
        "refunds": [{"id": 1, "reason": "", "total": f"-{total}"}] if order.status == "refunded" else [],
    }
    lines = ",".join(
        f'{{"id":{order.order_id * 10_000 + number},"name":{_quoted(line.title)},"product_id":0,'
        f'"variation_id":0,"quantity":{line.quantity},"subtotal":"{_amount(line.price * line.quantity)}",'
        f'"total":"{_amount(line.price * line.quantity)}","total_tax":"0.00","sku":{_quoted(line.sku)},'
        f'"price":{_amount(line.price)}}}'
        for number, line in enumerate(order.lines, start=1)
    )
    return f'{json.dumps(facts, ensure_ascii=False)[:-1]},"line_items":[{lines}]}}'


def _woocommerce_customer(shop: ShopStand, customer: Customer) -> dict[str, Any]:
    person, own_time = customer.person, ZoneInfo(shop.timezone)
    address = _address(person, person.country)
    said = [("wpml_language", person.locale)]
    if customer.consent:
        said.append(("newsletter_opt_in", "yes" if customer.consent == "subscribed" else "no"))
        said.append(("newsletter_opt_in_at", _consent_at(customer) or ""))
    return {
        "id": customer.customer_id,
        **_dates("created", customer.created_at, own_time),
        **_dates("modified", customer.updated_at, own_time),
        "email": person.email or "",
        "first_name": person.first,
        "last_name": person.last,
        "role": "customer",
        "billing": {**address, "email": person.email or "", "phone": ""},
        "shipping": address,
        "is_paying_customer": True,
        "meta_data": [{"id": i, "key": key, "value": value} for i, (key, value) in enumerate(said, start=1)],
    }


def _address(person: Person | None, country: str | None) -> dict[str, str]:
    return {
        "first_name": person.first if person else "",
        "last_name": person.last if person else "",
        "country": country or "",
        "state": _region(person, country) or "",
    }


def _region(person: Person | None, country: str | None) -> str | None:
    """Where in the country; the same for all orders of a person."""
    shares = _REGIONS.get(country or "")
    return pick(f"{person.first} {person.last} {person.email}", "region", shares) if person and shares else None


def _consent_at(customer: Customer) -> str | None:
    """People subscribe with their first order and unsubscribe after their last."""
    if customer.consent is None:
        return None
    return _zulu(customer.created_at if customer.consent == "subscribed" else customer.updated_at)


def _bag(shop: ShopStand, cents: int) -> dict[str, Any]:
    return {"shopMoney": {"amount": _cents(cents), "currencyCode": shop.currency}}


def _cents(cents: int) -> str:
    return _amount(cents * (PRICE_UNIT // 100))


def _amount(units: int) -> str:
    """`6.95`, `-0.10`, `0.001`: two decimals, more where they are needed."""
    sign, (whole, rest) = "-" if units < 0 else "", divmod(abs(units), PRICE_UNIT)
    decimals = f"{rest:04}"
    return f"{sign}{whole}.{decimals[:2]}{decimals[2:].rstrip('0')}"


def _units(amount: str | float) -> int:
    return int((Decimal(str(amount)) * PRICE_UNIT).to_integral_value())


@lru_cache(maxsize=100_000)
def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _zulu(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _dates(name: str, moment: datetime, own_time: ZoneInfo) -> dict[str, str]:
    """WooCommerce's pair: the site's own time and UTC, both without an offset."""
    return {
        f"date_{name}": f"{moment.astimezone(own_time):%Y-%m-%dT%H:%M:%S}",
        f"date_{name}_gmt": f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
    }
