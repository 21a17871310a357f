"""Why somebody got a message, or did not: the verdicts and messages of one person, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, case, func, literal, select

from lifecycle.addresses import email_key
from lifecycle.customers.handles import address_hash_of
from lifecycle.customers.suppression import active_suppressions
from lifecycle.db.engine import reading
from lifecycle.db.schema import cap_rules, customers, identities, messages, plans, segment_members, verdicts
from lifecycle.errors import UsageError
from lifecycle.planning.counting import COUNTED_STATES, counts
from lifecycle.planning.records import TO_SEND
from lifecycle.planning.windows import begins
from lifecycle.planning.wording import Filler, Reason, message_words, moment
from lifecycle.segments.members import member_at
from lifecycle.settings.models import CapRule, Quota


def why(
    engine: Engine, customer_ref: str, campaign: str | None = None, as_of: datetime | None = None
) -> list[str]:
    """One sentence for each campaign's date that a person was meant for, newest first; if none, one that says so.

    customer_ref: our number, SHOP:PLATFORM_ID, or an e-mail address, which is not repeated. Of drafts for the same
    date the newest counts, an applied plan before them. Only what was planned or sent up to `as_of`, where given.
    Raises UsageError for somebody unknown.
    """
    with reading(engine) as connection:
        customer_id = find_customer(connection, customer_ref)
        told = [
            *_planned(connection, customer_id, campaign, as_of),
            *_sent_without_plan(connection, customer_id, campaign, as_of),
        ]
        if not told:
            return [_not_meant(connection, customer_id, campaign, as_of)]
    return [sentence for _, sentence in sorted(told, key=lambda item: item[0], reverse=True)]


def find_customer(connection: Connection, customer_ref: str) -> int:
    """customer_id of our number, SHOP:PLATFORM_ID or an e-mail address. Raises UsageError."""
    shop, colon, platform_id = customer_ref.partition(":")
    if customer_ref.isdecimal() and len(customer_ref) <= 18:  # more does not fit into 64 bits
        query = select(customers.c.customer_id).where(customers.c.customer_id == int(customer_ref))
        unknown = f"there is no customer {customer_ref}"
    elif colon:
        query = select(identities.c.customer_id).where(
            identities.c.shop == shop, identities.c.platform_customer_id == platform_id
        )
        unknown = "no shop has this customer" if "@" in customer_ref else f"{shop} has no customer {platform_id}"
    elif "@" in customer_ref:
        key = email_key(customer_ref) or ""  # None would find those without an address
        query = select(customers.c.customer_id).where(customers.c.email_key == key)
        unknown = "no customer has this e-mail address"
    else:
        raise UsageError(
            f'"{customer_ref}" is no customer; give our number, SHOP:PLATFORM_ID or an e-mail address'
        )
    found: int | None = connection.execute(query).scalar()
    if found is None:
        raise UsageError(f"{unknown}; look in: tern segments export --out FILE.csv, or pull the shop first")
    return found


def _planned(
    connection: Connection, customer_id: int, campaign: str | None, as_of: datetime | None
) -> Iterator[tuple[datetime, str]]:
    """For each campaign's date the plan that counts: when it was made, and the sentence."""
    applied_first = (case((plans.c.status == "applied", 0), else_=1), plans.c.plan_id.desc())
    same = (plans.c.campaign, plans.c.occurrence, plans.c.channel)
    choice = func.row_number().over(partition_by=same, order_by=applied_first)
    names = ("campaign", "occurrence", "channel", "fallback_of", "status", "as_of", "created_at", "summary")
    context = [plans.c[name] for name in names]
    judged = (
        select(verdicts, *context, choice.label("choice"))
        .join_from(verdicts, plans, plans.c.plan_id == verdicts.c.plan_id)
        .where(verdicts.c.customer_id == customer_id)
    )
    if campaign is not None:
        judged = judged.where(plans.c.campaign == campaign)
    if as_of is not None:
        judged = judged.where(plans.c.as_of <= as_of)
    chosen = judged.subquery("chosen")
    for row in connection.execute(select(chosen).where(chosen.c.choice == 1)).all():
        draft = "" if row.status == "applied" else f" (plan {row.plan_id}, not applied)"
        by = f" by {row.channel}" if row.fallback_of else ""
        yield row.created_at, f"{row.campaign} of {row.occurrence}{by}{draft}: {_outcome(connection, row)}."


