"""Consent: facts that are only ever added. What counts is computed from them, as of an instant.

The newest fact counts; of two from the same instant the withdrawal. A grant that has expired does not count; a
withdrawal dated ahead of its record, by a clock that is fast, counts from the record on. Asking for a confirmation
(`pending`) neither gives consent nor takes it back.
A fact without a date is dated so that it can lower consent and never raise it: a grant to 1970, before any
withdrawal; a withdrawal to the instant at which the shop's row was changed, or to now.
A new grant may lift an unsubscribe of the person's address, in the same transaction: `record`.
"""

from __future__ import annotations

import calendar
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, case, exists, func, literal, or_, select

from lifecycle.customers.handles import address_hash_of
from lifecycle.customers.suppression import active_suppressions, lift
from lifecycle.customers.versions import aware
from lifecycle.db.bulk import rows_in, upsert
from lifecycle.db.schema import consents, customers
from lifecycle.db.storable import storable_text
from lifecycle.platforms.records import ConsentFact

EXPLICIT = ("express", "double_opt_in")
"""Bases that are an opt-in of the person's own."""

IMPLIED = ("implied_purchase", "implied_inquiry")
"""Bases that run out wherever the person lives: CASL (Canada) s.10(9) and (10)."""

_KEY = ("customer_id", "shop", "channel", "topic", "status", "occurred_at", "source")
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

Months = Mapping[str, Mapping[str, int]]
"""After how many calendar months a consent runs out: country (ISO 3166-1 alpha-2) to basis to months."""


@dataclass(frozen=True)
class ConsentLaw:
    """What countries (ISO 3166-1 alpha-2) ask of a consent. Without any, every consent counts."""

    bases: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    """The only bases that count there; None: every one."""
    reconfirm_years: Mapping[str, int] = field(default_factory=dict)
    """A consent must be given again when it is so old."""
    elsewhere: tuple[str, ...] | None = None
    """As `bases`, for countries that are not in it and for people whose country is not known."""


ANY_CONSENT = ConsentLaw()


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
    place = func.row_number().over(
        partition_by=(facts.customer_id, facts.shop, facts.channel, facts.topic), order_by=newest_first()
    )
    columns = (
        facts.customer_id, facts.shop, facts.channel, facts.topic, facts.status, facts.occurred_at, facts.basis,
        facts.source,
    )  # fmt: skip
    counting = select(*columns, place.label("place")).where(counts_at(as_of)).subquery()
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


def counts_at(as_of: datetime) -> ColumnElement[bool]:
    """Facts that say something at `as_of`; of one person, shop, channel and topic the `newest_first` of them."""
    facts = consents.c
    is_withdrawn = facts.status == "withdrawn"
    return and_(
        facts.status != "pending",
        or_(facts.occurred_at <= as_of, and_(is_withdrawn, facts.recorded_at <= as_of)),
        or_(is_withdrawn, facts.expires_at.is_(None), facts.expires_at > as_of),
    )


def newest_first() -> tuple[ColumnElement[Any], ...]:
    """The order of facts; of two from the same instant the withdrawal is the newer."""
    facts = consents.c
    return (
        facts.occurred_at.desc(),
        case((facts.status == "withdrawn", 0), else_=1),
        facts.consent_id.desc(),
    )


def expiry(basis: str, occurred_at: datetime, country: str | None, months: Months) -> datetime | None:
    """When consent given at `occurred_at` (aware) runs out by law, UTC; None for a basis that lasts.

    It counts until just before that instant. An implied basis that the country, or one not known, has no rule for
    has the shortest there is. Calendar months: from 31 January one month ends on 28 February. A grant without a
    date is dated 1970, so an implied one has run out at once, which is right: nobody can show that it still holds.
    """
    lasts = months.get(country or "", {}).get(basis)
    if lasts is None and basis in IMPLIED:
        lasts = min((of_basis[basis] for of_basis in months.values() if basis in of_basis), default=None)
    return None if lasts is None else months_later(occurred_at, lasts)


