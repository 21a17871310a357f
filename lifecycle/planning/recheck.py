"""Who of a plan's people may no longer be written to, judged by the definitions that selected them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from lifecycle.db.schema import cap_rules, plans, verdicts
from lifecycle.planning.judgement import Judgement, decided
from lifecycle.planning.plan import rules_of
from lifecycle.planning.records import TO_SEND
from lifecycle.planning.verdicts import judged
from lifecycle.segments.members import newest_build
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign, CapRule, Quota

QUIET = "quiet_hours"
Rule = TypeVar("Rule", CapRule, Quota)


@contextmanager
def rechecked(connection: Connection, config: Config, plan_id: int, *, now: datetime) -> Iterator[dict[str, int]]:
    """Note on the verdict of each person to be written to who no longer holds at `now` why: revised_verdict,
    revised_rule, revised_at. Yields how many for each reason.

    Runs in the caller's transaction, which holds the reservation lock and then reserves who is left: `to_send`.
    Inside, `decided` has of those who are left the ones that must wait for the end of their quiet hours. Caps and
    quotas are those of the plan and those configured now: all must allow.
    """
    columns = (verdicts.c.customer_id, verdicts.c.segment, verdicts.c.shop, verdicts.c.locale)
    judgement = replace(
        judgement_of(connection, config, plan_id, now=now),
        rules=_rules(connection, config, plan_id),
        quotas=_quotas(connection, config, plan_id),
    )
    with judged(connection, select(*columns).where(to_send(plan_id)), judgement):
        connection.execute(
            update(verdicts)
            .where(verdicts.c.plan_id == plan_id, verdicts.c.customer_id == decided.c.customer_id)
            .where(decided.c.verdict != QUIET)
            .values(revised_verdict=decided.c.verdict, revised_rule=decided.c.rule, revised_at=now)
        )
        counted = (
            select(verdicts.c.revised_verdict, func.count())
            .where(verdicts.c.plan_id == plan_id, verdicts.c.revised_at == now)
            .group_by(verdicts.c.revised_verdict)
        )
        yield {verdict: count for verdict, count in connection.execute(counted)}


def judgement_of(connection: Connection, config: Config, plan_id: int, *, now: datetime) -> Judgement:
    """Of a plan's people at `now`, by the campaign as it was planned; without caps and quotas."""
    plan = connection.execute(select(plans).where(plans.c.plan_id == plan_id)).one()
    approved = (plan.summary or {}).get("approved")
    return Judgement(
        config,
        Campaign.model_validate(plan.definition),
        plan.occurrence,
        at=now,
        since=newest_build(connection, until=plan.as_of),
        approved=None if approved is None else frozenset(approved),
    )


def to_send(plan_id: int) -> ColumnElement[bool]:
    """Verdicts of those who get the plan's message."""
    return and_(
        verdicts.c.plan_id == plan_id, verdicts.c.verdict.in_(TO_SEND), verdicts.c.revised_verdict.is_(None)
    )


def _rules(connection: Connection, config: Config, plan_id: int) -> tuple[CapRule, ...]:
    planned = [CapRule.model_validate(definition) for definition in _stored(connection, plan_id, "cap")]
    return (*planned, *(_renamed(rule, planned) for rule in rules_of(config) if rule not in planned))


def _quotas(connection: Connection, config: Config, plan_id: int) -> tuple[Quota, ...]:
    planned = [Quota.model_validate(definition) for definition in _stored(connection, plan_id, "quota")]
    now = (quota for quota in config.caps_file.quotas if quota not in planned)
    return (*planned, *(_renamed(quota, planned) for quota in now))


def _renamed(rule: Rule, planned: list[Rule]) -> Rule:
    """A rule that has changed since the plan was made stands beside the old one, under another name."""
    taken = any(rule.name == other.name for other in planned)
    return rule.model_copy(update={"name": f"{rule.name}_now"}) if taken else rule


def _stored(connection: Connection, plan_id: int, kind: str) -> list[dict[str, object]]:
    query = select(cap_rules.c.definition).where(cap_rules.c.plan_id == plan_id, cap_rules.c.kind == kind)
    return list(connection.execute(query.order_by(cap_rules.c.position)).scalars())
