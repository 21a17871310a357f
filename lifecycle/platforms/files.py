"""Orders, customers and consents from CSV, Excel and Parquet files.

Reading is forgiving about values (None, and the check says why) and strict about the file: what is no such file
at all is an InputError, in one sentence.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from lifecycle.errors import InputError, UsageError, suggest
from lifecycle.platforms.columns import amounts, instants, read_table, texts, wholes
from lifecycle.platforms.countries import country_code
from lifecycle.platforms.records import ConsentFact, CustomerRow, LineRow, OrderRow, Row
from lifecycle.settings.models import Shop, zone

Kind = Literal["orders", "customers", "consents"]

ROWS_PER_LIST = 1_000


@dataclass(frozen=True)
class Layout:
    """The columns of one kind of file (design.md §7). Any others are kept as attributes."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.required + self.optional


ORDERS = Layout(
    "orders",
    ("order_id", "customer_id", "ordered_at", "currency", "total"),
    (
        *("email", "phone", "name", "country", "region", "locale", "status"),
        *("paid_at", "shipped_at", "delivered_at"),
        *("discount", "tax", "shipping", "refunded"),
    ),
)
ORDER_LINES = Layout(
    "order lines",
    ("order_id", "customer_id", "ordered_at", "currency", "sku", "quantity", "unit_price"),
    ("title", "category", "country", "region", "email", "phone", "name", "locale", "status"),
)
CUSTOMERS = Layout(
    "customers",
    ("customer_id",),
    ("email", "phone", "name", "country", "region", "timezone", "locale", "created_at", "updated_at", "tags"),
)
CONSENTS = Layout(
    "consents",
    ("channel", "status", "occurred_at"),
    ("customer_id", "email", "topic", "basis", "source", "wording", "evidence", "expires_at"),
)

_INSTANTS = {
    *("ordered_at", "paid_at", "shipped_at", "delivered_at", "created_at", "updated_at", "occurred_at"),
    "expires_at",
}
_AMOUNTS = {"total", "discount", "tax", "shipping", "refunded", "unit_price"}

_PASSED = datetime(1970, 1, 1, tzinfo=UTC)
"""An expiry that cannot be read: taken for none, it would make a consent last for ever."""

Cells = dict[str, list[Any]]
"""Values of some rows by column: instants, Decimals, ints or texts; None where unreadable or empty."""


def read_file(path: Path, kind: Kind, shop: Shop, *, mapping: Mapping[str, str]) -> Iterator[Sequence[Row]]:
    """Rows of a file, up to 1,000 at a time. `mapping`: our column name to the file's.

    Dates without an offset are read in the shop's time zone. Raises InputError and, for a mapping of a column
    that does not exist, UsageError.
    """
    if kind == "orders":
        yield from read_orders(path, shop, mapping)
    elif kind == "customers":
        yield from read_customers(path, shop, mapping)
    else:
        yield from read_consents(path, shop, mapping)


def read_orders(path: Path, shop: Shop, mapping: Mapping[str, str]) -> Iterator[list[OrderRow]]:
    """Orders, from one row each or, where there is a `sku` column, from order lines.

    Lines of an order need not stand together. Their order's total is the sum of quantity times unit_price; one
    below zero is a return.
    """
    table = read_table(path)
    layout = ORDER_LINES if "sku" in table or "sku" in mapping else ORDERS
    table = _fit(table, layout, mapping, path)
    if layout is ORDERS:
        for part in _parts(table):
            cells = _cells(part, layout.columns, shop)
            extras, raws = _records(part, layout), _records(part)
            yield [_order(cells, row, extras[row], raws[row]) for row in range(len(part))]
    else:
        for part, starts in _grouped(table):
            yield _orders_of_lines(part, starts, shop)


def read_customers(path: Path, shop: Shop, mapping: Mapping[str, str]) -> Iterator[list[CustomerRow]]:
    table = _fit(read_table(path), CUSTOMERS, mapping, path)
    for part in _parts(table):
        cells = _cells(part, CUSTOMERS.columns, shop)
        extras, raws = _records(part, CUSTOMERS), _records(part)
        yield [_customer(cells, row, extras[row], raws[row]) for row in range(len(part))]


