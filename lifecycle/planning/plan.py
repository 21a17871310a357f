"""Plans: an audience judged, frozen and hashed before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import reduce
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, Text, cast, func, insert, literal, select, update

from lifecycle.db.arrays import EPOCH
from lifecycle.db.engine import lock_reservations, reading, writing
from lifecycle.db.instants import elapsed
from lifecycle.db.schema import VERDICTS, Instant, microseconds, plans, verdicts
from lifecycle.db.schema import cap_rules as cap_rules_table
from lifecycle.errors import PlanError, UsageError
from lifecycle.planning.applied import applied_plan
from lifecycle.planning.approval import approved_by
from lifecycle.planning.audience import audience
from lifecycle.planning.fallback import unreached
from lifecycle.planning.guards import summary
from lifecycle.planning.judgement import Judgement, candidates
from lifecycle.planning.records import Plan, Slots, Verdict
from lifecycle.planning.verdicts import COLUMNS, judged, rivals
from lifecycle.segments.members import hold_members, newest_build
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign, CapRule, Quota, zone
from lifecycle.settings.policies import cap_rules


def make_plan(
    engine: Engine,
    config: Config,
    campaign_name: str,
    *,
    as_of: datetime,
    now: datetime,
    run_id: str | None = None,
    occurrence: str | None = None,
    rehearsal: bool = False,
    content_hash: str | None = None,
    channel: str | None = None,
    fallback_of: int | None = None,
    approved: Collection[str] | None = None,
) -> Plan:
    """Judge the campaign's audience and write the plan down, all or nothing.

    The audience is that of `as_of`; whether they may be written to is judged for `now`, when the messages would
    go out. `occurrence` is the date of `as_of` in the campaigns' time zone unless given. If a plan for this
    campaign and occurrence has been applied, that one is returned and nothing is written; a `rehearsal` is then
    planned for the next day. `content_hash`: of the templates as they would be sent now. `approved`: locales of
    the template that the platform has approved; None: all.

    `channel` and `fallback_of` go together: a plan by another of the campaign's channels, for those only whom the
    applied plan `fallback_of` could not reach (lifecycle.planning.fallback). Its as_of and occurrence are then
    those of that plan. Everyone in it gets a verdict of their own.

    Raises ConfigError for an unknown campaign, UsageError for a channel that it does not fall back to, and
    PlanError where no segments are built or `fallback_of` is not applied.
    """
    campaign = config.campaign(campaign_name)
    occurrence = occurrence or occurrence_of(config, as_of)
    with writing(engine) as connection:
        lock_reservations(connection)
        if channel is not None or fallback_of is not None:
            first = _plan_before(connection, campaign, channel, fallback_of)
            campaign = campaign.model_copy(update={"channel": channel})
            as_of, occurrence = first.as_of, first.occurrence
        if (applied := applied_plan(connection, campaign.name, occurrence, campaign.channel)) is not None:
            if not rehearsal or fallback_of is not None:
                return stored_plan(connection, applied)
            occurrence = occurrence_of(config, as_of + timedelta(days=1))
        hold_members(connection)
        if fallback_of is None:
            people = audience(connection, config, campaign, as_of=as_of)
        else:
            people = unreached(fallback_of)
        judgement = Judgement(
            config,
            campaign,
            occurrence,
            at=max(as_of, now),
            since=newest_build(connection, until=as_of),
            rules=rules_of(config),
            quotas=config.caps_file.quotas,
            approved=None if approved is None else frozenset(approved),
        )
        plan_id = _start(connection, judgement, as_of, now, run_id, content_hash, fallback_of)
        competing = rivals(connection, judgement, as_of=as_of)
        with judged(connection, people, judgement, competing) as result:
            _write_verdicts(connection, plan_id, result.people)
            # Of a plan that is being sent meanwhile, a second look would find others whom it could not reach.
            everybody = candidates if fallback_of is not None else people.subquery()
            audience_size = connection.execute(select(func.count()).select_from(everybody)).scalar_one()
        return _freeze(connection, judgement, plan_id, audience_size, result.slots)


def rules_of(config: Config) -> tuple[CapRule, ...]:
    """All caps: the seller's own, then those of the platforms."""
    return (*config.caps_file.caps, *cap_rules(config))


def load_plan(engine: Engine, plan_id: int) -> Plan:
    """Raises UsageError where there is no such plan."""
    with reading(engine) as connection:
        return stored_plan(connection, plan_id)


def occurrence_of(config: Config, as_of: datetime) -> str:
    """The campaigns' date of `as_of`, YYYY-MM-DD."""
    return as_of.astimezone(zone(config.campaigns_file.timezone)).date().isoformat()


def planned_verdicts(connection: Connection, plan_id: int) -> Iterator[Verdict]:
    """By customer_id, streamed."""
    query = select(*(verdicts.c[name] for name in COLUMNS)).where(verdicts.c.plan_id == plan_id)
    rows = connection.execute(query.order_by(verdicts.c.customer_id), execution_options={"yield_per": 10_000})
    return (Verdict(*row) for row in rows)


def plan_hash(plan: Plan, planned: Iterable[Verdict]) -> str:
    """SHA-256, hex, over the campaign, its date, definition and templates, `as_of`, and every verdict by
    customer_id."""
    return _digest(plan, (_line(*(getattr(verdict, name) for name in COLUMNS)) for verdict in planned))


