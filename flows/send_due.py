from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.run_campaign import SENDERS
from lifecycle.db.runs import booked
from lifecycle.errors import ChannelDown
from lifecycle.ledger.drain import total
from tasks.place import workplace
from tasks.plan import find_fallbacks, plan_fallback
from tasks.send import (
    ask_about_unknown,
    drop_expired,
    open_batches,
    reserve_plan,
    say_not_sent,
    send,
    stopped_lanes,
    take_over,
)


@flow(name="send-due", flow_run_name="send what is due", task_runner=SENDERS)
def send_due() -> str:
    """Send what waits in the ledger: refused for the moment, or left over by a process that died.

    Asks channels about messages whose answer is not known, and tries the next channel of a campaign for those whom
    the one before could not reach. Returns the run id.
    """
    with booked(workplace().engine, "send-due", flow_run_id=flow_run.id) as run:
        take_over()
        ask_about_unknown()
        drop_expired()
        for fallback in find_fallbacks():
            planned = plan_fallback(fallback, run.run_id)
            run.say(planned.sentence())
            if planned.needs_approval:
                run.say(f"It waits for an approval: tern apply {planned.plan_id} --approve NAME")
            else:
                reserve_plan(planned.plan_id, run.run_id)
        result = total(send.map(open_batches(None)).result())
        run.say(result.sentence())
        run.summary["not_sent"] = dict(result.reasons)
        say_not_sent(result)
        stopped = stopped_lanes()
        if problem := "; ".join([*([result.problem] if result.problem else []), *stopped]):
            raise ChannelDown(f"not everything could be sent: {problem}")
    return run.run_id
