"""One transaction for many requests: each waits a few milliseconds and is answered after the commit."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from lifecycle.db.engine import writing

Entry = TypeVar("Entry")
Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)


class GroupCommit(Generic[Entry, Answer]):
    """A thread that writes what requests put into its queue, all that came within `seconds` at once.

    `apply(connection, entries)` returns one answer per entry, in order. A group that fails is tried again
    entry by entry, so that one bad entry cannot take others with it; its own request gets the exception.
    """

    def __init__(
        self,
        engine: Engine,
        apply: Callable[[Connection, Sequence[Entry]], Sequence[Answer]],
        *,
        seconds: float = 0.005,
        most: int = 1000,
    ) -> None:
        self._engine, self._apply, self._seconds, self._most = engine, apply, seconds, most
        self._queue: SimpleQueue[tuple[Entry, asyncio.Future[Answer]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="group-commit", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Write what is queued, then end. Nothing may be put in afterwards."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def write(self, entry: Entry) -> Answer:
        """Returns after the commit. Raises what the database raised."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.put((entry, future))
        return await future

    def _work(self) -> None:
        going_on = True
        while going_on:
            group = [self._queue.get()]
            time.sleep(self._seconds)
            while group[-1] is not None and len(group) < self._most:
                try:
                    group.append(self._queue.get_nowait())
                except Empty:
                    break
            going_on = group[-1] is not None
            if waiting := [item for item in group if item is not None]:
                self._settle(waiting)

    def _settle(self, group: list[tuple[Entry, asyncio.Future[Answer]]]) -> None:
        futures = [future for _, future in group]
        try:
            answers: Sequence[Any] = self._commit([entry for entry, _ in group])
        except OperationalError as error:  # locked or gone: entry by entry would only wait longer
            answers = [error] * len(group)
        except Exception:
            logger.exception("a group of %d events could not be written at once", len(group))
            answers = [self._alone(entry) for entry, _ in group]
        futures[0].get_loop().call_soon_threadsafe(_resolve, futures, answers)

    def _commit(self, entries: Sequence[Entry]) -> Sequence[Answer]:
        with writing(self._engine) as connection:
            return self._apply(connection, entries)

    def _alone(self, entry: Entry) -> Answer | Exception:
        try:
            return self._commit([entry])[0]
        except Exception as error:  # noqa: BLE001 (it is raised again where the request waits)
            return error


def _resolve(futures: Sequence[asyncio.Future[Any]], answers: Sequence[Any]) -> None:
    for future, answer in zip(futures, answers, strict=True):
        if future.done():  # its request was cancelled
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
