"""One batch with all that it needs: the composer of its plan, the accounts of its channel, the wire log."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lifecycle.channels.opening import OpenWays
from lifecycle.clock import Clock, utc_now
from lifecycle.ledger.drain import Batch, BatchResult, drain
from lifecycle.messages.compose import Composer
from lifecycle.settings import Environment
from lifecycle.workplace import Workplace

PATIENCE_SECONDS = 300
"""So long a batch waits for a connection that its mailbox provider allows; then the next drain has it."""


def wire_dir(environment: Environment) -> Path:
    """Where wire logs are kept: on this machine's disk, one folder for all processes."""
    return environment.data_dir / "wire"


def send_batch(
    place: Workplace,
    batch: Batch,
    *,
    env: Mapping[str, str] = os.environ,
    clock: Clock = utc_now,
    wait: Callable[[float], None] = time.sleep,
    on_progress: Callable[[int], None] | None = None,
) -> BatchResult:
    """Send what is due in a batch, as `drain`. `env`: where passwords and keys are found. Raises ConfigError."""
    composer = Composer(place.engine, place.config, place.environment, batch.plan_id, env=env, clock=clock)
    settings = place.config.channel(batch.channel)
    waited = 0.0
    with OpenWays(settings, env, provider=batch.mailbox_provider, clock=clock) as ways:
        while True:
            result = drain(
                place.engine,
                batch,
                compose=composer.compose,
                ways=ways,
                config=place.config,
                secret=place.environment.secret,
                clock=clock,
                wire_dir=wire_dir(place.environment),
                wait=wait,
                on_progress=on_progress,
            )
            if not result.full or waited >= PATIENCE_SECONDS:
                return result
            wait(1.0)
            waited += 1.0
