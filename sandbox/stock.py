"""The stand-in shops' customers and orders: real purchases, spread over two shops, made-up people around them.

Built once from an input and kept in `<folder>/shops.db`; the same input gives the same stock. Dates are moved by
whole days so that the last order falls on the eve of the day on which the stock was first built: nothing lies in
the future, and a rebuild does not move them again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path

from sandbox.inputs import files_of, read_lines
from sandbox.people import Person
from sandbox.rendering import Customer, Line, Order, customer_json, lines_of, order_json, refunded_json
from sandbox.shops import SHOPS, ShopStand
from sandbox.spreading import Spread, spread
from sandbox.storeroom import INDEXES, SCHEMA, connected

VERSION = 2
"""Counts up when the same input would give another stock."""


@dataclass(frozen=True)
class Stock:
    path: Path
    """The database that the shop servers read."""
    accounting: dict[str, int]
    """Where every line of the input went, in sentences; sums to lines_read."""
    lines_read: int
    anchor: date
    """The day after the last order."""

    def add_order(
        self, shop: str, customer_id: int, ordered_at: datetime, lines: Sequence[Line] | None = None
    ) -> int:
        """A new purchase at a shop, kept for good; `lines` None: what the customer bought last time. Returns the
        order's id. Raises KeyError for a customer whom the shop does not know."""
        with connected(self.path) as connection:
            connection.execute("begin immediate")  # two shoppers must not take the same number
            found = connection.execute(
                "select person from customers where shop = ? and id = ?", (shop, customer_id)
            ).fetchone()
            if found is None:
                raise KeyError(customer_id)
            person = Person(**json.loads(found[0]))
            (order_id,) = connection.execute("select max(id) + 1 from orders where shop = ?", (shop,)).fetchone()
            order = Order(
                order_id=order_id,
                number=str(order_id),
                ordered_at=ordered_at,
                customer_id=customer_id,
                person=person,
                email=person.email,
                country=person.country,
                status="paid",
                lines=self.last_lines(shop, customer_id) if lines is None else lines,
            )
            connection.execute(_ADD_ORDER, _order_row(SHOPS[shop], order))
        return order.order_id

    def last_lines(self, shop: str, customer_id: int) -> list[Line]:
        """Of the customer's newest purchase that is no return; empty where there is none."""
        query = "select json from orders where shop = ? and customer_id = ? order by id desc"
        with connected(self.path) as connection:
            for (stored,) in connection.execute(query, (shop, customer_id)):
                lines = lines_of(SHOPS[shop], stored)
                if sum(line.quantity * line.price for line in lines) > 0:
                    return lines
        return []

    def customers_of(self, email: str) -> list[tuple[str, int]]:
        """Shop and customer id of everybody with this address."""
        query = "select shop, id from customers where email = ? order by shop"
        with connected(self.path) as connection:
            return connection.execute(query, (email,)).fetchall()

    def refund(self, shop: str, order_id: int, cents: int, at: datetime) -> None:
        """Pay back a part of an order, which changes the order."""
        with connected(self.path) as connection:
            (stored,) = connection.execute(
                "select json from orders where shop = ? and id = ?", (shop, order_id)
            ).fetchone()
            changed = refunded_json(SHOPS[shop], stored, refund_id=order_id * 10, cents=cents, at=at)
            connection.execute(
                "update orders set json = ?, updated_at = ? where shop = ? and id = ?",
                (changed, int(at.timestamp()), shop, order_id),
            )


def build_stock(source: Path | None, folder: Path, *, today: date) -> Stock:
    """The stock for an input (see inputs.read_lines), as it stands in `folder` or built anew.

    `today` counts when an input is first seen. Raises InputError for an unreadable input.
    """
    path = folder / "shops.db"
    print_of_input, known = _fingerprint(source), _meta(path)
    if known.get("input") == print_of_input and known.get("version") == str(VERSION):
        return _stock(path, known)
    anchor = date.fromisoformat(known["anchor"]) if known.get("input") == print_of_input else today
    goods = spread(read_lines(source), anchor)
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / "shops.db.new"
    _remove(draft)
    _write(draft, goods, {"input": print_of_input, "version": str(VERSION), "anchor": anchor.isoformat()})
    _remove(path)
    draft.replace(path)
    return _stock(path, _meta(path))


_ADD_ORDER = "insert into orders (shop, id, updated_at, customer_id, json) values (?, ?, ?, ?, ?)"
_ADD_CUSTOMER = "insert into customers (shop, id, updated_at, email, person, json) values (?, ?, ?, ?, ?, ?)"


def _write(path: Path, goods: Spread, meta: dict[str, str]) -> None:
    with connected(path) as connection:
        connection.executescript(f"pragma journal_mode = off; pragma synchronous = off; {SCHEMA}")
        connection.executemany(_ADD_ORDER, (_order_row(shop, order) for shop, order in goods.each_order()))
        connection.executemany(_ADD_CUSTOMER, (_customer_row(shop, one) for shop, one in goods.each_customer()))
        facts = {**meta, "accounting": json.dumps(goods.accounting())}
        connection.executemany("insert into meta values (?, ?)", facts.items())
        connection.executescript(INDEXES)
    with connected(path) as connection:
        connection.execute("pragma journal_mode = wal")


def _order_row(shop: ShopStand, order: Order) -> tuple[object, ...]:
    changed = int(order.ordered_at.timestamp())
    return (shop.name, order.order_id, changed, order.customer_id, order_json(shop, order))


def _customer_row(shop: ShopStand, customer: Customer) -> tuple[object, ...]:
    changed, who = int(customer.updated_at.timestamp()), customer.person
    stored = customer_json(shop, customer)
    return (shop.name, customer.customer_id, changed, who.email, json.dumps(asdict(who)), stored)


def _fingerprint(source: Path | None) -> str:
    """Of the input's content: a copy of it elsewhere is the same input."""
    whole = hashlib.sha256()
    for path in files_of(source):
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _meta(path: Path) -> dict[str, str]:
    """Empty where there is no finished stock."""
    if not path.exists():
        return {}
    with connected(path) as connection:
        return dict(connection.execute("select key, value from meta"))


def _stock(path: Path, meta: dict[str, str]) -> Stock:
    accounting: dict[str, int] = json.loads(meta["accounting"])
    return Stock(path, accounting, sum(accounting.values()), date.fromisoformat(meta["anchor"]))


def _remove(database: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
