"""Whatever the peer answers and whatever breaks: nobody twice, nothing lost, the audit passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from lifecycle.channels.base import Accepted, Outcome, Refused, Unknown
from lifecycle.errors import ChannelDown
from lifecycle.ledger.audit import audit
from lifecycle.ledger.drain import BatchResult
from lifecycle.ledger.expire import expire
from lifecycle.ledger.recover import recover
from lifecycle.ledger.reserve import reserve
from lifecycle.messages.records import Mail
from lifecycle.settings import Config
from tests.conftest import FakeClock
from tests.ledger.people import (
    SECRET,
    ScriptedChannel,
    add_people,
    add_plan,
    ledger,
    numbered,
    restore,
    states,
)

PEOPLE = 6
ANSWERS: tuple[Outcome | Exception | None, ...] = (
    None,
    Refused("451 4.3.0", "later", permanent=False),
    Refused("550 5.1.1", "unknown user", permanent=True, scope="address"),
    Refused("554 5.6.0", "no", permanent=True),
    Refused("550 5.7.1", "blocked", permanent=True, scope="lane"),
    Unknown("lost"),
    ChannelDown("nothing listens there"),
    RuntimeError("a bug"),
)
"""None: accepted."""


@given(answers=st.lists(st.sampled_from(ANSWERS), max_size=16))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_answers(
    engine: Engine,
    config: Config,
    clock: FakeClock,
    send: Callable[..., BatchResult],
    tmp_path: Path,
    answers: list[Outcome | Exception | None],
) -> None:
    restore(engine, {})
    plan_id = add_plan(engine, config, add_people(engine, numbered(PEOPLE)))
    reserve(engine, config, plan_id, now=clock(), secret=SECRET)
    script = iter(answers)
    lost: list[Outcome | Exception] = []

    def answer(mail: Mail) -> Outcome:
        outcome = next(script, None)
        if isinstance(outcome, Unknown | RuntimeError):
            lost.append(outcome)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome or Accepted(mail.key)

    channel = ScriptedChannel(answer)
    for _ in range(len(answers) + 3):
        try:
            send(channel)
        except RuntimeError:
            recover(engine, config, now=clock(), wire_dir=tmp_path / "wire")
        clock.tick(hours=1)
    clock.tick(hours=24)
    expire(engine, now=clock(), hours=24)  # what a lane that rests has kept for too long

    found = Counter(states(engine))
    assert found.total() == PEOPLE and found["reserved"] == found["sending"] == 0
    assert max(Counter(channel.taken).values(), default=0) <= 1
    assert len(channel.taken) == found["accepted"]
    assert {claim for state, claim in ledger(engine, "state", "claim") if state != "unknown"} <= {None}
    assert found["unknown"] == len(lost)
    later = clock() + timedelta(days=1)
    assert all(finding.passed for finding in audit(engine, data_dir=tmp_path, now=later))
