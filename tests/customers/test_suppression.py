from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, select, update

from lifecycle.addresses import address_hash
from lifecycle.customers.suppression import active_suppressions, suppress
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import customers, suppressions
from lifecycle.settings import Config
from tests.customers.rows import NOW, SECRET, ago, customer, take

ANN, BOB = (address_hash(SECRET, "email", name) for name in ("ann@example.com", "bob@example.com"))


def add(engine: Engine, *hashes: str, reason: str = "unsubscribe", at: datetime = NOW, **options: Any) -> int:
    with writing(engine) as connection:
        return suppress(
            connection,
            hashes,
            reason,
            channel="email",
            evidence="one click",
            occurred_at=at,
            recorded_at=NOW,
            **options,
        )


def active(engine: Engine, as_of: datetime | None = None) -> list[tuple[str, str | None, str]]:
    with reading(engine) as connection:
        rows = connection.execute(active_suppressions(as_of)).all()
    return sorted(((row.address_hash, row.shop, row.reason) for row in rows), key=str)


def test_suppressing_twice_is_once(engine: Engine):
    assert add(engine, ANN, BOB, ANN, at=ago(days=1)) == 2
    assert add(engine, ANN, BOB) == 0
    assert active(engine) == sorted([(ANN, None, "unsubscribe"), (BOB, None, "unsubscribe")], key=str)


def test_shops_and_reasons_are_kept_apart(engine: Engine):
    assert add(engine, ANN) == add(engine, ANN, shop="atlas") == add(engine, ANN, shop="harbour") == 1
    assert add(engine, ANN, reason="hard_bounce", purpose="all") == 1
    assert len(active(engine)) == 4


def test_a_lifted_suppression_holds_no_longer_but_a_complaint_always_does(engine: Engine):
    add(engine, ANN, at=ago(days=5))
    add(engine, BOB, reason="complaint", at=ago(days=5))
    with writing(engine) as connection:
        connection.execute(update(suppressions).values(lifted_at=ago(days=2)))
    assert active(engine) == active(engine, NOW) == [(BOB, None, "complaint")]
    assert len(active(engine, ago(days=3))) == 2
    assert active(engine, ago(days=6)) == []
    assert add(engine, ANN) == 1
    assert add(engine, BOB, reason="complaint") == 0


def test_a_suppression_dated_ahead_holds_from_its_record(engine: Engine):
    add(engine, ANN, at=NOW + timedelta(hours=1))
    assert active(engine, NOW) == [(ANN, None, "unsubscribe")]
    assert active(engine, ago(minutes=1)) == []


def test_people_are_found_by_the_hash_of_their_address(engine: Engine, config: Config):
    take(engine, config, [customer("C1", "Ann@example.com"), customer("C2", "bob@example.com")])
    add(engine, ANN)
    held = active_suppressions().subquery()
    query = select(customers.c.email_key).join(held, held.c.address_hash == customers.c.email_hash)
    with reading(engine) as connection:
        assert connection.scalars(query).all() == ["ann@example.com"]
