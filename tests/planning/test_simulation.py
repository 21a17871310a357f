"""A simulation against real plans and reservations of the same days, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, bindparam, insert, select, update

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import (
    consents,
    customer_metrics,
    customers,
    messages,
    metadata,
    orders,
    segment_members,
    suppressions,
)
from lifecycle.errors import PlanError, UsageError
from lifecycle.ledger.reserve import reserve
from lifecycle.planning.plan import make_plan
from lifecycle.planning.simulation.records import Simulation
from lifecycle.planning.simulation.replay import simulate
from lifecycle.planning.simulation.world import Decision
from lifecycle.segments.backfill import backfill
from lifecycle.settings import Config
from lifecycle.settings.models import CampaignsFile, CapRule, CapsFile, ShopsFile
from tests.planning.people import (
    SECRET,
    SEEDS,
    add_messages,
    clear,
    consent,
    hashed,
    message,
    note_build,
    verdict_rows,
)
from tests.segments.history import Order, add_orders

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
PEOPLE = range(1, 31)
FIRST = date(2026, 10, 23)
"""The clocks of Paris go back on the 25th."""
NOW = datetime(2026, 12, 31, tzinfo=UTC)
Told = dict[int, tuple[str, str | None]]


class World:
    """A random one: people, what they said and bought, where they belong, and rules for them."""

    def __init__(self, engine: Engine, changed: Callable[..., Config], seed: int, days: int) -> None:
        self.engine, self.random, self.days = engine, Random(seed), days
        self.begin = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC)
        self.config = self._config(changed())
        clear(engine)
        self._add_people()
        self._add_facts()
        self._add_spans()
        self._add_past()

    def some(self) -> datetime:
        """An instant within the range or around it."""
        hours = self.random.randrange(-72, 24 * self.days + 24)
        return self.begin + hours * HOUR + self.random.choice([0, 0, 1]) * timedelta(minutes=30)

    def _config(self, config: Config) -> Config:
        file = config.campaigns_file.model_dump()
        vip, winback = file["campaigns"]
        own = [
            vip | self._campaign(["vip"]) | {"hold_out": 0.2},
            winback | self._campaign(["at_risk", "dormant"]) | {"exclude": self.random.choice([[], ["new"]])},
            winback | self._campaign(["dormant", "vip"]) | {"name": "news", "tags": ["news"]},
            winback | self._campaign(["vip", "new", "dormant"]) | {"name": "review", "purpose": "review_request"},
        ]
        own[2] |= self.random.choice([{}, {"topic": "news"}, {"shops": ["harbour"]}, {"drop_when_ordered": False}])
        file |= {
            "campaigns": own,
            "global_hold_out": 0.1,
            "look_ahead_days": self.random.choice([0, 1, 3]),
            "guards": {"max_growth": None},
        }
        shops = config.shops_file.model_dump()
        third = shops["shops"][1] | {"name": "bazaar", "platform": "file", "marketplace": "amazon"}
        shops["shops"] = [*shops["shops"], third | {"service_level": "good"}]
        caps: dict[str, Any] = {"caps": self._caps(), "quotas": self._quotas()}
        return replace(
            config,
            campaigns_file=CampaignsFile.model_validate(file),
            shops_file=ShopsFile.model_validate(shops),
            caps_file=CapsFile.model_validate(caps),
        )

    def _campaign(self, segments: list[str]) -> dict[str, Any]:
        dates = [FIRST + n * DAY for n in range(-2, self.days + 4)]
        weekdays = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
        schedules = [
            None,
            {"weekdays": self.random.sample(weekdays, 4)},
            {"dates": self.random.sample(dates, len(dates) // 2)},
        ]
        return {
            "segments": segments,
            "exclude": [],
            "priority": self.random.choice([10, 50, 50]),
            "value": self.random.choice(["1.5", "2", "40"]),
            "schedule": self.random.choice(schedules),
            "hold_out": 0,
        }

    def _window(self) -> dict[str, Any]:
        return self.random.choice(
            [
                *({"days": days} for days in (1, 2, 3, 30)),
                {"hours": 36},
                *({"per": per, "timezone": "Europe/Paris"} for per in ("day", "week", "month")),
            ]
        )

    def _caps(self) -> list[dict[str, Any]]:
        return [
            self._window()
            | {
                "name": f"cap_{number}",
                "limit": self.random.choice([1, 1, 2, 3, None]),
                "campaigns": self.random.choice([None, None, ["winback"], ["vip_thanks", "news"]]),
                "tags": self.random.choice([None, None, None, ["news"]]),
                "shops": self.random.choice([None, None, ["atlas"]]),
                "segments": self.random.choice([None, None, ["vip", "new"]]),
                "purposes": self.random.choice([None, None, ["marketing"], ["marketing", "transactional"]]),
                "scope": self.random.choice(["customer", "customer", "customer_and_shop", "address"]),
                "learns_from_refusals": self.random.random() < 0.2,
            }
            for number in range(self.random.randint(1, 4))
        ]

    def _quotas(self) -> list[dict[str, Any]]:
        return [
            self._window()
            | {
                "name": f"quota_{number}",
                "limit": self.random.choice([2, 5, 9, None]),
                "scope": self.random.choice(["shop", "channel", "sender_domain"]),
                "campaigns": self.random.choice([None, None, ["winback", "news"]]),
                "shops": self.random.choice([None, None, ["atlas", "bazaar"]]),
            }
            for number in range(self.random.choice([0, 1, 1, 2]))
        ]

    def _add_people(self) -> None:
        rows = [
            {
                "customer_id": i,
                "email": None if i % 13 == 0 else f"c{i}@{self._domain(i)}",
                "email_key": None if i % 13 == 0 else f"c{i}@{self._domain(i)}",
                "email_hash": None if i % 13 == 0 else hashed(i),
                "seed": SEEDS[i] if i % 3 else i,
                "first_seen_at": self.begin - 900 * DAY,
                "updated_at": self.begin,
                "country": self.random.choice([None, "FR", "DE", "GB", "US", "CA", "CN", "IT"]),
            }
            for i in PEOPLE
        ]
        with writing(self.engine) as connection:
            connection.execute(insert(customers), rows)

    def _domain(self, i: int) -> str:
        return "marketplace.amazon.co.uk" if i % 11 == 0 else "example.com"

    def _add_facts(self) -> None:
        facts = {}
        for _ in range(4 * len(PEOPLE)):
            long_ago = self.random.random() < 0.6
            at = self.begin - self.random.choice([60, 400, 900]) * DAY if long_ago else self.some()
            if self.random.random() < 0.2:  # reconfirmed some years later, within the range
                at = self.some() - self.random.choice([2, 3, 4]) * 365 * DAY
            status = "granted" if long_ago else self.random.choice(["granted", "withdrawn", "pending"])
            fact = consent(
                self.random.choice(PEOPLE),
                at=at,
                status=status,
                shop=self.random.choice(["atlas", "atlas", "harbour", "bazaar", "gone"]),
                topic=self.random.choice(["promotions"] * 4 + ["news"]),
                basis=self.random.choice(["express", "express", "double_opt_in", "soft_opt_in"]),
                recorded_at=at + self.random.choice([0, 0, -30]) * HOUR,
                expires_at=self.some() if status == "granted" and self.random.random() < 0.2 else None,
            )
            facts[tuple(str(fact[key]) for key in ("customer_id", "shop", "topic", "status", "occurred_at"))] = (
                fact
            )
        bans = [
            {
                "address_hash": hashed(self.random.choice(PEOPLE)),
                "channel": "email",
                "shop": self.random.choice([None, "atlas"]),
                "purpose": self.random.choice(["marketing", "all"]),
                "reason": self.random.choice(["unsubscribe", "complaint", "hard_bounce"]),
                "evidence": "test",
                "occurred_at": (at := self.some()),
                "recorded_at": at + self.random.choice([0, 20, -20]) * HOUR,
                "lifted_at": at + self.random.randrange(60) * HOUR if self.random.random() < 0.5 else None,
            }
            for _ in range(8)
        ]
        with writing(self.engine) as connection:
            connection.execute(insert(consents), list(facts.values()))
            connection.execute(insert(suppressions), bans)
        self._add_orders()

    def _add_orders(self) -> None:
        """Everybody has one that counts for ever: who is in a segment has bought somewhere."""
        history = [
            Order(i, self.begin - 400 * DAY, 100, shop=self.random.choice(["atlas", "gone"])) for i in PEOPLE
        ]
        for _ in range(5 * len(PEOPLE)):
            at = self.some() if self.random.random() < 0.4 else self.begin - self.random.randrange(1, 300) * DAY
            status = self.random.choice(["paid", "paid", "paid", "open", "refunded", "cancelled", "returned"])
            refund = 100 if status == "refunded" else 0
            shop = self.random.choice(["atlas", "atlas", "harbour", "bazaar", "bazaar", "gone"])
            back_at = max(at, self.some()) if refund else None
            total = -100 if status == "returned" else 100
            history.append(Order(self.random.choice(PEOPLE), at, total, status, shop, refund, back_at))
        add_orders(self.engine, history)
        delivered = [
            {"key": key, "delivered": order.at + self.random.choice([1, 3, 20]) * DAY}
            for key, order in enumerate(history, start=1)
        ]
        numbers = dict.fromkeys(("frequency", "order_days", "order_lines", "orders_12m", "r", "f", "m"), 1)
        numbers |= dict.fromkeys(("gross_minor", "refunded_minor", "monetary_minor", "spend_12m_minor"), 1)
        instants = {"first_order_at": self.begin, "last_order_at": self.begin}
        kept = [
            {"customer_id": i, "last_shop": self.random.choice(["atlas", "harbour"]), "rfm_segment": "x"}
            | numbers
            | instants
            for i in PEOPLE
        ]
        change = update(orders).where(orders.c.order_key == bindparam("key"))
        with writing(self.engine) as connection:
            connection.execute(change.values(delivered_at=bindparam("delivered")), delivered)
            connection.execute(insert(customer_metrics), kept)

    def _add_spans(self) -> None:
        """Built on most days."""
        builds = [
            self.begin + number * DAY + self.random.choice([0, 5]) * HOUR
            for number in range(-2, self.days + 1)
            if number in (-1, 0) or self.random.random() < 0.8
        ]
        for build in builds:
            note_build(self.engine, build)
        rows = []
        for segment in ("vip", "dormant", "at_risk", "new"):
            for i in PEOPLE:
                edges = sorted(build for build in builds if self.random.random() < 0.4)
                for place, since in enumerate(edges):
                    until = edges[place + 1] if place + 1 < len(edges) else None
                    if self.random.random() < 0.7:
                        span = {"segment": segment, "customer_id": i, "valid_from": since, "valid_to": until}
                        rows.append(span)
        with writing(self.engine) as connection:
            connection.execute(insert(segment_members), rows)

    def _add_past(self) -> None:
        """Before the first midnight in Paris."""
        midnight = self.begin - 2 * HOUR
        rows = []
        for number in range(60):
            at = midnight - self.random.choice([0.1, 10, 40, 400]) * HOUR - timedelta(seconds=number)
            state = self.random.choice(["reserved", "accepted", "accepted", "accepted", "unknown", "refused"])
            what = self.random.choice(["vip_thanks", "winback", "news", "review", "bill"])
            rows.append(
                message(
                    self.random.choice(PEOPLE),
                    at,
                    what=what,
                    occurrence=f"earlier {number}",
                    purpose={"review": "review_request", "bill": "transactional"}.get(what, "marketing"),
                    tags=",news," if what == "news" else None,
                    channel=self.random.choice(["email", "email", "chat"]),
                    shop=self.random.choice(["atlas", "harbour", "bazaar", "closed"]),
                    state=state,
                    refusal=self.random.choice([None, "buyer"]) if state == "refused" else None,
                    address_hash=hashed(self.random.choice(PEOPLE)),
                )
            )
        add_messages(self.engine, rows)

    def at(self, number: int) -> datetime:
        """09:00 in Paris."""
        return self.begin + number * DAY + (7 if FIRST + number * DAY < date(2026, 10, 25) else 8) * HOUR

    def simulated(self, **options: Any) -> dict[tuple[date, str], Told]:
        found: dict[tuple[date, str], Told] = {}

        def note(decision: Decision) -> None:
            verdicts = [decision.told[number] for number in decision.number.tolist()]
            people = decision.customer_id.tolist()
            found[decision.day.date, decision.campaign] = dict(zip(people, verdicts, strict=True))

        last = FIRST + (self.days - 1) * DAY
        simulate(self.engine, self.config, first=FIRST, last=last, now=NOW, on_decision=note, **options)
        return found

    def planned(self, campaign: str, at: datetime) -> tuple[int, Told]:
        plan = make_plan(self.engine, self.config, campaign, as_of=at, now=at)
        rows = verdict_rows(self.engine, plan.plan_id)
        night = {"quiet_hours": "selected"}
        told = {i: night.get(row.verdict, row.verdict) for i, row in rows.items()}
        return plan.plan_id, {i: (told[i], rows[i].rule if told[i] == rows[i].verdict else None) for i in rows}

    def sent(self, plan_id: int, at: datetime) -> None:
        """As if every message had been accepted at once."""
        reserve(self.engine, self.config, plan_id, now=at, secret=SECRET)
        with writing(self.engine) as connection:
            done = update(messages).where(messages.c.plan_id == plan_id)
            connection.execute(done.values(state="accepted", sent_at=messages.c.send_at))


ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""What the databases have no part in."""
OURS: Any = {"phases": [Phase.generate], "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=2, **OURS)
@given(seed=st.integers(0, 2**32))
def test_days_equal_real_plans_and_reservations(engine: Engine, changed: Callable[..., Config], seed: int) -> None:
    world = World(engine, changed, seed, days=3)

    found = world.simulated()

    for number in range(world.days):
        today, at = FIRST + number * DAY, world.at(number)
        for campaign in world.config.due(today):
            plan_id, told = world.planned(campaign.name, at)
            assert found.pop((today, campaign.name)) == told, (today, campaign.name)
            world.sent(plan_id, at)
    assert not found


@settings(max_examples=2, **OURS)
@given(seed=st.integers(0, 2**32))
def test_one_day_equals_a_plan_of_that_instant(engine: Engine, changed: Callable[..., Config], seed: int) -> None:
    world = World(engine, changed, seed, days=1)
    found = world.simulated()
    for campaign in world.config.due(FIRST)[:1]:
        assert found[FIRST, campaign.name] == world.planned(campaign.name, world.at(0))[1]


def simulated(world: World, config: Config | None = None, other: Config | None = None) -> Simulation:
    last = FIRST + (world.days - 1) * DAY
    return simulate(world.engine, config or world.config, first=FIRST, last=last, now=NOW, other=other)


def everything(engine: Engine) -> dict[str, list[Any]]:
    with reading(engine) as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(table)))) for table in metadata.sorted_tables
        }


