"""What may be sent: a plan as it was approved, made today, by a host whose clock has not jumped back."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from lifecycle.db.engine import reading
from lifecycle.db.schema import approvals, messages, plans, verdicts
from lifecycle.errors import PlanError, UsageError
from lifecycle.ledger.reserve import reserve
from lifecycle.planning.approval import approve
from lifecycle.planning.files import read_plan, write_plan
from lifecycle.planning.plan import load_plan, make_plan
from lifecycle.planning.records import Plan
from lifecycle.settings import Config
from tests.planning.people import DAY, NOW, SECRET, add_messages, add_people, change, message, with_caps

MINUTE = timedelta(minutes=1)
CONTENT = "c" * 64


@pytest.fixture
def config(changed: Callable[..., Config]) -> Config:
    """More than two messages need an approval."""
    everything = with_caps(changed).campaigns_file.model_dump() | {"guards": {"approve_over": 2}}
    return changed(caps_file={"caps": []}, campaigns_file=everything)


@pytest.fixture
def plan(engine: Engine, config: Config) -> Plan:
    add_people(engine, range(1, 4))
    return make_plan(engine, config, "winback", as_of=NOW, now=NOW, content_hash=CONTENT)


def apply(engine: Engine, config: Config, plan: Plan, now: datetime = NOW, content: str | None = CONTENT) -> int:
    return reserve(engine, config, plan.plan_id, now=now, secret=SECRET, content_hash=content).reserved


def sent(engine: Engine) -> int:
    with reading(engine) as connection:
        return connection.execute(select(func.count()).select_from(messages)).scalar_one()


def test_nothing_is_sent_without_the_approval_that_it_needs(engine: Engine, config: Config, plan: Plan) -> None:
    with pytest.raises(PlanError) as refused:
        apply(engine, config, plan)
    assert str(refused.value) == (
        f"plan {plan.plan_id} needs an approval: 3 messages are more than guards.approve_over 2. Look at it, "
        f"then: tern apply {plan.plan_id} --approve NAME"
    )
    assert sent(engine) == 0
    approve(engine, plan.plan_id, name="Ada", now=NOW, hash=plan.hash)
    approved = load_plan(engine, plan.plan_id)
    assert (approved.approved_by, approved.needs_approval) == ("Ada", ())
    assert apply(engine, config, plan) == sent(engine) == 3
    with reading(engine) as connection:
        row = connection.execute(select(plans)).one()
        given = connection.execute(select(approvals)).one()
    assert (row.status, row.approved_by) == ("applied", "Ada")
    assert (given.plan_id, given.hash, given.approved_by, given.approved_at) == (
        plan.plan_id, plan.hash, "Ada", NOW,
    )  # fmt: skip


def test_an_approval_of_another_hash(engine: Engine, config: Config, plan: Plan) -> None:
    with pytest.raises(PlanError, match=f"has the hash {plan.hash[:12]}…, the approval is for ffffffffffff…;"):
        approve(engine, plan.plan_id, name="Ada", now=NOW, hash="f" * 64)
    with pytest.raises(PlanError, match="needs an approval"):
        apply(engine, config, plan)
    assert sent(engine) == 0


def test_an_approval_is_of_one_hash_and_of_nothing_else(engine: Engine, config: Config, plan: Plan) -> None:
    """Not even of the same plan, had somebody changed it and its hash afterwards."""
    approve(engine, plan.plan_id, name="Ada", now=NOW)
    another = make_plan(engine, config, "winback", as_of=NOW, now=NOW, content_hash=CONTENT)
    assert another.hash == plan.hash and another.approved_by is None
    change(engine, plans, plans.c.plan_id == plan.plan_id, hash="f" * 64)
    assert load_plan(engine, plan.plan_id).needs_approval


def test_the_newest_approval_counts(engine: Engine, plan: Plan) -> None:
    for name in ("Ada", " Grace "):
        approve(engine, plan.plan_id, name=name, now=NOW)
    assert load_plan(engine, plan.plan_id).approved_by == "Grace"


def test_an_approval_by_nobody_or_of_nothing(engine: Engine, plan: Plan) -> None:
    with pytest.raises(UsageError, match="needs the name of who gives it: --approve NAME"):
        approve(engine, plan.plan_id, name=" ", now=NOW)
    with pytest.raises(UsageError, match="there is no plan 99"):
        approve(engine, 99, name="Ada", now=NOW)


def tampered(engine: Engine, plan: Plan) -> tuple[datetime, str | None]:
    change(engine, verdicts, verdicts.c.customer_id == 1, shop="harbour")
    return NOW, CONTENT


def too_old(engine: Engine, plan: Plan) -> tuple[datetime, str | None]:
    return NOW + DAY + MINUTE, CONTENT


def before_it_was_made(engine: Engine, plan: Plan) -> tuple[datetime, str | None]:
    return NOW - 6 * MINUTE, CONTENT


def before_the_last_message(engine: Engine, plan: Plan) -> tuple[datetime, str | None]:
    add_messages(engine, [message(1, NOW + timedelta(hours=2))])
    return NOW + timedelta(hours=1), CONTENT


def other_templates(engine: Engine, plan: Plan) -> tuple[datetime, str | None]:
    return NOW, "d" * 64


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (tampered, "plan 1 was changed after it was made; make a new one: tern plan winback"),
        (
            too_old,
            "plan 1 is of 2026-11-22 09:00 UTC, more than guards.max_age_hours 24 ago; make a new one: tern plan "
            "winback",
        ),
        (
            before_it_was_made,
            "the clock of this host says 2026-11-22 08:54 UTC, the ledger has something of 2026-11-22 09:00: it "
            "has jumped back; set it, nothing is sent before",
        ),
        (
            before_the_last_message,
            "the clock of this host says 2026-11-22 10:00 UTC, the ledger has something of 2026-11-22 11:00: it "
            "has jumped back; set it, nothing is sent before",
        ),
        (
            other_templates,
            "the templates of plan 1 were changed after it was made; make a new one: tern plan winback",
        ),
    ],
)
def test_approved_and_still_not_to_be_sent(
    engine: Engine,
    config: Config,
    plan: Plan,
    spoil: Callable[[Engine, Plan], tuple[datetime, str | None]],
    told: str,
) -> None:
    approve(engine, plan.plan_id, name="Ada", now=NOW)
    now, content = spoil(engine, plan)
    before = sent(engine)
    with pytest.raises(PlanError) as refused:
        apply(engine, config, plan, now, content)
    assert str(refused.value) == told
    assert sent(engine) == before
    with reading(engine) as connection:
        assert connection.execute(select(plans.c.status)).scalar_one() == "draft"


@pytest.mark.parametrize("now", [NOW - 4 * MINUTE, NOW + DAY])
def test_clocks_may_differ_a_little_and_a_plan_holds_a_day(
    engine: Engine, config: Config, plan: Plan, now: datetime
) -> None:
    approve(engine, plan.plan_id, name="Ada", now=NOW)
    assert apply(engine, config, plan, now) == 3


@pytest.mark.parametrize("name", ["plan.jsonl", "plan.csv"])
def test_the_file_says_what_was_judged_and_found(engine: Engine, plan: Plan, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_plan(engine, plan.plan_id, path)
    head = path if name.endswith("jsonl") else Path(f"{path}.json")
    found = json.loads(head.read_text().splitlines()[0])
    assert (found["definition_hash"], found["content_hash"]) == (plan.definition_hash, CONTENT)
    assert found["summary"]["needs_approval"] == list(plan.needs_approval)
    assert "lost_to" in path.read_text()


@pytest.mark.parametrize("name", ["plan.jsonl", "plan.csv"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hash", "f" * 64),
        ("content_hash", "d" * 64),
        ("content_hash", None),
        ("definition_hash", "d" * 64),
        ("occurrence", "2026-11-23"),
        ("campaign", "vip_thanks"),
    ],
)
def test_a_file_with_another_head_is_refused(
    engine: Engine, plan: Plan, tmp_path: Path, name: str, field: str, value: Any
) -> None:
    path = tmp_path / name
    write_plan(engine, plan.plan_id, path)
    assert read_plan(engine, path) == plan.plan_id
    head = path if name.endswith("jsonl") else Path(f"{path}.json")
    first, *rest = head.read_text().splitlines(keepends=True)
    head.write_text("".join([json.dumps(json.loads(first) | {field: value}) + "\n", *rest]))
    with pytest.raises(PlanError, match="the file was changed after it was written"):
        read_plan(engine, path)


@pytest.mark.parametrize("name", ["plan.jsonl", "plan.csv"])
def test_a_file_with_another_row_is_refused(engine: Engine, plan: Plan, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_plan(engine, plan.plan_id, path)
    head, first, second, third = path.read_text().splitlines(keepends=True)
    elsewhere = third.replace("atlas", "harbour")
    assert elsewhere != third
    for rows in (
        (first, second),
        (first, second, third, third),
        (second, first, third),
        (first, second, elsewhere),
    ):
        path.write_text("".join([head, *rows]))
        with pytest.raises(PlanError, match="the file was changed after it was written"):
            read_plan(engine, path)
