"""What a request leaves behind: raw events, and the end of marketing for who unsubscribes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, select

from lifecycle.db.bulk import upsert
from lifecycle.db.engine import reading
from lifecycle.db.schema import links, message_events, messages


@dataclass(frozen=True)
class Visitor:
    """Who asked, as far as a request tells."""

    user_agent: str
    ip: str | None


@dataclass(frozen=True)
class Hit:
    """A pixel that was loaded or a link that was followed."""

    kind: Literal["opened", "clicked"]
    message_id: int
    link_id: int | None
    occurred_at: datetime
    visitor: Visitor
    detail: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Unsubscribe:
    message_id: int
    occurred_at: datetime
    visitor: Visitor
    via: Literal["one_click", "page", "mail", "service"]


@dataclass(frozen=True)
class Stored:
    """`known`: the message is ours and the event is written. `url`: where a click leads."""

    known: bool
    url: str | None = None


Entry = Hit | Unsubscribe
EndMarketing = Callable[[Connection, Row[Any], Unsubscribe], None]
"""Suppresses the address of the message's row and withdraws the consent; doing it twice changes nothing."""

_NOT_OURS = Stored(known=False)


def find_message(engine: Engine, message_id: int) -> Row[Any] | None:
    with reading(engine) as connection:
        return _messages(connection, [message_id]).get(message_id)


def store(connection: Connection, entries: Sequence[Entry], *, end_marketing: EndMarketing) -> list[Stored]:
    """Write all entries; those of messages or links that do not exist write nothing."""
    found = _messages(connection, (entry.message_id for entry in entries))
    urls = _urls(connection, (entry.message_id for entry in entries if _is_click(entry)))
    answers = [_answer(entry, found, urls) for entry in entries]
    known = [entry for entry, answer in zip(entries, answers, strict=True) if answer.known]
    upsert(connection, message_events, [_row(entry) for entry in known], key=("dedupe_key",))
    for entry in known:
        if isinstance(entry, Unsubscribe):
            end_marketing(connection, found[entry.message_id], entry)
    return answers


def _messages(connection: Connection, message_ids: Iterable[int]) -> dict[int, Row[Any]]:
    columns = (
        messages.c.message_id,
        messages.c.plan_id,
        messages.c.what,
        messages.c.customer_id,
        messages.c.channel,
        messages.c.shop,
        messages.c.locale,
        messages.c.address_hash,
    )
    query = select(*columns).where(messages.c.message_id.in_(set(message_ids)))
    return {row.message_id: row for row in connection.execute(query)}


def _urls(connection: Connection, message_ids: Iterable[int]) -> dict[tuple[int, int], str]:
    wanted = set(message_ids)
    if not wanted:
        return {}
    query = (
        select(messages.c.message_id, links.c.link_id, links.c.url)
        .join(links, links.c.plan_id == messages.c.plan_id)
        .where(messages.c.message_id.in_(wanted))
    )
    return {(row.message_id, row.link_id): row.url for row in connection.execute(query)}


def _is_click(entry: Entry) -> bool:
    return isinstance(entry, Hit) and entry.kind == "clicked"


def _answer(entry: Entry, found: Mapping[int, Row[Any]], urls: Mapping[tuple[int, int], str]) -> Stored:
    if entry.message_id not in found:
        return _NOT_OURS
    if isinstance(entry, Unsubscribe) or entry.kind == "opened":
        return Stored(known=True)
    url = urls.get((entry.message_id, entry.link_id or 0))
    return Stored(known=True, url=url) if url else _NOT_OURS


def _row(entry: Entry) -> dict[str, Any]:
    shared = {
        "message_id": entry.message_id,
        "occurred_at": entry.occurred_at,
        "user_agent": entry.visitor.user_agent,
        "ip": entry.visitor.ip,
        "source": "web",
    }
    if isinstance(entry, Unsubscribe):
        key = f"unsubscribed:{entry.message_id}"
        return shared | {"kind": "unsubscribed", "link_id": None, "detail": {"via": entry.via}, "dedupe_key": key}
    detail = dict(entry.detail) if entry.detail else None
    return shared | {"kind": entry.kind, "link_id": entry.link_id, "detail": detail, "dedupe_key": None}
