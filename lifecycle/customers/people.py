"""The people behind a batch of customer rows or orders."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, select, update

from lifecycle.addresses import email_key
from lifecycle.customers import consent
from lifecycle.customers.identity import Claim, Identity, Target, known_identities, link, own_address, owners_of
from lifecycle.customers.profiles import customer_part, refresh, refresh_guests, store_profiles, with_order
from lifecycle.customers.versions import Fate, Version, aware, content_hash, fate, said_at
from lifecycle.db.bulk import rows_in, upsert
from lifecycle.db.schema import tags
from lifecycle.db.storable import storable_text
from lifecycle.platforms.records import CustomerRow, OrderRow
from lifecycle.settings.policies import implied_expiry


def take_customers(target: Target, rows: Sequence[CustomerRow]) -> Counter[Fate]:
    """Store what is new or changed, with consents and tags. Of one customer twice in a batch the newest counts.

    What a superseded row says about consent is kept too: consents are facts with a date of their own. A grant
    that comes without an address of its own is none: it must not count at another address of the same person.
    """
    ids = [storable_text(row.customer_id) for row in rows]
    known = known_identities(target, ids)
    claims = [
        Claim(platform_id, own_address(row.email, verified=row.email_verified))
        for platform_id, row in zip(ids, rows, strict=True)
    ]
    customer_ids = link(target, claims, known)
    changed: dict[str, Identity] = {}
    dropped: defaultdict[int, set[str]] = defaultdict(set)
    said: list[consent.Said] = []
    fates: Counter[Fate] = Counter()
    for platform_id, row, customer_id in zip(ids, rows, customer_ids, strict=True):
        assert platform_id is not None and customer_id is not None, "the check lets no such row pass"
        identity, part = known[platform_id], customer_part(row, said_at(row))
        offered = _version(row, part)
        what = fate(offered, _stored_version(identity))
        if what is not Fate.EQUAL:
            said += (
                consent.Said(customer_id, fact, aware(row.updated_at))
                for fact in row.consents
                if part["email"] or fact.status == "withdrawn"
            )
        if what in (Fate.NEW, Fate.CHANGED):
            dropped[customer_id].update(identity.profile.get("customer", {}).get("tags", ()))
            identity.profile = {**identity.profile, "customer": part}
            identity.updated_at, identity.content_hash = offered.at, offered.content_hash
            if platform_id in changed:
                what = Fate.SUPERSEDED
            changed[platform_id] = identity
        fates[what] += 1
    store_profiles(target, changed)
    wanted = refresh(target, (identity.customer_id for identity in changed.values()))
    _tag(target, wanted, dropped)
    consent.record(target.connection, target.shop, said, now=target.now, months=implied_expiry())
    return fates


def take_consents(target: Target, rows: Sequence[CustomerRow]) -> tuple[Counter[Fate], list[int]]:
    """Record the consents of people who are known, by the shop's id or by address. Returns with what became of
    them the places in `rows` of those about strangers."""
    ids = [storable_text(row.customer_id) for row in rows]
    known = known_identities(target, ids)
    by_key = owners_of(target.connection, (email_key(row.email) for row in rows))
    said: list[consent.Said] = []
    strangers: list[int] = []
    for place, (platform_id, row) in enumerate(zip(ids, rows, strict=True)):
        identity = known.get(platform_id or "")
        customer_id = identity.customer_id if identity else by_key.get(email_key(row.email))
        if customer_id is None:
            strangers.append(place)
        else:
            said += (consent.Said(customer_id, fact, aware(row.updated_at)) for fact in row.consents)
    new = consent.record(target.connection, target.shop, said, now=target.now, months=implied_expiry())
    return Counter({Fate.NEW: new, Fate.EQUAL: len(said) - new}), strangers


def buyers(target: Target, rows: Sequence[OrderRow]) -> list[int | None]:
    """The customer_id of each order, None for guests whom nothing identifies; what the orders say is kept."""
    claims = [Claim(storable_text(row.customer_id) or None, own_address(row.email)) for row in rows]
    known = known_identities(target, (claim.platform_customer_id for claim in claims))
    customer_ids = link(target, claims, known)
    changed: dict[str, Identity] = {}
    guests: defaultdict[int, list[OrderRow]] = defaultdict(list)
    for row, claim, customer_id in zip(rows, claims, customer_ids, strict=True):
        if claim.platform_customer_id:
            identity = known[claim.platform_customer_id]
            before = identity.profile.get("order", {})
            after = with_order(before, row, said_at(row))
            if after != before:
                identity.profile = {**identity.profile, "order": after}
                changed[claim.platform_customer_id] = identity
        elif customer_id is not None:
            guests[customer_id].append(row)
    store_profiles(target, changed)
    refresh(target, (identity.customer_id for identity in changed.values()))
    refresh_guests(target, guests)
    return customer_ids


def _stored_version(identity: Identity) -> Version | None:
    """None where the identity is known from orders only."""
    if identity.updated_at is None or identity.content_hash is None:
        return None
    return Version(identity.updated_at, identity.content_hash)


def _version(row: CustomerRow, part: Mapping[str, Any]) -> Version:
    facts = (
        (
            each.channel,
            each.topic,
            each.status,
            each.basis,
            str(aware(each.occurred_at)),
            each.source,
            each.wording,
        )
        for each in row.consents
    )
    return Version(said_at(row), content_hash([*part.values(), *facts]))


def _tag(target: Target, wanted: Mapping[int, frozenset[str]], dropped: Mapping[int, set[str]]) -> None:
    """Make the open tags of people the `wanted` ones; of the others only those in `dropped` are taken away,
    because a tag may come from elsewhere than a shop."""
    query = select(tags.c.customer_id, tags.c.tag).where(tags.c.removed_at.is_(None))
    has: defaultdict[int, set[str]] = defaultdict(set)
    for row in rows_in(target.connection, query, tags.c.customer_id, wanted):
        has[row.customer_id].add(row.tag)
    added = [
        {"customer_id": customer_id, "tag": tag, "added_at": target.now, "removed_at": None}
        for customer_id, names in wanted.items()
        for tag in sorted(names - has[customer_id])
    ]
    gone = [
        {"customer": customer_id, "name": tag}
        for customer_id, names in wanted.items()
        for tag in sorted((dropped[customer_id] - names) & has[customer_id])
    ]
    upsert(target.connection, tags, added, key=("customer_id", "tag", "added_at"), fixed={"removed_at": None})
    if gone:
        statement = update(tags).where(
            tags.c.customer_id == bindparam("customer"),
            tags.c.tag == bindparam("name"),
            tags.c.removed_at.is_(None),
        )
        target.connection.execute(statement.values(removed_at=target.now), gone)
