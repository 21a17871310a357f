"""Build the segments as of an instant or for every day of a range, predict, and show what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE

from lifecycle.clock import utc_now
from lifecycle.reports.files import write_text
from lifecycle.reports.segments_look import segments_look
from lifecycle.reports.segments_render import summary_rows, to_html, to_markdown
from lifecycle.segments import backfill
from lifecycle.segments.build import SegmentBuild, build
from lifecycle.segments.prediction.columns import predictor
from lifecycle.segments.prediction.store import fit_and_store
from tasks.place import workplace


@task(name="segment", task_run_name="segment as of {as_of}", cache_policy=NO_CACHE)
def segment(as_of: datetime, full: bool, run_id: str) -> SegmentBuild:
    place = workplace()
    return build(place.engine, place.config, as_of=as_of, now=utc_now(), run_id=run_id, full=full)


@task(name="show-segments", cache_policy=NO_CACHE)
def show_segments(run_id: str) -> Path:
    """Returns the HTML file. The newest build beside the one before."""
    place = workplace()
    look = segments_look(place.engine, place.config, as_of=utc_now())
    path = place.environment.reports_dir / f"{run_id}.html"
    write_text(path, to_html(look))
    create_table_artifact(key="segments", table=summary_rows(look), description=run_id)
    create_markdown_artifact(key="segments-movement", markdown=to_markdown(look), description=run_id)
    create_link_artifact(key="segments-page", link=path.as_uri(), link_text=f"Segments of {run_id} (HTML)")
    return path


@task(name="backfill", task_run_name="backfill {first} to {last}", cache_policy=NO_CACHE)
def backfill_days(first: date, last: date, dry_run: bool, run_id: str) -> str:
    """Returns a sentence about what was done, or would be."""
    place = workplace()
    if dry_run:
        return backfill.foretell(place.engine, place.config, first=first, last=last, now=utc_now())
    done = backfill.backfill(
        place.engine,
        place.config,
        first=first,
        last=last,
        now=utc_now(),
        scratch=place.environment.data_dir / "backfills",
        run_id=run_id,
        predict=predictor(place.config),
        on_day=_progress(),
    )
    get_run_logger().info(done.sentence())
    return done.sentence()


@task(name="predict", task_run_name="predict as of {as_of}", cache_policy=NO_CACHE)
def predict(as_of: datetime, days: int, run_id: str) -> str:
    """Returns a sentence about the fit."""
    place = workplace()
    done = fit_and_store(place.engine, place.config, as_of=as_of, now=utc_now(), horizon_days=days, run_id=run_id)
    (get_run_logger().warning if done.fitted.problem else get_run_logger().info)(done.sentence())
    return done.sentence()


def _progress(every_seconds: float = 5.0) -> Callable[[backfill.Day, int, int], None]:
    """Shows how far a backfill is; an artifact costs 40 ms, so only now and then."""
    artifact: Any = create_progress_artifact(0.0, description="days built")
    logger, shown = get_run_logger(), time.monotonic()

    def on_day(day: backfill.Day, number: int, of: int) -> None:
        nonlocal shown
        if number == of or time.monotonic() - shown > every_seconds:
            shown = time.monotonic()
            update_progress_artifact(artifact, progress=100.0 * number / of)
            logger.info("%s: %s of %s days", f"{day.as_of:%Y-%m-%d}", number, of)

    return on_day
