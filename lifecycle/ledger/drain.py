"""Sending what is reserved: batch by batch, message by message, each step in the ledger before and after.

One transaction per message writes down the answer to the last one and marks the next one as on its way. A process
that dies in between leaves at most one message of which nobody knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Engine, and_, func, or_, select, update

from lifecycle.channels.base import Channel, Outcome, Refused, Unknown
from lifecycle.clock import Clock
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import customers, messages, plans
from lifecycle.errors import ChannelDown, ContentError, UnknownShop
from lifecycle.ledger.claims import new_claim
from lifecycle.ledger.records import Batch, BatchResult, total
from lifecycle.ledger.secret import check_secret
from lifecycle.ledger.settling import (
    Claimed,
    ClaimLost,
    Forbidden,
    OutOfDate,
    mark_sending,
    note_bounce,
    oldest_to_send,
    revise_verdict,
    settle,
    settled,
    too_old,
    why_forbidden,
)
from lifecycle.ledger.withhold import withhold
from lifecycle.messages.records import Mail, Recipient
from lifecycle.settings import Config
from lifecycle.settings.models import EmailChannel

__all__ = ["Batch", "BatchResult", "drain", "open_batches", "total"]

_TAKEN_OVER = "another process took the batch over"


def open_batches(
    engine: Engine, *, now: datetime, plan_id: int | None = None, campaign: str | None = None
) -> list[Batch]:
    """Batches with messages that are due, oldest plan first; all of them, or of one plan or campaign."""
    query = (
        select(messages.c.plan_id, messages.c.batch, messages.c.channel, func.count())
        .where(messages.c.state == "reserved", messages.c.plan_id.is_not(None), _due(now))
        .group_by(messages.c.plan_id, messages.c.batch, messages.c.channel)
        .order_by(messages.c.plan_id, messages.c.batch)
    )
    if plan_id is not None:
        query = query.where(messages.c.plan_id == plan_id)
    if campaign is not None:
        query = query.where(messages.c.what == campaign)
    with reading(engine) as connection:
        return [Batch(*row) for row in connection.execute(query)]


def drain(
    engine: Engine,
    batch: Batch,
    *,
    compose: Callable[[Recipient], Mail],
    channel: Channel,
    config: Config,
    secret: bytes,
    clock: Clock,
    on_progress: Callable[[int], None] | None = None,
) -> BatchResult:
    """Send what is due in a batch; nothing where another live process holds it.

    Whose reason is gone since the plan was made gets nothing; where night has come meanwhile, a message waits. A
    channel that is down ends it early, with the rest still reserved and `problem` saying why. `on_progress` is
    told how many messages are done. Raises ConfigError where `secret` is not that of the ledger.
    """
    result = BatchResult(batch.plan_id, batch.batch)
    claim, settings = new_claim(), config.channel(batch.channel)
    with writing(engine) as connection:
        check_secret(connection, secret)
        now = clock()
        if not _take(connection, batch, claim, settings, now):
            result.busy = True
            return result
        result.revised, result.held = withhold(connection, config, batch.plan_id, claim, now)
        mine, topic = _claimed(connection, claim), _topic(connection, batch.plan_id)
    sender = _Sender(engine, claim, compose, channel, settings, topic, clock, result)
    try:
        try:
            for done, claimed in enumerate(mine, start=1):
                sender.send(claimed)
                if on_progress is not None:
                    on_progress(done)
        except ChannelDown as down:
            result.problem = str(down)
        finally:
            sender.finish()
    except ClaimLost:
        result.problem = _TAKEN_OVER
    return result


class _Sender:
    """Works through one claimed batch. `_last`: sent, its answer not yet written down."""

    def __init__(
        self,
        engine: Engine,
        claim: str,
        compose: Callable[[Recipient], Mail],
        channel: Channel,
        settings: EmailChannel,
        topic: str,
        clock: Clock,
        result: BatchResult,
    ) -> None:
        self._engine = engine
        self._claim = claim
        self._compose = compose
        self._channel = channel
        self._settings = settings
        self._topic = topic
        self._clock = clock
        self._result = result
        self._mark_sending = mark_sending(settings, topic)
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._renew_at = clock() + self._lease / 3
        self._last: tuple[Claimed, Outcome | None] | None = None
        self._counts: Counter[str] = Counter()

    def send(self, claimed: Claimed) -> None:
        """Raises ChannelDown and ClaimLost; `finish` must be called in any case."""
        mail = self._composed(claimed.recipient)
        leaves = False
        with self._writing() as (connection, now):
            self._write_last(connection, now)
            if isinstance(mail, Forbidden):
                self._drop(connection, claimed, mail, now)
            else:
                leaves = self._may_leave(connection, claimed, now)
        self._last = None
        if leaves and isinstance(mail, Mail):
            self._transmit(claimed, mail)

    def finish(self) -> None:
        """Write down the last answer and let go of what was not begun."""
        with self._writing() as (connection, now):
            self._write_last(connection, now)
            unsent = update(messages).where(messages.c.claim == self._claim, messages.c.state == "reserved")
            self._counts["held"] += connection.execute(unsent.values(claim=None, lease_until=None)).rowcount
        self._last = None

    @contextmanager
    def _writing(self) -> Iterator[tuple[Connection, datetime]]:
        """A transaction and the time at which it began; what was counted in it counts once it is committed."""
        self._counts.clear()
        with writing(self._engine) as connection:
            yield connection, self._clock()
        for name, count in self._counts.items():
            setattr(self._result, name, getattr(self._result, name) + count)

    def _composed(self, recipient: Recipient) -> Mail | Forbidden:
        if recipient.address is None:
            return Forbidden("no_address", None, "no address any more")
        try:
            return self._compose(recipient)
        except ContentError as error:
            return Forbidden("content", None, f"content: {error}")
        except UnknownShop:  # any other mistake in the configuration concerns everybody and must be mended first
            return Forbidden("policy", "unknown_shop", "policy: the shop is no longer configured")

    def _may_leave(self, connection: Connection, claimed: Claimed, now: datetime) -> bool:
        self._renew_lease(connection, now)
        parameters = {
            "of_message": claimed.recipient.message_id,
            "of_customer": claimed.recipient.customer_id,
            "mine": self._claim,
            "at": now,
            "until": now + self._lease,
            "oldest": oldest_to_send(self._settings, now),
        }
        if connection.execute(self._mark_sending, parameters).rowcount:
            return True
        try:
            forbidden = why_forbidden(connection, self._settings, self._topic, claimed, self._claim, now)
        except OutOfDate:
            settle(connection, claimed, self._claim, {"state": "reserved"})
            self._counts["held"] += 1
        else:
            self._drop(connection, claimed, forbidden, now)
        return False

    def _drop(self, connection: Connection, claimed: Claimed, forbidden: Forbidden, now: datetime) -> None:
        values = {"state": "refused", "reason": forbidden.reason, "settled_at": now}
        settle(connection, claimed, self._claim, values)
        revise_verdict(connection, claimed.recipient, forbidden, now)
        self._counts["revised"] += 1

    def _transmit(self, claimed: Claimed, mail: Mail) -> None:
        self._last = claimed, Unknown("interrupted while the mail was on its way")
        try:
            outcome = self._channel.send(mail)
        except ChannelDown:
            self._last = claimed, None
            raise
        self._last = claimed, outcome
        if isinstance(outcome, Refused) and outcome.scope == "lane":
            raise ChannelDown(f"the server takes nothing from us: {outcome.code} {outcome.text}")

    def _write_last(self, connection: Connection, now: datetime) -> None:
        if self._last is None:
            return
        claimed, outcome = self._last
        values = {"state": "reserved"}
        if outcome is not None:
            values = settled(outcome, attempts=claimed.attempts + 1, settings=self._settings, now=now)
        settle(connection, claimed, self._claim, values)
        if isinstance(outcome, Refused) and outcome.scope == "address" and outcome.permanent:
            note_bounce(connection, claimed, outcome, self._settings, now)
        self._counts["held" if values["state"] == "reserved" else values["state"]] += 1

    def _renew_lease(self, connection: Connection, now: datetime) -> None:
        if now < self._renew_at:
            return
        held = update(messages).where(messages.c.claim == self._claim)
        connection.execute(held.values(lease_until=now + self._lease))
        self._renew_at = now + self._lease / 3


def _due(now: datetime) -> ColumnElement[bool]:
    return or_(messages.c.not_before.is_(None), messages.c.not_before <= now)


def _take(connection: Connection, batch: Batch, claim: str, settings: EmailChannel, now: datetime) -> bool:
    """Claim what is due; false where somebody else's claim is alive."""
    open_rows = and_(
        messages.c.plan_id == batch.plan_id,
        messages.c.batch == batch.batch,
        messages.c.state.in_(("reserved", "sending")),
    )
    # In order of the key, so that two who want the same batch wait for each other instead of deadlocking.
    locked = select(messages.c.lease_until).where(open_rows).order_by(messages.c.message_id).with_for_update()
    if any(lease is not None and lease > now for lease in connection.execute(locked).scalars()):
        return False
    address_hash = select(customers.c.email_hash).where(customers.c.customer_id == messages.c.customer_id)
    connection.execute(
        update(messages)
        .where(open_rows, messages.c.state == "reserved", _due(now), ~too_old(oldest_to_send(settings, now)))
        .values(
            claim=claim,
            lease_until=now + timedelta(seconds=settings.lease_seconds),
            address_hash=func.coalesce(address_hash.scalar_subquery(), messages.c.address_hash),
        )
    )
    return True


def _claimed(connection: Connection, claim: str) -> list[Claimed]:
    names = ("message_id", "plan_id", "what", "customer_id", "channel", "purpose", "shop", "template", "locale")
    query = (
        select(
            *(messages.c[name] for name in names),
            customers.c.email.label("address"),
            customers.c.name,
            customers.c.country,
            messages.c.address_hash,
            messages.c.attempts,
        )
        .join_from(messages, customers, customers.c.customer_id == messages.c.customer_id)
        .where(messages.c.claim == claim)
        .order_by(messages.c.message_id)
    )
    found = []
    for row in connection.execute(query).mappings():
        values = dict(row)
        address_hash, attempts = values.pop("address_hash"), values.pop("attempts")
        found.append(Claimed(Recipient(**values), address_hash, attempts))
    return found


def _topic(connection: Connection, plan_id: int) -> str:
    definition = connection.execute(select(plans.c.definition).where(plans.c.plan_id == plan_id)).scalar_one()
    return str(definition["topic"])
