"""Orders, their lines and refunds, into the tables: a batch of rows at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select

from lifecycle.customers.identity import Target, own_address
from lifecycle.customers.people import buyers
from lifecycle.customers.versions import Fate, Version, aware, content_hash, fate, said_at
from lifecycle.customers.zones import region_code
from lifecycle.db.bulk import rows_in, upsert
from lifecycle.db.schema import order_lines, orders, refunds
from lifecycle.db.storable import storable_json, storable_text
from lifecycle.money import convert_minor, to_minor
from lifecycle.platforms.records import OrderRow

_AMOUNTS = ("total", "refunded", "discount", "tax", "shipping")
_LINE = ("order_key", "line_no", "sku", "title", "quantity", "unit_price_minor", "category")
_REFUND = ("order_key", "refund_id", "refunded_at", "amount_minor", "amount_base_minor")
_minor = lru_cache(maxsize=100_000)(to_minor)  # prices repeat: a third of the time of a first load


@dataclass(frozen=True, slots=True)
class Entry:
    """An order as it will be stored. Lines: sku, title, quantity, price, category. Refunds: id, instant, amount,
    amount in base."""

    row: OrderRow
    version: Version
    columns: dict[str, Any]
    lines: list[tuple[str | None, str | None, int | None, int, str | None]]
    refunds: list[tuple[str, datetime, int, int]]


def entry(row: OrderRow, *, base: str, rate: Decimal) -> Entry:
    """`row`, which has passed the check, in minor units. `rate`: price of one unit of its currency in `base`; a
    corrected one makes another version of the order."""
    at, currency = said_at(row), row.currency
    assert currency is not None, "the check lets no such row pass"
    amounts = {f"{name}_minor": _minor(getattr(row, name), currency) for name in _AMOUNTS}
    said = {
        "order_id": storable_text(row.order_id),
        "ordered_at": aware(row.ordered_at),
        "updated_at": at,
        "status": row.status,
        "currency": currency,
        **amounts,
        "country": row.country,
        "paid_at": aware(row.paid_at),
        "shipped_at": aware(row.shipped_at),
        "delivered_at": aware(row.delivered_at),
        "attributes": storable_json(row.attributes) or None,
        "line_count": len(row.lines),
    }
    region = region_code(row.country, row.region)
    lines = [
        (
            storable_text(line.sku),
            storable_text(line.title),
            line.quantity,
            _minor(line.unit_price or 0, currency),
            storable_text(line.category),
        )
        for line in row.lines
    ]

    def in_base(amount_minor: int) -> int:
        return convert_minor(amount_minor, currency, base, rate)

    said["total_base_minor"] = in_base(amounts["total_minor"])
    said["refunded_base_minor"] = in_base(amounts["refunded_minor"])
    paid_back = [(*each, in_base(each[2])) for each in _refunds(row, at, currency)]
    whom = (row.customer_id, row.email, row.phone, row.name, row.locale)
    # Without category or region it is what it was before there were any, so that no order becomes a new version.
    said_of_lines = [line if line[4] else line[:4] for line in lines]
    whole = [*said.values(), said_of_lines, paid_back, whom]
    version = Version(at, content_hash([*whole, region] if region else whole))
    return Entry(row, version, {**said, "region": region, "content_hash": version.content_hash}, lines, paid_back)


def take_orders(target: Target, entries: Iterable[Entry]) -> Counter[Fate]:
    """Store what is new or changed, with its customers. Of one order twice in a batch the newest counts."""
    entries = list(entries)
    stored = _stored(target, entries)
    versions = {order_id: version for order_id, (_, version) in stored.items()}
    pending: dict[str, Entry] = {}
    fates: Counter[Fate] = Counter()
    for each in entries:
        order_id = each.columns["order_id"]
        what = fate(each.version, versions.get(order_id))
        if what in (Fate.NEW, Fate.CHANGED):
            versions[order_id] = each.version
            if order_id in pending:
                what = Fate.SUPERSEDED
            pending[order_id] = each
        fates[what] += 1
    _write(target, list(pending.values()), {order_id: key for order_id, (key, _) in stored.items()})
    return fates


def is_anonymous(row: OrderRow) -> bool:
    """A guest whom nothing identifies."""
    return not row.customer_id and own_address(row.email) is None


def _stored(target: Target, entries: Iterable[Entry]) -> dict[str, tuple[int, Version]]:
    """Order id to key and version, of those of the batch that are stored."""
    found = orders.c
    query = select(found.order_id, found.order_key, found.updated_at, found.content_hash).where(
        found.shop == target.shop
    )
    ids = (each.columns["order_id"] for each in entries)
    return {
        row.order_id: (row.order_key, Version(row.updated_at, row.content_hash))
        for row in rows_in(target.connection, query, found.order_id, ids)
    }


def _write(target: Target, entries: Sequence[Entry], keys: Mapping[str, int]) -> None:
    """`keys`: order id to key, of the orders that are stored already."""
    if not entries:
        return
    rows = [
        {
            **each.columns,
            "shop": target.shop,
            "customer_id": customer_id,
            "landed_at": target.now,
            "run_id": target.run_id,
        }
        for each, customer_id in zip(entries, buyers(target, [each.row for each in entries]), strict=True)
    ]
    update = [name for name in rows[0] if name not in {"shop", "order_id", "landed_at"}]
    upsert(target.connection, orders, rows, key=("shop", "order_id"), update=update)
    changed = [keys[each.columns["order_id"]] for each in entries if each.columns["order_id"] in keys]
    _delete_parts(target.connection, changed)
    new = (each for each in entries if each.columns["order_id"] not in keys)
    _insert_parts(
        target.connection, entries, {**keys, **{id: key for id, (key, _) in _stored(target, new).items()}}
    )


def _delete_parts(connection: Connection, order_keys: Sequence[int]) -> None:
    if order_keys:
        for table in (order_lines, refunds):
            statement = delete(table).where(table.c.order_key == bindparam("key"))
            connection.execute(statement, [{"key": key} for key in order_keys])


def _insert_parts(connection: Connection, entries: Sequence[Entry], keys: Mapping[str, int]) -> None:
    lines, paid_back = [], []
    for each in entries:
        order_key = keys[each.columns["order_id"]]
        for number, line in enumerate(each.lines, start=1):
            lines.append(dict(zip(_LINE, (order_key, number, *line), strict=True)))
        for refund in each.refunds:
            paid_back.append(dict(zip(_REFUND, (order_key, *refund), strict=True)))
    for table, rows in ((order_lines, lines), (refunds, paid_back)):
        if rows:
            connection.execute(table.insert(), rows)


def _refunds(row: OrderRow, at: datetime, currency: str) -> list[tuple[str, datetime, int]]:
    """Id, instant and minor units. Where the platform gives no date, the order's last change; the same id again
    gets a number, because a refund that is left out would make a sum too small."""
    seen: Counter[str] = Counter()
    found = []
    for refund in row.refunds:
        refund_id = storable_text(refund.refund_id) or "?"
        seen[refund_id] += 1
        unique_id = refund_id if seen[refund_id] == 1 else f"{refund_id} ({seen[refund_id]})"
        found.append((unique_id, aware(refund.refunded_at) or at, _minor(refund.amount or 0, currency)))
    return found
