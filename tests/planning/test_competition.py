"""Campaigns that compete for the same people: who wins, when a slot is kept, and what it is worth in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, Text, cast, select, update

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import consents, customers, messages, plans
from lifecycle.ledger.reserve import reserve
from lifecycle.planning.plan import make_plan
from lifecycle.planning.why import why
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign
from tests.planning.people import (
    DAY,
    NOW,
    SECRET,
    add_members,
    add_messages,
    add_people,
    change,
    clear,
    message,
    verdict_rows,
    with_caps,
)

ONE_A_WEEK = {"name": "one_a_week", "limit": 1, "days": 7}


def competing(
    changed: Callable[..., Config],
    *caps: Mapping[str, Any],
    winback: Mapping[str, Any] | None = None,
    vip_thanks: Mapping[str, Any] | None = None,
    look_ahead_days: int = 7,
    quotas: Sequence[Mapping[str, Any]] = (),
    **caps_file: Any,
) -> Config:
    """Winback and vip_thanks, of one priority and worth the same but for what is said of each."""
    columns = {"winback": winback or {}, "vip_thanks": vip_thanks or {}}
    file = with_caps(changed).campaigns_file.model_dump()
    campaigns = [each | {"priority": 50, "value": 5} | columns[each["name"]] for each in file["campaigns"]]
    return changed(
        caps_file={"caps": list(caps), "quotas": list(quotas), **caps_file},
        campaigns_file=file | {"campaigns": campaigns, "look_ahead_days": look_ahead_days},
    )


def add_both(engine: Engine) -> None:
    """1 is meant by winback only, 2 by both."""
    add_people(engine, [1, 2])
    add_members(engine, "vip", [2], since=NOW - DAY)


def verdicts_of(engine: Engine, config: Config, campaign: str, **options: Any) -> dict[int, tuple[Any, ...]]:
    plan = make_plan(engine, config, campaign, **{"as_of": NOW, "now": NOW} | options)
    rows = verdict_rows(engine, plan.plan_id)
    return {i: (row.verdict, row.rule, row.lost_to, row.frees_at) for i, row in rows.items()}


SELECTED = ("selected", None, None, None)


def lost_to_vip(days: int = 0) -> tuple[Any, ...]:
    day = NOW + days * DAY
    return "lost_to", "one_a_week", f"vip_thanks of {day:%Y-%m-%d}", day + 7 * DAY


def test_the_first_class_wins_whatever_others_are_worth(engine: Engine, changed: Callable[..., Config]) -> None:
    add_both(engine)
    config = competing(changed, ONE_A_WEEK, vip_thanks={"priority": 10}, winback={"value": 900})
    assert verdicts_of(engine, config, "winback") == {1: SELECTED, 2: lost_to_vip()}
    assert verdicts_of(engine, config, "vip_thanks") == {2: SELECTED}


def test_within_a_class_the_more_valuable_message_wins(engine: Engine, changed: Callable[..., Config]) -> None:
    add_both(engine)
    better = competing(changed, ONE_A_WEEK, vip_thanks={"value": "5.01"})
    assert verdicts_of(engine, better, "winback") == {1: SELECTED, 2: lost_to_vip()}
    assert verdicts_of(engine, better, "vip_thanks") == {2: SELECTED}
    worse = competing(changed, ONE_A_WEEK, vip_thanks={"value": "4.99"})
    assert verdicts_of(engine, worse, "winback") == {1: SELECTED, 2: SELECTED}
    assert verdicts_of(engine, worse, "vip_thanks")[2][:3] == ("lost_to", "one_a_week", "winback of 2026-11-22")


def test_of_equals_exactly_one_wins(engine: Engine, changed: Callable[..., Config]) -> None:
    """The one that is first in the config, whichever is planned first."""
    add_both(engine)
    config = competing(changed, ONE_A_WEEK)
    assert verdicts_of(engine, config, "winback")[2] == lost_to_vip()
    assert verdicts_of(engine, config, "vip_thanks")[2] == SELECTED


def on(*days: int) -> dict[str, Any]:
    return {"schedule": {"dates": [(NOW + days_ * DAY).date() for days_ in days]}}


KEEPS: tuple[tuple[dict[str, Any], dict[str, Any], int, bool], ...] = (
    ({}, on(3) | {"value": 6}, 7, True),
    ({}, on(3) | {"value": 4}, 7, False),
    ({}, on(3) | {"value": 5}, 7, False),  # what is due first goes first
    ({}, on(3) | {"value": 4, "priority": 10}, 7, True),
    ({}, on(3) | {"value": 6, "priority": 60}, 7, False),
    ({}, on(3) | {"value": 6}, 3, True),
    ({}, on(3) | {"value": 6}, 2, False),
    ({}, on(3) | {"value": 6}, 0, False),
    ({}, on(-1, 9) | {"value": 6}, 14, False),  # by then the slot is free again
    ({}, on(-1, 6) | {"value": 6}, 14, True),
    ({}, on(-1, 6, 9) | {"value": 6}, 14, False),  # today and the ninth day are worth more than the sixth alone
    ({"days": 3}, on(3) | {"value": 6}, 7, False),  # (t - 3 days, t] begins after today's
    ({"days": 3}, on(2) | {"value": 6}, 7, True),
    ({"limit": 2}, on(3) | {"value": 6}, 7, False),
    ({"campaigns": ["winback"]}, on(3) | {"value": 6}, 7, False),
    ({"campaigns": ["vip_thanks"]}, on(3) | {"value": 6}, 7, False),
    ({"tags": ["sale"]}, on(3) | {"value": 6, "tags": ["sale"]}, 7, False),
    ({"days": None, "per": "week", "timezone": "Europe/Paris"}, on(3) | {"value": 6}, 7, False),
    ({"days": None, "per": "month", "timezone": "Europe/Paris"}, on(3) | {"value": 6}, 7, True),
    ({}, on(3) | {"value": 6, "shops": ["harbour"]}, 7, False),  # not meant for them
    ({}, on(3) | {"value": 6, "exclude": ["dormant"]}, 7, False),
    ({}, on(3) | {"value": 6, "topic": "news"}, 7, False),  # no consent to it
    ({}, on(3) | {"value": 6, "hold_out": 1.0}, 7, False),
)
"""How winback's cap differs, how vip_thanks does, days of look-ahead, and whether winback leaves it the slot."""