def read_consents(path: Path, shop: Shop, mapping: Mapping[str, str]) -> Iterator[list[CustomerRow]]:
    """A customer with one consent fact and nothing else known, for each row."""
    table = _fit(read_table(path), CONSENTS, mapping, path)
    if "customer_id" not in table and "email" not in table:
        raise _missing(path, "customer_id", table, CONSENTS)
    for part in _parts(table):
        cells, raws = _cells(part, CONSENTS.columns, shop), _records(part)
        yield [_consent(cells, row, raws[row], path.name) for row in range(len(part))]


def _fit(table: pd.DataFrame, layout: Layout, mapping: Mapping[str, str], path: Path) -> pd.DataFrame:
    """The table under our column names, with all that are required."""
    for ours, theirs in mapping.items():
        if ours not in layout.columns:
            raise UsageError(
                f'--map {ours}={theirs}: {layout.name} have no column "{ours}"{suggest(ours, layout.columns)}'
            )
        if theirs not in table:
            raise InputError(f'{path}: there is no column "{theirs}" to map{suggest(theirs, table.columns)}')
        if ours in table and ours != theirs:
            raise InputError(f'{path}: there is a column "{ours}" already; leave out --map {ours}={theirs}')
    table = table.rename(columns={theirs: ours for ours, theirs in mapping.items()})
    for column in layout.required:
        if column not in table:
            raise _missing(path, column, table, layout)
    return table


def _missing(path: Path, column: str, table: pd.DataFrame, layout: Layout) -> InputError:
    spare = [name for name in table.columns if name not in layout.columns]
    close = difflib.get_close_matches(column, spare, n=1)
    question, name = (f'; did you mean "{close[0]}"?', close[0]) if close else (".", "NAME")
    return InputError(
        f'{path}: column "{column}" is missing; found: {", ".join(table.columns)}{question} '
        f"Where it has another name, add --map {column}={name}"
    )


def _parts(table: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for start in range(0, len(table), ROWS_PER_LIST):
        yield table.iloc[start : start + ROWS_PER_LIST]


def _grouped(table: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, list[int]]]:
    """Lines of up to 1,000 orders, order by order as they first appear, and where each order starts.

    A line without order_id stays alone.
    """
    names = pd.Series(texts(table["order_id"]), dtype=object)
    codes, _ = pd.factorize(names)
    missing = codes < 0
    codes[missing] = codes.max(initial=-1) + 1 + np.arange(missing.sum())
    positions = np.argsort(codes, kind="stable")
    ordered = codes[positions]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[starts[1:], len(ordered)]
    for first in range(0, len(starts), ROWS_PER_LIST):
        some = starts[first : first + ROWS_PER_LIST]
        begin, end = some[0], ends[min(first + ROWS_PER_LIST, len(starts)) - 1]
        yield table.iloc[positions[begin:end]], (some - begin).tolist()


def _cells(part: pd.DataFrame, columns: Sequence[str], shop: Shop) -> Cells:
    """Each of `columns`; a list of None for one that the file does not have."""
    return {column: _values(part[column], shop) if column in part else [None] * len(part) for column in columns}


def _values(column: pd.Series[Any], shop: Shop) -> list[Any]:
    if column.name in _INSTANTS:
        return list(instants(column, zone(shop.timezone)))
    if column.name in _AMOUNTS:
        return list(amounts(column))
    return list(wholes(column) if column.name == "quantity" else texts(column))


def _records(part: pd.DataFrame, without: Layout | None = None) -> list[dict[str, str]]:
    """The non-empty cells of each row as texts; only the extra columns where a layout is left out."""
    names = [name for name in part.columns if without is None or name not in without.columns]
    if not names:
        return [{} for _ in range(len(part))]
    columns = [texts(part[name]) for name in names]
    return [
        {name: value for name, value in zip(names, values, strict=True) if value is not None}
        for values in zip(*columns, strict=True)
    ]


