"""Marketing that waited too long gives its slot back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine, select, update

from lifecycle.channels.base import Accepted, Outcome
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import messages, verdicts
from lifecycle.ledger.audit import audit
from lifecycle.ledger.drain import BatchResult
from lifecycle.ledger.expire import expire
from lifecycle.ledger.reserve import reserve
from lifecycle.messages.records import Mail
from lifecycle.settings import Config
from tests.conftest import FakeClock
from tests.ledger.people import NOW, SECRET, ScriptedChannel, add_people, add_plan, ledger, numbered, states

Send = Callable[..., BatchResult]
REASON = "expired: reserved on 2026-11-22 and not sent within 24 hours"


def revised(engine: Engine) -> list[tuple[object, ...]]:
    columns = (verdicts.c.plan_id, verdicts.c.customer_id, verdicts.c.revised_verdict, verdicts.c.revised_rule)
    query = select(*columns).where(verdicts.c.revised_verdict.is_not(None))
    with reading(engine) as connection:
        return [tuple(row) for row in connection.execute(query.order_by(*columns[:2]))]


def test_what_waited_too_long_is_refused_once_and_frees_its_slot(
    engine: Engine, config: Config, tmp_path: Path
) -> None:
    people = add_people(engine, numbered(3))
    first, second = (add_plan(engine, config, people, occurrence=f"2026-11-2{day}") for day in (2, 3))
    reserve(engine, config, first, now=NOW, secret=SECRET)
    with writing(engine) as connection:
        held = {"claim": "elsewhere:boot:1:1:x", "lease_until": NOW + timedelta(hours=30)}
        connection.execute(update(messages).where(messages.c.message_id == 2).values(held))
        connection.execute(update(messages).where(messages.c.message_id == 3).values(purpose="transactional"))
    assert expire(engine, now=NOW + timedelta(hours=24), hours=24) == 0
    later = NOW + timedelta(hours=24, seconds=1)
    assert expire(engine, now=later, hours=24) == 1
    assert expire(engine, now=later, hours=24) == 0
    assert ledger(engine, "state", "reason", "settled_at") == [
        ("refused", REASON, later),
        ("reserved", None, None),
        ("reserved", None, None),
    ]
    assert revised(engine) == [(first, people[0], "condition_gone", "expired")]
    assert all(finding.passed for finding in audit(engine, data_dir=tmp_path, now=later))
    reservation = reserve(engine, config, second, now=later, secret=SECRET)
    assert (reservation.reserved, reservation.revised) == (2, {"capped": 1})


def test_drain_leaves_what_has_waited_too_long(
    engine: Engine, config: Config, send: Send, clock: FakeClock
) -> None:
    reserve(engine, config, add_plan(engine, config, add_people(engine, numbered(2))), now=NOW, secret=SECRET)
    clock.tick(hours=24, seconds=1)
    assert send() == BatchResult(1)
    assert states(engine) == {"reserved": 2}


def test_message_that_becomes_too_old_while_its_batch_is_sent(
    engine: Engine, config: Config, send: Send, clock: FakeClock
) -> None:
    people = add_people(engine, numbered(2))
    reserve(engine, config, add_plan(engine, config, people), now=NOW, secret=SECRET)
    clock.tick(hours=24)

    def answer(mail: Mail) -> Outcome:
        clock.tick(seconds=1)
        return Accepted(mail.key)

    assert send(ScriptedChannel(answer), chunk=1).sentence() == "1 accepted, 1 not sent after all"
    assert ledger(engine, "state", "reason")[1] == ("refused", REASON)
    assert revised(engine) == [(1, people[1], "condition_gone", "expired")]
