from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from lifecycle.addresses import address_hash
from lifecycle.customers.suppression import active_suppressions, lift_delivered, lift_many, suppress, undo
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import customers, suppressions
from lifecycle.errors import UsageError
from lifecycle.settings import Config
from tests.customers.rows import NOW, SECRET, ago, contents, customer, take

ANN, BOB = (address_hash(SECRET, "email", name) for name in ("ann@example.com", "bob@example.com"))


def add(engine: Engine, *hashes: str, reason: str = "unsubscribe", at: datetime = NOW, **options: Any) -> int:
    told = {"channel": "email", "evidence": "one click", "occurred_at": at, "recorded_at": NOW}
    with writing(engine) as connection:
        return suppress(connection, hashes, reason, **told | options)


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


SOFT = {"reason": "soft_bounce", "purpose": "all"}


def present(engine: Engine, at: datetime | None) -> int:
    with reading(engine) as connection:
        return len(connection.execute(active_suppressions(at=at)).all())


def test_one_that_expires_is_over_from_then_on(engine: Engine):
    ends = NOW + timedelta(days=30)
    assert add(engine, ANN, at=ago(days=1), expires_at=ends, **SOFT) == 1
    before = ends - timedelta(microseconds=1)
    assert len(active(engine, before)) == present(engine, before) == present(engine, None) == 1
    assert len(active(engine, ends)) == present(engine, ends) == 0
    assert len(active(engine, ago(hours=1))) == 1, "the past does not change"


def test_a_complaint_never_expires(engine: Engine):
    add(engine, ANN, reason="complaint", expires_at=NOW)
    assert len(active(engine, NOW)) == present(engine, NOW) == 1


def test_a_longer_rest_is_kept_beside_a_shorter_one(engine: Engine):
    day = timedelta(days=1)
    assert add(engine, ANN, at=ago(days=9), expires_at=NOW + 9 * day, **SOFT) == 1
    assert add(engine, ANN, at=ago(days=8), expires_at=NOW + 9 * day, **SOFT) == 0
    assert add(engine, ANN, at=ago(days=8), expires_at=NOW + 10 * day, **SOFT) == 1
    assert add(engine, ANN, at=ago(days=7), **SOFT) == 1
    assert add(engine, ANN, at=ago(days=6), expires_at=NOW + 99 * day, **SOFT) == 0


def test_a_delivery_ends_soft_bounces_from_before_it(engine: Engine):
    for at in (ago(days=3), ago(days=1)):
        add(engine, ANN, BOB, at=at, expires_at=at + timedelta(days=30), **SOFT)
        add(engine, ANN, at=at, reason="hard_bounce")
    add(engine, BOB, at=NOW, expires_at=NOW + timedelta(days=40), **SOFT)
    with writing(engine) as connection:
        delivered = {ANN: ago(days=1), BOB: ago(days=2), "another": NOW}
        assert lift_delivered(connection, delivered, channel="email", at=NOW) == 3
        assert lift_delivered(connection, delivered, channel="email", at=NOW) == 0
        assert lift_delivered(connection, {BOB: NOW}, channel="whatsapp", at=NOW) == 0
    assert active(engine, NOW) == sorted(
        [(ANN, None, "hard_bounce"), (BOB, None, "soft_bounce"), (BOB, None, "soft_bounce")], key=str
    )


WRONG = {"channel": "email", "lifted_by": "Ada", "note": "their outage", "at": NOW}


def outage(engine: Engine, **options: Any) -> dict[str, int]:
    span = {"since": ago(hours=3), "until": ago(hours=1), "reason": "hard_bounce"}
    with writing(engine) as connection:
        return undo(connection, **span | WRONG | options)


def test_what_an_outage_suppressed_is_undone_and_nothing_else(engine: Engine):
    hard = {"reason": "hard_bounce", "purpose": "all", "evidence": "message 1: 550 5.1.1"}
    add(engine, "before", at=ago(hours=3, microseconds=1), **hard)
    add(engine, "at first", "shared", at=ago(hours=3), **hard)
    add(engine, "shared", at=ago(hours=2), shop="atlas", **hard)
    add(engine, "other code", at=ago(hours=2), **hard | {"evidence": "message 2: 554 5.7.1"})
    add(engine, "other reason", at=ago(hours=2), **hard | {"reason": "complaint"})
    add(engine, "other channel", at=ago(hours=2), **hard | {"channel": "whatsapp"})
    add(engine, "after", at=ago(hours=1), **hard)
    assert outage(engine, evidence_like="550 5.1.1", shop="atlas", dry_run=True) == counted(1, 1)
    assert outage(engine, evidence_like="550 5.1.1", dry_run=True) == counted(3, 2)
    assert len(active(engine)) == 8
    assert outage(engine, evidence_like="550 5.1.1") == counted(3, 2)
    assert outage(engine, evidence_like="550 5.1.1") == counted(0, 0)
    held = {address_hash for address_hash, _, _ in active(engine)}
    assert held == {"before", "other code", "other reason", "other channel", "after"}
    noted = set(contents(engine, suppressions, "lifted_at", "lifted_by", "lifted_note"))
    assert noted == {(None, None, None), (NOW, "Ada", "their outage")}
    assert len(active(engine, ago(minutes=1))) == 8, "it held until it was lifted"
    assert outage(engine) == counted(1, 1), "without evidence all of the span"


def counted(suppressions: int, addresses: int) -> dict[str, int]:
    return {"suppressions": suppressions, "addresses": addresses}


def test_a_piece_of_evidence_is_taken_as_it_is_written(engine: Engine):
    add(engine, ANN, at=ago(hours=2), reason="manual", evidence="100% sure_")
    assert [
        outage(engine, reason="manual", evidence_like=piece, dry_run=True)["suppressions"]
        for piece in ("0% S", "sure_", "s%e", "sur__", "")
    ] == [1, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reason": "complaint", "evidence_like": "x"}, "never lifted"),
        ({"reason": "unsubscribe"}, "people's own word"),
        ({"reason": "unsubscribe", "evidence_like": "  "}, "people's own word"),
        ({"lifted_by": ""}, "with a name"),
        ({"note": " "}, "says why"),
        ({"until": ago(hours=3)}, "nothing lies between"),
    ],
)
def test_undoing_says_what_it_needs(engine: Engine, changes: dict[str, Any], said: str):
    with pytest.raises(UsageError, match=said):
        outage(engine, **changes)


def test_unsubscribes_of_a_scanner_are_undone_by_its_evidence(engine: Engine):
    add(engine, ANN, at=ago(hours=2), evidence="message 7, scanner Barracuda")
    add(engine, BOB, at=ago(hours=2), evidence="message 8, one click")
    assert outage(engine, reason="unsubscribe", evidence_like="scanner") == counted(1, 1)
    assert active(engine) == [(BOB, None, "unsubscribe")]


def test_what_is_reported_again_after_it_was_lifted_holds_again(engine: Engine):
    again = {"reason": "hard_bounce", "at": ago(hours=2)}
    add(engine, ANN, **again)
    with writing(engine) as connection:
        assert lift_many(connection, "hard_bounce", evidence="one click", **WRONG) == 1
    assert add(engine, ANN, **again) == 1
    assert active(engine) == [(ANN, None, "hard_bounce")]
