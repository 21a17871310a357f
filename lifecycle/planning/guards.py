"""What an operator should know about a plan before it is sent, and what a person must approve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, func, select

from lifecycle.db.schema import VERDICTS, plans, verdicts
from lifecycle.money import show
from lifecycle.planning.judgement import Judgement
from lifecycle.planning.records import TO_SEND, Plan, Slots, slots_of
from lifecycle.settings import Config


def summary(
    connection: Connection, judgement: Judgement, counts: Mapping[str, int], slots: Sequence[Slots]
) -> dict[str, Any]:
    """cost: of all messages, base currency, as text. channel_kind: as it was then. approved: locales of the
    template, or null. previous: plan_id, occurrence, audience and counts of the campaign's last applied plan of
    another date by the same channel, or null. changes: verdict to the difference. slots: what quotas came to.
    needs_approval: sentences."""
    config, approved = judgement.config, judgement.approved
    previous = _previous(connection, judgement)
    cost = _messages(counts) * judgement.channel.cost
    before = previous["counts"] if previous else {}
    return {
        "cost": str(cost),
        "channel_kind": judgement.channel_kind,
        "approved": None if approved is None else sorted(approved),
        "previous": previous,
        "changes": {v: counts.get(v, 0) - before.get(v, 0) for v in sorted({*counts, *before})}
        if previous
        else {},
        "slots": [each.as_dict() for each in slots],
        "needs_approval": list(_reasons(config, counts, previous, cost)),
    }


def verdict_rows(plan: Plan) -> list[dict[str, Any]]:
    """verdict, people, and the change since the campaign's last run, where there was one."""
    summary = plan.summary or {}
    changes, previous = summary.get("changes", {}), summary.get("previous")
    rows = []
    for verdict in VERDICTS:
        people, change = plan.counts.get(verdict, 0), changes.get(verdict, 0)
        if verdict in plan.counts or change:
            row: dict[str, Any] = {"verdict": verdict, "people": people}
            rows.append(row | ({f"since {previous['occurrence']}": f"{change:+,}"} if previous else {}))
    return rows


def slot_rows(plan: Plan, currency: str) -> list[dict[str, Any]]:
    """What the slots of each quota came to; `currency`: the base currency, in which their worth is written."""
    return [
        {
            "quota": each.rule,
            "of": each.group,
            "limit": each.limit,
            "used": each.used,
            "wanted": each.wanted,
            "taken": each.taken,
            "worth of the last": _worth(each.last_minor, currency),
            "of the next": _worth(each.next_minor, currency),
            "more from": f"{each.frees_at:%Y-%m-%d %H:%M} UTC" if each.frees_at else "",
        }
        for each in slots_of(plan.summary)
    ]


def sample_rows(plan: Plan) -> list[dict[str, Any]]:
    """language, shop, recipients and subject of each sample; `law`: the country that wants the subject so."""
    return [
        {
            "language": each["locale"],
            "shop": each["shop"],
            "law": each["country"] or "",
            "recipients": each["recipients"],
            "subject": each["subject"],
        }
        for each in (plan.summary or {}).get("samples", ())
    ]


def notes(plan: Plan) -> Iterator[str]:
    """What is to be known and needs no approval: quotas that are too small, merge fields that are empty."""
    for slots in slots_of(plan.summary):
        free = max(0, slots.limit - slots.used)
        if slots.wanted > free:
            yield f"{slots.rule} of {slots.group} leaves room for {free:,} of {slots.wanted:,} messages"
    for field, recipients in (plan.summary or {}).get("empty_fields", {}).items():
        yield f"{field} is empty for {recipients:,} of {plan.messages:,} recipients"


def _worth(minor: float | None, currency: str) -> str:
    return "" if minor is None else show(round(minor), currency)


def _reasons(
    config: Config, counts: Mapping[str, int], previous: Mapping[str, Any] | None, cost: Decimal
) -> Iterator[str]:
    guards, audience, sending = config.campaigns_file.guards, sum(counts.values()), _messages(counts)
    if guards.approve_over is not None and sending > guards.approve_over:
        yield f"{sending:,} messages are more than guards.approve_over {guards.approve_over:,}"
    if guards.max_cost is not None and cost > guards.max_cost:
        yield f"they cost {cost} {config.base_currency}, more than guards.max_cost {guards.max_cost}"
    if previous and guards.max_growth is not None and audience > previous["audience"] * (1 + guards.max_growth):
        yield (
            f"the audience grew from {previous['audience']:,} on {previous['occurrence']} to {audience:,}, "
            f"by more than guards.max_growth {guards.max_growth:.0%}"
        )


def _messages(counts: Mapping[str, int]) -> int:
    return sum(counts.get(verdict, 0) for verdict in TO_SEND)


def _previous(connection: Connection, judgement: Judgement) -> dict[str, Any] | None:
    query = (
        select(plans.c.plan_id, plans.c.occurrence, plans.c.audience)
        .where(
            plans.c.campaign == judgement.campaign.name,
            plans.c.channel == judgement.campaign.channel,
            plans.c.status == "applied",
            plans.c.occurrence != judgement.occurrence,
        )
        .order_by(plans.c.applied_at.desc(), plans.c.plan_id.desc())
        .limit(1)
    )
    row: Row[Any] | None = connection.execute(query).one_or_none()
    if row is None:
        return None
    counted = select(verdicts.c.verdict, func.count()).where(verdicts.c.plan_id == row.plan_id)
    counts = {verdict: n for verdict, n in connection.execute(counted.group_by(verdicts.c.verdict))}
    return {"plan_id": row.plan_id, "occurrence": row.occurrence, "audience": row.audience, "counts": counts}
