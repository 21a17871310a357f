"""Who gets which message, where campaigns compete for people's cap slots and for shops' quotas.

Priority classes go first: no total of a later class makes up for anything of an earlier one. Within a class the
total expected value is the greatest there is. Offers that are due later take part: a slot is kept for a later
message that is worth more. Between equal solutions what is due first goes first, and between equal people the
smaller `order`.

People of the same kind (the same offers at the same values, with the same room under each rule) are decided
together: 1,000,000 people are of some hundreds of kinds, and the sets of offers that the caps allow each kind are
few. Where no quota binds, each kind takes its best set. Where one does, an integer program says how many people of
each kind get which set (HiGHS, by scipy.optimize), class by class: the best total of a class is a condition of the
next. Groups that share nobody are separate programs.

Values are compared in steps of a billionth of the largest, so that equal sums are equal. A program may miss the
best total of a class by a millionth of the class's largest value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, isfinite, log2
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_OFFERS = 12
"""Of more offers for one person those due first and then the best are looked at: sets double with each."""
MOST_COLUMNS = 200_000
"""A larger program is not begun: it would not end in time."""
SECONDS = 30.0

_STEPS_BITS = 30
_TOLERANCE = 1e-6
_REACHES = (1e-3, 0.1, np.inf)
"""Reduced costs up to which columns are tried, where the linear program is not whole."""
_MOST_CELLS = 2_000_000

Flags = NDArray[np.bool_]
Whole = NDArray[np.int64]
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Offer:
    """A campaign's message. `at`: when it would be sent, microseconds since 1970; lower `priority` goes first."""

    name: str
    at: int
    priority: int


@dataclass(frozen=True)
class CapRow:
    """At most `limit` messages to one person in a window, for m offers and n people.

    counted (m,): offers that use a slot. applies (m,): offers that must pass. within (m, m): [j, i] is true where
    offer i lies in the window at the time of offer j, i = j included. history (n, m): past messages of the person
    in the window at the time of offer j. people (n,): whom the rule concerns; None: everybody.

    A set of offers to a person passes when for each j in it that the rule applies to, history[person, j] and the
    offers of the set that are counted and within[j] are together at most `limit`.
    """

    name: str
    limit: int
    counted: Flags
    applies: Flags
    within: Flags
    history: NDArray[np.integer[Any]]
    people: Flags | None = None


@dataclass(frozen=True)
class QuotaRow:
    """One quota in one period. free (G,): slots left to each group, a large number where there is no limit.
    counted (m,): offers that use a slot. group (n,): of each person, for example their shop's number."""

    name: str
    free: NDArray[np.integer[Any]]
    counted: Flags
    group: NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Competition:
    """n people and m offers, these as first-come-first-served would take them: by `at`, priority, as configured.

    values (n, m): what a message is expected to bring, not negative; nan where the person is not meant.
    order (n,): between people who are equal the smaller goes first; a stable hash.
    """

    offers: tuple[Offer, ...]
    values: Reals
    caps: tuple[CapRow, ...]
    quotas: tuple[QuotaRow, ...]
    order: NDArray[np.integer[Any]]

    @cached_property
    def aims(self) -> Flags:
        """(classes + 1, m): the offers of each priority class, first one first, then those that are due first."""
        priority = np.array([offer.priority for offer in self.offers], dtype=np.int64)
        at = np.array([offer.at for offer in self.offers], dtype=np.int64)
        due_first = at == at.min(initial=np.iinfo(np.int64).max)
        return np.array([*(priority == each for each in np.unique(priority)), due_first])

    @cached_property
    def step(self) -> float:
        """The least difference between values that matters; a power of two, so that short numbers stay exact."""
        largest = float(np.fmax.reduce(self.values, axis=None, initial=0.0))
        if not isfinite(largest) or np.fmin.reduce(self.values, axis=None, initial=0.0) < 0:
            raise ValueError("expected values must be finite and not negative")
        return float(2.0 ** (ceil(log2(largest)) - _STEPS_BITS)) if largest else 1.0

    def steps(self, place: int) -> Reals:
        """(n,) values of an offer in whole steps, at least one; nan where the person is not meant."""
        return np.maximum(np.rint(self.values[:, place] / self.step), 1.0)


