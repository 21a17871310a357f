from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.pull_shop import pull_shop
from lifecycle.db.runs import booked, newest_run
from tasks.place import workplace
from tasks.report import report
from tasks.track import track


@flow(name="collect-events", flow_run_name="collect events")
def collect_events(pull: bool = True) -> str:
    """Take in what came back (opens, clicks, unsubscribes, purchases) and write the newest report again.

    Returns the run id.

    Args:
        pull: Ask the shops for purchases first.
    """
    place = workplace()
    with booked(place.engine, "collect-events", flow_run_id=flow_run.id) as run:
        for shop in place.config.shops if pull else ():
            pull_shop(shop)
        collected = track()
        run.say(collected.sentence())
        reported = newest_run(place.engine, "daily", "run-campaign")
        if reported:
            report(reported)
    return run.run_id
