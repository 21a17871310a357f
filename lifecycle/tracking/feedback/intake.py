"""What was reported becomes events, suppressions and counts, in the transaction of the caller.

Everything can be reported twice and in any order: what is there already changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row, exists, select, update
from sqlalchemy.dialects import postgresql, sqlite

from lifecycle.customers import handles
from lifecycle.customers.suppression import lift_delivered, suppress
from lifecycle.db.bulk import rows_in, upsert
from lifecycle.db.schema import inbound_messages, message_events, messages, unmatched_reports
from lifecycle.db.storable import storable_json
from lifecycle.ledger import breakers
from lifecycle.ledger.settling import STOPPED_MARKETING
from lifecycle.settings import Config
from lifecycle.tracking.feedback.records import Entry, Inbound, Report, Stop
from lifecycle.tracking.feedback.scores import SCORED, worn_out
from lifecycle.tracking.store import Unsubscribe, Visitor
from lifecycle.tracking.unsubscribe import end_marketing

_KEPT_UNMATCHED = frozenset({"bounced", "complained", "unsubscribed", "unclear"})
"""Of mail that is not ours services tell, too, that it arrived; that fills no table."""

_AT_ONCE = 2_000


@dataclass
class Taken:
    """events: new ones by kind. unmatched: reports kept for a person to look at. suppressed: addresses that nobody
    writes to now, or less. stopped: why a breaker has stopped lanes, a sentence each."""

    events: Counter[str] = field(default_factory=Counter)
    unmatched: int = 0
    suppressed: int = 0
    stopped: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        found = ", ".join(f"{number:,} {kind}" for kind, number in sorted(self.events.items())) or "nothing new"
        said = (
            f"{found}; {self.suppressed:,} addresses suppressed; {self.unmatched:,} reports of no message of ours"
        )
        return "; ".join((said, *self.stopped))


@dataclass(frozen=True)
class _Matched:
    report: Report
    message: Row[Any]


def take_in(connection: Connection, entries: Sequence[Entry], *, config: Config, now: datetime) -> Taken:
    """Write down what was reported.

    A hard bounce and a complaint suppress for every shop, a hard bounce also order mails; policy and content never
    touch the address; soft bounces count, see `scores`. A bounce counts only for the address of its message.
    """
    taken = Taken()
    matched, strays = _match(connection, [each for each in entries if isinstance(each, Report)])
    prove_taken(connection, {each.message.message_id for each in matched}, now)
    taken.unmatched = _keep_strays(connection, [*strays, *_unclear(matched)], now)
    new = _add_events(connection, [each for each in matched if _counts(each)])
    taken.events.update(each.report.kind for each in new)
    taken.suppressed += sum(_suppress(connection, each, config, now) for each in new)
    taken.suppressed += _rest(connection, new, config, now)
    _end_rests(connection, new, config, now)
    for kind in ("bounced", "complained"):
        people = {each.message.message_id: kind for each in new if _is_breaking(each.report, kind)}
        taken.stopped += breakers.count_reports(connection, config, people, now) if people else []
    taken.suppressed += sum(_stop(connection, each, now) for each in entries if isinstance(each, Stop))
    _receive(connection, [each for each in entries if isinstance(each, Inbound)])
    return taken


def prove_taken(connection: Connection, message_ids: Collection[int], at: datetime) -> int:
    """Something came back of these messages: of those whose answer was not known the peer has taken them. Returns
    how many."""
    unknown = select(messages.c.message_id).where(messages.c.state == "unknown").order_by(messages.c.message_id)
    found = rows_in(connection, unknown.with_for_update(), messages.c.message_id, message_ids)
    return _accept(connection, sorted(row.message_id for row in found), at)


def prove_by_events(connection: Connection, at: datetime) -> int:
    """The same of all messages whose answer is not known and of which an event is stored, an open or a click, say.
    Returns how many."""
    seen = exists().where(message_events.c.message_id == messages.c.message_id)
    unknown = select(messages.c.message_id).where(messages.c.state == "unknown", seen)
    found = connection.execute(unknown.order_by(messages.c.message_id).with_for_update()).scalars()
    return _accept(connection, list(found), at)


def _accept(connection: Connection, message_ids: Sequence[int], at: datetime) -> int:
    values = {"state": "accepted", "settled_at": at, "claim": None, "lease_until": None}
    for start in range(0, len(message_ids), _AT_ONCE):
        some = messages.c.message_id.in_(message_ids[start : start + _AT_ONCE])
        connection.execute(update(messages).where(some).values(values))
    return len(message_ids)


def _match(connection: Connection, reports: Sequence[Report]) -> tuple[list[_Matched], list[tuple[Report, str]]]:
    """Reports with their message, and the others with why they have none."""
    matched: list[_Matched] = []
    strays: list[tuple[Report, str]] = []
    by_id = _rows(connection, messages.c.message_id, (each.message_id for each in reports))
    wanted = (each.provider_id for each in reports if each.message_id is None)
    by_provider_id = _rows(connection, messages.c.provider_id, wanted)
    for report in reports:
        if report.message_id is not None:
            found = by_id.get(report.message_id, [])
        else:
            found = _of_address(by_provider_id.get(report.provider_id, []), report)
        sent = [row for row in found if row.sent_at is not None]
        if len(sent) == 1:
            matched.append(_Matched(report, sent[0]))
        elif report.kind in _KEPT_UNMATCHED:
            strays.append((report, "names no message of ours" if not sent else "fits several messages"))
    return matched, strays


def _rows(connection: Connection, column: Any, values: Iterable[Any]) -> Mapping[Any, list[Row[Any]]]:
    names = (
        "message_id",
        "plan_id",
        "what",
        "customer_id",
        "channel",
        "shop",
        "locale",
        "address_hash",
        "sent_at",
    )
    query = select(*(messages.c[name] for name in names), column.label("found_by"))
    found: dict[Any, list[Row[Any]]] = {}
    for row in rows_in(connection, query, column, (each for each in values if each is not None)):
        found.setdefault(row.found_by, []).append(row)
    return found


def _of_address(rows: list[Row[Any]], report: Report) -> list[Row[Any]]:
    """Services give one id to all messages of a request; then the address says which."""
    return [row for row in rows if row.address_hash in report.named] if len(rows) > 1 else rows


def _is_elsewhere(each: _Matched) -> bool:
    """The report is about an address that the message did not go to; it was forwarded, say."""
    return bool(each.report.named) and each.message.address_hash not in each.report.named


def _counts(each: _Matched) -> bool:
    if each.report.kind in ("bounced", "delivered"):
        return not _is_elsewhere(each)
    return each.report.kind not in ("notice", "unclear")


def _unclear(matched: Iterable[_Matched]) -> Iterator[tuple[Report, str]]:
    for each in matched:
        if each.report.kind == "unclear":
            yield each.report, "is not understood"
        elif each.report.kind == "bounced" and _is_elsewhere(each):
            yield each.report, "is about another address than the message went to"


def _keep_strays(connection: Connection, strays: Iterable[tuple[Report, str]], now: datetime) -> int:
    rows = [
        {
            "source": report.source,
            "kind": report.kind,
            "received_at": now,
            "detail": storable_json({**_detail(report), "why": why, "message_id": report.message_id}),
            "dedupe_key": f"{report.source}:{report.key}" if report.key else None,
        }
        for report, why in strays
    ]
    return len(_added(connection, unmatched_reports, rows))


def _add_events(connection: Connection, matched: Iterable[_Matched]) -> list[_Matched]:
    """Those of which the event is new. None is dated before its message: services count whole seconds."""
    by_key = {_event_key(each): each for each in reversed(list(matched))}
    rows = [
        {
            "message_id": each.message.message_id,
            "kind": each.report.kind,
            "occurred_at": max(each.report.occurred_at, each.message.sent_at),
            "detail": storable_json(_detail(each.report)),
            "source": each.report.source,
            "dedupe_key": key,
        }
        for key, each in sorted(by_key.items())
    ]
    return [by_key[key] for key in _added(connection, message_events, rows)]


def _event_key(each: _Matched) -> str:
    """A message is delivered, bounces or is complained about once, whoever tells. Of bounces a hard one is another
    than one that was not. Who unsubscribes again, after a new opt-in, means it again."""
    report, plain = each.report, f"{each.report.kind}:{each.message.message_id}"
    if report.kind == "bounced" and report.bounce != "hard":
        return f"{plain}:{report.bounce}"
    return f"{plain}:{report.key}" if report.kind == "unsubscribed" and report.key else plain


def _added(connection: Connection, table: Any, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Insert what is not there yet. Returns the dedupe keys of what is new."""
    if not rows:
        return []
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).on_conflict_do_nothing(index_elements=["dedupe_key"])
    return list(connection.execute(statement.returning(table.c.dedupe_key), list(rows)).scalars())


