"""Decide who gets a campaign, and why everybody else does not."""

from __future__ import annotations

from datetime import datetime

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from lifecycle.clock import utc_now
from lifecycle.planning.plan import Plan, make_plan
from tasks.place import workplace


@task(name="plan", task_run_name="plan {campaign}", cache_policy=NO_CACHE)
def plan(campaign: str, as_of: datetime, rehearsal: bool, run_id: str) -> Plan:
    place = workplace()
    made = make_plan(
        place.engine, place.config, campaign, as_of=as_of, now=utc_now(), run_id=run_id, rehearsal=rehearsal
    )
    create_table_artifact(
        key=f"plan-{campaign.replace('_', '-')}",
        description=f"{campaign} of {made.occurrence}: what was decided for {made.audience:,} people",
        table=[{"verdict": verdict, "people": people} for verdict, people in made.counts.items()],
    )
    return made
