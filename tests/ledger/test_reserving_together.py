"""Eight processes reserve plans for the same people at the same time, and are killed while they do."""

from __future__ import annotations

import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, insert, select

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import customer_metrics, messages, plans, verdicts
from lifecycle.ledger.audit import audit
from lifecycle.planning.plan import make_plan
from lifecycle.settings import Config
from tests.ledger.people import NOW, SECRET, add_people, numbered
from tests.ledger.reserving_process import reserve_all
from tests.planning.people import DAY, add_members, message, note_build

PEOPLE = 2_000
PROCESSES = 8
KILLS = 10
PARIS = ZoneInfo("Europe/Paris")
SHOPS = ("atlas", "harbour")
CAMPAIGNS: dict[str, dict[str, Any]] = {
    "sale": {"segments": ["everybody"], "tags": ["sale"]},
    "outlet": {"segments": ["third", "even"], "tags": ["sale"]},
    "news": {"segments": ["even"]},
    "thanks": {"segments": ["third"]},
}
DATES = [f"2026-11-{day}" for day in range(20, 23)]
CAPS: list[dict[str, Any]] = [
    {"name": "two_a_week", "limit": 2, "days": 7},
    {"name": "three_a_month", "limit": 3, "per": "month", "timezone": "Europe/Paris"},
    {"name": "one_sale_a_day", "limit": 1, "hours": 24, "tags": ["sale"]},
    {"name": "one_news_of_a_shop", "limit": 1, "days": 3, "campaigns": ["news"], "scope": "customer_and_shop"},
]
QUOTAS: list[dict[str, Any]] = [
    {"name": "shop_a_month", "limit": 1_000, "per": "month", "timezone": "Europe/Paris", "shops": ["atlas"]},
    {"name": "channel_a_day", "limit": 2_400, "hours": 24, "scope": "channel"},
]


@pytest.fixture
def together(config: Config, changed: Callable[..., Config]) -> Config:
    """Campaigns that are due on no date: their plans do not know of each other, and meet when they reserve."""
    like = config.campaign("winback").model_dump()
    like |= {"schedule": {"dates": ["2020-01-01"]}, "exclude": []}
    campaigns = [like | {"name": name, **columns} for name, columns in CAMPAIGNS.items()]
    return changed(
        caps_file={"caps": CAPS, "quotas": QUOTAS},
        campaigns_file={"global_hold_out": 0, "campaigns": campaigns},
    )


def test_reserving_together(engine: Engine, database_url: str, together: Config, tmp_path: Path) -> None:
    random = Random(20261122)
    add_audience(engine, random)
    planned = [
        make_plan(engine, together, name, as_of=NOW, now=NOW, occurrence=date)
        for name in CAMPAIGNS
        for date in DATES
    ]
    twice = [make_plan(engine, together, name, as_of=NOW, now=NOW, occurrence=DATES[-1]) for name in CAMPAIGNS]
    engine.dispose()

    killed = run_together(database_url, together, random)

    assert killed >= KILLS // 2, "hardly anybody died"
    findings = audit(engine, data_dir=tmp_path, now=NOW + timedelta(hours=1))
    assert [finding.sentence for finding in findings if not finding.passed] == []
    with reading(engine) as connection:
        status = dict(connection.execute(select(plans.c.plan_id, plans.c.status)).tuples().all())
        ledger = [dict(row) for row in connection.execute(select(messages)).mappings()]
        judged = [dict(row) for row in connection.execute(select(verdicts)).mappings()]
    applied = {plan_id for plan_id, state in status.items() if state == "applied"}
    dates = [(plan.campaign, plan.occurrence) for plan in [*planned, *twice] if plan.plan_id in applied]
    assert sorted(dates) == sorted((plan.campaign, plan.occurrence) for plan in planned), "each date once"
    check_nobody_is_lost(ledger, judged, applied)
    for plan in [*planned, *twice]:
        counted = Counter(row["verdict"] for row in judged if row["plan_id"] == plan.plan_id)
        assert +Counter(plan.counts) == counted and counted.total() == plan.audience
    check_caps(ledger)
    check_quotas(ledger)


def add_audience(engine: Engine, random: Random) -> None:
    """Half of each shop; every second and every third are in a segment too; some got messages before."""
    half = PEOPLE // 2
    people = [
        *add_people(engine, numbered(half), shop="atlas"),
        *add_people(engine, numbered(half, "client"), shop="harbour"),
    ]
    measured = {
        "first_order_at": NOW - 300 * DAY, "last_order_at": NOW - 200 * DAY, "rfm_segment": "hibernating"
    }  # fmt: skip
    numbers = (
        "frequency", "order_days", "order_lines", "gross_minor", "refunded_minor", "monetary_minor", "orders_12m",
        "spend_12m_minor", "r", "f", "m",
    )  # fmt: skip
    ones = measured | dict.fromkeys(numbers, 1)
    with writing(engine) as connection:
        rows = [ones | {"customer_id": i, "last_shop": _shop(i)} for i in people]
        connection.execute(insert(customer_metrics), rows)
    for segment, members in {"everybody": people, "even": people[::2], "third": people[::3]}.items():
        add_members(engine, segment, members, since=NOW - DAY)
    note_build(engine, NOW - DAY)
    past = []
    for number in range(300):
        whom, sent_at = random.choice(people), NOW - random.uniform(0.1, 45) * DAY
        columns = {"shop": _shop(whom), "occurrence": f"past {number}", "what": random.choice(list(CAMPAIGNS))}
        proof = {"provider_id": f"<{number}@past>", "settled_at": sent_at, "address_hash": f"of {whom}"}
        past.append(message(whom, sent_at, **columns, **proof))
    with writing(engine) as connection:
        connection.execute(insert(messages), past)