def test_a_slot_is_kept_for_a_better_message_that_is_due_soon(
    engine: Engine, changed: Callable[..., Config]
) -> None:
    """22 November 2026 is a Sunday."""
    add_both(engine)
    for cap, other, look_ahead_days, keeps in KEEPS:
        config = competing(changed, ONE_A_WEEK | cap, vip_thanks=other, look_ahead_days=look_ahead_days)
        found = verdicts_of(engine, config, "winback")
        day = next(each for each in other["schedule"]["dates"] if each >= NOW.date())
        lost = ("lost_to", "one_a_week", f"vip_thanks of {day}")
        assert found[1] == SELECTED
        assert found[2][:3] == (lost if keeps else SELECTED[:3]), (cap, other, look_ahead_days)


def test_what_was_sent_today_is_no_rival_any_more(engine: Engine, changed: Callable[..., Config]) -> None:
    add_both(engine)
    config = competing(changed, ONE_A_WEEK, vip_thanks={"priority": 10, "exclude": ["dormant"]})
    run(engine, config, "vip_thanks", NOW)
    add_members(engine, "vip", [1], since=NOW - DAY / 24)
    config = competing(changed, ONE_A_WEEK, vip_thanks={"priority": 10})
    assert verdicts_of(engine, config, "winback") == {1: SELECTED, 2: SELECTED}


def test_plans_made_at_the_same_time_do_not_both_give_up(engine: Engine, changed: Callable[..., Config]) -> None:
    """Each is planned as if the other was still to come; together everybody gets one message, and one only."""
    add_both(engine)
    config = competing(changed, ONE_A_WEEK, vip_thanks={"value": 6})
    drafts = [make_plan(engine, config, name, as_of=NOW, now=NOW).plan_id for name in ("winback", "vip_thanks")]
    for plan_id in drafts:
        reserve(engine, config, plan_id, now=NOW, secret=SECRET)
    with reading(engine) as connection:
        sent = connection.execute(select(messages.c.customer_id, messages.c.what)).tuples().all()
    assert sorted(sent) == [(1, "winback"), (2, "vip_thanks")]


# Over several days


@dataclass(frozen=True)
class World:
    """People who are in the segments of campaigns, each of these due on one date within the look-ahead."""

    config: Config
    members: Mapping[str, Sequence[int]]
    shops: Mapping[int, str]

    @property
    def days(self) -> list[datetime]:
        return [NOW + days * DAY for days in range(7)]

    def offers(self) -> list[tuple[datetime, str, int]]:
        """In the order of the daily flow."""
        return [
            (day, campaign.name, person)
            for day in self.days
            for campaign in due(self.config, day)
            for person in self.members[campaign.name]
        ]


def due(config: Config, day: datetime) -> list[Campaign]:
    """As the daily flow runs them."""
    found = [each for each in config.campaigns.values() if each.schedule and each.schedule.is_due(day.date())]
    return sorted(found, key=lambda each: each.priority)


PEOPLE = range(1, 5)
PARIS = ZoneInfo("Europe/Paris")


