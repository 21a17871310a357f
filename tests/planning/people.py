"""People in segments, with consent, for tests of planning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, delete, insert, select, update

from lifecycle.addresses import address_hash
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import (
    consents,
    customer_metrics,
    customers,
    identities,
    messages,
    metadata,
    orders,
    segment_members,
    segment_runs,
    suppressions,
    verdicts,
)
from lifecycle.planning.holdout import bucket
from lifecycle.settings import Config

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
DAY = timedelta(days=1)
SECRET = b"a secret for tests, 32 characters"

SEEDS = [
    seed
    for seed in range(1, 5_000)
    if all(bucket(seed, name) >= 5_000 for name in ("global", "winback", "vip_thanks"))
]
"""In no hold-out below a half."""


MORE_CHANNELS: list[dict[str, Any]] = [
    {"name": "whatsapp", "kind": "whatsapp", "phone_number_id": "1", "token_env": "X"},
    {"name": "messenger", "kind": "messenger", "page_id": "1", "token_env": "X"},
    {"name": "webhook", "kind": "webhook", "url": "http://localhost", "secret_env": "X"},
    {"name": "aliexpress", "kind": "aliexpress_messages"}
    | dict.fromkeys(("app_key_env", "app_secret_env", "token_env"), "X"),
    {"name": "ebay", "kind": "ebay_messages"}
    | dict.fromkeys(("client_id_env", "client_secret_env", "refresh_token_env"), "X"),
    {"name": "tiktok", "kind": "tiktok_engagement", "shop_cipher": "X"}
    | dict.fromkeys(("app_key_env", "app_secret_env", "token_env"), "X"),
    {"name": "amazon", "kind": "amazon_messaging", "marketplace_id": "X"}
    | dict.fromkeys(("client_id_env", "client_secret_env", "refresh_token_env"), "X"),
]
"""One of each kind but e-mail, named in short."""


def clear(engine: Engine) -> None:
    with writing(engine) as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(delete(table))


def hashed(customer_id: int) -> str:
    return address_hash(SECRET, "email", f"c{customer_id}@example.com")


def phone(customer_id: int) -> str:
    return f"+3361{customer_id:07}"


def phone_hashed(customer_id: int) -> str:
    return address_hash(SECRET, "whatsapp", phone(customer_id))


def handle_hashed(customer_id: int, shop: str = "atlas") -> str:
    return address_hash(SECRET, "handle", f"{shop}:b{customer_id}")


def address_hashed(channel: str, customer_id: int, shop: str = "atlas") -> str:
    """As a channel of the test's config has it."""
    found = {"email": hashed(customer_id), "whatsapp": phone_hashed(customer_id)}
    return found.get(channel, handle_hashed(customer_id, shop))


def add_addresses(engine: Engine, ids: Iterable[int], shops: Mapping[int, str] | None = None) -> None:
    """A telephone number, an account at their shop and an order there, for people who have none yet."""
    shops, at = shops or {}, NOW - 10 * DAY
    rows = [(i, shops.get(i, "atlas")) for i in ids]
    accounts = [
        {
            "shop": shop,
            "platform_customer_id": f"b{i}",
            "customer_id": i,
            "linked_by": "platform_id",
            "linked_at": at,
            "handle_hash": handle_hashed(i, shop),
        }
        for i, shop in rows
    ]
    with writing(engine) as connection:
        for i, _ in rows:
            values = {"phone": phone(i), "phone_hash": phone_hashed(i)}
            connection.execute(update(customers).where(customers.c.customer_id == i).values(values))
        connection.execute(insert(identities), accounts)
        connection.execute(insert(orders), [an_order(i, shop, at) for i, shop in rows])


def an_order(customer_id: int, shop: str, at: datetime, **columns: Any) -> dict[str, Any]:
    return {
        "order_id": f"{customer_id} {at.isoformat()}",
        "customer_id": customer_id,
        "shop": shop,
        "ordered_at": at,
        "delivered_at": at,
        "updated_at": NOW,
        "landed_at": NOW,
        "status": "paid",
        "currency": "EUR",
        "total_minor": 1,
        "total_base_minor": 1,
        "line_count": 1,
        "content_hash": "",
    } | columns


def add_people(
    engine: Engine,
    ids: Iterable[int],
    *,
    segment: str = "dormant",
    shops: Mapping[int, str] | None = None,
    built: datetime = NOW - timedelta(hours=1),
    **columns: Any,
) -> None:
    """Customers of atlas, unless `shops` names another, in one segment since `built`; they agreed long ago."""
    shops = shops or {}
    ids = list(ids)
    long_ago = NOW - 900 * DAY
    people = [
        {
            "customer_id": i,
            "email": f"C{i}@example.com",
            "email_key": f"c{i}@example.com",
            "email_hash": hashed(i),
            "seed": SEEDS[i],
            "first_seen_at": long_ago,
            "updated_at": long_ago,
            "locale": None,
        }
        | columns
        for i in ids
    ]
    agreed = [consent(i, at=long_ago, shop=shops.get(i, "atlas")) for i in ids]
    measured = [
        {
            "customer_id": i,
            "first_order_at": long_ago,
            "last_order_at": long_ago,
            "last_shop": shops.get(i, "atlas"),
            "rfm_segment": "hibernating",
        }
        | dict.fromkeys(("frequency", "order_days", "order_lines"), 1)
        | dict.fromkeys(("gross_minor", "refunded_minor", "monetary_minor"), 1)
        | dict.fromkeys(("orders_12m", "spend_12m_minor", "r", "f", "m"), 1)
        for i in ids
    ]
    with writing(engine) as connection:
        connection.execute(insert(customers), people)
        connection.execute(insert(consents), agreed)
        connection.execute(insert(customer_metrics), measured)
    add_members(engine, segment, ids, since=built)
    note_build(engine, built)


