"""The project's own book of executions: Prefect forgets a killed process, this table does not."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select, update

from lifecycle.clock import Clock, utc_now
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import runs
from lifecycle.errors import TernError


@dataclass
class Run:
    """One execution while it goes on. What is put into `summary` is kept; `sentences` are for people."""

    run_id: str
    started_at: datetime
    summary: dict[str, Any] = field(default_factory=dict)
    peak_mb: float = 0.0
    """Most memory the process had while this run or a child of it went on."""

    def say(self, sentence: str) -> None:
        self.summary.setdefault("sentences", []).append(sentence)


_current: ContextVar[Run | None] = ContextVar("current_run", default=None)


@contextmanager
def booked(
    engine: Engine,
    flow: str,
    *,
    parameters: Mapping[str, Any] | None = None,
    as_of: datetime | None = None,
    flow_run_id: str | None = None,
    clock: Clock = utc_now,
) -> Iterator[Run]:
    """Books an execution from its beginning to its end, with its seconds and peak memory.

    A booking inside another one becomes its child. An exception, or anything under `failures` in the summary,
    books `failed`; the exception goes on.
    """
    now, parent = clock(), _current.get()
    run_id = start_run(
        engine,
        flow,
        now=now,
        as_of=as_of,
        parameters=parameters,
        flow_run_id=flow_run_id,
        parent_run_id=parent.run_id if parent else None,
    )
    run = Run(run_id, now)
    token, started = _current.set(run), time.monotonic()
    _note_peak(parent)
    state = "failed"
    try:
        yield run
        state = "failed" if run.summary.get("failures") else "completed"
    except Exception as error:
        run.summary["error"] = str(error) if isinstance(error, TernError) else _unforeseen(error)
        raise
    finally:
        _current.reset(token)
        _note_peak(run)
        if parent:
            parent.peak_mb = max(parent.peak_mb, run.peak_mb)
        run.summary |= {"seconds": round(time.monotonic() - started, 2), "peak_mb": run.peak_mb}
        finish_run(engine, run_id, state, now=clock(), summary=run.summary)


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


SENDING = ("daily", "run-campaign", "apply")
"""Flows and commands that may send, and so are worth a report."""


def sending_runs(engine: Engine, *, since: datetime | None = None) -> list[str]:
    """Runs that may have sent, newest first: no dry runs, and none that is a part of another run."""
    query = select(runs.c.run_id, runs.c.parameters).where(
        runs.c.parent_run_id.is_(None), runs.c.flow.in_(SENDING)
    )
    if since is not None:
        query = query.where(runs.c.started_at >= since)
    with reading(engine) as connection:
        found = connection.execute(query.order_by(runs.c.started_at.desc(), runs.c.run_id.desc())).all()
    return [row.run_id for row in found if not row.parameters.get("dry_run")]


def _unforeseen(error: Exception) -> str:
    """A driver's words may quote a row, so only the kind of error is kept; the log has the rest."""
    return f"an unforeseen {type(error).__name__}; see the log of the run"


def _note_peak(run: Run | None) -> None:
    """Give `run` the peak memory measured until now and start measuring anew (proc(5), clear_refs).

    Where the kernel does not tell, the peak stays 0.
    """
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        if run:
            run.peak_mb = max(run.peak_mb, round(peak_kb / 1024, 1))
        Path("/proc/self/clear_refs").write_text("5")
