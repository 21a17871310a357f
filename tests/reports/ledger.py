"""A random ledger of two campaigns and an older one, as plain rows and in the database."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Table

from lifecycle.db.engine import writing
from lifecycle.db.schema import (
    VERDICTS,
    customers,
    event_classes,
    links,
    message_events,
    messages,
    orders,
    plans,
    runs,
    verdicts,
)
from lifecycle.planning.records import TO_SEND

START = datetime(2026, 11, 22, 8, tzinfo=UTC)
AS_OF = START + timedelta(days=9)
RUN = "daily-20261122T080000-0001"
OLD = "run-campaign-20261120T080000-0002"
SEGMENTS, LOCALES = ("dormant", "at_risk", "vip"), ("en", "fr", "pt-BR")
KINDS = ("opened", "clicked", "opened", "clicked", "unsubscribed", "bounced", "complained")
CLASSES = ("person", "person", "person", "proxy", "prefetch", "scanner", "unknown")
RULES = ("email_2_per_7_days", "<b>cap</b>", None)

Row = dict[str, Any]


@dataclass
class Ledger:
    """Rows as inserted."""

    people: int
    rules_version: str
    verdicts: list[Row] = field(default_factory=list)
    messages: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    classes: list[Row] = field(default_factory=list)
    orders: list[Row] = field(default_factory=list)

    def store(self, engine: Engine) -> None:
        with writing(engine) as connection:
            self._store_frame(connection)
            for table, rows in (
                (verdicts, self.verdicts),
                (messages, self.messages),
                (message_events, self.events),
                (event_classes, self.classes),
                (orders, self.orders),
            ):
                _insert(connection, table, rows)

    def _store_frame(self, connection: Connection) -> None:
        campaigns = {1: "winback", 2: "vip_thanks", 3: "winback"}
        _insert(
            connection,
            customers,
            [
                {"customer_id": n, "seed": n, "first_seen_at": START, "updated_at": START}
                for n in range(self.people)
            ],
        )
        _insert(
            connection,
            runs,
            [
                _run(RUN, "daily", None, START, {"sentences": ["Done."], "seconds": 30.0, "peak_mb": 210.0}),
                _run("a", "run-campaign", RUN, START, {"plan_id": 1, "campaign": "winback", "seconds": 12.0}),
                _run("b", "run-campaign", RUN, START, {"plan_id": 2, "campaign": "vip_thanks", "seconds": 9.5}),
                _run(OLD, "run-campaign", None, START - timedelta(days=2), {"plan_id": 3, "campaign": "winback"}),
            ],
        )
        _insert(
            connection,
            plans,
            [
                {"plan_id": plan, "campaign": campaign, "occurrence": f"2026-11-2{plan}", "as_of": START,
                 "created_at": START, "hash": "h", "status": "applied", "definition": {}, "run_id": None,
                 "audience": sum(row["plan_id"] == plan for row in self.verdicts)}
                for plan, campaign in campaigns.items()
            ],
        )  # fmt: skip
        _insert(
            connection,
            links,
            [
                {"plan_id": plan, "link_id": n, "url": f"https://shop.example/{n}", "label": f"Link {n}"}
                for plan in campaigns
                for n in (1, 2, 3)
            ],
        )


def random_ledger(seed: int, rules_version: str, *, people: int = 120, events: int = 600) -> Ledger:
    draw = random.Random(seed)
    ledger = Ledger(people, rules_version)
    for plan in (1, 2, 3):
        for customer in draw.sample(range(people), people * 2 // 3):
            _decide(draw, ledger, plan, customer)
    for number in range(1, events + 1):
        _happen(draw, ledger, number)
    for number in range(1, people * 2):
        _buy(draw, ledger, number)
    return ledger


def _decide(draw: random.Random, ledger: Ledger, plan: int, customer: int) -> None:
    verdict = draw.choice([*VERDICTS, *["selected"] * 30])
    to_send = verdict in TO_SEND
    revised = draw.choice(["suppressed", "capped"]) if to_send and draw.random() < 0.1 else None
    segment, locale = draw.choice(SEGMENTS), draw.choice(LOCALES)
    ledger.verdicts.append(
        {"plan_id": plan, "customer_id": customer, "verdict": verdict,
         "rule": draw.choice(RULES) if verdict == "capped" else None, "segment": segment,
         "locale": locale if to_send else draw.choice([locale, None]), "revised_verdict": revised,
         "revised_rule": draw.choice(RULES) if revised else None}
    )  # fmt: skip
    dropped = revised == "suppressed" and draw.random() < 0.7
    if not to_send or (revised and not dropped):
        return
    state = (
        "refused" if dropped else draw.choice(["accepted"] * 12 + ["refused", "refused", "unknown", "reserved"])
    )
    sent_at = START + timedelta(seconds=draw.randrange(600)) - timedelta(days=2 * (plan == 3))
    campaign = "vip_thanks" if plan == 2 else "winback"
    reason = None
    if dropped:
        reason = "suppressed since planning: complaint"
    elif state == "refused":
        reason = draw.choice([f"550 5.1.1 <p{customer}@example.com>: User unknown", "452 4.2.2 mailbox full"])
    ledger.messages.append(
        {"message_id": len(ledger.messages) + 1, "plan_id": plan, "what": campaign,
         "occurrence": f"2026-11-2{plan}", "customer_id": customer, "channel": "email", "purpose": "marketing",
         "shop": "atlas", "segment": segment, "template": "t", "locale": locale, "address_hash": str(customer),
         "batch": 1, "state": state, "send_at": sent_at, "reserved_at": sent_at,
         "sent_at": None if dropped else sent_at,
         "settled_at": sent_at if state in ("accepted", "refused") else None,
         "reason": reason}
    )  # fmt: skip


def _happen(draw: random.Random, ledger: Ledger, number: int) -> None:
    message, kind = draw.choice(ledger.messages), draw.choice(KINDS)
    if kind in ("bounced", "complained") and draw.random() < 0.8:
        kind = "opened"
    at = message["send_at"] + timedelta(seconds=draw.randrange(11 * 86_400))
    ledger.events.append(
        {"event_id": number, "message_id": message["message_id"], "kind": kind, "occurred_at": at,
         "link_id": draw.choice([1, 2, 3]) if kind == "clicked" else None, "source": "web"}
    )  # fmt: skip
    if kind in ("opened", "clicked"):
        for version, share in ((ledger.rules_version, 0.97), ("older rules", 0.5)):
            if draw.random() < share:
                ledger.classes.append(
                    {"event_id": number, "rules_version": version, "class": draw.choice(CLASSES), "evidence": ""}
                )


def _buy(draw: random.Random, ledger: Ledger, number: int) -> None:
    total, clicks = draw.choice([0, 500, 1999, 12_000]), [e for e in ledger.events if e["kind"] == "clicked"]
    near = draw.choice(clicks)
    customer = ledger.messages[near["message_id"] - 1]["customer_id"]
    at = near["occurred_at"] + draw.choice(
        [timedelta(0), timedelta(seconds=1), timedelta(days=draw.randrange(-2, 9))]
    )
    ledger.orders.append(
        {"order_key": number, "shop": "atlas", "order_id": str(number),
         "customer_id": draw.choice([customer, customer, customer, None]), "ordered_at": at, "updated_at": at,
         "status": draw.choice(["paid", "paid", "paid", "cancelled", "returned"]), "currency": "EUR",
         "total_minor": total, "total_base_minor": total,
         "refunded_base_minor": total // 4 * draw.choice([0, 0, 1]), "line_count": 1, "content_hash": "h",
         "landed_at": at}
    )  # fmt: skip


def _run(run_id: str, flow: str, parent: str | None, at: datetime, summary: Row) -> Row:
    end = at + timedelta(minutes=30)
    return {"run_id": run_id, "flow": flow, "parent_run_id": parent, "parameters": {}, "state": "completed",
            "started_at": at, "heartbeat_at": at, "ended_at": end, "summary": summary}  # fmt: skip


def _insert(connection: Connection, table: Table, rows: list[Row]) -> None:
    if rows:
        connection.execute(table.insert(), rows)
