"""Messages of the past that hold slots of the people who are judged, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    and_,
    case,
    false,
    literal,
    literal_column,
    or_,
    select,
)

from lifecycle.db.arrays import arrays
from lifecycle.db.schema import messages, microseconds
from lifecycle.planning.counting import (
    MAY_COUNT,
    REFUSED_BY_BUYER,
    WAITING,
    WAITING_STATES,
    bits,
    by_address,
    counts,
)
from lifecycle.planning.windows import begins
from lifecycle.settings.models import CapRule

_LONGEST_WAIT = timedelta(days=2)
"""Marketing that waits longer has expired; what else waits so long is rare, and looked for on its own."""

STILL_WAITING = messages.c.state.in_([literal_column(f"'{state}'") for state in WAITING_STATES])
"""Spelled out, so that SQLite sees that the index of open messages serves."""


@dataclass(frozen=True)
class Past:
    """Sorted by person and newest first. `person`: index into the people; `sent`: microseconds since 1970, now for
    one that waits; `counted_by`: bit k for rule k; `won`: of this date, by a campaign that goes first; `refused`:
    holds no slot, but its platform said that the buyer has had enough."""

    person: NDArray[np.int64]
    sent: NDArray[np.int64]
    message_id: NDArray[np.int64]
    counted_by: NDArray[np.int64]
    same_shop: NDArray[np.bool_]
    same_customer: NDArray[np.bool_]
    same_address: NDArray[np.bool_]
    won: NDArray[np.bool_]
    refused: NDArray[np.bool_]

    def of_rule(self, number: int, rule: CapRule, at: datetime) -> NDArray[np.bool_]:
        """Which of them the rule counts in its window at `at`, refusals among them."""
        in_window = (self.sent > microseconds(begins(rule, at))) & (self.sent <= microseconds(at))
        found = in_window & ((self.counted_by >> number & 1) == 1)
        found &= self.same_address if rule.scope == "address" else self.same_customer
        if rule.scope == "customer_and_shop":
            found &= self.same_shop
        return found


def past(
    connection: Connection,
    people: FromClause,
    ids: NDArray[np.int64],
    rules: Sequence[CapRule],
    *,
    at: datetime,
    won: NDArray[np.int64],
) -> Past:
    """Messages to `people` (customer_id, shop, address_hash; `ids`: their customer_ids, ascending) that one of the
    rules may count at `at` or later. `won`: message_ids of this date's that go first."""
    since = min((begins(rule, at) for rule in rules), default=at)
    looked_back = min(since, at - _LONGEST_WAIT)
    ways = [False, True] if by_address(rules) else [False]
    times = [messages.c.send_at > looked_back]
    if _waits_for_long(connection, looked_back):
        times.append(and_(STILL_WAITING, messages.c.send_at <= looked_back))
    parts = [
        _read(connection, people, rules, at, [time, _counts_at(since, at)], to_others=way)
        for way in ways
        for time in times
    ]
    theirs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    person = np.searchsorted(ids, theirs["customer_id"])
    newest_first = np.lexsort((-theirs["message_id"], -theirs["sent"], person))
    flags = theirs["flags"][newest_first]
    return Past(
        person=person[newest_first],
        sent=theirs["sent"][newest_first],
        message_id=theirs["message_id"][newest_first],
        counted_by=flags >> len(_FLAGS),
        won=np.isin(theirs["message_id"][newest_first], won),
        **{name: (flags >> place & 1) == 1 for place, name in enumerate(_FLAGS)},
    )


_FLAGS = ("same_shop", "same_customer", "same_address", "refused")


def _read(
    connection: Connection,
    people: FromClause,
    rules: Sequence[CapRule],
    at: datetime,
    when: Sequence[ColumnElement[bool]],
    *,
    to_others: bool,
) -> dict[str, NDArray[np.int64]]:
    if to_others:
        joined = and_(
            messages.c.address_hash == people.c.address_hash, messages.c.customer_id != people.c.customer_id
        )
    else:  # the sum keeps SQLite from reading all messages ever sent and looking up each one's customer
        joined = messages.c.customer_id == people.c.customer_id + 0
    flags = {
        "same_shop": messages.c.shop == people.c.shop,
        "same_customer": messages.c.customer_id == people.c.customer_id,
        "same_address": messages.c.address_hash == people.c.address_hash if by_address(rules) else false(),
        "refused": REFUSED_BY_BUYER,
    }
    conditions = [*(flags[name] for name in _FLAGS), *(counts(rule) for rule in rules)]
    query = (
        select(
            people.c.customer_id,
            case((WAITING, literal(at, messages.c.send_at.type)), else_=messages.c.send_at).label("sent"),
            messages.c.message_id,
            bits(enumerate(conditions)).label("flags"),
        )
        .join_from(people, messages, joined)
        .where(*when, MAY_COUNT)
        .where(or_(*(counts(rule) for rule in rules)) if rules else false())
    )
    return arrays(connection, query)


def _counts_at(since: datetime, at: datetime) -> ColumnElement[bool]:
    return or_(WAITING, and_(messages.c.send_at > since, messages.c.send_at <= at))


def _waits_for_long(connection: Connection, since: datetime) -> bool:
    query = select(messages.c.message_id).where(STILL_WAITING, messages.c.send_at <= since).limit(1)
    return connection.execute(query).first() is not None


def newest(kept: NDArray[np.int64], place: int) -> NDArray[np.bool_]:
    """Of messages sorted by person, `kept` giving each one's person: which are the person's `place`-th, from 1."""
    first = np.flatnonzero(np.r_[True, kept[1:] != kept[:-1]]) if len(kept) else np.array([], dtype=np.int64)
    sizes = np.diff(np.r_[first, len(kept)])
    found: NDArray[np.bool_] = np.arange(len(kept)) - np.repeat(first, sizes) == place - 1
    return found
