"""What came of a simulation, and its tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lifecycle.db.schema import VERDICTS

_MOST = 5
"""So many messages or more are one line of the distribution."""


@dataclass(frozen=True)
class Count:
    """How many people of a campaign's date had a verdict by a rule."""

    date: date
    campaign: str
    verdict: str
    rule: str | None
    people: int


@dataclass(frozen=True)
class SlotUse:
    """Of a quota's slots over the range: messages that could be sent but for it, those that were, and how often it
    was full when a campaign had been judged."""

    wanted: int = 0
    taken: int = 0
    full: int = 0

    def __add__(self, other: SlotUse) -> SlotUse:
        return SlotUse(self.wanted + other.wanted, self.taken + other.taken, self.full + other.full)


@dataclass(frozen=True, eq=False)
class Replayed:
    """One set of rules over the range, or what really happened. messages (people,): how many each got. slots: by
    quota and group."""

    counts: tuple[Count, ...]
    messages: NDArray[np.int64]
    slots: Mapping[tuple[str, str], SlotUse]

    @property
    def sent(self) -> int:
        return int(self.messages.sum())

    def sends(self) -> Counter[str]:
        """By campaign."""
        return self._summed(lambda each: each.campaign)

    def by_month(self) -> Counter[str]:
        return self._summed(lambda each: f"{each.date:%Y-%m}")

    def _summed(self, key: Any) -> Counter[str]:
        found: Counter[str] = Counter()
        for each in self.counts:
            found[key(each)] += each.people if each.verdict == "selected" else 0
        return found

    def refusals(self) -> Counter[tuple[str, str, str | None]]:
        """By campaign, verdict and rule, over all days."""
        found: Counter[tuple[str, str, str | None]] = Counter()
        for each in self.counts:
            if each.verdict != "selected":
                found[each.campaign, each.verdict, each.rule] += each.people
        return found


