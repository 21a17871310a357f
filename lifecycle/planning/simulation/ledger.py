"""The simulated ledger, in arrays: what was sent before the range, and what the simulation has sent since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, literal, or_, select

from lifecycle.db.arrays import arrays
from lifecycle.db.schema import Big, customers, messages, microseconds
from lifecycle.planning import quotas
from lifecycle.planning.counting import (
    COUNTED_STATES,
    MAY_COUNT,
    REFUSED_BY_BUYER,
    WAITING,
    WAITING_STATES,
    bits,
    by_address,
    concerns,
    counts,
)
from lifecycle.planning.past import STILL_WAITING, Past
from lifecycle.planning.simulation.days import Day
from lifecycle.planning.simulation.history import History, Places, place_of_shop
from lifecycle.planning.windows import begins
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign, CapRule, Counting, Quota

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Ledger:
    """Messages that hold slots. Those before `start` are the stored ones; `first`: the first day's instant.

    Of caps and quotas each has a bit in `rules`: caps first, as given.
    """

    def __init__(
        self,
        connection: Connection,
        config: Config,
        history: History,
        caps: Sequence[CapRule],
        of_shops: Sequence[Quota],
        start: datetime,
        first: datetime,
    ) -> None:
        self._history, self._rules = history, (*caps, *of_shops)
        self._bit = {rule.name: place for place, rule in enumerate(self._rules)}
        self._campaigns = list(config.campaigns.values())
        self._place = {each.name: place for place, each in enumerate(self._campaigns)}
        before = _Before(connection, history, start, first)
        self._shops, self._channels = before.shops, before.channels(self._campaigns)
        self._old = before.of_people(caps, self._bit)
        self._left = before.of_groups(of_shops, self._bit, self._channels)
        self._new = _Growing(("person", "shop", "sent", "message_id", "rules", "campaign"))
        self._next_id = before.next_id

    def append(self, day: Day, campaign: Campaign, whom: Places) -> None:
        """They get the campaign's message."""
        shop = self._history.shop[whom]
        rules = np.zeros(len(whom), dtype=np.int64)
        for place, rule in enumerate(self._rules):
            if concerns(rule, campaign):
                rules |= self._of_shops(rule, shop).astype(np.int64) << place
        self._new.append(
            person=whom,
            shop=shop,
            sent=np.full(len(whom), microseconds(day.at)),
            message_id=self._next_id + np.arange(len(whom)),
            rules=rules,
            campaign=np.full(len(whom), self._place[campaign.name]),
        )
        self._next_id += len(whom)

    def _of_shops(self, rule: Counting, shop: Numbers) -> Flags:
        if rule.shops is None:
            return np.ones(len(shop), dtype=bool)
        return np.isin(shop, [place for place, name in enumerate(self._shops) if name in rule.shops])

    def past(
        self, ids: Numbers, shop: Numbers, rules: Sequence[CapRule], day: Day, going_first: Sequence[str]
    ) -> Past:
        """As planning.past.past reads it from the stored messages."""
        at = microseconds(day.at)
        since = min((microseconds(begins(rule, day.at)) for rule in rules), default=at)
        first = [self._place[name] for name in going_first]
        both = _joined(self._simulated(since, at, first), self._stored(since, at))
        place_of = np.full(len(self._history.people.ids), -1, dtype=np.int64)
        place_of[np.searchsorted(self._history.people.ids, ids)] = np.arange(len(ids))
        both["person"], both["rules"] = place_of[both["person"]], self._bits(both["rules"], rules)
        kept = np.flatnonzero((both["person"] >= 0) & (both["rules"] != 0))
        order = np.lexsort((-both["message_id"][kept], -both["sent"][kept], both["person"][kept]))
        found = {name: values[kept[order]] for name, values in both.items()}
        return Past(
            person=found["person"],
            sent=found["sent"],
            message_id=found["message_id"],
            counted_by=found["rules"],
            same_shop=found["shop"] == shop[found["person"]],
            same_customer=found["same_customer"] == 1,
            same_address=found["same_address"] == 1,
            won=found["won"] == 1,
            refused=found["refused"] == 1,
        )

    def _simulated(self, since: int, at: int, first: Sequence[int]) -> dict[str, Numbers]:
        """Newest first, which is nearly the order that is wanted."""
        rows = {name: values[::-1] for name, values in self._new.after(since).items()}
        campaign = rows.pop("campaign")
        size = len(campaign)
        won = (rows["sent"] == at) & np.isin(campaign, first)
        own = dict.fromkeys(("same_customer", "same_address"), np.ones(size, dtype=np.int64))
        return {**rows, **own, "refused": np.zeros(size, dtype=np.int64), "won": won.astype(np.int64)}

    def _stored(self, since: int, at: int) -> dict[str, Numbers]:
        """What still waits counts as sent now."""
        rows = dict(self._old)
        rows["sent"] = np.where(rows.pop("waiting") == 1, at, rows["sent"])
        rows["won"] = np.zeros(len(rows["sent"]), dtype=np.int64)
        kept = rows["sent"] > since
        return {name: values[kept] for name, values in rows.items()}

    def _bits(self, bits: Numbers, rules: Sequence[CapRule]) -> Numbers:
        """Bit k for the k-th of `rules`."""
        found = np.zeros(len(bits), dtype=np.int64)
        for place, rule in enumerate(rules):
            found |= (bits >> self._bit[rule.name] & 1) << place
        return found

    def used(self, quota: Quota, at: datetime) -> quotas.Used:
        """As planning.quotas.used reads it from the stored messages."""
        bit, since, until = self._bit[quota.name], microseconds(begins(quota, at)), microseconds(at)
        left, new = self._left, self._new.after(since)
        channel = np.array([self._channels.index(each.channel) for each in self._campaigns], dtype=np.int64)
        rows = {
            "sent": np.concatenate([left["sent"], new["sent"]]),
            "group": np.concatenate([left["group"], self._group(new["shop"], channel[new["campaign"]])]),
            "rules": np.concatenate([left["rules"], new["rules"]]),
            "waiting": np.concatenate([left["waiting"], np.zeros_like(new["sent"])]) == 1,
        }
        counted = rows["rules"] >> bit & 1 == 1
        counted &= rows["waiting"] | ((rows["sent"] > since) & (rows["sent"] <= until))
        found: dict[tuple[str, str], tuple[int, Numbers]] = {}
        for group in np.unique(rows["group"][counted]).tolist():
            mine = counted & (rows["group"] == group)
            sent = rows["sent"][mine & ~rows["waiting"]]
            shop, place = divmod(group, len(self._channels))
            found[self._shops[shop], self._channels[place]] = int(mine.sum()), sent
        return found

    def _group(self, shop: Numbers, channel: Numbers) -> Numbers:
        return shop * len(self._channels) + channel


