"""A plan and its verdicts, as other rooms see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

TO_SEND = ("selected", "quiet_hours")
"""Verdicts of those who get the message: now, or when their quiet hours end."""


@dataclass(frozen=True)
class Slots:
    """What a quota's slots came to for one group: a shop, a channel or a sender's domain, with its `shops`. `used`
    before the plan; `wanted`: messages that could be sent but for the quota; `taken` by the plan. Worth in minor
    units of the base currency: `last_minor` of the last slot taken, `next_minor` of the best message left out."""

    rule: str
    group: str
    limit: int
    used: int
    wanted: int
    taken: int
    last_minor: float | None
    next_minor: float | None
    frees_at: datetime | None
    shops: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        frees_at = self.frees_at.isoformat() if self.frees_at else None
        return {**asdict(self), "frees_at": frees_at, "shops": list(self.shops)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        frees_at = values["frees_at"]
        return cls(
            **{
                **values,
                "frees_at": datetime.fromisoformat(frees_at) if frees_at else None,
                "shops": tuple(values["shops"]),
            }
        )


def slots_of(summary: Mapping[str, Any] | None) -> tuple[Slots, ...]:
    """What a plan's summary noted of quotas."""
    return tuple(map(Slots.from_dict, (summary or {}).get("slots", ())))


@dataclass(frozen=True)
class Plan:
    """A frozen list of verdicts. `counts`, in the order of `VERDICTS`, names `selected` and every verdict that
    occurs, and adds up to `audience`."""

    plan_id: int
    campaign: str
    occurrence: str
    """The campaign's date, YYYY-MM-DD."""
    as_of: datetime
    hash: str
    audience: int
    counts: Mapping[str, int]
    definition_hash: str
    """Of the campaign as configured then."""
    content_hash: str | None
    """Of its templates; None where nobody looked."""
    already_applied: bool = False
    summary: Mapping[str, Any] | None = None
    """What else was found, as `guards.summary` says."""
    approved_by: str | None = None
    channel: str = ""
    """By which it goes out."""
    fallback_of: int | None = None
    """The plan whose unreachable people it is for."""

    @property
    def messages(self) -> int:
        """How many are to be sent, those held until their quiet hours end among them."""
        return sum(self.counts.get(verdict, 0) for verdict in TO_SEND)

    @property
    def needs_approval(self) -> tuple[str, ...]:
        """Why a person must look at it before it is sent; empty: nobody must, or somebody has."""
        if self.approved_by or self.already_applied:
            return ()
        return tuple((self.summary or {}).get("needs_approval", ()))

    def sentence(self) -> str:
        what = f"{self.campaign} of {self.occurrence}" + (f" by {self.channel}" if self.fallback_of else "")
        if self.already_applied:
            return f"{what} was applied before, as plan {self.plan_id}"
        others = [f"{count:,} {verdict}" for verdict, count in self.counts.items() if verdict not in TO_SEND]
        selected = f"{self.messages:,} of {self.audience:,} people selected"
        if held := self.counts.get("quiet_hours"):
            selected += f" ({held:,} of them when their quiet hours end)"
        return f"{what}: {selected}" + (f"; not: {', '.join(others)}" if others else "")

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "as_of": self.as_of.isoformat()}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a plan decided about one person, as planned: later revisions are no part of it."""

    customer_id: int
    verdict: str
    rule: str | None
    blocking_message_id: int | None
    frees_at: datetime | None
    lost_to: str | None
    segment: str
    shop: str | None
    locale: str | None