def stored_hash(connection: Connection, plan: Plan) -> str:
    """The same over the verdicts as they are stored; the database writes the lines, ten times faster."""
    line = reduce(lambda first, second: first + "|" + second, (_text(verdicts.c[name]) for name in COLUMNS))
    query = select(line).where(verdicts.c.plan_id == plan.plan_id).order_by(verdicts.c.customer_id)
    return _digest(plan, connection.execute(query, execution_options={"yield_per": 50_000}).scalars())


def _text(column: ColumnElement[Any]) -> ColumnElement[str]:
    value = elapsed(EPOCH, column) if isinstance(column.type, Instant) else column
    return func.coalesce(cast(value, Text), "")


def _digest(plan: Plan, lines: Iterable[str]) -> str:
    head = (plan.campaign, plan.occurrence, plan.as_of, plan.definition_hash, plan.content_hash)
    digest = sha256(_line(*head).encode())
    for line in lines:
        digest.update(b"\n" + line.encode())
    return digest.hexdigest()


def _line(*values: Any) -> str:
    return "|".join(_plain(value) for value in values)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return str(microseconds(value)) if isinstance(value, datetime) else str(value)


def _plan_before(connection: Connection, campaign: Campaign, channel: str | None, fallback_of: int | None) -> Plan:
    """The applied plan that another channel is to go on from."""
    if channel is None or fallback_of is None:
        raise UsageError("a channel to fall back to and the plan that it goes on from belong together; give both")
    if channel not in campaign.fallback:
        known = ", ".join(campaign.fallback) or "none"
        raise UsageError(f'{campaign.name} does not fall back to "{channel}", but to: {known}')
    first = stored_plan(connection, fallback_of)
    if first.campaign != campaign.name:
        raise UsageError(f"plan {fallback_of} is of {first.campaign}, not of {campaign.name}")
    if not first.already_applied:
        raise PlanError(
            f"plan {fallback_of} is not applied, so nobody knows yet whom it does not reach; first: "
            f"tern apply {fallback_of}"
        )
    return first


def _start(
    connection: Connection,
    judgement: Judgement,
    as_of: datetime,
    now: datetime,
    run_id: str | None,
    content_hash: str | None,
    fallback_of: int | None,
) -> int:
    """The plan's row, still without verdicts, and caps and quotas as they stand."""
    values = {
        "campaign": judgement.campaign.name,
        "occurrence": judgement.occurrence,
        "as_of": as_of,
        "created_at": now,
        "hash": "",
        "audience": 0,
        "status": "draft",
        "definition": judgement.campaign.model_dump(mode="json"),
        "content_hash": content_hash,
        "run_id": run_id,
        "channel": judgement.campaign.channel,
        "fallback_of": fallback_of,
    }
    plan_id: int = connection.execute(insert(plans).values(values).returning(plans.c.plan_id)).scalar_one()
    numbered = enumerate((*judgement.rules, *judgement.quotas))
    rules = [
        {
            "plan_id": plan_id,
            "rule": rule.name,
            "kind": "quota" if isinstance(rule, Quota) else "cap",
            "position": position,
            "definition": rule.model_dump(mode="json"),
        }
        for position, rule in numbered
    ]
    if rules:
        connection.execute(insert(cap_rules_table), rules)
    return plan_id


def _write_verdicts(connection: Connection, plan_id: int, judged_people: Select) -> None:
    rows = judged_people.add_columns(literal(plan_id))
    connection.execute(insert(verdicts).from_select([*COLUMNS, "plan_id"], rows))


def _freeze(
    connection: Connection, judgement: Judgement, plan_id: int, audience_size: int, slots: Sequence[Slots]
) -> Plan:
    draft = stored_plan(connection, plan_id)
    judged = sum(draft.counts.values())
    if judged != audience_size:
        raise PlanError(
            f"{draft.campaign}: {judged} verdicts for an audience of {audience_size}; nothing is planned"
        )
    values: dict[str, Any] = {
        "audience": audience_size,
        "hash": stored_hash(connection, draft),
        "summary": summary(connection, judgement, draft.counts, slots),
    }
    connection.execute(update(plans).where(plans.c.plan_id == plan_id).values(values))
    return replace(draft, **values)


def stored_plan(connection: Connection, plan_id: int) -> Plan:
    """Raises UsageError where there is no such plan."""
    row = connection.execute(select(plans).where(plans.c.plan_id == plan_id)).one_or_none()
    if row is None:
        raise UsageError(f"there is no plan {plan_id}; make one with: tern plan CAMPAIGN")
    query = select(verdicts.c.verdict, func.count()).where(verdicts.c.plan_id == plan_id)
    found: dict[str, int] = {verdict: n for verdict, n in connection.execute(query.group_by(verdicts.c.verdict))}
    return Plan(
        plan_id=row.plan_id,
        campaign=row.campaign,
        occurrence=row.occurrence,
        as_of=row.as_of,
        hash=row.hash,
        audience=row.audience,
        counts={
            verdict: found.get(verdict, 0) for verdict in VERDICTS if verdict in found or verdict == "selected"
        },
        definition_hash=_hash_of(row.definition),
        content_hash=row.content_hash,
        already_applied=row.status == "applied",
        summary=row.summary,
        approved_by=row.approved_by or approved_by(connection, plan_id, row.hash),
        channel=row.channel,
        fallback_of=row.fallback_of,
    )


def _hash_of(definition: Mapping[str, Any]) -> str:
    return sha256(json.dumps(definition, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
