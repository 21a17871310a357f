"""Reserve, send, confirm: the ledger's batches, one task each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from lifecycle.clock import utc_now
from lifecycle.customers.mailboxes import dns_works, exchangers, look_up_domains
from lifecycle.ledger import drain as draining
from lifecycle.ledger.expire import expire
from lifecycle.ledger.holds import breakers_open
from lifecycle.ledger.reconcile import Reconciled, reconcile
from lifecycle.ledger.recover import Recovered, recover
from lifecycle.ledger.reserve import Reservation, reserve
from lifecycle.ledger.sending import send_batch, wire_dir
from lifecycle.messages.links import prepare_links
from lifecycle.messages.samples import content_hash_now
from lifecycle.settings.channels import EmailChannel
from lifecycle.workplace import Workplace
from tasks.credentials import SecretEnvironment
from tasks.place import workplace


@task(name="recover", cache_policy=NO_CACHE)
def take_over() -> Recovered:
    """Claims of processes that are gone: what is known of their messages is written down, the rest is free."""
    place = workplace()
    recovered = recover(place.engine, place.config, now=utc_now(), wire_dir=wire_dir(place.environment))
    if recovered.unknown or recovered.released or recovered.settled:
        get_run_logger().warning(recovered.sentence())
    return recovered


@task(name="reserve", task_run_name="reserve plan {plan_id}", cache_policy=NO_CACHE)
def reserve_plan(plan_id: int, run_id: str) -> Reservation:
    """Raises PlanError where the plan may not be sent: changed, not approved, too old, applied as another."""
    place = workplace()
    _look_up_providers(place)
    return reserve(
        place.engine,
        place.config,
        plan_id,
        now=utc_now(),
        secret=place.environment.secret,
        content_hash=content_hash_now(place.engine, place.environment.templates_dir, plan_id),
        run_id=run_id,
    )


def _look_up_providers(place: Workplace) -> None:
    """Where it is wanted and DNS answers: who runs the mailboxes of domains that are not known."""
    channels = place.config.channels.values()
    if any(isinstance(each, EmailChannel) and each.look_up_providers for each in channels) and dns_works():
        found = look_up_domains(place.engine, now=utc_now(), resolve=exchangers)
        get_run_logger().info("DNS told the mailbox providers of %s domains", f"{found:,}")


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
    task_run_name="send plan {batch.plan_id} batch {batch.batch} to {batch.mailbox_provider}",
    tags=["send"],
    cache_policy=NO_CACHE,
)
def send(batch: draining.Batch) -> draining.BatchResult:
    """Never retried by Prefect: what a batch could not send stays in the ledger for the next drain."""
    result = send_batch(workplace(), batch, env=SecretEnvironment(), on_progress=_progress(batch))
    get_run_logger().info(result.sentence())
    return result


@task(name="say-not-sent", cache_policy=NO_CACHE)
def say_not_sent(result: draining.BatchResult) -> None:
    """A table of what was not sent and why; a stopped lane is an event too, for an automation to call somebody."""
    rows = [{"messages": count, "why": why} for why, count in result.reasons.most_common(50)]
    if rows:
        create_table_artifact(rows, key="not-sent", description="What was not sent in this run, and why")
    if result.problem:
        resource = {"prefect.resource.id": "tern.sending", "prefect.resource.name": "sending"}
        emit_event("tern.sending.stopped", resource=resource, payload={"problem": result.problem})


@task(name="stopped-lanes", cache_policy=NO_CACHE)
def stopped_lanes() -> list[str]:
    """What breakers have stopped, also by reports that came in between two runs; an event each time."""
    stopped = breakers_open(workplace().engine)
    for sentence in stopped:
        resource = {"prefect.resource.id": "tern.sending", "prefect.resource.name": "sending"}
        emit_event("tern.sending.stopped", resource=resource, payload={"problem": sentence})
    return stopped


@task(name="reconcile", cache_policy=NO_CACHE)
def ask_about_unknown() -> Reconciled:
    """Channels that can tell are asked about messages whose answer is not known."""
    found = reconcile(workplace(), now=utc_now(), env=SecretEnvironment())
    if found.asked:
        get_run_logger().info(found.sentence())
    return found


def _progress(batch: draining.Batch, every_seconds: float = 5.0) -> Callable[[int], None]:
    """Shows how far a batch is; an artifact costs 40 ms, so only now and then."""
    artifact: Any = create_progress_artifact(0.0, description=f"plan {batch.plan_id}, batch {batch.batch}")
    shown = time.monotonic()

    def on_progress(done: int) -> None:
        nonlocal shown
        if done >= batch.messages or time.monotonic() - shown > every_seconds:
            shown = time.monotonic()
            update_progress_artifact(artifact, progress=min(100.0, 100.0 * done / max(batch.messages, 1)))

    return on_progress
