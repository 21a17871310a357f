"""Addresses that must not be written to, kept as keyed hashes so that they outlive an erasure.

Whose they are is in customers.handles. An unsubscribe ends with a newer explicit opt-in (`lift`, called where
consent is recorded) or by hand; a soft bounce when it expires, with a delivery (`lift_delivered`) or by hand; a
hard bounce or a manual one by hand only (`lift_many`, `undo`); a complaint never.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, func, or_, select, update

from lifecycle.customers.handles import holders
from lifecycle.db.bulk import rows_in, upsert
from lifecycle.db.schema import consents, suppressions
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
    expires_at: datetime | None = None,
) -> int:
    """Suppress addresses for one shop, or for every shop when it is None. Returns how many are new.

    `reason`: unsubscribe, complaint, hard_bounce, soft_bounce or manual. `purpose`: marketing or all.
    `expires_at`: when it ends by itself; None: never. Who is suppressed in the same way already, and for no
    shorter time, stays so, with the older evidence. But a newer unsubscribe on other evidence is kept beside it:
    an opt-in between the two lifts the older one only. One that an opt-in has lifted is not new when it is
    repeated.
    """
    each = suppressions.c
    holds = or_(each.lifted_at.is_(None), each.reason == "complaint")
    if reason == "unsubscribe":
        repeated = each.evidence == storable_text(evidence)
        covered = and_(each.lifted_at.is_(None), or_(repeated, each.occurred_at >= occurred_at))
        by_opt_in = and_(repeated, each.occurred_at == occurred_at, each.lifted_by.is_(None))
        holds = or_(covered, by_opt_in)
    lasts: ColumnElement[bool] = each.expires_at.is_(None)
    if expires_at is not None:
        lasts = or_(lasts, each.expires_at >= expires_at)
    same = select(each.address_hash).where(
        each.channel == channel,
        each.shop.is_not_distinct_from(shop),
        each.purpose == purpose,
        each.reason == reason,
        holds,
        lasts,
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
            "expires_at": expires_at,
        }
        for address_hash in dict.fromkeys(address_hashes)
        if address_hash not in already
    ]
    again = dict.fromkeys(("lifted_at", "lifted_by", "lifted_note"))
    upsert(connection, suppressions, rows, key=_KEY, update=["recorded_at", "expires_at"], fixed=again)
    return len(rows)


def active_suppressions(
    as_of: datetime | None = None, *, at: datetime | ColumnElement[datetime] | None = None
) -> Select[Any]:
    """address_hash, channel, shop (null: every shop), purpose, reason, occurred_at of what holds at `as_of`, or
    of all that holds by what is recorded. One dated ahead of its record holds from the record on. A complaint
    holds for ever, whatever has been lifted.

    `at`: the present, of what is recorded: what has expired by then is over. Without it nothing has.
    """
    each = suppressions.c
    query = select(each.address_hash, each.channel, each.shop, each.purpose, each.reason, each.occurred_at)
    complaint = each.reason == "complaint"
    present = at if as_of is None else as_of
    if present is not None:
        query = query.where(or_(each.expires_at.is_(None), each.expires_at > present, complaint))
    not_lifted = or_(each.lifted_at.is_(None), complaint)
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
    addresses. At least one of the two. Who lifted them and why is noted beside their evidence.
    Raises UsageError for a complaint, which is never lifted, and where something of this is missing.
    """
    _check_lifting(reason, lifted_by, note)
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
    _end(connection, ids, at, lifted_by=lifted_by, note=note)
    return len(ids)


