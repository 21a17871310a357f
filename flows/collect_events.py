from __future__ import annotations

from datetime import timedelta

from prefect import flow
from prefect.runtime import flow_run

from flows.pull_shop import pull_shop
from lifecycle.clock import utc_now
from lifecycle.db.runs import booked, sending_runs
from tasks.place import workplace
from tasks.report import report
from tasks.track import read_bounces, track


@flow(name="collect-events", flow_run_name="collect events")
def collect_events(pull: bool = True) -> str:
    """Take in what came back (opens, clicks, unsubscribes, purchases) and write the reports it counts for again.

    Returns the run id.

    Args:
        pull: Ask the shops for purchases first.
    """
    place = workplace()
    counted_days = timedelta(days=place.config.channels_file.tracking.attribution_days)
    with booked(place.engine, "collect-events", flow_run_id=flow_run.id) as run:
        for shop in place.config.shops if pull else ():
            pull_shop(shop)
        if said := read_bounces():
            run.say(said)
        collected = track()
        run.say(collected.sentence())
        for run_id in sending_runs(place.engine, since=utc_now() - counted_days):
            report(run_id)
    return run.run_id