def _shop(customer_id: int) -> str:
    return "atlas" if customer_id <= PEOPLE // 2 else "harbour"


def run_together(database_url: str, config: Config, random: Random) -> int:
    """Until nothing is open. Whoever is killed is replaced; the first KILLS are to be. Returns how many were."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.ledger.reserving_process"])
    numbers = iter(range(1_000))

    def start() -> BaseProcess:
        number = next(numbers)
        lifespan = random.randint(1, 40) if number < KILLS else None
        arguments = (database_url, config, SECRET, NOW, number, lifespan)
        process = context.Process(target=reserve_all, args=arguments)
        process.start()
        return process

    living, killed = [start() for _ in range(PROCESSES)], 0
    try:
        while living:
            ready = wait([process.sentinel for process in living], timeout=60)
            assert ready, "nothing has happened for a minute"
            for process in [each for each in living if each.sentinel in ready]:
                process.join()
                living.remove(process)
                assert process.exitcode in (0, -signal.SIGKILL)
                if process.exitcode:
                    killed += 1
                    living.append(start())
    finally:
        for process in living:
            process.kill()
    return killed


def check_nobody_is_lost(ledger: list[dict[str, Any]], judged: list[dict[str, Any]], applied: set[int]) -> None:
    """Who was selected and not revised has exactly one message, and nobody else has one."""
    of_plans = Counter((row["plan_id"], row["customer_id"]) for row in ledger if row["plan_id"] is not None)
    left = Counter(
        (row["plan_id"], row["customer_id"])
        for row in judged
        if row["plan_id"] in applied and row["verdict"] == "selected" and row["revised_verdict"] is None
    )
    assert of_plans == left and set(of_plans.values()) == {1}
    keys = Counter(tuple(row[name] for name in ("what", "occurrence", "customer_id", "channel")) for row in ledger)
    assert max(keys.values()) == 1
    revised = Counter(row["revised_rule"] for row in judged if row["revised_verdict"] is not None)
    assert {"two_a_week", "one_sale_a_day"} <= set(revised)
    assert {quota["name"] for quota in QUOTAS} & set(revised), "which of them depends on who comes first"


def check_caps(ledger: list[dict[str, Any]]) -> None:
    """Each new message counted with those before it, one by one."""
    by_person = defaultdict(list)
    for row in sorted(ledger, key=lambda row: (row["send_at"], row["message_id"])):
        by_person[row["customer_id"]].append(row)
    for cap in CAPS:
        for theirs in by_person.values():
            counted = [row for row in theirs if _is_counted(cap, row)]
            for place, row in enumerate(counted):
                if row["plan_id"] is None:
                    continue
                same = [
                    other
                    for other in counted[: place + 1]
                    if _in_window(cap, other["send_at"], row["send_at"])
                    and ("scope" not in cap or other["shop"] == row["shop"])
                ]
                assert len(same) <= cap["limit"], cap["name"]


def check_quotas(ledger: list[dict[str, Any]]) -> None:
    """Counted at the time of each reservation."""
    full = set()
    for quota in QUOTAS:
        group, shops = quota.get("scope", "shop"), quota.get("shops", SHOPS)
        counted = [row for row in ledger if row["shop"] in shops]
        for at, name in {(row["reserved_at"], row[group]) for row in counted if row["plan_id"] is not None}:
            before = [row for row in counted if row[group] == name and row["send_at"] <= at]
            sent = sum(_in_window(quota, row["send_at"], at) for row in before)
            assert sent <= quota["limit"], quota["name"]
            if sent == quota["limit"]:
                full.add(quota["name"])
    assert full, "they had something to keep"


def _is_counted(cap: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    if "campaigns" in cap and row["what"] not in cap["campaigns"]:
        return False
    tags = (row["tags"] or "").split(",")
    return "tags" not in cap or any(tag in tags for tag in cap["tags"])


def _in_window(rule: Mapping[str, Any], sent_at: datetime, at: datetime) -> bool:
    if "per" in rule:
        there, here = sent_at.astimezone(PARIS), at.astimezone(PARIS)
        return (there.year, there.month) == (here.year, here.month)
    return at - timedelta(days=rule.get("days", 0), hours=rule.get("hours", 0)) < sent_at
