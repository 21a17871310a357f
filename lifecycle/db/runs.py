"""The project's own book of executions: Prefect forgets a killed process, this table does not."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, select, update

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import runs


def start_run(
    engine: Engine,
    flow: str,
    *,
    now: datetime,
    as_of: datetime | None = None,
    parameters: Mapping[str, Any] | None = None,
    flow_run_id: str | None = None,
    parent_run_id: str | None = None,
) -> str:
    """Returns the run id, for example `daily-20261122T090000-3f9a`."""
    run_id = f"{flow}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    with writing(engine) as connection:
        connection.execute(
            runs.insert().values(
                run_id=run_id,
                flow=flow,
                flow_run_id=flow_run_id,
                parent_run_id=parent_run_id,
                parameters=dict(parameters or {}),
                as_of=as_of,
                state="running",
                started_at=now,
                heartbeat_at=now,
            )
        )
    return run_id


def finish_run(engine: Engine, run_id: str, state: str, *, now: datetime, summary: Mapping[str, Any]) -> None:
    """`state`: completed or failed."""
    with writing(engine) as connection:
        connection.execute(
            update(runs)
            .where(runs.c.run_id == run_id)
            .values(state=state, ended_at=now, heartbeat_at=now, summary=dict(summary))
        )


def heartbeat(engine: Engine, run_id: str, *, now: datetime) -> None:
    with writing(engine) as connection:
        connection.execute(update(runs).where(runs.c.run_id == run_id).values(heartbeat_at=now))


def newest_run(engine: Engine, flow: str | None = None) -> str | None:
    query = select(runs.c.run_id).order_by(runs.c.started_at.desc(), runs.c.run_id.desc()).limit(1)
    if flow is not None:
        query = query.where(runs.c.flow == flow)
    with reading(engine) as connection:
        return connection.execute(query).scalar()
