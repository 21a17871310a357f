"""What a run report holds: plain values, ready to be shown in any form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from lifecycle.db.schema import VERDICTS
from lifecycle.planning.records import TO_SEND, Slots
from lifecycle.reports.statistics import Rate
from lifecycle.tracking.rules import CLASSES

Measure = tuple[str, str]
"""What is counted and of which kind: `("verdict", "capped")`, `("opened", "proxy")`, `("orders", "")`."""

MACHINES = ("prefetch", "scanner")


@dataclass(frozen=True)
class Figures:
    """Counts of people, messages, orders and money for one scope. What is not in `counts` is 0."""

    counts: Mapping[Measure, int]

    def of(self, what: str, kind: str = "") -> int:
        return self.counts.get((what, kind), 0)

    @property
    def verdicts(self) -> dict[str, int]:
        """Every verdict, in the order in which they are tried."""
        return {verdict: self.of("verdict", verdict) for verdict in VERDICTS}

    @property
    def audience(self) -> int:
        return sum(self.verdicts.values())

    @property
    def selected(self) -> int:
        """To be written to, those who are held until their quiet hours end among them."""
        return sum(self.of("verdict", verdict) for verdict in TO_SEND)

    @property
    def accepted(self) -> int:
        return self.of("state", "accepted")

    @property
    def refused(self) -> int:
        return self.of("state", "refused")

    @property
    def unknown(self) -> int:
        return self.of("state", "unknown")

    @property
    def held(self) -> int:
        """Reserved, and not handed over yet."""
        return self.of("state", "reserved") + self.of("state", "sending")

    @property
    def delivered(self) -> int:
        """Accepted, and not returned later. Opens, clicks, unsubscribes and orders are of these messages."""
        return self.accepted - self.of("bounced")

    @property
    def opened(self) -> dict[str, int]:
        """Messages by the class of their best open."""
        return {class_: self.of("opened", class_) for class_ in CLASSES}

    @property
    def clicked(self) -> dict[str, int]:
        return {class_: self.of("clicked", class_) for class_ in CLASSES}

    @property
    def machine_opens(self) -> int:
        return sum(self.of("opened", class_) for class_ in MACHINES)

    @property
    def machine_clicks(self) -> int:
        return sum(self.of("clicked", class_) for class_ in MACHINES)

    @property
    def unsubscribed(self) -> int:
        return self.of("unsubscribed")

    @property
    def orders(self) -> int:
        return self.of("orders")

    @property
    def revenue_minor(self) -> int:
        """Base currency, what was paid back taken off."""
        return self.of("revenue_minor")

    @property
    def rates(self) -> dict[str, Rate]:
        return {
            "delivered": Rate(self.delivered, self.accepted),
            "opened by people": Rate(self.of("opened", "person"), self.delivered),
            "opened by proxies": Rate(self.of("opened", "proxy"), self.delivered),
            "opened by machines": Rate(self.machine_opens, self.delivered),
            "clicked by people": Rate(self.of("clicked", "person"), self.delivered),
            "clicked by machines": Rate(self.machine_clicks, self.delivered),
            "unsubscribed": Rate(self.unsubscribed, self.delivered),
            "ordered": Rate(self.of("buyers"), self.delivered),
        }


@dataclass(frozen=True)
class Group:
    """One campaign, segment or language, or everything."""

    scope: str
    """total, campaign, segment or language."""
    name: str
    figures: Figures


@dataclass(frozen=True)
class Plan:
    plan_id: int
    campaign: str
    occurrence: str
    applied: bool
    audience: int


@dataclass(frozen=True)
class Why:
    """Why so many people of a campaign got nothing, or that they were selected."""

    campaign: str
    verdict: str
    rule: str | None
    people: int


@dataclass(frozen=True)
class QuotaSlots:
    """What the slots of a quota came to in one campaign's plan, for one shop, channel or sender's domain."""

    campaign: str
    slots: Slots


@dataclass(frozen=True)
class Refusal:
    campaign: str
    reason: str
    messages: int


@dataclass(frozen=True)
class LinkClicks:
    campaign: str
    url: str
    label: str | None
    people: int
    """Messages in which a person followed it."""


@dataclass(frozen=True)
class AlsoSent:
    """Mails of an earlier plan that a run sent besides its own."""

    campaign: str
    occurrence: str
    mails: int


@dataclass(frozen=True)
class Stage:
    """One execution within the run."""

    run_id: str
    name: str
    state: str
    started_at: datetime
    ended_at: datetime | None
    seconds: float | None
    peak_mb: float | None
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Pull:
    shop: str
    entity: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Quarantined:
    shop: str
    entity: str
    reason: str
    rows: int
    lines: int


@dataclass(frozen=True)
class SegmentMove:
    segment: str
    members: int
    entered: int
    left: int


@dataclass(frozen=True)
class RunReport:
    """Numbers of one run, events and orders up to `as_of`; messages and verdicts as the ledger has them now."""

    run_id: str
    flow: str
    state: str
    as_of: datetime
    started_at: datetime
    ended_at: datetime | None
    currency: str
    attribution_days: int
    rules_version: str
    plans: tuple[Plan, ...]
    total: Group
    campaigns: tuple[Group, ...]
    segments: tuple[Group, ...]
    languages: tuple[Group, ...]
    why: tuple[Why, ...]
    quota_slots: tuple[QuotaSlots, ...]
    refusals: tuple[Refusal, ...]
    links: tuple[LinkClicks, ...]
    sent_now: int
    """Messages accepted while this run went on; the others are of earlier runs of the same plans."""
    also_sent: tuple[AlsoSent, ...]
    """Of plans that are not in this report."""
    unclassified: int
    """Opens and clicks that have no class yet; they count as unknown."""
    strays: int
    """Messages with an open, click or unsubscribe that are not among the delivered ones."""
    stages: tuple[Stage, ...]
    pulls: tuple[Pull, ...]
    quarantined: tuple[Quarantined, ...]
    segment_moves: tuple[SegmentMove, ...]
    problems: tuple[str, ...]
