"""Reserve, send, confirm: the ledger's batches, one task each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

from lifecycle.channels import open_channel
from lifecycle.clock import utc_now
from lifecycle.ledger import drain as draining
from lifecycle.ledger.expire import expire
from lifecycle.ledger.recover import Recovered, recover
from lifecycle.ledger.reserve import Reservation, reserve
from lifecycle.messages.compose import Composer
from lifecycle.messages.links import prepare_links
from lifecycle.messages.samples import content_hash_now
from tasks.place import workplace


@task(name="recover", cache_policy=NO_CACHE)
def take_over() -> Recovered:
    """Claims of processes that are gone: what they were sending is unknown, the rest is free again."""
    recovered = recover(workplace().engine, now=utc_now())
    if recovered.unknown or recovered.released:
        get_run_logger().warning(recovered.sentence())
    return recovered


@task(name="reserve", task_run_name="reserve plan {plan_id}", cache_policy=NO_CACHE)
def reserve_plan(plan_id: int, run_id: str) -> Reservation:
    """Raises PlanError where the plan may not be sent: changed, not approved, too old, applied as another."""
    place = workplace()
    return reserve(
        place.engine,
        place.config,
        plan_id,
        now=utc_now(),
        secret=place.environment.secret,
        content_hash=content_hash_now(place.engine, place.environment.templates_dir, plan_id),
        run_id=run_id,
    )


@task(name="drop-expired", cache_policy=NO_CACHE)
def drop_expired() -> int:
    """Marketing that waited too long is not sent any more; its slots are free again."""
    place = workplace()
    if dropped := expire(place.engine, now=utc_now(), hours=place.config.expire_hours):
        get_run_logger().warning("%s messages had waited too long and are not sent", f"{dropped:,}")
    return dropped


@task(name="open-batches", cache_policy=NO_CACHE)
def open_batches(campaign: str | None) -> list[draining.Batch]:
    """Of one campaign, or of all; with the links that their templates have today."""
    place = workplace()
    batches = draining.open_batches(place.engine, now=utc_now(), campaign=campaign)
    for plan_id in sorted({batch.plan_id for batch in batches}):
        prepare_links(place.engine, place.config, place.environment, plan_id)
    return batches


@task(
    name="send",
    task_run_name="send plan {batch.plan_id} batch {batch.batch}",
    tags=["send"],
    cache_policy=NO_CACHE,
)
def send(batch: draining.Batch) -> draining.BatchResult:
    """Never retried by Prefect: what a batch could not send stays in the ledger for the next drain."""
    place = workplace()
    settings = place.config.channel(batch.channel)
    with open_channel(settings, os.environ) as channel:
        result = draining.drain(
            place.engine,
            batch,
            compose=Composer(place.engine, place.config, place.environment, batch.plan_id).compose,
            channel=channel,
            config=place.config,
            secret=place.environment.secret,
            clock=utc_now,
            on_progress=_progress(batch),
        )
    get_run_logger().info(result.sentence())
    return result


def _progress(batch: draining.Batch, every_seconds: float = 5.0) -> Callable[[int], None]:
    """Shows how far a batch is; an artifact costs 40 ms, so only now and then."""
    artifact: Any = create_progress_artifact(0.0, description=f"plan {batch.plan_id}, batch {batch.batch}")
    shown = time.monotonic()

    def on_progress(done: int) -> None:
        nonlocal shown
        if done >= batch.messages or time.monotonic() - shown > every_seconds:
            shown = time.monotonic()
            update_progress_artifact(artifact, progress=100.0 * done / max(batch.messages, 1))

    return on_progress