def looser(config: Config) -> Config:
    """Caps one higher, no quotas, and nobody held out from winback."""
    caps = [cap.model_copy(update={"limit": (cap.limit or 0) + 1}) for cap in config.caps_file.caps]
    file = config.campaigns_file
    campaigns = [c.model_copy(update={"hold_out": 0.0, "schedule": None}) for c in file.campaigns]
    return replace(
        config,
        caps_file=CapsFile(caps=tuple(caps)),
        campaigns_file=file.model_copy(update={"campaigns": (*file.campaigns[:1], *campaigns[1:])}),
    )


def test_the_same_again_and_nothing_is_written(engine: Engine, changed: Callable[..., Config]) -> None:
    world = World(engine, changed, seed=3, days=3)
    before = everything(engine)
    first, again = (simulated(world, other=looser(world.config)) for _ in range(2))
    assert first.as_dict() == again.as_dict()
    assert first.people_frame().equals(again.people_frame())
    assert first.days_frame().equals(again.days_frame())
    assert everything(engine) == before


def test_other_rules_beside_the_configured_ones_come_to_what_they_come_to_alone(
    engine: Engine, changed: Callable[..., Config]
) -> None:
    world = World(engine, changed, seed=4, days=3)
    other = looser(world.config)
    both, alone = simulated(world, other=other), simulated(world, other)
    assert both.other is not None
    assert both.configured.counts == simulated(world).configured.counts != both.other.counts
    assert both.other.counts == alone.configured.counts
    assert both.other.slots == alone.configured.slots
    assert both.other.messages.tolist() == alone.configured.messages.tolist()


