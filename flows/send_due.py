from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.run_campaign import SENDERS
from lifecycle.db.runs import booked
from lifecycle.errors import ChannelDown
from lifecycle.ledger.drain import total
from tasks.place import workplace
from tasks.send import drop_expired, open_batches, send, take_over


@flow(name="send-due", flow_run_name="send what is due", task_runner=SENDERS)
def send_due() -> str:
    """Send what waits in the ledger: refused for the moment, or left over by a process that died.

    Plans nothing. Returns the run id.
    """
    with booked(workplace().engine, "send-due", flow_run_id=flow_run.id) as run:
        take_over()
        drop_expired()
        result = total(send.map(open_batches(None)).result())
        run.say(result.sentence())
        if result.problem:
            raise ChannelDown(f"not everything could be sent: {result.problem}")
    return run.run_id
