"""The shape of `config/segments.yaml`: what counts as an order, recipes of scores, segments."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lifecycle.errors import suggest
from lifecycle.settings.models import Currency, Name, Section, Share

Days = Annotated[int, Field(gt=0, le=36_500)]
Range = tuple[int, int]
_PATTERN = re.compile(r"(?:[1-9]|\.|\[[1-9](?:-?[1-9])*\])+")
_PLACE = re.compile(r"[1-9]|\.|\[[^]]*\]")


class CountedOrders(Section):
    """What counts as an order, for every metric and score."""

    statuses: tuple[Literal["open", "paid", "refunded", "cancelled"], ...] = Field(
        default=("paid",), min_length=1, description="a refunded order counts until it was paid back in full"
    )
    totals: Literal["positive", "not_negative", "any"] = "positive"
    refunds: Literal["subtract", "ignore"] = Field(default="subtract", description="from the spend, on their day")
    returns: Literal["subtract", "drop"] = Field(default="subtract", description="booked as orders of their own")
    guests: Literal["keep", "drop"] = Field(default="keep", description="people known by their address alone")
    currency: Currency | None = Field(
        default=None, description="only orders in it, in its units; left out: all, in the base currency"
    )


class Score(Section):
    """How one of r, f, m is scored. Left out: as the recipe says for all three."""

    of: str | None = Field(default=None, description="a whole-number metric; recency_days, orders, spend")
    by: Literal["rank_shares", "rank_quantiles", "value_quantiles", "percentile_bins", "thresholds"] | None = None
    scores: int | None = Field(default=None, ge=2, le=9)
    thresholds: tuple[Decimal, ...] | None = Field(default=None, description="ascending; money in whole units")
    closed: Literal["left", "right"] = Field(
        default="left", description="bins of values and thresholds: left is [low, high), right is (low, high]"
    )
    shift: Decimal = Field(
        default=Decimal(0), description="added to each quantile of values, in whole units; some packages add 1"
    )
    edges: Literal["unit", "observed"] = Field(
        default="unit", description="of percentile bins: from 0 to 1, or from the lowest to the highest there is"
    )


class Cell(Section):
    """A named set of scores: by patterns, by ranges, by the total of the scores; what is left out may be any."""

    name: Name
    patterns: tuple[str, ...] = Field(default=(), description='digits in the order r f m: "[1-2]5", "5.", "555"')
    r: Range | None = None
    f: Range | None = None
    m: Range | None = None
    total: Range | None = None

    @model_validator(mode="after")
    def _readable(self) -> Cell:
        for pattern in self.patterns:
            if not _PATTERN.fullmatch(pattern):
                raise ValueError(f'pattern "{pattern}" is not readable; write for example [1-2][3-4], 5. or 555')
        for name in ("r", "f", "m", "total"):
            given: Range | None = getattr(self, name)
            if given is not None and given[0] > given[1]:
                raise ValueError(f"{name} goes from {given[0]} to {given[1]}; write the lower one first")
        return self

    def holds(self, scores: tuple[int, ...]) -> bool:
        """Whether `scores`, in the order r f m, are in the cell."""
        ranges = dict(zip("rfm", scores, strict=False)) | {"total": sum(scores)}
        in_ranges = all(
            given is None or (name in ranges and given[0] <= ranges[name] <= given[1])
            for name, given in (("r", self.r), ("f", self.f), ("m", self.m), ("total", self.total))
        )
        return in_ranges and (not self.patterns or any(matches(pattern, scores) for pattern in self.patterns))


def matches(pattern: str, scores: tuple[int, ...]) -> bool:
    """Whether each digit of `scores` is allowed at its place of `pattern`."""
    places = _PLACE.findall(pattern)
    return len(places) == len(scores) and all(
        re.fullmatch(place, str(score)) is not None for place, score in zip(places, scores, strict=True)
    )


class Recipe(Section):
    """How customers are scored by recency, frequency and money, and what the scores are called."""

    description: str = ""
    orders: CountedOrders | None = Field(default=None, description="in place of the file's `orders`")
    by: Literal["rank_shares", "rank_quantiles", "value_quantiles", "percentile_bins"] = "rank_shares"
    scores: int = Field(default=5, ge=2, le=9)
    recency: Score = Score()
    frequency: Score = Score()
    monetary: Score | Literal[False] = Field(default=Score(), description="off: scored by r and f alone")
    match: Literal["one", "first"] = Field(
        default="one", description="one: the cells share out all scores; first: the first that fits"
    )
    map: tuple[Cell, ...] = Field(min_length=1)
    otherwise: Name | None = Field(default=None, description="who is in no cell; only with match: first")

    @model_validator(mode="after")
    def _sound(self) -> Recipe:
        for name, score in self.scored.items():
            self._check_score(name, score)
        self._check_map()
        return self

    @cached_property
    def scored(self) -> Mapping[str, Score]:
        """r, f and, unless it is off, m, with everything filled in."""
        given = {"r": self.recency, "f": self.frequency, "m": self.monetary}
        metrics = {"r": "recency_days", "f": "orders", "m": "spend"}
        return {
            name: score.model_copy(
                update={
                    "of": score.of or metrics[name],
                    "by": score.by or ("thresholds" if score.thresholds else self.by),
                    "scores": len(score.thresholds) + 1 if score.thresholds else (score.scores or self.scores),
                }
            )
            for name, score in given.items()
            if score
        }

    @cached_property
    def cells(self) -> Mapping[tuple[int, ...], str]:
        """Which cell every combination of scores is in."""
        return {scores: found for scores in self._combinations() if (found := self._cell(scores)) is not None}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the cells, as written, each once."""
        last = (self.otherwise,) if self.otherwise else ()
        return tuple(dict.fromkeys([*(cell.name for cell in self.map), *last]))

    def _combinations(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(*(range(1, (score.scores or 0) + 1) for score in self.scored.values()))

    def _cell(self, scores: tuple[int, ...]) -> str | None:
        return next((cell.name for cell in self.map if cell.holds(scores)), self.otherwise)

    def _check_score(self, name: str, score: Score) -> None:
        wanted, given = score.by == "thresholds", score.thresholds
        if wanted != bool(given):
            way_out = "add thresholds" if wanted else "write by: thresholds, or leave the thresholds out"
            raise ValueError(
                f"{name} is scored by {score.by} and has {'no ' if wanted else ''}thresholds; {way_out}"
            )
        if given and (list(given) != sorted(set(given)) or len(given) > 8):
            raise ValueError(f"thresholds of {name} must go up, each once, eight at the most")

    def _check_map(self) -> None:
        letters = "".join(self.scored)
        if self.match == "one" and self.otherwise:
            raise ValueError("otherwise goes with match: first; with match: one the cells must cover everything")
        for cell in self.map:
            if cell.m is not None and "m" not in self.scored:
                raise ValueError(f"{cell.name} asks for m, but monetary is off")
            for letter, score in self.scored.items():
                given: Range | None = getattr(cell, letter)
                if given is not None and not 1 <= given[0] <= given[1] <= (score.scores or 0):
                    span = f"{given[0]} to {given[1]}"
                    raise ValueError(f"{cell.name}: {letter} is {span}, outside the scores 1 to {score.scores}")
            for pattern in cell.patterns:
                if len(_PLACE.findall(pattern)) != len(self.scored):
                    raise ValueError(f'pattern "{pattern}" of {cell.name} needs {len(letters)} places: {letters}')
        used: set[str] = set()
        for scores in self._combinations():
            shown = ", ".join(f"{letter}={score}" for letter, score in zip(letters, scores, strict=True))
            found = [cell.name for cell in self.map if cell.holds(scores)]
            if not found and self.otherwise is None:
                way_out = (
                    "add a cell" if self.match == "one" else "add a cell, or name the rest: otherwise: others"
                )
                raise ValueError(f"no cell covers {shown}; {way_out}")
            if self.match == "one" and len(found) > 1:
                raise ValueError(
                    f"{shown} is in both {found[0]} and {found[1]}; take it out of one, or match: first"
                )
            used.update(found)
        for cell in self.map:
            if cell.name not in used:
                raise ValueError(f"{cell.name} asks for scores that do not exist")


class NewCustomers(Section):
    rule: Literal["new"]
    days: Days = Field(description="first order at most so many days ago")


class OneTime(Section):
    rule: Literal["one_time"]


class Active(Section):
    rule: Literal["active"]
    days: Days = Field(description="last order at most so many days ago")


class Repeat(Section):
    rule: Literal["repeat"]
    orders: int = Field(default=2, ge=2, description="so many orders or more")


class Vip(Section):
    rule: Literal["vip"]
    top_share: Share | None = Field(
        default=None, description="of customers with an order in 12 months, by 12-month spend"
    )
    spend_12m: Decimal | None = Field(default=None, gt=0, description="so much or more; in the base currency")

    @model_validator(mode="after")
    def _one_of_them(self) -> Vip:
        if (self.top_share is None) == (self.spend_12m is None):
            raise ValueError("a vip rule needs either top_share or spend_12m")
        return self


class HighValue(Section):
    rule: Literal["high_value"]
    spend_12m: Decimal = Field(gt=0, description="more than so much; in the base currency")


class Quiet(Section):
    """No order for more than `days`, or more than `rhythm` times the customer's own mean days between orders.

    With both, who has bought twice or more is measured by their rhythm and everybody else by the days."""

    rule: Literal["dormant", "lapsed", "churned"]
    days: Days | None = None
    rhythm: Decimal | None = Field(default=None, gt=0, le=1000)
    at_most_days: Days | None = Field(default=None, description="quieter ones are in another segment")

    @model_validator(mode="after")
    def _measured(self) -> Quiet:
        if self.days is None and self.rhythm is None:
            raise ValueError(f"a {self.rule} rule needs days, rhythm or both")
        if self.at_most_days is not None and self.days is not None and self.at_most_days <= self.days:
            raise ValueError("at_most_days must be more than days")
        return self


class AtRisk(Section):
    rule: Literal["at_risk"]
    orders: int = Field(default=2, ge=2, description="so many orders or more")
    rhythm: Decimal = Field(default=Decimal(2), gt=0, le=1000, description="quieter than so many of their gaps")
    at_most_days: Days = Field(default=365, description="longer quiet is past risk")


class WonBack(Section):
    rule: Literal["won_back"]
    gap_days: Days = Field(description="the order before the last one was at least so many days earlier")
    days: Days = Field(description="the last order is at most so many days ago")


class Potential(Section):
    rule: Literal["potential"]
    days: Days = Field(description="last order at most so many days ago")
    orders_at_most: int = Field(default=2, ge=1)
    average_order: Decimal = Field(gt=0, description="so much or more an order; in the base currency")


class Expressed(Section):
    rule: Literal["expression"] = "expression"
    where: str = Field(min_length=1, description="for example: orders_12m >= 2 and country in [FR, DE]")


SegmentRule = Annotated[
    NewCustomers | OneTime | Active | Repeat | Vip | HighValue | Quiet | AtRisk | WonBack | Potential | Expressed,
    Field(discriminator="rule"),
]


class SegmentsFile(Section):
    engine: Literal["database", "duckdb", "spark"] = Field(
        default="database", description="where everybody's metrics are computed; see lifecycle/segments/engines"
    )
    orders: CountedOrders = CountedOrders()
    windows: tuple[Days, ...] = Field(
        default=(), description="days; 90 gives the metrics orders_90d and spend_90d beside those of 12 months"
    )
    recipe: Name = Field(description="the one of `recipes` whose cells are built as segments")
    recipes: dict[Name, Recipe] = Field(min_length=1)
    segments: dict[Name, SegmentRule] = Field(description="segments beside the cells of the recipe")

    @model_validator(mode="after")
    def _consistent(self) -> SegmentsFile:
        if self.recipe not in self.recipes:
            raise ValueError(f'recipe "{self.recipe}" is not defined{suggest(self.recipe, self.recipes)}')
        if len(set(self.windows)) < len(self.windows) or 365 in self.windows:
            raise ValueError("windows must differ from each other and from 365 days, which is always there as 12m")
        return self

    @property
    def chosen(self) -> Recipe:
        return self.recipes[self.recipe]

    @property
    def counted_orders(self) -> CountedOrders:
        """By the chosen recipe, else by the file."""
        return self.chosen.orders or self.orders
