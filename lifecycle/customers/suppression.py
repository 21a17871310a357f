"""Addresses that must not be written to, kept as keyed hashes so that they outlive an erasure.

Joined to people by `customers.email_hash`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, or_, select

from lifecycle.db.bulk import rows_in, upsert
from lifecycle.db.schema import suppressions
from lifecycle.db.storable import storable_text


def suppress(
    connection: Connection,
    address_hashes: Collection[str],
    reason: str,
    *,
    channel: str,
    evidence: str,
    occurred_at: datetime,
    recorded_at: datetime,
    shop: str | None = None,
    purpose: str = "marketing",
) -> int:
    """Suppress addresses for one shop, or for every shop when it is None. Returns how many are new.

    `reason`: unsubscribe, complaint, hard_bounce or manual. `purpose`: marketing or all. Who is suppressed in
    the same way already stays so, with the older evidence.
    """
    same = active_suppressions().where(
        suppressions.c.channel == channel,
        suppressions.c.shop.is_not_distinct_from(shop),
        suppressions.c.purpose == purpose,
        suppressions.c.reason == reason,
    )
    already = {row.address_hash for row in rows_in(connection, same, suppressions.c.address_hash, address_hashes)}
    rows = [
        {
            "address_hash": address_hash,
            "channel": channel,
            "shop": shop,
            "purpose": purpose,
            "reason": reason,
            "evidence": storable_text(evidence),
            "occurred_at": occurred_at,
            "recorded_at": recorded_at,
        }
        for address_hash in dict.fromkeys(address_hashes)
        if address_hash not in already
    ]
    upsert(
        connection,
        suppressions,
        rows,
        key=("address_hash", "channel", "shop", "purpose", "reason", "occurred_at"),
    )
    return len(rows)


def active_suppressions(as_of: datetime | None = None) -> Select[Any]:
    """address_hash, channel, shop (null: every shop), purpose, reason, occurred_at of what holds at `as_of`, or
    of all that holds by what is recorded. One dated ahead of its record holds from the record on. A complaint
    holds for ever, whatever has been lifted."""
    each = suppressions.c
    query = select(each.address_hash, each.channel, each.shop, each.purpose, each.reason, each.occurred_at)
    not_lifted = or_(each.lifted_at.is_(None), each.reason == "complaint")
    if as_of is None:
        return query.where(not_lifted)
    has_begun = or_(each.occurred_at <= as_of, each.recorded_at <= as_of)
    return query.where(has_begun, or_(not_lifted, each.lifted_at > as_of))
