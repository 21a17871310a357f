"""What the shops say of a person, kept apart by shop and put together in one way.

`identities.profile` holds two parts. "customer" is the platform's newest customer row, as a whole. "order" has
what orders said by the way, each field with the instant of the newest order that filled it. A person's name,
country and so on are the newest non-empty value over all customer parts, else over all order parts; but an
order gives no address to who has a customer row, because a customer who was redacted has none any more. So the
result depends on what was landed and not on the order in which it was taken in.

Inside a profile the country holds the region of the same address, `US-CA`, so that no region is ever read in
another country. A person's region is that of the newest order sent to their country which names one, because it
is asked for their clock; without any, that of their customer rows there.

Guests whom only an address identifies have no identity: their newest order says all.

A profile keeps a telephone number as it was given; `customers` has it as E.164 where the country tells how to read
it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, bindparam, select, update

from lifecycle.addresses import email_key
from lifecycle.customers.handles import normal_phone, phone_columns
from lifecycle.customers.identity import NOTHING_KNOWN, Identity, Target, address_columns, own_address, owners_of
from lifecycle.customers.versions import said_at
from lifecycle.customers.zones import known_zone, region_code, zone_of_phone
from lifecycle.db.bulk import rows_in
from lifecycle.db.schema import customers, identities
from lifecycle.db.storable import storable_json, storable_text
from lifecycle.platforms.countries import country_code
from lifecycle.platforms.records import CustomerRow, OrderRow

_FIELDS = ("email", "phone", "name", "country", "locale")


def customer_part(row: CustomerRow, said_at: datetime) -> dict[str, Any]:
    """The "customer" part of a profile."""
    return {
        **_said(row, own_address(row.email, verified=row.email_verified)),
        "attributes": storable_json(row.attributes) or None,
        "tags": sorted({str(storable_text(tag)) for tag in row.tags}),
        "at": _text(said_at),
        # Left out where nothing is said, so that no row becomes a new version.
        **({"timezone": timezone} if (timezone := known_zone(row.timezone)) else {}),
    }


def with_order(part: Mapping[str, Any], row: OrderRow, said_at: datetime) -> dict[str, Any]:
    """The "order" part of a profile after one more order: [instant, value] for each field."""
    said = {name: [_text(said_at), value] for name, value in _said(row, own_address(row.email)).items() if value}
    return {**part, **{name: max(said[name], part.get(name, said[name])) for name in said}}


def store_profiles(target: Target, changed: Mapping[str, Identity]) -> None:
    """Write what changed of identities, by platform customer id."""
    if not changed:
        return
    statement = (
        update(identities)
        .where(identities.c.shop == target.shop, identities.c.platform_customer_id == bindparam("id"))
        .values({name: bindparam(f"new_{name}") for name in ("updated_at", "content_hash", "profile")})
    )
    rows = [
        {
            "id": platform_id,
            "new_updated_at": identity.updated_at,
            "new_content_hash": identity.content_hash,
            "new_profile": identity.profile,
        }
        for platform_id, identity in changed.items()
    ]
    target.connection.execute(statement, rows)


def refresh(target: Target, customer_ids: Iterable[int]) -> dict[int, frozenset[str]]:
    """Make `customers` say what the profiles of these people say. Returns their tags."""
    query = select(identities)
    profiles: defaultdict[int, list[Row[Any]]] = defaultdict(list)
    for row in rows_in(target.connection, query, identities.c.customer_id, customer_ids):
        profiles[row.customer_id].append(row)
    people = {customer_id: _merged(profiles[customer_id]) for customer_id in sorted(profiles)}
    _write(target, people)
    return {customer_id: person.tags for customer_id, person in people.items()}


def refresh_guests(target: Target, guests: Mapping[int, Sequence[OrderRow]]) -> None:
    """The same for guests and their orders, as far as nothing but their address identifies them."""
    has_identity = select(identities.c.customer_id).distinct()
    linked = {
        row.customer_id for row in rows_in(target.connection, has_identity, identities.c.customer_id, guests)
    }
    stored = {
        row.customer_id: row
        for row in rows_in(target.connection, select(customers), customers.c.customer_id, guests)
    }
    people = {}
    for customer_id in sorted(guests.keys() - linked):
        row = stored[customer_id]
        said = (row.updated_at, *(_stored(row, name) or "" for name in _FIELDS))
        newest = max(said, *(_guest(order) for order in guests[customer_id]))
        if newest != said:
            updated_at, email, *details = newest
            values = {name: value or None for name, value in zip(_FIELDS[1:], details, strict=True)}
            more = {"timezone": None, "attributes": None, "updated_at": updated_at}
            people[customer_id] = _Person([email], _placed({**values, **more}, [values["country"]]))
    _write(target, people)


@dataclass(frozen=True, slots=True)
class _Person:
    emails: list[str]
    """The first one that belongs to nobody else is theirs."""
    details: dict[str, Any]
    tags: frozenset[str] = frozenset()


def _merged(rows: Sequence[Row[Any]]) -> _Person:
    """One person out of the rows of `identities` that lead to them."""
    said = sorted(
        (
            (row.profile["customer"], row.shop, row.platform_customer_id)
            for row in rows
            if "customer" in row.profile
        ),
        key=lambda part: (part[0]["at"], *part[1:]),
        reverse=True,
    )
    customer_parts = [part for part, *_ in said]
    order_parts = [row.profile["order"] for row in rows if "order" in row.profile]

    orders_alone = [row.profile["order"] for row in rows if row.profile.keys() == {"order"}]

    def values(name: str, from_orders: Sequence[Mapping[str, Any]] = order_parts) -> list[Any]:
        ordered = sorted((part[name] for part in from_orders if name in part), reverse=True)
        return [part[name] for part in customer_parts if part.get(name)] + [value for _, value in ordered]

    instants = [part["at"] for part in customer_parts]
    instants += [at for part in order_parts for at, _ in part.values()]
    details = {name: next(iter(values(name)), None) for name in (*_FIELDS[1:], "timezone", "attributes")}
    details["updated_at"] = datetime.fromisoformat(max(instants)) if instants else NOTHING_KNOWN
    sent_to = sorted((part["country"] for part in order_parts if "country" in part), reverse=True)
    places = [place for _, place in sent_to] + [part["country"] for part in customer_parts]
    return _Person(
        values("email", orders_alone),
        _placed(details, places),
        frozenset(tag for part in customer_parts for tag in part["tags"]),
    )


def _placed(details: Mapping[str, Any], places: Iterable[str | None]) -> dict[str, Any]:
    """`details` with country and region apart, and the telephone's zone. `places`: where the region is looked for,
    best first."""
    country, _ = _apart(details["country"])
    regions = (region for there, region in map(_apart, places) if there == country and region)
    return {
        **details,
        "country": country,
        "region": next(regions, None),
        "phone_zone": zone_of_phone(details["phone"], country),
    }


def _write(target: Target, people: Mapping[int, _Person]) -> None:
    """Update those of `people` who are stored otherwise."""
    stored = {
        row.customer_id: row
        for row in rows_in(target.connection, select(customers), customers.c.customer_id, people)
    }
    emails = _share_out(target, people, {row.customer_id: row.email_key for row in stored.values()})
    changed = []
    for customer_id, person in people.items():
        phone = phone_columns(person.details["phone"], person.details["country"], target.secret)
        new = person.details | address_columns(emails[customer_id], target.secret) | phone
        if any(getattr(stored[customer_id], name) != value for name, value in new.items()):
            changed.append({"id": customer_id} | {f"new_{name}": value for name, value in new.items()})
    if not changed:
        return
    moved = [row for row in changed if row["new_email_key"] != stored[row["id"]].email_key]
    by_id = update(customers).where(customers.c.customer_id == bindparam("id"))
    if moved:  # an address may go from one to the other, and nobody shares one in between
        target.connection.execute(by_id.values(email_key=None), [{"id": row["id"]} for row in moved])
    names = [name.removeprefix("new_") for name in changed[0] if name != "id"]
    target.connection.execute(by_id.values({name: bindparam(f"new_{name}") for name in names}), changed)


def _share_out(
    target: Target, people: Mapping[int, _Person], keys: Mapping[int, str | None]
) -> dict[int, str | None]:
    """Who gets which address: each their first one that nobody else has. `keys`: the ones they have."""
    wanted = {email_key(email) for person in people.values() for email in person.emails}
    owners = owners_of(target.connection, wanted)
    given: dict[int, str | None] = {}
    for customer_id, person in people.items():
        mine = [email for email in person.emails if owners.get(email_key(email), customer_id) == customer_id]
        given[customer_id] = mine[0] if mine else None
        if owners.get(keys[customer_id]) == customer_id:
            del owners[keys[customer_id]]
        if mine:
            owners[email_key(mine[0])] = customer_id
    return given


def _said(row: CustomerRow | OrderRow, email: str | None) -> dict[str, str | None]:
    return {
        "email": email,
        "phone": storable_text(row.phone),
        "name": storable_text(row.name),
        "country": _place(row),
        "locale": storable_text(row.locale),
    }


def _place(row: CustomerRow | OrderRow) -> str | None:
    country = country_code(row.country)
    return _together(country, region_code(country, row.region))


def _together(country: str | None, region: str | None) -> str | None:
    return f"{country}-{region}" if region else country


def _apart(place: str | None) -> tuple[str | None, str | None]:
    country, _, region = (place or "").partition("-")
    return country or None, region or None


def _stored(row: Row[Any], name: str) -> Any:
    """A field of a person as a profile would hold it."""
    return _together(row.country, row.region) if name == "country" else getattr(row, name)


def _guest(order: OrderRow) -> tuple[Any, ...]:
    said = _said(order, own_address(order.email))
    said["phone"] = normal_phone(said["phone"], _apart(said["country"])[0])  # as it is stored
    return (said_at(order), *(said[name] or "" for name in _FIELDS))


def _text(instant: datetime) -> str:
    """Sorts as text in the order of time."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds")
