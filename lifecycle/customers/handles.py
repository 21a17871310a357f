"""Where a channel writes to: a person's e-mail address, telephone number, or account at the shop that writes.

Messages and suppressions hold an address as a keyed hash. Each kind of channel has its own: an e-mail address is
hashed with the label `email`, a number with `whatsapp`, an account with `handle`, on whichever platform it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, ValidationResult
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    Subquery,
    Text,
    bindparam,
    case,
    cast,
    literal,
    null,
    select,
    tuple_,
    update,
)

from lifecycle.addresses import address_hash
from lifecycle.db.schema import customers, identities, orders

_CHUNK = 10_000
_ABOUT_ORDERS = frozenset({"amazon_solicitations", "amazon_messaging"})
"""Kinds on which nothing can be sent but about an order."""


def address_hash_of(
    kind: str, customer_id: ColumnElement[int], shop: ColumnElement[str | None]
) -> ColumnElement[str | None]:
    """The hash of the address that a channel of this kind writes to now, null where it has none: a subquery
    correlated to the tables of `customer_id` and `shop`, the one that writes. Where `customer_id` is the column of
    `customers` itself, their other columns are read without one."""
    match kind:
        case "email":
            return _of_customer(customer_id, lambda each: case((each.c.email.is_not(None), each.c.email_hash)))
        case "whatsapp":
            return _of_customer(customer_id, lambda each: each.c.phone_hash)
        case _:
            return _of_identity(kind, "handle_hash", customer_id, shop)


def address_of(
    kind: str, customer_id: ColumnElement[int], shop: ColumnElement[str | None]
) -> ColumnElement[str | None]:
    """The same of the address itself: e-mail address as given, telephone number (E.164), the platform's id of the
    buyer."""
    match kind:
        case "email":
            return _of_customer(customer_id, lambda each: each.c.email)
        case "whatsapp":
            return _of_customer(customer_id, lambda each: case((each.c.phone_hash.is_not(None), each.c.phone)))
        case _:
            return _of_identity(kind, "platform_customer_id", customer_id, shop)


def holders(kind: str) -> Subquery:
    """customer_id, shop (null: whichever writes) and address_hash of all who have an address of this kind."""
    if kind in ("email", "whatsapp"):
        column = customers.c.email_hash if kind == "email" else customers.c.phone_hash
        query = select(customers.c.customer_id, cast(null(), Text).label("shop"), column.label("address_hash"))
    else:
        column = identities.c.handle_hash
        query = select(identities.c.customer_id, identities.c.shop, column.label("address_hash"))
    return query.where(column.is_not(None)).subquery("holders")


def phone_hash(secret: bytes, e164: str) -> str:
    return address_hash(secret, "whatsapp", e164)


def handle_hash(secret: bytes, shop: str, platform_customer_id: str) -> str:
    return address_hash(secret, "handle", f"{shop}:{platform_customer_id}")


@lru_cache(maxsize=200_000)
def e164(phone: str | None, country: str | None) -> str | None:
    """`+33612345678`; None where the text cannot be a whole telephone number.

    A number without `+` is read as it is dialled in `country` (ISO 3166-1).
    """
    try:
        number = phonenumbers.parse(phone or "", country)
    except NumberParseException:
        return None
    if phonenumbers.is_possible_number_with_reason(number) != ValidationResult.IS_POSSIBLE:
        return None
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def normal_phone(phone: str | None, country: str | None) -> str | None:
    """As E.164 where it can be, else as it was given."""
    return e164(phone, country) or phone


def phone_columns(phone: str | None, country: str | None, secret: bytes) -> dict[str, str | None]:
    """The columns of `customers` about a telephone number: as E.164 and hashed, or as it was given and no hash."""
    number = e164(phone, country)
    return {"phone": number or phone, "phone_hash": phone_hash(secret, number) if number else None}


def _of_customer(
    customer_id: ColumnElement[int], column: Callable[[FromClause], ColumnElement[Any]]
) -> ColumnElement[Any]:
    if customer_id is customers.c.customer_id:
        return column(customers)
    person = customers.alias()
    query = select(column(person)).where(person.c.customer_id == customer_id)
    return query.correlate_except(person).scalar_subquery()


def _of_identity(
    kind: str, column: str, customer_id: ColumnElement[int], shop: ColumnElement[str | None]
) -> ColumnElement[Any]:
    """Of several accounts at a shop the one linked last is meant."""
    account, order = identities.alias(), orders.alias()
    query = (
        select(account.c[column])
        .where(account.c.customer_id == customer_id, account.c.shop == shop)
        .order_by(account.c.linked_at.desc(), account.c.platform_customer_id.desc())
        .limit(1)
    )
    if kind in _ABOUT_ORDERS:
        bought = select(order.c.order_key).where(
            order.c.customer_id == account.c.customer_id,
            order.c.shop == account.c.shop,
            order.c.status.not_in(("cancelled", "returned")),
        )
        query = query.where(bought.correlate(account).exists())
    return query.correlate_except(account, order).scalar_subquery()


def fill_hashes(connection: Connection, secret: bytes) -> int:
    """Hash the telephone numbers and accounts that have no hash yet, because an earlier Tern stored them.

    Returns how many have one now. Done again it changes nothing.
    """

    def of_number(row: Row[Any]) -> Mapping[str, Any] | None:
        columns = phone_columns(row.phone, row.country, secret)
        return columns if columns["phone_hash"] else None

    def of_account(row: Row[Any]) -> Mapping[str, Any]:
        return {"handle_hash": handle_hash(secret, row.shop, row.platform_customer_id)}

    person, account = customers.c, identities.c
    numbers = select(person.customer_id, person.phone, person.country).where(
        person.phone.is_not(None), person.phone_hash.is_(None)
    )
    accounts = select(account.shop, account.platform_customer_id).where(account.handle_hash.is_(None))
    return _fill(connection, numbers, [person.customer_id], of_number) + _fill(
        connection, accounts, [account.shop, account.platform_customer_id], of_account
    )


def _fill(
    connection: Connection,
    query: Select[Any],
    key: Sequence[Column[Any]],
    columns_of: Callable[[Row[Any]], Mapping[str, Any] | None],
) -> int:
    """Update the rows of `query` by their `key`, in its order, so many at a time."""
    filled, rows = 0, connection.execute(query.order_by(*key).limit(_CHUNK)).all()
    while rows:
        found = [(row, columns) for row in rows if (columns := columns_of(row))]
        if found:
            statement = update(key[0].table).where(*(each == bindparam(f"of_{each.name}") for each in key))
            values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in found[0][1]}
            parameters = [
                {f"of_{each.name}": row._mapping[each.name] for each in key}
                | {f"new_{name}": value for name, value in columns.items()}
                for row, columns in found
            ]
            connection.execute(statement.values(values), parameters)
        filled += len(found)
        behind = tuple_(*key) > tuple_(*(literal(rows[-1]._mapping[each.name]) for each in key))
        rows = connection.execute(query.where(behind).order_by(*key).limit(_CHUNK)).all()
    return filled
