"""Take checked rows into the tables, and move the bookmark with them."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from lifecycle.clock import utc_now
from lifecycle.customers import intake
from lifecycle.platforms import open_platform
from lifecycle.platforms.landing import Fetched
from lifecycle.quality.gate import GateResult
from tasks.place import workplace


@task(name="take-in", task_run_name="take in {fetched.shop} {fetched.entity}", cache_policy=NO_CACHE)
def take_in(fetched: Fetched, gate: GateResult, run_id: str) -> intake.Intake:
    place = workplace()
    taken = intake.take_in(
        place.engine,
        place.environment.data_dir,
        place.config,
        open_platform(place.config.shop(fetched.shop), place.config.shops_file.pulling),
        fetched,
        gate,
        secret=place.environment.secret,
        now=utc_now(),
        run_id=run_id,
    )
    get_run_logger().info(taken.sentence())
    return taken
