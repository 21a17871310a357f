from __future__ import annotations

from datetime import date

from prefect import flow
from prefect.runtime import flow_run

from lifecycle.db.runs import booked
from tasks.place import workplace
from tasks.segment import backfill_days, show_segments


@flow(name="backfill-segments", flow_run_name="segments {first} to {last}")
def backfill_segments(first: date, last: date, dry_run: bool = False) -> str:
    """Build every day of a range of the past again, from the orders as they are known today.

    Membership outside the range stays. Sends nothing. A killed backfill goes on where it stopped when it is
    started again for the same range. Returns the run id.

    Args:
        first: The first day; segments are as of its beginning, UTC.
        last: The last day, included.
        dry_run: Only say what would be built.
    """
    parameters = {"first": str(first), "last": str(last), "dry_run": dry_run}
    with booked(workplace().engine, "backfill-segments", parameters=parameters, flow_run_id=flow_run.id) as run:
        run.say(backfill_days(first, last, dry_run, run.run_id))
        if not dry_run:
            show_segments(run.run_id)
    return run.run_id