def months_later(instant: datetime, months: int) -> datetime:
    """The same day and time of day so many calendar months later, UTC; the month's last day where it has no such
    day. Earlier for months below 0."""
    instant = instant.astimezone(UTC)
    year, month = divmod(instant.year * 12 + instant.month - 1 + months, 12)
    day = min(instant.day, calendar.monthrange(year, month + 1)[1])
    return instant.replace(year=year, month=month + 1, day=day)


def record(
    connection: Connection, shop: str, said: Sequence[Said], *, now: datetime, months: Months | None = None
) -> int:
    """Add facts that are not known yet. Returns how many.

    months: how long consent lasts; a grant that comes without an expiry gets it from there (`expiry`).
    An unsubscribe of the person's address is lifted at `shop` by a new grant that is the shop's own note of an
    explicit opt-in, has evidence, and is dated after the unsubscribe and not ahead of now. Files lift nothing.
    """
    undated = [each for each in said if _needs_today(each)]
    withdrawn = _withdrawn(connection, shop, undated, now)
    countries = _countries(connection, said, months or {})
    facts: dict[tuple[Any, ...], tuple[dict[str, Any], Said]] = {}
    for each in said:
        if _needs_today(each) and (each.customer_id, each.fact.channel, each.fact.topic) in withdrawn:
            continue
        row = _row(each, shop, now, countries.get(each.customer_id), months or {})
        facts.setdefault(tuple(row[name] for name in _KEY), (row, each))
    for old in _stored(connection, shop, said):
        facts.pop(old, None)
    upsert(connection, consents, [row for row, _ in facts.values()], key=_KEY)
    _agreed(connection, shop, [(row, each.fact.first_hand) for row, each in facts.values()], now)
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


def ask(
    connection: Connection,
    customer_id: int,
    shop: str,
    channel: str,
    topic: str,
    *,
    asked_at: datetime,
    source: str,
    wording: str,
    evidence: str,
) -> None:
    """Somebody gave this person's address, who is asked to confirm (double opt-in). No consent changes by that.

    wording: what they agree to when they confirm. Twice is once.
    """
    row = {
        "customer_id": customer_id,
        "shop": shop,
        "channel": channel,
        "topic": topic,
        "status": "pending",
        "basis": "double_opt_in",
        "occurred_at": asked_at,
        "recorded_at": asked_at,
        "source": source,
        "wording": storable_text(wording),
        "evidence": storable_text(evidence),
        "expires_at": None,
    }
    upsert(connection, consents, [row], key=_KEY)
    _agreed(connection, shop, [(row, False)], asked_at)


def confirm(
    connection: Connection,
    customer_id: int,
    shop: str,
    channel: str,
    topic: str,
    *,
    confirmed_at: datetime,
    recorded_at: datetime,
    source: str,
    evidence: str,
    within: timedelta = timedelta(days=7),
) -> bool:
    """The person confirms what they were asked last. Returns whether it counts; twice is once.

    It does not when nothing was asked, when that was longer than `within` ago, or when the person has said no
    since: a withdrawal there, an unsubscribe of their address. The grant says in its evidence which question it
    answers, and lifts older unsubscribes as in `record`.
    """
    about = _about(customer_id, shop, channel, topic)
    asked = _asked(connection, about, confirmed_at)
    if asked is None or _said_no_since(connection, asked):
        return False
    answers = f"consent {asked.consent_id} confirmed: "
    if _is_confirmed(connection, about, answers):
        return True
    if confirmed_at - asked.occurred_at > within:
        return False
    row = {
        "customer_id": customer_id,
        "shop": shop,
        "channel": channel,
        "topic": topic,
        "status": "granted",
        "basis": "double_opt_in",
        "occurred_at": confirmed_at,
        "recorded_at": recorded_at,
        "source": source,
        "wording": asked.wording,
        "evidence": storable_text(answers + evidence),
        "expires_at": None,
    }
    upsert(connection, consents, [row], key=_KEY)
    _agreed(connection, shop, [(row, True)], recorded_at)
    return True


