"""Who moved between two builds, and why: which metric crossed what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, insert, literal, select, union

from lifecycle.db.arrays import NULL, Arrays, arrays
from lifecycle.db.engine import one_session
from lifecycle.db.instants import DAY_US
from lifecycle.db.schema import Instant, instant, microseconds, segment_members, segment_runs
from lifecycle.errors import TernError, UsageError, suggest
from lifecycle.segments.cuts import Cuts
from lifecycle.segments.definitions import Definitions, cuts_from_json, define
from lifecycle.segments.evaluate import evaluate, everywhere
from lifecycle.segments.members import member_at
from lifecycle.segments.metrics import metrics
from lifecycle.segments.moments import AtPoints, points
from lifecycle.segments.rules import Rules
from lifecycle.segments.snapshot import lookup, profiles, score
from lifecycle.segments.state import state_columns
from lifecycle.segments.vocabulary import Days, Gap, Metric, Real, Share, When, Whole, Word
from lifecycle.settings import Config

COLUMNS = ("customer_id", "segment", "moved", "why", "from_value", "to_value")
_LATE = "what is known of them was corrected after the build"


@dataclass(frozen=True)
class _Build:
    as_of: datetime
    cuts: Mapping[str, Cuts]


def moves(
    engine: Engine, config: Config, *, as_of: datetime, since: datetime | None = None, segment: str | None = None
) -> pd.DataFrame:
    """COLUMNS: one row per customer, segment and crossing, of who entered and who left between the builds at
    `since` (default: the one before) and `as_of`.

    customer_id int64, segment, moved `entered` or `left`, why: the comparison of the segment's definition that
    holds at one instant and not at the other, or the score that changed, with the metric's values then and now as
    texts. The values are by what is known of the orders today; where no comparison differs by that, the row says
    that something was corrected. Raises TernError where there are not two builds, and UsageError for an unknown
    segment or for builds by other definitions than today's.
    """
    definitions = define(config)
    if segment is not None and segment not in definitions.segments:
        raise UsageError(f'segment "{segment}" is not defined{suggest(segment, definitions.segments)}')
    with one_session(engine, [points]) as connection:
        now, then = _builds(connection, definitions, as_of, since)
        moved = _moved(connection, then.as_of, now.as_of, segment)
        _look_at(connection, moved["customer_id"], (then.as_of, now.as_of))
        sides = [_Side(connection, definitions, build, moved["customer_id"]) for build in (then, now)]
    rows = [row for each in sorted(set(moved["segment"])) for row in _explained(definitions, each, moved, *sides)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def reasons(found: pd.DataFrame) -> list[dict[str, Any]]:
    """How many moved for which reason, most first: segment, moved, why, customers."""
    counted = found.groupby(["segment", "moved", "why"], sort=False)["customer_id"].nunique().reset_index()
    ordered = counted.sort_values(["customer_id", "segment", "moved", "why"], ascending=[False, True, True, True])
    named = ordered.rename(columns={"customer_id": "customers"})
    return [{str(name): value for name, value in row.items()} for row in named.to_dict("records")]


def _builds(
    connection: Connection, definitions: Definitions, as_of: datetime, since: datetime | None
) -> tuple[_Build, _Build]:
    now = _build_at(connection, as_of)
    then = _build_at(connection, since if since is not None else now.as_of - timedelta(microseconds=1))
    if then.as_of >= now.as_of:
        raise UsageError(f"there is no build between {then.as_of:%Y-%m-%d %H:%M} and {as_of:%Y-%m-%d %H:%M} UTC")
    for build in (then, now):
        if build.cuts.keys() != definitions.cut_names:
            raise UsageError(
                f"the build of {build.as_of:%Y-%m-%d %H:%M} UTC was made by other definitions than those of "
                "config/segments.yaml today, so its movements cannot be explained by these"
            )
    return now, then


def _build_at(connection: Connection, as_of: datetime) -> _Build:
    newest = (
        select(segment_runs).where(segment_runs.c.as_of <= as_of).order_by(segment_runs.c.as_of.desc()).limit(1)
    )
    found = connection.execute(newest).one_or_none()
    if found is None:
        raise TernError(f"no segments were built until {as_of:%Y-%m-%d %H:%M} UTC; run: tern segment")
    return _Build(found.as_of, cuts_from_json(found.cuts))


def _moved(connection: Connection, then: datetime, now: datetime, segment: str | None) -> dict[str, NDArray[Any]]:
    """segment, customer_id and whether they entered (1) or left (0)."""
    spans = segment_members.c
    wanted = [] if segment is None else [spans.segment == segment]
    at = [select(spans.segment, spans.customer_id).where(member_at(each), *wanted) for each in (now, then)]
    entered, left = at[0].except_(at[1]).subquery(), at[1].except_(at[0]).subquery()
    rows = union(
        select(entered.c.segment, entered.c.customer_id, literal(1).label("entered")),
        select(left.c.segment, left.c.customer_id, literal(0).label("entered")),
    ).subquery()
    return arrays(connection, select(rows).order_by(rows.c.segment, rows.c.customer_id))


def _look_at(connection: Connection, ids: NDArray[np.int64], instants: tuple[datetime, datetime]) -> None:
    rows = [{"customer_id": who, "as_of": at} for who in np.unique(ids).tolist() for at in instants]
    if rows:
        connection.execute(insert(points), rows)


class _Side:
    """Those who moved, as they stood at one of the builds."""

    def __init__(
        self, connection: Connection, definitions: Definitions, build: _Build, ids: NDArray[np.int64]
    ) -> None:
        query = metrics(definitions.sources, AtPoints()).subquery("looked_at")
        at = select(query).where(query.c.as_of == literal(build.as_of, Instant())).order_by(query.c.customer_id)
        self.build = build
        columns = arrays(connection, at)
        columns |= profiles(connection, definitions, columns["customer_id"])
        self._found_in = lookup(connection)
        self._c = state_columns(definitions).c
        told = definitions.tell(self._c, build.as_of, build.cuts)
        columns |= score(told, columns, self._found_in)
        self.columns: Arrays = columns
        self._place = {who: place for place, who in enumerate(columns["customer_id"].tolist())}
        self._definitions = definitions
        self._holds: dict[str, dict[str, NDArray[np.bool_]]] = {}
        self.about: dict[str, str | None] = {}
        for segment in definitions.rules:
            self._compare(segment)

    def place(self, who: int) -> int | None:
        """None: without a counted order then."""
        return self._place.get(who)

    def holds(self, segment: str) -> Mapping[str, NDArray[np.bool_]]:
        """By its text, whom each comparison of the segment holds for."""
        return self._holds[segment]

    def value(self, name: str, place: int | None) -> str:
        metric = self._definitions.metrics.get(name, Word((name,), nullable=True))
        return "no order" if place is None else shown(metric, self.columns, place, self.build.as_of)

    def _compare(self, segment: str) -> None:
        """The comparisons of one segment, whichever it builds on included."""
        definitions = self._definitions
        rules = Rules(
            definitions.rules,
            definitions.metrics,
            definitions.recipe.names,
            definitions.sources,
            c=self._c,
            as_of=self.build.as_of,
            cuts=self.build.cuts,
        )
        rules.condition(segment)
        self.about |= rules.about
        length = len(self.columns["customer_id"])
        self._holds[segment] = {
            text: everywhere(evaluate(holds, self.columns, self._found_in), length)
            for text, holds in rules.comparisons.items()
        }


def _explained(
    definitions: Definitions, segment: str, moved: Mapping[str, NDArray[Any]], then: _Side, now: _Side
) -> Iterator[tuple[Any, ...]]:
    of_segment = moved["segment"] == segment
    for who, entered in zip(moved["customer_id"][of_segment].tolist(), moved["entered"][of_segment], strict=True):
        before, after = then.place(who), now.place(who)
        why = list(_crossings(definitions, segment, before, after, then, now)) or [(_LATE, "", "")]
        for each in why:
            yield who, segment, "entered" if entered else "left", *each


def _crossings(
    definitions: Definitions, segment: str, before: int | None, after: int | None, then: _Side, now: _Side
) -> Iterator[tuple[str, str, str]]:
    """(why, value then, value now)."""
    if before is None or after is None:
        yield ("first counted order" if before is None else "no counted order any more"), "", ""
        return
    if segment not in definitions.rules:
        yield from _rescored(definitions, before, after, then, now)
        return
    for text, holds in now.holds(segment).items():
        if holds[after] != then.holds(segment)[text][before]:
            about = then.about[text]
            values = ("", "") if about is None else (then.value(about, before), now.value(about, after))
            yield (text if holds[after] else f"no longer: {text}"), *values


def _rescored(
    definitions: Definitions, before: int, after: int, then: _Side, now: _Side
) -> Iterator[tuple[str, str, str]]:
    for letter, (each, _) in definitions.scored.items():
        was, is_now = int(then.columns[letter][before]), int(now.columns[letter][after])
        if was != is_now:
            values = then.value(each.of or "", before), now.value(each.of or "", after)
            others = ", because others moved the cut point" if values[0] == values[1] else ""
            yield f"{letter} {was} → {is_now} by {each.of}{others}", *values


def shown(metric: Metric, columns: Arrays, place: int, as_of: datetime) -> str:
    """A customer's value of a metric as a person reads it: whole units, days, dates."""
    values = [columns[name][place] for name in metric.columns]
    if any(value is None or (not isinstance(value, str) and value == NULL) for value in values):
        return "unknown"
    match metric:
        case Whole(digits=digits):
            return f"{Decimal(int(values[0])).scaleb(-digits):,}"
        case Days():
            return str((microseconds(as_of) - int(values[0])) // DAY_US)
        case When():
            return f"{instant(int(values[0])):%Y-%m-%d %H:%M}"
        case Share(digits=digits):
            return "unknown" if values[1] <= 0 else f"{values[0] / values[1] / 10**digits:,.4g}"
        case Gap():
            return "unknown" if values[2] < 2 else f"{(values[1] - values[0]) / DAY_US / (values[2] - 1):,.1f}"
        case Real(digits=digits):
            return f"{values[0] / 10**digits:,.4g}"
        case _:
            return str(values[0])
