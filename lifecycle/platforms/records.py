"""What every platform's rows become before they are checked: one shape, whatever the source.

Reading is forgiving: a value that cannot be understood is None here and stands untouched in `raw`, so that the
check can reject the row with a reason and the quarantine can keep it whole. Instants are aware UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

STATUSES = ("open", "paid", "refunded", "cancelled", "returned")
"""`open` is not paid yet; `refunded` paid back in full; `returned` a return booked as an order of its own."""


@dataclass(slots=True)
class LineRow:
    sku: str | None
    title: str | None
    quantity: int | None
    unit_price: Decimal | None
    category: str | None = None


@dataclass(slots=True)
class RefundRow:
    refund_id: str
    refunded_at: datetime | None
    amount: Decimal | None


@dataclass(slots=True)
class OrderRow:
    order_id: str | None
    customer_id: str | None
    """The platform's id of the customer; None for a guest."""
    ordered_at: datetime | None
    updated_at: datetime | None
    status: str | None
    """One of STATUSES; anything else is the platform's own word and is rejected by the check."""
    currency: str | None
    total: Decimal | None
    refunded: Decimal = Decimal(0)
    discount: Decimal = Decimal(0)
    tax: Decimal = Decimal(0)
    shipping: Decimal = Decimal(0)
    email: str | None = None
    phone: str | None = None
    name: str | None = None
    country: str | None = None
    region: str | None = None
    """Subdivision of `country`, from the same address: CA of US-CA."""
    locale: str | None = None
    paid_at: datetime | None = None
    shipped_at: datetime | None = None
    delivered_at: datetime | None = None
    lines: list[LineRow] = field(default_factory=list)
    refunds: list[RefundRow] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    input_lines: int = 1
    """Lines of the input that this row was made from: a file of order lines has several per order."""
    raw: Any = None


@dataclass(slots=True)
class ConsentFact:
    channel: str
    topic: str
    status: str
    """granted or withdrawn."""
    basis: str
    occurred_at: datetime | None
    """When the person said so; None where the platform does not know."""
    source: str
    wording: str | None = None
    evidence: str | None = None
    expires_at: datetime | None = None
    first_hand: bool = False
    """The shop's own note of what the person did there, not a list that somebody keeps. Only such a grant can lift
    an unsubscribe."""


@dataclass(slots=True)
class CustomerRow:
    customer_id: str | None
    email: str | None
    updated_at: datetime | None
    created_at: datetime | None = None
    phone: str | None = None
    name: str | None = None
    country: str | None = None
    region: str | None = None
    """Subdivision of `country`, from the same address: CA of US-CA."""
    timezone: str | None = None
    """IANA name, where the person or shop says it."""
    locale: str | None = None
    email_verified: bool = True
    tags: list[str] = field(default_factory=list)
    consents: list[ConsentFact] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    raw: Any = None


Row = OrderRow | CustomerRow
