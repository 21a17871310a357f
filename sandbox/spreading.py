"""Which shop serves which of the input's orders, to whom and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd

from sandbox.inputs import Lines
from sandbox.people import GUESTS_WITH_EMAIL, Person, consent, draw, person, shops_of
from sandbox.rendering import Customer, Line, Order
from sandbox.shops import SHOPS, ShopStand

_FIRST_ORDER = {"atlas": 5_600_000_000_001, "harbour": 10_001}
_FIRST_CUSTOMER = {"atlas": 7_200_000_000_001, "harbour": 1_001}
_FIRST_GUEST = 1_000_000
"""Numbers in the addresses of guests begin here, those of customers at 1."""


@dataclass(frozen=True)
class Spread:
    """An input's orders over the shops."""

    lines: pd.DataFrame
    """sku, title, quantity, price; those of one order together."""
    orders: pd.DataFrame
    """order, customer, country, status, shop, ordered_at (UTC), id, and its lines [start, end); by time."""
    customers: pd.DataFrame
    """shop, customer, id, created_at, updated_at (UTC)."""
    people: dict[str, Person]
    left_out: dict[str, int]

    def accounting(self) -> dict[str, int]:
        """Every line of the input under one sentence."""
        served = (self.orders["end"] - self.orders["start"]).groupby(self.orders["shop"]).sum()
        return {f"served by {shop}": int(served.get(shop, 0)) for shop in SHOPS} | self.left_out

    def each_order(self) -> Iterator[tuple[ShopStand, Order]]:
        known = self.customers
        ids = dict(zip(zip(known["shop"], known["customer"], strict=True), known["id"].tolist(), strict=True))
        columns = [self.lines[name].tolist() for name in Line._fields]
        for number, row in enumerate(_rows(self.orders)):
            buyer = self.people.get(row["customer"]) or _guest(row, _FIRST_GUEST + number)
            yield (
                SHOPS[row["shop"]],
                Order(
                    order_id=row["id"],
                    number=row["order"],
                    ordered_at=row["ordered_at"],
                    customer_id=ids.get((row["shop"], row["customer"])),
                    person=buyer,
                    email=buyer.email if buyer else None,
                    country=row["country"] or (buyer.country if buyer else None),
                    status=row["status"],
                    lines=[
                        Line(*values)
                        for values in zip(*(c[row["start"] : row["end"]] for c in columns), strict=True)
                    ],
                ),
            )

    def each_customer(self) -> Iterator[tuple[ShopStand, Customer]]:
        for row in _rows(self.customers):
            name = row["customer"]
            said = consent(name, row["shop"])
            yield (
                SHOPS[row["shop"]],
                Customer(row["id"], self.people[name], row["created_at"], row["updated_at"], said),
            )


def spread(lines: Lines, anchor: date) -> Spread:
    """The last order falls on the day before `anchor`."""
    positions, starts = _grouped(lines.frame["order"])
    ends = np.append(starts[1:], len(positions))
    orders = lines.frame.iloc[positions[starts]][["order", "customer", "country", "status", "ordered_at"]]
    orders = orders.assign(start=starts, end=ends).reset_index(drop=True)
    orders = orders.astype({"customer": object, "country": object}).where(orders.notna(), None)
    orders["shop"] = [_shop(row["customer"], row["order"]) for row in _rows(orders)]
    orders["ordered_at"] = _in_utc(_moved(orders["ordered_at"], anchor), orders["shop"])
    orders = orders.sort_values("ordered_at", kind="stable", ignore_index=True)
    orders["id"] = _numbered(orders["shop"], _FIRST_ORDER)
    return Spread(
        lines=lines.frame.iloc[positions][list(Line._fields)],
        orders=orders,
        customers=_customers(orders),
        people=_people(orders, spread_countries=not lines.has_country),
        left_out=lines.left_out,
    )


def _grouped(orders: pd.Series[str]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the lines, order by order as they first appear, and where each order starts among them."""
    codes, _ = pd.factorize(orders)
    positions = np.argsort(codes, kind="stable")
    ordered = codes[positions]
    return positions, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def _shop(customer: str | None, order: str) -> str:
    choices = shops_of(customer) if customer else tuple(SHOPS)
    return choices[int(draw(order, "shop") * len(choices))]


def _moved(own_time: pd.Series[Any], anchor: date) -> pd.Series[Any]:
    """By whole days, to before the anchor's midnight."""
    days = (pd.Timestamp(anchor) - own_time.max()) // pd.Timedelta(days=1)
    return own_time + pd.Timedelta(days=days)


def _in_utc(own_time: pd.Series[Any], shops: pd.Series[str]) -> pd.Series[Any]:
    """From the clock on each shop's wall. An hour that winter time repeats is the first one."""
    moments = pd.Series(pd.NaT, index=own_time.index, dtype="datetime64[s, UTC]")
    for shop in SHOPS.values():
        here = own_time[shops == shop.name]
        zoned = here.dt.tz_localize(shop.timezone, ambiguous=np.ones(len(here), bool), nonexistent="shift_forward")
        moments[shops == shop.name] = zoned.dt.tz_convert("UTC")
    return moments


def _numbered(shops: pd.Series[str], first: dict[str, int]) -> pd.Series[int]:
    return shops.map(first) + shops.groupby(shops).cumcount()


def _customers(orders: pd.DataFrame) -> pd.DataFrame:
    """A shop knows a customer from the first order to the last."""
    known = orders[orders["customer"].notna()].groupby(["shop", "customer"], sort=False)["ordered_at"]
    customers = known.agg(created_at="min", updated_at="max").reset_index()
    customers = customers.sort_values("created_at", kind="stable", ignore_index=True)
    customers["id"] = _numbered(customers["shop"], _FIRST_CUSTOMER)
    return customers


def _people(orders: pd.DataFrame, *, spread_countries: bool) -> dict[str, Person]:
    """By the input's customer id; where the input says a country, that of the last order which has one."""
    known = orders[orders["customer"].notna()]
    countries = known[known["country"].notna()].groupby("customer")["country"].last().to_dict()
    return {
        name: person(name, number, country=countries.get(name), spread=spread_countries)
        for number, name in enumerate(known["customer"].unique(), start=1)
    }


def _guest(order: dict[str, Any], number: int) -> Person | None:
    """Somebody who left an address at a WooCommerce checkout; None where the order names nobody."""
    key = f"guest {order['order']}"
    if SHOPS[order["shop"]].platform != "woocommerce" or draw(key, "e-mail") >= GUESTS_WITH_EMAIL:
        return None
    return person(key, number, country=order["country"], spread=False)


def _rows(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Python values, instants as aware datetimes."""
    columns = {}
    for name in frame.columns:
        column = frame[name]
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            naive: list[datetime] = column.dt.tz_localize(None).to_numpy(dtype="datetime64[s]").tolist()
            columns[name] = [moment.replace(tzinfo=UTC) for moment in naive]
        else:
            columns[name] = column.tolist()
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))