def _orders_of_lines(part: pd.DataFrame, starts: list[int], shop: Shop) -> list[OrderRow]:
    """What is said of the order is read from its first line."""
    first = part.iloc[starts]
    cells, extras = _cells(first, ORDERS.columns, shop), _records(first, ORDER_LINES)
    said = _cells(part, ("sku", "title", "quantity", "unit_price", "category"), shop)
    lines = [LineRow(*values) for values in zip(*said.values(), strict=True)]
    raws = _records(part)
    rows = []
    for row, (start, end) in enumerate(pairwise([*starts, len(part)])):
        cells["total"][row] = _total(lines[start:end])
        order = _order(cells, row, extras[row], {"lines": raws[start:end]})
        order.lines, order.input_lines = lines[start:end], end - start
        rows.append(order)
    return rows


def _total(lines: list[LineRow]) -> Decimal | None:
    """None where a line cannot be read: half a sum would be wrong in silence."""
    total = Decimal(0)
    for line in lines:
        if line.quantity is None or line.unit_price is None:
            return None
        total += line.quantity * line.unit_price
    return total


def _order(cells: Cells, row: int, attributes: dict[str, Any], raw: Any) -> OrderRow:
    def cell(column: str) -> Any:
        return cells[column][row]

    total, status = cell("total"), (cell("status") or "paid").lower()
    ordered_at = cell("ordered_at")
    return OrderRow(
        order_id=cell("order_id"),
        customer_id=cell("customer_id"),
        ordered_at=ordered_at,
        updated_at=ordered_at,
        status="returned" if status == "paid" and total is not None and total < 0 else status,
        currency=cell("currency"),
        total=total,
        refunded=cell("refunded") or Decimal(0),
        discount=cell("discount") or Decimal(0),
        tax=cell("tax") or Decimal(0),
        shipping=cell("shipping") or Decimal(0),
        email=cell("email"),
        phone=cell("phone"),
        name=cell("name"),
        country=_country(cell("country"), attributes),
        region=cell("region"),
        locale=cell("locale"),
        paid_at=cell("paid_at"),
        shipped_at=cell("shipped_at"),
        delivered_at=cell("delivered_at"),
        attributes=attributes,
        raw=raw,
    )


def _customer(cells: Cells, row: int, attributes: dict[str, Any], raw: Any) -> CustomerRow:
    def cell(column: str) -> Any:
        return cells[column][row]

    return CustomerRow(
        customer_id=cell("customer_id"),
        email=cell("email"),
        updated_at=cell("updated_at") or cell("created_at"),
        created_at=cell("created_at"),
        phone=cell("phone"),
        name=cell("name"),
        country=_country(cell("country"), attributes),
        region=cell("region"),
        timezone=cell("timezone"),
        locale=cell("locale"),
        tags=[tag.strip() for tag in (cell("tags") or "").replace(";", ",").split(",") if tag.strip()],
        attributes=attributes,
        raw=raw,
    )


def _consent(cells: Cells, row: int, raw: Any, file: str) -> CustomerRow:
    def cell(column: str) -> Any:
        return cells[column][row]

    status = (cell("status") or "").lower()
    fact = ConsentFact(
        channel=(cell("channel") or "").lower(),
        topic=cell("topic") or "promotions",
        status=status,
        basis=cell("basis") or ("express" if status == "granted" else "request"),
        occurred_at=cell("occurred_at"),
        source=cell("source") or "file",
        wording=cell("wording"),
        evidence=cell("evidence") or file,
        expires_at=cell("expires_at") or (_PASSED if raw.get("expires_at") else None),
    )
    return CustomerRow(
        cell("customer_id"), cell("email"), updated_at=cell("occurred_at"), consents=[fact], raw=raw
    )


def _country(name: str | None, attributes: dict[str, Any]) -> str | None:
    """The code; a name that is no single country stays among the attributes."""
    code = country_code(name)
    if name and not code:
        attributes["country"] = name
    return code
