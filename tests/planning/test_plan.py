"""Plans: frozen, hashed, once per campaign and date; as files; rechecked before anything is reserved."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from lifecycle.db.engine import lock_reservations, reading, writing
from lifecycle.db.schema import cap_rules, consents, customers, plans, verdicts
from lifecycle.errors import ConfigError, InputError, PlanError, UsageError
from lifecycle.planning.files import read_plan, write_plan
from lifecycle.planning.plan import load_plan, make_plan, plan_hash, planned_verdicts
from lifecycle.planning.recheck import rechecked
from lifecycle.settings import Config
from tests.planning.people import (
    DAY,
    NOW,
    add_messages,
    add_people,
    change,
    message,
    suppress,
    verdict_rows,
    with_caps,
)

TWO_IN_A_WEEK = {"name": "two", "channels": ["email"], "limit": 2, "days": 7}
HOUR = timedelta(hours=1)


@pytest.fixture
def rules(changed: Callable[..., Config]) -> Config:
    return with_caps(changed, TWO_IN_A_WEEK)


def count(engine: Engine, table: Any) -> int:
    with reading(engine) as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_a_plan_is_frozen_with_its_rules_and_hash(engine: Engine, rules: Config) -> None:
    add_people(engine, range(1, 6))
    add_messages(engine, [message(1, NOW - days * DAY) for days in (1, 2)])
    suppress(engine, 2, at=NOW - DAY)

    plan = make_plan(engine, rules, "winback", as_of=NOW, now=NOW, run_id="run-1")

    assert plan.sentence() == "winback of 2026-11-22: 3 of 5 people selected; not: 1 suppressed, 1 capped"
    assert plan.counts == {"suppressed": 1, "capped": 1, "selected": 3}
    assert load_plan(engine, plan.plan_id) == plan
    with reading(engine) as connection:
        row = connection.execute(select(plans)).one()
        assert plan_hash(plan, planned_verdicts(connection, plan.plan_id)) == row.hash == plan.hash
        stored = connection.execute(select(cap_rules.c.rule, cap_rules.c.definition)).one()
    assert (row.status, row.run_id, row.created_at, row.definition["name"]) == ("draft", "run-1", NOW, "winback")
    assert (stored.rule, stored.definition["limit"]) == ("two", 2)


def test_equal_input_makes_an_equal_plan(engine: Engine, rules: Config) -> None:
    add_people(engine, range(1, 6))
    first, second = (make_plan(engine, rules, "winback", as_of=NOW, now=NOW) for _ in range(2))
    assert first.plan_id != second.plan_id
    assert first.hash == second.hash
    suppress(engine, 1, at=NOW)
    assert make_plan(engine, rules, "winback", as_of=NOW, now=NOW).hash != first.hash


def test_the_date_is_that_of_the_campaigns_zone(engine: Engine, rules: Config) -> None:
    add_people(engine, [1])
    late = NOW.replace(hour=23, minute=30)
    assert make_plan(engine, rules, "winback", as_of=late, now=late).occurrence == "2026-11-23"
    named = make_plan(engine, rules, "winback", as_of=late, now=late, occurrence="2026-W47")
    assert named.occurrence == "2026-W47"


def test_once_applied_a_campaign_s_date_is_not_planned_again(engine: Engine, rules: Config) -> None:
    add_people(engine, [1])
    applied = make_plan(engine, rules, "winback", as_of=NOW, now=NOW)
    change(engine, plans, plans.c.plan_id == applied.plan_id, status="applied")
    again = make_plan(engine, rules, "winback", as_of=NOW + HOUR, now=NOW + HOUR)
    assert (again.plan_id, again.already_applied, again.hash) == (applied.plan_id, True, applied.hash)
    assert again.sentence() == f"winback of 2026-11-22 was applied before, as plan {applied.plan_id}"
    assert count(engine, plans) == count(engine, verdicts) == 1
    assert not make_plan(engine, rules, "winback", as_of=NOW + DAY, now=NOW + DAY).already_applied


def test_what_does_not_exist(engine: Engine, rules: Config) -> None:
    with pytest.raises(ConfigError, match='campaign "winbak" is not defined; did you mean "winback"'):
        make_plan(engine, rules, "winbak", as_of=NOW, now=NOW)
    with pytest.raises(UsageError, match="there is no plan 7; make one with: tern plan CAMPAIGN"):
        load_plan(engine, 7)


def test_a_plan_that_fails_leaves_nothing(engine: Engine, rules: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audience must equal the sum of the verdicts."""
    add_people(engine, [1, 2])
    monkeypatch.setattr("lifecycle.planning.plan._write_verdicts", lambda *_: None)
    with pytest.raises(PlanError, match="0 verdicts for an audience of 2; nothing is planned"):
        make_plan(engine, rules, "winback", as_of=NOW, now=NOW)
    assert count(engine, plans) == count(engine, cap_rules) == 0
    monkeypatch.undo()
    assert make_plan(engine, rules, "winback", as_of=NOW, now=NOW).audience == 2


