from __future__ import annotations

from datetime import datetime

from prefect import flow
from prefect.runtime import flow_run

from lifecycle.clock import utc_now
from lifecycle.db.runs import booked
from tasks.place import workplace
from tasks.segment import predict


@flow(name="predict-orders", flow_run_name="predictions")
def predict_orders(as_of: datetime | None = None, days: int = 90) -> str:
    """Fit how often customers order and what they spend, and predict it for each of them. Returns the run id.

    Args:
        as_of: Look at the orders as of this instant; empty: now.
        days: How far ahead.
    """
    place, as_of = workplace(), as_of or utc_now()
    parameters = {"days": days}
    with booked(
        place.engine, "predict-orders", parameters=parameters, as_of=as_of, flow_run_id=flow_run.id
    ) as run:
        run.say(predict(as_of, days, run.run_id))
    return run.run_id