def add_members(
    engine: Engine, segment: str, ids: Iterable[int], *, since: datetime, until: datetime | None = None
) -> None:
    rows = [{"segment": segment, "customer_id": i, "valid_from": since, "valid_to": until} for i in ids]
    with writing(engine) as connection:
        connection.execute(insert(segment_members), rows)


def note_build(engine: Engine, as_of: datetime) -> None:
    values = {
        "as_of": as_of,
        "built_at": as_of,
        "definitions_hash": "",
        "definitions": {},
        "customers": 0,
        "counts": {},
    }
    with writing(engine) as connection:
        connection.execute(insert(segment_runs).values(values))


def consent(customer_id: int, *, at: datetime, status: str = "granted", **columns: Any) -> dict[str, Any]:
    return {
        "customer_id": customer_id,
        "shop": "atlas",
        "channel": "email",
        "topic": "promotions",
        "status": status,
        "basis": "express",
        "occurred_at": at,
        "recorded_at": at,
        "source": "test",
    } | columns


def add_consents(engine: Engine, facts: Sequence[dict[str, Any]]) -> None:
    with writing(engine) as connection:
        connection.execute(insert(consents), facts)


def suppress(engine: Engine, customer_id: int, *, at: datetime, **columns: Any) -> None:
    row = {
        "address_hash": hashed(customer_id),
        "channel": "email",
        "purpose": "marketing",
        "reason": "unsubscribe",
        "evidence": "test",
        "occurred_at": at,
        "recorded_at": at,
    }
    with writing(engine) as connection:
        connection.execute(insert(suppressions).values(row | columns))


def message(customer_id: int, send_at: datetime, **columns: Any) -> dict[str, Any]:
    """A row of the ledger; give each its own occurrence."""
    return {
        "what": "vip_thanks",
        "occurrence": send_at.isoformat(),
        "customer_id": customer_id,
        "channel": "email",
        "purpose": "marketing",
        "shop": "atlas",
        "template": "vip",
        "locale": "en",
        "address_hash": hashed(customer_id),
        "batch": 1,
        "state": "accepted",
        "send_at": send_at,
        "sent_at": send_at,
        "reserved_at": send_at,
    } | columns


def add_messages(engine: Engine, rows: Sequence[dict[str, Any]]) -> list[int]:
    with writing(engine) as connection:
        added = [connection.execute(insert(messages).values(row).returning(messages.c.message_id)) for row in rows]
        return [result.scalar_one() for result in added]


def change(engine: Engine, table: Any, where: Any, **values: Any) -> None:
    with writing(engine) as connection:
        connection.execute(update(table).where(where).values(values))


def verdict_rows(engine: Engine, plan_id: int) -> dict[int, Any]:
    with reading(engine) as connection:
        rows = connection.execute(select(verdicts).where(verdicts.c.plan_id == plan_id))
        return {row.customer_id: row for row in rows}


MARKETPLACES = ("amazon", "ebay", "aliexpress", "tiktok")


def selling_everywhere(changed: Callable[..., Config], campaign: Mapping[str, Any]) -> Config:
    """Shops atlas, harbour and one of each marketplace, named like it; a channel of every kind; one campaign,
    without caps and hold-outs."""
    project = changed()
    shops = project.shops_file.model_dump()["shops"]
    more = [shops[0] | {"platform": "file", "name": name, "marketplace": name} for name in MARKETPLACES]
    [winback] = [each for each in project.campaigns_file.model_dump()["campaigns"] if each["name"] == "winback"]
    return changed(
        shops_file={"shops": [*shops, *more]},
        channels_file={"channels": [*project.channels_file.model_dump()["channels"], *MORE_CHANNELS]},
        campaigns_file={"global_hold_out": 0, "campaigns": [winback | {"hold_out": 0} | campaign]},
        caps_file={"caps": []},
    )


def with_caps(changed: Callable[..., Config], *caps: Mapping[str, Any], **campaigns: Any) -> Config:
    """The project's config with these caps only, and without hold-outs."""
    everything = changed().campaigns_file.model_dump()
    kept_in = [campaign | {"hold_out": 0} | campaigns for campaign in everything["campaigns"]]
    file = {"global_hold_out": 0, "campaigns": kept_in}
    return changed(caps_file={"caps": list(caps)}, campaigns_file=file)
