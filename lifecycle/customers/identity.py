"""One person over all shops: a platform's customer id first, else an e-mail address, else somebody new.

People are never merged here. Where the platform gives a known person an address that belongs to somebody else
already, both stay, and the address stays with the one who had it first: `customers.email_key` is unique, so no
two people can be written to at one address and no cap can be passed by having two accounts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select

from lifecycle.addresses import address_hash, domain_of, email_key
from lifecycle.customers.handles import handle_hash
from lifecycle.db.bulk import rows_in, upsert
from lifecycle.db.schema import customers, identities
from lifecycle.db.storable import storable_text

_RELAY = re.compile(r"@(marketplace\.amazon|members\.ebay)\.[a-z.]+$")
NOTHING_KNOWN = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a batch of rows goes: to one shop, in one transaction."""

    connection: Connection
    shop: str
    secret: bytes
    now: datetime
    run_id: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    """Who a row is about. With neither, a guest whom nothing identifies."""

    platform_customer_id: str | None
    email: str | None
    """Only an address that leads to a person: see `own_address`."""


@dataclass(slots=True)
class Identity:
    """What is stored of one platform's customer."""

    customer_id: int
    updated_at: datetime | None = None
    """Of its newest customer row, like `content_hash`; None where only orders have named it."""
    content_hash: str | None = None
    profile: dict[str, Any] = field(default_factory=dict)
    """See lifecycle.customers.profiles."""


def own_address(address: str | None, *, verified: bool = True) -> str | None:
    """The address where it is somebody's own and can be written to, else None.

    Marketplaces hand out relay addresses, one per order or account: they identify nobody, and marketing to
    them is forbidden.
    """
    key = email_key(address) if verified else None
    if address is None or key is None or _RELAY.search(key):
        return None
    return storable_text(address.strip())


def known_identities(target: Target, ids: Iterable[str | None]) -> dict[str, Identity]:
    """Those of the platform customer `ids` that are stored."""
    query = select(identities).where(identities.c.shop == target.shop)
    return {
        row.platform_customer_id: Identity(row.customer_id, row.updated_at, row.content_hash, row.profile or {})
        for row in rows_in(target.connection, query, identities.c.platform_customer_id, filter(None, ids))
    }


def link(target: Target, claims: Sequence[Claim], known: dict[str, Identity]) -> list[int | None]:
    """The customer_id behind each claim, in their order; None for guests whom nothing identifies.

    `known` holds the stored identities of the claims and gets the new ones. People and identities that are
    missing are inserted; a new person has an address at most, no name or country yet.
    """
    emails = {claim.platform_customer_id: claim.email for claim in reversed(claims) if claim.email}
    persons = [_person(target.shop, claim, emails, known) for claim in claims]
    met = _owners(target.connection, filter(None, persons))
    people = met | _create(target, [each for each in dict.fromkeys(persons) if each and each not in met])
    new = {
        claim.platform_customer_id: person
        for claim, person in zip(claims, persons, strict=True)
        if claim.platform_customer_id and person
    }
    rows = [
        {
            "shop": target.shop,
            "platform_customer_id": platform_id,
            "customer_id": people[person],
            "linked_by": "email" if person in met else "platform_id",
            "linked_at": target.now,
            "handle_hash": handle_hash(target.secret, target.shop, platform_id),
        }
        for platform_id, person in new.items()
    ]
    upsert(target.connection, identities, rows, key=("shop", "platform_customer_id"))
    known |= {platform_id: Identity(people[person]) for platform_id, person in new.items()}

    def whose(claim: Claim, person: _Person | None) -> int | None:
        if claim.platform_customer_id:
            return known[claim.platform_customer_id].customer_id
        return people[person] if person else None

    return list(map(whose, claims, persons))


def owners_of(connection: Connection, keys: Iterable[str | None]) -> dict[str | None, int]:
    """Whose these e-mail keys are, as far as they are anybody's."""
    query = select(customers.c.email_key, customers.c.customer_id)
    found = rows_in(connection, query, customers.c.email_key, filter(None, keys))
    return {row.email_key: row.customer_id for row in found}


@dataclass(frozen=True, slots=True)
class _Person:
    key: str
    """Stable, whichever shop is pulled first, where there is an address: the hold-out hangs on it."""
    email: str | None = field(default=None, compare=False)


def _person(
    shop: str, claim: Claim, emails: Mapping[str | None, str | None], known: Mapping[str, Identity]
) -> _Person | None:
    """Who a claim is about when no stored identity says so. `emails`: platform customer id to address."""
    platform_id = claim.platform_customer_id
    if platform_id in known:
        return None
    email = emails.get(platform_id) if platform_id else claim.email
    if email:
        return _Person(f"email:{email_key(email)}", email)
    return _Person(f"id:{shop}:{platform_id}") if platform_id else None


def _owners(connection: Connection, persons: Iterable[_Person]) -> dict[_Person, int]:
    """Of the persons with an address, those whom somebody stored is already."""
    by_key = {email_key(person.email): person for person in persons if person.email}
    return {by_key[key]: customer_id for key, customer_id in owners_of(connection, by_key).items()}


def _create(target: Target, persons: Sequence[_Person]) -> dict[_Person, int]:
    if not persons:
        return {}
    rows = [
        {
            **address_columns(person.email, target.secret),
            "seed": _seed(person.key),
            "first_seen_at": target.now,
            "updated_at": NOTHING_KNOWN,
        }
        for person in persons
    ]
    statement = customers.insert().returning(customers.c.customer_id, sort_by_parameter_order=True)
    return dict(zip(persons, target.connection.scalars(statement, rows), strict=True))


def address_columns(email: str | None, secret: bytes) -> dict[str, str | None]:
    """The four columns of `customers` that are null together."""
    key = email_key(email)
    return {
        "email": email if key else None,
        "email_key": key,
        "email_hash": address_hash(secret, "email", key) if key else None,
        "email_domain": domain_of(key),
    }


def _seed(key: str) -> int:
    """In [1, 2^31 - 1), from a person's stable key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) % (2**31 - 2) + 1
