"""Whom a channel can write to, and who agreed to it: by its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from lifecycle.db.schema import consents, customers, identities, orders
from lifecycle.planning.plan import make_plan
from lifecycle.planning.why import why
from lifecycle.settings import Config
from tests.planning.people import (
    DAY,
    NOW,
    add_addresses,
    add_consents,
    add_people,
    address_hashed,
    change,
    consent,
    selling_everywhere,
    suppress,
    verdict_rows,
)

SHOP_OF = {
    "email": "atlas", "whatsapp": "atlas", "messenger": "atlas", "webhook": "atlas", "aliexpress": "aliexpress",
    "tiktok": "tiktok",
}  # fmt: skip
"""A shop that may send marketing by the channel."""
KINDS = {"aliexpress": "aliexpress_messages", "tiktok": "tiktok_engagement"}
Changed = Callable[..., Config]


def told(engine: Engine, changed: Changed, channel: str, **campaign: Any) -> dict[int, tuple[str, str | None]]:
    """Verdict and rule by person."""
    config = selling_everywhere(changed, {"channel": channel} | campaign)
    made = make_plan(engine, config, "winback", as_of=NOW, now=NOW)
    return {i: (row.verdict, row.rule) for i, row in verdict_rows(engine, made.plan_id).items()}


def add_everywhere(engine: Engine, channel: str, ids: list[int], *, agreed: bool = True) -> None:
    """People of a shop that may write to them by the channel, with every address."""
    shops = dict.fromkeys(ids, SHOP_OF[channel])
    add_people(engine, ids, shops=shops)
    add_addresses(engine, ids, shops)
    change(engine, consents, consents.c.consent_id > 0, channel=KINDS.get(channel, channel))
    if not agreed:
        change(engine, consents, consents.c.consent_id > 0, topic="something else")


@pytest.mark.parametrize("channel", SHOP_OF)
def test_who_has_no_address_on_the_channel_is_not_written_to(
    engine: Engine, changed: Changed, channel: str
) -> None:
    add_everywhere(engine, channel, [1, 2, 3, 4])
    change(engine, customers, customers.c.customer_id == 2, email=None, email_key=None, email_hash=None)
    change(engine, customers, customers.c.customer_id == 3, phone="as it was given", phone_hash=None)
    change(engine, identities, identities.c.customer_id == 4, shop="harbour")
    missing = {"email": (2, None), "whatsapp": (3, "phone")}.get(channel, (4, "account"))
    found = told(engine, changed, channel)
    assert found == {i: ("selected", None) for i in (1, 2, 3, 4)} | {missing[0]: ("no_address", missing[1])}
    [sentence] = why(engine, str(missing[0]))
    assert "is known that" in sentence and "phone" not in sentence.partition("no telephone number")[0]


def test_of_several_accounts_at_a_shop_the_one_linked_last_is_written_to(engine: Engine, changed: Changed) -> None:
    add_everywhere(engine, "webhook", [1, 2])
    for i in (1, 2):
        newer = {"customer_id": i, "linked_by": "platform_id", "linked_at": NOW - i * 9 * DAY}
        with engine.begin() as connection:
            row = {"shop": "atlas", "platform_customer_id": f"newer {i}", "handle_hash": f"other {i}"}
            connection.execute(identities.insert().values(row | newer))
        suppress(engine, i, at=NOW - DAY, channel="webhook", address_hash=f"other {i}", reason="hard_bounce")
    assert told(engine, changed, "webhook") == {1: ("suppressed", "hard_bounce"), 2: ("selected", None)}


def test_messages_about_orders_need_an_order(engine: Engine, changed: Changed) -> None:
    shops = dict.fromkeys([1, 2, 3], "amazon")
    add_people(engine, [1, 2, 3], shops=shops)
    add_addresses(engine, [1, 2, 3], shops)
    change(engine, orders, orders.c.customer_id == 2, status="cancelled")
    change(engine, orders, orders.c.customer_id == 3, shop="atlas")
    found = told(engine, changed, "amazon", purpose="transactional", drop_when_ordered=False)
    assert found == {1: ("selected", None), 2: ("no_address", "account"), 3: ("no_address", "account")}


@pytest.mark.parametrize("channel", SHOP_OF)
def test_what_suppresses_on_one_kind_of_channel_does_not_on_others(
    engine: Engine, changed: Changed, channel: str
) -> None:
    others = [each for each in SHOP_OF if each != channel]
    add_everywhere(engine, channel, [1, 2, 3])
    shop = SHOP_OF[channel]
    for other in others:
        ban = {"channel": KINDS.get(other, other), "address_hash": address_hashed(other, 1, shop)}
        suppress(engine, 1, at=NOW - DAY, **ban)
    mine = {"channel": KINDS.get(channel, channel)}
    suppress(engine, 2, at=NOW - DAY, address_hash=address_hashed(channel, 2, shop), **mine)
    rest = {"reason": "soft_bounce", "purpose": "all", "expires_at": NOW}
    suppress(engine, 3, at=NOW - DAY, address_hash=address_hashed(channel, 3, shop), **mine, **rest)
    assert told(engine, changed, channel) == {
        1: ("selected", None),
        2: ("suppressed", "unsubscribe"),
        3: ("selected", None),
    }
    [sentence] = why(engine, "2")
    assert "they unsubscribed on 2026-11-21" in sentence


@pytest.mark.parametrize("channel", SHOP_OF)
def test_marketing_needs_consent_where_the_platform_does_not_ask_itself(
    engine: Engine, changed: Changed, channel: str
) -> None:
    people = [1, 2, 3, 4]
    add_everywhere(engine, channel, people, agreed=False)
    about = {"channel": KINDS.get(channel, channel), "shop": SHOP_OF[channel]}
    yes, no = (consent(i, at=NOW - DAY, **about) for i in (2, 3))
    elsewhere = consent(4, at=NOW - DAY, **about | {"channel": "carrier pigeon"})
    add_consents(engine, [yes, no | {"status": "withdrawn"}, elsewhere])
    never = ("selected", None) if channel in KINDS else ("no_consent", "never_given")
    assert told(engine, changed, channel) == {
        1: never, 2: ("selected", None), 3: ("no_consent", "withdrawn"), 4: never,
    }  # fmt: skip


def test_the_platform_minds_its_countrys_law_itself(engine: Engine, changed: Changed) -> None:
    add_everywhere(engine, "aliexpress", [1])
    change(engine, consents, consents.c.consent_id > 0, basis="implied_purchase")
    assert told(engine, changed, "aliexpress") == {1: ("selected", None)}


def test_a_channel_of_some_shops_sends_for_no_other(engine: Engine, changed: Changed) -> None:
    people = {1: "atlas", 2: "harbour", 3: "ebay"}
    add_people(engine, people, shops=people)
    config = selling_everywhere(changed, {})
    channels = config.channels_file.model_dump()["channels"]
    channels[0]["shops"] = ["harbour"]
    config = changed(
        shops_file=config.shops_file.model_dump(),
        campaigns_file=config.campaigns_file.model_dump(),
        channels_file={"channels": channels},
    )
    made = make_plan(engine, config, "winback", as_of=NOW, now=NOW)
    found = {i: (row.verdict, row.rule) for i, row in verdict_rows(engine, made.plan_id).items()}
    assert found == {
        1: ("policy", "channel_not_of_shop"),
        2: ("selected", None),
        3: ("policy", "channel_not_of_shop"),
    }
    assert "policy: the channel does not send for atlas" in why(engine, "1")[0]


def test_a_marketplaces_channel_sends_for_shops_there_only(engine: Engine, changed: Changed) -> None:
    """An account at Shopify says nothing to AliExpress, or is somebody else there."""
    people = {1: "atlas", 2: "aliexpress", 3: "tiktok"}
    add_people(engine, people, shops=people)
    add_addresses(engine, people, people)
    elsewhere = ("policy", "channel_not_of_shop")
    assert told(engine, changed, "aliexpress") == {1: elsewhere, 2: ("selected", None), 3: elsewhere}
