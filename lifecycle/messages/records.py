"""What the ledger hands to the composer, and what the composer hands to a channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
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
    """Where the channel writes to: e-mail address, telephone number (E.164), the platform's id of the buyer; as it
    was given; None where it is unknown or erased."""
    name: str | None
    country: str | None = None
    """ISO 3166-1 alpha-2: its law may want a mark in the subject."""
    order_id: str | None = None
    """The platform's id of the order that a message on a platform is about: the newest, or the one to be asked
    about."""


@dataclass(frozen=True, slots=True)
class Mail:
    """For SMTP. Envelope addresses are ASCII; `key` is the Message-ID, with its angle brackets."""

    send_id: int
    """`messages.message_id`."""
    key: str
    envelope_from: str
    envelope_to: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Letter:
    """For the HTTP interface of an e-mail service, which writes the mail itself.

    `headers`: further ones, in order, as in the mail: List-Unsubscribe, Feedback-ID, X-Send-ID and so on.
    `personal`: pieces of subject, html, text and headers, as they stand there, that no other recipient has: the
    name, tokens, addresses with tokens. Without them, mails of one template differ only in what it says to some.
    """

    send_id: int
    key: str
    envelope_from: str
    to: str
    sender_name: str
    sender_address: str
    reply_to: str
    subject: str
    html: str
    text: str
    headers: tuple[tuple[str, str], ...]
    personal: tuple[str, ...]
    what: str
    purpose: str
    shop: str


@dataclass(frozen=True, slots=True)
class Note:
    """For messengers and platforms. `key`: idempotency key, the same whenever it is sent.

    `to`: telephone number (E.164), the platform's id of the buyer. `extras`: what else the template says, by the
    channel's own names, for example message_type or coupon_id.
    """

    send_id: int
    key: str
    to: str
    order_id: str | None
    purpose: str
    what: str
    shop: str
    language: str
    title: str = ""
    text: str = ""
    template: str = ""
    """The name under which the platform has approved it."""
    parameters: tuple[str, ...] = ()
    extras: Mapping[str, str] = field(default_factory=dict)


Outgoing = Mail | Letter | Note


@dataclass(frozen=True, slots=True)
class Sent:
    """A message whose answer is not known, to be looked up at the channel. `sent_at`: when its bytes began to
    leave, aware UTC. `to`: None where the person has no such address any more. `text`: of a note, where it can be
    made again; empty where not."""

    send_id: int
    key: str
    to: str | None
    order_id: str | None
    sent_at: datetime
    text: str = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """`html` and `text` still have their links as the template writes them."""

    subject: str
    html: str
    text: str
