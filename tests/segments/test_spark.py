"""The same metrics on a cluster: two executors, each a process of its own. `make spark` runs this."""

from __future__ import annotations

import importlib.util
import random
import shutil
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from lifecycle.db.engine import writing
from lifecycle.db.schema import event_classes, identities, message_events, messages
from lifecycle.segments.engines import open_compute
from lifecycle.segments.engines.spark import OnSpark
from lifecycle.segments.metrics import Sources
from lifecycle.settings.segments import CountedOrders
from tests.segments.history import NOW, Order, add_customers, add_orders
from tests.segments.test_engines import assert_same

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="pyspark is absent: make spark"),
    pytest.mark.skipif(shutil.which("java") is None, reason="Java is absent: openjdk-17-jre-headless"),
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("default"),
]
PEOPLE = range(1, 801)


def test_a_cluster_computes_what_the_database_does(engine: Engine) -> None:
    chance = random.Random(7)
    add_customers(engine, PEOPLE)
    add_orders(engine, [an_order(chance) for _ in range(4_000)])
    add_known(engine)
    add_messages(engine, chance)
    all_kinds = Sources(CountedOrders(statuses=("paid", "open"), totals="any"))
    no_guests = Sources(CountedOrders(guests="drop", currency="EUR"))
    with open_compute("spark", engine, env={"TERN_SPARK_MASTER": "local-cluster[2,1,1024]"}) as compute:
        assert isinstance(compute, OnSpark)
        assert_same(engine, compute, Sources(CountedOrders(), (30, 90)), NOW)
        assert_same(engine, compute, all_kinds, a_while_ago(40))
        assert_same(engine, compute, no_guests, a_while_ago(365))
        tasks = tasks_by_executor(compute.session)
    assert len(tasks) == 2
    assert all(tasks.values()), f"an executor had nothing to do: {tasks}"


def an_order(chance: random.Random) -> Order:
    """Few different instants, so that orders coincide."""
    status = chance.choice(["paid"] * 8 + ["refunded", "returned", "open", "cancelled"])
    total = chance.choice([0, 1, 2_500, 9_900, 50_001])
    at = a_while_ago(chance.randrange(800), chance.choice([-1, 0, 1]))
    given_back = total > 0 and (status == "refunded" or (status == "paid" and chance.random() < 0.1))
    return Order(
        customer=chance.choice([None, *PEOPLE]),
        at=at,
        total=-total if status == "returned" else total,
        status=status,
        shop=chance.choice(["atlas", "harbour"]),
        refund=(total if status == "refunded" else total // 2) if given_back else 0,
        refunded_at=at + timedelta(days=chance.randrange(90)) if given_back else None,
    )


def add_known(engine: Engine) -> None:
    """Half of the people have an identity."""
    known = {"shop": "atlas", "linked_by": "platform_id", "linked_at": NOW}
    rows = [known | {"platform_customer_id": str(who), "customer_id": who} for who in PEOPLE[::2]]
    with writing(engine) as connection:
        connection.execute(insert(identities), rows)


def add_messages(engine: Engine, chance: random.Random) -> None:
    """One to everybody, opened or clicked; some versions of the rules say that it was a person."""
    words = ("what", "occurrence", "channel", "purpose", "shop", "template", "locale", "address_hash")
    sent: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    for who in PEOPLE:
        at = a_while_ago(chance.randrange(400))
        message = dict.fromkeys(words, "x") | dict.fromkeys(("send_at", "reserved_at", "sent_at"), at)
        state = chance.choice(["accepted", "unknown", "refused"])
        sent.append(message | {"message_id": who, "customer_id": who, "batch": 1, "state": state})
        event = {"event_id": who, "message_id": who, "occurred_at": at, "source": "web"}
        events.append(event | {"kind": chance.choice(["opened", "clicked"])})
    judged = [
        {"event_id": who, "rules_version": version, "class": chance.choice(["person", "scanner"]), "evidence": ""}
        for who in PEOPLE
        for version in ("1", "2")[: chance.randrange(3)]
    ]
    with writing(engine) as connection:
        for table, rows in ((messages, sent), (message_events, events), (event_classes, judged)):
            connection.execute(insert(table), rows)


def a_while_ago(days: int, microseconds: int = 0) -> datetime:
    return NOW - timedelta(days=days, microseconds=microseconds)


def tasks_by_executor(session: Any) -> dict[str, int]:
    found = session.sparkContext._jsc.sc().statusStore().executorList(False)
    executors = [found.apply(i) for i in range(found.size())]
    return {each.id(): each.totalTasks() for each in executors if each.id() != "driver"}
