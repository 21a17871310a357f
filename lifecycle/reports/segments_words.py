"""Numbers and names of a look at the segments as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lifecycle.reports.segments_records import Bin, Flow, Movement, SegmentsLook, Size, SpendTenth
from lifecycle.reports.words import moment, number, percent, plain, round_money

BEYOND_CHANCE = 3.0
"""Sizes that change by less, in standard deviations of random coming and going, are not in the headline."""


class Tile(NamedTuple):
    name: str
    value: str
    about: str


def headline(look: SegmentsLook) -> str:
    """The most important thing, in a sentence."""
    if not look.customers:
        return f"No customer is in a segment as of {moment(look.build.as_of)}."
    if look.before is None or look.movement is None:
        largest = max(of_kind(look, "cell"), key=lambda size: size.members, default=None)
        told = f"; the largest cell is {plain(largest.segment)} with {counted(largest)}" if largest else ""
        return f"{people(look.customers)}{told}."
    since = f"since {moment(look.before.as_of)}"
    if (size := most_changed(look)) is not None:
        return _of_change(size, look.movement, since)
    moved = next((flow for flow in look.movement.flows if flow.before and flow.after), None)
    if moved is not None:
        ends = f"from {plain(moved.before or '')} to {plain(moved.after or '')}"
        return f"No segment changed much {since}; the largest movement is {people(moved.customers)} {ends}."
    if look.movement.flows:
        return f"Nobody changed cell {since}; {people(look.movement.was(None))} came with a first order."
    return f"Nobody moved between cells {since}."


def most_changed(look: SegmentsLook) -> Size | None:
    """The segment whose size changed most beyond what as many people coming and going at random would do."""
    changed = [size for size in look.sizes if size.comparable and size.kind != "gone" and size.change]
    largest = max(changed, key=_beyond_chance, default=None)
    return largest if largest is not None and _beyond_chance(largest) >= BEYOND_CHANCE else None


def tiles(look: SegmentsLook) -> list[Tile]:
    """Six, whatever there is to tell."""
    before = f"{number(look.movement.customers_before)} before" if look.movement else "with a counted order"
    everybody = Tile("Customers", number(look.customers), before)
    return [everybody, *_of_movement(look), *_of_profile(look), *_of_sizes(look)][:6]


def of_kind(look: SegmentsLook, kind: str) -> list[Size]:
    return [size for size in look.sizes if size.kind == kind]


def people(count: int) -> str:
    return f"{number(count)} customer" + ("" if count == 1 else "s")


def counted(size: Size) -> str:
    return f"{number(size.members)} ({percent(size.share)})"


def signed(change: int | None) -> str:
    """`+12`, `−3`, `0`; with the sign for minus."""
    if change is None:
        return "–"
    return f"+{number(change)}" if change > 0 else number(change).replace("-", "−")


def cell_before(name: str | None) -> str:
    return "not a customer yet" if name is None else plain(name)


def cell_after(name: str | None) -> str:
    return "no longer a customer" if name is None else plain(name)


def flow(moved: Flow) -> str:
    return f"{cell_before(moved.before)} → {cell_after(moved.after)}"


def days(each: Bin) -> str:
    return f"{_range(each)} days"


def orders(each: Bin) -> str:
    return f"{_range(each)} order" + ("" if each.high == 1 else "s")


def tenth(each: SpendTenth) -> str:
    ordinal = {2: "2nd", 3: "3rd"}.get(each.tenth, f"{each.tenth}th")
    return {1: "Top tenth", 10: "Last tenth"}.get(each.tenth, f"{ordinal} tenth")


def amounts(each: SpendTenth, currency: str) -> str:
    low, high = round_money(each.from_minor, currency), round_money(each.to_minor, currency)
    return low if low == high else f"{low}–{high}"


def measured(value: float) -> str:
    """Orders: a sum over many customers, or the mean of one."""
    return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"


def estimated(value: float | None) -> str:
    """A parameter, with four significant digits; `–` where there is none."""
    if value is None:
        return "–"
    return (f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.1f}").replace("-", "−")


def _of_change(size: Size, movement: Movement, since: str) -> str:
    change, entered, left = size.change or 0, size.entered or 0, size.left or 0
    verb = "grew" if change > 0 else "shrank"
    of_before = f" ({percent(abs(change) / size.before)})" if size.before else ""
    came, went = f"{number(entered)} entered", f"{number(left)} left"
    if change > 0:
        came += _mostly((each for each in movement.flows if each.after == size.segment), entered, "from")
    else:
        went += _mostly((each for each in movement.flows if each.before == size.segment), left, "to")
    name = plain(size.segment)
    grown = f"{name[0].upper()}{name[1:]} {verb} by {number(abs(change))}{of_before}"
    return f"{grown} to {people(size.members)} {since}: {came}, {went}."


def _mostly(flows: Iterable[Flow], of: int, way: str) -> str:
    """Where the most of them came from or went to, which is known of cells alone."""
    largest = next(iter(flows), None)
    if largest is None or not of:
        return ""
    other = largest.before if way == "from" else largest.after
    if other is None:
        words = "with a first order" if way == "from" else "who are no longer customers"
    else:
        words = f"{way} {plain(other)}"
    return f" ({number(largest.customers)} of them {words})" if largest.customers < of else f" (all {words})"


def _beyond_chance(size: Size) -> float:
    return abs(size.change or 0) / math.sqrt(max(1, (size.entered or 0) + (size.left or 0)))


def _of_movement(look: SegmentsLook) -> Iterator[Tile]:
    movement = look.movement
    if movement is None:
        return
    yield Tile("First orders", number(movement.was(None)), "were not customers yet")
    changed_share = movement.changed_cell / movement.customers_before if movement.customers_before else None
    yield Tile("Changed cell", number(movement.changed_cell), f"{percent(changed_share)} of all customers before")
    changed = [size for size in look.sizes if size.comparable and size.kind != "gone"]
    grew = max(changed, key=lambda size: size.change or 0, default=None)
    shrank = min(changed, key=lambda size: size.change or 0, default=None)
    yield _extreme("Grew most", grew if grew and (grew.change or 0) > 0 else None)
    yield _extreme("Shrank most", shrank if shrank and (shrank.change or 0) < 0 else None)


def _extreme(name: str, size: Size | None) -> Tile:
    if size is None:
        return Tile(name, "–", "no segment")
    return Tile(name, signed(size.change), f"{plain(size.segment)}, to {number(size.members)}")


def _of_profile(look: SegmentsLook) -> Iterator[Tile]:
    if look.profile is None or not look.customers:
        return
    month = [each for each in look.profile.recency_days if each.high is not None and each.high <= 30]
    again = [each for each in look.profile.frequency if each.low >= 2]
    yield Tile("Recent buyers", number(_sum(month)), f"ordered in 30 days, {percent(_share(month))} of all")
    yield Tile("Repeat buyers", number(_sum(again)), f"two orders or more, {percent(_share(again))} of all")
    if look.profile.spend and look.profile.spend[0].share is not None:
        top = look.profile.spend[0]
        yield Tile("Top tenth's spend", percent(top.share), f"of all spend, {amounts(top, look.currency)} each")


def _of_sizes(look: SegmentsLook) -> Iterator[Tile]:
    defined = [size for size in look.sizes if size.kind != "gone"]
    empty = sum(not size.members for size in defined)
    yield Tile("Segments", number(len(defined)), f"{number(empty)} of them empty")
    for name, kind in (("Largest cell", "cell"), ("Largest other segment", "other")):
        largest = max(of_kind(look, kind), key=lambda size: size.members, default=None)
        about = f"{plain(largest.segment)}, {percent(largest.share)}" if largest else "none is defined"
        yield Tile(name, number(largest.members) if largest else "–", about)
    yield Tile("Build", look.build.kind, f"made {look.build.built_at:%Y-%m-%d}")
    yield Tile("Builds shown", number(max(len(size.trend) for size in look.sizes)), "as lines in the table")


def _range(each: Bin) -> str:
    if each.high is None:
        return f"{number(each.low)} or more"
    return number(each.low) if each.low == each.high else f"{number(each.low)}–{number(each.high)}"


def _sum(bins: list[Bin]) -> int:
    return sum(each.customers for each in bins)


def _share(bins: list[Bin]) -> float:
    return sum(each.share for each in bins)
