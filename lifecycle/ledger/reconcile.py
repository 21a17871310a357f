"""Messages whose answer is not known, asked about where the channel can tell.

Taken: accepted. Proven not taken: free to be sent again, if it is not too late; the next drain does it. Of the
others nothing is changed: marketing stays unknown and is never sent again.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update

from lifecycle.addresses import domain_of
from lifecycle.channels.base import Accepted, Channel, Outcome
from lifecycle.channels.opening import OpenWays
from lifecycle.customers import handles
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import customers, messages
from lifecycle.errors import ChannelDown, ConfigError, ContentError, UnknownShop
from lifecycle.ledger.taking import newest_order
from lifecycle.messages.compose import Composer
from lifecycle.messages.keys import mail_key, note_key
from lifecycle.messages.records import Note, Recipient, Sent
from lifecycle.settings.channels import PLATFORM_KINDS, AnyChannel, EmailChannel
from lifecycle.workplace import Workplace

ASKED_FOR = timedelta(days=7)
"""Older ones are asked about no more."""


@dataclass(frozen=True)
class Reconciled:
    """asked: unknown messages. taken and not_taken: of which it is known now. problems: channels that could not be
    asked, a sentence each."""

    asked: int
    taken: int
    not_taken: int
    problems: tuple[str, ...] = ()

    def sentence(self) -> str:
        left = self.asked - self.taken - self.not_taken
        said = (
            f"of {self.asked:,} unknown messages {self.taken:,} were taken, {self.not_taken:,} were not and are "
            f"free to be sent, {left:,} stay unknown"
        )
        return said + "".join(f"; {problem}" for problem in self.problems)


def reconcile(place: Workplace, *, now: datetime, env: Mapping[str, str] = os.environ) -> Reconciled:
    """Ask every channel about its unknown messages of the last seven days."""
    counts: Counter[str] = Counter()
    problems: list[str] = []
    for settings in place.config.channels.values():
        with reading(place.engine) as connection:
            found = list(_unknown(connection, place, settings, now))
        counts["asked"] += len(found)
        if not found:
            continue
        try:
            with OpenWays(settings, env, clock=lambda: now) as ways:
                for channel, asked in _by_channel(_with_texts(found, place, settings, env), ways):
                    known = channel.look_up(asked)
                    with writing(place.engine) as connection:
                        counts += _write(connection, settings, known, now)
        except (ChannelDown, ConfigError) as error:
            problems.append(f"{settings.name}: {error}")
    return Reconciled(counts["asked"], counts["taken"], counts["not_taken"], tuple(problems))


def _unknown(
    connection: Connection, place: Workplace, settings: AnyChannel, now: datetime
) -> Iterator[tuple[Recipient, Sent]]:
    names = ("message_id", "plan_id", "what", "customer_id", "channel", "purpose", "shop", "template", "locale")
    query = (
        select(
            *(messages.c[name] for name in names),
            handles.address_of(settings.kind, messages.c.customer_id, messages.c.shop).label("address"),
            newest_order().label("order_id"),
            customers.c.name,
            messages.c.sent_at,
        )
        .join_from(messages, customers, customers.c.customer_id == messages.c.customer_id)
        .where(messages.c.state == "unknown", messages.c.channel == settings.name)
        .where(messages.c.sent_at > now - ASKED_FOR)
        .order_by(messages.c.message_id)
    )
    for row in connection.execute(query).mappings():
        values = dict(row)
        sent_at = values.pop("sent_at")
        to = Recipient(**values)
        try:
            key = _key(place, settings, to)
        except UnknownShop:
            continue
        yield to, Sent(to.message_id, key, to.address, to.order_id, sent_at)


def _with_texts(
    found: list[tuple[Recipient, Sent]], place: Workplace, settings: AnyChannel, env: Mapping[str, str]
) -> list[tuple[Recipient, Sent]]:
    """What was said, where a platform shows conversations and nothing else tells our messages apart."""
    if settings.kind not in PLATFORM_KINDS:
        return found
    composers: dict[int, Composer] = {}
    said = []
    for to, sent in found:
        if to.plan_id not in composers:
            composers[to.plan_id] = Composer(place.engine, place.config, place.environment, to.plan_id, env=env)
        with suppress(ContentError):
            note = composers[to.plan_id].compose(to) if to.address else None
            sent = replace(sent, text=note.text) if isinstance(note, Note) else sent
        said.append((to, sent))
    return said


def _key(place: Workplace, settings: AnyChannel, to: Recipient) -> str:
    secret = place.environment.secret
    if not isinstance(settings, EmailChannel):
        return note_key(secret, to.message_id)
    account = settings.account(to.shop, to.locale, to.purpose)
    address = account.sender_address or place.config.shop(to.shop).sender.address
    return mail_key(secret, to.message_id, domain_of(address))


def _by_channel(found: list[tuple[Recipient, Sent]], ways: OpenWays) -> Iterator[tuple[Channel, list[Sent]]]:
    asked: defaultdict[str, list[Sent]] = defaultdict(list)
    channels: dict[str, Channel] = {}
    for to, sent in found:
        account, channel = ways.way(to)
        channels[account] = channel
        asked[account].append(sent)
    for account, sent_there in asked.items():
        yield channels[account], sent_there


def _write(
    connection: Connection, settings: AnyChannel, known: Mapping[int, Outcome], now: datetime
) -> Counter[str]:
    counts: Counter[str] = Counter()
    for message_id, outcome in sorted(known.items()):
        unknown = update(messages).where(messages.c.message_id == message_id, messages.c.state == "unknown")
        if isinstance(outcome, Accepted):
            values = {"state": "accepted", "provider_id": outcome.provider_id, "claim": None, "settled_at": now}
            counts["taken"] += connection.execute(unknown.values(values)).rowcount
        else:
            free = {"state": "reserved", "claim": None, "settled_at": None, "attempts": messages.c.attempts - 1}
            counts["not_taken"] += connection.execute(unknown.values(free)).rowcount
    return counts