@dataclass(frozen=True)
class SlotWorth:
    """What the slots of a quota came to for one group.

    last: how much less the total would be with one slot less, 0 where some are left, negative where the slot
    serves a class of low value before one of high value; None: not known, the time was up. best_left_out: the
    greatest value of a message that would be sent if there were no quotas; None: there is none.
    """

    used: int
    free: int
    last: float | None
    best_left_out: float | None


@dataclass(frozen=True)
class Allocation:
    """chosen (n, m). total: of the values chosen. worth: of each quota row, of each of its groups. exact: nothing
    better is possible; else it is at least as good as first-come-first-served."""

    chosen: Flags
    total: float
    worth: tuple[tuple[SlotWorth, ...], ...]
    exact: bool


def arbitrate(competition: Competition, *, seconds: float = SECONDS) -> Allocation:
    """The best feasible choice. After `seconds` the rest is shared out greedily, by value per slot.

    Raises ValueError for values that are negative or infinite.
    """
    if not competition.offers or not len(competition.order):
        nothing = np.zeros(competition.values.shape, dtype=bool)
        return _result(competition, nothing, nothing, {}, True)
    allowed, exact = _allowed(competition)
    types = _types(competition, allowed)
    alone = _alone(types, competition.aims)[types.of]
    contested = _contested(competition, types, alone)
    if contested is None:
        return _result(competition, alone, alone, {}, exact)
    last: Mapping[int, float | None] | None
    shared, last, solved = _share(competition, contested, monotonic() + seconds)
    chosen = alone.copy()
    chosen[contested.people] = contested.columns.offers[shared]
    chosen = _with_what_fits(competition, chosen)
    exact &= solved
    if not exact:
        first = first_come(competition)
        if _class_steps(competition, chosen) < _class_steps(competition, first):
            chosen, last = first, None
    return _result(competition, chosen, alone, last, exact)


def first_come(competition: Competition) -> Flags:
    """(n, m) what first-come-first-served chooses: offer by offer, people by `order`, each taken if caps and
    quotas leave room, also those of offers taken before."""
    return _with_what_fits(competition, np.zeros(competition.values.shape, dtype=bool))


def total_value(competition: Competition, chosen: Flags) -> float:
    return float(competition.values[chosen].sum())


def _class_steps(competition: Competition, chosen: Flags) -> list[int]:
    """Total of each class, in whole steps."""
    sums = [int(competition.steps(place)[chosen[:, place]].sum()) for place in range(len(competition.offers))]
    return [sum(sums[place] for place in np.flatnonzero(aim)) for aim in competition.aims[:-1]]


# Caps


@dataclass(frozen=True)
class _Limit:
    """What a rule asks of one offer, where other offers can use its slots too."""

    rule: CapRow
    offer: int

    @property
    def takes(self) -> Flags:
        """(m,) offers that use a slot in the window of this one."""
        return self.rule.counted & self.rule.within[self.offer]

    def room(self, allowed: Flags, people: Whole | slice = slice(None)) -> Whole:
        """Slots left to each of `people`, as far as the offers can use them."""
        most = int(self.takes.sum())
        room = np.clip(self.rule.limit - self.rule.history[people, self.offer].astype(np.int64), 0, most)
        concerned = allowed[people, self.offer]
        if self.rule.people is not None:
            concerned = concerned & self.rule.people[people]
        return np.where(concerned, room, most)


def _limits(competition: Competition) -> list[_Limit]:
    limits = [_Limit(rule, int(offer)) for rule in competition.caps for offer in np.flatnonzero(rule.applies)]
    return [limit for limit in limits if np.delete(limit.takes, limit.offer).any()]