def _outcome(connection: Connection, row: Row[Any]) -> str:
    """What a verdict came to. row: of `verdicts`, with its plan's status, as_of, created_at and summary."""
    if row.verdict not in TO_SEND:
        written = "not sent" if row.status == "applied" else "would not be sent"
        return f"{written}, {_reason(connection, row).words()}"
    if row.revised_verdict is not None:
        revised = Reason(row.revised_verdict, row.revised_rule, row.shop)
        return f"selected, but no longer when it was to be sent at {moment(row.revised_at)}, {revised.words()}"
    if row.status != "applied":
        held = f", at {moment(row.frees_at)} when their quiet hours end" if row.frees_at else ""
        return f"would be sent from {row.shop} in {row.locale}{held}"
    query = select(messages).where(messages.c.plan_id == row.plan_id, messages.c.customer_id == row.customer_id)
    message = connection.execute(query).one_or_none()
    return message_words(message) if message else "selected, but another message of this date was there first"


def _reason(connection: Connection, row: Row[Any]) -> Reason:
    judged_at = max(row.as_of, row.created_at)
    known: dict[str, Any] = {}
    if row.verdict == "suppressed":
        known["since"] = _suppressed_since(connection, row, judged_at)
    elif row.verdict in ("capped", "lost_to", "quota"):
        query = select(cap_rules.c.definition).where(
            cap_rules.c.plan_id == row.plan_id, cap_rules.c.rule == row.rule
        )
        definition = connection.execute(query).scalar()
        if definition is not None and row.verdict == "quota":
            known["quota"] = Quota.model_validate(definition)
        elif definition is not None:
            known["cap"] = CapRule.model_validate(definition)
            known["fillers"] = _fillers(connection, row, known["cap"], judged_at)
    return Reason(row.verdict, row.rule, row.shop, frees_at=row.frees_at, lost_to=row.lost_to, **known)


def _suppressed_since(connection: Connection, row: Row[Any], at: datetime) -> datetime | None:
    ban = active_suppressions(at).subquery("ban")
    query = select(func.max(ban.c.occurred_at)).where(
        ban.c.address_hash == _address_hash(row), ban.c.channel == _kind(row), ban.c.reason == row.rule
    )
    return connection.execute(query).scalar()


def _kind(row: Row[Any]) -> str:
    """Of the plan's channel; earlier ones were all e-mail."""
    return str((row.summary or {}).get("channel_kind", "email"))


def _address_hash(row: Row[Any]) -> ColumnElement[str | None]:
    return address_hash_of(_kind(row), literal(row.customer_id), literal(row.shop))


def _fillers(connection: Connection, row: Row[Any], cap: CapRule, at: datetime) -> list[Filler]:
    """The messages that the cap counted, oldest first; for lost_to the one that won, if it was reserved."""
    query = select(messages.c.message_id, messages.c.what, messages.c.send_at)
    blocking = connection.execute(query.where(messages.c.message_id == row.blocking_message_id)).one_or_none()
    if blocking is None:
        return []
    if row.verdict == "lost_to":
        return [Filler(*blocking)]
    query = query.where(
        counts(cap),
        messages.c.send_at > begins(cap, at),
        messages.c.send_at <= at,
        messages.c.state.in_(COUNTED_STATES),
    )
    if cap.scope == "address":
        query = query.where(messages.c.address_hash == _address_hash(row))
    else:
        query = query.where(messages.c.customer_id == row.customer_id)
    if cap.scope == "customer_and_shop":
        query = query.where(messages.c.shop == row.shop)
    newest_first = query.order_by(messages.c.send_at.desc(), messages.c.message_id.desc()).limit(cap.limit)
    return [Filler(*found) for found in connection.execute(newest_first)][::-1]


def _sent_without_plan(
    connection: Connection, customer_id: int, campaign: str | None, as_of: datetime | None
) -> Iterator[tuple[datetime, str]]:
    """Messages that were imported: their send time, and the sentence."""
    query = select(messages).where(messages.c.customer_id == customer_id, messages.c.plan_id.is_(None))
    if campaign is not None:
        query = query.where(messages.c.what == campaign)
    if as_of is not None:
        query = query.where(messages.c.send_at <= as_of)
    for row in connection.execute(query):
        yield row.send_at, f"{row.what} of {row.occurrence}: {message_words(row)}."


def _not_meant(connection: Connection, customer_id: int, campaign: str | None, as_of: datetime | None) -> str:
    """Which segments they are in, since when, and that no campaign was meant for them."""
    current = segment_members.c.valid_to.is_(None) if as_of is None else member_at(as_of)
    query = select(segment_members.c.segment, segment_members.c.valid_from).where(
        segment_members.c.customer_id == customer_id, current
    )
    since = [f"{segment} since {start:%Y-%m-%d}" for segment, start in sorted(connection.execute(query).tuples())]
    where = f"in {', '.join(since)}" if since else "in no segment"
    meant = f"no plan of {campaign} was" if campaign else "no campaign was"
    return f"customer {customer_id} is {where}; {meant} meant for them."
