"""Whom a campaign's channel could not reach, so that another of its channels is tried."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Select, and_, case, exists, func, or_, select

from lifecycle.customers.suppression import active_suppressions
from lifecycle.db.schema import messages, plans, suppressions, verdicts
from lifecycle.planning.applied import applied_plan
from lifecycle.settings import Config

DEAD_ADDRESS = ("hard_bounce", "soft_bounce")
"""Reasons of a suppression that are about the address, and not what the person wants."""


def fallback_channels(config: Config, campaign: str) -> tuple[str, ...]:
    """In the order in which they are tried, each for those whom the one before could not reach.

    Raises ConfigError for an unknown campaign.
    """
    return config.campaign(campaign).fallback


WAIT = timedelta(minutes=30)
"""After the last message of a plan, for bounces that come back by mail."""


@dataclass(frozen=True)
class Fallback:
    """`channel` is tried for those whom the applied plan `plan_id` of `campaign` could not reach: `people`."""

    plan_id: int
    campaign: str
    channel: str
    people: int


def due_fallbacks(connection: Connection, config: Config, now: datetime) -> list[Fallback]:
    """Plans of the last day of which everything has left, half an hour ago at least, that did not reach everybody,
    and whose campaign has another channel that was not tried on that date."""
    found = []
    for plan in connection.execute(_settled_plans(now)).all():
        campaign = config.campaigns.get(plan.campaign)
        channels = (campaign.channel, *campaign.fallback) if campaign else ()
        if plan.channel not in channels[:-1]:
            continue
        following = channels[channels.index(plan.channel) + 1]
        if applied_plan(connection, plan.campaign, plan.occurrence, following) is not None:
            continue
        if people := needs_fallback(connection, plan.plan_id):
            found.append(Fallback(plan.plan_id, plan.campaign, following, people))
    return found


def _settled_plans(now: datetime) -> Select:
    mine = messages.c.plan_id == plans.c.plan_id
    is_open = exists().where(mine, messages.c.state.in_(("reserved", "sending")))
    is_fresh = exists().where(mine, messages.c.settled_at > now - WAIT)
    return (
        select(plans.c.plan_id, plans.c.campaign, plans.c.occurrence, plans.c.channel)
        .where(
            plans.c.status == "applied",
            plans.c.applied_at > now - timedelta(days=1),
            plans.c.applied_at <= now - WAIT,
            ~is_open,
            ~is_fresh,
        )
        .order_by(plans.c.plan_id)
    )


def needs_fallback(connection: Connection, plan_id: int) -> int:
    """How many people of the plan its channel could not reach, as far as is known by now."""
    return connection.execute(select(func.count()).select_from(unreached(plan_id).subquery())).scalar_one()


def unreached(plan_id: int) -> Select:
    """customer_id, segment, shop and locale of those of a plan's people who have no address on its channel, whose
    address bounces, or whose message was refused for good because of the address.

    Who was refused because they told the platform that they want no messages has said no, and is left alone.
    """
    revised = verdicts.c.revised_verdict.is_not(None)
    verdict = case((revised, verdicts.c.revised_verdict), else_=verdicts.c.verdict)
    rule = case((revised, verdicts.c.revised_rule), else_=verdicts.c.rule)
    said_no = active_suppressions().where(
        suppressions.c.address_hash == messages.c.address_hash,
        suppressions.c.reason.in_(("unsubscribe", "complaint")),
    )
    # In one pass: looked up for each person, a planner may read all of the plan's messages each time.
    refused = select(messages.c.customer_id).where(
        messages.c.plan_id == plan_id,
        messages.c.state == "refused",
        messages.c.refusal == "address",
        ~said_no.correlate(messages).exists(),
    )
    columns = (verdicts.c.customer_id, verdicts.c.segment, verdicts.c.shop, verdicts.c.locale)
    return select(*columns).where(
        verdicts.c.plan_id == plan_id,
        or_(
            verdict == "no_address",
            and_(verdict == "suppressed", rule.in_(DEAD_ADDRESS)),
            verdicts.c.customer_id.in_(refused),
        ),
    )