def _allowed(competition: Competition) -> tuple[Flags, bool]:
    """(n, m) offers that a person is meant for and may get as the only one, at most MOST_OFFERS; and whether that
    is all of them."""
    allowed = ~np.isnan(competition.values)
    for rule in competition.caps:
        for place in np.flatnonzero(rule.applies):
            slots = int(rule.counted[place] and rule.within[place, place])
            passes = rule.history[:, place].astype(np.int64) + slots <= rule.limit
            allowed[:, place] &= passes if rule.people is None else passes | ~rule.people
    many = np.flatnonzero(allowed.sum(axis=1) > MOST_OFFERS)
    if len(many):
        allowed[many] = _few(competition, many, allowed[many])
    return allowed, not len(many)


def _few(competition: Competition, people: Whole, allowed: Flags) -> Flags:
    """The offers due first, then by class and value."""
    shape = allowed.shape
    later = np.broadcast_to(~competition.aims[-1], shape)
    priority = np.broadcast_to([offer.priority for offer in competition.offers], shape)
    place = np.argsort(np.lexsort((-competition.values[people], priority, later, ~allowed), axis=1), axis=1)
    return allowed & (place < MOST_OFFERS)


def _with_what_fits(competition: Competition, chosen: Flags) -> Flags:
    """`chosen` and, offer by offer, whoever else fits."""
    chosen = chosen.copy()
    quotas = competition.quotas
    free = [np.array(row.free - _used(row, chosen), dtype=np.int64) for row in quotas]
    for place in range(len(competition.offers)):
        fits = ~np.isnan(competition.values[:, place]) & ~chosen[:, place]
        for rule in competition.caps:
            fits &= _passes(rule, chosen, place)
        who = np.flatnonzero(fits)
        who = who[np.argsort(competition.order[who], kind="stable")]
        queues = [
            _Queue(row.group[who], np.ones(len(who), dtype=np.int64), left)
            for row, left in zip(quotas, free, strict=True)
            if row.counted[place]
        ]
        who = who[_admitted(queues, len(who))]
        chosen[who, place] = True
        for row, left in zip(quotas, free, strict=True):
            left -= row.counted[place] * np.bincount(row.group[who], minlength=len(left))
    return chosen


def _passes(rule: CapRow, chosen: Flags, place: int) -> Flags:
    """(n,) whether the rule holds for what a person has and the offer at `place` beside it."""
    passes = np.ones(len(chosen), dtype=bool)
    for j in np.flatnonzero(rule.applies):
        takes = rule.counted & rule.within[j]
        if j != place and not takes[place]:
            continue
        used = rule.history[:, j] + int(takes[place])
        for i in np.flatnonzero(takes):
            if i != place:
                used = used + chosen[:, i]
        passes &= (used <= rule.limit) if j == place else (used <= rule.limit) | ~chosen[:, j]
    return passes if rule.people is None else passes | ~rule.people


# Kinds of people and the sets of offers that they can get


class _Key:
    """Rows of whole numbers as one number each."""

    def __init__(self, size: int) -> None:
        self.codes = np.zeros(size, dtype=np.int64)
        self.width = 1

    def add(self, column: NDArray[Any], width: int) -> None:
        """`column` has values in [0, width)."""
        if self.width * width >= 2**62:
            self.codes = self.distinct()[0]
            self.width = len(self.codes)
        self.codes = self.codes * width + column
        self.width *= width

    def distinct(self) -> tuple[Whole, Whole]:
        """(rows,) the number of each row's kind, and the first row of each kind."""
        return _numbered(self.codes)


def _numbered(values: NDArray[Any]) -> tuple[Whole, Whole]:
    different = np.unique(values)
    number = np.searchsorted(different, values)  # with few of them faster than return_inverse
    first = np.zeros(len(different), dtype=np.int64)
    first[number[::-1]] = np.arange(len(values))[::-1]
    return number, first


def _together(number: Whole) -> list[Whole]:
    """The rows of each number."""
    rows = np.argsort(number, kind="stable")
    return np.split(rows, np.flatnonzero(np.diff(number[rows])) + 1) if len(rows) else []


