"""Gives every open and click a class. Raw events stay as they are; classes are kept beside them under the
version of the rules, so that better rules can be run over the same events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
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
        since = _oldest_without_class(connection, version, settled)
        if since is None:
            return Classified()
        bursts = find_bursts(_clicks(connection, since - IP_MEMORY), tracking)
    for events in _without_class(engine, version, settled):
        result = judge(events, bursts, tracking)
        _keep(engine, result, version)
        counts.update(zip(events["kind"], result["class"], strict=True))
    return Classified(dict(counts))


def _select_without_class(version: str, settled: datetime, *columns: Any) -> Select[Any]:
    event, class_ = message_events.c, event_classes.c
    return (
        select(*columns)
        .select_from(
            message_events.join(messages, messages.c.message_id == event.message_id).outerjoin(
                event_classes, and_(class_.event_id == event.event_id, class_.rules_version == version)
            )
        )
        .where(event.kind.in_(("opened", "clicked")), event.occurred_at <= settled, class_.event_id.is_(None))
    )


def _oldest_without_class(connection: Connection, version: str, settled: datetime) -> datetime | None:
    query = _select_without_class(version, settled, func.min(message_events.c.occurred_at))
    return connection.execute(query).scalar()


def _without_class(engine: Engine, version: str, settled: datetime) -> Iterator[pd.DataFrame]:
    """Batches in the shape that `rules.judge` wants, and the kind."""
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
    )
    last = 0
    while True:
        with reading(engine) as connection:
            batch = query.where(event.event_id > last).order_by(event.event_id).limit(_BATCH)
            events = _frame(connection, batch)
        if events.empty:
            return
        last = int(events["event_id"].iloc[-1])
        events["prefetch"] = events["detail"].map(lambda detail: bool(detail and detail.get("prefetch")))
        yield events


def _clicks(connection: Connection, since: datetime) -> pd.DataFrame:
    event = message_events.c
    columns = (event.event_id, event.message_id, event.link_id, event.occurred_at, event.ip)
    return _frame(connection, select(*columns).where(event.kind == "clicked", event.occurred_at >= since))


def _frame(connection: Connection, query: Select[Any]) -> pd.DataFrame:
    result = connection.execute(query)
    frame = pd.DataFrame(result.all(), columns=list(result.keys()))
    for column in {"occurred_at", "sent_at"} & set(frame.columns):
        frame[column] = pd.to_datetime(frame[column], utc=True)
    return frame


def _keep(engine: Engine, result: pd.DataFrame, version: str) -> None:
    rows = [
        {"event_id": event_id, "rules_version": version, "class": class_, "evidence": evidence}
        for event_id, class_, evidence in result.itertuples(index=False)
    ]
    with writing(engine) as connection:
        upsert(connection, event_classes, rows, key=("event_id", "rules_version"))
