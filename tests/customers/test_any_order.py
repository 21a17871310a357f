"""Invariant 5: whatever is pulled, twice, late or in another order, the tables end as after one pull in order.

A small world: two shops, accounts of which some share an address, orders of accounts and of guests. Every row
has versions; a pull brings some versions of some rows. The platform would hand out only the newest version, a
replay of landed pages any. Accounts keep their address, because who a person is depends on it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from lifecycle.customers.consent import effective_consent
from lifecycle.db.engine import reading
from lifecycle.db.schema import customers, identities, order_lines, orders, refunds, tags
from lifecycle.platforms.records import CustomerRow, OrderRow, Row
from lifecycle.settings import Config
from tests.customers.rows import NOW, ago, customer, empty, granted, line, order, refund, take_unchecked, withdrawn

VERSIONS = 3
EMAILS = {"A1": "ann@example.com", "A2": "bob@example.com", "A3": None, "H1": "Ann@Example.com", "H2": None}
ACCOUNTS = {"atlas": ["A1", "A2", "A3"], "harbour": ["H1", "H2"]}
ORDERS = {"atlas": ["1", "2", "3", "4"], "harbour": ["5", "6"]}
BUYERS = {"1": "A1", "2": "A1", "3": "A3", "4": None, "5": "H1", "6": None}
GUESTS = {"4": "bob@example.com", "6": None}


@dataclass(frozen=True)
class Ref:
    shop: str
    row_id: str
    version: int


REFS = [
    Ref(shop, row_id, version)
    for shop in ACCOUNTS
    for row_id, version in itertools.product([*ACCOUNTS[shop], *ORDERS[shop]], range(VERSIONS))
]


def row_of(ref: Ref) -> Row:
    changed_at = ago(days=VERSIONS - ref.version, hours=len(ref.row_id) + ord(ref.row_id[-1]) % 7)
    if ref.row_id in BUYERS:
        return _order(ref, changed_at)
    return customer(
        ref.row_id,
        EMAILS[ref.row_id],
        updated_at=changed_at,
        name=f"{ref.row_id} v{ref.version}",
        phone=None if ref.version % 2 else "01 42 68 53 00",
        country=("FR", None, "US")[(ref.version + len(ref.row_id)) % 3],
        region=(None, "IDF", "CA")[(ref.version + ord(ref.row_id[-1])) % 3],
        timezone="Europe/Paris" if ref.version == 0 else "America/Denver" if ref.row_id == "A1" else None,
        locale="fr" if ref.version == 1 else None,
        tags=["always", f"v{ref.version}"],
        consents=[(withdrawn if ref.version == 1 else granted)(changed_at)] if EMAILS[ref.row_id] else [],
    )


def _order(ref: Ref, changed_at: Any) -> OrderRow:
    buyer = BUYERS[ref.row_id]
    return order(
        ref.row_id,
        customer_id=buyer,
        email=EMAILS[buyer] if buyer else GUESTS[ref.row_id],
        ordered_at=ago(days=30 + ord(ref.row_id)),
        updated_at=changed_at,
        status=("open", "paid", "refunded")[ref.version],
        currency="GBP" if ref.shop == "harbour" else "EUR",
        total=Decimal(ref.version + 1),
        country="GB" if ref.row_id == "6" else ("FR", "US")[ref.version % 2],
        region=(None, "CA", "IDF")[(ref.version + ord(ref.row_id)) % 3],
        phone="(415) 555-2671" if ref.row_id in "456" else None,
        lines=[line(quantity=number + 1) for number in range(VERSIONS - ref.version)],
        refunds=[refund()] if ref.version == 2 else [],
    )


def state(engine: Engine) -> dict[str, set[tuple[Any, ...]]]:
    """What the tables say, without the numbers and instants that tell when it was taken in."""
    person_columns = (
        "email",
        "email_key",
        "email_hash",
        "phone",
        "phone_hash",
        "name",
        "country",
        "region",
        "timezone",
        "phone_zone",
        "locale",
        "seed",
        "updated_at",
    )
    person = [customers.c[name] for name in person_columns]
    order_columns = [
        column
        for column in orders.c
        if column.name not in {"order_key", "customer_id", "landed_at", "run_id", "attributes"}
    ]
    counting = effective_consent(NOW).subquery()
    queries = {
        "identities": select(
            identities.c.shop, identities.c.platform_customer_id, identities.c.handle_hash, *person
        ).join(customers),
        "people": select(*person),
        "orders": select(*order_columns, *person).outerjoin_from(orders, customers),
        "lines": select(orders.c.shop, orders.c.order_id, *order_lines.c[1:]).join_from(orders, order_lines),
        "refunds": select(orders.c.shop, orders.c.order_id, *refunds.c[1:]).join_from(orders, refunds),
        "tags": select(tags.c.tag, *person).join_from(tags, customers).where(tags.c.removed_at.is_(None)),
        "consents": select(counting.c.shop, counting.c.status, counting.c.occurred_at, *person).join_from(
            counting, customers, counting.c.customer_id == customers.c.customer_id
        ),
    }
    with reading(engine) as connection:
        return {name: {tuple(row) for row in connection.execute(query)} for name, query in queries.items()}


def pull(engine: Engine, config: Config, refs: list[Ref]) -> None:
    """One pull of each shop and entity; its rows come as they come."""
    for shop, kind in itertools.product(ACCOUNTS, (CustomerRow, OrderRow)):
        rows = [row for ref in refs if ref.shop == shop and isinstance(row := row_of(ref), kind)]
        if rows:
            take_unchecked(engine, config, rows, shop=shop)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pulls=st.lists(st.lists(st.sampled_from(REFS), min_size=1, max_size=12), max_size=5),
    last_seen=st.permutations([ref for ref in REFS if ref.version == VERSIONS - 1]),
    cuts=st.lists(st.integers(0, 11), min_size=2, max_size=2),
    place=st.integers(0, 5),
)
def test_any_interleaving_of_pulls_gives_the_tables_of_one_pull_in_order(
    engine: Engine, config: Config, pulls: list[list[Ref]], last_seen: list[Ref], cuts: list[int], place: int
):
    newest = [ref for ref in REFS if ref.version == VERSIONS - 1]
    empty(engine)
    pull(engine, config, newest)
    expected = state(engine)
    assert len(expected["orders"]) == 6
    assert len(expected["people"]) == 4

    first, second = sorted(cuts)
    parts = [part for part in (last_seen[:first], last_seen[first:second], last_seen[second:]) if part]
    empty(engine)
    for refs in [*pulls[:place], *parts, *pulls[place:]]:
        pull(engine, config, refs)
    found = state(engine)
    assert {name: found[name] ^ expected[name] for name in expected if found[name] != expected[name]} == {}


def test_the_world_of_this_file_has_what_it_promises():
    rows = [row_of(ref) for ref in REFS]
    assert {type(row) for row in rows} == {OrderRow, CustomerRow}
    for ref in REFS:
        older = row_of(replace(ref, version=max(ref.version - 1, 0)))
        updated_at = row_of(ref).updated_at
        assert older.updated_at is not None
        assert updated_at is not None
        assert older.updated_at <= updated_at <= NOW
