"""Everything that can change who is in which segment, as hypothesis draws it and a database takes it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import (
    customer_metrics,
    customer_windows,
    customers,
    event_classes,
    identities,
    message_events,
    messages,
    order_lines,
    orders,
    refunds,
    segment_members,
    tags,
)
from tests.segments.history import NOW, Order, add_orders

PEOPLE = range(1, 7)
Happening = Callable[[Engine], None]

RICH: dict[str, Any] = {
    "windows": [30],
    "segments": {
        "new": {"rule": "new", "days": 30},
        "one_time": {"rule": "one_time"},
        "active": {"rule": "active", "days": 60},
        "repeat": {"rule": "repeat", "orders": 2},
        "vip": {"rule": "vip", "top_share": 0.3},
        "big_spender": {"rule": "vip", "spend_12m": 90},
        "high_value": {"rule": "high_value", "spend_12m": 50},
        "dormant": {"rule": "dormant", "days": 90, "at_most_days": 300},
        "lapsed": {"rule": "lapsed", "days": 120, "rhythm": 1.5},
        "churned": {"rule": "churned", "rhythm": 3},
        "slipping": {"rule": "at_risk", "orders": 2, "rhythm": 1, "at_most_days": 365},
        "won_back": {"rule": "won_back", "gap_days": 60, "days": 60},
        "potential": {"rule": "potential", "days": 120, "orders_at_most": 2, "average_order": 20},
        "french": {"where": "country in [FR, DE] and not in dormant"},
        "tagged": {"where": 'tag "wholesale" or (in vip and r >= 2)'},
        "collectors": {"where": 'bought "SKU-1" within 60 days and not bought category "toys"'},
        "engaged": {"where": "opened within 30 days or clicked within 60 days or days_since_message < 10"},
        "givers_back": {"where": "refund_share > 20% or orders_30d >= 2 or spend_30d > 25"},
        "regular": {"where": "days_between_orders between 10 and 90 and first_order_at < 2026-06-01"},
        "unknown_country": {"where": "country is unknown and average_order >= 24.99 and attributes.club != gold"},
    },
}
for _rule in RICH["segments"].values():
    _rule.setdefault("rule", "expression")


def instants() -> st.SearchStrategy[datetime]:
    edges = [NOW - timedelta(days=days) for days in (0, 1, 10, 30, 60, 90, 120, 300, 365, 380)]
    nudges = [timedelta(0), timedelta(microseconds=1), timedelta(microseconds=-1), timedelta(hours=30)]
    return st.builds(lambda edge, nudge: edge + nudge, st.sampled_from(edges), st.sampled_from(nudges))


def people() -> st.SearchStrategy[int]:
    return st.sampled_from(PEOPLE)


@st.composite
def happenings(draw: st.DrawFn) -> Happening:
    kind = draw(st.sampled_from([_order, _order, _order, _restate, _refund, _merge, _tag, _profile, _message]))
    return draw(kind())


def _order() -> st.SearchStrategy[Happening]:
    return st.builds(
        lambda who, at, total, status, shop, sku: (
            lambda engine: _add_order(engine, who, at, total, status, shop, sku)
        ),
        st.sampled_from([None, *PEOPLE]),
        instants(),
        st.sampled_from([0, 1, 2_500, 2_500, 9_900, 50_000]),
        st.sampled_from(["paid"] * 4 + ["returned", "open", "cancelled"]),
        st.sampled_from(["atlas", "harbour"]),
        st.sampled_from(["SKU-1", "SKU-2"]),
    )


def _add_order(
    engine: Engine, who: int | None, at: datetime, total: int, status: str, shop: str, sku: str
) -> None:
    with reading(engine) as connection:
        key = (connection.execute(select(func.max(orders.c.order_key))).scalar() or 0) + 1
    add_orders(engine, [Order(who, at, -total if status == "returned" else total, status, shop)], first_key=key)
    line = {"order_key": key, "line_no": 1, "sku": sku, "quantity": 1, "unit_price_minor": total}
    with writing(engine) as connection:
        connection.execute(insert(order_lines).values(**line, category="toys" if sku == "SKU-2" else None))


def _restate() -> st.SearchStrategy[Happening]:
    """A shop corrects an order: cancelled, paid after all, paid back in full, moved to another day."""
    return st.builds(
        lambda key, status, at: (
            lambda engine: _run(
                engine, update(orders).where(orders.c.order_key == key).values(status=status, ordered_at=at)
            )
        ),
        st.integers(1, 12),
        st.sampled_from(["paid", "cancelled", "open"]),
        instants(),
    )


def _refund() -> st.SearchStrategy[Happening]:
    return st.builds(
        lambda key, at, whole: lambda engine: _give_back(engine, key, at, whole),
        st.integers(1, 12),
        instants(),
        st.booleans(),
    )


def _give_back(engine: Engine, key: int, at: datetime, whole: bool) -> None:
    with writing(engine) as connection:
        found = connection.execute(select(orders).where(orders.c.order_key == key)).one_or_none()
        if found is None or found.status != "paid" or found.total_minor <= 0 or found.refunded_minor:
            return
        amount = found.total_minor if whole else (found.total_minor + 1) // 2
        connection.execute(
            update(orders)
            .where(orders.c.order_key == key)
            .values(refunded_minor=amount, refunded_base_minor=amount, status="refunded" if whole else "paid")
        )
        connection.execute(delete(refunds).where(refunds.c.order_key == key))  # of before a correction
        row = {"order_key": key, "refund_id": "1", "refunded_at": at}
        connection.execute(insert(refunds).values(**row, amount_minor=amount, amount_base_minor=amount))


def _merge() -> st.SearchStrategy[Happening]:
    return st.builds(
        lambda one, other: (
            lambda engine: _run(
                engine, update(orders).where(orders.c.customer_id == one).values(customer_id=other)
            )
        ),
        people(),
        people(),
    )


def _tag() -> st.SearchStrategy[Happening]:
    return st.builds(
        lambda who, at, days: lambda engine: _put_tag(engine, who, at, days),
        people(),
        instants(),
        st.sampled_from([None, 5, 60]),
    )


def _put_tag(engine: Engine, who: int, at: datetime, days: int | None) -> None:
    row = {"customer_id": who, "tag": "wholesale", "added_at": at}
    with writing(engine) as connection:
        if connection.execute(select(tags).filter_by(**row)).first() is None:
            removed = None if days is None else at + timedelta(days=days)
            connection.execute(insert(tags).values(**row, removed_at=removed))


def _profile() -> st.SearchStrategy[Happening]:
    return st.builds(
        lambda who, country, club: (
            lambda engine: _run(
                engine,
                update(customers).where(customers.c.customer_id == who).values(country=country, attributes=club),
            )
        ),
        people(),
        st.sampled_from([None, "FR", "DE", "US"]),
        st.sampled_from([None, {"club": "gold"}, {"club": "silver"}]),
    )


def _message() -> st.SearchStrategy[Happening]:
    return st.builds(
        lambda who, at, state, kind, judged: lambda engine: _send(engine, who, at, state, kind, judged),
        people(),
        instants(),
        st.sampled_from(["accepted", "refused", "unknown"]),
        st.sampled_from(["opened", "clicked"]),
        st.sampled_from(["person", "scanner", None]),
    )


def _send(engine: Engine, who: int, at: datetime, state: str, kind: str, judged: str | None) -> None:
    """Reserved, then settled, as the ledger does it; then opened or clicked, by whom the rules say."""
    with writing(engine) as connection:
        number = (connection.execute(select(func.max(messages.c.message_id))).scalar() or 0) + 1
        words = ("what", "occurrence", "channel", "purpose", "shop", "template", "locale", "address_hash")
        row = dict.fromkeys(words, str(number)) | {"customer_id": who, "batch": 1, "message_id": number}
        row |= {"state": "reserved", "send_at": at, "reserved_at": at}
        connection.execute(insert(messages).values(row))
    settled = update(messages).where(messages.c.message_id == number).values(state=state, sent_at=at)
    event = {"event_id": number, "message_id": number, "kind": kind, "occurred_at": at, "source": "web"}
    with writing(engine) as connection:
        connection.execute(settled)
        connection.execute(insert(message_events).values(event))
        if judged:
            verdict = {"event_id": number, "rules_version": "1", "class": judged, "evidence": ""}
            connection.execute(insert(event_classes).values(verdict))


def _run(engine: Engine, statement: Any) -> None:
    with writing(engine) as connection:
        connection.execute(statement)


def stored(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All rows that a build writes."""
    tables = (customer_metrics, customer_windows, segment_members)
    return {table.name: sorted(map(tuple, connection.execute(select(table))), key=repr) for table in tables}


__all__ = ["PEOPLE", "RICH", "Happening", "happenings", "identities", "instants", "stored"]
