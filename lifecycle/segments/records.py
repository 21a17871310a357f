"""What a build of the segments reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from lifecycle.segments.cuts import Cuts


@dataclass(frozen=True)
class SegmentBuild:
    """Members per segment at `as_of`, and how many entered and left since the build before it."""

    as_of: datetime
    kind: str
    """full or incremental; backfill for a day of a range."""
    customers: int
    counts: Mapping[str, int]
    entered: Mapping[str, int]
    left: Mapping[str, int]
    touched: int
    """Customers that were looked at."""
    cuts: Mapping[str, Cuts]

    def rows(self) -> list[dict[str, str | int]]:
        """One a segment: members, entered, left."""
        return [
            {"segment": name, "members": count, "entered": self.entered[name], "left": self.left.get(name, 0)}
            for name, count in self.counts.items()
        ]

    def sentence(self) -> str:
        moved = f"{sum(self.entered.values()):,} entered and {sum(self.left.values()):,} left a segment"
        looked = f"; {self.touched:,} had to be looked at" if self.kind == "incremental" else ""
        return f"{self.customers:,} customers segmented as of {self.as_of:%Y-%m-%d %H:%M} UTC; {moved}{looked}"
