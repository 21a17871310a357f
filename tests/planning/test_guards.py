"""What an operator is told of a plan, and when a person must look at it first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from lifecycle.db.schema import plans
from lifecycle.planning.guards import notes, sample_rows, slot_rows, verdict_rows
from lifecycle.planning.plan import make_plan
from lifecycle.planning.records import Plan
from lifecycle.settings import Config
from tests.planning.people import DAY, NOW, add_people, change, suppress, with_caps

WITH_GUARDS = Callable[..., Config]


@pytest.fixture
def guarded(changed: Callable[..., Config]) -> WITH_GUARDS:
    """`guarded(cost="0.5", approve_over=3)`: no caps, no hold-outs, these guards, and a message costs so much."""

    def build(cost: str = "0", **guards: Any) -> Config:
        campaigns = with_caps(changed).campaigns_file.model_dump()
        channels = [each | {"cost": cost} for each in changed().channels_file.model_dump()["channels"]]
        return changed(
            caps_file={"caps": []},
            campaigns_file=campaigns | {"guards": guards},
            channels_file={"channels": channels},
        )

    return build


def planned(engine: Engine, config: Config, at: datetime = NOW) -> Plan:
    return make_plan(engine, config, "winback", as_of=at, now=at)


def applied(engine: Engine, plan: Plan, at: datetime = NOW) -> None:
    change(engine, plans, plans.c.plan_id == plan.plan_id, status="applied", applied_at=at)


def with_summary(summary: dict[str, Any] | None, counts: dict[str, int] | None = None) -> Plan:
    return Plan(
        plan_id=1,
        campaign="winback",
        occurrence="2026-11-22",
        as_of=NOW,
        hash="",
        audience=0,
        counts=counts or {"selected": 0},
        definition_hash="",
        content_hash=None,
        summary=summary,
    )


def test_without_guards_nothing_needs_an_approval(engine: Engine, guarded: WITH_GUARDS) -> None:
    add_people(engine, range(1, 6))
    assert planned(engine, guarded(cost="0.5")).needs_approval == ()


@pytest.mark.parametrize(("approve_over", "needed"), [(0, True), (3, True), (4, False), (None, False)])
def test_more_messages_than_approve_over(
    engine: Engine, guarded: WITH_GUARDS, approve_over: int | None, needed: bool
) -> None:
    """Messages, not the audience."""
    add_people(engine, range(1, 6))
    suppress(engine, 1, at=NOW)
    told = (f"4 messages are more than guards.approve_over {approve_over}",) if needed else ()
    assert planned(engine, guarded(approve_over=approve_over)).needs_approval == told


@pytest.mark.parametrize(("max_cost", "needed"), [("0.39", True), ("0.40", False), (None, False)])
def test_more_cost_than_max_cost(engine: Engine, guarded: WITH_GUARDS, max_cost: str | None, needed: bool) -> None:
    add_people(engine, range(1, 5))
    plan = planned(engine, guarded(cost="0.1", max_cost=max_cost))
    assert plan.summary is not None and Decimal(plan.summary["cost"]) == Decimal("0.4")
    told = (f"they cost 0.4 EUR, more than guards.max_cost {max_cost}",) if needed else ()
    assert plan.needs_approval == told


@pytest.mark.parametrize(("more", "needed"), [(2, False), (3, True)])
def test_an_audience_that_has_grown(engine: Engine, guarded: WITH_GUARDS, more: int, needed: bool) -> None:
    config = guarded(max_growth=0.5)
    add_people(engine, range(1, 5))
    applied(engine, planned(engine, config))
    add_people(engine, range(5, 5 + more))
    plan = planned(engine, config, NOW + DAY)
    told = f"the audience grew from 4 on 2026-11-22 to {4 + more}, by more than guards.max_growth 50%"
    assert plan.needs_approval == ((told,) if needed else ())


def test_the_previous_run_is_the_last_one_of_the_campaign_that_was_sent(
    engine: Engine, guarded: WITH_GUARDS
) -> None:
    config = guarded()
    add_people(engine, range(1, 5))
    first = planned(engine, config)
    assert first.summary is not None
    assert (first.summary["previous"], first.summary["changes"]) == (None, {})
    assert verdict_rows(first) == [{"verdict": "selected", "people": 4}]
    applied(engine, first)
    planned(engine, config, NOW + DAY)
    for customer_id in (1, 2):
        suppress(engine, customer_id, at=NOW + DAY)
    second = planned(engine, config, NOW + 2 * DAY)
    assert second.summary is not None
    assert second.summary["previous"] == {
        "plan_id": first.plan_id, "occurrence": "2026-11-22", "audience": 4, "counts": {"selected": 4},
    }  # fmt: skip
    assert verdict_rows(second) == [
        {"verdict": "suppressed", "people": 2, "since 2026-11-22": "+2"},
        {"verdict": "selected", "people": 2, "since 2026-11-22": "-2"},
    ]


def test_a_verdict_that_nobody_has_any_more_is_still_told() -> None:
    summary = {"previous": {"occurrence": "2026-11-21"}, "changes": {"capped": -1_200, "selected": 0}}
    assert verdict_rows(with_summary(summary)) == [
        {"verdict": "capped", "people": 0, "since 2026-11-21": "-1,200"},
        {"verdict": "selected", "people": 0, "since 2026-11-21": "+0"},
    ]


def test_slots_and_what_they_are_worth() -> None:
    slots = {"rule": "monthly", "group": "atlas", "limit": 50, "used": 20, "wanted": 31, "taken": 30, "shops": []}
    worth = {"last_minor": 123.4, "next_minor": None, "frees_at": datetime(2026, 12, 1, tzinfo=UTC).isoformat()}
    plan = with_summary({"slots": [slots | worth, slots | worth | {"wanted": 30}]})
    assert slot_rows(plan, "EUR")[0] == {
        "quota": "monthly", "of": "atlas", "limit": 50, "used": 20, "wanted": 31, "taken": 30,
        "worth of the last": "€1.23", "of the next": "", "more from": "2026-12-01 00:00 UTC",
    }  # fmt: skip
    assert list(notes(plan)) == ["monthly of atlas leaves room for 30 of 31 messages"]


def test_a_quota_that_is_used_up_already_has_no_slots() -> None:
    slots: dict[str, Any] = {"rule": "monthly", "group": "atlas", "limit": 5, "used": 9, "wanted": 3, "taken": 0}
    slots |= {"last_minor": None, "next_minor": None, "frees_at": None, "shops": ["atlas"]}
    assert list(notes(with_summary({"slots": [slots]}))) == ["monthly of atlas leaves room for 0 of 3 messages"]


def test_a_quota_of_a_real_plan_is_told(engine: Engine, changed: Callable[..., Config]) -> None:
    """With one slot for five people, four are left out."""
    quota = {"name": "monthly", "limit": 1, "per": "month", "timezone": "Europe/Paris"}
    everything = with_caps(changed).campaigns_file.model_dump()
    config = changed(caps_file={"caps": [], "quotas": [quota]}, campaigns_file=everything)
    add_people(engine, range(1, 6))
    plan = planned(engine, config)
    assert plan.counts == {"quota": 4, "selected": 1}
    (row,) = [row for row in slot_rows(plan, "EUR") if row["of"] == "atlas"]
    assert (row["limit"], row["used"], row["wanted"], row["taken"]) == (1, 0, 5, 1)
    assert row["more from"] == "2026-11-30 23:00 UTC"
    assert list(notes(plan)) == ["monthly of atlas leaves room for 1 of 5 messages"]


def test_a_quota_that_allows_nothing_never_frees_a_slot(engine: Engine, changed: Callable[..., Config]) -> None:
    nothing = {"name": "nothing", "per": "day", "timezone": "Europe/Paris", "limit": 0}
    everything = with_caps(changed).campaigns_file.model_dump()
    config = changed(caps_file={"caps": [], "quotas": [nothing]}, campaigns_file=everything)
    add_people(engine, [1])
    plan = planned(engine, config)
    assert plan.counts == {"quota": 1, "selected": 0}
    assert {row["more from"] for row in slot_rows(plan, "EUR")} == {""}


@pytest.mark.parametrize("summary", [None, {}])
def test_a_plan_without_a_summary(summary: dict[str, Any] | None) -> None:
    plan = with_summary(summary, {"capped": 1, "selected": 2})
    assert verdict_rows(plan) == [{"verdict": "capped", "people": 1}, {"verdict": "selected", "people": 2}]
    found: Iterable[Any] = (slot_rows(plan, "EUR"), sample_rows(plan), list(notes(plan)), plan.needs_approval)
    assert not any(found)
