"""A small ledger to track: customers, one plan, its messages and links."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Engine

from lifecycle import addresses
from lifecycle.db.engine import writing
from lifecycle.db.schema import customers, links, messages, plans

SENT_AT = datetime(2026, 11, 22, 8, tzinfo=UTC)
URLS = (
    "https://atlas.example.com/sale?a=1&b=2",
    "https://atlas.example.com/new",
    "https://atlas.example.com/help",
)


def send_mails(engine: Engine, secret: bytes, count: int = 3, *, locales: Sequence[str] = ("en",)) -> list[int]:
    """`count` accepted messages, to one customer each; links 1 to 3. Returns the message ids."""
    people = range(1, count + 1)
    with writing(engine) as connection:
        connection.execute(
            customers.insert(),
            [
                {"customer_id": n, "email": f"p{n}@example.com", "email_key": f"p{n}@example.com", "seed": n,
                 "first_seen_at": SENT_AT, "updated_at": SENT_AT}
                for n in people
            ],
        )  # fmt: skip
        connection.execute(
            plans.insert().values(
                plan_id=1, campaign="winback", occurrence="2026-11-22", as_of=SENT_AT, created_at=SENT_AT,
                hash="h", audience=count, status="applied", definition={"topic": "promotions"},
            )
        )  # fmt: skip
        connection.execute(
            links.insert(), [{"plan_id": 1, "link_id": n, "url": url} for n, url in enumerate(URLS, 1)]
        )
        connection.execute(
            messages.insert(),
            [
                {"message_id": 100 + n, "plan_id": 1, "what": "winback", "occurrence": "2026-11-22",
                 "customer_id": n, "channel": "email", "purpose": "marketing", "shop": "atlas",
                 "segment": "dormant", "template": "winback", "locale": locales[n % len(locales)],
                 "address_hash": addresses.address_hash(secret, "email", f"p{n}@example.com"),
                 "batch": 0, "state": "accepted", "send_at": SENT_AT, "reserved_at": SENT_AT,
                 "sent_at": SENT_AT, "settled_at": SENT_AT}
                for n in people
            ],
        )  # fmt: skip
    return [100 + n for n in people]
