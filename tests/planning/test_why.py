"""`tern why`: one sentence for each message somebody got or did not get."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from lifecycle.db.engine import writing
from lifecycle.db.schema import consents, customers, identities, plans, verdicts
from lifecycle.errors import UsageError
from lifecycle.planning.plan import make_plan
from lifecycle.planning.records import Plan
from lifecycle.planning.why import why
from lifecycle.settings import Config
from tests.planning.people import (
    DAY,
    NOW,
    add_messages,
    add_people,
    change,
    message,
    suppress,
    with_caps,
)

TWO_IN_A_WEEK = {"name": "email_2_per_7_days", "channels": ["email"], "limit": 2, "days": 7}
ONE_PER_SHOP = {"name": "one_per_shop", "limit": 1, "days": 1, "scope": "customer_and_shop"}


def applied(engine: Engine, config: Config, **options: Any) -> Plan:
    plan = make_plan(engine, config, "winback", **{"as_of": NOW, "now": NOW} | options)
    change(engine, plans, plans.c.plan_id == plan.plan_id, status="applied", applied_at=NOW)
    return plan


def test_capped_names_rule_messages_and_when_it_frees(engine: Engine, changed: Callable[..., Config]) -> None:
    add_people(engine, [1, 2])
    first, second, third, _, _ = add_messages(
        engine,
        [
            message(1, NOW - 4 * DAY, what="winback"),
            message(1, NOW - 2 * DAY),
            message(2, NOW - DAY / 2),
            message(1, NOW - 3 * DAY, state="refused", what="x"),
            message(1, NOW - 3 * DAY, purpose="transactional", what="y"),
        ],
    )
    applied(engine, with_caps(changed, TWO_IN_A_WEEK, ONE_PER_SHOP))
    assert why(engine, "1", campaign="winback", as_of=NOW)[0] == (
        "winback of 2026-11-22: not sent, capped: rule email_2_per_7_days allows 2 e-mails in 7 days and messages "
        f"{first} (winback, 18 Nov) and {second} (vip_thanks, 20 Nov) fill it; free again on 2026-11-25 09:00 UTC."
    )
    assert why(engine, "2")[0] == (
        "winback of 2026-11-22: not sent, capped: rule one_per_shop allows 1 message in 1 day from atlas and "
        f"message {third} (vip_thanks, 21 Nov) fills it; free again on 2026-11-22 21:00 UTC."
    )


def test_lost_to_names_the_winner(engine: Engine, changed: Callable[..., Config]) -> None:
    add_people(engine, [1])
    [won] = add_messages(engine, [message(1, NOW, occurrence="2026-11-22", state="reserved")])
    make_plan(engine, with_caps(changed, ONE_PER_SHOP), "winback", as_of=NOW, now=NOW)
    assert why(engine, "1", campaign="winback") == [
        f"winback of 2026-11-22 (plan 1, not applied): would not be sent, lost_to: message {won} "
        "(vip_thanks, 22 Nov) goes first and took the slot: rule one_per_shop allows 1 message in 1 day "
        "from atlas; free again on 2026-11-23 09:00 UTC."
    ]


def test_every_other_reason_in_words(engine: Engine, changed: Callable[..., Config]) -> None:
    add_people(engine, range(1, 9), shops={5: "closed_shop"})
    change(engine, customers, customers.c.customer_id == 1, email=None)
    suppress(engine, 2, at=NOW - 3 * DAY)
    change(engine, consents, consents.c.customer_id == 3, status="withdrawn")
    change(engine, consents, consents.c.customer_id == 4, shop="harbour")
    change(engine, customers, customers.c.customer_id == 6, seed=2)
    config = with_caps(changed, ONE_PER_SHOP | {"limit": 0})
    file = config.campaigns_file.model_dump() | {"global_hold_out": 0.02}
    applied(engine, changed(campaigns_file=file, caps_file=config.caps_file.model_dump()))
    suppress(engine, 2, at=NOW + DAY)

    def reason(customer: int) -> str:
        [sentence] = why(engine, str(customer))
        return sentence.removeprefix("winback of 2026-11-22: not sent, ")

    assert [reason(customer) for customer in range(1, 8)] == [
        "no_address: no e-mail address is known that mail can be sent to.",
        "suppressed: they unsubscribed on 2026-11-19.",
        "no_consent: they withdrew their consent at atlas.",
        "no_consent: they gave atlas no consent that counts.",
        "policy: closed_shop, the shop of their newest order, is not in config/shops.yaml.",
        "hold_out: left out on purpose by the experiment global, to measure what the others' messages do.",
        "capped: rule one_per_shop allows nothing.",
    ]


@pytest.mark.parametrize(
    ("columns", "outcome"),
    [
        (
            {"state": "accepted", "sent_at": NOW + timedelta(minutes=2)},
            "sent at 2026-11-22 09:02 UTC from harbour in fr, accepted by the mail server",
        ),
        (
            {"state": "refused", "reason": "550 <c1@example.com>: no such user"},
            "refused: 550 <‹address›>: no such user",
        ),
        (
            {"state": "unknown"},
            "on its way at 2026-11-22 09:00 UTC from harbour in fr when contact was lost; it may have arrived "
            "and is not sent again",
        ),
        ({"state": "sending"}, "being sent from harbour in fr"),
        ({"state": "reserved"}, "reserved at 2026-11-22 09:00 UTC, to be sent from harbour in fr"),
        (
            {"state": "reserved", "not_before": NOW + timedelta(minutes=15)},
            "reserved at 2026-11-22 09:00 UTC, to be sent from harbour in fr, not before 2026-11-22 09:15 UTC",
        ),
    ],
)
def test_what_became_of_a_message(
    engine: Engine, changed: Callable[..., Config], columns: dict[str, Any], outcome: str
) -> None:
    add_people(engine, [1], shops={1: "harbour"})
    plan = applied(engine, with_caps(changed))
    values = {"what": "winback", "occurrence": plan.occurrence, "shop": "harbour", "locale": "fr"}
    add_messages(engine, [message(1, NOW, plan_id=plan.plan_id, **values | columns)])
    assert why(engine, "1") == [f"winback of 2026-11-22: {outcome}."]


def test_drafts_revisions_and_imported_messages_newest_first(
    engine: Engine, changed: Callable[..., Config]
) -> None:
    add_people(engine, [1], locale="fr")
    config = with_caps(changed)
    add_messages(engine, [message(1, NOW - 9 * DAY, occurrence="autumn")])
    dropped = applied(engine, config, as_of=NOW - DAY / 24, now=NOW - DAY, occurrence="2026-11-21")
    revised = {"revised_verdict": "suppressed", "revised_rule": "complaint", "revised_at": NOW - DAY}
    change(engine, verdicts, verdicts.c.plan_id == dropped.plan_id, **revised)
    make_plan(engine, config, "winback", as_of=NOW, now=NOW)
    draft = make_plan(engine, config, "winback", as_of=NOW, now=NOW)
    today = f"winback of 2026-11-22 (plan {draft.plan_id}, not applied): would be sent from atlas in fr."
    yesterday = (
        "winback of 2026-11-21: selected, but no longer when it was to be sent at 2026-11-21 09:00 UTC, "
        "suppressed: they reported a message as spam."
    )
    imported = "vip_thanks of autumn: sent at 2026-11-13 09:00 UTC from atlas in en, accepted by the mail server."
    assert why(engine, "1") == [today, yesterday, imported]
    assert why(engine, "1", as_of=NOW - DAY / 48) == [yesterday, imported]
    assert why(engine, "1", campaign="vip_thanks") == [imported]


def test_whom_no_campaign_was_meant_for(engine: Engine, changed: Callable[..., Config]) -> None:
    add_people(engine, [1], segment="champions", built=NOW - DAY)
    assert why(engine, "1") == ["customer 1 is in champions since 2026-11-21; no campaign was meant for them."]
    assert why(engine, "1", campaign="winback", as_of=NOW - 2 * DAY) == [
        "customer 1 is in no segment; no plan of winback was meant for them."
    ]


@pytest.mark.parametrize("ref", ["1", "atlas:gid://shopify/Customer/9", "C1@EXAMPLE.com"])
def test_customers_are_found_by_number_platform_id_and_address(engine: Engine, ref: str) -> None:
    add_people(engine, [1, 2])
    with writing(engine) as connection:
        known = {"platform_customer_id": "gid://shopify/Customer/9", "customer_id": 1}
        linked = {"shop": "atlas", "linked_by": "platform_id", "linked_at": NOW}
        connection.execute(insert(identities).values(known | linked))
    [sentence] = why(engine, ref)
    assert sentence.startswith("customer 1 is in dormant")


@pytest.mark.parametrize(
    ("ref", "problem"),
    [
        ("7", "there is no customer 7"),
        ("9" * 30, "is no customer; give our number"),
        ("atlas:9", "atlas has no customer 9"),
        ("nobody@example.com", "no customer has this e-mail address"),
        ("not@an@address", "no customer has this e-mail address"),
        ("mailto:nobody@example.com", "no shop has this customer"),
        ("Ada", "SHOP:PLATFORM_ID or an e-mail address"),
    ],
)
def test_somebody_unknown_is_a_clear_error(engine: Engine, ref: str, problem: str) -> None:
    add_people(engine, [1], email=None, email_key=None)
    with pytest.raises(UsageError, match=problem) as error:
        why(engine, ref)
    assert "example.com" not in str(error.value)
