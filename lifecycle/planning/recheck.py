"""Who of a plan's selected people may no longer be written to, judged by the definitions that selected them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, func, select, update

from lifecycle.db.schema import cap_rules, plans, verdicts
from lifecycle.planning.judgement import Judgement, decided
from lifecycle.planning.verdicts import judged
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign, CapRule


def recheck(connection: Connection, config: Config, plan_id: int, *, now: datetime) -> dict[str, int]:
    """Note on the verdict of each selected person who no longer holds at `now` why: revised_verdict, revised_rule,
    revised_at. Returns how many for each reason.

    Runs in the caller's transaction, which holds the reservation lock and then reserves who is left: selected,
    revised_verdict null. The caps are those of the plan and those configured now: both must allow.
    """
    plan = connection.execute(select(plans).where(plans.c.plan_id == plan_id)).one()
    campaign = Campaign.model_validate(plan.definition)
    rules = _rules(connection, config, plan_id)
    standing = (
        verdicts.c.plan_id == plan_id,
        verdicts.c.verdict == "selected",
        verdicts.c.revised_verdict.is_(None),
    )
    columns = (verdicts.c.customer_id, verdicts.c.segment, verdicts.c.shop, verdicts.c.locale)
    selected = select(*columns).where(*standing)
    with judged(connection, selected, Judgement(config, campaign, plan.occurrence, rules, now)):
        connection.execute(
            update(verdicts)
            .where(verdicts.c.plan_id == plan_id, verdicts.c.customer_id == decided.c.customer_id)
            .values(revised_verdict=decided.c.verdict, revised_rule=decided.c.rule, revised_at=now)
        )
    counted = (
        select(verdicts.c.revised_verdict, func.count())
        .where(verdicts.c.plan_id == plan_id, verdicts.c.revised_at == now)
        .group_by(verdicts.c.revised_verdict)
    )
    return {verdict: count for verdict, count in connection.execute(counted)}


def _rules(connection: Connection, config: Config, plan_id: int) -> tuple[CapRule, ...]:
    query = select(cap_rules.c.definition).where(cap_rules.c.plan_id == plan_id).order_by(cap_rules.c.position)
    planned = [CapRule.model_validate(definition) for (definition,) in connection.execute(query)]
    return (*planned, *(rule for rule in config.caps_file.caps if rule not in planned))
