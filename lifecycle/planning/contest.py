"""Who gets the slots: caps first, then the competition of campaigns for people's slots and shops' quotas.

Over arrays only: what it needs to know comes from `Sources`, the ledger or a simulated one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import reduce
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lifecycle.db.arrays import NULL
from lifecycle.db.schema import VERDICTS, microseconds
from lifecycle.planning import caps, quotas
from lifecycle.planning.arbitration import Allocation, CapRow, Competition, Offer, QuotaRow, arbitrate
from lifecycle.planning.caps import NEVER, Blocked, Reach
from lifecycle.planning.counting import concerns
from lifecycle.planning.judgement import Judgement
from lifecycle.planning.past import Past
from lifecycle.planning.records import Slots
from lifecycle.planning.windows import begins, ends, length, microseconds_of
from lifecycle.settings.models import Campaign, CapRule, Quota

_CAPPED, _QUOTA, _LOST = (VERDICTS.index(name) for name in ("capped", "quota", "lost_to"))


@dataclass(frozen=True, eq=False)
class Contender:
    """A campaign, when it would be sent, and whom it could be sent to; arrays by ascending customer_id. `segment`
    is the place among the campaign's segments, `shop` that among the configured shops."""

    campaign: Campaign
    at: datetime
    customer_id: NDArray[np.int64]
    segment: NDArray[np.int64]
    shop: NDArray[np.int64]
    seed: NDArray[np.int64]


MOST_LATER = 8
"""So many dates still to come are looked at, the nearest first: possibilities double with each."""


def on_dates(one: Contender, times: Iterable[datetime]) -> list[Contender]:
    """The campaign at each of these times; none where it has nobody to write to."""
    return [replace(one, at=at) for at in times] if len(one.customer_id) else []


def nearest(found: Sequence[Contender]) -> tuple[Contender, ...]:
    """Those due first, and the nearest of those still to come."""
    ordered = sorted(found, key=lambda each: each.at)
    first = [each for each in ordered if each.at == ordered[0].at]
    return (*first, *ordered[len(first) :][:MOST_LATER])


class Worth(Protocol):
    def of(self, campaign: str, segment: str, shop: str | None = None) -> float:
        """What one message is expected to bring, minor units of the base currency."""
        ...


class Sources(Protocol):
    """What a contest asks about the past, as of the instant that is judged."""

    def past(self, ids: NDArray[np.int64], shop: NDArray[np.int64], rules: Sequence[CapRule]) -> Past: ...

    def members(self, segments: Sequence[str]) -> NDArray[np.int64]:
        """customer_ids of everybody in one of them."""
        ...

    def used(self, quota: Quota, at: datetime) -> quotas.Used:
        """What counts in the quota's window at `at`, which may be later."""
        ...

    def values(self, campaigns: Sequence[Campaign]) -> Worth: ...


@dataclass(frozen=True, eq=False)
class Outcome:
    """Whom the contest leaves out, arrays by customer_id: verdict (place in VERDICTS, 0: none), rule (place in
    `rules`), blocking message, when a slot frees (microseconds since 1970), lost_to (place in `winners`); NULL for
    nothing. slots: what those of each quota that concerns the campaign came to."""

    customer_id: NDArray[np.int64]
    verdict: NDArray[np.int64]
    rule: NDArray[np.int64]
    message_id: NDArray[np.int64]
    frees_at: NDArray[np.int64]
    lost_to: NDArray[np.int64]
    rules: tuple[str, ...]
    winners: tuple[str, ...]
    slots: tuple[Slots, ...]


def contest(sources: Sources, judgement: Judgement, mine: Contender, rivals: Sequence[Contender]) -> Outcome:
    """Who of `mine` is capped, over a quota, or loses the slot to another campaign."""
    held = _Contest(sources, judgement, mine, rivals)
    held.cap()
    slots = held.allocate()
    return Outcome(
        customer_id=held.ids,
        verdict=held.verdict,
        rule=held.rule,
        message_id=held.message_id,
        frees_at=held.frees_at,
        lost_to=held.lost_to,
        rules=tuple(rule.name for rule in (*held.rules, *held.quotas)),
        winners=tuple(f"{offer.campaign.name} of {_date(judgement, offer)}" for offer in held.offers),
        slots=slots,
    )


