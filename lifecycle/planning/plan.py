"""Plans: an audience judged, frozen and hashed before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Engine, Select, func, insert, literal, select, update

from lifecycle.db.engine import lock_reservations, reading, writing
from lifecycle.db.schema import VERDICTS, cap_rules, plans, verdicts
from lifecycle.errors import PlanError, UsageError
from lifecycle.planning.audience import audience
from lifecycle.planning.judgement import Judgement
from lifecycle.planning.records import Plan, Verdict
from lifecycle.planning.verdicts import COLUMNS, judged
from lifecycle.segments.members import hold_members
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign, zone


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
) -> Plan:
    """Judge the campaign's audience and write the plan down, all or nothing.

    The audience is that of `as_of`; whether they may be written to is judged for `now`, when the messages would
    go out. `occurrence` is the date of `as_of` in the campaigns' time zone unless given. If a plan for this
    campaign and occurrence has been applied, that one is returned and nothing is written; a `rehearsal` is then
    planned for the next day.

    Raises ConfigError for an unknown campaign and PlanError where no segments are built.
    """
    campaign = config.campaign(campaign_name)
    occurrence = occurrence or occurrence_of(config, as_of)
    with writing(engine) as connection:
        lock_reservations(connection)
        if (applied := _applied_plan(connection, campaign.name, occurrence)) is not None:
            if not rehearsal:
                return _read(connection, applied)
            occurrence = occurrence_of(config, as_of + timedelta(days=1))
        hold_members(connection)
        people = audience(connection, config, campaign, as_of=as_of)
        plan_id = _start(connection, config, campaign, occurrence, as_of, now, run_id)
        judgement = Judgement(config, campaign, occurrence, config.caps_file.caps, max(as_of, now))
        with judged(connection, people, judgement) as rows:
            _write_verdicts(connection, plan_id, rows)
        _freeze(connection, plan_id, people)
        return _read(connection, plan_id)


def load_plan(engine: Engine, plan_id: int) -> Plan:
    """Raises UsageError where there is no such plan."""
    with reading(engine) as connection:
        return _read(connection, plan_id)


def occurrence_of(config: Config, as_of: datetime) -> str:
    """The campaigns' date of `as_of`, YYYY-MM-DD."""
    return as_of.astimezone(zone(config.campaigns_file.timezone)).date().isoformat()


def planned_verdicts(connection: Connection, plan_id: int) -> Iterator[Verdict]:
    """By customer_id, streamed."""
    query = select(*(verdicts.c[name] for name in COLUMNS)).where(verdicts.c.plan_id == plan_id)
    rows = connection.execute(query.order_by(verdicts.c.customer_id), execution_options={"yield_per": 10_000})
    return (Verdict(*row) for row in rows)


def plan_hash(plan: Plan, planned: Iterator[Verdict]) -> str:
    """SHA-256, hex, over the campaign, its date and `as_of`, and every verdict by customer_id."""
    digest = sha256(_line(plan.campaign, plan.occurrence, plan.as_of))
    for verdict in planned:
        digest.update(_line(*(getattr(verdict, name) for name in COLUMNS)))
    return digest.hexdigest()


def _line(*values: Any) -> bytes:
    return (json.dumps(values, default=datetime.isoformat, separators=(",", ":")) + "\n").encode()


def _applied_plan(connection: Connection, campaign: str, occurrence: str) -> int | None:
    query = select(plans.c.plan_id).where(
        plans.c.campaign == campaign, plans.c.occurrence == occurrence, plans.c.status == "applied"
    )
    return connection.execute(query).scalar()


def _start(
    connection: Connection,
    config: Config,
    campaign: Campaign,
    occurrence: str,
    as_of: datetime,
    now: datetime,
    run_id: str | None,
) -> int:
    """The plan's row, still without verdicts, and the cap rules as they stand."""
    values = {
        "campaign": campaign.name,
        "occurrence": occurrence,
        "as_of": as_of,
        "created_at": now,
        "hash": "",
        "audience": 0,
        "status": "draft",
        "definition": campaign.model_dump(mode="json"),
        "run_id": run_id,
    }
    plan_id = connection.execute(insert(plans).values(values).returning(plans.c.plan_id)).scalar_one()
    rules = [
        {"plan_id": plan_id, "rule": rule.name, "position": position, "definition": rule.model_dump(mode="json")}
        for position, rule in enumerate(config.caps_file.caps)
    ]
    if rules:
        connection.execute(insert(cap_rules), rules)
    return plan_id


def _write_verdicts(connection: Connection, plan_id: int, judged_people: Select) -> None:
    rows = judged_people.add_columns(literal(plan_id))
    connection.execute(insert(verdicts).from_select([*COLUMNS, "plan_id"], rows))


def _freeze(connection: Connection, plan_id: int, people: Select) -> None:
    audience_size = connection.execute(select(func.count()).select_from(people.subquery())).scalar_one()
    draft = _read(connection, plan_id)
    judged = sum(draft.counts.values())
    if judged != audience_size:
        raise PlanError(
            f"{draft.campaign}: {judged} verdicts for an audience of {audience_size}; nothing is planned"
        )
    values = {"audience": audience_size, "hash": plan_hash(draft, planned_verdicts(connection, plan_id))}
    connection.execute(update(plans).where(plans.c.plan_id == plan_id).values(values))


def _read(connection: Connection, plan_id: int) -> Plan:
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
        already_applied=row.status == "applied",
    )
