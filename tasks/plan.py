"""Decide who gets a campaign, and why everybody else does not; ask a person where one must look at it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_API_URL
from pydantic import Field

from lifecycle.clock import utc_now
from lifecycle.db.engine import reading
from lifecycle.errors import PlanError
from lifecycle.messages.samples import add_samples, approved_locales, content_hash
from lifecycle.planning import approval, guards
from lifecycle.planning.fallback import Fallback, due_fallbacks
from lifecycle.planning.plan import make_plan
from lifecycle.planning.records import Plan
from lifecycle.reports.plain_tables import markdown_table, markdown_text
from tasks.place import workplace

_POLL_SECONDS = 5
_LONGEST_HOURS = 24
"""A campaign's date is over then, and with it what the plan was made for."""


class Approval(RunInput):
    """The form of a run that waits for a person."""

    approve: bool = Field(description="Off: nothing is sent.")
    name: str = Field(min_length=1, description="Who decides.")


@task(name="plan", task_run_name="plan {campaign}", cache_policy=NO_CACHE)
def plan(campaign: str, as_of: datetime, rehearsal: bool, run_id: str) -> Plan:
    """With samples of its mails. The artifacts `plan-<campaign>` and `plan-<campaign>-look` show it."""
    place = workplace()
    templates_dir, settings = place.environment.templates_dir, place.config.campaign(campaign)
    approved = approved_locales(place.config, templates_dir, settings)
    drafted = make_plan(
        place.engine,
        place.config,
        campaign,
        as_of=as_of,
        now=utc_now(),
        run_id=run_id,
        rehearsal=rehearsal,
        content_hash=content_hash(templates_dir, settings),
        approved=approved,
    )
    return _shown(drafted.plan_id, f"plan-{campaign}")


@task(name="find-fallbacks", cache_policy=NO_CACHE)
def find_fallbacks() -> list[Fallback]:
    """Campaigns whose channel did not reach everybody, and who have another."""
    place = workplace()
    with reading(place.engine) as connection:
        return due_fallbacks(connection, place.config, utc_now())


@task(name="plan-fallback", task_run_name="plan {fallback.campaign} by {fallback.channel}", cache_policy=NO_CACHE)
def plan_fallback(fallback: Fallback, run_id: str) -> Plan:
    """For those whom the plan before could not reach, each with a verdict of their own."""
    place = workplace()
    templates_dir = place.environment.templates_dir
    settings = place.config.campaign(fallback.campaign).model_copy(update={"channel": fallback.channel})
    drafted = make_plan(
        place.engine,
        place.config,
        fallback.campaign,
        as_of=utc_now(),
        now=utc_now(),
        run_id=run_id,
        content_hash=content_hash(templates_dir, settings),
        channel=fallback.channel,
        fallback_of=fallback.plan_id,
        approved=approved_locales(place.config, templates_dir, settings),
    )
    return _shown(drafted.plan_id, f"plan-{fallback.campaign}-{fallback.channel}")


def _shown(plan_id: int, name: str) -> Plan:
    """With samples of its messages; two artifacts show it."""
    place = workplace()
    made = add_samples(place.engine, place.config, place.environment, plan_id)
    key, what = name.replace("_", "-"), f"{made.campaign} of {made.occurrence}"
    create_table_artifact(
        key=key,
        description=f"{what}: what was decided for {made.audience:,} people",
        table=guards.verdict_rows(made),
    )
    create_markdown_artifact(
        key=f"{key}-look",
        description=f"{what}: what it would send, and what to look at",
        markdown="\n".join(_look(made, place.config.base_currency)),
    )
    return made


def wait_for_approval(planned: Plan) -> str:
    """Pause the flow run until somebody fills in its form. Returns who approved.

    Raises PlanError where they refuse, where nobody answers while the plan may be sent, and where Prefect has no
    server that anybody could answer at.
    """
    instead = f"to send it all the same: tern apply {planned.plan_id} --approve NAME"
    what = f"plan {planned.plan_id}, {planned.campaign} of {planned.occurrence},"
    if not PREFECT_API_URL.value():
        reasons = "; ".join(planned.needs_approval)
        raise PlanError(
            f"{what} needs an approval, and no Prefect server is there to ask at: {reasons}; {instead}"
        )
    hours = min(workplace().config.campaigns_file.guards.max_age_hours, _LONGEST_HOURS)
    form = Approval.with_initial_data(description="\n".join(_question(planned, hours)))
    try:
        answer = pause_flow_run(wait_for_input=form, timeout=hours * 3600, poll_interval=_POLL_SECONDS)
    except FlowPauseTimeout:
        raise PlanError(f"nobody approved {what} within {hours} hours; nothing is sent") from None
    if not answer.approve:
        raise PlanError(f"{answer.name} does not approve {what} so nothing is sent; {instead}")
    return answer.name


@task(name="approve", task_run_name="approve plan {planned.plan_id}", cache_policy=NO_CACHE)
def approve(planned: Plan, name: str) -> None:
    """Record that `name` approves the plan as it was shown."""
    approval.approve(workplace().engine, planned.plan_id, name=name, now=utc_now(), hash=planned.hash)


def _question(planned: Plan, hours: int) -> Iterator[str]:
    yield f"**{markdown_text(planned.sentence())}**\n"
    yield "It needs an approval:\n"
    yield from (f"- {markdown_text(reason)}" for reason in planned.needs_approval)
    yield f"\nThe artifact *plan-{planned.campaign.replace('_', '-')}-look* has its mails. Plan {planned.plan_id},"
    yield f"hash `{planned.hash}`. Without an answer within {hours} hours nothing is sent."


def _look(made: Plan, currency: str) -> Iterator[str]:
    yield f"{markdown_text(made.sentence())}\n\nPlan {made.plan_id}, hash `{made.hash}`\n"
    if made.needs_approval:
        yield "## Needs an approval\n"
        yield from (f"- {markdown_text(reason)}" for reason in made.needs_approval)
    if found := [markdown_text(note) for note in guards.notes(made)]:
        yield "\n## Notes\n"
        yield from (f"- {note}" for note in found)
    if samples := guards.sample_rows(made):
        yield "\n## Subjects\n"
        yield from markdown_table(_texts(samples))
    if slots := guards.slot_rows(made, currency):
        yield "\n## Quotas\n"
        yield from markdown_table(_texts(slots))


def _texts(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [
        {name: f"{value:,}" if isinstance(value, int) else str(value) for name, value in row.items()}
        for row in rows
    ]