class _Contest:
    def __init__(
        self, sources: Sources, judgement: Judgement, mine: Contender, rivals: Sequence[Contender]
    ) -> None:
        self.sources, self.judgement, self.config = sources, judgement, judgement.config
        self.mine = mine
        order = {name: place for place, name in enumerate(self.config.campaigns)}
        self.offers = sorted(
            (mine, *rivals), key=lambda o: (o.at, o.campaign.priority, order.get(o.campaign.name, len(order)))
        )
        campaigns = [offer.campaign for offer in self.offers]
        self.rules = [
            rule for rule in judgement.rules if not rule.is_off and any(concerns(rule, c) for c in campaigns)
        ]
        self.quotas = [
            quota for quota in judgement.quotas if not quota.is_off and any(concerns(quota, c) for c in campaigns)
        ]
        self.ids = reduce(np.union1d, (offer.customer_id for offer in self.offers))
        self.rows = [np.searchsorted(self.ids, offer.customer_id) for offer in self.offers]
        self.shop = self._of_person("shop")
        self.reach = self._reach()
        self.past = sources.past(self.ids, self.shop, self.rules)
        size = len(self.ids)
        self.verdict = np.zeros(size, dtype=np.int64)
        self.rule = np.full(size, NULL, dtype=np.int64)
        self.message_id = np.full(size, NULL, dtype=np.int64)
        self.frees_at = np.full(size, NULL, dtype=np.int64)
        self.lost_to = np.full(size, NULL, dtype=np.int64)

    @property
    def _mine(self) -> int:
        return self.offers.index(self.mine)

    def _of_person(self, name: str) -> NDArray[np.int64]:
        values = np.zeros(len(self.ids), dtype=np.int64)
        for offer, rows in zip(reversed(self.offers), reversed(self.rows), strict=True):
            values[rows] = getattr(offer, name)
        return values

    def _reach(self) -> Reach:
        """Whom each rule concerns: by the shop that writes and the segments they are in."""
        reach = {}
        for rule in self.rules:
            concerned = np.ones(len(self.ids), dtype=bool)
            if rule.shops is not None:
                places = [place for place, name in enumerate(self.config.shops) if name in rule.shops]
                concerned &= np.isin(self.shop, places)
            if rule.segments is not None:
                concerned &= np.isin(self.ids, self.sources.members(rule.segments))
            reach[rule.name] = concerned
        return reach

    def cap(self) -> None:
        """Whom the past blocks, whatever the others do."""
        rules = caps.applicable(self.rules, self.mine.campaign)
        numbers = {rule.name: number for number, rule in enumerate(self.rules)}
        block = caps.blocked(self.past, rules, numbers, self.reach, len(self.ids), self.judgement.at)
        whom = np.zeros(len(self.ids), dtype=bool)
        whom[self.rows[self._mine]] = True
        whom &= block.rule >= 0
        self._note(whom, block, [self.rules.index(rule) for rule in rules])

    def _note(self, whom: NDArray[np.bool_], block: Blocked, places: Sequence[int]) -> None:
        unaided = block.unaided[whom]
        self.verdict[whom] = np.where(unaided, _CAPPED, _LOST)
        self.rule[whom] = np.array(places, dtype=np.int64)[block.rule[whom]] if places else NULL
        self.message_id[whom] = np.where(unaided, block.message_id[whom], block.winner_id[whom])
        self.frees_at[whom] = np.where(block.frees_at[whom] == NEVER, NULL, block.frees_at[whom])

    def allocate(self) -> tuple[Slots, ...]:
        """Among those who are left: the best use of slots and quotas."""
        if len(self.offers) == 1 and not self.quotas:
            return ()
        values = self._values()
        rooms = [self._rooms(quota) for quota in self.quotas]
        competition = Competition(
            offers=tuple(
                Offer(offer.campaign.name, microseconds(offer.at), offer.campaign.priority)
                for offer in self.offers
            ),
            values=values,
            caps=tuple(self._cap_row(rule, number) for number, rule in enumerate(self.rules)),
            quotas=tuple(row.row for rows in rooms for row in rows),
            order=self._of_person("seed"),
        )
        allocation = arbitrate(competition)
        flat = [row for rows in rooms for row in rows]
        self._refuse(competition, allocation, flat)
        return self._slots(competition, allocation, flat)

    def _values(self) -> NDArray[np.float64]:
        campaigns = [offer.campaign for offer in self.offers]
        estimated = self.sources.values(campaigns)
        shops = list(self.config.shops)
        values = np.full((len(self.ids), len(self.offers)), np.nan)
        for place, (offer, rows) in enumerate(zip(self.offers, self.rows, strict=True)):
            table = np.array(
                [
                    [estimated.of(offer.campaign.name, segment, shop) for shop in shops]
                    for segment in offer.campaign.segments
                ]
            )
            values[rows, place] = table[offer.segment, offer.shop]
        values[self.verdict > 0, self._mine] = np.nan
        return values

    def _cap_row(self, rule: CapRule, number: int) -> CapRow:
        assert rule.limit is not None, "rules without limit are left out"
        counted = np.array([concerns(rule, offer.campaign) for offer in self.offers])
        history = np.column_stack(
            [caps.counted(self.past, rule, number, len(self.ids), offer.at) for offer in self.offers]
        )
        if rule.learns_from_refusals:
            for place, offer in enumerate(self.offers):
                refused = self.past.of_rule(number, rule, offer.at) & self.past.refused
                history[self.past.person[refused], place] = rule.limit
        return CapRow(
            name=rule.name,
            limit=rule.limit,
            counted=counted,
            applies=counted,
            people=self.reach[rule.name],
            within=self._within(rule),
            history=history,
        )

    def _within(self, rule: CapRule | Quota) -> NDArray[np.bool_]:
        """[j, i]: offer i lies in the window of the time of offer j."""
        at = np.array([microseconds(offer.at) for offer in self.offers])
        start = np.array([microseconds(begins(rule, offer.at)) for offer in self.offers])
        found: NDArray[np.bool_] = (at[None, :] > start[:, None]) & (at[None, :] <= at[:, None])
        return found

    def _rooms(self, quota: Quota) -> list[_Row]:
        """One row for each time at which somebody would send; those of the same time and channel share one."""
        within, seen = self._within(quota), set()
        rows: list[_Row] = []
        for place, offer in enumerate(self.offers):
            channel = offer.campaign.channel
            key = offer.at, channel if quota.scope == "channel" else None
            if not concerns(quota, offer.campaign) or key in seen:
                continue
            seen.add(key)
            takes = [
                concerns(quota, other.campaign)
                and within[place, i]
                and (quota.scope != "channel" or other.campaign.channel == channel)
                for i, other in enumerate(self.offers)
            ]
            spent = self.sources.used(quota, offer.at) if begins(quota, offer.at) < self.judgement.at else {}
            rows.append(self._row(quota, channel, spent, offer.at, np.array(takes)))
        return rows

    def _row(self, quota: Quota, channel: str, spent: quotas.Used, at: datetime, takes: NDArray[np.bool_]) -> _Row:
        by_shop = quotas.groups(self.config, quota, channel)
        names = list(dict.fromkeys(by_shop.values()))
        rooms = [quotas.room(self.config, quota, name, spent, at) for name in names]
        places = [names.index(by_shop[shop]) if shop in by_shop else len(names) for shop in self.config.shops]
        group = np.array([*places, len(names)], dtype=np.int64)[self.shop]
        free = np.array([*(each.free for each in rooms), quotas.UNLIMITED], dtype=np.int64)
        row = QuotaRow(name=quota.name, free=free, counted=takes, group=group)
        return _Row(quota, at, tuple(names), tuple(rooms), tuple(places), row)

    def _refuse(self, competition: Competition, allocation: Allocation, rows: Sequence[_Row]) -> None:
        """A verdict for each of ours who was not chosen."""
        mine = self._mine
        out = ~np.isnan(competition.values[:, mine]) & ~allocation.chosen[:, mine]
        if not out.any():
            return
        whom = np.flatnonzero(out)
        with_mine = allocation.chosen[whom].copy()
        with_mine[:, mine] = True
        undecided = np.ones(len(whom), dtype=bool)
        for number, row in enumerate(competition.caps):
            lost = undecided & _breaks(row, with_mine, whom)
            if lost.any():
                self._lose(whom[lost], number, allocation.chosen[whom[lost]] & row.counted)
                undecided &= ~lost
        for each in rows:
            if not each.row.counted[mine]:
                continue
            taken = np.bincount(
                each.row.group,
                weights=(allocation.chosen & each.row.counted).sum(axis=1),
                minlength=len(each.row.free),
            )
            full = undecided & (taken >= each.row.free)[each.row.group[whom]]
            self._exceed(whom[full], each)
            undecided &= ~full

    def _lose(self, whom: NDArray[np.int64], number: int, winners: NDArray[np.bool_]) -> None:
        winner = winners.argmax(axis=1)
        rule = self.rules[number]
        rolling = length(rule)
        freed = [
            microseconds(offer.at) + microseconds_of(rolling) if rolling else microseconds(ends(rule, offer.at))
            for offer in self.offers
        ]
        self.verdict[whom] = _LOST
        self.rule[whom] = number
        self.lost_to[whom] = winner
        self.frees_at[whom] = np.array(freed)[winner]

    def _exceed(self, whom: NDArray[np.int64], row: _Row) -> None:
        freed = np.array([*(microseconds(room.frees_at) if room.frees_at else NULL for room in row.rooms), NULL])
        self.verdict[whom] = _QUOTA
        self.rule[whom] = len(self.rules) + self.quotas.index(row.quota)
        self.frees_at[whom] = freed[row.row.group[whom]]

    def _slots(self, competition: Competition, allocation: Allocation, rows: Sequence[_Row]) -> tuple[Slots, ...]:
        slots = []
        mine = self._mine
        for place, each in enumerate(rows):
            if each.at != self.mine.at or not each.row.counted[mine]:
                continue
            for number, (name, room) in enumerate(zip(each.names, each.rooms, strict=True)):
                if room.limit >= quotas.UNLIMITED:
                    continue
                here = each.row.group == number
                same = [i for i, row in enumerate(rows) if row.quota is each.quota and row.row.counted[mine]]
                worth = allocation.worth[place][number]
                slots.append(
                    Slots(
                        rule=each.quota.name,
                        group=name,
                        limit=room.limit,
                        used=room.used,
                        wanted=int((~np.isnan(competition.values[:, mine]) & here).sum()),
                        taken=int((allocation.chosen[:, mine] & here).sum()),
                        last_minor=_most(allocation.worth[i][number].last for i in same),
                        next_minor=worth.best_left_out,
                        frees_at=room.frees_at,
                        shops=tuple(
                            shop for place, shop in enumerate(self.config.shops) if each.groups[place] == number
                        ),
                    )
                )
        return tuple(slots)


@dataclass(frozen=True)
class _Row:
    quota: Quota
    at: datetime
    names: tuple[str, ...]
    rooms: tuple[quotas.Room, ...]
    groups: tuple[int, ...]
    """Of each configured shop."""
    row: QuotaRow


def _breaks(row: CapRow, chosen: NDArray[np.bool_], whom: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Who of `whom` would break the rule with the offers `chosen`."""
    broken = np.zeros(len(whom), dtype=bool)
    counted = chosen & row.counted
    for j in np.flatnonzero(row.applies):
        together = row.history[whom, j] + (counted & row.within[j]).sum(axis=1)
        broken |= chosen[:, j] & (together > row.limit)
    return broken if row.people is None else broken & row.people[whom]


def _most(worths: Iterable[float | None]) -> float | None:
    """A slot of a month may be scarce because of what is due later in it, and only that row says so."""
    return max((worth for worth in worths if worth is not None), default=None)


def _date(judgement: Judgement, offer: Contender) -> str:
    days = (offer.at - judgement.at) // timedelta(days=1)
    return (date.fromisoformat(judgement.occurrence) + timedelta(days=days)).isoformat()
