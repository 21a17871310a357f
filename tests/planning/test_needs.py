"""What platforms and channels need of a message, over everybody at once and person by person."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, select

from lifecycle.customers.consent import effective_consent
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import consents, customers, inbound_messages, orders
from lifecycle.planning.judgement import Judgement, candidates, decided, work_tables
from lifecycle.planning.plan import make_plan
from lifecycle.planning.policy import unmet_needs
from lifecycle.planning.reasons import no_consent
from lifecycle.settings import Config
from lifecycle.settings.policies import Draft, missing
from tests.planning.people import (
    DAY,
    NOW,
    add_addresses,
    add_consents,
    add_people,
    address_hashed,
    an_order,
    change,
    clear,
    consent,
    selling_everywhere,
    verdict_rows,
)

HOUR, TICK = timedelta(hours=1), timedelta(microseconds=1)
WINDOWS = {"whatsapp": 24 * HOUR, "messenger": 24 * HOUR, "ebay": 90 * DAY, "tiktok": 365 * DAY}
"""Channels whose rules have one, and how long it is."""
CHANNELS = (*WINDOWS, *WINDOWS, "email", "webhook", "aliexpress")
OTHER_SHOPS = ("atlas", "harbour")
PEOPLE = (1, 2, 3)
LOCALES = ("en", "fr")

who = st.sampled_from(PEOPLE)
nudge = st.sampled_from([0 * TICK, TICK, -TICK])
in_window = st.tuples(st.sampled_from([1, 1, 1, 0, 2]), nudge)
"""So many windows ago, and a moment more or less."""
bought = st.tuples(who, st.sampled_from(["own", "own", "own", *OTHER_SHOPS]), in_window,
                   st.sampled_from(["paid", "paid", "refunded", "cancelled", "returned"]))  # fmt: skip
wrote = st.tuples(who, st.sampled_from(["own kind", "own kind", "other"]), in_window)
around = st.builds(lambda back, nudge: NOW - back + nudge, st.sampled_from([0 * DAY, DAY, 24 * HOUR, -DAY]), nudge)
said = st.fixed_dictionaries(
    {
        "customer_id": st.sampled_from(PEOPLE),
        "status": st.sampled_from(["granted", "granted", "withdrawn", "pending"]),
        "topic": st.sampled_from(["promotions", "promotions", "news"]),
        "at": around,
        "kind": st.sampled_from(["own kind", "own kind", "own kind", "other"]),
        "expires_at": st.sampled_from([None, None, NOW, NOW + TICK]),
    }
)


HOME = {"purpose": "transactional", "shops": ["home"] * 3, "locales": ["en", "fr", "fr"], "approved": None}
OPT_INS = [
    {
        "customer_id": i,
        "status": "granted",
        "topic": topic,
        "at": NOW - DAY,
        "kind": "own kind",
        "expires_at": None,
    }
    for i, topic in ((1, "promotions"), (2, "promotions"), (3, "news"))
]
AT_THE_EDGE = [(1, (1, -TICK)), (2, (1, 0 * TICK)), (3, (1, TICK))]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    channel=st.sampled_from(CHANNELS),
    purpose=st.sampled_from(["marketing", "transactional", "review_request"]),
    shops=st.lists(st.sampled_from(["home", "home", *OTHER_SHOPS]), min_size=3, max_size=3),
    locales=st.lists(st.sampled_from(LOCALES), min_size=3, max_size=3),
    approved=st.none() | st.frozensets(st.sampled_from(LOCALES)),
    bought=st.lists(bought, max_size=5),
    wrote=st.lists(wrote, max_size=4),
    said=st.lists(said, max_size=6),
)
@example(**HOME, channel="ebay", said=[], wrote=[], bought=[(i, "own", at, "paid") for i, at in AT_THE_EDGE])
@example(
    **HOME,
    channel="ebay",
    said=[],
    wrote=[],
    bought=[
        (i, "own", (0, 0 * TICK), status) for i, status in enumerate(("paid", "cancelled", "returned"), start=1)
    ],
)
@example(**HOME, channel="tiktok", said=[], wrote=[], bought=[(i, "own", at, "refunded") for i, at in AT_THE_EDGE])
@example(
    **HOME | {"approved": frozenset()},
    channel="whatsapp",
    said=OPT_INS,
    wrote=[(i, "own kind", at) for i, at in AT_THE_EDGE],
    bought=[],
)
def test_needs_are_those_of_each_person(
    engine: Engine,
    changed: Callable[..., Config],
    channel: str,
    purpose: Any,
    shops: list[str],
    locales: list[str],
    approved: frozenset[str] | None,
    bought: list[tuple[int, str, tuple[int, timedelta], str]],
    wrote: list[tuple[int, str, tuple[int, timedelta]]],
    said: list[dict[str, Any]],
) -> None:
    clear(engine)
    config = selling_everywhere(changed, {"channel": channel, "purpose": purpose})
    kind = config.channels[channel].kind
    home = channel if channel in ("ebay", "tiktok", "aliexpress") else "atlas"
    shop_of = {i: home if shop == "home" else shop for i, shop in zip(PEOPLE, shops, strict=True)}
    locale_of = dict(zip(PEOPLE, locales, strict=True))
    add_people(engine, PEOPLE, shops=shop_of)
    add_addresses(engine, PEOPLE, shop_of)
    change(engine, orders, orders.c.order_key > 0, ordered_at=NOW - 900 * DAY)
    window = WINDOWS.get(channel, DAY)
    orders_made = [
        (i, shop_of[i] if shop == "own" else shop, NOW - times * window + moment, status)
        for i, shop, (times, moment), status in bought
    ]
    written = [(i, whose, NOW - times * window + moment) for i, whose, (times, moment) in wrote]
    facts = [
        consent(
            each["customer_id"],
            at=each["at"],
            status=each["status"],
            topic=each["topic"],
            shop=shop_of[each["customer_id"]],
            channel=kind if each["kind"] == "own kind" else "other",
            source=f"source {number}",
            recorded_at=max(each["at"], NOW),
            expires_at=None if each["status"] == "withdrawn" else each["expires_at"],
        )
        for number, each in enumerate(said)
    ]
    with writing(engine) as connection:
        connection.execute(consents.delete())
        for number, (i, shop, at, status) in enumerate(orders_made):
            connection.execute(insert(orders).values(an_order(i, shop, at, order_id=f"{number}", status=status)))
        for i, whose, at in written:
            row = {"channel": kind if whose == "own kind" else "other", "received_at": at}
            row |= {"address_hash": address_hashed(channel, i, shop_of[i])}
            connection.execute(insert(inbound_messages).values(row))
    if facts:
        add_consents(engine, facts)
    about = Judgement(config, config.campaign("winback"), "2026-11-22", NOW, approved=approved)

    found, standing = decisions(engine, about, shop_of, locale_of)

    opted_in, agreed = opt_ins(engine, shop_of, kind)
    expected = {}
    for i in standing:
        lately = [
            at
            for buyer, shop, at, status in orders_made
            if (buyer, shop) == (i, shop_of[i]) and status not in ("cancelled", "returned")
        ]
        draft = Draft(
            purpose=purpose,
            channel_kind=kind,
            at=NOW,
            consent=i in agreed,
            opt_in=i in opted_in,
            template=approved is None or locale_of[i] in approved,
            last_inbound_at=newest(at for writer, whose, at in written if (writer, whose) == (i, "own kind")),
            last_order_at=newest([NOW - 900 * DAY, *lately]),
        )
        if rules := missing(config.shop(shop_of[i]), draft):
            expected[i] = rules[0]
    assert found == expected


def newest(instants: Any) -> datetime | None:
    """Of those that have been."""
    return max((each for each in instants if each <= NOW), default=None)


def decisions(
    engine: Engine, about: Judgement, shops: dict[int, str], locales: dict[int, str]
) -> tuple[dict[int, str], set[int]]:
    """Rule by person, and who was left by the reason that asks for consent."""
    with writing(engine) as connection:
        work_tables.create_all(connection, checkfirst=False)
        rows = [
            {"customer_id": i, "segment": "dormant", "shop": shops[i], "locale": locales[i], "seed": 1}
            | {"address_hash": address_hashed(about.campaign.channel, i, shops[i])}
            for i in shops
        ]
        connection.execute(insert(candidates), rows)
        names = ["customer_id", "verdict", "rule"]
        connection.execute(insert(decided).from_select(names, no_consent(about)))
        standing = set(shops) - set(connection.execute(select(decided.c.customer_id)).scalars())
        connection.execute(insert(decided).from_select(names, unmet_needs(about)))
        found = connection.execute(select(decided).where(decided.c.verdict == "policy")).all()
        work_tables.drop_all(connection, checkfirst=False)
    return {row.customer_id: row.rule for row in found}, standing


def opt_ins(engine: Engine, shops: dict[int, str], kind: str) -> tuple[set[int], set[int]]:
    """Who agreed to the channel at all, and who on the campaign's topic."""
    with reading(engine) as connection:
        rows = [
            row
            for row in connection.execute(effective_consent(NOW))
            if (row.shop, row.channel, row.status) == (shops[row.customer_id], kind, "granted")
        ]
    return {row.customer_id for row in rows}, {row.customer_id for row in rows if row.topic == "promotions"}


def test_a_plan_asks_for_what_the_channel_needs(engine: Engine, changed: Callable[..., Config]) -> None:
    people = {1: "en", 2: "fr", 3: "fr"}
    add_people(engine, people)
    add_addresses(engine, people)
    for i, locale in people.items():
        change(engine, customers, customers.c.customer_id == i, locale=locale)
    change(engine, consents, consents.c.consent_id > 0, channel="whatsapp")
    wrote_to_us(engine, 3, NOW - 24 * HOUR)
    config = selling_everywhere(changed, {"channel": "whatsapp"})
    made = make_plan(engine, config, "winback", as_of=NOW, now=NOW, approved={"en"})
    assert {i: (row.verdict, row.rule) for i, row in verdict_rows(engine, made.plan_id).items()} == {
        1: ("selected", None),
        2: ("policy", "whatsapp_template_outside_window"),
        3: ("selected", None),
    }


def wrote_to_us(engine: Engine, customer_id: int, at: datetime) -> None:
    row = {"channel": "whatsapp", "received_at": at, "address_hash": address_hashed("whatsapp", customer_id)}
    with writing(engine) as connection:
        connection.execute(insert(inbound_messages).values(row))
