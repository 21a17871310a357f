"""Builds the segments as of an instant: metrics of everybody, and who entered and who left which segment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    delete,
    except_,
    func,
    insert,
    literal,
    select,
    text,
    tuple_,
    update,
)

from lifecycle.db.engine import writing
from lifecycle.db.schema import Instant, customer_metrics, segment_members, segment_runs
from lifecycle.errors import TernError, UsageError
from lifecycle.segments.definitions import memberships, scored_metrics
from lifecycle.segments.members import newest_build
from lifecycle.segments.records import SegmentBuild
from lifecycle.settings import Config

_SPAN = (segment_members.c.segment, segment_members.c.customer_id)
_OPEN = segment_members.c.valid_to.is_(None)


def build(
    engine: Engine, config: Config, *, as_of: datetime, now: datetime, run_id: str | None = None
) -> SegmentBuild:
    """Replace the metrics and bring the membership spans up to `as_of`, all or nothing.

    Building again for the same `as_of` corrects that build: equal orders change nothing. Raises UsageError for an
    `as_of` after `now`, and TernError for one before the newest build, whose spans must not be rewritten.
    """
    if as_of > now:
        raise UsageError(f"segments cannot be built as of {as_of:%Y-%m-%d %H:%M} UTC: that is in the future")
    with writing(engine) as connection:
        hold_members(connection, alone=True)
        _refuse_earlier(newest_build(connection), as_of)
        _replace_metrics(connection, config, as_of)
        _move_members(connection, config, as_of)
        done = SegmentBuild(
            as_of=as_of,
            customers=connection.execute(select(func.count()).select_from(customer_metrics)).scalar_one(),
            counts=_counts(connection, config, _OPEN),
            entered=_counts(connection, config, segment_members.c.valid_from == as_of),
            left=_counts(connection, config, segment_members.c.valid_to == as_of),
        )
        _record(connection, config, done, now, run_id)
    return done


def hold_members(connection: Connection, *, alone: bool = False) -> None:
    """Keep builds from changing members until this transaction ends; `alone` for the one who changes them.
    In SQLite every writing transaction is alone."""
    if connection.dialect.name == "postgresql":
        mode = "exclusive" if alone else "share"
        connection.execute(text(f"lock table customer_metrics in {mode} mode"))


def _refuse_earlier(newest: datetime | None, as_of: datetime) -> None:
    if newest is not None and as_of < newest:
        raise TernError(
            f"segments are already built until {newest:%Y-%m-%d %H:%M:%S} UTC, so they cannot be built as of "
            f"{as_of:%Y-%m-%d %H:%M:%S}; to look back run: "
            f"tern segments export --as-of {as_of:%Y-%m-%dT%H:%M:%SZ} --out FILE"
        )


def _replace_metrics(connection: Connection, config: Config, as_of: datetime) -> None:
    connection.execute(delete(customer_metrics))
    computed = scored_metrics(config, as_of).subquery("computed")
    names = [column.name for column in computed.c]
    rows = select(computed, literal(as_of, Instant()))
    connection.execute(insert(customer_metrics).from_select([*names, "as_of"], rows))


def _move_members(connection: Connection, config: Config, as_of: datetime) -> None:
    """Close the spans of those who left, open spans for those who entered. What an earlier build for this very
    instant opened and closed is undone first, so that it can be corrected and no span is empty."""
    connection.execute(delete(segment_members).where(segment_members.c.valid_from == as_of))
    reopened = update(segment_members).where(segment_members.c.valid_to == as_of)
    connection.execute(reopened.values(valid_to=None))

    wanted = select(memberships(customer_metrics, config, as_of).subquery("wanted"))
    current = select(*_SPAN).where(_OPEN)
    closed = update(segment_members).where(_OPEN, tuple_(*_SPAN).in_(except_(current, wanted)))
    connection.execute(closed.values(valid_to=as_of))
    entered = except_(wanted, current).subquery("entered")
    connection.execute(
        insert(segment_members).from_select(
            ["segment", "customer_id", "valid_from"], select(entered, literal(as_of, Instant()))
        )
    )


def _counts(connection: Connection, config: Config, spans: ColumnElement[bool]) -> Mapping[str, int]:
    """Spans per segment, every defined segment named; one that is defined no more while it still moves."""
    query = select(segment_members.c.segment, func.count()).where(spans).group_by(segment_members.c.segment)
    found = {segment: count for segment, count in connection.execute(query)}
    return dict.fromkeys(config.segment_names, 0) | found


def _record(connection: Connection, config: Config, done: SegmentBuild, now: datetime, run_id: str | None) -> None:
    definitions = config.segments_file.model_dump(mode="json") | {"base_currency": config.base_currency}
    canonical = json.dumps(definitions, sort_keys=True).encode()
    connection.execute(delete(segment_runs).where(segment_runs.c.as_of == done.as_of))
    connection.execute(
        insert(segment_runs).values(
            as_of=done.as_of,
            built_at=now,
            definitions_hash=hashlib.sha256(canonical).hexdigest(),
            definitions=definitions,
            customers=done.customers,
            counts=dict(done.counts),
            run_id=run_id,
        )
    )