def _detail(report: Report) -> dict[str, Any]:
    said = {"class": report.bounce, "status": report.status, "text": report.text}
    return {**{name: value for name, value in said.items() if value}, **report.detail}


def _suppress(connection: Connection, each: _Matched, config: Config, now: datetime) -> int:
    report, message = each.report, each.message
    if report.kind == "unsubscribed":
        via: Literal["mail", "service"] = "mail" if report.detail.get("via") == "mail" else "service"
        leaving = Unsubscribe(message.message_id, report.occurred_at, Visitor("", None), via)
        end_marketing(connection, message, leaving, channels=config.channels)
        return 1
    kind = _kind(config, message)
    is_hard = report.kind == "bounced" and report.bounce == "hard"
    said_no = report.kind == "bounced" and kind == "whatsapp" and report.status == STOPPED_MARKETING
    if not (is_hard or said_no or report.kind == "complained"):
        return 0
    return suppress(
        connection,
        _addresses(connection, message, kind) if report.kind == "complained" else [message.address_hash],
        "hard_bounce" if is_hard else "unsubscribe" if said_no else "complaint",
        channel=kind,
        evidence=f"message {message.message_id}: {report.status or report.source}",
        occurred_at=report.occurred_at,
        recorded_at=now,
        purpose="all" if is_hard else "marketing",
    )