class _Before:
    """The stored messages before an instant."""

    def __init__(self, connection: Connection, history: History, start: datetime, first: datetime) -> None:
        self._connection, self._history, self._start, self._first = connection, history, start, first
        others = set(connection.execute(select(messages.c.shop).distinct()).scalars()) - set(history.shops)
        self.shops = (*history.shops, *sorted(others))
        self.next_id = 1 + (connection.execute(select(func.max(messages.c.message_id))).scalar() or 0)

    def channels(self, campaigns: Sequence[Campaign]) -> list[str]:
        stored = self._connection.execute(select(messages.c.channel).distinct()).scalars()
        return sorted({*stored, *(each.channel for each in campaigns)})

    def of_people(self, caps: Sequence[CapRule], bit: Mapping[str, int]) -> dict[str, Numbers]:
        """Those that a cap may count, a row for each person whom it concerns; of other people's messages those to
        the same address."""
        if not caps:
            return dict.fromkeys(_OF_PEOPLE, np.empty(0, dtype=np.int64))
        since = min(begins(rule, self._first) for rule in caps)
        parts = [self._of_people(caps, bit, since, same) for same in _ways(caps)]
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        known, person = self._history.people.find(rows.pop("customer_id"))
        return {"person": person, **{name: values[known] for name, values in rows.items()}}

    def _of_people(
        self, caps: Sequence[CapRule], bit: Mapping[str, int], since: datetime, same_customer: bool
    ) -> dict[str, Numbers]:
        same_address = messages.c.address_hash == customers.c.email_hash
        to = messages.c.customer_id == customers.c.customer_id if same_customer else same_address
        query = select(
            customers.c.customer_id,
            place_of_shop(messages.c.shop, self.shops).label("shop"),
            messages.c.send_at.label("sent"),
            messages.c.message_id,
            _bits_of(caps, bit).label("rules"),
            _flag(WAITING).label("waiting"),
            _flag(REFUSED_BY_BUYER).label("refused"),
            literal(int(same_customer), Big).label("same_customer"),
            _flag(same_address).label("same_address"),
        ).join_from(messages, customers, to)
        if not same_customer:
            query = query.where(messages.c.customer_id != customers.c.customer_id)
        in_time = or_(messages.c.send_at > since, STILL_WAITING)
        return self._read(query.where(in_time, MAY_COUNT), caps)

    def of_groups(
        self, of_shops: Sequence[Quota], bit: Mapping[str, int], channels: Sequence[str]
    ) -> dict[str, Numbers]:
        """Those that a quota may count. `group`: its shop and channel."""
        if not of_shops:
            return dict.fromkeys(_OF_GROUPS, np.empty(0, dtype=np.int64))
        since = min(begins(quota, self._first) for quota in of_shops)
        channel = case({name: place for place, name in enumerate(channels)}, value=messages.c.channel, else_=0)
        left = and_(messages.c.sent_at > since, messages.c.state.in_(set(COUNTED_STATES) - set(WAITING_STATES)))
        query = select(
            messages.c.sent_at.label("sent"),
            (place_of_shop(messages.c.shop, self.shops) * len(channels) + channel).label("group"),
            _bits_of(of_shops, bit).label("rules"),
            _flag(WAITING).label("waiting"),
        ).where(or_(left, WAITING))
        return self._read(query, of_shops)

    def _read(self, query: Select, rules: Sequence[Counting]) -> dict[str, Numbers]:
        counted = or_(*(counts(rule) for rule in rules))
        return arrays(self._connection, query.where(messages.c.send_at < self._start, counted))


