"""Where each kind of channel writes to, and the hashes by which messages and suppressions know it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, insert, literal, select, update

from lifecycle.addresses import address_hash
from lifecycle.customers.handles import address_hash_of, address_of, e164, fill_hashes, holders
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import customers, identities, orders
from lifecycle.settings import Config
from tests.customers.rows import NOW, SECRET, ago, contents, customer, empty, order
from tests.customers.rows import take_unchecked as take

ANNS = address_hash(SECRET, "whatsapp", "+33612345678")


@pytest.mark.parametrize(
    ("phone", "country", "number"),
    [
        ("+33 6 12 34 56 78", None, "+33612345678"),
        ("06 12 34 56 78", "FR", "+33612345678"),
        ("0033 6 12 34 56 78", "FR", "+33612345678"),
        ("(415) 555-2671", "US", "+14155552671"),
        ("(415) 555-2671 ext. 12", "US", "+14155552671"),
        ("06 12 34 56 78", None, None),
        ("555-2671", "US", None),
        ("12", "FR", None),
        ("ask for Ann", "FR", None),
        ("+33 6 12 34 56 78", "XX", "+33612345678"),
        ("", "FR", None),
        (None, "FR", None),
    ],
)
def test_numbers_are_written_in_one_way(phone: str | None, country: str | None, number: str | None) -> None:
    assert e164(phone, country) == number


def test_what_is_taken_in_has_its_hashes(engine: Engine, config: Config) -> None:
    take(engine, config, [customer("C1", phone="06 12 34 56 78", country="FR"), customer("C2", phone="none")])
    take(engine, config, [order("9", customer_id=None, email="g@example.com", phone="+33612345678")])
    assert contents(engine, customers, "phone", "phone_hash") == [
        ("+33612345678", ANNS),
        ("none", None),
        ("+33612345678", ANNS),
    ]
    assert contents(engine, identities, "handle_hash") == [
        (address_hash(SECRET, "handle", f"atlas:{name}"),) for name in ("C1", "C2")
    ]


def test_a_number_follows_the_country_and_goes_with_the_number(engine: Engine, config: Config) -> None:
    take(engine, config, [customer("C1", phone="612345678", updated_at=ago(days=9))])
    assert contents(engine, customers, "phone", "phone_hash") == [("612345678", None)]
    take(engine, config, [customer("C1", phone="612345678", country="FR", updated_at=ago(days=8))])
    assert contents(engine, customers, "phone", "phone_hash") == [("+33612345678", ANNS)]
    take(engine, config, [customer("C1", country="FR", updated_at=ago(days=7))])
    assert contents(engine, customers, "phone", "phone_hash") == [(None, None)]


def test_rows_of_an_earlier_version_get_their_hashes_once(engine: Engine, config: Config) -> None:
    take(engine, config, [customer("C1", phone="06 12 34 56 78", country="FR"), customer("C2", phone="none")])
    wanted = contents(engine, customers), contents(engine, identities)
    with writing(engine) as connection:
        connection.execute(update(customers).values(phone_hash=None))
        connection.execute(update(customers).where(customers.c.phone != "none").values(phone="0612345678"))
        connection.execute(update(identities).values(handle_hash=None))
    with writing(engine) as connection:
        assert fill_hashes(connection, SECRET) == 3
    assert (contents(engine, customers), contents(engine, identities)) == wanted
    with writing(engine) as connection:
        assert fill_hashes(connection, SECRET) == 0


def test_many_rows_are_filled_past_those_that_cannot_be(engine: Engine) -> None:
    numbers = [{"customer_id": i, "phone": f"+33{600_000_000 + i}" if i % 2 else "none"} for i in range(1, 20_101)]
    fixed = {"seed": 1, "first_seen_at": NOW, "updated_at": NOW, "country": None}
    with writing(engine) as connection:
        connection.execute(insert(customers), [row | fixed for row in numbers])
        accounts = [{"shop": f"s{i % 3}", "platform_customer_id": f"{i}", "customer_id": 1} for i in range(10_050)]
        linked = {"linked_by": "email", "linked_at": NOW}
        connection.execute(insert(identities), [row | linked for row in accounts])
        assert fill_hashes(connection, SECRET) == 10_050 + 10_050
        left = select(customers.c.phone).where(customers.c.phone_hash.is_(None)).distinct()
        assert connection.scalars(left).all() == ["none"]
        assert not connection.execute(select(identities).where(identities.c.handle_hash.is_(None))).all()


KINDS = ("email", "whatsapp", "messenger", "webhook", "aliexpress_messages", "amazon_solicitations")
person = st.fixed_dictionaries(
    {"email": st.booleans(), "phone": st.booleans(), "number": st.sampled_from(["as given", "+33612345678"])}
)
account = st.fixed_dictionaries(
    {
        "shop": st.sampled_from(["atlas", "harbour"]),
        "platform_customer_id": st.sampled_from("ABC"),
        "customer_id": st.sampled_from([1, 2]),
        "linked_at": st.sampled_from([ago(days=2), ago(days=1)]),
    }
)
bought = st.tuples(
    st.sampled_from([1, 2]), st.sampled_from(["atlas", "harbour"]), st.sampled_from(["paid", "cancelled"])
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    people=st.lists(person, min_size=2, max_size=2),
    accounts=st.lists(account, max_size=5, unique_by=lambda row: (row["shop"], row["platform_customer_id"])),
    bought=st.lists(bought, max_size=3),
    kind=st.sampled_from(KINDS),
    shop=st.sampled_from(["atlas", "harbour", None]),
)
def test_addresses_are_found_by_kind(
    engine: Engine,
    people: list[dict[str, Any]],
    accounts: list[dict[str, Any]],
    bought: list[tuple[int, str, str]],
    kind: str,
    shop: str | None,
) -> None:
    empty(engine)
    rows = [
        {
            "customer_id": i,
            "email": f"P{i}@example.com" if each["email"] else None,
            "email_key": f"p{i}@example.com" if each["email"] else None,
            "email_hash": f"mail {i}" if each["email"] else None,
            "phone": each["number"] if each["phone"] else None,
            "phone_hash": f"phone {i}" if each["phone"] and each["number"] != "as given" else None,
            "seed": 1,
            "first_seen_at": NOW,
            "updated_at": NOW,
        }
        for i, each in enumerate(people, start=1)
    ]
    handles = [row | {"linked_by": "email", "handle_hash": f"{row['shop']}:{row['platform_customer_id']}"}
               for row in accounts]  # fmt: skip
    with writing(engine) as connection:
        connection.execute(insert(customers), rows)
        for row in handles:
            connection.execute(insert(identities).values(row))
        for number, (who, where, status) in enumerate(bought):
            connection.execute(insert(orders).values(an_order(number, who, where, status)))
        found = {
            column.__name__: list(by_person(connection, column, kind, shop))
            for column in (address_of, address_hash_of)
        }
        held = holders(kind)
        holding = {tuple(row) for row in connection.execute(select(held))}

    def expected(row: dict[str, Any]) -> tuple[str | None, str | None]:
        if kind == "email":
            return row["email"], row["email_hash"]
        if kind == "whatsapp":
            return row["phone"] if row["phone_hash"] else None, row["phone_hash"]
        mine = [each for each in handles if (each["customer_id"], each["shop"]) == (row["customer_id"], shop)]
        if kind == "amazon_solicitations" and (row["customer_id"], shop, "paid") not in bought:
            mine = []
        newest = max(mine, key=lambda each: (each["linked_at"], each["platform_customer_id"]), default=None)
        return (newest["platform_customer_id"], newest["handle_hash"]) if newest else (None, None)

    assert found["address_of"] == [expected(row)[0] for row in rows]
    assert found["address_hash_of"] == [expected(row)[1] for row in rows]
    columns = {"email": "email_hash", "whatsapp": "phone_hash"}
    if kind in columns:
        assert holding == {(r["customer_id"], None, r[columns[kind]]) for r in rows if r[columns[kind]]}
    else:
        assert holding == {(row["customer_id"], row["shop"], row["handle_hash"]) for row in handles}


def by_person(connection: Connection, column: Callable[..., Any], kind: str, shop: str | None) -> list[str | None]:
    """As a subquery for each row, and as a column of `customers` itself: both must say the same."""
    theirs = customers.alias("theirs")
    apart = select(column(kind, theirs.c.customer_id, literal(shop))).order_by(theirs.c.customer_id)
    within = select(column(kind, customers.c.customer_id, literal(shop))).select_from(customers)
    one = list(connection.scalars(apart.select_from(theirs)))
    assert one == list(connection.scalars(within.order_by(customers.c.customer_id)))
    return one


def an_order(number: int, customer_id: int, shop: str, status: str) -> dict[str, Any]:
    at: datetime = NOW - timedelta(days=3)
    return {"order_id": f"{number}", "customer_id": customer_id, "shop": shop, "status": status} | {
        "ordered_at": at, "updated_at": at, "landed_at": at, "currency": "EUR", "total_minor": 1,
        "total_base_minor": 1, "line_count": 1, "content_hash": "",
    }  # fmt: skip


def test_a_message_is_updated_by_the_address_of_its_person(engine: Engine) -> None:
    """The subquery is correlated in an update too, as the ledger asks it."""
    with writing(engine) as connection:
        fixed = {"seed": 1, "first_seen_at": NOW, "updated_at": NOW}
        connection.execute(insert(customers), [fixed | {"customer_id": i, "phone_hash": f"p{i}"} for i in (1, 2)])
        linked = {"shop": "atlas", "linked_by": "email", "linked_at": NOW, "handle_hash": "?"}
        connection.execute(
            insert(identities), [linked | {"customer_id": i, "platform_customer_id": f"{i}"} for i in (1, 2)]
        )
        current = address_hash_of("whatsapp", identities.c.customer_id, identities.c.shop)
        connection.execute(update(identities).values(handle_hash=current))
    with reading(engine) as connection:
        assert connection.scalars(select(identities.c.handle_hash).order_by("customer_id")).all() == ["p1", "p2"]
