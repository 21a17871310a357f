"""The suites, as data: what must hold for the rows of a pull, in the order in which a reason is given.

A row gets the first reason that applies. Columns are those of lifecycle.quality.frames; `kind` is the class of
that name in great_expectations.expectations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from babel import Locale
from babel.core import get_global

from lifecycle.platforms.countries import country_code
from lifecycle.platforms.records import STATUSES

CURRENCIES = sorted(get_global("all_currencies"))
COUNTRIES = sorted(code for code in map(str, Locale("en").territories) if country_code(code) == code)
EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
TOMORROW = {"$PARAMETER": "tomorrow"}
"""A day after the check, filled in when it runs: clocks and zones differ a little."""
LARGEST = 1e12
"""In units of any currency; more is no amount of money, and would not fit a table."""


@dataclass(frozen=True)
class Expected:
    """`must` ends the sentence "<column> is <value>; it must …". `only_status`: asked of these orders alone."""

    name: str
    column: str
    must: str
    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    only_status: tuple[str, ...] = ()


def _present(column: str, must: str = "be present") -> Expected:
    return Expected(f"{column}_present", column, must, "ExpectColumnValuesToNotBeNull")


def _between(
    name: str, column: str, must: str, low: Any, high: Any, only_status: tuple[str, ...] = ()
) -> Expected:
    limits = {key: value for key, value in (("min_value", low), ("max_value", high)) if value is not None}
    return Expected(name, column, must, "ExpectColumnValuesToBeBetween", limits, only_status)


def _one_of(name: str, column: str, must: str, values: list[str]) -> Expected:
    return Expected(name, column, must, "ExpectColumnValuesToBeInSet", {"value_set": values})


def _amount(column: str) -> Expected:
    return _between(f"{column}_fits", column, "lie between -10^12 and 10^12", -LARGEST, LARGEST)


_NOT_RETURNED = tuple(status for status in STATUSES if status != "returned")
_NOT_IN_FUTURE = "not lie more than a day ahead"

ORDERS = (
    _present("order_id"),
    Expected(
        "order_told_one_way", "conflict", "come with one content per updated_at", "ExpectColumnValuesToBeUnique"
    ),
    _present("ordered_at", "be an instant with a time zone"),
    _between("ordered_at_plausible", "ordered_at", "lie between 1990 and tomorrow", EARLIEST, TOMORROW),
    _between("updated_at_plausible", "updated_at", _NOT_IN_FUTURE, None, TOMORROW),
    _one_of("currency_iso", "currency", "be an ISO 4217 code such as EUR", CURRENCIES),
    _present("currency"),
    _one_of("status_known", "status", f"be one of {', '.join(STATUSES)}", list(STATUSES)),
    _present("status"),
    _present("total", "be a number"),
    _between("total_not_negative", "total", "be 0 or more unless the order is a return", 0, None, _NOT_RETURNED),
    *(_amount(column) for column in ("total", "discount", "tax", "shipping")),
    _between("refunded_not_negative", "refunded", "be 0 or more", 0, LARGEST),
    Expected(
        "refunded_within_total",
        "refunded",
        "be at most the total",
        "ExpectColumnPairValuesAToBeGreaterThanB",
        {"column_A": "total", "column_B": "refunded", "or_equal": True},
        ("paid", "refunded"),
    ),
    _one_of("country_iso", "country", "be empty or an ISO 3166 code such as FR", COUNTRIES),
)

LINES = (
    _present("sku"),
    _present("quantity", "be a whole number"),
    _between("quantity_fits", "quantity", "lie between -10^9 and 10^9", -1e9, 1e9),
    Expected("quantity_not_zero", "quantity", "not be 0", "ExpectColumnValuesToNotBeInSet", {"value_set": [0]}),
    _present("unit_price", "be a number"),
    _between("unit_price_not_negative", "unit_price", "be 0 or more", 0, LARGEST),
)

REFUNDS = (
    _present("amount", "be a number"),
    _between("refund_not_negative", "amount", "be 0 or more", 0, LARGEST),
)

CUSTOMERS = (
    _present("customer_id"),
    _between("updated_at_plausible", "updated_at", _NOT_IN_FUTURE, None, TOMORROW),
)
"""A malformed e-mail, an unknown country: no reason to turn somebody away, and with them a withdrawn consent."""

CONSENTS = (
    _present("channel"),
    _present("topic"),
    _one_of("status_known", "status", "be granted or withdrawn", ["granted", "withdrawn"]),
    _present("status"),
    _between("occurred_at_plausible", "occurred_at", _NOT_IN_FUTURE, None, TOMORROW),
)
