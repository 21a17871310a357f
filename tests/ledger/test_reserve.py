"""From selected verdicts to reserved messages."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import plans, verdicts
from lifecycle.errors import ConfigError, PlanError
from lifecycle.ledger.drain import BatchResult
from lifecycle.ledger.reserve import reserve
from lifecycle.planning.approval import approve
from lifecycle.planning.recheck import rechecked
from lifecycle.settings import Config
from tests.conftest import FakeClock
from tests.ledger.people import NOW, SECRET, add_people, add_plan, ledger, numbered


def test_every_selected_person_gets_a_message_in_batches(engine: Engine, config: Config) -> None:
    people = add_people(engine, numbered(10))
    plan_id = add_plan(engine, config, people[:9], others={people[9]: "capped"})
    approve(engine, plan_id, name="Ada", now=NOW)
    reservation = reserve(engine, config, plan_id, now=NOW, secret=SECRET, run_id="run-1")
    assert (reservation.reserved, reservation.revised, reservation.batches) == (9, {}, (1, 2, 3))
    assert reservation.sentence() == f"plan {plan_id}: 9 messages reserved"
    assert ledger(engine, "customer_id", "batch", "state", "send_at", "run_id") == [
        (person, 1 + place // 4, "reserved", NOW, "run-1") for place, person in enumerate(people[:9])
    ]
    assert ledger(engine, "what", "occurrence", "channel", "purpose", "template", "locale")[0] == (
        "winback", "2026-11-22", "email", "marketing", "winback", "en",
    )  # fmt: skip
    with reading(engine) as connection:
        plan = connection.execute(select(plans)).one()
    assert (plan.status, plan.applied_at, plan.approved_by) == ("applied", NOW, "Ada")


def test_applying_again_reserves_nobody_and_names_the_open_batches(
    engine: Engine, config: Config, send: Callable[..., BatchResult]
) -> None:
    plan_id = add_plan(engine, config, add_people(engine, numbered(5)))
    reserve(engine, config, plan_id, now=NOW, secret=SECRET)
    again = reserve(engine, config, plan_id, now=NOW + timedelta(hours=1), secret=SECRET)
    assert (again.reserved, again.batches, again.already_applied) == (0, (1, 2), True)
    assert len(ledger(engine, "message_id")) == 5
    send()
    assert reserve(engine, config, plan_id, now=NOW, secret=SECRET).batches == ()


def test_people_who_no_longer_hold_get_nothing(engine: Engine, config: Config) -> None:
    """The cap of winback is full by an earlier occurrence."""
    people = add_people(engine, numbered(3))
    a_day_ago = NOW - timedelta(days=1)
    yesterday = add_plan(engine, config, people[:1], occurrence="2026-11-21", created_at=a_day_ago)
    today = add_plan(engine, config, people)
    reserve(engine, config, yesterday, now=a_day_ago, secret=SECRET)
    reservation = reserve(engine, config, today, now=NOW, secret=SECRET)
    assert (reservation.reserved, reservation.revised) == (2, {"capped": 1})
    assert "no longer selected: 1 capped" in reservation.sentence()


def test_changed_verdicts_are_not_applied(engine: Engine, config: Config) -> None:
    people = add_people(engine, numbered(2))
    plan_id = add_plan(engine, config, people[:1], others={people[1]: "suppressed"})
    with writing(engine) as connection:
        connection.execute(update(verdicts).values(verdict="selected"))
    with pytest.raises(PlanError, match=f"plan {plan_id} was changed after it was made"):
        reserve(engine, config, plan_id, now=NOW, secret=SECRET)
    assert ledger(engine, "message_id") == []


def test_second_plan_for_the_same_day_is_not_applied(engine: Engine, config: Config) -> None:
    people = add_people(engine, numbered(2))
    first, second = (add_plan(engine, config, people) for _ in range(2))
    reserve(engine, config, first, now=NOW, secret=SECRET)
    with pytest.raises(PlanError, match=f"winback of 2026-11-22 was sent as plan {first}"):
        reserve(engine, config, second, now=NOW, secret=SECRET)
    assert len(ledger(engine, "message_id")) == 2


def test_another_secret_is_noticed_before_anything_is_reserved(engine: Engine, config: Config) -> None:
    plan_id = add_plan(engine, config, add_people(engine, numbered(1)))
    with pytest.raises(ConfigError, match="TERN_SECRET is not the one"):
        reserve(engine, config, plan_id, now=NOW, secret=b"x" * 32)
    assert ledger(engine, "message_id") == []


def test_reservation_with_an_older_clock_still_sees_the_one_before_it(engine: Engine, config: Config) -> None:
    """A host whose clock is behind, or that waited for the lock, must not break a cap."""
    people = add_people(engine, numbered(2))
    first = add_plan(engine, config, people, occurrence="2026-11-22")
    second = add_plan(engine, config, people, occurrence="2026-11-23")
    reserve(engine, config, first, now=NOW, secret=SECRET)
    late = reserve(engine, config, second, now=NOW - timedelta(seconds=30), secret=SECRET)
    assert (late.reserved, late.revised) == (0, {"capped": 2})


def test_a_clock_that_jumped_back_reserves_nothing(engine: Engine, config: Config) -> None:
    people = add_people(engine, numbered(2))
    first, second = (
        add_plan(engine, config, people, occurrence=f"2026-11-2{day}", created_at=NOW - timedelta(days=9))
        for day in (2, 3)
    )
    reserve(engine, config, first, now=NOW, secret=SECRET)
    with pytest.raises(PlanError, match="has something of 2026-11-22 09:00: it has jumped back; set it"):
        reserve(engine, config, second, now=NOW - timedelta(minutes=6), secret=SECRET)
    assert len(ledger(engine, "message_id")) == 2


def test_a_plan_that_is_too_old_reserves_nothing(engine: Engine, config: Config) -> None:
    plan_id = add_plan(engine, config, add_people(engine, numbered(2)))
    late = NOW + timedelta(days=30, seconds=1)
    with pytest.raises(PlanError, match="max_age_hours 720 ago; make a new one: tern plan winback"):
        reserve(engine, config, plan_id, now=late, secret=SECRET)
    assert ledger(engine, "message_id") == []


def test_caps_count_from_when_a_held_message_left(
    engine: Engine, config: Config, send: Callable[..., BatchResult], clock: FakeClock
) -> None:
    """winback allows one message in 60 days; the first left 23 hours after it was reserved."""
    people = add_people(engine, numbered(1))
    january = NOW + timedelta(days=59)
    first = add_plan(engine, config, people, occurrence="2027-01-20")
    second, third = (
        add_plan(engine, config, people, occurrence=f"2027-01-2{day}", created_at=january) for day in (1, 2)
    )
    reserve(engine, config, first, now=NOW, secret=SECRET)
    left_at = clock.tick(hours=23)
    send()
    assert ledger(engine, "send_at", "reserved_at") == [(left_at, NOW)]
    almost = left_at + timedelta(days=60, seconds=-1)
    assert reserve(engine, config, second, now=almost, secret=SECRET).revised == {"capped": 1}
    assert reserve(engine, config, third, now=left_at + timedelta(days=60), secret=SECRET).reserved == 1


def test_message_that_left_while_the_reservation_waited_is_counted(
    engine: Engine, config: Config, send: Callable[..., BatchResult], clock: FakeClock
) -> None:
    """The reservation read its clock before the message left."""
    people = add_people(engine, numbered(2))
    first, second = (add_plan(engine, config, people, occurrence=f"2026-11-2{day}") for day in (2, 3))
    reserve(engine, config, first, now=NOW, secret=SECRET)
    clock.tick(minutes=4)
    send()
    late = reserve(engine, config, second, now=NOW + timedelta(minutes=2), secret=SECRET)
    assert (late.reserved, late.revised) == (0, {"capped": 2})


def test_nothing_begins_to_leave_while_caps_are_judged(
    engine: Engine,
    config: Config,
    send: Callable[..., BatchResult],
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    people = add_people(engine, numbered(1))
    first, second = (add_plan(engine, config, people, occurrence=f"2026-11-2{day}") for day in (2, 3))
    reserve(engine, config, first, now=NOW, secret=SECRET)
    clock.tick(hours=1)
    sending = threading.Thread(target=send)

    def recheck_while_sending(*arguments: Any, **options: Any) -> Any:
        sending.start()
        sending.join(0.5)
        assert sending.is_alive(), "a mail left while the caps were judged"
        return rechecked(*arguments, **options)

    monkeypatch.setattr("lifecycle.ledger.reserve.rechecked", recheck_while_sending)
    assert reserve(engine, config, second, now=clock(), secret=SECRET).revised == {"capped": 1}
    sending.join()
    assert ledger(engine, "state") == [("accepted",)]


def test_reservations_at_the_same_time_keep_the_caps(engine: Engine, config: Config, clock: FakeClock) -> None:
    """winback allows one message in 60 days; of eight plans at once one gets each slot."""
    people = add_people(engine, numbered(30))
    made = [add_plan(engine, config, people, occurrence=f"2026-11-{day}") for day in range(10, 18)]
    threads = [
        threading.Thread(target=reserve, args=(engine, config, plan_id), kwargs={"now": NOW, "secret": SECRET})
        for plan_id in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    customers = [customer for (customer,) in ledger(engine, "customer_id")]
    assert sorted(customers) == people
