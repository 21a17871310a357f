"""What the ledger hands to the composer, and what the composer hands to a channel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipient:
    """One row of `messages` with what is known about the person now."""

    message_id: int
    plan_id: int
    what: str
    customer_id: int
    channel: str
    purpose: str
    shop: str
    template: str
    locale: str
    address: str | None
    """As the platform gave it; None where it is unknown or erased."""
    name: str | None
    country: str | None = None
    """ISO 3166-1 alpha-2: its law may want a mark in the subject."""


@dataclass(frozen=True)
class Mail:
    """Ready to leave. Envelope addresses are ASCII; `message_id` is the header, with its angle brackets."""

    envelope_from: str
    envelope_to: str
    message_id: str
    content: bytes


@dataclass(frozen=True)
class Rendered:
    """`html` and `text` still have their links as the template writes them."""

    subject: str
    html: str
    text: str