def _row(said: Said, shop: str, now: datetime, country: str | None, months: Months) -> dict[str, Any]:
    fact, occurred_at = said.fact, _dated(said, now)
    return {
        "customer_id": said.customer_id,
        "shop": shop,
        "channel": storable_text(fact.channel),
        "topic": storable_text(fact.topic),
        "status": fact.status,
        "basis": fact.basis,
        "occurred_at": occurred_at,
        "recorded_at": now,
        "source": fact.source,
        "wording": storable_text(fact.wording),
        "evidence": storable_text(fact.evidence),
        "expires_at": _expires_at(fact, occurred_at, country, months),
    }


def _expires_at(fact: ConsentFact, occurred_at: datetime, country: str | None, months: Months) -> datetime | None:
    if fact.status == "withdrawn":
        return None
    if fact.expires_at is not None:
        return aware(fact.expires_at) or _LONG_AGO  # without a zone nobody can place it: it must not raise
    return expiry(fact.basis, occurred_at, country, months)


def _stored(connection: Connection, shop: str, said: Iterable[Said]) -> Iterator[tuple[Any, ...]]:
    """The keys of all facts about these customers."""
    query = select(*(consents.c[name] for name in _KEY)).where(consents.c.shop == shop)
    yield from map(tuple, rows_in(connection, query, consents.c.customer_id, (each.customer_id for each in said)))


def _countries(connection: Connection, said: Iterable[Said], months: Months) -> dict[int, str | None]:
    """Of those only whose consent runs out somewhere."""
    query = select(customers.c.customer_id, customers.c.country)
    limited = {basis for of_basis in months.values() for basis in of_basis}
    whose = (each.customer_id for each in said if each.fact.basis in limited)
    return {row.customer_id: row.country for row in rows_in(connection, query, customers.c.customer_id, whose)}


def _needs_today(said: Said) -> bool:
    """Today's date on it must not make it a new fact each time the same file is read."""
    return said.fact.status == "withdrawn" and said.fact.occurred_at is None and said.row_at is None


def _dated(said: Said, now: datetime) -> datetime:
    if occurred_at := aware(said.fact.occurred_at):
        return occurred_at
    return said.row_at or now if said.fact.status == "withdrawn" else _LONG_AGO


def _withdrawn(
    connection: Connection, shop: str, said: Iterable[Said], now: datetime
) -> set[tuple[int, str, str]]:
    """Of the customers in `said`: what they have taken back already."""
    counting = effective_consent(now).subquery()
    query = select(counting).where(counting.c.shop == shop, counting.c.status == "withdrawn")
    found = rows_in(connection, query, counting.c.customer_id, (each.customer_id for each in said))
    return {(row.customer_id, row.channel, row.topic) for row in found}


def _agreed(
    connection: Connection, shop: str, added: Iterable[tuple[Mapping[str, Any], bool]], now: datetime
) -> None:
    """What new facts, each with whether it is first hand, do to unsubscribes of the people's addresses."""
    opt_ins: defaultdict[str, dict[int, datetime | None]] = defaultdict(dict)
    for row, first_hand in added:
        if row["status"] != "withdrawn":
            of_channel, at = opt_ins[row["channel"]], _opted_in_at(row, first_hand, now)
            former = of_channel.get(row["customer_id"])
            of_channel[row["customer_id"]] = max(filter(None, (former, at)), default=None)
    for channel, people in opt_ins.items():
        hashes = _hashes(connection, channel, shop, people)
        by_hash: dict[str, datetime | None] = {}
        for customer_id, address_hash in hashes.items():  # several people may have one telephone number
            agreed = (by_hash.get(address_hash), people[customer_id])
            by_hash[address_hash] = max(filter(None, agreed), default=None)
        lifted = lift(connection, by_hash, channel=channel, shop=shop, at=now)
        since = {person: lifted[each] for person, each in hashes.items() if each in lifted}
        _take_back_other_topics(connection, shop, channel, since, now)


