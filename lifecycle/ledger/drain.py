"""Sending what is reserved: batch by batch, chunk by chunk, each step in the ledger before and after.

One transaction writes down the answers to the last chunk and marks the next as on its way. Of a process that dies
in between, the wire log tells which messages of the chunk had begun to leave (`wirelog`); where that is lost, all
of the chunk are unknown that have no answer.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.exc import DBAPIError

from lifecycle.channels.base import Accepted, Channel, Outcome, Refused, Unknown
from lifecycle.clock import Clock
from lifecycle.db.engine import writing
from lifecycle.db.schema import messages
from lifecycle.errors import ChannelDown, ContentError, UnknownShop
from lifecycle.ledger import breakers, holds, lanes
from lifecycle.ledger.breakers import Counts
from lifecycle.ledger.claims import new_claim
from lifecycle.ledger.lanes import Lane
from lifecycle.ledger.records import Batch, BatchResult, total
from lifecycle.ledger.recover import settle_own
from lifecycle.ledger.secret import check_secret
from lifecycle.ledger.settling import (
    Claimed,
    ClaimLost,
    Forbidden,
    OutOfDate,
    is_dead_address,
    mark_sending,
    note_bounce,
    oldest_to_send,
    revise_verdict,
    settle,
    settled,
    why_forbidden,
)
from lifecycle.ledger.taking import claimed, open_batches, take, topic_of
from lifecycle.ledger.wirelog import WireLog
from lifecycle.ledger.withhold import withhold
from lifecycle.messages.records import Outgoing, Recipient
from lifecycle.settings import Config
from lifecycle.settings.channels import Way

__all__ = ["Batch", "BatchResult", "drain", "open_batches", "total"]

CHUNK = 100
"""Messages on their way at a time, at most: so many a machine that loses its power leaves unknown."""

_FIRST_CHUNK, _CHUNK_SECONDS = 10, 0.5
"""A chunk grows as long as it takes less than half a second, for an unsubscribe holds from the next one on."""

REST_SECONDS = 60
"""A way that is closed is tried again after it, where the peer names no time."""

_LONGEST_WAIT = timedelta(seconds=20)
"""A limit per second that wants a longer pause gets it from the next drain."""


class Ways(Protocol):
    def way(self, recipient: Recipient) -> tuple[str, Channel]:
        """The account that sends to a recipient, and the channel opened for it."""
        ...


def drain(
    engine: Engine,
    batch: Batch,
    *,
    compose: Callable[[Recipient], Outgoing],
    ways: Ways,
    config: Config,
    secret: bytes,
    clock: Clock,
    wire_dir: Path,
    wait: Callable[[float], None] = time.sleep,
    on_progress: Callable[[int], None] | None = None,
    chunk: int = CHUNK,
) -> BatchResult:
    """Send what is due in a batch; nothing where another live process holds it.

    Whose reason is gone since the plan was made gets nothing; where night has come meanwhile, a message waits. A
    lane that is closed, paused or on hold ends it early, with the rest still reserved and `problem` saying why.
    `on_progress` is told how many messages are done. `wire_dir`: where the wire log is kept, on this machine's
    disk. `chunk`: messages on their way at a time, at most. Raises ConfigError where `secret` is not that of the
    ledger.
    """
    result = BatchResult(batch.plan_id, batch.batch)
    claim, settings = new_claim(), config.channel(batch.channel)
    lane = Lane(batch.channel, "", batch.mailbox_provider)
    with writing(engine) as connection:
        check_secret(connection, secret)
        now = clock()
        until = now + timedelta(seconds=settings.lease_seconds)
        if not take(connection, batch, claim, settings, now):
            result.busy = True
            return result
        if not lanes.take_slot(connection, settings, lane, claim, now, until):
            connection.execute(_released(claim))
            result.full = True
            return result
        result.revised, result.held = withhold(connection, config, batch.plan_id, claim, now)
        mine, topic = claimed(connection, claim, settings), topic_of(connection, batch.plan_id)
    log = WireLog(wire_dir, claim)
    sender = _Sender(engine, claim, compose, settings, topic, batch.mailbox_provider, clock, wait, log, result)
    sender.on_progress = on_progress or (lambda done: None)
    sender.chunk = chunk
    whole = False
    try:
        try:
            for account, channel, group in _by_account(mine, ways):
                sender.send(account, channel, group)
        except (ChannelDown, _Stopped) as problem:
            result.problem = str(problem)
        finally:
            sender.finish()
            whole = True
    except ClaimLost:
        result.problem = "another process took the batch over"
        log.close(settled=False)
        settle_own(engine, config, claim, now=clock(), wire_dir=wire_dir)
    except DBAPIError as error:
        result.problem = (
            f"the database went away while sending ({type(error.orig).__name__}); what was on its way is settled "
            "when this machine reaches it again"
        )
    finally:
        log.close(settled=whole)
    return result


class _Stopped(Exception):
    """Nothing more leaves on this lane for now; not the peer's doing."""


