"""Rejected rows, whole: nothing that a shop sent is lost because it could not be used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, or_, select, update

from lifecycle.db.bulk import upsert
from lifecycle.db.schema import quarantine
from lifecycle.db.storable import storable_json, storable_text
from lifecycle.platforms.records import OrderRow, Row
from lifecycle.quality.checks import Rejection


def put(
    connection: Connection,
    shop: str,
    entity: str,
    rejections: Iterable[tuple[Rejection[Any], str]],
    *,
    now: datetime,
    run_id: str | None,
) -> None:
    """Store rejections, each with the page or file it came from. The same row again is only seen once more, and
    says on who rejected it first."""
    upsert(
        connection,
        quarantine,
        [_entry(shop, entity, rejection, source, now, run_id) for rejection, source in rejections],
        key=("shop", "entity", "row_key", "content_hash"),
        update=("last_seen_at",),
        fixed={"resolved_at": None},
    )


def open_keys(connection: Connection, shop: str, entity: str) -> set[str]:
    """The keys of rows that are still rejected."""
    query = select(quarantine.c.row_key).where(
        quarantine.c.shop == shop, quarantine.c.entity == entity, quarantine.c.resolved_at.is_(None)
    )
    return set(connection.scalars(query))


def resolve(
    connection: Connection, shop: str, entity: str, accepted: Mapping[str, datetime], *, now: datetime
) -> None:
    """Close what was rejected of the rows that are `accepted` now: key to the accepted row's updated_at."""
    if not accepted:
        return
    statement = (
        update(quarantine)
        .where(
            quarantine.c.shop == shop,
            quarantine.c.entity == entity,
            quarantine.c.row_key == bindparam("key"),
            quarantine.c.resolved_at.is_(None),
            or_(
                quarantine.c.row_updated_at.is_(None),
                quarantine.c.row_updated_at <= bindparam("accepted_at", type_=quarantine.c.row_updated_at.type),
            ),
        )
        .values(resolved_at=now)
    )
    connection.execute(statement, [{"key": key, "accepted_at": at} for key, at in accepted.items()])


def input_lines(row: Row) -> int:
    """Lines of input that went into this row: what sums over accepted and rejected rows add up to."""
    return max(row.input_lines, len(row.lines)) if isinstance(row, OrderRow) else 1


def row_key(entity: str, row: Row) -> str:
    """What names the row: the platform's id; else, or where a customer has many such rows, its content."""
    platform_id = storable_text(row.order_id if isinstance(row, OrderRow) else row.customer_id)
    if platform_id and entity != "consents":
        return platform_id
    return f"{platform_id or 'no id'}: {_hash(_whole(row))[:16]}"


def _whole(row: Row) -> Any:
    return storable_json(row if row.raw is None else row.raw)


def _hash(whole: Any) -> str:
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _entry(
    shop: str, entity: str, rejection: Rejection[Any], source: str, now: datetime, run_id: str | None
) -> dict[str, Any]:
    row, whole = rejection.row, _whole(rejection.row)
    updated_at = row.updated_at
    return {
        "shop": shop,
        "entity": entity,
        "row_key": row_key(entity, row),
        "row": whole,
        "row_updated_at": updated_at if updated_at and updated_at.tzinfo else None,
        "lines": input_lines(row),
        "expectation": rejection.expectation,
        "reason": storable_text(rejection.reason),
        "source": source,
        "content_hash": _hash(whole),
        "first_seen_at": now,
        "last_seen_at": now,
        "resolved_at": None,
        "run_id": run_id,
    }