_OF_PEOPLE = (
    "person", "shop", "sent", "message_id", "rules", "waiting", "refused", "same_customer", "same_address",
)  # fmt: skip
_OF_GROUPS = ("sent", "group", "rules", "waiting")


class _Growing:
    """Columns to which rows are added at the end, by `sent`."""

    def __init__(self, names: Sequence[str]) -> None:
        self._columns = {name: np.empty(1_024, dtype=np.int64) for name in names}
        self._size = 0

    def append(self, **rows: NDArray[np.integer]) -> None:
        size = self._size + len(rows["sent"])
        for name, column in self._columns.items():
            if size > len(column):
                self._columns[name] = column = np.resize(column, 2 * size)
            column[self._size : size] = rows[name]
        self._size = size

    def after(self, since: int) -> dict[str, Numbers]:
        start = int(np.searchsorted(self._columns["sent"][: self._size], since, side="right"))
        return {name: column[start : self._size] for name, column in self._columns.items()}


def _joined(one: Mapping[str, Numbers], other: Mapping[str, Numbers]) -> dict[str, Numbers]:
    return {name: np.concatenate([values, other[name]]) for name, values in one.items()}


def _ways(caps: Sequence[CapRule]) -> Iterator[bool]:
    """To the same customer; and, where a cap counts by address, to other customers at the same one."""
    yield True
    if by_address(caps):
        yield False


def _flag(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return case((condition, literal(1, Big)), else_=literal(0, Big))


def _bits_of(rules: Sequence[Counting], bit: Mapping[str, int]) -> ColumnElement[int]:
    return bits((bit[rule.name], counts(rule)) for rule in rules)
