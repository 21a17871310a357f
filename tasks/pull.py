"""Pull what changed at a shop into landing."""

from __future__ import annotations

from datetime import datetime

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from lifecycle.clock import utc_now
from lifecycle.platforms import landing, open_platform
from tasks.place import is_busy, workplace


@task(
    name="pull",
    task_run_name="pull {shop} {entity}",
    tags=["platform"],
    retry_condition_fn=is_busy,
    cache_policy=NO_CACHE,
)
def pull(shop: str, entity: str, since: datetime | None, until: datetime | None, run_id: str) -> landing.Fetched:
    """Land every page of `entity` changed since the bookmark (or `since`) and before `until` (or now).

    How often and when a busy platform is asked again is configuration: see `patient`.
    """
    place, now = workplace(), utc_now()
    settings, pulling = place.config.shop(shop), place.config.shops_file.pulling
    window = landing.next_window(place.engine, shop, entity, pulling=pulling, until=until or now, since=since)
    fetched = landing.fetch(
        place.engine,
        place.environment.data_dir,
        open_platform(settings, pulling),
        settings,
        entity,
        window=window,
        now=now,
        run_id=run_id,
        on_page=_progress(shop, entity),
    )
    get_run_logger().info("%s: %s %s landed", shop, f"{fetched.rows:,}", entity)
    return fetched


def patient():  # type: ignore[no-untyped-def]
    """`pull`, with the configured waits for a platform that is busy or down."""
    waits = list(workplace().config.shops_file.pulling.busy_wait_seconds)
    return pull.with_options(retries=len(waits), retry_delay_seconds=waits)


def _progress(shop: str, entity: str, every: int = 5_000):  # type: ignore[no-untyped-def]
    logger, total = get_run_logger(), 0

    def on_page(rows: int) -> None:
        nonlocal total
        before, total = total, total + rows
        if before // every != total // every:
            logger.info("%s: %s %s so far", shop, f"{total:,}", entity)

    return on_page
