"""Whether a plan may be sent: unchanged, approved where a person must look at it, and still of today."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from lifecycle.db.schema import messages, plans
from lifecycle.errors import PlanError
from lifecycle.planning.plan import stored_hash
from lifecycle.planning.records import Plan
from lifecycle.settings import Config

CLOCKS_APART = timedelta(minutes=5)
"""So much the clocks of hosts may differ. Caps look back from now: with a clock further behind they would not see
what has been sent."""


def check_applicable(
    connection: Connection,
    config: Config,
    plan: Plan,
    created_at: datetime,
    *,
    content_hash: str | None,
    now: datetime,
) -> None:
    """Raises PlanError with what is wrong and the way out. `content_hash`: of the templates as they are now; None:
    the caller does not send them."""
    again = f"make a new one: tern plan {plan.campaign}"
    if stored_hash(connection, plan) != plan.hash:
        raise PlanError(f"plan {plan.plan_id} was changed after it was made; {again}")
    newest = max([created_at, *_newest(connection)])
    if now < newest - CLOCKS_APART:
        raise PlanError(
            f"the clock of this host says {now:%Y-%m-%d %H:%M} UTC, the ledger has something of "
            f"{newest:%Y-%m-%d %H:%M}: it has jumped back; set it, nothing is sent before"
        )
    hours = config.campaigns_file.guards.max_age_hours
    if now - created_at > timedelta(hours=hours):
        raise PlanError(
            f"plan {plan.plan_id} is of {created_at:%Y-%m-%d %H:%M} UTC, more than guards.max_age_hours {hours} "
            f"ago; {again}"
        )
    if None not in (plan.content_hash, content_hash) and plan.content_hash != content_hash:
        raise PlanError(f"the templates of plan {plan.plan_id} were changed after it was made; {again}")
    if plan.needs_approval:
        reasons = "; ".join(plan.needs_approval)
        raise PlanError(
            f"plan {plan.plan_id} needs an approval: {reasons}. Look at it, then: tern apply {plan.plan_id} "
            "--approve NAME"
        )


def _newest(connection: Connection) -> list[datetime]:
    queries = (select(func.max(plans.c.applied_at)), select(func.max(messages.c.sent_at)))
    found = (connection.execute(query).scalar() for query in queries)
    return [instant for instant in found if instant is not None]
