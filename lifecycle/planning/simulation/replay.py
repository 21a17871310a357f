"""Day after day: the campaigns of the date, judged and sent in memory, under one or two sets of rules at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, Engine, Table, text

from lifecycle.db.engine import one_session
from lifecycle.planning.judgement import candidates, decided
from lifecycle.planning.simulation.days import (
    Day,
    begins,
    days_of,
    instants,
    is_fresh,
    stored_builds,
)
from lifecycle.planning.simulation.history import History, People
from lifecycle.planning.simulation.records import Simulation
from lifecycle.planning.simulation.really import Really
from lifecycle.planning.simulation.spans import Spans, segments_asked, stored_spans, swept_spans
from lifecycle.planning.simulation.standing import Standing, asked, asks_ledger, said, sent_table
from lifecycle.planning.simulation.world import Decision, Told, World
from lifecycle.segments.backfill import days_of as builds_of
from lifecycle.segments.moments import points
from lifecycle.settings import Config

CONFIGURED, OTHER = "configured", "other"

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it and of how much."""


def simulate(
    engine: Engine,
    config: Config,
    *,
    first: date,
    last: date,
    now: datetime,
    other: Config | None = None,
    on_progress: Progress = lambda what, number, of: None,
    on_decision: Callable[[Decision], None] = lambda decision: None,
) -> Simulation:
    """Replay every day from `first` to `last` under the configured rules, and under `other` ones beside them.

    `other` may differ in caps, campaigns and segments; for other segments every day is built again, in memory.
    Nothing is sent and nothing is written but temporary tables. The same database gives the same result.

    Raises UsageError for a range that is empty or reaches into the future, PlanError where no segments are built in
    it, and ConfigError for unsound definitions of segments.
    """
    configs = {CONFIGURED: config} | ({OTHER: other} if other else {})
    tables = [sent_table(number) for number, _ in enumerate(configs)]
    with _session(engine, tables) as connection:
        grounds = _grounds(connection, list(configs.values()), first, last, now, on_progress)
        really = Really(connection, begins(config, first), begins(config, last + timedelta(days=1)))
        people = People.of(connection, [really.customer_id, *(ids for ground in grounds for ids in ground.ids())])
        histories = [ground.history(connection, people) for ground in grounds]
        worlds: list[World] = []
        told = Told()
        for (name, each), table in zip(configs.items(), tables, strict=True):
            history = next(h for g, h in zip(grounds, histories, strict=True) if g.carries(each))
            standings = _standings(connection, each, history, told, table, worlds)
            start = begins(each, first)
            worlds.append(World(connection, name, each, history, standings, told, table, start))
        of = len(histories[0].days)
        for number in range(of):
            for history in histories:
                changed = history.step(number)
                for standing in {id(s): s for w in worlds if w.history is history for s in w.standings.values()}.values():
                    standing.note(changed)
            for world in worlds:
                world.step(number, on_decision)
            on_progress("days simulated", number + 1, of)
        replayed = [world.replayed() for world in worlds]
        return Simulation(
            first=first,
            last=last,
            customer_ids=people.ids,
            really=really.replayed(people, first),
            configured=replayed[0],
            other=replayed[1] if other else None,
            segments=dict(histories[0].members.masks),
            days_without_build=sum(not is_fresh(day) for day in histories[0].days),
        )
