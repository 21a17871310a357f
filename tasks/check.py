"""Check landed rows; the rejected ones go to quarantine."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from lifecycle.clock import utc_now
from lifecycle.platforms import open_platform
from lifecycle.platforms.landing import Fetched
from lifecycle.quality.gate import GateResult, check_fetched
from tasks.place import workplace


@task(name="check", task_run_name="check {fetched.shop} {fetched.entity}", cache_policy=NO_CACHE)
def check(fetched: Fetched, run_id: str) -> GateResult:
    """Raises QualityError when too many rows are rejected; nothing downstream has seen them then."""
    place = workplace()
    quality = place.config.shops_file.quality
    gate = check_fetched(
        place.engine,
        place.environment.data_dir,
        open_platform(place.config.shop(fetched.shop), place.config.shops_file.pulling),
        fetched,
        max_rejected_share=quality.max_rejected_share,
        tolerated_rows=quality.tolerated_rows,
        now=utc_now(),
        run_id=run_id,
    )
    if gate.rejected:
        get_run_logger().warning("%s: %s %s in quarantine", fetched.shop, gate.rejected, fetched.entity)
    return gate