class _Sender:
    """Works through one claimed batch. `_answers`: of what was sent and is not yet written down."""

    def __init__(
        self,
        engine: Engine,
        claim: str,
        compose: Callable[[Recipient], Outgoing],
        settings: Way,
        topic: str,
        provider: str,
        clock: Clock,
        wait: Callable[[float], None],
        log: WireLog,
        result: BatchResult,
    ) -> None:
        self._engine = engine
        self._claim = claim
        self._compose = compose
        self._settings = settings
        self._topic = topic
        self._provider = provider
        self._clock = clock
        self._wait = wait
        self._log = log
        self._result = result
        self._mark_sending = mark_sending(settings, topic)
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._renew_at = clock() + self._lease / 3
        self._answers: list[tuple[Claimed, Outcome | None]] = []
        self._closed: tuple[Lane, ChannelDown] | None = None
        self._lane = Lane(settings.name, "", provider)
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._done = 0
        self.on_progress: Callable[[int], None] = lambda done: None
        self.chunk = CHUNK
        self._size = _FIRST_CHUNK

    def send(self, account: str, channel: Channel, group: Sequence[Claimed]) -> None:
        """Raises ChannelDown, _Stopped and ClaimLost; `finish` must be called in any case."""
        self._lane = Lane(self._settings.name, account, self._provider)
        rest = list(group)
        while rest:
            size = self._chunk_size(channel)
            chunk, rest = rest[:size], rest[size:]
            self._admit(len(chunk))
            composed = [(one, self._composed(one.recipient)) for one in chunk]
            with self._writing() as (connection, now):
                stopped = self._write_answers(connection, now)
                leaving = [] if stopped else self._ready(connection, composed, now)
            if stopped:
                raise _Stopped(stopped)
            began = self._clock()
            self._transmit(channel, leaving)
            quick = (self._clock() - began).total_seconds() < _CHUNK_SECONDS
            self._size = self._size * 2 if quick else max(1, self._size // 2)

    def finish(self) -> None:
        """Write down the last answers and let go of what was not begun."""
        with self._writing() as (connection, now):
            stopped = self._write_answers(connection, now)
            if self._closed is not None:
                self._close_lane(connection, *self._closed, now)
            lanes.free_slot(connection, self._claim)
            number = connection.execute(_released(self._claim)).rowcount
            self._counts["held"] += number
            if number:
                self._reasons[f"not sent: {self._result.problem or stopped or 'left for later'}"] += number
        self._result.problem = self._result.problem or stopped

    def _chunk_size(self, channel: Channel) -> int:
        """As many as one request carries, or as leave one after the other in about a second."""
        self._size = min(self._size, self.chunk)
        rates = lanes.rates(self._settings, self._lane).values()
        return max(1, min(self._size, channel.at_once, *(int(rate) for rate in rates)))

    def _admit(self, number: int) -> None:
        """Wait for our turn on a lane with a limit per second. Raises _Stopped where nothing may leave."""
        rates = lanes.rates(self._settings, self._lane)
        if not rates:
            return
        with writing(self._engine) as connection:
            now = self._clock()
            wanted = sorted(rates.items(), key=lambda item: item[0].provider)
            pause = max(lanes.admit(connection, lane, rate, number, now) for lane, rate in wanted)
        if pause > min(_LONGEST_WAIT, self._lease / 3):
            raise _Stopped(f"{self._lane} has a queue of {pause.total_seconds():,.0f} seconds")
        if pause:
            self._wait(pause.total_seconds())

    @contextmanager
    def _writing(self) -> Iterator[tuple[Connection, datetime]]:
        """A transaction and the time at which it began; what was counted in it counts once it is committed."""
        self._counts.clear()
        self._reasons.clear()
        with writing(self._engine) as connection:
            yield connection, self._clock()
        self._answers.clear()
        for name, count in self._counts.items():
            setattr(self._result, name, getattr(self._result, name) + count)
        self._result.reasons += self._reasons

    def _composed(self, recipient: Recipient) -> Outgoing | Forbidden:
        if recipient.address is None:
            return Forbidden("no_address", None, "no address any more")
        try:
            return self._compose(recipient)
        except ContentError as error:
            return Forbidden("content", None, f"content: {error}")
        except UnknownShop:  # any other mistake in the configuration concerns everybody and must be mended first
            return Forbidden("policy", "unknown_shop", "policy: the shop is no longer configured")

    def _ready(
        self, connection: Connection, composed: Sequence[tuple[Claimed, Outgoing | Forbidden]], now: datetime
    ) -> list[tuple[Claimed, Outgoing]]:
        """Those of the chunk that are now marked as on their way; the others are dropped or put back."""
        self._refuse_where_nothing_may_leave(connection, composed[0][0].recipient.what, now)
        self._renew_lease(connection, now)
        for one, forbidden in composed:
            if isinstance(forbidden, Forbidden):
                self._drop(connection, one, forbidden, now)
        mails = [(one, mail) for one, mail in composed if not isinstance(mail, Forbidden)]
        parameters = {
            "ids": [one.recipient.message_id for one, _ in mails],
            "mine": self._claim,
            "at": now,
            "until": now + self._lease,
            "oldest": oldest_to_send(self._settings, now),
        }
        marked = set(connection.execute(self._mark_sending, parameters).scalars()) if mails else set[int]()
        for one, _ in mails:
            if one.recipient.message_id not in marked:
                self._leave_out(connection, one, now)
        return [(one, mail) for one, mail in mails if one.recipient.message_id in marked]

    def _refuse_where_nothing_may_leave(self, connection: Connection, what: str, now: datetime) -> None:
        found = lanes.paused(connection, self._lane, now)
        if found is not None:
            raise _Stopped(f"{self._lane} rests until {found.until:%Y-%m-%d %H:%M} UTC: {found.reason}")
        held = holds.standing(connection, what, self._settings.name, self._provider)
        if held is not None:
            raise _Stopped(f"{what} on {self._lane} is {held.reason}")

    def _leave_out(self, connection: Connection, one: Claimed, now: datetime) -> None:
        try:
            forbidden = why_forbidden(connection, self._settings, self._topic, one, self._claim, now)
        except OutOfDate:
            self._settle(connection, one, {"state": "reserved", "attempts": one.attempts})
            self._counts["held"] += 1
        else:
            self._drop(connection, one, forbidden, now)

    def _drop(self, connection: Connection, one: Claimed, forbidden: Forbidden, now: datetime) -> None:
        values = {"state": "refused", "reason": forbidden.reason, "settled_at": now, "attempts": one.attempts}
        self._settle(connection, one, values)
        revise_verdict(connection, one.recipient, forbidden, now)
        self._counts["revised"] += 1
        self._reasons[forbidden.reason] += 1
        self._advance(1)

    def _settle(self, connection: Connection, one: Claimed, values: dict[str, Any]) -> None:
        settle(connection, self._claim, {one.recipient.message_id: values})

    def _transmit(self, channel: Channel, leaving: Sequence[tuple[Claimed, Outgoing]]) -> None:
        """Raises ChannelDown after noting what is known of each message."""
        begun: set[int] = set()
        answers: dict[int, Outcome] = {}
        down: ChannelDown | None = None

        def begin(message: Outgoing) -> None:
            begun.add(message.send_id)
            self._log.begun(message.send_id)

        try:
            for message, outcome in channel.send([mail for _, mail in leaving], begin):
                answers[message.send_id] = outcome
                self._log.answered(message.send_id, outcome)
                self._advance(1)
                self._renew_where_slow()
        except ChannelDown as error:
            down = error
            raise
        finally:
            lost = down is None or not down.taken_none
            for one, mail in leaving:
                known = answers.get(mail.send_id)
                if known is None and mail.send_id in begun and lost:
                    known = Unknown(f"interrupted while it was on its way{f': {down}' if down else ''}")
                self._answers.append((one, known))
            if down is not None:
                self._closed = self._lane, down

    def _advance(self, number: int) -> None:
        self._done += number
        self.on_progress(self._done)

    def _write_answers(self, connection: Connection, now: datetime) -> str | None:
        """Returns why nothing more may leave on the lane, where the answers say so."""
        rows: dict[int, dict[str, Any]] = {}
        counted = Counts(0)
        lane_refusal: Refused | None = None
        for one, outcome in self._answers:
            message_id = one.recipient.message_id
            if outcome is None:
                rows[message_id] = {"state": "reserved", "attempts": one.attempts}
                self._counts["held"] += 1
                continue
            values = settled(
                outcome, message_id=message_id, attempts=one.attempts + 1, settings=self._settings, now=now
            )
            rows[message_id] = values
            bounced = is_dead_address(outcome)
            self._counts["held" if values["state"] == "reserved" else values["state"]] += 1
            if not isinstance(outcome, Accepted):
                self._reasons[_reason(outcome)] += 1
            if isinstance(outcome, Refused) and outcome.scope == "lane":
                lane_refusal = outcome
            if values["state"] != "reserved":
                counted = replace(counted, sent=counted.sent + 1, bounced=counted.bounced + bounced)
            if is_dead_address(outcome):
                note_bounce(connection, message_id, one.address_hash, outcome, self._settings, now)
        settle(connection, self._claim, rows)
        return self._judge_lane(connection, counted, lane_refusal, now)

    def _judge_lane(
        self, connection: Connection, counted: Counts, refusal: Refused | None, now: datetime
    ) -> str | None:
        if not self._answers:
            return None
        what, why = self._answers[0][0].recipient.what, None
        if counted.sent:
            why = breakers.count(connection, self._settings, what, self._provider, counted, now)
        if why is not None:
            return f"{what} on {self._lane} is paused by the breaker: {why}"
        if refusal is not None:
            said = f"{refusal.code} {refusal.text}".strip()
            until = lanes.pause(
                connection, self._lane, said, now, for_good=refusal.permanent, retry_after=refusal.retry_after
            )
            self._closed = None
            return f"{self._lane} rests until {until:%Y-%m-%d %H:%M} UTC: {said}"
        if counted.sent:
            lanes.recovered(connection, self._settings, self._lane, now)
        return None

    def _close_lane(self, connection: Connection, lane: Lane, down: ChannelDown, now: datetime) -> None:
        """So that the next batches need not run into it. A wrong login is mended by hand and tried at once."""
        if not down.login:
            lanes.rest(connection, lane, str(down), now, down.retry_after or REST_SECONDS)

    def _renew_lease(self, connection: Connection, now: datetime) -> None:
        if now < self._renew_at:
            return
        until = now + self._lease
        connection.execute(update(messages).where(messages.c.claim == self._claim).values(lease_until=until))
        lanes.keep_slot(connection, self._claim, until)
        self._renew_at = now + self._lease / 3

    def _renew_where_slow(self) -> None:
        """In the middle of a chunk. Raises ClaimLost where others have taken us for dead."""
        if self._clock() < self._renew_at:
            return
        with writing(self._engine) as connection:
            now = self._clock()
            mine = select(messages.c.message_id).where(
                messages.c.claim == self._claim, messages.c.state == "sending"
            )
            if connection.execute(mine.limit(1)).scalar() is None:
                raise ClaimLost
            self._renew_lease(connection, now)


def _by_account(mine: Iterable[Claimed], ways: Ways) -> Iterator[tuple[str, Channel, list[Claimed]]]:
    """In the order of the messages, as far as one account reaches."""
    with_way = [(*ways.way(one.recipient), one) for one in mine]
    for _, group in groupby(sorted(with_way, key=lambda each: each[0]), key=lambda each: each[0]):
        same = list(group)
        yield same[0][0], same[0][1], [one for _, _, one in same]


def _released(claim: str) -> Any:
    unsent = update(messages).where(messages.c.claim == claim, messages.c.state == "reserved")
    return unsent.values(claim=None, lease_until=None)


def _reason(outcome: Outcome) -> str:
    if isinstance(outcome, Refused):
        kind = "refused for good" if outcome.permanent else "refused for now"
        return f"{kind}: {outcome.code} {outcome.text}".rstrip()
    return f"unknown: {outcome.text}" if isinstance(outcome, Unknown) else ""