def a_world(seed: int, changed: Callable[..., Config], look_ahead_days: int = 7) -> World:
    random = Random(seed)
    names = [f"campaign_{number}" for number in range(random.randint(2, 4))]
    members = {name: [i for i in PEOPLE if random.random() < 0.7] for name in names}
    like = with_caps(changed).campaigns_file.campaigns[0].model_dump()
    like |= {"exclude": []}
    campaigns = [
        like
        | {
            "name": name,
            "segments": [name],
            "schedule": {"dates": [(NOW + random.choice([0, 0, 1, 2, 3, 4, 6]) * DAY).date()]},
            "value": random.choice([1, 2, 3, 5, 8, 8, 13]),
            "priority": random.choice([10, 50, 50, 50]),
            "tags": random.choice([[], ["sale"]]),
        }
        for name in names
    ]
    windows: list[dict[str, Any]] = [
        *({"days": days} for days in (1, 3, 3, 7)),
        *({"per": per, "timezone": "Europe/Paris"} for per in ("day", "week")),
    ]
    caps = [
        random.choice(windows)
        | {"name": f"cap_{n}", "limit": random.choice([1, 1, 2]), "tags": random.choice([None, None, ["sale"]])}
        for n in range(random.randint(1, 2))
    ]
    quotas = [
        random.choice(windows) | {"name": f"quota_{n}", "limit": random.randint(1, 4)}
        for n in range(random.choice([0, 0, 1, 2]))
    ]
    config = changed(
        caps_file={"caps": caps, "quotas": quotas},
        campaigns_file={"global_hold_out": 0, "campaigns": campaigns, "look_ahead_days": look_ahead_days},
    )
    return World(config, members, {i: random.choice(["atlas", "harbour"]) for i in PEOPLE})


def test_day_after_day_the_best_possible_is_reached(engine: Engine, changed: Callable[..., Config]) -> None:
    """Nobody who knows all dates beforehand could do better; first come, first served often does worse."""
    found, first = [], []
    for seed in (207, 208, 209, 232):
        world = a_world(seed, changed)
        sent = lived(engine, world)
        assert allowed(world, sent)
        assert totals(world, sent) == max(totals(world, each) for each in every_choice(world)), seed
        found.append(totals(world, sent))
        first.append(totals(world, first_come(world)))
        short_sighted = lived(engine, a_world(seed, changed, look_ahead_days=0))
        assert totals(world, short_sighted) <= found[-1]
    assert all(one >= other for one, other in zip(found, first, strict=True))
    assert sum(one > other for one, other in zip(found, first, strict=True)) == 3


def lived(engine: Engine, world: World) -> list[tuple[datetime, str, int]]:
    """What was sent when each day every campaign that is due is planned, reserved and delivered in turn."""
    clear(engine)
    add_people(engine, PEOPLE, shops=world.shops, segment="everybody")
    for name, people in world.members.items():
        if people:
            add_members(engine, name, people, since=NOW - DAY)
    for day in world.days:
        for campaign in due(world.config, day):
            run(engine, world.config, campaign.name, day)
    with reading(engine) as connection:
        query = select(messages.c.sent_at, messages.c.what, messages.c.customer_id).order_by(messages.c.message_id)
        return [tuple(row) for row in connection.execute(query)]


def run(engine: Engine, config: Config, campaign: str, at: datetime) -> None:
    plan = make_plan(engine, config, campaign, as_of=at, now=at)
    reserved = reserve(engine, config, plan.plan_id, now=at, secret=SECRET)
    assert reserved.reserved == plan.messages
    with writing(engine) as connection:
        proof = {"sent_at": at, "settled_at": at, "provider_id": cast(messages.c.message_id, Text)}
        connection.execute(
            update(messages).where(messages.c.state == "reserved").values(state="accepted", **proof)
        )


Sent = list[tuple[datetime, str, int]]


def every_choice(world: World) -> Iterator[Sent]:
    """Rules look back only, so that what is not allowed with those before it never will be."""

    def from_here(offers: Sent, taken: Sent) -> Iterator[Sent]:
        if not offers:
            yield taken
            return
        more = [*taken, offers[0]]
        if fits(world, more):
            yield from from_here(offers[1:], more)
        yield from from_here(offers[1:], taken)

    return from_here(world.offers(), [])


def first_come(world: World) -> Sent:
    taken: Sent = []
    for offer in world.offers():
        if fits(world, [*taken, offer]):
            taken.append(offer)
    return taken


def allowed(world: World, sent: Sent) -> bool:
    return all(fits(world, sent[: place + 1]) for place in range(len(sent)))


