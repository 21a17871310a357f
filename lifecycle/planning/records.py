"""A plan and its verdicts, as other rooms see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any


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
    already_applied: bool = False

    def sentence(self) -> str:
        what = f"{self.campaign} of {self.occurrence}"
        if self.already_applied:
            return f"{what} was applied before, as plan {self.plan_id}"
        others = [f"{count:,} {verdict}" for verdict, count in self.counts.items() if verdict != "selected"]
        selected = f"{self.counts['selected']:,} of {self.audience:,} people selected"
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
    segment: str
    shop: str | None
    locale: str | None