@ON_SQLITE
def test_tables_add_up(engine: Engine, changed: Callable[..., Config]) -> None:
    world = World(engine, changed, seed=5, days=6)
    midnight = world.begin - 2 * HOUR
    late, early = midnight + 5 * DAY, midnight - timedelta(microseconds=1)
    really = [message(1, late), message(2, late, state="unknown"), message(3, late, state="refused")]
    really += [message(4, early, occurrence="x"), message(5, late, purpose="transactional", what="bill")]
    add_messages(engine, really)
    found = simulated(world, other=looser(world.config))
    assert found.other is not None and found.really.sent == 2
    for each in (found.really, found.configured, found.other):
        assert each.sent == each.sends().total() == each.by_month().total() == int(each.messages.sum())
    for rows in (found.campaign_rows(), found.month_rows()):
        *parts, total = rows
        assert {key: sum(part[key] for part in parts) for key in list(total)[1:]} == dict(list(total.items())[1:])
        assert total["difference"] == found.other.sent - found.configured.sent == int(found.difference.sum())
        assert total["sent"] == 2
    everybody = found.segment_rows()[-1]
    assert everybody["people"] == len(found.customer_ids)
    assert everybody["more"] + everybody["fewer"] + everybody["the same"] == everybody["people"]
    assert sum(row["other"] for row in found.distribution_rows()) == len(found.customer_ids)
    days = found.days_frame()
    told = days[(days["rules"] == "other") & (days["verdict"] != "selected")]["people"].sum()
    assert told == sum(row["other"] for row in found.refusal_rows())
    assert found.people_frame()["difference"].tolist() == found.difference.tolist()


