"""Consent: facts that are only ever added. What counts is computed from them, as of an instant.

The newest fact counts; of two from the same instant the withdrawal. A grant that has expired does not count; a
withdrawal dated ahead of its record, by a clock that is fast, counts from the record on.
A fact without a date is dated so that it can lower consent and never raise it: a grant to 1970, before any
withdrawal; a withdrawal to the instant at which the shop's row was changed, or to now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, case, func, or_, select

from lifecycle.customers.versions import aware
from lifecycle.db.bulk import rows_in, upsert
from lifecycle.db.schema import consents
from lifecycle.db.storable import storable_text
from lifecycle.platforms.records import ConsentFact

_KEY = ("customer_id", "shop", "channel", "topic", "status", "occurred_at", "source")
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Said:
    """`fact` about a customer. `row_at`: when the shop's row that says it was changed, where known."""

    customer_id: int
    fact: ConsentFact
    row_at: datetime | None = None


def effective_consent(as_of: datetime) -> Select[Any]:
    """One row per (customer_id, shop, channel, topic) that counts at `as_of`: status, occurred_at, basis, source.

    Withdrawn ones are rows too. Who is in no row never said anything that still counts.
    """
    facts = consents.c
    newest_first = func.row_number().over(
        partition_by=(facts.customer_id, facts.shop, facts.channel, facts.topic),
        order_by=(
            facts.occurred_at.desc(),
            case((facts.status == "withdrawn", 0), else_=1),
            facts.consent_id.desc(),
        ),
    )
    is_withdrawn = facts.status == "withdrawn"
    counting = (
        select(consents, newest_first.label("place"))
        .where(
            or_(facts.occurred_at <= as_of, and_(is_withdrawn, facts.recorded_at <= as_of)),
            or_(is_withdrawn, facts.expires_at.is_(None), facts.expires_at > as_of),
        )
        .subquery()
    )
    newest = counting.c
    return select(
        newest.customer_id,
        newest.shop,
        newest.channel,
        newest.topic,
        newest.status,
        newest.occurred_at,
        newest.basis,
        newest.source,
    ).where(newest.place == 1)


def record(connection: Connection, shop: str, said: Sequence[Said], *, now: datetime) -> int:
    """Add facts that are not known yet. Returns how many."""
    undated = [each for each in said if _needs_today(each)]
    withdrawn = _withdrawn(connection, shop, undated, now)
    rows = (
        {
            "customer_id": each.customer_id,
            "shop": shop,
            "channel": storable_text(each.fact.channel),
            "topic": storable_text(each.fact.topic),
            "status": each.fact.status,
            "basis": each.fact.basis,
            "occurred_at": _dated(each, now),
            "recorded_at": now,
            "source": each.fact.source,
            "wording": storable_text(each.fact.wording),
            "evidence": storable_text(each.fact.evidence),
        }
        for each in said
        if not (_needs_today(each) and (each.customer_id, each.fact.channel, each.fact.topic) in withdrawn)
    )
    facts = {tuple(row[name] for name in _KEY): row for row in rows}
    for old in _stored(connection, shop, said):
        facts.pop(old, None)
    upsert(connection, consents, list(facts.values()), key=_KEY)
    return len(facts)


def withdraw(
    connection: Connection,
    customer_id: int,
    shop: str,
    channel: str,
    topic: str,
    *,
    occurred_at: datetime,
    recorded_at: datetime,
    source: str,
    evidence: str,
) -> None:
    """A person takes consent back, for example on the unsubscribe page. Twice is once."""
    row = {
        "customer_id": customer_id,
        "shop": shop,
        "channel": channel,
        "topic": topic,
        "status": "withdrawn",
        "basis": "request",
        "occurred_at": occurred_at,
        "recorded_at": recorded_at,
        "source": source,
        "evidence": storable_text(evidence),
    }
    upsert(connection, consents, [row], key=_KEY)


def _stored(connection: Connection, shop: str, said: Iterable[Said]) -> Iterator[tuple[Any, ...]]:
    """The keys of all facts about these customers."""
    query = select(*(consents.c[name] for name in _KEY)).where(consents.c.shop == shop)
    yield from map(tuple, rows_in(connection, query, consents.c.customer_id, (each.customer_id for each in said)))


def _needs_today(said: Said) -> bool:
    """Today's date on it must not make it a new fact each time the same file is read."""
    return said.fact.status == "withdrawn" and said.fact.occurred_at is None and said.row_at is None


def _dated(said: Said, now: datetime) -> datetime:
    if occurred_at := aware(said.fact.occurred_at):
        return occurred_at
    return _LONG_AGO if said.fact.status == "granted" else said.row_at or now


def _withdrawn(
    connection: Connection, shop: str, said: Iterable[Said], now: datetime
) -> set[tuple[int, str, str]]:
    """Of the customers in `said`: what they have taken back already."""
    counting = effective_consent(now).subquery()
    query = select(counting).where(counting.c.shop == shop, counting.c.status == "withdrawn")
    found = rows_in(connection, query, counting.c.customer_id, (each.customer_id for each in said))
    return {(row.customer_id, row.channel, row.topic) for row in found}
