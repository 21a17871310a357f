"""Whom one channel could not reach, another of the campaign's is tried for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import consents, customers, messages, plans, verdicts
from lifecycle.errors import PlanError, UsageError
from lifecycle.planning.fallback import due_fallbacks, fallback_channels, needs_fallback
from lifecycle.planning.files import read_plan, write_plan
from lifecycle.planning.plan import make_plan, stored_hash, stored_plan
from lifecycle.planning.recheck import rechecked
from lifecycle.planning.records import Plan
from lifecycle.planning.why import why
from lifecycle.settings import Config
from tests.planning.people import (
    DAY,
    NOW,
    add_addresses,
    add_consents,
    add_messages,
    add_people,
    change,
    consent,
    message,
    phone_hashed,
    selling_everywhere,
    suppress,
    verdict_rows,
)

Changed = Callable[..., Config]
LATER = NOW + DAY / 24
REACHED, NO_ADDRESS, HARD, SOFT, COMPLAINED, REFUSED, FULL, SAID_NO, GONE, BOUNCED_SINCE, ASKED_NOT = range(1, 12)
UNREACHED = {NO_ADDRESS, HARD, SOFT, REFUSED, GONE, BOUNCED_SINCE}


@pytest.fixture
def config(changed: Changed) -> Config:
    return selling_everywhere(changed, {"fallback": ["whatsapp", "webhook"]})


def sent(engine: Engine, config: Config) -> Plan:
    """A plan by e-mail that was sent to eleven people, of whom six could not be reached."""
    people = range(1, 12)
    add_people(engine, people)
    add_addresses(engine, people)
    add_consents(engine, [consent(i, at=NOW - 9 * DAY, channel="whatsapp") for i in people])
    change(engine, customers, customers.c.customer_id == NO_ADDRESS, email=None, email_key=None, email_hash=None)
    change(engine, consents, consents.c.customer_id == ASKED_NOT, topic="news")
    for i, reason in ((HARD, "hard_bounce"), (SOFT, "soft_bounce"), (COMPLAINED, "complaint")):
        suppress(engine, i, at=NOW - DAY, reason=reason, purpose="all")
    plan = make_plan(engine, config, "winback", as_of=NOW, now=NOW)
    ours = {"what": "winback", "occurrence": plan.occurrence, "plan_id": plan.plan_id}
    dead = ours | {"state": "refused", "refusal": "address"}
    add_messages(
        engine,
        [
            message(REACHED, NOW, **ours),
            message(REFUSED, NOW, **dead),
            message(FULL, NOW, **dead | {"refusal": "message"}),
            message(SAID_NO, NOW, **dead),
        ],
    )
    suppress(engine, SAID_NO, at=NOW, reason="unsubscribe")
    revise(engine, plan, GONE, "no_address", None)
    revise(engine, plan, BOUNCED_SINCE, "suppressed", "hard_bounce")
    apply(engine, plan)
    return plan


def apply(engine: Engine, plan: Plan) -> None:
    change(engine, plans, plans.c.plan_id == plan.plan_id, status="applied", applied_at=NOW)


def revise(engine: Engine, plan: Plan, customer_id: int, verdict: str, rule: str | None) -> None:
    values = {"revised_verdict": verdict, "revised_rule": rule, "revised_at": NOW}
    mine = (verdicts.c.plan_id == plan.plan_id, verdicts.c.customer_id == customer_id)
    with writing(engine) as connection:
        connection.execute(update(verdicts).where(*mine).values(values))


def fall_back(engine: Engine, config: Config, plan: Plan, channel: str = "whatsapp", **options: Any) -> Plan:
    at = {"as_of": LATER, "now": LATER}
    return make_plan(engine, config, "winback", channel=channel, fallback_of=plan.plan_id, **at | options)


def told(engine: Engine, plan: Plan) -> dict[int, tuple[str, str | None]]:
    return {i: (row.verdict, row.rule) for i, row in verdict_rows(engine, plan.plan_id).items()}


def test_it_is_for_those_whom_the_channel_before_could_not_reach(engine: Engine, config: Config) -> None:
    first = sent(engine, config)
    assert fallback_channels(config, "winback") == ("whatsapp", "webhook")
    with reading(engine) as connection:
        assert needs_fallback(connection, first.plan_id) == len(UNREACHED)
    plan = fall_back(engine, config, first)
    assert told(engine, plan) == dict.fromkeys(UNREACHED, ("selected", None))
    assert plan.audience == plan.counts["selected"] == len(UNREACHED)
    assert (plan.channel, plan.fallback_of, plan.as_of) == ("whatsapp", first.plan_id, NOW)
    assert plan.occurrence == first.occurrence and first.channel == "email" and first.fallback_of is None
    assert plan.sentence() == "winback of 2026-11-22 by whatsapp: 6 of 6 people selected"


def test_everyone_in_it_is_judged_by_the_other_channel(engine: Engine, config: Config) -> None:
    first = sent(engine, config)
    change(engine, customers, customers.c.customer_id == HARD, phone=None, phone_hash=None)
    ban = {"channel": "whatsapp", "address_hash": phone_hashed(SOFT), "reason": "unsubscribe"}
    suppress(engine, SOFT, at=NOW, **ban)
    change(
        engine,
        consents,
        (consents.c.customer_id == REFUSED) & (consents.c.channel == "whatsapp"),
        status="withdrawn",
    )
    plan = fall_back(engine, config, first)
    assert told(engine, plan) == dict.fromkeys(UNREACHED, ("selected", None)) | {
        HARD: ("no_address", "phone"),
        SOFT: ("suppressed", "unsubscribe"),
        REFUSED: ("no_consent", "withdrawn"),
    }
    apply(engine, plan)
    assert told(engine, fall_back(engine, config, plan, "webhook")) == {HARD: ("no_consent", "never_given")}


def test_it_is_planned_once_and_drafts_of_it_hash_alike(engine: Engine, config: Config) -> None:
    first = sent(engine, config)
    one, two = (fall_back(engine, config, first) for _ in range(2))
    assert one.plan_id != two.plan_id and one.hash == two.hash != first.hash
    apply(engine, one)
    again = fall_back(engine, config, first)
    assert (again.plan_id, again.already_applied) == (one.plan_id, True)
    assert make_plan(engine, config, "winback", as_of=LATER, now=LATER).plan_id == first.plan_id


def test_it_is_the_same_after_it_was_stored_and_written_out(engine: Engine, config: Config, tmp_path: Any) -> None:
    plan = fall_back(engine, config, sent(engine, config))
    with reading(engine) as connection:
        assert stored_plan(connection, plan.plan_id) == replace(plan, summary=plan.summary)
        assert stored_hash(connection, plan) == plan.hash
        definition = connection.execute(select(plans.c.definition).where(plans.c.plan_id == plan.plan_id)).scalar()
    assert definition is not None and definition["channel"] == "whatsapp"
    write_plan(engine, plan.plan_id, tmp_path / "plan.jsonl")
    assert read_plan(engine, tmp_path / "plan.jsonl") == plan.plan_id


def test_those_selected_are_judged_again_by_its_channel(engine: Engine, config: Config) -> None:
    plan = fall_back(engine, config, sent(engine, config))
    suppress(engine, HARD, at=LATER, channel="whatsapp", address_hash=phone_hashed(HARD), purpose="all")
    with writing(engine) as connection, rechecked(connection, config, plan.plan_id, now=LATER) as revised:
        assert revised == {"suppressed": 1}


def test_a_window_that_has_closed_is_seen_when_it_is_applied(engine: Engine, config: Config) -> None:
    first = sent(engine, config)
    plan = fall_back(engine, config, first, approved={"fr"})
    assert set(told(engine, plan).values()) == {("policy", "whatsapp_template_outside_window")}
    allowed = fall_back(engine, config, first, approved={"en"})
    change(engine, verdicts, verdicts.c.plan_id == allowed.plan_id, locale="fr")
    with writing(engine) as connection, rechecked(connection, config, allowed.plan_id, now=LATER) as revised:
        assert revised == {"policy": len(UNREACHED)}


def test_why_tells_of_both(engine: Engine, config: Config) -> None:
    first = sent(engine, config)
    plan = fall_back(engine, config, first)
    assert sorted(why(engine, str(HARD))) == [
        f"winback of 2026-11-22 by whatsapp (plan {plan.plan_id}, not applied): would be sent from atlas in en.",
        "winback of 2026-11-22: not sent, suppressed: their address bounced on 2026-11-21.",
    ]


def test_what_makes_no_sense_is_said(engine: Engine, config: Config) -> None:
    first = sent(engine, config)
    with pytest.raises(UsageError, match='winback does not fall back to "tiktok", but to: whatsapp, webhook'):
        fall_back(engine, config, first, "tiktok")
    with pytest.raises(UsageError, match="belong together"):
        make_plan(engine, config, "winback", as_of=NOW, now=NOW, channel="whatsapp")
    with pytest.raises(UsageError, match="there is no plan 999"):
        fall_back(engine, config, replace(first, plan_id=999))
    change(engine, plans, plans.c.plan_id == first.plan_id, campaign="vip_thanks")
    with pytest.raises(UsageError, match="is of vip_thanks, not of winback"):
        fall_back(engine, config, first)
    change(engine, plans, plans.c.plan_id == first.plan_id, campaign="winback", status="draft")
    with pytest.raises(PlanError, match=f"is not applied.*tern apply {first.plan_id}"):
        fall_back(engine, config, first)


def test_it_is_due_half_an_hour_after_everything_has_left_and_once(engine: Engine, config: Config) -> None:
    first = sent(engine, config)

    def due(minutes: float, config: Config = config) -> list[tuple[int, str, str, int]]:
        with reading(engine) as connection:
            found = due_fallbacks(connection, config, NOW + timedelta(minutes=minutes))
        return [(each.plan_id, each.campaign, each.channel, each.people) for each in found]

    whatsapp = (first.plan_id, "winback", "whatsapp", len(UNREACHED))
    assert (due(29), due(30), due(23 * 60)) == ([], [whatsapp], [whatsapp])
    assert due(24 * 60) == [], "its date is over"
    change(engine, messages, messages.c.customer_id == FULL, settled_at=NOW + timedelta(minutes=20))
    assert (due(49), due(50)) == ([], [whatsapp]), "a late answer may be about an address"
    change(engine, messages, messages.c.customer_id == REACHED, state="reserved")
    assert due(60) == [], "somebody's message has not left"
    change(engine, messages, messages.c.customer_id == REACHED, state="accepted")
    second = fall_back(engine, config, first)
    assert due(60) == [whatsapp], "only drafted"
    change(engine, plans, plans.c.plan_id == second.plan_id, status="applied", applied_at=NOW + timedelta(hours=1))
    assert due(60) == []
    change(engine, customers, customers.c.customer_id == HARD, phone=None, phone_hash=None)
    revise(engine, second, HARD, "no_address", "phone")
    assert due(90) == [(second.plan_id, "winback", "webhook", 1)], "the next channel, for whom this one failed"
