"""Between the reservation and the sending: they may order, and night may come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, update

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import customers, orders, verdicts
from lifecycle.ledger.audit import audit
from lifecycle.ledger.drain import BatchResult, open_batches
from lifecycle.ledger.reserve import reserve
from lifecycle.settings import Config
from lifecycle.settings.models import CapsFile
from tests.conftest import FakeClock
from tests.ledger.people import NOW, SECRET, ScriptedChannel, add_people, add_plan, ledger, numbered
from tests.planning.people import note_build

Send = Callable[..., BatchResult]


def order(customer_id: int, **columns: Any) -> dict[str, Any]:
    at = NOW + timedelta(minutes=5)
    return {
        "shop": "atlas", "order_id": str(customer_id), "customer_id": customer_id, "ordered_at": at,
        "updated_at": at, "status": "paid", "currency": "EUR", "total_minor": 900, "total_base_minor": 900,
        "line_count": 1, "content_hash": "", "landed_at": at,
    } | columns  # fmt: skip


@pytest.fixture
def reserved(engine: Engine, config: Config) -> list[int]:
    """Four people of a campaign that is for those who have not ordered; segments were built an hour ago."""
    people = add_people(engine, numbered(4))
    note_build(engine, NOW - timedelta(hours=1))
    reserve(engine, config, add_plan(engine, config, people), now=NOW, secret=SECRET)
    return people


def test_who_has_ordered_meanwhile_gets_nothing(
    engine: Engine, reserved: list[int], send: Send, clock: FakeClock, tmp_path: Path
) -> None:
    first, second, third, fourth = reserved
    with writing(engine) as connection:
        connection.execute(insert(orders), [order(first), order(second, status="open")])
        connection.execute(insert(orders), [order(third, status="cancelled")])
        connection.execute(insert(orders), [order(fourth, ordered_at=NOW - timedelta(hours=2))])
    clock.tick(minutes=10)
    channel = ScriptedChannel()

    result = send(channel)

    assert (result.accepted, result.revised, result.held) == (2, 2, 0)
    assert len(channel.taken) == 2
    assert ledger(engine, "customer_id", "state", "claim") == [
        (first, "refused", None), (second, "refused", None), (third, "accepted", None), (fourth, "accepted", None),
    ]  # fmt: skip
    with reading(engine) as connection:
        columns = (verdicts.c.customer_id, verdicts.c.revised_verdict, verdicts.c.revised_rule)
        rows = connection.execute(select(*columns).order_by(verdicts.c.customer_id)).tuples().all()
    gone = ("condition_gone", "ordered")
    assert rows == [(first, *gone), (second, *gone), (third, None, None), (fourth, None, None)]
    assert all(finding.passed for finding in audit(engine, data_dir=tmp_path, now=clock()))


def test_when_night_has_come_meanwhile_messages_wait_until_it_is_over(
    engine: Engine, config: Config, reserved: list[int], send: Send, clock: FakeClock, tmp_path: Path
) -> None:
    quiet = CapsFile.model_validate(config.caps_file.model_dump() | {"quiet_hours": "21:00-08:00"})
    config = replace(config, caps_file=quiet)
    with writing(engine) as connection:  # it is 09:00 UTC
        in_india = update(customers).where(customers.c.customer_id.in_(reserved[:2]))
        connection.execute(in_india.values(timezone="Asia/Kolkata"))
        connection.execute(update(customers).where(customers.c.timezone.is_(None)).values(timezone="Europe/Paris"))
    clock.tick(hours=7)  # 21:30 in India, 17:00 in Paris

    result = send(ScriptedChannel(), config=config)

    assert (result.accepted, result.held, result.revised) == (2, 2, 0)
    morning = NOW.replace(day=23, hour=2, minute=30)
    assert ledger(engine, "state", "not_before", "claim")[:2] == [("reserved", morning, None)] * 2
    clock.now = morning - timedelta(seconds=1)
    assert open_batches(engine, now=clock()) == []
    clock.now = morning
    assert send(ScriptedChannel(), config=config).accepted == 2
    assert all(finding.passed for finding in audit(engine, data_dir=tmp_path, now=clock()))


def test_a_campaign_for_buyers_too_goes_on(engine: Engine, config: Config, send: Send, clock: FakeClock) -> None:
    people = add_people(engine, numbered(2))
    note_build(engine, NOW - timedelta(hours=1))
    plan_id = add_plan(engine, config, people, campaign="vip_thanks")
    reserve(engine, config, plan_id, now=NOW, secret=SECRET)
    with writing(engine) as connection:
        connection.execute(insert(orders), [order(customer) for customer in people])
    clock.tick(minutes=10)
    assert send().accepted == 2
