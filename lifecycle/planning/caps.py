"""Caps: whom the messages of the past keep from getting one more.

A rule counts a person's messages that hold a slot and whose send time lies in its window. At the limit, the
limit-th newest of them is the one that blocks: when it leaves the window, a slot is free. What still waits to be
sent counts as sent now. Transactional messages are exempt and do not count, unless a rule says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from lifecycle.db.arrays import NULL
from lifecycle.planning.counting import concerns
from lifecycle.planning.past import Past, newest
from lifecycle.planning.windows import frees
from lifecycle.settings.models import Campaign, CapRule

NEVER = int(np.iinfo(np.int64).max)
"""When a slot frees of a rule that allows nothing."""

Reach = Mapping[str, NDArray[np.bool_]]
"""By rule: whom it concerns at all, because of their shop or segment."""


@dataclass(frozen=True)
class Blocked:
    """Of each person: the rule that blocks, -1 where none does; whether it does so without the messages of
    campaigns that go first; the message that blocks and the newest that won, NULL for none; when a slot frees."""

    rule: NDArray[np.int64]
    unaided: NDArray[np.bool_]
    message_id: NDArray[np.int64]
    winner_id: NDArray[np.int64]
    frees_at: NDArray[np.int64]


def applicable(rules: Iterable[CapRule], campaign: Campaign) -> tuple[CapRule, ...]:
    """The rules that a message of `campaign` must pass."""
    return tuple(rule for rule in rules if not rule.is_off and concerns(rule, campaign))


def going_first(campaigns: Iterable[Campaign], campaign: Campaign) -> tuple[str, ...]:
    """Names of the campaigns that take slots before `campaign`: lower priority number, then as written."""
    ordered = sorted(campaigns, key=lambda other: other.priority)
    before = takewhile(lambda o: o.name != campaign.name and o.priority <= campaign.priority, ordered)
    return tuple(other.name for other in before)


def blocked(
    past: Past, rules: Sequence[CapRule], numbers: Mapping[str, int], reach: Reach, people: int, at: datetime
) -> Blocked:
    """`rules`: those that the campaign must pass; `numbers`: each rule's bit in `past`.

    Of several blocking rules the one whose slot frees last is named. It is `unaided` if any of them blocks
    without a winner.
    """
    best = _nobody(people)
    for place, rule in enumerate(rules):
        one = _by_rule(past, rule, numbers[rule.name], people, at)
        blocks = (one.rule == 0) & reach[rule.name]
        best.unaided[blocks & one.unaided] = True
        later = blocks & (one.frees_at > best.frees_at)
        best.rule[later] = place
        for name in ("message_id", "winner_id", "frees_at"):
            getattr(best, name)[later] = getattr(one, name)[later]
    return best


def counted(past: Past, rule: CapRule, number: int, people: int, at: datetime) -> NDArray[np.int64]:
    """How many messages of each person hold a slot of the rule at `at`."""
    holds = past.of_rule(number, rule, at) & ~past.refused
    return np.bincount(past.person[holds], minlength=people)


def _nobody(people: int) -> Blocked:
    return Blocked(
        rule=np.full(people, -1, dtype=np.int64),
        unaided=np.zeros(people, dtype=bool),
        message_id=np.full(people, NULL, dtype=np.int64),
        winner_id=np.full(people, NULL, dtype=np.int64),
        frees_at=np.full(people, NULL, dtype=np.int64),
    )


def _by_rule(past: Past, rule: CapRule, number: int, people: int, at: datetime) -> Blocked:
    """`rule` is 0 for whom it blocks."""
    assert rule.limit is not None, "a rule without limit blocks nobody"
    result = _nobody(people)
    if rule.limit == 0:
        result.rule[:] = 0
        result.unaided[:] = True
        result.frees_at[:] = NEVER
        return result
    in_window = past.of_rule(number, rule, at)
    holds = np.flatnonzero(in_window & ~past.refused)
    person = past.person[holds]
    _block(result, past, rule, holds[newest(person, rule.limit)], at)
    winners = holds[past.won[holds]]
    latest = winners[newest(past.person[winners], 1)]
    result.winner_id[past.person[latest]] = past.message_id[latest]
    others = np.bincount(past.person[holds[~past.won[holds]]], minlength=people)
    result.unaided[:] = others >= rule.limit
    if rule.learns_from_refusals:
        refusals = np.flatnonzero(in_window & past.refused)
        last = refusals[newest(past.person[refusals], 1)]
        _block(result, past, rule, last, at)
        result.unaided[past.person[last]] = True
    return result


def _block(result: Blocked, past: Past, rule: CapRule, which: NDArray[np.int64], at: datetime) -> None:
    """By the messages `which`, one a person, where they free later than what blocks already."""
    whom, until = past.person[which], frees(rule, past.sent[which], at)
    later = until > result.frees_at[whom]
    result.rule[whom] = 0
    result.message_id[whom[later]] = past.message_id[which][later]
    result.frees_at[whom[later]] = until[later]
