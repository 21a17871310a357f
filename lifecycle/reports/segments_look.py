"""Segments as of an instant beside an earlier one: sizes, movement, scores, predictions, all from the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Engine

from lifecycle.db.engine import reading
from lifecycle.errors import AuditFailed, TernError, UsageError
from lifecycle.reports import segments_counting as counting
from lifecycle.reports.segments_counting import Ends
from lifecycle.reports.segments_records import Build, Kind, Movement, Profile, SegmentsLook, Size, TrendPoint
from lifecycle.segments.members import newest_build
from lifecycle.settings import Config
from lifecycle.settings.segments import SegmentsFile

TREND_BUILDS = 60


def segments_look(
    engine: Engine, config: Config, *, as_of: datetime, since: datetime | None = None
) -> SegmentsLook:
    """The newest build as of `as_of` or before, beside the newest one as of `since` or before.

    Without `since` it stands beside the build before it. Raises TernError where nothing is built, UsageError for
    an instant without a build, and AuditFailed when the numbers do not add up.
    """
    with reading(engine) as connection:
        history = counting.builds(connection, as_of, TREND_BUILDS)
        if not history:
            raise _nothing_built(connection, as_of)
        now, before = history[0], _compared_with(connection, history[0], since)
        newest = newest_build(connection) or now.as_of
        told = _told_by(now, config)
        ends, movement = _moves(connection, config, before, now)
        customers = _customers(ends, told.chosen.names)
        look = SegmentsLook(
            build=_build(now),
            before=_build(before) if before is not None else None,
            newest_as_of=newest,
            definitions_changed=before is not None and before.definitions_hash != now.definitions_hash,
            currency=told.counted_orders.currency or config.base_currency,
            customers=customers,
            sizes=_sizes(config, ends, customers, before, history),
            movement=movement,
            profile=_profile(connection, told, now.as_of) if now.as_of == newest else None,
            prediction=counting.prediction(connection, as_of),
        )
    _check(look)
    return look


def _nothing_built(connection: Connection, until: datetime) -> TernError:
    first = counting.first_build(connection)
    if first is None:
        return TernError("segments have not been built; run: tern segment")
    return UsageError(f"no segments are built as of {_said(until)} or before; the first are as of {_said(first)}")


def _compared_with(connection: Connection, now: Any, since: datetime | None) -> Any | None:
    if since is None:
        wanted = counting.newest_build_before(connection, now.as_of)
        return None if wanted is None else counting.builds(connection, wanted, 1)[0]
    found = counting.builds(connection, since, 1)
    if not found:
        raise _nothing_built(connection, since)
    if found[0].as_of >= now.as_of:
        raise UsageError(
            f"nothing was built between {_said(since)} and {_said(now.as_of)} that could be compared; "
            "give an earlier instant to compare with"
        )
    return found[0]


def _build(row: Any) -> Build:
    return Build(row.as_of, row.built_at, row.kind, row.customers, row.definitions_hash)


def _told_by(run: Any, config: Config) -> SegmentsFile:
    """The definitions of that build; where this code cannot read them, those of today.

    A build keeps of all recipes the chosen one, under its name.
    """
    known = {name: value for name, value in run.definitions.items() if name in SegmentsFile.model_fields}
    if isinstance(chosen := known.get("recipe"), dict):
        known |= {"recipe": next(iter(chosen), ""), "recipes": chosen}
    try:
        return SegmentsFile.model_validate(known)
    except ValidationError:
        return config.segments_file


def _moves(
    connection: Connection, config: Config, before: Any | None, now: Any
) -> tuple[Mapping[str, Ends], Movement | None]:
    if before is None:
        return {segment: Ends(0, n, 0) for segment, n in counting.members(connection, now.as_of).items()}, None
    stayed = counting.stayed(connection, before.as_of, now.as_of)
    cells_before, cells_after = (_in_order(_told_by(run, config).chosen.names, config) for run in (before, now))
    return (
        counting.ends(connection, before.as_of, now.as_of, stayed),
        counting.movement(connection, before.as_of, now.as_of, cells_before, cells_after, stayed),
    )


def _in_order(segments: Iterable[str], config: Config) -> list[str]:
    """As configured; then by name those that are not, or no longer."""
    place = {name: number for number, name in enumerate(config.segment_names)}
    return sorted(segments, key=lambda name: (place.get(name, len(place)), name))


def _customers(ends: Mapping[str, Ends], cells: Iterable[str]) -> int:
    return sum(ends[cell].after for cell in cells if cell in ends)


def _sizes(
    config: Config, ends: Mapping[str, Ends], customers: int, before: Any | None, history: Sequence[Any]
) -> tuple[Size, ...]:
    compared = before is not None
    known = [run.counts for run in (history[0], before) if run is not None]
    segments = _in_order({*config.segment_names, *(name for name, each in ends.items() if any(each))}, config)
    sizes = []
    for segment in segments:
        each = ends.get(segment, Ends(0, 0, 0))
        sizes.append(
            Size(
                segment=segment,
                kind=_kind(segment, config),
                members=each.after,
                share=each.after / customers if customers else None,
                before=each.before if compared else None,
                entered=each.after - each.both if compared else None,
                left=each.before - each.both if compared else None,
                comparable=compared and all(segment in counts for counts in known),
                trend=tuple(TrendPoint(run.as_of, run.counts.get(segment)) for run in reversed(history)),
            )
        )
    return tuple(sizes)


def _kind(segment: str, config: Config) -> Kind:
    if segment in config.recipe.names:
        return "cell"
    return "other" if segment in config.segment_names else "gone"


def _profile(connection: Connection, told: SegmentsFile, as_of: datetime) -> Profile:
    return Profile(
        grid=counting.grid(connection, told.chosen),
        recency_days=counting.recency_days(connection, as_of),
        frequency=counting.frequency(connection),
        spend=counting.spend_tenths(connection),
    )


def _check(look: SegmentsLook) -> None:
    """Raises AuditFailed where two ways to the same number disagree."""
    if (movement := look.movement) is None:
        return
    sizes = {size.segment: size for size in look.sizes}
    wrong = [
        f"{cell} had {sizes[cell].before} members, {movement.was(cell)} by movement"
        for cell in movement.cells_before
        if cell in sizes and movement.was(cell) != sizes[cell].before
    ]
    wrong += [
        f"{cell} has {sizes[cell].members} members, {movement.became(cell)} by movement"
        for cell in movement.cells_after
        if cell in sizes and movement.became(cell) != sizes[cell].members
    ]
    if wrong:
        raise AuditFailed(f"segments as of {_said(look.build.as_of)} do not add up: {'; '.join(wrong)}")


def _said(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"