def undo(
    connection: Connection,
    *,
    reason: str,
    since: datetime,
    until: datetime,
    channel: str,
    lifted_by: str,
    note: str,
    at: datetime,
    evidence_like: str | None = None,
    shop: str | None = None,
    dry_run: bool = False,
) -> dict[str, int]:
    """A named person ends all suppressions of a time span that were wrong: a provider's outage that called every
    mailbox unknown. Returns how many `suppressions` of how many `addresses`; a `dry_run` only counts them.

    since, until: when they happened, half-open. evidence_like: a piece of their evidence, for example `550 5.1.1`,
    in whichever case. shop: only its own; None: of every shop. channel: kind of channel.
    Raises UsageError for a complaint, which is never lifted; for unsubscribes without evidence, because only those
    of a scanner are wrong; for an empty span; where nobody says who lifts them and why.
    """
    _check_lifting(reason, lifted_by, note)
    if reason == "unsubscribe" and not (evidence_like or "").strip():
        raise UsageError("unsubscribes are people's own word; name the evidence of those that a scanner made")
    if since >= until:
        raise UsageError(f"nothing lies between {since:%Y-%m-%d %H:%M} and {until:%Y-%m-%d %H:%M} UTC")
    each = suppressions.c
    wrong = [
        each.reason == reason,
        each.channel == channel,
        each.occurred_at >= since,
        each.occurred_at < until,
        each.lifted_at.is_(None),
    ]
    if evidence_like is not None:
        wrong.append(each.evidence.icontains(storable_text(evidence_like), autoescape=True))
    if shop is not None:
        wrong.append(each.shop == shop)
    counted = select(func.count(), func.count(each.address_hash.distinct())).where(*wrong)
    found, addresses = connection.execute(counted).one()
    if not dry_run:
        connection.execute(update(suppressions).where(*wrong).values(_lifted(at, lifted_by, note)))
    return {"suppressions": found, "addresses": addresses}


def lift_delivered(
    connection: Connection, deliveries: Mapping[str, datetime], *, channel: str, at: datetime
) -> int:
    """Something was delivered to these addresses (hash to when): their soft bounces until then are over, from `at`
    on. Returns how many."""
    each = suppressions.c
    query = select(each.suppression_id, each.address_hash, each.occurred_at).where(
        each.reason == "soft_bounce", each.channel == channel, each.lifted_at.is_(None)
    )
    found = rows_in(connection, query, each.address_hash, deliveries)
    ids = [row.suppression_id for row in found if row.occurred_at <= deliveries[row.address_hash]]
    _end(connection, ids, at, note="delivered")
    return len(ids)


def _check_lifting(reason: str, lifted_by: str, note: str) -> None:
    if reason == "complaint":
        raise UsageError("a complaint is never lifted: who complained is not written to again")
    if not lifted_by.strip() or not note.strip():
        raise UsageError("suppressions are lifted by somebody with a name, who says why")


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
    person = holders(channel)
    query = (
        select(person.c.address_hash, consents.c.shop)
        .join_from(person, consents, consents.c.customer_id == person.c.customer_id)
        .where(consents.c.channel == channel, or_(person.c.shop.is_(None), person.c.shop == consents.c.shop))
        .distinct()
    )
    found: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows_in(connection, query, person.c.address_hash, address_hashes):
        found[row.address_hash].add(row.shop)
    return found


def _part(ban: Row[Any], shop: str, lifted_at: datetime | None = None) -> dict[str, Any]:
    names = (*_KEY, "evidence", "recorded_at")
    return {name: ban._mapping[name] for name in names} | {"shop": shop, "lifted_at": lifted_at}


def _end(
    connection: Connection,
    suppression_ids: Sequence[int],
    at: datetime,
    *,
    lifted_by: str | None = None,
    note: str | None = None,
) -> None:
    each = suppressions.c
    statement = update(suppressions).where(each.suppression_id == bindparam("which"), each.lifted_at.is_(None))
    if suppression_ids:
        whom = [{"which": number} for number in suppression_ids]
        connection.execute(statement.values(_lifted(at, lifted_by, note)), whom)


def _lifted(at: datetime, lifted_by: str | None, note: str | None) -> dict[str, Any]:
    return {"lifted_at": at, "lifted_by": storable_text(lifted_by), "lifted_note": storable_text(note)}
