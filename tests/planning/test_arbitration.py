"""Who gets the slots, against every possible choice: random rules, pasts, quotas, priorities, values with ties."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lifecycle.planning.arbitration import (
    Allocation,
    CapRow,
    Competition,
    Offer,
    QuotaRow,
    SlotWorth,
    arbitrate,
    first_come,
    total_value,
)

DAY = 86_400_000_000
VALUES = [1.0, 1.0, 2.0, 2.5, 3.0, 5.0, 5.5, 0.1, 0.2, 0.3, float("nan")]
NAN = float("nan")


@st.composite
def competitions(
    draw: st.DrawFn, *, people: int = 4, offers: int = 3, quotas: int = 2, priorities: tuple[int, ...] = (10, 50)
) -> Competition:
    n = draw(st.integers(1, people))
    m = draw(st.integers(1, offers))
    times = [draw(st.sampled_from([0, 0, 1, 3])) for _ in range(m)]
    ordered = sorted((day, draw(st.sampled_from(priorities))) for day in times)
    at = np.array([day for day, _ in ordered])
    return Competition(
        offers=tuple(Offer(f"offer_{i}", day * DAY, priority) for i, (day, priority) in enumerate(ordered)),
        values=np.array([[draw(st.sampled_from(VALUES)) for _ in range(m)] for _ in range(n)]),
        caps=tuple(draw(cap_rows(n, at)) for _ in range(draw(st.integers(0, 2)))),
        quotas=tuple(draw(quota_rows(n, m)) for _ in range(draw(st.integers(0, quotas)))),
        order=np.array(draw(st.permutations(range(n)))),
    )


def flags(draw: st.DrawFn, *shape: int) -> NDArray[np.bool_]:
    size = int(np.prod(shape))
    return np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=bool).reshape(shape)


@st.composite
def cap_rows(draw: st.DrawFn, n: int, at: NDArray[np.int64]) -> CapRow:
    m, days = len(at), draw(st.sampled_from([1, 2, 7]))
    history = [[draw(st.sampled_from([0, 0, 0, 1, 2])) for _ in range(m)] for _ in range(n)]
    return CapRow(
        name="cap",
        limit=draw(st.sampled_from([0, 1, 1, 1, 2, 2])),
        counted=flags(draw, m),
        applies=flags(draw, m),
        within=(at[None, :] > at[:, None] - days) & (at[None, :] <= at[:, None]),
        history=np.array(history),
        people=draw(st.sampled_from([None, flags(draw, n)])),
    )


@st.composite
def quota_rows(draw: st.DrawFn, n: int, m: int) -> QuotaRow:
    groups = draw(st.integers(1, 2))
    return QuotaRow(
        name="quota",
        free=np.array([draw(st.sampled_from([-1, 0, 1, 1, 2, 3, 1_000])) for _ in range(groups)]),
        counted=flags(draw, m),
        group=np.array([draw(st.integers(0, groups - 1)) for _ in range(n)]),
    )


def passes(rule: CapRow, person: int, offers: tuple[int, ...]) -> bool:
    if rule.people is not None and not rule.people[person]:
        return True
    return all(
        rule.history[person, j] + sum(1 for i in offers if rule.counted[i] and rule.within[j, i]) <= rule.limit
        for j in offers
        if rule.applies[j]
    )


def sets_of(competition: Competition, person: int) -> Iterator[tuple[int, ...]]:
    meant = [j for j in range(len(competition.offers)) if not np.isnan(competition.values[person, j])]
    for size in range(len(meant) + 1):
        for offers in itertools.combinations(meant, size):
            if all(passes(rule, person, offers) for rule in competition.caps):
                yield offers


def within_quotas(competition: Competition, choice: tuple[tuple[int, ...], ...]) -> bool:
    for row in competition.quotas:
        left = np.maximum(row.free, 0).tolist()
        for person, offers in enumerate(choice):
            left[row.group[person]] -= sum(1 for j in offers if row.counted[j])
        if min(left) < 0:
            return False
    return True


def class_totals(competition: Competition, choice: tuple[tuple[int, ...], ...]) -> list[float]:
    """Rounded, so that sums in another order are equal."""
    totals = dict.fromkeys(sorted({offer.priority for offer in competition.offers}), 0.0)
    for person, offers in enumerate(choice):
        for j in offers:
            totals[competition.offers[j].priority] += competition.values[person, j]
    return [round(total, 6) for total in totals.values()]


def best_totals(competition: Competition) -> list[float]:
    people = range(len(competition.order))
    choices = itertools.product(*(list(sets_of(competition, person)) for person in people))
    return max(class_totals(competition, choice) for choice in choices if within_quotas(competition, choice))


def as_sets(chosen: NDArray[np.bool_]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in chosen)


def assert_feasible(competition: Competition, chosen: NDArray[np.bool_]) -> None:
    assert not np.isnan(competition.values[chosen]).any()
    choice = as_sets(chosen)
    assert within_quotas(competition, choice)
    assert all(passes(rule, p, offers) for p, offers in enumerate(choice) for rule in competition.caps)


def one_by_one(competition: Competition) -> NDArray[np.bool_]:
    """First come, first served, the obvious way."""
    chosen = np.zeros(competition.values.shape, dtype=bool)
    for j in range(len(competition.offers)):
        for person in np.argsort(competition.order):
            if np.isnan(competition.values[person, j]):
                continue
            chosen[person, j] = True
            choice = as_sets(chosen)
            if not all(passes(rule, person, choice[person]) for rule in competition.caps) or any(
                row.counted[j]
                and (chosen & row.counted)[row.group == row.group[person]].sum() > row.free[row.group[person]]
                for row in competition.quotas
            ):
                chosen[person, j] = False
    return chosen


@settings(max_examples=500)
@given(competition=competitions(quotas=0))
def test_without_quotas_it_is_the_best_there_is(competition: Competition) -> None:
    allocation = arbitrate(competition)
    assert allocation.exact
    assert_feasible(competition, allocation.chosen)
    assert class_totals(competition, as_sets(allocation.chosen)) == best_totals(competition)


@settings(max_examples=400)
@given(competition=competitions())
def test_with_quotas_it_is_the_best_there_is(competition: Competition) -> None:
    allocation = arbitrate(competition)
    assert allocation.exact
    assert_feasible(competition, allocation.chosen)
    assert class_totals(competition, as_sets(allocation.chosen)) == best_totals(competition)
    assert allocation.total == pytest.approx(total_value(competition, allocation.chosen))


@settings(max_examples=250)
@given(competition=competitions(people=8, offers=5, quotas=3, priorities=(10, 20, 50)), hurried=st.booleans())
def test_it_is_never_worse_than_first_come(competition: Competition, hurried: bool) -> None:
    allocation = arbitrate(competition, seconds=0 if hurried else 30)
    assert_feasible(competition, allocation.chosen)
    first = class_totals(competition, as_sets(first_come(competition)))
    assert class_totals(competition, as_sets(allocation.chosen)) >= first
    assert allocation.exact or hurried


@settings(max_examples=300)
@given(competition=competitions(people=6, offers=4, quotas=3))
def test_first_come_takes_one_by_one(competition: Competition) -> None:
    assert (first_come(competition) == one_by_one(competition)).all()


@settings(max_examples=100)
@given(competition=competitions(people=6, offers=4), data=st.data())
def test_who_stands_where_in_the_table_does_not_matter(competition: Competition, data: st.DataObject) -> None:
    places = np.array(data.draw(st.permutations(range(len(competition.order)))))
    shuffled = replace(
        competition,
        values=competition.values[places],
        order=competition.order[places],
        caps=tuple(
            replace(
                rule,
                history=rule.history[places],
                people=None if rule.people is None else rule.people[places],
            )
            for rule in competition.caps
        ),
        quotas=tuple(replace(row, group=row.group[places]) for row in competition.quotas),
    )
    allocation = arbitrate(competition)
    assert (arbitrate(shuffled).chosen == allocation.chosen[places]).all()
    assert (arbitrate(competition).chosen == allocation.chosen).all()


@settings(max_examples=150)
@given(competition=competitions(people=3))
def test_the_last_slot_is_worth_what_is_lost_without_it(competition: Competition) -> None:
    allocation = arbitrate(competition)
    best = sum(best_totals(competition))
    for number, row in enumerate(competition.quotas):
        for group, slots in enumerate(allocation.worth[number]):
            used = int((allocation.chosen & row.counted)[row.group == group].sum())
            assert (slots.used, slots.free) == (used, row.free[group])
            if slots.free <= 0:
                assert slots.last == 0
                continue
            free = row.free.copy()
            free[group] -= 1
            quotas = [*competition.quotas[:number], replace(row, free=free), *competition.quotas[number + 1 :]]
            less = best - sum(best_totals(replace(competition, quotas=tuple(quotas))))
            # With slots left over one less may be served differently by a tie, but is worth the same.
            assert slots.last == pytest.approx(less, abs=1e-5)


def competition_of(
    values: list[list[float]],
    *,
    days: tuple[int, ...] = (0, 0),
    priorities: tuple[int, ...] = (10, 10),
    limit: int = 9,
    window: int = 7,
    free: int | None = None,
) -> Competition:
    """Everybody in one shop, one rule over all offers, nobody with a past; `order` as written."""
    n, m = len(values), len(values[0])
    at = np.array(days)
    every = np.ones(m, dtype=bool)
    return Competition(
        offers=tuple(Offer(f"offer_{i}", days[i] * DAY, priorities[i]) for i in range(m)),
        values=np.array(values),
        caps=(
            CapRow(
                name="cap",
                limit=limit,
                counted=every,
                applies=every,
                within=(at[None, :] > at[:, None] - window) & (at[None, :] <= at[:, None]),
                history=np.zeros((n, m), dtype=np.int64),
            ),
        ),
        quotas=() if free is None else (QuotaRow("quota", np.array([free]), every, np.zeros(n, dtype=np.int64)),),
        order=np.arange(n),
    )


def test_a_slot_is_kept_for_a_better_message_that_is_due_later() -> None:
    waits, does_not = [2.0, 3.0], [3.0, 2.0]
    competition = competition_of([waits, does_not], days=(0, 3), limit=1)
    assert as_sets(arbitrate(competition).chosen) == ((1,), (0,))
    assert as_sets(first_come(competition)) == ((0,), (0,))


def test_no_slot_is_kept_where_both_fit() -> None:
    competition = competition_of([[2.0, 3.0]], days=(0, 7), limit=1)
    assert as_sets(arbitrate(competition).chosen) == ((0, 1),)


def test_a_quota_goes_to_whom_it_is_worth_the_most_for() -> None:
    allocation = arbitrate(competition_of([[1.0], [4.0], [2.0], [3.0]], days=(0,), priorities=(1,), free=2))
    assert as_sets(allocation.chosen) == ((), (0,), (), (0,))
    (slots,) = allocation.worth[0]
    assert slots == SlotWorth(used=2, free=2, last=3.0, best_left_out=2.0)


def test_no_value_makes_up_for_priority() -> None:
    competition = competition_of([[1.0, 500.0]], priorities=(10, 50), limit=1)
    assert as_sets(arbitrate(competition).chosen) == ((0,),)


def test_between_equals_what_is_due_first_and_then_who_is_first() -> None:
    competition = competition_of([[2.0, 2.0]] * 3, days=(0, 3), limit=1, free=2)
    assert as_sets(arbitrate(competition).chosen) == ((0,), (0,), ())


def test_nobody_is_meant_for_anything() -> None:
    allocation = arbitrate(competition_of([[NAN, NAN]], free=1))
    assert (allocation.total, allocation.exact, allocation.chosen.any()) == (0, True, False)
    empty = replace(competition_of([[1.0]]), values=np.zeros((0, 1)), order=np.zeros(0), caps=())
    assert arbitrate(empty).chosen.shape == (0, 1)


@pytest.mark.parametrize("value", [-1.0, float("inf")])
def test_values_must_make_sense(value: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        arbitrate(competition_of([[value, 1.0]]))


def test_of_very_many_offers_the_first_and_best_are_looked_at() -> None:
    values = np.random.default_rng(1).integers(1, 99, (5, 15)).astype(float)
    competition = competition_of(values.tolist(), days=(0,) * 14 + (3,), priorities=(10,) * 15, limit=2, free=9)
    allocation = arbitrate(competition)
    assert not allocation.exact
    assert_feasible(competition, allocation.chosen)
    best = sorted(np.sort(values[:, :14], axis=1)[:, -2:].ravel())[-9:]  # the last one is due later
    assert allocation.total == pytest.approx(sum(best))


class TestManyPeople:
    """200,000 people of few kinds, three offers, two rules, quotas of four shops."""

    competition: Competition
    allocation: Allocation

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _arbitrated(cls) -> None:
        rng = np.random.default_rng(7)
        n = 200_000
        values = np.column_stack([rng.choice([2.0, 4.5, 7.0, NAN], n) for _ in range(3)])
        at = np.array([0, 0, 3])
        every = np.ones(3, dtype=bool)
        week, two_days = (
            CapRow(
                name=f"{days} days",
                limit=limit,
                counted=every,
                applies=every,
                within=(at[None, :] > at[:, None] - days) & (at[None, :] <= at[:, None]),
                history=rng.choice([0, 0, 0, 1, 2], (n, 1)) * np.ones((1, 3), dtype=np.int64),
            )
            for days, limit in ((7, 2), (2, 1))
        )
        quota = QuotaRow("month", np.array([10_000, 30_000, 10**9, 0]), every, rng.integers(0, 4, n))
        offers = (Offer("now", 0, 10), Offer("also now", 0, 50), Offer("later", 3 * DAY, 50))
        cls.competition = Competition(offers, values, (week, two_days), (quota,), rng.permutation(n))
        cls.allocation = arbitrate(cls.competition)

    def test_quotas_and_caps_hold(self) -> None:
        assert self.allocation.exact
        assert [slots.used for slots in self.allocation.worth[0]][:2] == [10_000, 30_000]
        assert self.allocation.worth[0][3].used == 0
        chosen = self.allocation.chosen
        for rule in self.competition.caps:
            for j in range(3):
                used = rule.history[:, j] + (chosen & rule.within[j]).sum(axis=1)
                assert (used[chosen[:, j]] <= rule.limit).all()

    def test_without_a_quota_each_kind_has_its_best(self) -> None:
        free = np.flatnonzero(self.competition.quotas[0].group == 2)
        caps = self.competition.caps
        facts = np.column_stack([self.competition.values, *(rule.history for rule in caps)])[free]
        _, first, kind = np.unique(np.nan_to_num(facts, nan=-1), axis=0, return_index=True, return_inverse=True)
        assert len(first) < 1_000
        for number, example in enumerate(free[first]):
            best = max(
                (class_totals_of(self.competition, example, offers), offers)
                for offers in sets_of(self.competition, example)
            )[0]
            mine = self.allocation.chosen[free[kind.reshape(-1) == number]]
            assert (mine == mine[0]).all()
            assert class_totals_of(self.competition, example, as_sets(mine[:1])[0]) == best

    def test_a_scarce_slot_goes_to_the_first_class_and_there_to_the_best(self) -> None:
        in_shop = self.competition.quotas[0].group == 0
        values, chosen = self.competition.values[in_shop], self.allocation.chosen[in_shop]
        room = np.ones(in_shop.sum(), dtype=bool)
        for rule in self.competition.caps:
            room &= rule.history[in_shop, 0] < rule.limit
        best = np.sort(values[room & ~np.isnan(values[:, 0]), 0])[::-1][:10_000]
        assert values[chosen[:, 0], 0].sum() == best.sum()


def class_totals_of(competition: Competition, person: int, offers: tuple[int, ...]) -> list[float]:
    choice: list[tuple[int, ...]] = [()] * len(competition.order)
    choice[person] = offers
    first = sum(competition.values[person, j] for j in offers if competition.offers[j].priority == 10)
    return [first, sum(competition.values[person, j] for j in offers) - first]