def fits(world: World, sent: Sent) -> bool:
    """Whether the last of them was allowed after the others."""
    at, _, person = sent[-1]
    campaigns = world.config.campaigns
    for cap in world.config.caps_file.caps:
        concerned = [each for each in sent if cap.tags is None or set(cap.tags) & set(campaigns[each[1]].tags)]
        mine = [each for each in concerned if each[2] == person and in_window(cap, each[0], at)]
        if sent[-1] in concerned and len(mine) > (cap.limit or 0):
            return False
    for quota in world.config.caps_file.quotas:
        here = [
            each for each in sent if world.shops[each[2]] == world.shops[person] and in_window(quota, each[0], at)
        ]
        assert isinstance(quota.limit, int)
        if len(here) > quota.limit:
            return False
    return True


def in_window(rule: Any, sent_at: datetime, at: datetime) -> bool:
    if rule.per is None:
        return bool(at - timedelta(days=rule.days) < sent_at <= at)
    there, here = sent_at.astimezone(PARIS), at.astimezone(PARIS)
    return (
        (there.date() == here.date()) if rule.per == "day" else there.isocalendar()[:2] == here.isocalendar()[:2]
    )


def totals(world: World, sent: Sent) -> tuple[int, ...]:
    """Of each class of priority, the first one first."""
    campaigns = world.config.campaigns
    classes = sorted({campaign.priority for campaign in campaigns.values()})
    values = [(campaigns[name].priority, int(campaigns[name].value or 0)) for _, name, _ in sent]
    return tuple(sum(value for priority, value in values if priority == each) for each in classes)


# In words


def test_why_a_slot_was_kept_or_lost(engine: Engine, changed: Callable[..., Config]) -> None:
    add_both(engine)
    config = competing(changed, ONE_A_WEEK, vip_thanks=on(3) | {"value": 6})
    plan = make_plan(engine, config, "winback", as_of=NOW, now=NOW)
    change(engine, plans, plans.c.plan_id == plan.plan_id, status="applied", applied_at=NOW)
    assert why(engine, "2", campaign="winback") == [
        "winback of 2026-11-22: not sent, lost_to: vip_thanks of 2026-11-25 goes first or is worth more, and the "
        "slot is kept for it: rule one_a_week allows 1 message in 7 days; free again on 2026-12-02 09:00 UTC."
    ]


def test_why_of_quotas_and_calendar_caps(engine: Engine, changed: Callable[..., Config]) -> None:
    month = {"per": "month", "timezone": "Europe/Paris"}
    add_people(engine, [1, 2, 3])
    [earlier] = add_messages(engine, [message(3, NOW - 20 * DAY, what="winback")])
    config = competing(
        changed, {"name": "one_a_month", "limit": 1} | month, quotas=[{"name": "few", "limit": 2} | month]
    )
    verdicts_of(engine, config, "winback")
    [sentence] = why(engine, "2", campaign="winback")
    assert sentence == (
        "winback of 2026-11-22 (plan 1, not applied): would not be sent, quota: the slots of quota few of atlas "
        "per month (Europe/Paris) were used up, or went to messages that are worth more; free again on "
        "2026-11-30 23:00 UTC."
    )
    assert why(engine, "3", campaign="winback")[0] == (
        "winback of 2026-11-22 (plan 1, not applied): would not be sent, capped: rule one_a_month allows 1 "
        f"message per month (Europe/Paris) and message {earlier} (winback, 2 Nov) fills it; free again on "
        "2026-11-30 23:00 UTC."
    )


def test_why_of_quiet_hours_and_policy(engine: Engine, changed: Callable[..., Config]) -> None:
    add_people(engine, [1, 2])
    change(engine, customers, customers.c.customer_id == 1, timezone="America/New_York")
    change(engine, customers, customers.c.customer_id == 2, email_key="x1@privaterelay.appleid.com")
    change(engine, consents, consents.c.customer_id == 2, basis="soft_opt_in")
    config = competing(changed, quiet_hours="21:00-08:00")
    plan = make_plan(engine, config, "winback", as_of=NOW, now=NOW)
    assert plan.counts == {"policy": 1, "quiet_hours": 1, "selected": 0}
    assert why(engine, "1", campaign="winback") == [
        "winback of 2026-11-22 (plan 1, not applied): would be sent from atlas in en, at 2026-11-22 13:00 UTC "
        "when their quiet hours end."
    ]
    [sentence] = why(engine, "2", campaign="winback")
    assert sentence.startswith(
        "winback of 2026-11-22 (plan 1, not applied): would not be sent, policy: email_apple_relay_addresses "
        'forbids it: "An address that Apple hides is written to for marketing only with '
    )
    assert "@" not in sentence
    reserved = reserve(engine, config, plan.plan_id, now=NOW, secret=SECRET)
    assert reserved.reserved == 1
    assert why(engine, "1", campaign="winback")[0] == (
        "winback of 2026-11-22: reserved at 2026-11-22 09:00 UTC, to be sent from atlas in en, not before "
        "2026-11-22 13:00 UTC."
    )
