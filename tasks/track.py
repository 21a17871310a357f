"""Say of every new hit whether a person or a machine made it."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from lifecycle.clock import utc_now
from lifecycle.tracking import collect
from lifecycle.tracking.feedback.desk import read_mailbox
from tasks.credentials import SecretEnvironment
from tasks.place import workplace


@task(name="track", cache_policy=NO_CACHE)
def track() -> collect.Collected:
    place = workplace()
    return collect.collect(place.engine, place.config, now=utc_now())


@task(name="read-mailbox", cache_policy=NO_CACHE)
def read_bounces() -> str | None:
    """Bounces, complaints and unsubscribes by mail, where a mailbox is configured. Returns a sentence."""
    place = workplace()
    return read_mailbox(place.engine, place.environment, place.config, SecretEnvironment())
