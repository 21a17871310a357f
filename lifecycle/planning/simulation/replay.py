"""Day after day: the campaigns of each date, judged and sent in memory, under one or two sets of rules at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Table, text

from lifecycle.db.engine import one_session
from lifecycle.planning.judgement import candidates, decided
from lifecycle.planning.simulation.days import Day, begins, days_of, instants, is_fresh, stored_builds
from lifecycle.planning.simulation.history import History, People
from lifecycle.planning.simulation.really import Really
from lifecycle.planning.simulation.records import Simulation
from lifecycle.planning.simulation.spans import Spans, segments_asked, stored_spans, swept_spans
from lifecycle.planning.simulation.standing import Standing, Told, asked, asks_ledger, sent_table
from lifecycle.planning.simulation.world import OnDecision, World
from lifecycle.segments.backfill import days_of as midnights_of
from lifecycle.segments.moments import points
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign

CONFIGURED, OTHER = "configured", "other"

OnProgress = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much."""


def simulate(
    engine: Engine,
    config: Config,
    *,
    first: date,
    last: date,
    now: datetime,
    other: Config | None = None,
    on_progress: OnProgress = lambda what, done, of: None,
    on_decision: OnDecision = lambda decision: None,
) -> Simulation:
    """Replay every day from `first` to `last` under the configured rules, and under `other` ones beside them.

    `other` may differ in caps, campaigns and segments; for other segments every day is built again, in memory.
    Nothing is sent, and nothing is written but temporary tables. The same database gives the same result.

    Raises UsageError for a range that is empty or reaches into the future, PlanError where no segments are built
    in it, and ConfigError for unsound definitions of segments.
    """
    configs = [config] if other is None else [config, other]
    sent = [sent_table(number) for number, _ in enumerate(configs)]
    with _session(engine, sent) as connection:
        grounds = _grounds(connection, configs, first, last, now, on_progress)
        really = Really(connection, [begins(config, day) for day in _dates(first, last + timedelta(days=1))])
        people = People.of(connection, [really.customer_id, *(ids for each in grounds for ids in each.ids())])
        histories = [each.history(connection, people) for each in grounds]
        worlds: list[World] = []
        told = Told()
        for each, table in zip(configs, sent, strict=True):
            name = OTHER if worlds else CONFIGURED
            [history] = (h for ground, h in zip(grounds, histories, strict=True) if ground.carries(each))
            standings = _standings(connection, each, history, told, table, worlds)
            worlds.append(World(connection, name, each, history, standings, told, table, begins(each, first)))
        _replay(histories, worlds, on_progress, on_decision)
        return Simulation(
            first=first,
            last=last,
            customer_ids=people.ids,
            really=really.replayed(people, first),
            configured=worlds[0].replayed(),
            other=None if other is None else worlds[1].replayed(),
            segments=dict(histories[0].members.masks),
            days_without_build=sum(not is_fresh(day) for day in histories[0].days),
        )


@contextmanager
def _session(engine: Engine, sent: Sequence[Table]) -> Iterator[Connection]:
    with one_session(engine, [candidates, decided, points, asked, *sent]) as connection:
        if connection.dialect.name == "postgresql":  # which lets temporary tables be written all the same
            connection.execute(text("set transaction read only"))
        yield connection


def _replay(
    histories: Sequence[History], worlds: Sequence[World], on_progress: OnProgress, on_decision: OnDecision
) -> None:
    days = len(histories[0].days)
    for number in range(days):
        for history in histories:
            history.step(number)
        for world in worlds:
            world.step(number, on_decision)
        on_progress("days simulated", number + 1, days)


def _standings(
    connection: Connection, config: Config, history: History, told: Told, sent: Table, others: Sequence[World]
) -> dict[str, Standing]:
    """By campaign; shared with a world in which the same people have the same reasons."""

    def shared(campaign: Campaign) -> Standing | None:
        hold_out = config.campaigns_file.global_hold_out
        same = (
            world.standings[campaign.name]
            for world in others
            if world.history is history
            and world.config.campaigns.get(campaign.name) == campaign
            and world.config.campaigns_file.global_hold_out == hold_out
        )
        return None if asks_ledger(config, campaign) else next(same, None)

    return {
        name: shared(campaign) or Standing(connection, config, campaign, history, told, sent)
        for name, campaign in config.campaigns.items()
    }


@dataclass(frozen=True, eq=False)
class _Ground:
    """Days and spans that rules share which define the same segments and date their campaigns in the same zone."""

    config: Config
    days: Sequence[Day]
    spans: Mapping[str, Spans]
    stored: bool

    def carries(self, config: Config) -> bool:
        return _alike(self.config, config)

    def ids(self) -> Iterator[NDArray[np.int64]]:
        return (each.customer_id for each in self.spans.values())

    def history(self, connection: Connection, people: People) -> History:
        return History(connection, self.config, people, self.days, self.spans, stored=self.stored)


def _alike(one: Config, other: Config) -> bool:
    return (
        one.segments_file == other.segments_file and one.campaigns_file.timezone == other.campaigns_file.timezone
    )


def _grounds(
    connection: Connection,
    configs: Sequence[Config],
    first: date,
    last: date,
    now: datetime,
    on_progress: OnProgress,
) -> list[_Ground]:
    """Where the segments are those that are configured, as they are stored, else as they would have been built."""
    found: list[_Ground] = []
    for config in configs:
        if any(each.carries(config) for each in found):
            continue
        at = instants(config, first, last, now)
        alike = [each for each in configs if _alike(each, config)]
        segments = dict.fromkeys(name for each in alike for name in segments_asked(each))
        stored = config.segments_file == configs[0].segments_file
        if stored:
            days = days_of(first, at, stored_builds(connection, at[-1]))
            spans = stored_spans(connection, segments, at[0], at[-1])
        else:
            builds = [each for each in midnights_of(first - timedelta(days=1), last) if each <= at[-1]]
            days = days_of(first, at, builds)
            spans = swept_spans(connection, config, segments, builds, on_progress)
        found.append(_Ground(config, days, spans, stored))
    return found


def _dates(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]
