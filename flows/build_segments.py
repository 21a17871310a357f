from __future__ import annotations

from datetime import datetime

from prefect import flow
from prefect.runtime import flow_run

from lifecycle.clock import utc_now
from lifecycle.db.runs import booked
from tasks.place import workplace
from tasks.segment import segment, show_segments


@flow(name="build-segments", flow_run_name="segments")
def build_segments(as_of: datetime | None = None, full: bool = False) -> str:
    """Build all segments. Returns the run id.

    Args:
        as_of: Look at the orders as of this instant; empty: now. Not before the newest build.
        full: Look at everybody, not only at whom a change or time concerns. The result is the same.
    """
    place, as_of = workplace(), as_of or utc_now()
    with booked(place.engine, "build-segments", as_of=as_of, flow_run_id=flow_run.id) as run:
        built = segment(as_of, full, run.run_id)
        run.say(built.sentence())
        run.summary["counts"] = built.counts
        show_segments(run.run_id)
    return run.run_id
