from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from lifecycle.platforms.records import STATUSES, OrderRow
from lifecycle.quality.checks import Checked, check_consents, check_customers, check_orders
from tests.customers.rows import NOW, ago, customer, granted, line, order, refund


def reasons(*rows: Any) -> list[str]:
    check = check_orders if hasattr(rows[0], "order_id") else check_customers
    return [rejection.reason for rejection in check(rows, now=NOW).rejected]


def test_a_good_order_of_every_status_passes():
    rows = [
        order("1", status="open", total=Decimal(0), lines=[]),
        order("2", country="FR", refunded=Decimal("9.00"), refunds=[refund()]),
        order("3", status="refunded", refunded=Decimal("9.00")),
        order("4", status="cancelled"),
        order("5", status="returned", total=Decimal("-9.00"), lines=[line(quantity=-2)]),
        order("6", customer_id=None, updated_at=None),
    ]
    checked = check_orders(rows, now=NOW)
    assert checked.accepted == rows
    assert {row.status for row in rows} == set(STATUSES)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"order_id": None}, "order_id is missing"),
    ({"order_id": ""}, "order_id is missing"),
    ({"ordered_at": None}, "ordered_at is missing"),
    (
        {"ordered_at": ago().replace(tzinfo=None)},
        "ordered_at is 2026-11-22T09:00:00; it must be an instant with a time zone",
    ),
    (
        {"ordered_at": ago(days=365 * 40)},
        "ordered_at is 1986-12-02T09:00:00+00:00; it must lie between 1990 and tomorrow",
    ),
    (
        {"ordered_at": ago(days=-2)},
        "ordered_at is 2026-11-24T09:00:00+00:00; it must lie between 1990 and tomorrow",
    ),
    (
        {"updated_at": ago(days=-2)},
        "updated_at is 2026-11-24T09:00:00+00:00; it must not lie more than a day ahead",
    ),
    ({"currency": "EURO"}, "currency is EURO; it must be an ISO 4217 code such as EUR"),
    ({"currency": None}, "currency is missing"),
    ({"total": None}, "total is missing"),
    ({"total": Decimal("NaN")}, "total is NaN; it must be a number"),
    ({"total": Decimal("1E+30")}, "total is 1E+30; it must lie between -10^12 and 10^12"),
    ({"total": Decimal("-0.01")}, "total is -0.01; it must be 0 or more unless the order is a return"),
    ({"shipping": Decimal("Infinity")}, "shipping is Infinity; it must lie between -10^12 and 10^12"),
    (
        {"status": "on-hold"},
        "status is on-hold; it must be one of open, paid, refunded, cancelled, returned",
    ),
    ({"status": None}, "status is missing"),
    ({"refunded": Decimal("9.01")}, "refunded is 9.01; it must be at most the total"),
    ({"refunded": Decimal(-1)}, "refunded is -1; it must be 0 or more"),
    ({"country": "EIRE"}, "country is EIRE; it must be empty or an ISO 3166 code such as FR"),
    ({"lines": [line(), line(sku=None)]}, "sku is missing (line 2)"),
    ({"lines": [line(quantity=None)]}, "quantity is missing (line 1)"),
    ({"lines": [line(quantity=0)]}, "quantity is 0; it must not be 0 (line 1)"),
    ({"lines": [line(unit_price=None)]}, "unit_price is missing (line 1)"),
    (
        {"lines": [line(unit_price=Decimal("-11062.06"))]},
        "unit_price is -11062.06; it must be 0 or more (line 1)",
    ),
    ({"refunds": [refund(amount=None)]}, "amount is missing (refund 1)"),
]


@pytest.fixture(scope="module")
def checked() -> Checked[OrderRow]:
    """All of BAD in one check, because each costs a tenth of a second; a good order between any two."""
    rows = []
    for number, (changes, _) in enumerate(BAD):
        rows += [replace(order(f"bad {number}"), **changes), order(f"good {number}")]
    return check_orders(rows, now=NOW)


@pytest.mark.parametrize("number", range(len(BAD)), ids=lambda number: BAD[number][1][:30])
def test_a_bad_order_is_rejected_with_its_value(checked: Checked[OrderRow], number: int):
    rejection = checked.rejected[number]
    assert (rejection.index, rejection.reason) == (2 * number, BAD[number][1])


def test_good_orders_between_bad_ones_pass(checked: Checked[OrderRow]):
    assert [row.order_id for row in checked.accepted] == [f"good {number}" for number in range(len(BAD))]


def test_a_number_larger_than_any_float_is_rejected():
    assert reasons(order(lines=[line(quantity=10**400)]))[0].startswith("quantity is 1000")


def test_a_day_ahead_is_still_now():
    tomorrow = NOW + timedelta(days=1)
    assert check_orders([order(ordered_at=tomorrow, updated_at=tomorrow)], now=NOW).rejected == []


def test_a_row_that_moved_between_pages_is_no_contradiction():
    moved, edited = order(), order(updated_at=ago(days=8), total=Decimal(8))
    assert check_orders([moved, edited, order()], now=NOW).rejected == []


def test_one_order_told_in_two_ways_is_rejected_with_all_its_copies():
    rows = [order(), order(total=Decimal(8)), order("1002"), order()]
    checked = check_orders(rows, now=NOW)
    assert [rejection.index for rejection in checked.rejected] == [0, 1, 3]
    assert checked.rejected[0].reason == (
        "order_id 1001 comes several times; it must come with one content per updated_at"
    )


def test_customers_are_turned_away_only_for_what_is_absurd():
    assert reasons(customer("C1", "not an address", country="EIRE"), customer("C2", updated_at=None)) == []
    assert reasons(customer(None)) == ["customer_id is missing"]
    assert reasons(customer(updated_at=ago(days=-2))) == [
        "updated_at is 2026-11-24T09:00:00+00:00; it must not lie more than a day ahead"
    ]


def test_a_customer_with_an_unknown_consent_is_rejected():
    assert reasons(customer(consents=[granted(ago()), granted(ago(), status="maybe")])) == [
        "status is maybe; it must be granted or withdrawn (consent 2)"
    ]
    assert reasons(customer(consents=[granted(ago(days=-2))])) == [
        "occurred_at is 2026-11-24T09:00:00+00:00; it must not lie more than a day ahead (consent 1)"
    ]


def test_a_consent_needs_no_customer_id_because_an_address_may_lead_to_the_person():
    rows = [customer(None, "a@example.com", consents=[granted(None)])]
    assert check_consents(rows, now=NOW).rejected == []


def test_a_reason_never_shows_an_address():
    (reason,) = reasons(order(status="ann@example.com"))
    assert reason.startswith("status is an address;")


def test_nothing_to_check_is_fine():
    assert check_orders([], now=NOW).accepted == []


def test_how_long_a_full_batch_takes():
    """Prints, because a shared machine makes no promise: `pytest -s`."""
    rows = [order(str(number), lines=[line()] * 4) for number in range(50_000)]
    check_orders(rows[:1], now=NOW)  # imports Great Expectations
    started = time.perf_counter()
    checked = check_orders(rows, now=NOW)
    print(f"\n50,000 orders with 200,000 lines checked in {time.perf_counter() - started:.2f} s")
    assert len(checked.accepted) == 50_000
