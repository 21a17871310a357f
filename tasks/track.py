"""Say of every new hit whether a person or a machine made it."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from lifecycle.clock import utc_now
from lifecycle.tracking import collect
from tasks.place import workplace


@task(name="track", cache_policy=NO_CACHE)
def track() -> collect.Collected:
    place = workplace()
    return collect.collect(place.engine, place.config, now=utc_now())
