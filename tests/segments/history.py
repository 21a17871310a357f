"""Histories of orders for tests, and what segments they make, computed the obvious slow way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, delete, insert, select

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import customer_metrics, customers, metadata, orders, refunds, segment_members
from lifecycle.segments.members import members
from lifecycle.settings import Config

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
PUBLISHED = (
    "recency_days", "frequency", "monetary_minor", "r", "f", "m", "rfm_segment", "first_order_at", "last_order_at",
    "orders_12m", "spend_12m_minor",
)  # fmt: skip
"""Columns of the export that the oracle knows."""


@dataclass(frozen=True)
class Order:
    """One order; `refund` of it is given back at `refunded_at`. A return has a negative total."""

    customer: int | None
    at: datetime
    total: int
    status: str = "paid"
    shop: str = "atlas"
    refund: int = 0
    refunded_at: datetime | None = None


def clear(engine: Engine) -> None:
    with writing(engine) as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(delete(table))


def add_customers(engine: Engine, ids: Iterable[int]) -> None:
    rows = [{"customer_id": i, "seed": i, "first_seen_at": NOW, "updated_at": NOW} for i in ids]
    with writing(engine) as connection:
        connection.execute(insert(customers), rows)


def add_orders(engine: Engine, history: Sequence[Order], first_key: int = 1) -> None:
    """`first_key` numbers them on, when more come later."""
    if not history:
        return
    numbered = list(enumerate(history, start=first_key))
    bought = [
        {
            "order_key": key,
            "shop": order.shop,
            "order_id": str(key),
            "customer_id": order.customer,
            "ordered_at": order.at,
            "updated_at": order.at,
            "status": order.status,
            "currency": "EUR",
            "total_minor": order.total,
            "total_base_minor": order.total,
            "refunded_minor": order.refund,
            "refunded_base_minor": order.refund,
            "line_count": 1,
            "content_hash": str(key),
            "landed_at": NOW,
        }
        for key, order in numbered
    ]
    given_back = [
        {
            "order_key": key,
            "refund_id": "1",
            "refunded_at": order.refunded_at,
            "amount_minor": order.refund,
            "amount_base_minor": order.refund,
        }
        for key, order in numbered
        if order.refunded_at is not None
    ]
    with writing(engine) as connection:
        connection.execute(insert(orders), bought)
        if given_back:
            connection.execute(insert(refunds), given_back)


def expected(config: Config, history: Sequence[Order], as_of: datetime) -> dict[int, dict[str, Any]]:
    """customer to the columns of the export, and `last_shop`; `segments` is a set."""
    people = {
        customer: found
        for customer in sorted({order.customer for order in history if order.customer is not None})
        if (found := _metrics([order for order in history if order.customer == customer], as_of))
    }
    for score, column, sign in (("r", "recency_days", -1), ("f", "frequency", 1), ("m", "monetary_minor", 1)):
        for person in people.values():
            worse = sum(sign * other[column] < sign * person[column] for other in people.values())
            person[score] = 1 + sum(5 * worse >= i * len(people) for i in (1, 2, 3, 4))
    for person in people.values():
        cell = config.recipe.cells[person["r"], person["f"], person["m"]]
        person["rfm_segment"] = cell
        person["segments"] = {cell} | _rules(config, person, people, as_of)
    return people


def _metrics(history: Sequence[Order], as_of: datetime) -> dict[str, Any] | None:
    seen = [order for order in history if order.at <= as_of]
    counted, spend, gross = [], [], 0
    for order in seen:
        later = order.refund if order.refunded_at is not None and order.refunded_at > as_of else 0
        if order.status == "returned":
            spend.append((order.at, order.total))
        elif order.total > 0 and (order.status == "paid" or (order.status == "refunded" and later)):
            counted.append((order.at, order.shop))
            spend.append((order.at, order.total - order.refund + later))
            gross += order.total
        elif order.status == "refunded":
            gross += order.total
    if not counted:
        return None
    year_ago = as_of - timedelta(days=365)
    last_order_at, last_shop = max(counted)
    monetary = sum(amount for _, amount in spend)
    return {
        "first_order_at": min(counted)[0],
        "last_order_at": last_order_at,
        "previous_order_at": max((at for at, _ in counted if at < last_order_at), default=None),
        "last_shop": last_shop,
        "recency_days": (as_of - last_order_at).days,
        "frequency": len(counted),
        "order_days": len({at.date() for at, _ in counted}),
        "order_lines": len(counted),
        "gross_minor": gross,
        "refunded_minor": gross - monetary,
        "monetary_minor": monetary,
        "orders_12m": sum(at > year_ago for at, _ in counted),
        "spend_12m_minor": sum(amount for at, amount in spend if at > year_ago),
        "last_messaged_at": None,
        "last_opened_at": None,
        "last_clicked_at": None,
    }


def _rules(config: Config, person: dict[str, Any], people: dict[int, dict[str, Any]], as_of: datetime) -> set[str]:
    rules = config.segments_file.segments
    buyers = [other["spend_12m_minor"] for other in people.values() if other["orders_12m"]]
    ahead = sum(spend > person["spend_12m_minor"] for spend in buyers)
    holds = {
        "new": person["first_order_at"] >= as_of - timedelta(days=rules["new"].days),
        "one_time": person["frequency"] == 1,
        "vip": person["orders_12m"] and ahead < Decimal(str(rules["vip"].top_share)) * len(buyers),
        "high_value": person["spend_12m_minor"] > rules["high_value"].spend_12m * 100,
        "dormant": person["last_order_at"] < as_of - timedelta(days=rules["dormant"].days),
    }
    return {name for name, yes in holds.items() if yes}


def stored_metrics(engine: Engine) -> dict[int, dict[str, Any]]:
    with reading(engine) as connection:
        rows = connection.execute(select(customer_metrics)).mappings()
        return {row["customer_id"]: {k: v for k, v in row.items() if k != "customer_id"} for row in rows}


def members_at(engine: Engine, config: Config, as_of: datetime) -> dict[str, set[int]]:
    with reading(engine) as connection:
        return {s: set(connection.execute(members(s, as_of)).scalars()) for s in config.segment_names}


def expected_members(config: Config, history: Sequence[Order], as_of: datetime) -> dict[str, set[int]]:
    people = expected(config, history, as_of)
    return {s: {c for c, person in people.items() if s in person["segments"]} for s in config.segment_names}


def spans(engine: Engine) -> list[tuple[str, int, datetime, datetime | None]]:
    with reading(engine) as connection:
        return sorted(tuple(row) for row in connection.execute(select(segment_members)))  # type: ignore[type-var]