def _opted_in_at(row: Mapping[str, Any], first_hand: bool, now: datetime) -> datetime | None:
    """When, if the grant can lift an unsubscribe. One dated ahead cannot: it may be older than it says."""
    lasts = row["expires_at"] is None or row["expires_at"] > now
    granted = row["status"] == "granted" and row["basis"] in EXPLICIT
    at: datetime = row["occurred_at"]
    return at if first_hand and granted and lasts and row["evidence"] and _LONG_AGO < at <= now else None


def _hashes(connection: Connection, channel: str, shop: str, customer_ids: Iterable[int]) -> dict[int, str]:
    """Of the addresses that the shop would write to on such a channel."""
    address_hash = address_hash_of(channel, customers.c.customer_id, literal(shop))
    query = select(customers.c.customer_id, address_hash.label("address_hash"))
    found = rows_in(connection, query, customers.c.customer_id, customer_ids)
    return {row.customer_id: row.address_hash for row in found if row.address_hash is not None}


def _take_back_other_topics(
    connection: Connection, shop: str, channel: str, since: Mapping[int, datetime], now: datetime
) -> None:
    """An unsubscribe ended every topic; opting in to one brings back no other. since: its date by customer_id."""
    facts = consents.c
    given = (
        select(facts.customer_id, facts.topic, func.min(facts.occurred_at).label("first_at"))
        .where(facts.shop == shop, facts.channel == channel, facts.status == "granted")
        .group_by(facts.customer_id, facts.topic)
    )
    rows = [
        {
            "customer_id": row.customer_id,
            "shop": shop,
            "channel": channel,
            "topic": row.topic,
            "status": "withdrawn",
            "basis": "request",
            "occurred_at": since[row.customer_id],
            "recorded_at": now,
            "source": "suppression",
            "evidence": "unsubscribed from all topics",
        }
        for row in rows_in(connection, given, facts.customer_id, since)
        if row.first_at <= since[row.customer_id]
    ]
    upsert(connection, consents, rows, key=_KEY)


def _about(customer_id: int, shop: str, channel: str, topic: str) -> tuple[ColumnElement[bool], ...]:
    facts = consents.c
    return (
        facts.customer_id == customer_id,
        facts.shop == shop,
        facts.channel == channel,
        facts.topic == topic,
    )


def _asked(connection: Connection, about: Iterable[ColumnElement[bool]], until: datetime) -> Row[Any] | None:
    facts = consents.c
    query = select(consents).where(*about, facts.status == "pending", facts.occurred_at <= until)
    newest_first = (facts.occurred_at.desc(), facts.consent_id.desc())
    return connection.execute(query.order_by(*newest_first).limit(1)).one_or_none()


def _said_no_since(connection: Connection, asked: Row[Any]) -> bool:
    """By a withdrawal, or by an unsubscribe of the address that the person has by now."""
    about = _about(asked.customer_id, asked.shop, asked.channel, asked.topic)
    withdrawn = exists().where(
        *about, consents.c.status == "withdrawn", consents.c.occurred_at >= asked.occurred_at
    )
    ban = active_suppressions().subquery()
    unsubscribed = exists().where(
        customers.c.customer_id == asked.customer_id,
        ban.c.address_hash == address_hash_of(asked.channel, customers.c.customer_id, literal(asked.shop)),
        ban.c.channel == asked.channel,
        ban.c.reason == "unsubscribe",
        or_(ban.c.shop.is_(None), ban.c.shop == asked.shop),
        ban.c.occurred_at >= asked.occurred_at,
    )
    return bool(connection.execute(select(or_(withdrawn, unsubscribed))).scalar())


def _is_confirmed(connection: Connection, about: Iterable[ColumnElement[bool]], answers: str) -> bool:
    this_one = consents.c.evidence.startswith(answers, autoescape=True)
    granted = exists().where(*about, consents.c.status == "granted", this_one)
    return bool(connection.execute(select(granted)).scalar())
