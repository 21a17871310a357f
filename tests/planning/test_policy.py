"""What the platforms forbid is kept from the people whom it is about, and from nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, Select, insert, select

from lifecycle.db.engine import writing
from lifecycle.db.schema import consents, customers, orders
from lifecycle.planning.judgement import Judgement, candidates, decided, work_tables
from lifecycle.planning.policy import forbidden_by_pack, forbidden_to_person, policy_reasons, review_window
from lifecycle.settings import Config
from tests.planning.people import (
    DAY,
    MARKETPLACES,
    MORE_CHANNELS,
    NOW,
    SEEDS,
    add_consents,
    add_messages,
    add_people,
    change,
    clear,
    consent,
    hashed,
    message,
    with_caps,
)

TICK = timedelta(microseconds=1)
Reason = Callable[[Judgement], Select]


def selling_at(changed: Callable[..., Config], **campaigns: Any) -> Config:
    """Beside atlas and harbour one shop of each marketplace, named like it, and one whose files say nothing."""
    config = with_caps(changed, **campaigns)
    shops = config.shops_file.model_dump()["shops"]
    by_file = shops[0] | {"platform": "file"}
    more = [by_file | {"name": name, "marketplace": name} for name in MARKETPLACES]
    return changed(
        channels_file={"channels": [*config.channels_file.model_dump()["channels"], *MORE_CHANNELS]},
        shops_file={"shops": [*shops, *more, by_file | {"name": "till"}]},
        campaigns_file=config.campaigns_file.model_dump(),
    )


def judgement(config: Config, at: datetime = NOW, channel: str = "email") -> Judgement:
    campaign = config.campaign("winback").model_copy(update={"channel": channel})
    return Judgement(config, campaign, occurrence="2026-11-22", at=at)


def reasons(
    engine: Engine,
    about: Judgement,
    shops: Mapping[int, str],
    asked: Sequence[Reason] = policy_reasons,
    settled: Iterable[int] = (),
) -> dict[int, str]:
    """Rule by person, of the people in `shops`; of the `settled` something is decided before."""
    rows = [
        {"customer_id": i, "segment": "dormant", "shop": shop, "locale": "en"}
        | {"address_hash": hashed(i), "seed": SEEDS[i]}
        for i, shop in shops.items()
    ]
    before = [{"customer_id": i, "verdict": "suppressed", "rule": "manual"} for i in settled]
    with writing(engine) as connection:
        work_tables.create_all(connection, checkfirst=False)
        connection.execute(insert(candidates), rows)
        if before:
            connection.execute(insert(decided), before)
        for reason in asked:
            connection.execute(insert(decided).from_select(["customer_id", "verdict", "rule"], reason(about)))
        found = connection.execute(select(decided).where(decided.c.verdict == "policy")).all()
        work_tables.drop_all(connection, checkfirst=False)
    return {row.customer_id: row.rule for row in found}


@pytest.mark.parametrize(
    ("purpose", "rules"),
    [
        (
            "marketing",
            {
                "amazon": "amazon_no_marketing",
                "ebay": "ebay_no_marketing",
                "tiktok": "tiktok_no_marketing_by_mail",
            },
        ),
        ("transactional", {}),
        ("review_request", {}),
    ],
)
def test_nobody_gets_what_their_shop_may_send_to_nobody(
    engine: Engine, changed: Callable[..., Config], purpose: str, rules: dict[str, str]
) -> None:
    shops = dict(enumerate(["atlas", "harbour", *MARKETPLACES, "till", "closed_shop"], start=1))
    add_people(engine, shops, shops=shops)
    found = reasons(engine, judgement(selling_at(changed, purpose=purpose)), shops, [forbidden_by_pack])
    assert {shops[i]: rule for i, rule in found.items()} == rules


ADDRESSES = {
    "a1b2@marketplace.amazon.de": "amazon_relay_addresses",
    "a1b2@marketplace.amazon.co.uk": "amazon_relay_addresses",
    "jo-12@members.ebay.com": "ebay_relay_addresses",
    "q9@privaterelay.appleid.com": "email_apple_relay_addresses",
    "jo@amazon.de": None,
    "jo@marketplace.amazonas.example.com": None,
    "jo@not-marketplace.amazon.example.com": None,
    "members.ebay.com@example.com": None,
    "jo@privaterelay.appleid.com.example.com": None,
}


@pytest.mark.parametrize(("purpose", "counts"), [("marketing", True), ("transactional", False)])
def test_relay_addresses_get_no_marketing_from_any_shop(
    engine: Engine, changed: Callable[..., Config], purpose: str, counts: bool
) -> None:
    addresses = dict(enumerate(ADDRESSES, start=1))
    shops = {i: "atlas" if i % 2 else "till" for i in addresses}
    add_people(engine, addresses)
    for i, address in addresses.items():
        change(engine, customers, customers.c.customer_id == i, email=address.title(), email_key=address)
    about = judgement(selling_at(changed, purpose=purpose))
    consents_are_soft(engine)
    found = reasons(engine, about, shops, [forbidden_to_person])
    assert {addresses[i]: rule for i, rule in found.items()} == {
        address: rule for address, rule in ADDRESSES.items() if rule and counts
    }
    assert reasons(engine, judgement(about.config, channel="whatsapp"), shops, [forbidden_to_person]) == {}


def consents_are_soft(engine: Engine) -> None:
    change(engine, consents, consents.c.consent_id > 0, basis="soft_opt_in")


OWN_CONSENT: list[tuple[list[dict[str, Any]], bool]] = [
    ([], False),
    ([{"basis": "express", "at": NOW}], True),
    ([{"basis": "double_opt_in", "at": NOW}], True),
    ([{"basis": "express", "at": NOW + TICK}], False),
    ([{"basis": "express", "at": NOW - DAY, "shop": "harbour"}], False),
    ([{"basis": "express", "at": NOW - DAY, "topic": "news"}], False),
    ([{"basis": "express", "at": NOW - DAY, "channel": "whatsapp"}], False),
    ([{"basis": "express", "at": NOW - DAY, "expires_at": NOW}], False),
    ([{"basis": "express", "at": NOW - DAY, "expires_at": NOW + TICK}], True),
    ([{"basis": "express", "at": NOW - DAY, "status": "pending"}], False),
    ([{"basis": "express", "at": NOW - 2 * DAY}, {"status": "withdrawn", "at": NOW - DAY}], False),
    ([{"basis": "express", "at": NOW - DAY}, {"status": "withdrawn", "at": NOW - DAY}], False),
    ([{"basis": "express", "at": NOW - DAY}, {"status": "withdrawn", "at": NOW - 2 * DAY}], True),
    ([{"basis": "express", "at": NOW - DAY}, {"status": "withdrawn", "at": NOW + TICK}], True),
    ([{"basis": "express", "at": NOW - DAY}, {"basis": "soft_opt_in", "at": NOW - TICK}], True),
]
"""What a person said beside an old soft opt-in, and whether marketing may go to an address hidden by Apple."""


def test_an_address_hidden_by_apple_needs_consent_of_its_own(
    engine: Engine, changed: Callable[..., Config]
) -> None:
    people = dict(enumerate(OWN_CONSENT, start=1))
    add_people(engine, people)
    for i in people:
        address = f"q{i}@privaterelay.appleid.com"
        change(engine, customers, customers.c.customer_id == i, email=address, email_key=address)
    consents_are_soft(engine)
    add_consents(
        engine, [consent(i, **{"expires_at": None} | fact) for i, (facts, _) in people.items() for fact in facts]
    )
    about = judgement(selling_at(changed))
    found = reasons(engine, about, dict.fromkeys(people, "atlas"), [forbidden_to_person])
    assert found == {i: "email_apple_relay_addresses" for i, (_, allowed) in people.items() if not allowed}


def test_marketing_by_whatsapp_spares_american_numbers(engine: Engine, changed: Callable[..., Config]) -> None:
    people = {
        1: ("+12125550123", "US", True),
        2: ("+12125550123", None, True),
        3: ("+14165550123", "CA", False),
        4: ("+442071234567", "US", False),
        5: ("+442071234567", None, False),
        6: (None, "US", False),
    }
    add_people(engine, people)
    for i, (phone, country, _) in people.items():
        change(engine, customers, customers.c.customer_id == i, phone=phone, country=country)
    shops = dict.fromkeys(people, "atlas")
    config = selling_at(changed)
    found = reasons(engine, judgement(config, channel="whatsapp"), shops, [forbidden_to_person])
    assert found == {i: "whatsapp_no_marketing_to_us" for i, (_, _, american) in people.items() if american}
    assert reasons(engine, judgement(config), shops) == {}
    serving = selling_at(changed, purpose="transactional")
    assert reasons(engine, judgement(serving, channel="whatsapp"), shops, [forbidden_to_person]) == {}


def test_everybody_has_one_reason_and_the_settled_are_not_asked_again(
    engine: Engine, changed: Callable[..., Config]
) -> None:
    shops = {1: "amazon", 2: "amazon", 3: "atlas", 4: "atlas", 5: "atlas"}
    add_people(engine, shops, shops=shops)
    for i in (1, 3, 4):
        address = f"p{i}@marketplace.amazon.de"
        change(engine, customers, customers.c.customer_id == i, email=address, email_key=address)
    assert reasons(engine, judgement(selling_at(changed)), shops, settled=[2, 4]) == {
        1: "amazon_no_marketing",
        3: "amazon_relay_addresses",
    }
    asking = judgement(selling_at(changed, purpose="review_request"))
    found = reasons(engine, asking, shops, settled=[2])
    assert found == {1: "amazon_one_review_request_per_order"}


deliveries = st.none() | st.builds(
    lambda days, nudge: NOW - days * DAY + nudge,
    st.sampled_from([0, 5, 5, 12, 30, 30, 90]),
    st.sampled_from([timedelta(0), TICK, -TICK]),
)
bought = st.fixed_dictionaries(
    {
        "customer_id": st.sampled_from([1, 2, 3]),
        "shop": st.sampled_from(["amazon", "amazon", "amazon", "atlas"]),
        "delivered_at": deliveries,
        "status": st.sampled_from(["paid", "paid", "paid", "open", "refunded", "cancelled", "returned"]),
    }
)
requests = st.fixed_dictionaries(
    {
        "customer_id": st.sampled_from([1, 2, 3]),
        "shop": st.sampled_from(["amazon", "amazon", "amazon", "atlas"]),
        "reserved_at": deliveries.filter(lambda at: at is not None),
        "purpose": st.sampled_from(["review_request"] * 3 + ["transactional"]),
        "state": st.sampled_from(["reserved", "sending", "accepted", "unknown", "refused"]),
    }
)
DELIVERED = {"customer_id": 1, "shop": "amazon", "delivered_at": NOW - 12 * DAY, "status": "paid"}
ASKED = {"customer_id": 1, "shop": "amazon", "reserved_at": NOW - 12 * DAY, "purpose": "review_request"}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bought=st.lists(bought, max_size=6), asked=st.lists(requests, max_size=3))
@example(bought=[DELIVERED], asked=[])
@example(bought=[DELIVERED | {"delivered_at": NOW - 5 * DAY}], asked=[])
@example(bought=[DELIVERED | {"delivered_at": NOW - 5 * DAY + TICK}], asked=[])
@example(bought=[DELIVERED | {"delivered_at": NOW - 30 * DAY}], asked=[])
@example(bought=[DELIVERED | {"delivered_at": NOW - 30 * DAY - TICK}], asked=[])
@example(bought=[DELIVERED], asked=[ASKED | {"state": "accepted"}])
@example(bought=[DELIVERED], asked=[ASKED | {"state": "refused"}])
@example(bought=[DELIVERED], asked=[ASKED | {"state": "accepted", "reserved_at": NOW - 12 * DAY - TICK}])
def test_a_review_is_asked_for_once_per_order_in_its_window(
    engine: Engine, changed: Callable[..., Config], bought: list[dict[str, Any]], asked: list[dict[str, Any]]
) -> None:
    clear(engine)
    shops = {1: "amazon", 2: "amazon", 3: "amazon", 4: "atlas"}
    add_people(engine, shops, shops=shops)
    add_orders(engine, bought)
    add_messages(
        engine,
        [
            message(row["customer_id"], row["reserved_at"], occurrence=f"earlier {number}") | row
            for number, row in enumerate(asked)
        ],
    )
    about = judgement(selling_at(changed, purpose="review_request"))

    found = reasons(engine, about, shops, [review_window])

    assert found == {
        person: "amazon_one_review_request_per_order"
        for person, shop in shops.items()
        if shop == "amazon" and not any(_may_be_asked(order, person, asked) for order in bought)
    }


def _may_be_asked(order: Mapping[str, Any], person: int, asked: Iterable[Mapping[str, Any]]) -> bool:
    delivered = order["delivered_at"]
    if order["customer_id"] != person or order["shop"] != "amazon" or delivered is None:
        return False
    if order["status"] in ("cancelled", "returned"):
        return False
    for row in asked:
        mine = row["customer_id"] == person and row["shop"] == "amazon" and row["purpose"] == "review_request"
        if mine and row["state"] != "refused" and row["reserved_at"] >= delivered:
            return False
    return delivered + 5 * DAY <= NOW <= delivered + 30 * DAY


def add_orders(engine: Engine, rows: Sequence[Mapping[str, Any]]) -> None:
    fixed = {"ordered_at": NOW - 100 * DAY, "updated_at": NOW, "landed_at": NOW, "currency": "EUR"}
    fixed |= {"total_minor": 1, "total_base_minor": 1, "line_count": 1, "content_hash": ""}
    with writing(engine) as connection:
        for number, row in enumerate(rows):
            connection.execute(insert(orders).values(fixed | {"order_id": str(number)} | row))


@pytest.mark.parametrize("purpose", ["marketing", "transactional"])
def test_the_window_of_reviews_is_no_matter_of_other_purposes(
    engine: Engine, changed: Callable[..., Config], purpose: str
) -> None:
    add_people(engine, [1], shops={1: "amazon"})
    assert reasons(engine, judgement(selling_at(changed, purpose=purpose)), {1: "amazon"}, [review_window]) == {}
