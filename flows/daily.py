from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from flows.build_segments import build_segments
from flows.pull_shop import pull_shop
from flows.run_campaign import run_campaign
from lifecycle.clock import utc_now
from lifecycle.db.runs import booked
from lifecycle.errors import TernError
from lifecycle.planning.plan import occurrence_of
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign
from tasks.place import workplace
from tasks.report import report
from tasks.track import track


@flow(name="daily", flow_run_name="daily")
def daily(as_of: datetime | None = None, dry_run: bool = False) -> str:
    """The main job: pull every shop, build segments, run every campaign that is due, collect events, report.

    A shop that cannot be pulled does not stop the others, but then no campaign runs: its data would be stale. A
    campaign that needs an approval waits for it, which the report says and which is no failure; the others go on.
    Finishes what it can, then fails with a list. Returns the run id.

    Args:
        as_of: Look at the world as of this instant; empty: now.
        dry_run: Decide everything, send nothing.
    """
    place = workplace()
    failures: list[str] = []
    with booked(
        place.engine, "daily", parameters={"dry_run": dry_run}, as_of=as_of, flow_run_id=flow_run.id
    ) as run:
        for shop in place.config.shops:
            _attempt(failures, pull_shop, shop)
        _attempt(failures, build_segments, as_of or utc_now())
        if failures:
            run.say("No campaign ran, because the data is not of today.")
        else:
            for campaign in due(place.config, as_of or utc_now()):
                _attempt(failures, run_campaign, campaign.name, as_of, dry_run, False)
        _attempt(failures, lambda: run.say(track().sentence()))
        run.summary["failures"] = failures
    _attempt(failures, report, run.run_id)
    if failures:
        raise TernError("daily could not do everything:\n" + "\n".join(f"- {failure}" for failure in failures))
    return run.run_id


def due(config: Config, as_of: datetime) -> list[Campaign]:
    """Campaigns of this date, in the campaigns' time zone; what has priority first."""
    return config.due(date.fromisoformat(occurrence_of(config, as_of)))


def _attempt(failures: list[str], step: Callable[..., Any], *parameters: Any) -> None:
    try:
        step(*parameters)
    except TernError as failure:
        failures.append(str(failure))
    except Exception as failure:  # noqa: BLE001 (the other steps must go on; the log has the traceback)
        failures.append(
            f"an unforeseen {type(failure).__name__} in {getattr(step, 'name', 'a step')}; see the log"
        )
