"""Every member of an audience gets the first verdict that applies, and exactly one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from lifecycle.db.schema import VERDICTS, consents, customers, suppressions
from lifecycle.planning.holdout import bucket
from lifecycle.planning.plan import make_plan
from lifecycle.settings import Config
from tests.planning.people import (
    DAY,
    NOW,
    add_consents,
    add_messages,
    add_people,
    change,
    consent,
    message,
    suppress,
    verdict_rows,
    with_caps,
)

TICK = timedelta(microseconds=1)
TWO_IN_A_WEEK = {"name": "two", "channels": ["email"], "limit": 2, "days": 7}
REASONS = ("no_address", "suppressed", "no_consent", "policy", "hold_out", "capped")


def plan(engine: Engine, config: Config, **options: Any) -> dict[int, Any]:
    made = make_plan(engine, config, "winback", **{"as_of": NOW, "now": NOW} | options)
    return verdict_rows(engine, made.plan_id)


def test_the_first_reason_that_applies_decides(engine: Engine, changed: Callable[..., Config]) -> None:
    """All 64 combinations of six reasons, one person each."""
    config = with_caps(changed, TWO_IN_A_WEEK, hold_out=0.2)
    left_out = next(seed for seed in range(1, 5_000) if bucket(seed, "winback") < 2_000)
    combinations = dict(enumerate(itertools.product([False, True], repeat=len(REASONS)), start=1))
    has = {reason: {i for i, flags in combinations.items() if flags[n]} for n, reason in enumerate(REASONS)}
    add_people(engine, combinations, shops=dict.fromkeys(has["policy"], "closed_shop"))
    change(engine, customers, customers.c.customer_id.in_(has["no_address"]), email=None, email_key=None)
    change(engine, customers, customers.c.customer_id.in_(has["hold_out"]), seed=left_out)
    change(engine, consents, consents.c.customer_id.in_(has["no_consent"]), status="withdrawn")
    for person in has["suppressed"]:
        suppress(engine, person, at=NOW - DAY)
    add_messages(engine, [message(i, NOW - days * DAY) for i in has["capped"] for days in (1, 2)])

    found = plan(engine, config)

    wanted = {
        i: next((reason for reason, hit in zip(REASONS, flags, strict=True) if hit), "selected")
        for i, flags in combinations.items()
    }
    assert {i: row.verdict for i, row in found.items()} == wanted
    assert sorted(VERDICTS, key=[*REASONS, *VERDICTS].index)[:6] == list(REASONS), "the order of the design"
    rules = {row.verdict: row.rule for row in found.values()}
    assert rules == {
        "no_address": None,
        "suppressed": "unsubscribe",
        "no_consent": "withdrawn",
        "policy": "unknown_shop",
        "hold_out": "winback",
        "capped": "two",
        "selected": None,
    }
    assert all((row.frees_at is not None) == (row.verdict == "capped") for row in found.values())


@pytest.mark.parametrize(
    ("columns", "applies"),
    [
        ({}, True),
        ({"purpose": "all"}, True),
        ({"purpose": "review_request"}, False),
        ({"channel": "chat"}, False),
        ({"shop": "atlas"}, True),
        ({"shop": "harbour"}, False),
        ({"lifted_at": NOW - TICK}, False),
        ({"at": NOW}, True),
        ({"at": NOW + TICK}, False),
    ],
)
def test_which_suppressions_apply(
    engine: Engine, changed: Callable[..., Config], columns: dict[str, Any], applies: bool
) -> None:
    add_people(engine, [1, 2])
    suppress(engine, 1, **{"at": NOW - DAY} | columns)
    found = plan(engine, with_caps(changed))
    assert found[1].verdict == ("suppressed" if applies else "selected")
    assert found[2].verdict == "selected"


def test_the_newest_suppression_is_named(engine: Engine, changed: Callable[..., Config]) -> None:
    add_people(engine, [1])
    suppress(engine, 1, at=NOW - 3 * DAY, reason="manual")
    suppress(engine, 1, at=NOW - DAY, reason="hard_bounce")
    suppress(engine, 1, at=NOW - 2 * DAY, reason="unsubscribe")
    assert plan(engine, with_caps(changed))[1].rule == "hard_bounce"
    change(engine, suppressions, suppressions.c.reason == "hard_bounce", lifted_at=NOW - TICK)
    assert plan(engine, with_caps(changed))[1].rule == "unsubscribe"


@pytest.mark.parametrize(
    ("fact", "rule"),
    [
        (None, None),
        ({"status": "withdrawn", "at": NOW}, "withdrawn"),
        ({"status": "withdrawn", "at": NOW + TICK}, None),
        ({"status": "withdrawn", "at": NOW - 900 * DAY}, "withdrawn"),
        ({"status": "withdrawn", "at": NOW, "shop": "harbour"}, None),
        ({"status": "withdrawn", "at": NOW, "topic": "news"}, None),
        ({"status": "withdrawn", "at": NOW, "channel": "chat"}, None),
        ({"status": "pending", "at": NOW, "basis": "double_opt_in"}, None),
        ({"at": NOW - DAY, "basis": "implied_purchase"}, "basis_implied_purchase"),
        ({"at": NOW - DAY, "basis": "soft_opt_in"}, None),
    ],
)
def test_consent_counts_at_the_shop_that_writes(
    engine: Engine, changed: Callable[..., Config], fact: dict[str, Any] | None, rule: str | None
) -> None:
    add_people(engine, [1])
    if fact:
        add_consents(engine, [consent(1, **fact)])
    row = plan(engine, with_caps(changed))[1]
    assert (row.verdict, row.rule) == (("no_consent", rule) if rule else ("selected", None))


def test_consent_counts_as_the_persons_country_has_it(engine: Engine, changed: Callable[..., Config]) -> None:
    """All agreed expressly 900 days ago."""
    countries = dict(enumerate(["CA", "CN", "FR", "KR", "US", None], start=1))
    add_people(engine, countries)
    for person, country in countries.items():
        change(engine, customers, customers.c.customer_id == person, country=country)
    add_consents(engine, [consent(2, at=NOW - DAY, basis="soft_opt_in")])
    found = plan(engine, with_caps(changed))
    assert {i: row.rule for i, row in found.items() if row.verdict == "no_consent"} == {
        2: "basis_soft_opt_in",
        4: "reconfirm",
    }


def test_no_consent_at_all(engine: Engine, changed: Callable[..., Config]) -> None:
    add_people(engine, [1])
    change(engine, consents, consents.c.customer_id == 1, shop="harbour")
    row = plan(engine, with_caps(changed))[1]
    assert (row.verdict, row.rule, row.shop) == ("no_consent", "never_given", "atlas")


@pytest.mark.parametrize(
    ("send_at", "verdict"),
    [(NOW - 7 * DAY, "selected"), (NOW - 7 * DAY + TICK, "capped"), (NOW, "capped"), (NOW + TICK, "selected")],
)
def test_a_window_is_open_at_its_beginning_and_closed_at_its_end(
    engine: Engine, changed: Callable[..., Config], send_at: datetime, verdict: str
) -> None:
    add_people(engine, [1])
    add_messages(engine, [message(1, send_at)])
    row = plan(engine, with_caps(changed, TWO_IN_A_WEEK | {"limit": 1}))[1]
    assert row.verdict == verdict
    assert row.frees_at == (send_at + 7 * DAY if verdict == "capped" else None)


def test_zero_allows_nothing_and_no_rule_allows_everything(engine: Engine, changed: Callable[..., Config]) -> None:
    add_people(engine, [1, 2])
    add_messages(engine, [message(1, NOW - TICK, what="winback")] * 1)
    found = plan(engine, with_caps(changed, TWO_IN_A_WEEK | {"limit": 0}))
    assert {(row.verdict, row.rule, row.frees_at) for row in found.values()} == {("capped", "two", None)}
    assert {row.verdict for row in plan(engine, with_caps(changed)).values()} == {"selected"}


def test_lost_to_names_the_message_that_took_the_slot(engine: Engine, changed: Callable[..., Config]) -> None:
    """Persons: 1 has one slot left and loses it, 2 was capped without the winner, 3 lost to yesterday's."""
    add_people(engine, [1, 2, 3])
    today = {"occurrence": "2026-11-22", "state": "reserved"}
    won, _, _, _, yesterday, _ = add_messages(
        engine,
        [
            message(1, NOW, **today),
            message(1, NOW - 3 * DAY, what="winback"),
            message(2, NOW, **today),
            message(2, NOW - DAY),
            message(3, NOW - DAY, occurrence="2026-11-21"),
            message(3, NOW - TICK, what="late", occurrence="2026-11-22"),
        ],
    )
    add_messages(engine, [message(2, NOW - 2 * DAY)])
    found = plan(engine, with_caps(changed, TWO_IN_A_WEEK))
    assert (found[1].verdict, found[1].rule, found[1].blocking_message_id) == ("lost_to", "two", won)
    assert found[1].frees_at == NOW + 4 * DAY
    assert found[2].verdict == "capped"
    assert (found[3].verdict, found[3].blocking_message_id) == ("capped", yesterday)
