"""One set of rules, day after day: its campaigns judged, its messages in a ledger of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, insert, literal, select

from lifecycle.db.arrays import NULL
from lifecycle.db.schema import VERDICTS, Instant, messages
from lifecycle.planning import quotas
from lifecycle.planning.caps import going_first
from lifecycle.planning.contest import Contender, Outcome, contest
from lifecycle.planning.judgement import Judgement
from lifecycle.planning.past import Past
from lifecycle.planning.plan import rules_of
from lifecycle.planning.records import Slots
from lifecycle.planning.simulation.days import Day
from lifecycle.planning.simulation.history import History, Places
from lifecycle.planning.simulation.ledger import Ledger
from lifecycle.planning.simulation.records import Count, Replayed, SlotUse
from lifecycle.planning.simulation.standing import Standing, Told, asked, asks_ledger, fill_asked, shop_of
from lifecycle.planning.values import Values, expected_values
from lifecycle.planning.verdicts import competing, rivals_among
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign, CapRule, Quota


@dataclass(frozen=True, eq=False)
class Decision:
    """What a campaign of one day came to under the rules `world`. number (n,): place in `told` of each person's
    verdict with its rule."""

    world: str
    day: Day
    campaign: str
    customer_id: NDArray[np.int64]
    number: NDArray[np.int64]
    told: Sequence[tuple[str, str | None]]


OnDecision = Callable[[Decision], None]


class World:
    """`step` through the days from the first, each after the history's."""

    def __init__(
        self,
        connection: Connection,
        name: str,
        config: Config,
        history: History,
        standings: Mapping[str, Standing],
        told: Told,
        sent: Table,
        start: datetime,
    ) -> None:
        """`start`: from here on stored messages do not count. `sent`: for messages that reasons ask about."""
        first = history.days[0].at
        self.name, self.config, self.history, self.standings = name, config, history, standings
        self._connection, self._told, self._sent = connection, told, sent
        self._caps, self._quotas = rules_of(config), config.caps_file.quotas
        self._ledger = Ledger(connection, config, history, self._caps, self._quotas, start, first)
        self._values = expected_values(connection, config, list(config.campaigns.values()), at=first)
        self._counted: Counter[tuple[date, str, int]] = Counter()
        self._messages = np.zeros(len(history.people.ids), dtype=np.int64)
        self._slots: dict[tuple[str, str], SlotUse] = {}
        self._fill_sent(start)

    def step(self, number: int, on_decision: OnDecision) -> None:
        """Every campaign of the day."""
        day, done = self.history.days[number], set[str]()
        for campaign in self.config.due(day.date):
            on_decision(self._run(day, campaign, done))
            done.add(campaign.name)

    def replayed(self) -> Replayed:
        counts = [
            Count(day, campaign, *self._told.names[number], people)
            for (day, campaign, number), people in self._counted.items()
        ]
        counts.sort(key=lambda each: (each.date, each.campaign, VERDICTS.index(each.verdict), each.rule or ""))
        return Replayed(tuple(counts), self._messages, dict(self._slots))

    def _run(self, day: Day, campaign: Campaign, done: set[str]) -> Decision:
        judgement = Judgement(
            self.config, campaign, day.date.isoformat(), day.at, day.since, self._caps, self._quotas
        )
        standing = self.standings[campaign.name]
        meant, number = standing.on(day)
        compete = number == 0
        if compete.any():
            mine = standing.contender(meant[compete], day.at)
            sources = _Sources(self._ledger, self.history, self._values, judgement, day)
            rivals = self._rivals(judgement, day, done)
            outcome = contest(sources, judgement, mine, competing(judgement, mine, rivals))
            number[compete] = self._numbers(outcome, mine.customer_id)
            self._note_slots(outcome.slots)
        self._send(day, campaign, meant[number == 0])
        for each, people in zip(*np.unique(number, return_counts=True), strict=True):
            self._counted[day.date, campaign.name, int(each)] += int(people)
        return Decision(
            self.name, day, campaign.name, self.history.people.ids[meant], number, tuple(self._told.names)
        )

    def _rivals(self, judgement: Judgement, day: Day, done: set[str]) -> tuple[Contender, ...]:
        def standing(other: Campaign) -> Contender:
            meant, number = self.standings[other.name].on(day)
            return self.standings[other.name].contender(meant[number == 0], day.at)

        return rivals_among(judgement, lambda other: other.name in done, standing)

    def _numbers(self, outcome: Outcome, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of verdict and rule of each of these people."""
        places = np.searchsorted(outcome.customer_id, ids)
        rule = outcome.rule[places]
        pairs = outcome.verdict[places] * (len(outcome.rules) + 1) + np.where(rule == NULL, 0, rule + 1)
        different, place = np.unique(pairs, return_inverse=True)
        numbers = []
        for pair in different.tolist():
            verdict, rule_place = divmod(pair, len(outcome.rules) + 1)
            named = outcome.rules[rule_place - 1] if rule_place else None
            numbers.append(self._told.number(VERDICTS[verdict], named) if verdict else 0)
        return np.array(numbers, dtype=np.int64)[place]

    def _send(self, day: Day, campaign: Campaign, whom: Places) -> None:
        self._ledger.append(day, campaign, whom)
        self._messages[whom] += 1
        if asks_ledger(self.config, campaign) and len(whom):
            fill_asked(self._connection, self.history, whom)
            number = day.number * len(self.config.campaigns) + list(self.config.campaigns).index(campaign.name)
            values = (literal(-number - 1), shop_of(self.history.shops), literal(campaign.purpose))
            when = (literal(day.at, Instant()), literal("accepted"))
            self._insert(select(asked.c.customer_id, *values, *when))

    def _fill_sent(self, start: datetime) -> None:
        purposes = {each.purpose for each in self.config.campaigns.values() if asks_ledger(self.config, each)}
        if purposes:
            stored = select(*(messages.c[column.name] for column in self._sent.c))
            self._insert(stored.where(messages.c.purpose.in_(purposes), messages.c.send_at < start))

    def _insert(self, rows: Any) -> None:
        names = [column.name for column in self._sent.c]
        self._connection.execute(insert(self._sent).from_select(names, rows))

    def _note_slots(self, slots: Sequence[Slots]) -> None:
        for each in slots:
            key = each.rule, each.group
            self._slots[key] = self._slots.get(key, SlotUse()) + SlotUse(
                each.wanted, each.taken, int(each.used + each.taken >= each.limit)
            )


class _Sources:
    """What the contest of a day asks (planning.contest.Sources), from the simulated ledger."""

    def __init__(self, ledger: Ledger, history: History, values: Values, judgement: Judgement, day: Day) -> None:
        self._ledger, self._history, self._values = ledger, history, values
        self._judgement, self._day = judgement, day

    def past(self, ids: NDArray[np.int64], shop: NDArray[np.int64], rules: Sequence[CapRule]) -> Past:
        first = going_first(self._judgement.config.campaigns_file.campaigns, self._judgement.campaign)
        return self._ledger.past(ids, shop, rules, self._day, first)

    def members(self, segments: Sequence[str]) -> NDArray[np.int64]:
        return self._history.people.ids[self._history.members_when_built.any_of(segments)]

    def used(self, quota: Quota, at: datetime) -> quotas.Used:
        return self._ledger.used(quota, at)

    def values(self, campaigns: Sequence[Campaign]) -> Values:
        return self._values
