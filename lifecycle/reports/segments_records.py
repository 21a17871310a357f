"""What a look at the segments holds: plain values, ready to be shown in any form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Kind = Literal["cell", "other", "gone"]
"""A cell of the recipe, another segment, or one that config/segments.yaml defines no longer."""


@dataclass(frozen=True)
class Build:
    """A row of `segment_runs`."""

    as_of: datetime
    built_at: datetime
    kind: str
    """full, incremental or backfill."""
    customers: int
    definitions_hash: str


@dataclass(frozen=True)
class TrendPoint:
    as_of: datetime
    members: int | None
    """None: that build did not know the segment."""


@dataclass(frozen=True)
class Size:
    """Of one segment. Who left and came back in between neither entered nor left."""

    segment: str
    kind: Kind
    members: int
    share: float | None
    """Of all customers; None where there are none."""
    before: int | None
    """None, like `entered` and `left`: there is no build to compare with."""
    entered: int | None
    left: int | None
    comparable: bool
    """Both builds knew the segment."""
    trend: tuple[TrendPoint, ...]
    """In the newest builds, oldest first."""

    @property
    def change(self) -> int | None:
        return None if self.before is None else self.members - self.before


@dataclass(frozen=True)
class Flow:
    before: str | None
    """A cell; None: not a customer yet."""
    after: str | None
    """A cell; None: no longer a customer."""
    customers: int


@dataclass(frozen=True)
class Movement:
    """Who was in which RFM cell before, and in which one after. Everybody is in one cell, or None: no customer."""

    cells_before: tuple[str, ...]
    cells_after: tuple[str, ...]
    customers: Mapping[tuple[str | None, str | None], int]

    def of(self, before: str | None, after: str | None) -> int:
        return self.customers.get((before, after), 0)

    def was(self, before: str | None) -> int:
        return sum(self.of(before, after) for after in (*self.cells_after, None))

    def became(self, after: str | None) -> int:
        return sum(self.of(before, after) for before in (*self.cells_before, None))

    def share(self, before: str | None, after: str | None) -> float | None:
        """Of those who were in `before`."""
        total = self.was(before)
        return self.of(before, after) / total if total else None

    @property
    def customers_before(self) -> int:
        return sum(self.was(cell) for cell in self.cells_before)

    @property
    def customers_after(self) -> int:
        return sum(self.became(cell) for cell in self.cells_after)

    @property
    def changed_cell(self) -> int:
        """Customers before and after, in another cell."""
        return sum(flow.customers for flow in self.flows if flow.before is not None and flow.after is not None)

    @property
    def flows(self) -> tuple[Flow, ...]:
        """Everybody who moved, the largest movement first."""
        moved = (Flow(*ends, people) for ends, people in self.customers.items() if people and ends[0] != ends[1])
        return tuple(sorted(moved, key=lambda flow: (-flow.customers, flow.before or "", flow.after or "")))


@dataclass(frozen=True)
class GridField:
    """Customers with one pair of scores."""

    customers: int
    share: float
    """Of all customers."""
    cells: Mapping[str, int]
    """Customers by cell, the largest first. More than one where m decides; 0 customers: what it would be."""
    mean_m: float | None
    """None where the recipe leaves money out, or nobody is here."""


@dataclass(frozen=True)
class Grid:
    """r by f. Scores are in 1 (low) to so many; every pair has a field."""

    r_scores: int
    f_scores: int
    fields: Mapping[tuple[int, int], GridField]

    @property
    def knows_money(self) -> bool:
        return any(field.mean_m is not None for field in self.fields.values())


@dataclass(frozen=True)
class Bin:
    low: int
    high: int | None
    """Included; None: and more."""
    customers: int
    share: float


@dataclass(frozen=True)
class SpendTenth:
    """A tenth of all customers by spend; the first spends most."""

    tenth: int
    customers: int
    from_minor: int
    to_minor: int
    total_minor: int
    share: float | None
    """Of all spend; None where that is nothing or less."""


@dataclass(frozen=True)
class Profile:
    """Scores and metrics of everybody, which are kept for the newest build only."""

    grid: Grid
    recency_days: tuple[Bin, ...]
    frequency: tuple[Bin, ...]
    spend: tuple[SpendTenth, ...]
    """Empty for fewer than ten customers."""


@dataclass(frozen=True)
class Parameter:
    model: str
    name: str
    value: float
    standard_error: float | None


@dataclass(frozen=True)
class Calibration:
    """Orders in a period kept from the fit, for customers of one frequency before it."""

    frequency: str
    customers: int
    expected: float
    seen: float


@dataclass(frozen=True)
class Prediction:
    """A row of `prediction_runs`."""

    as_of: datetime
    fitted_at: datetime
    horizon_days: int
    customers: int
    repeat_customers: int
    problem: str | None
    parameters: tuple[Parameter, ...]
    calibration: tuple[Calibration, ...]


@dataclass(frozen=True)
class SegmentsLook:
    """Segments as one build left them, beside an earlier one."""

    build: Build
    before: Build | None
    newest_as_of: datetime
    """Of all builds, so that it can be said of which one there is a profile."""
    definitions_changed: bool
    """Between the two builds: part of the movement may come from that."""
    currency: str
    customers: int
    """In the cells, by the spans."""
    sizes: tuple[Size, ...]
    movement: Movement | None
    profile: Profile | None
    """None for a build that is not the newest."""
    prediction: Prediction | None

    def size(self, segment: str) -> Size:
        return next(size for size in self.sizes if size.segment == segment)