@dataclass(frozen=True)
class _Types:
    """T types of people. of (n,): each person's. steps (T, m): values in whole steps, 0 where not allowed. room
    (T, limits). structure (T,): number of what is allowed and the room; values apart."""

    of: Whole
    structure: Whole
    allowed: Flags
    steps: Reals
    room: Whole
    limits: Sequence[_Limit]

    def sets(self, one: int) -> Flags:
        """(sets, m) all that its caps allow, the set of the earliest offers first, the empty one last."""
        places = np.flatnonzero(self.allowed[one])
        numbers = np.arange(2 ** len(places) - 1, -1, -1)
        sets = np.zeros((len(numbers), self.allowed.shape[1]), dtype=bool)
        sets[:, places] = (numbers[:, None] >> np.arange(len(places) - 1, -1, -1)) & 1
        for limit, room in zip(self.limits, self.room[one], strict=True):
            sets = sets[~sets[:, limit.offer] | (sets[:, limit.takes].sum(axis=1) <= room)]
        return sets


def _types(competition: Competition, allowed: Flags) -> _Types:
    limits, key = _limits(competition), _Key(len(allowed))
    for place in range(len(competition.offers)):
        key.add(allowed[:, place], 2)
    for limit in limits:
        key.add(limit.room(allowed), len(competition.offers) + 1)
    structure, first = key.distinct()
    key = _Key(len(allowed))
    key.add(structure, len(first))
    for place in range(len(competition.offers)):
        number, kinds = _numbered(np.where(allowed[:, place], competition.steps(place), 0.0))
        key.add(number, len(kinds))
    of, first = key.distinct()
    steps = [
        np.where(allowed[first, place], competition.steps(place)[first], 0.0) for place in range(allowed.shape[1])
    ]
    room = np.array([limit.room(allowed, first) for limit in limits], dtype=np.int64)
    return _Types(
        of, structure[first], allowed[first], np.column_stack(steps), room.reshape(-1, len(first)).T, limits
    )


def _totals(steps: Reals, sets: Flags, aims: Flags) -> Reals:
    """(aims, types, sets) what each set is worth to each aim."""
    return np.stack([(steps * aim) @ sets.T.astype(float) for aim in aims])


def _best(totals: Reals) -> Whole:
    """(types,) the set with the greatest totals, aim before aim; of equal ones the first."""
    among = np.ones(totals.shape[1:], dtype=bool)
    for total in totals:
        total = np.where(among, total, -1.0)
        among &= total == total.max(axis=1, keepdims=True)
    return among.argmax(axis=1)


def _at_least(one: Reals, other: Reals) -> Flags:
    """Whether totals (aims, …) are greater or equal, aim before aim."""
    result = np.ones(np.broadcast_shapes(one.shape, other.shape)[1:], dtype=bool)
    for mine, theirs in zip(one[::-1], other[::-1], strict=True):
        result = (mine > theirs) | ((mine == theirs) & result)
    return result


def _alone(types: _Types, aims: Flags) -> Flags:
    """(T, m) the best set of each type, as if there were no quotas."""
    best = np.zeros(types.allowed.shape, dtype=bool)
    for members in _together(types.structure):
        sets = types.sets(members[0])
        for part in _parts(members, len(sets)):
            best[part] = sets[_best(_totals(types.steps[part], sets, aims))]
    return best