@ON_SQLITE
def test_without_other_rules_the_configured_ones_are_compared_with_what_was_sent(
    engine: Engine, changed: Callable[..., Config]
) -> None:
    world = World(engine, changed, seed=6, days=3)
    add_messages(engine, [message(1, world.at(1)), message(1, world.at(2)), message(2, world.at(2), what="gone")])
    found = simulated(world)
    assert found.names == ("sent", "simulated")
    frame = found.people_frame().set_index("customer_id")
    assert (frame["messages_now"][1], frame["messages_now"][2]) == (2, 1)
    rows = {row["campaign"]: row["sent"] for row in found.campaign_rows()}
    assert (rows["vip_thanks"], rows["gone"], rows["all"]) == (2, 1, 3)
    assert found.sentence().startswith("3 days from 2026-10-23 to 2026-10-25: 3 messages sent, ")


@ON_SQLITE
@pytest.mark.parametrize("seed", range(2))
def test_of_one_campaign_a_stricter_cap_sends_nobody_more(
    engine: Engine, changed: Callable[..., Config], seed: int
) -> None:
    world = World(engine, changed, seed, days=12)
    news = world.config.campaign("winback").model_copy(update={"schedule": None})
    file = world.config.campaigns_file.model_copy(update={"campaigns": (news,)})

    def with_limit(limit: int) -> Config:
        cap = CapRule(name="cap", limit=limit, days=4)
        return replace(world.config, campaigns_file=file, caps_file=CapsFile(caps=(cap,)))

    found = simulated(world, with_limit(3), other=with_limit(1))
    assert (found.difference <= 0).all() and found.difference.sum() < 0


