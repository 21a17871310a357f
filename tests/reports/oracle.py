"""The numbers of a report, counted one row after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

from lifecycle.reports.records import Measure
from tests.reports.ledger import Ledger, Row

BEST_FIRST = ("person", "proxy", "unknown", "prefetch", "scanner")


class Oracle:
    def __init__(self, ledger: Ledger, plans: set[int], as_of: datetime, attribution_days: int) -> None:
        self.ledger, self.plans, self.days = ledger, plans, attribution_days
        self.as_of = as_of
        self.events = [event for event in ledger.events if event["occurred_at"] <= as_of]
        self.classes = {
            row["event_id"]: row["class"] for row in ledger.classes if row["rules_version"] == ledger.rules_version
        }
        self.revised = {
            (row["plan_id"], row["customer_id"]) for row in ledger.verdicts if row["revised_verdict"] is not None
        }
        self.messages = {row["message_id"]: row for row in ledger.messages}
        self.causes = [(self.cause(order), order) for order in ledger.orders]

    def counts(self, name: Callable[[Row], str | None]) -> dict[str, Counter[Measure]]:
        """By `name` of a verdict's or message's row."""
        found: dict[str, Counter[Measure]] = {}
        for verdict in self.ledger.verdicts:
            if verdict["plan_id"] in self.plans:
                final = verdict["revised_verdict"] or verdict["verdict"]
                found.setdefault(name(verdict) or "–", Counter())["verdict", final] += 1
        for message in self.messages.values():
            if message["plan_id"] in self.plans:
                found.setdefault(name(message) or "–", Counter()).update(self.of_message(message))
        return found

    def of_message(self, message: Row) -> Counter[Measure]:
        if (message["plan_id"], message["customer_id"]) in self.revised:
            return Counter()
        mine = [event for event in self.events if event["message_id"] == message["message_id"]]
        counts: Counter[Measure] = Counter({("state", message["state"]): 1})
        if message["state"] != "accepted":
            return counts
        if any(event["kind"] == "bounced" for event in mine):
            return counts + Counter({("bounced", ""): 1})
        for kind in ("opened", "clicked"):
            seen = {self.classes.get(event["event_id"], "unknown") for event in mine if event["kind"] == kind}
            if seen:
                counts[kind, min(seen, key=BEST_FIRST.index)] += 1
        for kind in ("unsubscribed", "complained"):
            counts[kind, ""] += any(event["kind"] == kind for event in mine)
        won = [order for cause, order in self.causes if cause == message["message_id"]]
        if won:
            counts["orders", ""] = len(won)
            counts["buyers", ""] = 1
            counts["revenue_minor", ""] = sum(row["total_base_minor"] - row["refunded_base_minor"] for row in won)
        return +counts

    def cause(self, order: Row) -> int | None:
        """The message whose click by a person was the last before the order."""
        if order["status"] != "paid" or order["total_minor"] <= 0 or order["ordered_at"] > self.as_of:
            return None
        clicks = [
            (event["occurred_at"], event["event_id"], event["message_id"])
            for event in self.events
            if event["kind"] == "clicked"
            and self.classes.get(event["event_id"]) == "person"
            and self.messages[event["message_id"]]["customer_id"] == order["customer_id"]
            and event["occurred_at"] < order["ordered_at"] <= event["occurred_at"] + timedelta(days=self.days)
        ]
        return max(clicks)[2] if clicks else None
