"""Build the segments as of an instant."""

from __future__ import annotations

from datetime import datetime

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from lifecycle.clock import utc_now
from lifecycle.segments.build import SegmentBuild, build
from tasks.place import workplace


@task(name="segment", task_run_name="segment as of {as_of}", cache_policy=NO_CACHE)
def segment(as_of: datetime, run_id: str) -> SegmentBuild:
    place = workplace()
    built = build(place.engine, place.config, as_of=as_of, now=utc_now(), run_id=run_id)
    create_table_artifact(
        key="segments",
        description=f"{built.customers:,} customers with an order, as of {as_of:%Y-%m-%d %H:%M} UTC",
        table=[
            {"segment": name, "members": count, "entered": built.entered[name], "left": built.left[name]}
            for name, count in built.counts.items()
        ],
    )
    return built
