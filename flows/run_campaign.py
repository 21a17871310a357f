from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from lifecycle.clock import utc_now
from lifecycle.db.runs import booked
from lifecycle.errors import ChannelDown, PlanError
from lifecycle.ledger.drain import total
from lifecycle.planning.records import Plan
from tasks.place import workplace
from tasks.plan import approve, plan, wait_for_approval
from tasks.send import drop_expired, open_batches, reserve_plan, say_not_sent, send, take_over

SENDERS: Any = ThreadPoolTaskRunner(max_workers=int(os.environ.get("TERN_SENDERS", "4")))
"""So many batches, and connections, at a time in one process. More help where the server is far away."""


@flow(name="run-campaign", flow_run_name="{campaign}", task_runner=SENDERS)
def run_campaign(
    campaign: str, as_of: datetime | None = None, dry_run: bool = True, pause_for_approval: bool = True
) -> str:
    """Decide who gets a campaign; unless it is a dry run, send it, and whatever an earlier run left over.

    A campaign's date is planned and sent once: started again, it only finishes what is open. A plan that a person
    must look at first (guards in config/campaigns.yaml) pauses the run with a form; refused or not answered, the
    run fails and nothing is sent. Sends what can be sent, then fails if anything could not be. Returns the run id.

    Args:
        campaign: Name of the campaign in config/campaigns.yaml.
        as_of: Take the audience as of this instant; empty: now. Older than a day only for a dry run.
        dry_run: Only decide, send nothing; where today's was sent already, decide for tomorrow.
        pause_for_approval: Off: a plan that needs an approval is left to `tern apply`, and the run goes on.
    """
    place, as_of = workplace(), as_of or utc_now()
    if not dry_run:
        _refuse_another_time(campaign, as_of)
    parameters = {"campaign": campaign, "dry_run": dry_run}
    with booked(place.engine, "run-campaign", parameters=parameters, as_of=as_of, flow_run_id=flow_run.id) as run:
        take_over()
        planned = plan(campaign, as_of, dry_run, run.run_id)
        run.say(planned.sentence())
        run.summary |= {"campaign": campaign, "plan_id": planned.plan_id}
        approved = not planned.needs_approval
        if not approved and pause_for_approval and not dry_run:
            name = wait_for_approval(planned)
            approve(planned, name)
            run.say(f"{name} approved plan {planned.plan_id}.")
            approved = True
        if not approved:
            run.say(_without_approval(planned, dry_run))
        if not dry_run:
            drop_expired()
            if approved:
                reserve_plan(planned.plan_id, run.run_id)
            batches = open_batches(campaign)
            result = total(send.map(batches).result())
            run.say(f"{campaign}: {result.sentence()}")
            run.summary["not_sent"] = dict(result.reasons)
            say_not_sent(result)
            run.summary["also_sent_plans"] = sorted({batch.plan_id for batch in batches} - {planned.plan_id})
            if result.problem:
                raise ChannelDown(f"{campaign}: not everything could be sent: {result.problem}")
            if waiting := sum(batch.messages for batch in open_batches(campaign)):
                raise ChannelDown(f"{campaign}: {waiting:,} messages are with another process; send-due follows")
    return run.run_id


def _without_approval(planned: Plan, dry_run: bool) -> str:
    reasons = "; ".join(planned.needs_approval)
    if dry_run:
        return f"{planned.campaign} would need an approval: {reasons}"
    return (
        f"{planned.campaign} waits for an approval ({reasons}): tern apply {planned.plan_id} --approve NAME, "
        "or run run-campaign and fill in its form"
    )


def _refuse_another_time(campaign: str, as_of: datetime) -> None:
    if utc_now() - as_of > timedelta(days=1):
        raise PlanError(f"{campaign}: as of {as_of:%Y-%m-%d} is in the past; only a dry run may look back")
    if as_of - utc_now() > timedelta(minutes=1):
        raise PlanError(f"{campaign}: as of {as_of:%Y-%m-%d} is in the future; only a dry run may look ahead")
