"""Gives every open and click a class. Raw events stay as they are; classes are kept beside them under the
version of the rules, so that better rules can be run over the same events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
from sqlalchemy import Connection, Engine, Select, and_, func, select

from lifecycle.db.bulk import upsert
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import event_classes, message_events, messages
from lifecycle.settings import Config
from lifecycle.tracking.rules import IP_MEMORY, RULES_VERSION, find_bursts, judge, rules_version

__all__ = ["RULES_VERSION", "Classified", "classify", "rules_version"]

_KINDS = ("opened", "clicked")
_BATCH = 50_000


@dataclass(frozen=True)
class Classified:
    """How many events got a class now, by (kind, class)."""

    counts: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def events(self) -> int:
        return sum(self.counts.values())


def classify(engine: Engine, config: Config, *, now: datetime) -> Classified:
    """Class every open and click that has no class under these rules. Again: only what is new.

    The last moments before `now` are left for the next time, because a burst may still be going on.
    """
    tracking = config.channels_file.tracking
    version = rules_version(tracking)
    settled = now - timedelta(seconds=2 * tracking.burst_seconds)
    counts: Counter[tuple[str, str]] = Counter()
    with reading(engine) as connection:
        first, last, since = _without_class(connection, version, settled)
        if first is None:
            return Classified()
        bursts = find_bursts(_clicks(connection, since - IP_MEMORY), tracking)
    for start in range(first, last + 1, _BATCH):
        with reading(engine) as connection:
            events = _batch(connection, version, settled, start, min(start + _BATCH, last + 1))
        result = judge(events, bursts, tracking)
        _keep(engine, result, version)
        counts.update(zip(events["kind"], result["class"], strict=True))
    return Classified(dict(counts))


def _without_class(connection: Connection, version: str, settled: datetime) -> Any:
    """Lowest and highest id, and the earliest instant, of the events that have no class yet."""
    event = message_events.c
    query = _select_without_class(
        version, settled, func.min(event.event_id), func.max(event.event_id), func.min(event.occurred_at)
    )
    return connection.execute(query.where(event.kind.in_(_KINDS))).one()


def _batch(connection: Connection, version: str, settled: datetime, start: int, stop: int) -> pd.DataFrame:
    """Events with start <= event_id < stop in the shape that `rules.judge` wants, and the kind.

    The kind is not asked in SQL: SQLite would read by its index, and all events for every batch.
    """
    event = message_events.c
    query = _select_without_class(
        version,
        settled,
        event.event_id,
        event.kind,
        event.occurred_at,
        messages.c.sent_at,
        event.user_agent,
        event.ip,
        event.detail,
    ).where(event.event_id >= start, event.event_id < stop)
    events = _frame(connection, query)
    events = events[events["kind"].isin(_KINDS)].reset_index(drop=True)
    for name in ("prefetch", "read"):
        events[name] = [bool(isinstance(detail, dict) and detail.get(name)) for detail in events["detail"]]
    return events


def _select_without_class(version: str, settled: datetime, *columns: Any) -> Select[Any]:
    event, class_ = message_events.c, event_classes.c
    return (
        select(*columns)
        .select_from(
            message_events.join(messages, messages.c.message_id == event.message_id).outerjoin(
                event_classes, and_(class_.event_id == event.event_id, class_.rules_version == version)
            )
        )
        .where(event.occurred_at <= settled, class_.event_id.is_(None))
    )


def _clicks(connection: Connection, since: datetime) -> pd.DataFrame:
    event = message_events.c
    columns = (event.event_id, event.message_id, event.link_id, event.occurred_at, event.ip)
    return _frame(connection, select(*columns).where(event.kind == "clicked", event.occurred_at >= since))


def _frame(connection: Connection, query: Select[Any]) -> pd.DataFrame:
    result = connection.execute(query)
    names, rows = list(result.keys()), result.all()
    frame = pd.DataFrame(
        dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {name: [] for name in names}
    )
    for column in {"occurred_at", "sent_at"} & set(names):
        frame[column] = pd.to_datetime(frame[column], utc=True)
    return frame


def _keep(engine: Engine, result: pd.DataFrame, version: str) -> None:
    rows = [
        {"event_id": event_id, "rules_version": version, "class": class_, "evidence": evidence}
        for event_id, class_, evidence in result.itertuples(index=False)
    ]
    with writing(engine) as connection:
        upsert(connection, event_classes, rows, key=("event_id", "rules_version"))
