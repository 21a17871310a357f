"""Classes in the database: every hit once per version of the rules, however often and in whatever portions."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, delete, select

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import event_classes, message_events
from lifecycle.settings import Config
from lifecycle.tracking import classify as module
from lifecycle.tracking.classify import classify
from lifecycle.tracking.collect import collect
from lifecycle.tracking.rules import rules_version
from tests.tracking.corpus import SENT_AT, Seen, corpus, frame
from tests.tracking.ledger import send_mails

LATER = SENT_AT + timedelta(days=30)


def store(engine: Engine, seen: list[Seen]) -> None:
    """In the order of time, as the web app does it."""
    rows = [
        {"message_id": 101 + hit.message_id, "kind": hit.kind, "link_id": hit.link_id, "ip": hit.ip,
         "source": "web",
         "occurred_at": SENT_AT + timedelta(seconds=hit.seconds), "user_agent": hit.user_agent,
         "detail": {"prefetch": True} if hit.prefetch else None}
        for hit in sorted(seen, key=lambda hit: hit.seconds)
    ]  # fmt: skip
    with writing(engine) as connection:
        connection.execute(message_events.insert(), rows)


def classes(engine: Engine, version: str) -> dict[int, tuple[str, str]]:
    query = select(event_classes.c.event_id, event_classes.c["class"], event_classes.c.evidence)
    with reading(engine) as connection:
        rows: Any = connection.execute(query.where(event_classes.c.rules_version == version))
        return {event_id: (class_, evidence) for event_id, class_, evidence in rows}


@pytest.fixture
def mailing(engine: Engine) -> list[Seen]:
    seen = corpus(5, messages=150)
    send_mails(engine, b"x" * 32, 150)
    store(engine, seen)
    return seen


def test_in_portions_it_says_the_same_as_at_once(
    engine: Engine, config: Config, mailing: list[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = rules_version(config.channels_file.tracking)
    assert classify(engine, config, now=LATER).events == len(mailing)
    at_once = classes(engine, version)
    with writing(engine) as connection:
        connection.execute(delete(event_classes))
    monkeypatch.setattr(module, "_BATCH", 7)
    moments = sorted({hit.seconds for hit in mailing})
    total = sum(
        classify(engine, config, now=SENT_AT + timedelta(seconds=moment + 0.1)).events for moment in moments[::9]
    )
    total += classify(engine, config, now=LATER).events
    assert total == len(mailing)
    assert classes(engine, version) == at_once


def test_again_finds_nothing_and_new_rules_leave_the_old_classes(
    engine: Engine, config: Config, mailing: list[Seen], changed: Any
) -> None:
    version = rules_version(config.channels_file.tracking)
    classify(engine, config, now=LATER)
    before = classes(engine, version)
    assert classify(engine, config, now=LATER).events == 0
    stricter = {**config.channels_file.tracking.model_dump(), "scanner_seconds": 600}
    other = changed(channels_file={"tracking": stricter})
    assert classify(engine, other, now=LATER).events == len(mailing)
    after = classes(engine, rules_version(other.channels_file.tracking))
    assert classes(engine, version) == before
    assert sum(before[event] != after[event] for event in before) > 10


def test_the_last_moments_are_left_for_the_next_time(engine: Engine, config: Config) -> None:
    send_mails(engine, b"x" * 32, 1)
    hits = [
        Seen("clicked", 0, 100 + n, frame(corpus(1))["user_agent"].iloc[0], "81.0.0.1", "", n) for n in range(3)
    ]
    store(engine, hits)
    last: datetime = SENT_AT + timedelta(seconds=102)
    assert collect(engine, config, now=last).events == 0
    assert collect(engine, config, now=last + timedelta(seconds=3)).events == 2
    assert collect(engine, config, now=last + timedelta(seconds=4)).events == 1


def test_events_of_other_kinds_get_no_class(engine: Engine, config: Config) -> None:
    send_mails(engine, b"x" * 32, 1)
    store(engine, [Seen("unsubscribed", 0, 50, "x", "81.0.0.1", ""), Seen("opened", 0, 60, "x", "81.0.0.1", "")])
    assert collect(engine, config, now=LATER).counts == {("opened", "unknown"): 1}


def test_what_was_collected_is_said_in_a_sentence(engine: Engine, config: Config, mailing: list[Seen]) -> None:
    collected = collect(engine, config, now=LATER)
    assert collected.sentence().startswith(f"{len(mailing):,} new hits: opened ")
    assert sum(collected.counts.values()) == len(mailing)
    assert collect(engine, config, now=LATER).sentence() == "No new opens or clicks."