def _addresses(connection: Connection, message: Row[Any], kind: str) -> list[str]:
    """The address that was written to and the one that the person has by now."""
    present = handles.address_hash_of(kind, messages.c.customer_id, messages.c.shop)
    query = select(present).where(messages.c.message_id == message.message_id)
    found = connection.execute(query).scalar()
    return [message.address_hash, *([found] if found and found != message.address_hash else [])]


def _rest(connection: Connection, new: Iterable[_Matched], config: Config, now: datetime) -> int:
    """Order mails go on: their people wait for them."""
    soft = {
        each.message.address_hash: each.message
        for each in new
        if each.report.kind == "bounced" and each.report.bounce in SCORED
    }
    settings = config.channels_file.bounces
    number = 0
    for address_hash, days in sorted(worn_out(connection, soft, settings, now=now).items()):
        number += suppress(
            connection,
            [address_hash],
            "soft_bounce",
            channel=_kind(config, soft[address_hash]),
            evidence=f"message {soft[address_hash].message_id}: soft bounces on {days} days",
            occurred_at=now,
            recorded_at=now,
            expires_at=now + timedelta(days=settings.soft_rest_days),
        )
    return number


def _end_rests(connection: Connection, new: Iterable[_Matched], config: Config, now: datetime) -> None:
    """What is delivered again bounces no more."""
    delivered: dict[str, dict[str, datetime]] = {}
    for each in new:
        if each.report.kind == "delivered":
            there = delivered.setdefault(_kind(config, each.message), {})
            address = each.message.address_hash
            there[address] = max(each.report.occurred_at, there.get(address, each.report.occurred_at))
    for channel, deliveries in sorted(delivered.items()):
        lift_delivered(connection, deliveries, channel=channel, at=now)


def _is_breaking(report: Report, kind: str) -> bool:
    return report.kind == kind and (kind == "complained" or report.bounce == "hard")


def _stop(connection: Connection, stop: Stop, now: datetime) -> int:
    return suppress(
        connection,
        [stop.address_hash],
        "unsubscribe",
        channel=stop.channel,
        evidence=stop.evidence,
        occurred_at=stop.occurred_at,
        recorded_at=now,
    )


def _receive(connection: Connection, inbound: Iterable[Inbound]) -> None:
    rows = [
        {
            "channel": each.channel,
            "address_hash": each.address_hash,
            "received_at": each.received_at,
            "dedupe_key": each.key,
        }
        for each in inbound
    ]
    upsert(connection, inbound_messages, rows, key=("dedupe_key",))


def _kind(config: Config, message: Row[Any]) -> str:
    return config.channels[message.channel].kind if message.channel in config.channels else "email"
