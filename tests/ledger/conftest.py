from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from lifecycle.clock import Clock
from lifecycle.ledger.drain import BatchResult, drain, open_batches, total
from lifecycle.settings import Config
from tests.conftest import FakeClock
from tests.ledger.people import SECRET, ScriptedChannel, simple_mail


@pytest.fixture
def config(changed: Callable[..., Config]) -> Config:
    """Small batches, nobody held out, plans that may be applied days later."""
    channel = {
        "name": "email",
        "kind": "email",
        "smtp": {"host": "127.0.0.1", "port": 25, "security": "none"},
        "bounce_domain": "bounce.example.com",
        "batch_size": 4,
        "lease_seconds": 60,
        "max_attempts": 3,
        "retry_minutes": 15,
    }
    return without_hold_out(changed(channels_file={"channels": [channel]}))


def without_hold_out(config: Config) -> Config:
    file = config.campaigns_file
    campaigns = [{**campaign.model_dump(), "hold_out": 0} for campaign in file.campaigns]
    guards = {"max_age_hours": 24 * 30}
    values = {**file.model_dump(), "global_hold_out": 0, "campaigns": campaigns, "guards": guards}
    parts = {name: getattr(config, name) for name in config.__dataclass_fields__}
    return Config(**{**parts, "campaigns_file": type(file).model_validate(values)})


@pytest.fixture
def send(engine: Engine, config: Config, clock: FakeClock, tmp_path: Path) -> Callable[..., BatchResult]:
    """Drain everything that is due: `send(channel)`."""

    def drain_all(channel: Any = None, *, at: Clock | None = None, **options: Any) -> BatchResult:
        wanted = {
            "compose": simple_mail,
            "ways": channel or ScriptedChannel(),
            "config": config,
            "secret": SECRET,
            "clock": at or clock,
            "wire_dir": tmp_path / "wire",
            "wait": lambda seconds: clock.tick(seconds=seconds),
            **options,
        }
        return total(drain(engine, batch, **wanted) for batch in open_batches(engine, now=clock()))

    return drain_all
