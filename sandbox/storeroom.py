"""What a stand-in shop holds, in SQLite, so that a server keeps next to nothing in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["orders", "customers"]

SCHEMA = """
create table orders (
    shop text not null, id integer not null, updated_at integer not null, customer_id integer, json text not null
) strict;
create table customers (
    shop text not null, id integer not null, updated_at integer not null, email text, person text not null,
    json text not null
) strict;
create table meta (key text primary key, value text not null) strict;
"""

INDEXES = """
create index orders_by_id on orders (shop, id, updated_at);
create index orders_by_change on orders (shop, updated_at, id);
create index orders_by_customer on orders (shop, customer_id, id);
create index customers_by_id on customers (shop, id, updated_at);
create index customers_by_change on customers (shop, updated_at, id);
create index customers_by_email on customers (email);
"""


class Item(NamedTuple):
    id: int
    updated_at: int
    """Seconds since 1970."""
    json: str


@dataclass(frozen=True)
class Span:
    """Half-open [since, until) in seconds since 1970; None: no end."""

    since: int | None = None
    until: int | None = None


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that commits at the end; WAL, because servers read while shoppers buy."""
    with closing(sqlite3.connect(path, timeout=60)) as connection, connection:
        yield connection


class Storeroom:
    """One shop's shelves. Every call opens a connection of its own, so any thread may ask."""

    def __init__(self, path: Path, shop: str) -> None:
        self._path = path
        self._shop = shop

    def count(self, kind: Kind, span: Span) -> int:
        where, values = self._where(span)
        with connected(self._path) as connection:
            return int(connection.execute(f"select count(*) from {kind} where {where}", values).fetchone()[0])

    def by_id(self, kind: Kind, span: Span, *, offset: int, limit: int, newest_first: bool) -> list[Item]:
        where, values = self._where(span)
        order = f"order by id {'desc' if newest_first else 'asc'}"
        # Counts on the narrow index: sorting or skipping whole orders would take seconds on the last pages.
        page = f"select id from {kind} indexed by {kind}_by_id where {where} {order} limit {limit} offset {offset}"
        query = f"select id, updated_at, json from {kind} where shop = ? and id in ({page}) {order}"
        with connected(self._path) as connection:
            return [Item(*row) for row in connection.execute(query, [self._shop, *values])]

    def by_change(self, kind: Kind, span: Span, *, after: tuple[int, int] | None, limit: int) -> list[Item]:
        """`after`: updated_at and id of the last item seen."""
        where, values = self._where(span)
        if after is not None:
            where, values = f"{where} and (updated_at, id) > (?, ?)", [*values, *after]
        query = f"select id, updated_at, json from {kind} where {where} order by updated_at, id limit {limit}"
        with connected(self._path) as connection:
            return [Item(*row) for row in connection.execute(query, values)]

    def every(self, kind: Kind, span: Span) -> Iterator[Item]:
        where, values = self._where(span)
        with connected(self._path) as connection:
            rows = connection.execute(f"select id, updated_at, json from {kind} where {where} order by id", values)
            yield from map(Item._make, rows)

    def one(self, kind: Kind, item_id: int) -> Item | None:
        query = f"select id, updated_at, json from {kind} where shop = ? and id = ?"
        with connected(self._path) as connection:
            row = connection.execute(query, (self._shop, item_id)).fetchone()
        return Item(*row) if row else None

    def _where(self, span: Span) -> tuple[str, list[int | str]]:
        where, bounds = ["shop = ?"], list[int | str]([self._shop])
        for condition, bound in (("updated_at >= ?", span.since), ("updated_at < ?", span.until)):
            if bound is not None:
                where.append(condition)
                bounds.append(bound)
        return " and ".join(where), bounds