def test_recheck_notes_why_selected_people_no_longer_hold(engine: Engine, rules: Config) -> None:
    add_people(engine, range(1, 8))
    suppress(engine, 7, at=NOW)
    plan = make_plan(engine, rules, "winback", as_of=NOW, now=NOW)
    later = NOW + HOUR
    suppress(engine, 1, at=later, reason="complaint")
    change(engine, consents, consents.c.customer_id == 2, status="withdrawn")
    change(engine, customers, customers.c.customer_id == 3, email=None, email_key=None, email_hash=None)
    add_messages(engine, [message(4, later - minutes * HOUR / 60) for minutes in (1, 2)])
    today = {"occurrence": "2026-11-22", "state": "reserved"}
    add_messages(engine, [message(5, later, **today), message(5, later, channel="chat", what="x")])
    add_messages(engine, [message(5, NOW, occurrence="yesterday")])

    with writing(engine) as connection:
        lock_reservations(connection)
        with rechecked(connection, rules, plan.plan_id, now=later) as revised:
            pass

    assert revised == {"suppressed": 1, "no_consent": 1, "no_address": 1, "capped": 1, "lost_to": 1}
    found = verdict_rows(engine, plan.plan_id)
    assert {
        i: (row.verdict, row.revised_verdict, row.revised_rule, row.revised_at) for i, row in found.items()
    } == {
        1: ("selected", "suppressed", "complaint", later),
        2: ("selected", "no_consent", "withdrawn", later),
        3: ("selected", "no_address", None, later),
        4: ("selected", "capped", "two", later),
        5: ("selected", "lost_to", "two", later),
        6: ("selected", None, None, None),
        7: ("suppressed", None, None, None),
    }
    with reading(engine) as connection:
        assert plan_hash(plan, planned_verdicts(connection, plan.plan_id)) == plan.hash, "what was planned stays"


def test_recheck_asks_the_plan_s_caps_and_today_s(engine: Engine, changed: Callable[..., Config]) -> None:
    add_people(engine, [1, 2])
    add_messages(engine, [message(1, NOW - DAY)])
    strict, loose = TWO_IN_A_WEEK | {"limit": 1}, TWO_IN_A_WEEK
    planned_loosely = make_plan(engine, with_caps(changed, loose), "winback", as_of=NOW, now=NOW)
    planned_strictly = make_plan(engine, with_caps(changed, strict), "vip_thanks", as_of=NOW, now=NOW)
    assert planned_strictly.audience == 0
    with writing(engine) as connection:
        lock_reservations(connection)
        with rechecked(connection, with_caps(changed, strict), planned_loosely.plan_id, now=NOW) as revised:
            assert revised == {"capped": 1}
    planned_strictly = make_plan(engine, with_caps(changed, strict), "winback", as_of=NOW, now=NOW)
    add_messages(engine, [message(2, NOW)])
    with writing(engine) as connection:
        lock_reservations(connection)
        with rechecked(connection, with_caps(changed, loose), planned_strictly.plan_id, now=NOW) as revised:
            assert revised == {"capped": 1}


@pytest.mark.parametrize("name", ["plan.jsonl", "plan.csv"])
def test_files_hold_every_verdict(engine: Engine, rules: Config, tmp_path: Path, name: str) -> None:
    add_people(engine, range(1, 6), shops={5: "gone, for good"})
    add_messages(engine, [message(1, NOW - days * DAY) for days in (1, 2)])
    suppress(engine, 2, at=NOW - DAY)
    plan = make_plan(engine, rules, "winback", as_of=NOW, now=NOW)
    path = tmp_path / name
    write_plan(engine, plan.plan_id, path)

    assert read_plan(engine, path) == plan.plan_id
    text = path.read_text()
    assert len(text.splitlines()) == 1 + plan.audience
    assert "example.com" not in text
    head = text.splitlines()[0] if name.endswith("jsonl") else Path(f"{path}.json").read_text()
    assert json.loads(head)["counts"] == plan.counts

    path.write_text(text.replace("unsubscribe", "subscribe"))
    with pytest.raises(PlanError, match="the file was changed after it was written"):
        read_plan(engine, path)
    path.write_text(text)
    change(engine, plans, plans.c.plan_id == plan.plan_id, hash="another")
    with pytest.raises(PlanError, match=f"plan {plan.plan_id} of this database is another one"):
        read_plan(engine, path)


@pytest.mark.parametrize("name", ["plan.jsonl", "plan.csv"])
@pytest.mark.parametrize("text", ["", "{}", "customer_id,verdict\n1,selected\n", "[1]\n", "\x00\xff"])
def test_files_that_are_no_plans(engine: Engine, tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    Path(f"{path}.json").write_text(text)
    with pytest.raises(InputError, match="not a plan as `tern plan --out` writes it"):
        read_plan(engine, path)


def test_files_that_cannot_be_written_or_found(engine: Engine, rules: Config, tmp_path: Path) -> None:
    add_people(engine, [1])
    plan = make_plan(engine, rules, "winback", as_of=NOW, now=NOW)
    with pytest.raises(UsageError, match=r"a plan's file name ends in \.jsonl or \.csv"):
        write_plan(engine, plan.plan_id, tmp_path / "plan.txt")
    with pytest.raises(UsageError, match="the folder does not exist"):
        write_plan(engine, plan.plan_id, tmp_path / "absent" / "plan.csv")
    with pytest.raises(InputError, match="the file is missing"):
        read_plan(engine, tmp_path / "plan.csv")
    assert not list(tmp_path.glob("*plan*"))
