"""What was reported, whoever reported it, in our words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from lifecycle.channels.base import BounceClass

Kind = Literal["delivered", "bounced", "complained", "unsubscribed", "opened", "notice", "unclear"]
"""notice: nothing to write down, such as a delay or an out-of-office answer; it only shows that the peer took the
message. unclear: kept for a person to look at."""


@dataclass(frozen=True, slots=True)
class Report:
    """Something that is said of one message. `occurred_at`: aware UTC.

    message_id: as a token, a key or a signature of ours proves it. provider_id: second way to the message.
    named: hashes of the addresses that the report is about; empty where it names none. A bounce counts only for
    the address that the message went to. key: of the report itself, the same when it comes again.
    """

    kind: Kind
    source: str
    occurred_at: datetime
    message_id: int | None = None
    provider_id: str | None = None
    named: tuple[str, ...] = ()
    bounce: BounceClass | None = None
    status: str = ""
    text: str = ""
    """The peer's words, without addresses."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True, slots=True)
class Inbound:
    """A person wrote to us. `channel`: a kind of channel."""

    channel: str
    address_hash: str
    received_at: datetime
    key: str


@dataclass(frozen=True, slots=True)
class Stop:
    """A person has told a messenger that they want no more marketing of ours."""

    channel: str
    address_hash: str
    occurred_at: datetime
    evidence: str


Entry = Report | Inbound | Stop
