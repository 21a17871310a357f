"""Scores r, f, m and the cell they fall into, as row expressions over cut points."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from fractions import Fraction

from sqlalchemy import ColumnElement, and_, case, false, literal, not_, or_

from lifecycle.db.instants import DAY_US
from lifecycle.db.schema import microseconds
from lifecycle.segments.cuts import Cuts, Values
from lifecycle.segments.vocabulary import Columns, Days, Metric, Share, Whole
from lifecycle.settings.segments import Recipe

Reached = list[ColumnElement[bool]]
"""Whether a value reaches each cut point, upwards."""


def scorable(known: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics that can be scored: whole numbers that everybody has."""
    return {
        name: metric
        for name, metric in known.items()
        if name == "average_order"
        or (isinstance(metric, Whole | Days) and not metric.nullable and name not in ("r", "f", "m", "refunded"))
    }


def reached(metric: Metric, c: Columns, cuts: Cuts, as_of: datetime) -> Reached:
    """For each cut point, whether a customer's value is at it or above."""
    found: Reached = []
    for cut in cuts:
        if cut.value is None:
            found.append(false())
            continue
        at_least = metric.at_least(c, _whole_units(metric, cut.value), as_of)
        if cut.customer_id is not None:
            above = metric.at_least(c, _whole_units(metric, cut.value + 1), as_of)
            at_least = or_(above, and_(at_least, c.customer_id >= cut.customer_id))
        found.append(at_least)
    return found


def score(reached: Reached, *, reverse: bool) -> ColumnElement[int]:
    """1 and one for each cut point that is reached; for reversed scores, one for each that is not."""
    total: ColumnElement[int] = literal(1)
    for holds in reached:
        total = total + case((not_(holds) if reverse else holds, 1), else_=0)
    return total


def cell(recipe: Recipe, scores: Mapping[str, ColumnElement[int]]) -> ColumnElement[str]:
    """The name of the cell that the scores are in, by their digits read as one number: `case code when …`, which
    asks for the scores once."""
    letters = _that_matter(recipe)
    code: ColumnElement[int] = literal(0)
    for letter in letters:
        code = code * 10 + scores[letter]
    names = {}
    for digits, name in recipe.cells.items():
        named = dict(zip(recipe.scored, digits, strict=True))
        names[int("".join(str(named[letter]) for letter in letters) or "0")] = name
    return case(names, value=code)


def _that_matter(recipe: Recipe) -> list[str]:
    """The scores on which the cell depends: often money does not."""
    kept = list(recipe.scored)
    for place, letter in reversed(list(enumerate(recipe.scored))):
        without: dict[tuple[int, ...], set[str]] = {}
        for digits, name in recipe.cells.items():
            without.setdefault(digits[:place] + digits[place + 1 :], set()).add(name)
        if all(len(found) == 1 for found in without.values()):
            kept.remove(letter)
    return kept


def score_values(metric: Metric, frame: Columns, as_of: datetime) -> Values:
    """The whole numbers that are cut: minor units, counts, days; a mean is rounded down.

    `frame` has the columns of a customer's state as arrays, instants as microseconds since 1970.
    """
    first = frame[metric.columns[0]]
    match metric:
        case Days():
            return (microseconds(as_of) - first) // DAY_US
        case Share():
            return first // frame[metric.columns[1]]
        case _:
            return first


def _whole_units(metric: Metric, value: int) -> Fraction:
    return Fraction(value, 10**metric.digits) if isinstance(metric, Whole | Share) else Fraction(value)