@dataclass(frozen=True, eq=False)
class Simulation:
    """customer_ids (people,): everybody who was in an audience or got a message, ascending. segments (people,):
    who is in each on the last day. `other`: None where only the configured rules were simulated, which are then
    compared with what really happened."""

    first: date
    last: date
    customer_ids: NDArray[np.int64]
    really: Replayed
    configured: Replayed
    other: Replayed | None
    segments: Mapping[str, NDArray[np.bool_]]
    days_without_build: int

    @property
    def now(self) -> Replayed:
        return self.really if self.other is None else self.configured

    @property
    def then(self) -> Replayed:
        return self.configured if self.other is None else self.other

    @property
    def names(self) -> tuple[str, str]:
        """Of what is compared."""
        return ("sent", "simulated") if self.other is None else ("configured", "other")

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    def sentence(self) -> str:
        more, fewer = (int((sign * self.difference > 0).sum()) for sign in (1, -1))
        now, then = self.names
        return (
            f"{self.days:,} days from {self.first} to {self.last}: {self.now.sent:,} messages {now}, "
            f"{self.then.sent:,} {then}; {more:,} people get more, {fewer:,} fewer, "
            f"{len(self.customer_ids) - more - fewer:,} the same"
        )

    @property
    def difference(self) -> NDArray[np.int64]:
        """(people,) messages more than now."""
        return self.then.messages - self.now.messages

    def campaign_rows(self) -> list[dict[str, Any]]:
        """Messages by campaign: really sent, now, then, difference."""
        really, now, then = self.really.sends(), self.now.sends(), self.then.sends()
        first = {} if self.other is None else {"sent": really}
        return self._beside("campaign", now, then, first)

    def month_rows(self) -> list[dict[str, Any]]:
        first = {} if self.other is None else {"sent": self.really.by_month()}
        return self._beside("month", self.now.by_month(), self.then.by_month(), first)

    def refusal_rows(self) -> list[dict[str, Any]]:
        """Person-days by campaign, verdict and rule. What was really planned is not told: verdicts of plans are
        elsewhere, and not of every day."""
        told = self.then.refusals()
        before = self.configured.refusals() if self.other is not None else None
        rows = []
        for campaign, verdict, rule in sorted({*told, *(before or ())}, key=_by_verdict):
            key = campaign, verdict, rule
            row: dict[str, Any] = {"campaign": campaign, "verdict": verdict, "rule": rule or ""}
            if before is None:
                row |= {"times": told[key]}
            else:
                row |= {"configured": before[key], "other": told[key], "difference": told[key] - before[key]}
            rows.append(row)
        return rows

    def segment_rows(self) -> list[dict[str, Any]]:
        """Who gets more, fewer and as many, by segment on the last day; somebody may be in several."""
        rows = [self._of_people(name, mask) for name, mask in self.segments.items()]
        inside = np.logical_or.reduce([np.zeros(len(self.customer_ids), dtype=bool), *self.segments.values()])
        return [*rows, self._of_people("in none of them", ~inside), self._of_people("all", inside | ~inside)]

    def _of_people(self, name: str, mask: NDArray[np.bool_]) -> dict[str, Any]:
        difference = self.difference[mask]
        now, then = self.names
        return {
            "segment": name,
            "people": len(difference),
            "more": int((difference > 0).sum()),
            "fewer": int((difference < 0).sum()),
            "the same": int((difference == 0).sum()),
            f"messages {now}": int(self.now.messages[mask].sum()),
            f"messages {then}": int(self.then.messages[mask].sum()),
        }

    def distribution_rows(self) -> list[dict[str, Any]]:
        """How many people get how many messages."""
        now, then = (np.bincount(np.minimum(each.messages, _MOST), minlength=_MOST + 1).tolist()
                     for each in (self.now, self.then))  # fmt: skip
        labels = [*(str(number) for number in range(_MOST)), f"{_MOST} or more"]
        return [
            {"messages": label, self.names[0]: before, self.names[1]: after, "difference": after - before}
            for label, before, after in zip(labels, now, then, strict=True)
        ]

    def slot_rows(self) -> list[dict[str, Any]]:
        """What came of the quotas' slots."""
        replayed = {"configured": self.configured} | ({"other": self.other} if self.other else {})
        return [
            {"rules": name, "quota": quota, "of": group, **asdict(use)}
            for name, each in replayed.items()
            for (quota, group), use in each.slots.items()
        ]

    def _beside(
        self, key: str, now: Counter[str], then: Counter[str], first: Mapping[str, Counter[str]]
    ) -> list[dict[str, Any]]:
        columns = {**first, self.names[0]: now, self.names[1]: then}
        rows: list[dict[str, Any]] = [
            {key: name, **{column: each[name] for column, each in columns.items()}}
            for name in sorted({*now, *then, *(name for each in first.values() for name in each)})
        ]
        rows.append({key: "all", **{column: each.total() for column, each in columns.items()}})
        return [row | {"difference": row[self.names[1]] - row[self.names[0]]} for row in rows]

    def as_dict(self) -> dict[str, Any]:
        now, then = self.names
        return {
            "first": self.first.isoformat(),
            "last": self.last.isoformat(),
            "sentence": self.sentence(),
            "people": len(self.customer_ids),
            "days_without_build": self.days_without_build,
            "now": now,
            "then": then,
            "campaigns": self.campaign_rows(),
            "refusals": self.refusal_rows(),
            "months": self.month_rows(),
            "segments": self.segment_rows(),
            "distribution": self.distribution_rows(),
            "quotas": self.slot_rows(),
        }

    def people_frame(self) -> pd.DataFrame:
        """One row a person: customer_id, messages_now, messages_then, difference."""
        return pd.DataFrame(
            {
                "customer_id": self.customer_ids,
                "messages_now": self.now.messages,
                "messages_then": self.then.messages,
                "difference": self.difference,
            }
        )

    def days_frame(self) -> pd.DataFrame:
        """rules, date, campaign, verdict, rule, people: a row for each that occurs."""
        return pd.DataFrame(self._day_rows(), columns=["rules", "date", "campaign", "verdict", "rule", "people"])

    def _day_rows(self) -> Iterator[dict[str, Any]]:
        named = {"sent": self.really, "configured": self.configured} | (
            {"other": self.other} if self.other else {}
        )
        for name, each in named.items():
            for count in each.counts:
                yield {"rules": name, **asdict(count)}


def _by_verdict(key: tuple[str, str, str | None]) -> tuple[str, int, str]:
    campaign, verdict, rule = key
    return campaign, VERDICTS.index(verdict), rule or ""
