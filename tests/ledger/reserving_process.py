"""A process that reserves whatever plan is open, until none is; or is killed on the way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from threading import Timer
from typing import Any

from sqlalchemy import Engine, event, exists, select

from lifecycle.db.engine import open_database, reading
from lifecycle.db.schema import plans
from lifecycle.errors import PlanError
from lifecycle.ledger.reserve import reserve
from lifecycle.settings import Config

CLOCKS_APART = 120
"""Seconds by which the clocks of two processes may differ."""


def reserve_all(
    database_url: str, config: Config, secret: bytes, since: datetime, seed: int, lifespan: int | None
) -> None:
    """In random order, by a clock of its own, that begins about `since`. After `lifespan` statements to the
    database it kills itself, at a random moment of the next ones."""
    random = Random(seed)
    engine = open_database(database_url)
    if lifespan is not None:
        _end_after(engine, lifespan, delay=random.choice((0.0, random.uniform(0, 0.02))))
    clock = _clock(since, random)
    while found := _open_plans(engine):
        plan_id = random.choice(found)
        try:
            reserve(engine, config, plan_id, now=clock(), secret=secret)
        except PlanError as error:
            if "it is sent once a day" not in str(error):
                raise


def _open_plans(engine: Engine) -> list[int]:
    """Drafts of campaigns and dates of which no plan is applied."""
    done = plans.alias("done")
    applied = exists().where(
        done.c.campaign == plans.c.campaign, done.c.occurrence == plans.c.occurrence, done.c.status == "applied"
    )
    with reading(engine) as connection:
        return list(connection.execute(select(plans.c.plan_id).where(~applied)).scalars())


def _clock(since: datetime, random: Random) -> Callable[[], datetime]:
    ahead = since + timedelta(seconds=random.uniform(0, CLOCKS_APART))
    started = time.monotonic()
    return lambda: ahead + timedelta(seconds=time.monotonic() - started)


def _end_after(engine: Engine, statements: int, delay: float) -> None:
    left = statements

    @event.listens_for(engine, "before_cursor_execute")
    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