def _parts(members: Whole, width: int) -> Iterator[Whole]:
    """A few at a time, so that tables of this width stay small."""
    size = max(_MOST_CELLS // width, 1)
    return (members[start : start + size] for start in range(0, len(members), size))


# Quotas


def _used(row: QuotaRow, chosen: Flags) -> Whole:
    """(G,) slots that the choice takes."""
    slots = chosen[:, row.counted].sum(axis=1)
    return np.bincount(row.group, weights=slots, minlength=len(row.free)).astype(np.int64)


@dataclass(frozen=True)
class _Columns:
    """What a kind can get, the best first, without sets that are no better than another that takes no more slots.
    owner (c,): the kind. offers (c, m). totals (aims, c). slots (c, quotas)."""

    owner: Whole
    offers: Flags
    totals: Reals
    slots: Whole


@dataclass(frozen=True)
class _Contested:
    """People whose quotas do not suffice for all of them, and everybody tied to them by a quota they share.

    people (p,): who, those of a kind together, by `order`. kind (p,): of each. node (kinds, quotas): number of the
    quota's group among all groups of all quotas, -1 where the quota cannot bind. component (kinds,): those of
    different components share no quota. free (nodes,): slots left.
    """

    people: Whole
    kind: Whole
    node: Whole
    component: Whole
    free: Whole
    columns: _Columns


def _contested(competition: Competition, types: _Types, alone: Flags) -> _Contested | None:
    """None where the quotas suffice."""
    starts = np.cumsum([0, *(len(row.free) for row in competition.quotas)])
    free = np.concatenate([[], *(np.maximum(row.free, 0) for row in competition.quotas)]).astype(np.int64)
    full = np.zeros(len(free), dtype=bool)
    key = _Key(len(alone))
    key.add(types.of, len(types.structure))
    local = []
    for start, row in zip(starts[:-1], competition.quotas, strict=True):
        nodes = slice(start, start + len(row.free))
        used = _used(row, alone)
        full[nodes] = (used > free[nodes]) | ((used == free[nodes]) & (used > 0))
        most = types.allowed[:, row.counted].sum(axis=1)[types.of]
        possible = np.bincount(row.group, weights=most, minlength=len(row.free))
        binds = (possible >= free[nodes])[row.group] & (most > 0)
        local.append(np.where(binds, row.group, len(row.free)).astype(np.int32))
        key.add(local[-1], len(row.free) + 1)
    if not full.any():
        return None
    kind, first = key.distinct()
    node = np.column_stack(
        [np.where(each[first] == len(row.free), -1, start + each[first])
         for each, row, start in zip(local, competition.quotas, starts[:-1], strict=True)]
    )  # fmt: skip
    component, hot = _components(node, full)
    people = np.flatnonzero(hot[kind])
    people = people[np.lexsort((competition.order[people], kind[people]))]
    kept = np.flatnonzero(hot)
    columns = _columns(competition, types, types.of[first[kept]], node[kept])
    return _Contested(people, np.searchsorted(kept, kind[people]), node[kept], component[kept], free, columns)


def _components(node: Whole, full: Flags) -> tuple[Whole, Flags]:
    """(kinds,) which kinds are tied together by shared groups, and whether one of these groups is full."""
    # Here and not above: scipy takes half a second to import, and every command would pay it.
    from scipy.sparse import coo_array  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

    kinds, size = len(node), len(node) + len(full)
    kind, quota = np.nonzero(node >= 0)
    ties = coo_array((np.ones(len(kind)), (kind, kinds + node[kind, quota])), shape=(size, size))
    _, label = connected_components(ties, directed=False)
    return label[:kinds], np.isin(label[:kinds], label[kinds:][full])


def _columns(competition: Competition, types: _Types, type_of: Whole, node: Whole) -> _Columns:
    counted = np.array([row.counted for row in competition.quotas])
    key = _Key(len(node))
    key.add(types.structure[type_of], int(types.structure.max()) + 1)
    for binds in (node >= 0).T:
        key.add(binds, 2)
    found = []
    for kinds in _together(key.distinct()[0]):
        sets = types.sets(type_of[kinds[0]])
        slots = (sets.astype(np.int64) @ counted.T.astype(np.int64)) * (node[kinds[0]] >= 0)
        for part in _parts(kinds, len(sets)):
            found.append(_worth_having(part, sets, slots, types.steps[type_of[part]], competition.aims))
    owner = np.concatenate([each.owner for each in found])
    totals = np.concatenate([each.totals for each in found], axis=1)
    by_preference = np.lexsort((*-totals[::-1], owner))
    return _Columns(
        owner=owner[by_preference],
        offers=np.concatenate([each.offers for each in found])[by_preference],
        totals=totals[:, by_preference],
        slots=np.concatenate([each.slots for each in found])[by_preference],
    )


def _worth_having(kinds: Whole, sets: Flags, slots: Whole, steps: Reals, aims: Flags) -> _Columns:
    """Of sets that take the same slots the best, and of these none that another beats with no more slots."""
    patterns, pattern = np.unique(slots, axis=0, return_inverse=True)
    totals = _totals(steps, sets, aims)
    best = np.empty((len(kinds), len(patterns)), dtype=np.int64)
    for number in range(len(patterns)):
        among = np.flatnonzero(pattern.reshape(-1) == number)
        best[:, number] = among[_best(totals[:, :, among])]
    totals = np.take_along_axis(totals, best[None], axis=2)
    kept = np.ones(best.shape, dtype=bool)
    for number, wanted in enumerate(patterns):
        cheaper = (patterns <= wanted).all(axis=1)
        cheaper[number] = False
        kept[:, number] = ~_at_least(totals[:, :, cheaper], totals[:, :, [number]]).any(axis=1)
    kind, place = np.nonzero(kept)
    return _Columns(kinds[kind], sets[best[kind, place]], totals[:, kind, place], patterns[place])


# Sharing out


def _share(
    competition: Competition, contested: _Contested, deadline: float
) -> tuple[Whole, dict[int, float | None], bool]:
    """(p,) each contested person's column; what the last slot of a full node is worth; whether all is solved."""
    size = np.bincount(contested.kind)
    times = np.zeros(len(contested.columns.owner), dtype=np.int64)
    solved = np.ones(len(size), dtype=bool)
    programs = []
    for kinds in _together(contested.component):
        program = _Program.of(contested, kinds, size)
        counts = program.solve(program.free, deadline)
        if counts is None:
            solved[kinds] = False
        else:
            times[program.places] = counts
            programs.append(program)
    last: dict[int, float | None] = {}
    for program in programs:
        last |= program.worth(times[program.places], competition.step, deadline)
    given = np.empty(len(contested.people), dtype=np.int64)
    done = solved[contested.kind]
    given[done] = np.repeat(np.arange(len(times)), times)
    if not done.all():
        given[~done] = _by_gain(competition, contested, np.flatnonzero(~done))
    return given, last, bool(solved.all())


@dataclass(frozen=True)
class _Program:
    """How many people of each kind get which column. places (c,): of its columns. nodes: of its groups.

    people: sparse (kinds, c), each column's kind. slots: sparse (nodes, c), what a column takes. aims: rows (c,)
    of totals, scaled to at most 1, so that the solver's tolerances mean the same for all.
    """

    places: Whole
    nodes: Whole
    free: Whole
    size: Whole
    owner: Whole
    people: Any
    slots: Any
    aims: Sequence[Reals]
    steps: Whole

    @classmethod
    def of(cls, contested: _Contested, kinds: Whole, size: Whole) -> _Program:
        from scipy.sparse import csr_array

        columns = contested.columns
        places = np.flatnonzero(np.isin(columns.owner, kinds))
        owner = np.searchsorted(kinds, columns.owner[places])
        column, quota = np.nonzero(columns.slots[places])
        nodes, row = np.unique(contested.node[kinds][owner[column], quota], return_inverse=True)
        takes = columns.slots[places][column, quota].astype(float)
        totals = columns.totals[:, places]
        return cls(
            places=places,
            nodes=nodes,
            free=contested.free[nodes],
            size=size[kinds],
            owner=owner,
            people=csr_array(
                (np.ones(len(places)), (owner, np.arange(len(places)))), shape=(len(kinds), len(places))
            ),
            slots=csr_array((takes, (row, column)), shape=(len(nodes), len(places))),
            aims=[aim / aim.max() for aim in _different(totals) if aim.max() > 0],
            steps=totals[:-1].sum(axis=0).astype(np.int64),
        )

    def solve(self, free: Whole, deadline: float) -> Whole | None:
        """(c,) people per column, best for one aim after the other; None: not found in time."""
        if len(self.places) > MOST_COLUMNS:
            return None
        search = _Search(self, free, deadline)
        counts = None
        for aim in self.aims:
            counts = search.best(aim)
            if counts is None:
                return None
        return counts

    def worth(self, counts: Whole, step: float, deadline: float) -> dict[int, float | None]:
        """By full node: how much less the total is with one slot less."""
        worth: dict[int, float | None] = {}
        for place in np.flatnonzero((self.slots @ counts == self.free) & (self.free > 0)):
            less = self.free.copy()
            less[place] -= 1
            others = self.solve(less, deadline)
            difference = None if others is None else float(self.steps @ (counts - others)) * step
            worth[int(self.nodes[place])] = difference
        return worth


class _Search:
    """The best counts for one aim after the other. Each aim found is a condition of the next, and columns that no
    best solution has are left out: their reduced cost is more than whole people lose against the linear program,
    which is nearly always nothing."""

    def __init__(self, program: _Program, free: Whole, deadline: float) -> None:
        self.program, self.free, self.deadline = program, free, deadline
        self.kept = np.arange(len(program.places))
        self.reached: list[tuple[Reals, float]] = []

    def best(self, aim: Reals) -> Whole | None:
        relaxed = self._relaxed(aim)
        if relaxed is None:
            return None
        counts, cost, bound = relaxed
        for reach in (0.0, *_REACHES):
            if reach:
                counts = self._whole(aim, self.kept[cost <= reach])
            missing = bound - float(aim @ counts) if self._holds(counts) else np.inf
            if missing <= max(reach, _TOLERANCE):
                self.kept = self.kept[cost <= missing + _TOLERANCE]
                self.reached.append((aim, float(aim @ counts)))
                return counts
        return None

    def _relaxed(self, aim: Reals) -> tuple[Whole, Reals, float] | None:
        """The optimum of the linear program, rounded; each kept column's reduced cost; the optimum's value."""
        from scipy.optimize import linprog  # type: ignore[import-untyped]

        left = self.deadline - monotonic()
        if left <= 0:
            return None
        program, (rows, at_most) = self.program, self._conditions(self.kept)
        people = program.people[:, self.kept]
        options = {"time_limit": left}
        found = linprog(-aim[self.kept], rows, at_most, people, program.size, options=options, method="highs")
        if found.status != 0:
            return None
        prices = people.T @ found.eqlin.marginals + rows.T @ found.ineqlin.marginals
        return self._spread(found.x, self.kept), -aim[self.kept] - prices, -float(found.fun)

    def _whole(self, aim: Reals, among: Whole) -> Whole:
        """The best whole numbers of these columns; none at all where there are none in time."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        program, (rows, at_most) = self.program, self._conditions(among)
        found = milp(
            -aim[among],
            integrality=np.ones(len(among)),
            bounds=Bounds(0, program.size[program.owner[among]]),
            constraints=[
                LinearConstraint(program.people[:, among], program.size, program.size),
                LinearConstraint(rows, -np.inf, at_most),
            ],
            options={"mip_rel_gap": 0, "time_limit": max(self.deadline - monotonic(), 0.0)},
        )
        return self._spread(found.x if found.status == 0 else np.zeros(len(among)), among)

    def _conditions(self, among: Whole) -> tuple[Any, Reals]:
        """Sparse rows over these columns and what they may be at most: the groups' slots, and the aims so far."""
        from scipy.sparse import csr_array, vstack

        rows = [self.program.slots[:, among], *(csr_array(-aim[None, among]) for aim, _ in self.reached)]
        return vstack(rows, format="csr"), np.array([*self.free, *(_TOLERANCE - best for _, best in self.reached)])

    def _spread(self, counts: Reals, among: Whole) -> Whole:
        result = np.zeros(len(self.program.places), dtype=np.int64)
        result[among] = np.rint(counts)
        return result

    def _holds(self, counts: Whole) -> bool:
        program = self.program
        return bool(
            (program.people @ counts == program.size).all()
            and (program.slots @ counts <= self.free).all()
            and all(aim @ counts >= best - 2 * _TOLERANCE for aim, best in self.reached)
        )


def _different(totals: Reals) -> list[Reals]:
    """Rows that are not the same as one before."""
    return [row for place, row in enumerate(totals) if not (totals[:place] == row).all(axis=1).any()]


def _by_gain(competition: Competition, contested: _Contested, rows: Whole) -> Whole:
    """(rows,) the column of each: everybody asks for the best they have not been refused yet, and slots go to who
    gains the most per slot, class before class."""
    columns, people, kind = contested.columns, contested.people[rows], contested.kind[rows]
    kinds = np.arange(len(contested.node))
    gain = columns.totals - columns.totals[:, np.searchsorted(columns.owner, kinds, "right") - 1][:, columns.owner]
    gain = gain / np.maximum(columns.slots.sum(axis=1), 1)
    asks = np.searchsorted(columns.owner, kinds)[kind]
    free, waiting = contested.free.copy(), np.arange(len(rows))
    while len(waiting):
        column = asks[waiting]
        turn = np.lexsort((competition.order[people[waiting]], *-gain[::-1][:, column]))
        waiting, column = waiting[turn], column[turn]
        node, slots = contested.node[kind[waiting]], columns.slots[column]
        queues = [_Queue(node[:, q], slots[:, q], free) for q in np.flatnonzero(slots.any(axis=0))]
        granted = _admitted(queues, len(waiting))
        row, quota = np.nonzero(slots * granted[:, None])
        np.subtract.at(free, node[row, quota], slots[row, quota])
        waiting = waiting[~granted]
        asks[waiting] += 1  # the last one takes no slots
    return asks


class _Queue:
    """People in turn before the slots of their groups. group, slots (p,): slots 0 takes part without a group."""

    def __init__(self, group: NDArray[np.integer[Any]], slots: Whole, free: Whole) -> None:
        self.slots = slots
        self.free = free[np.where(slots > 0, group, 0)]
        self.sorted = np.argsort(group, kind="stable")
        self.starts = np.searchsorted(group[self.sorted], group)

    def before(self, flags: Flags) -> Whole:
        """(p,) slots of those with `flags` who are in the same group and earlier in turn."""
        taken = (self.slots * flags)[self.sorted]
        earlier = np.cumsum(taken) - taken
        result = np.empty_like(earlier)
        result[self.sorted] = earlier
        return result - earlier[self.starts]


def _admitted(queues: Sequence[_Queue], size: int) -> Flags:
    """(p,) who gets the slots asked for, if each in turn takes them when all queues have them: not one by one, but
    all at once whose case does not depend on anybody who is still open."""
    taken, is_open = np.zeros(size, dtype=bool), np.ones(size, dtype=bool)
    while is_open.any():
        sure, lost = is_open.copy(), np.zeros(size, dtype=bool)
        for queue in queues:
            asks = queue.slots > 0
            left = queue.free - queue.slots - queue.before(taken)
            lost |= asks & (left < 0)
            sure &= ~asks | (left >= queue.before(is_open))
        taken |= sure
        is_open &= ~sure & ~lost
    return taken


# What came of it


def _result(
    competition: Competition,
    chosen: Flags,
    alone: Flags,
    last: Mapping[int, float | None] | None,
    exact: bool,
) -> Allocation:
    """`last` by node; None where nothing is known of any."""
    worth, start = [], 0
    for row in competition.quotas:
        each = zip(
            _used(row, chosen).tolist(),
            row.free.tolist(),
            _best_left_out(competition, row, alone & ~chosen),
            strict=True,
        )
        worth.append(
            tuple(
                SlotWorth(used, free, _last(last, start + group) if used == free > 0 else 0.0, best)
                for group, (used, free, best) in enumerate(each)
            )
        )
        start += len(row.free)
    return Allocation(chosen, total_value(competition, chosen), tuple(worth), exact)


def _last(last: Mapping[int, float | None] | None, node: int) -> float | None:
    return None if last is None else last.get(node)


def _best_left_out(competition: Competition, row: QuotaRow, out: Flags) -> list[float | None]:
    """(G,) the greatest value; None where nobody is left out."""
    best = np.full(len(row.free), -1.0)
    for place in np.flatnonzero(row.counted):
        who = np.flatnonzero(out[:, place])
        np.maximum.at(best, row.group[who], competition.values[who, place])
    return [value if value >= 0 else None for value in best.tolist()]