def test_other_segments_are_built_in_memory_as_a_backfill_stores_them(
    engine: Engine, changed: Callable[..., Config]
) -> None:
    world = World(engine, changed, seed=7, days=5)
    backfill(engine, world.config, first=FIRST - DAY, last=FIRST + 5 * DAY, now=NOW)
    file = world.config.segments_file
    rules = file.model_dump(by_alias=True, exclude_unset=True) | {"windows": [77]}
    same = replace(world.config, segments_file=type(file).model_validate(rules))
    found = simulated(world, other=same)
    assert found.other is not None and found.configured.sent > 0
    assert found.other.counts == found.configured.counts
    fewer = rules | {"segments": rules["segments"] | {"dormant": {"rule": "dormant", "days": 900}}}
    found = simulated(world, other=replace(world.config, segments_file=type(file).model_validate(fewer)))
    assert found.other is not None and found.other.counts != found.configured.counts


@ON_SQLITE
def test_ranges_that_cannot_be_simulated(engine: Engine, changed: Callable[..., Config]) -> None:
    world = World(engine, changed, seed=8, days=3)
    at = world.at(2)
    for first, last, now, error, told in (
        (FIRST + DAY, FIRST, NOW, UsageError, "--to 2026-10-23 is before --from 2026-10-24"),
        (
            FIRST,
            FIRST + 2 * DAY,
            at - timedelta(seconds=1),
            UsageError,
            "09:00 Europe/Paris of that day is in the",
        ),
        (FIRST - 9 * DAY, FIRST, NOW, PlanError, "tern backfill segments --from 2026-10-14 --to 2026-10-23"),
        (FIRST + 9 * DAY, FIRST + 9 * DAY, NOW, PlanError, "no segments are built for 2026-11-01 to 2026-11-01"),
    ):
        with pytest.raises(error, match=told):
            simulate(engine, world.config, first=first, last=last, now=now)
    assert simulate(engine, world.config, first=FIRST, last=FIRST + 2 * DAY, now=at).days == 3
