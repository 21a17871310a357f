"""Addresses that must not be written to, kept as keyed hashes so that they outlive an erasure.

Joined to people by `customers.email_hash`. An unsubscribe ends with a newer explicit opt-in (`lift`, called where
consent is recorded) or by hand; a hard bounce or a manual one by hand only (`lift_many`); a complaint never.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, or_, select, update

from lifecycle.db.bulk import rows_in, upsert
from lifecycle.db.schema import consents, customers, suppressions
from lifecycle.db.storable import storable_text
from lifecycle.errors import UsageError

_KEY = ("address_hash", "channel", "shop", "purpose", "reason", "occurred_at")


def suppress(
    connection: Connection,
    address_hashes: Collection[str],
    reason: str,
    *,
    channel: str,
    evidence: str,
    occurred_at: datetime,
    recorded_at: datetime,
    shop: str | None = None,
    purpose: str = "marketing",
) -> int:
    """Suppress addresses for one shop, or for every shop when it is None. Returns how many are new.

    `reason`: unsubscribe, complaint, hard_bounce or manual. `purpose`: marketing or all. Who is suppressed in
    the same way already stays so, with the older evidence. But a newer unsubscribe on other evidence is kept
    beside it: an opt-in between the two lifts the older one only. One that an opt-in has lifted is not new when it
    is repeated.
    """
    each = suppressions.c
    holds = or_(each.lifted_at.is_(None), each.reason == "complaint")
    if reason == "unsubscribe":
        repeated = each.evidence == storable_text(evidence)
        covered = and_(each.lifted_at.is_(None), or_(repeated, each.occurred_at >= occurred_at))
        holds = or_(covered, and_(repeated, each.occurred_at == occurred_at))
    same = select(each.address_hash).where(
        each.channel == channel,
        each.shop.is_not_distinct_from(shop),
        each.purpose == purpose,
        each.reason == reason,
        holds,
    )
    already = {row.address_hash for row in rows_in(connection, same, each.address_hash, address_hashes)}
    rows = [
        {
            "address_hash": address_hash,
            "channel": channel,
            "shop": shop,
            "purpose": purpose,
            "reason": reason,
            "evidence": storable_text(evidence),
            "occurred_at": occurred_at,
            "recorded_at": recorded_at,
        }
        for address_hash in dict.fromkeys(address_hashes)
        if address_hash not in already
    ]
    upsert(connection, suppressions, rows, key=_KEY, update=["recorded_at"], fixed={"lifted_at": None})
    return len(rows)


def active_suppressions(as_of: datetime | None = None) -> Select[Any]:
    """address_hash, channel, shop (null: every shop), purpose, reason, occurred_at of what holds at `as_of`, or
    of all that holds by what is recorded. One dated ahead of its record holds from the record on. A complaint
    holds for ever, whatever has been lifted."""
    each = suppressions.c
    query = select(each.address_hash, each.channel, each.shop, each.purpose, each.reason, each.occurred_at)
    not_lifted = or_(each.lifted_at.is_(None), each.reason == "complaint")
    if as_of is None:
        return query.where(not_lifted)
    has_begun = or_(each.occurred_at <= as_of, each.recorded_at <= as_of)
    return query.where(has_begun, or_(not_lifted, each.lifted_at > as_of))


def lift(
    connection: Connection, opt_ins: Mapping[str, datetime | None], *, channel: str, shop: str, at: datetime
) -> dict[str, datetime]:
    """People have agreed at `shop`: address hash to when, None where what they said lifts nothing. Ends their
    unsubscribes, from `at` on, that are older and for that shop or for every shop. Returns the date of the newest
    that it ended for each address.

    One for every shop goes on at all others: it is divided into one for each shop. Those where the person has said
    anything get theirs at once, another when it reports a consent, and therefore opt_ins has all who agreed.
    """
    rows = suppressions.c
    query = select(suppressions).where(rows.channel == channel, rows.reason == "unsubscribe")
    bans = list(rows_in(connection, query, rows.address_hash, opt_ins))
    whole = [ban for ban in bans if ban.shop is None and ban.lifted_at is None and _ends(ban, opt_ins)]
    here = [ban for ban in bans if ban.shop == shop and ban.lifted_at is None and _ends(ban, opt_ins)]
    places = {(_unsubscribe(ban), ban.shop) for ban in bans}
    late = [ban for ban in _divided(bans) if (_unsubscribe(ban), shop) not in places]
    elsewhere = _shops(connection, channel, [ban.address_hash for ban in whole])
    parts = [_part(ban, each) for ban in whole for each in elsewhere[ban.address_hash] - {shop}]
    parts += [_part(ban, shop, at if _ends(ban, opt_ins) else None) for ban in (*whole, *late)]
    upsert(connection, suppressions, parts, key=_KEY)
    _end(connection, [ban.suppression_id for ban in (*whole, *here)], at)
    ended: dict[str, datetime] = {}
    for ban in (*whole, *here, *(ban for ban in late if _ends(ban, opt_ins))):
        ended[ban.address_hash] = max(ban.occurred_at, ended.get(ban.address_hash, ban.occurred_at))
    return ended


def lift_many(
    connection: Connection,
    reason: str,
    *,
    channel: str,
    lifted_by: str,
    note: str,
    at: datetime,
    evidence: str | None = None,
    address_hashes: Collection[str] | None = None,
) -> int:
    """A named person ends suppressions that were wrong, from `at` on. Returns how many.

    evidence: only those that rest on it, as it was given to `suppress`. address_hashes: only those of these
    addresses. At least one of the two. Who lifted them and why is added to their evidence.
    Raises UsageError for a complaint, which is never lifted, and where something of this is missing.
    """
    if reason == "complaint":
        raise UsageError("a complaint is never lifted: who complained is not written to again")
    if not lifted_by.strip() or not note.strip():
        raise UsageError("suppressions are lifted by somebody with a name, who says why")
    if evidence is None and address_hashes is None:
        raise UsageError(f"which {reason} suppressions were wrong? Name their evidence or their addresses")
    each = suppressions.c
    query = select(each.suppression_id).where(
        each.reason == reason, each.channel == channel, each.lifted_at.is_(None)
    )
    if evidence is not None:
        query = query.where(each.evidence == storable_text(evidence))
    found = (
        connection.execute(query)
        if address_hashes is None
        else rows_in(connection, query, each.address_hash, address_hashes)
    )
    ids = [row.suppression_id for row in found]
    _end(connection, ids, at, added=f"; lifted by {lifted_by}: {note}")
    return len(ids)


def _ends(ban: Row[Any], opt_ins: Mapping[str, datetime | None]) -> bool:
    opt_in = opt_ins[ban.address_hash]
    return opt_in is not None and opt_in > ban.occurred_at


def _unsubscribe(ban: Row[Any]) -> tuple[str, str, datetime]:
    """What the parts of a divided one have in common with it."""
    return ban.address_hash, ban.purpose, ban.occurred_at


def _divided(bans: Sequence[Row[Any]]) -> list[Row[Any]]:
    """Those for every shop of which only parts hold by now. What was lifted by hand has no parts."""
    parts = {_unsubscribe(ban) for ban in bans if ban.shop is not None}
    return [ban for ban in bans if ban.shop is None and ban.lifted_at is not None and _unsubscribe(ban) in parts]


def _shops(connection: Connection, channel: str, address_hashes: Iterable[str]) -> defaultdict[str, set[str]]:
    """Where the people with these addresses have given or withdrawn a consent."""
    query = (
        select(customers.c.email_hash, consents.c.shop)
        .join_from(customers, consents, consents.c.customer_id == customers.c.customer_id)
        .where(consents.c.channel == channel)
        .distinct()
    )
    found: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows_in(connection, query, customers.c.email_hash, address_hashes):
        found[row.email_hash].add(row.shop)
    return found


def _part(ban: Row[Any], shop: str, lifted_at: datetime | None = None) -> dict[str, Any]:
    names = (*_KEY, "evidence", "recorded_at")
    return {name: ban._mapping[name] for name in names} | {"shop": shop, "lifted_at": lifted_at}


def _end(connection: Connection, suppression_ids: Sequence[int], at: datetime, *, added: str = "") -> None:
    each = suppressions.c
    statement = update(suppressions).where(each.suppression_id == bindparam("which"), each.lifted_at.is_(None))
    values: dict[Any, Any] = {each.lifted_at: at}
    if added:
        values[each.evidence] = each.evidence + storable_text(added)
    if suppression_ids:
        connection.execute(statement.values(values), [{"which": number} for number in suppression_ids])
