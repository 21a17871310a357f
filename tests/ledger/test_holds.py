"""Paused and cancelled campaigns: nothing leaves, nothing is lost, and the verdict says who decided it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, select

from lifecycle.channels.base import Accepted, Outcome
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import verdicts
from lifecycle.errors import UsageError
from lifecycle.ledger.drain import BatchResult
from lifecycle.ledger.holds import cancel, lift, pause
from lifecycle.ledger.reserve import reserve
from lifecycle.ledger.taking import open_batches
from lifecycle.messages.records import Mail
from lifecycle.settings import Config
from tests.conftest import FakeClock
from tests.ledger.people import NOW, SECRET, ScriptedChannel, add_people, add_plan, ledger, numbered, states

Send = Callable[..., BatchResult]


@pytest.fixture(autouse=True)
def people(engine: Engine, config: Config) -> list[int]:
    found = add_people(engine, numbered(6))
    reserve(engine, config, add_plan(engine, config, found), now=NOW, secret=SECRET)
    return found


def hold(engine: Engine, campaign: str = "winback", **where: str) -> None:
    with writing(engine) as connection:
        pause(connection, campaign, reason="wrong prices", by="Ada", at=NOW, **where)


def test_pausing_works_in_the_middle_of_a_batch(engine: Engine, send: Send, clock: FakeClock) -> None:
    def answer(mail: Mail) -> Outcome:
        if mail.envelope_to == "person.2@example.com":
            hold(engine)
        return Accepted(mail.key)

    result = send(ScriptedChannel(answer), chunk=1)
    assert (result.accepted, result.held) == (2, 2 + 2)
    assert result.problem == "winback on email to other is paused by Ada: wrong prices"
    assert open_batches(engine, now=clock()) == []
    with writing(engine) as connection:
        assert lift(connection, "winback", by="Ada", at=clock()) == 1
    rest = ScriptedChannel()
    assert send(rest).accepted == 4
    assert rest.taken == numbered(6)[2:]


@pytest.mark.parametrize("where", [{"campaign": "vip_thanks"}, {"provider": "google"}, {"channel": "whatsapp"}])
def test_other_campaigns_and_lanes_go_on(engine: Engine, send: Send, where: dict[str, str]) -> None:
    hold(engine, **where)
    assert send().accepted == 6


def test_cancelling_takes_back_what_has_not_left(
    engine: Engine, send: Send, clock: FakeClock, people: list[int]
) -> None:
    def answer(mail: Mail) -> Outcome:
        if mail.envelope_to == "person.2@example.com":
            assert cancel(engine, "winback", reason="wrong prices", by="Ada", now=clock()) == 4
        return Accepted(mail.key)

    result = send(ScriptedChannel(answer), chunk=1)
    assert result.accepted == 2
    assert states(engine) == {"accepted": 2, "refused": 4}
    assert set(ledger(engine, "reason")[2:]) == {("cancelled by Ada: wrong prices",)}
    with reading(engine) as connection:
        revised = connection.execute(
            select(verdicts.c.customer_id, verdicts.c.revised_verdict, verdicts.c.revised_rule)
            .where(verdicts.c.revised_verdict.is_not(None))
            .order_by(verdicts.c.customer_id)
        ).all()
    assert [tuple(row) for row in revised] == [(each, "condition_gone", "cancelled") for each in people[2:]]
    assert cancel(engine, "winback", reason="wrong prices", by="Ada", now=clock()) == 0


def test_somebody_must_say_why(engine: Engine, clock: FakeClock) -> None:
    with pytest.raises(UsageError, match="somebody with a name"):
        cancel(engine, "winback", reason=" ", by="Ada", now=clock())
    assert states(engine) == {"reserved": 6}
