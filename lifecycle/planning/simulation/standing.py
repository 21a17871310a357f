"""Whom a campaign is meant for on each day and who may not be written to, caps apart, by the reasons of a plan.

The database is asked again only about people for whom something has changed since they were asked last.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    case,
    delete,
    literal,
    select,
)
from sqlalchemy.sql import visitors

from lifecycle.db.arrays import arrays
from lifecycle.db.bulk import load_numbers
from lifecycle.db.schema import Big, Instant, messages
from lifecycle.planning.contest import Contender
from lifecycle.planning.judgement import Judgement, candidates, decided
from lifecycle.planning.simulation.days import Day
from lifecycle.planning.simulation.history import History, Places
from lifecycle.planning.verdicts import ask
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign
from lifecycle.settings.policies import needs, once_per_order

_NOT_MEANT = -1

asked = Table(
    "asked",
    MetaData(),
    Column("customer_id", Big, primary_key=True, autoincrement=False),
    Column("shop", Integer, nullable=False, comment="place among the shops of the history"),
    prefixes=["temporary"],
)
"""Whom the reasons are asked about."""


def sent_table(number: int) -> Table:
    """Messages of one simulated ledger that reasons ask about: those that may be sent once per order."""
    return Table(
        f"sent_{number}",
        MetaData(),
        Column("customer_id", Big, primary_key=True, autoincrement=False),
        Column("message_id", Big, primary_key=True, autoincrement=False, comment="negative: simulated"),
        Column("shop", Text),
        Column("purpose", Text, nullable=False),
        Column("reserved_at", Instant, nullable=False),
        Column("state", Text, nullable=False),
        prefixes=["temporary"],
    )


class Told:
    """Verdicts with their rules, each with a number; 0 is selected."""

    def __init__(self) -> None:
        self.names: list[tuple[str, str | None]] = [("selected", None)]
        self._numbers = {self.names[0]: 0}

    def number(self, verdict: str, rule: str | None) -> int:
        name = verdict, rule
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]


class Standing:
    """Of one campaign. `sent`: where its own simulated messages are."""

    def __init__(
        self, connection: Connection, config: Config, campaign: Campaign, history: History, told: Told, sent: Table
    ) -> None:
        people = history.people.ids
        self._connection, self._config, self._campaign = connection, config, campaign
        self._history, self._told, self._sent = history, told, sent
        self._asks_ledger = asks_ledger(config, campaign)
        self._changes_daily = self._asks_ledger or has_windows(config, campaign)
        self._seen = 0
        self._to_ask = np.ones(len(people), dtype=bool)
        self._reason = np.zeros(len(people), dtype=np.int64)
        self._segment = np.full(len(people), _NOT_MEANT, dtype=np.int64)

    def on(self, day: Day) -> tuple[Places, NDArray[np.int64]]:
        """The places of everybody whom the campaign is meant for, and the number of what was told of each: 0
        where there is no reason not to write."""
        for changed in self._history.changed[self._seen : day.number + 1]:
            self._to_ask[changed] = True
        self._seen = day.number + 1
        self._segment = self._meant()
        meant = self._segment != _NOT_MEANT
        if self._changes_daily:
            self._to_ask[meant] = True
        whom = np.flatnonzero(meant & self._to_ask)
        if len(whom):
            self._reason[whom] = self._ask(day, whom)
            self._to_ask[whom] = False
        everybody = np.flatnonzero(meant)
        return everybody, self._reason[everybody]

    def contender(self, whom: Places, at: datetime) -> Contender:
        """People of the day who are standing, to be written to `at`, as the contest wants them."""
        people = self._history.people
        return Contender(
            campaign=self._campaign,
            at=at,
            customer_id=people.ids[whom],
            segment=self._segment[whom],
            shop=self._history.shop[whom],
            seed=people.seed[whom],
        )

    def _meant(self) -> NDArray[np.int64]:
        """The first of the campaign's segments that each is in."""
        masks, campaign = self._history.members.masks, self._campaign
        segment = np.full(len(self._to_ask), _NOT_MEANT, dtype=np.int64)
        for place, name in reversed(list(enumerate(campaign.segments))):
            segment[masks[name]] = place
        for name in campaign.exclude:
            segment[masks[name]] = _NOT_MEANT
        if campaign.shops is not None:
            places = [self._history.shops.index(name) for name in campaign.shops]
            segment[~np.isin(self._history.shop, places)] = _NOT_MEANT
        return segment

    def _ask(self, day: Day, whom: Places) -> NDArray[np.int64]:
        connection = self._connection
        fill_asked(connection, self._history, whom)
        for table in (candidates, decided):
            connection.execute(delete(table))
        judgement = Judgement(self._config, self._campaign, day.date.isoformat(), day.at, day.since)
        ask(connection, self._people(), judgement, over=self._over)
        found = arrays(connection, select(decided.c.customer_id, decided.c.verdict, decided.c.rule))
        numbers = [self._told.number(*each) for each in zip(found["verdict"], found["rule"], strict=True)]
        reasons = np.zeros(len(whom), dtype=np.int64)
        reasons[np.searchsorted(self._history.people.ids[whom], found["customer_id"])] = numbers
        return reasons

    def _people(self) -> Select:
        """As an audience is; in which language, and which of the segments, no reason asks."""
        nothing = literal("")
        columns = (
            asked.c.customer_id,
            nothing.label("segment"),
            shop_of(self._history.shops),
            nothing.label("locale"),
        )
        return select(*columns)

    def _over(self, reason: Select) -> Select:
        """Over the simulated ledger in place of the stored one."""

        def other(element: object, **_: object) -> object:
            if element is messages:
                return self._sent
            if isinstance(element, Column) and element.table is messages:
                return self._sent.c[element.name]
            return None

        changed: Any = visitors.replacement_traverse(reason, {}, other) if self._asks_ledger else reason
        return cast(Select, changed)


def asks_ledger(config: Config, campaign: Campaign) -> bool:
    """Whether a reason of its depends on what was sent, and on how long ago something was delivered."""
    kind = config.channels[campaign.channel].kind
    return any(once_per_order(shop, campaign.purpose, kind) is not None for shop in config.shops.values())


def has_windows(config: Config, campaign: Campaign) -> bool:
    """Whether a reason of its depends on how long ago somebody wrote to us or ordered."""
    kind = config.channels[campaign.channel].kind
    return any(
        rule.open_window_hours or rule.ordered_within_days
        for shop in config.shops.values()
        for rule in needs(shop, campaign.purpose, kind)
    )


def fill_asked(connection: Connection, history: History, whom: Places) -> None:
    connection.execute(delete(asked))
    rows = np.column_stack([history.people.ids[whom], history.shop[whom]])
    load_numbers(connection, asked, ("customer_id", "shop"), rows)


def shop_of(names: Sequence[str]) -> Any:
    return case(dict(enumerate(names)), value=asked.c.shop).label("shop")
