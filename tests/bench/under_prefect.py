"""Flows that send, each in a process of its own: the last line that it prints is what it measured, as JSON.

python -m tests.bench.under_prefect batches|each
"""

from __future__ import annotations

import json
import os
import pickle
import smtplib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from lifecycle.ledger.records import Batch, BatchResult, total
from lifecycle.ledger.sending import send_batch
from lifecycle.ledger.taking import open_batches
from lifecycle.messages.records import Mail
from lifecycle.workplace import open_workplace
from tests.bench.figures import Figure, timed
from tests.bench.mails import clock
from tests.ledger.people import NOW


class _Inside:
    """The CPU that the threads of the tasks spend on sending itself."""

    def __init__(self) -> None:
        self.cpu_seconds = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def sending(self) -> Iterator[None]:
        began = time.thread_time()
        yield
        self._add(time.thread_time() - began)

    def without(self, call: Callable[[int], None]) -> Callable[[int], None]:
        """What is called from inside and is not sending."""

        def called(done: int) -> None:
            began = time.thread_time()
            call(done)
            self._add(began - time.thread_time())

        return called

    def _add(self, seconds: float) -> None:
        with self._lock:
            self.cpu_seconds += seconds


def batches() -> list[Figure]:
    """Plan BENCH_PLAN, with a task as tasks/send.py has it, four at a time."""
    place, plan_id, now, inside = open_workplace(), int(os.environ["BENCH_PLAN"]), clock(), _Inside()
    found = open_batches(place.engine, now=NOW, plan_id=plan_id)
    count = sum(batch.messages for batch in found)
    with timed("import of Prefect and of the tasks, once", count, cpu=True) as importing:
        from prefect import flow, get_run_logger, task
        from prefect.cache_policies import NO_CACHE
        from prefect.task_runners import ThreadPoolTaskRunner

        from tasks.credentials import SecretEnvironment
        from tasks.send import _progress

    @task(name="send", task_run_name="send plan {batch.plan_id} batch {batch.batch}", cache_policy=NO_CACHE)
    def send(batch: Batch) -> BatchResult:
        on_progress = inside.without(_progress(batch))
        with inside.sending():
            result = send_batch(place, batch, env=SecretEnvironment(), clock=now, on_progress=on_progress)
        get_run_logger().info(result.sentence())
        return result

    starting, running = _figures("start of the flow run and of Prefect's server, once", "the flow", count)

    @flow(name="bench", task_runner=ThreadPoolTaskRunner(max_workers=4))  # type: ignore[arg-type]
    def send_all() -> None:
        _lap(starting, running)
        result = total(send.map(found).result())
        if result.accepted != count:
            raise RuntimeError(result.sentence())

    _begin(starting)
    send_all()
    _end(running)
    assert running.cpu_seconds is not None
    around = running.cpu_seconds - inside.cpu_seconds
    share = f"Prefect's share {around / running.cpu_seconds:.1%}"
    running.what = f"the flow's process from its first line to its last, {len(found)} send tasks: {share}"
    return [
        running,
        Figure("of it inside the send tasks", count, cpu_seconds=inside.cpu_seconds),
        Figure("of it around them", count, cpu_seconds=around),
        importing,
        starting,
        _server(count),
    ]


def each() -> list[Figure]:
    """The mails of BENCH_MAILS, ready-made, each by a task with a connection of its own; nothing is remembered."""
    made: list[Mail] = pickle.loads(Path(os.environ["BENCH_MAILS"]).read_bytes())
    port, count = int(os.environ["BENCH_PORT"]), len(made)
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE

    @task(cache_policy=NO_CACHE)
    def send(place: int) -> None:
        mail = made[place]
        with smtplib.SMTP("127.0.0.1", port) as peer:
            peer.sendmail(mail.envelope_from, mail.envelope_to, mail.content)

    what = "one Prefect task a mail, ready-made, by smtplib; without import and start"
    starting, running = _figures("", what, count)

    @flow(name="bench")
    def send_all() -> None:
        _lap(starting, running)
        send.map(range(count)).result()

    _begin(starting)
    send_all()
    _end(running)
    return [running, _server(count)]


def _figures(starting: str, running: str, count: int) -> tuple[Figure, Figure]:
    return Figure(starting, count, cpu_seconds=0.0), Figure(running, count, cpu_seconds=0.0)


def _begin(figure: Figure) -> None:
    figure.seconds -= time.perf_counter()
    figure.cpu_seconds = (figure.cpu_seconds or 0.0) - time.process_time()


def _end(figure: Figure) -> None:
    figure.seconds += time.perf_counter()
    figure.cpu_seconds = (figure.cpu_seconds or 0.0) + time.process_time()


def _lap(ends: Figure, begins: Figure) -> None:
    _end(ends)
    _begin(begins)


def _server(count: int) -> Figure:
    """So far: it goes on storing events when the flow has ended."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    cpu_seconds = sum(each.user + each.system for each in times)
    return Figure("beside it Prefect's server, its start included", count, cpu_seconds=cpu_seconds)


if __name__ == "__main__":
    measured = {"batches": batches, "each": each}[sys.argv[1]]()
    print(json.dumps([asdict(figure) for figure in measured]))
