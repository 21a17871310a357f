"""What would disprove a promise: each function yields the rows that break one, as words or numbers."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, exists, func, literal, or_, select

from lifecycle.db.instants import plus_microseconds
from lifecycle.db.schema import (
    Big,
    Instant,
    cap_rules,
    consents,
    landing_pages,
    message_events,
    messages,
    plans,
    pull_bookmarks,
    segment_members,
    segment_runs,
    suppressions,
    verdicts,
)
from lifecycle.ledger.claims import is_orphan
from lifecycle.ledger.settling import too_old
from lifecycle.planning.approval import approved_by
from lifecycle.planning.caps import applicable
from lifecycle.planning.counting import COUNTED_STATES, counts
from lifecycle.planning.plan import stored_hash, stored_plan
from lifecycle.planning.quotas import ramp_limit
from lifecycle.planning.records import TO_SEND, Slots, slots_of
from lifecycle.planning.windows import begins, length, microseconds_of
from lifecycle.settings.channels import PLATFORM_KINDS
from lifecycle.settings.models import Campaign, CapRule, Quota

GRACE = timedelta(seconds=5)
"""Two processes read their clocks before they write: what is closer together than this has no proven order."""

CONSENT_GRACE = timedelta(minutes=15)
"""An intake reads its clock before it fetches and commits much later: mail may leave in between, rightly."""

_LONGEST_WAIT = timedelta(days=2)

_LEFT = ("sending", "accepted", "unknown")
"""States of a message that a person may have."""

_EMAIL = "email"
"""Of plans from before there were other channels."""
"""Consent and suppressions are by kind of channel; all there are so far are of this kind."""


def sent_twice(connection: Connection) -> Iterator[str]:
    key = (messages.c.what, messages.c.occurrence, messages.c.customer_id, messages.c.channel)
    query = select(func.max(messages.c.message_id)).group_by(*key).having(func.count() > 1)
    yield from _numbers(connection, query, "message")


def same_provider_id(connection: Connection) -> Iterator[str]:
    query = select(func.max(messages.c.message_id)).where(messages.c.provider_id.is_not(None))
    yield from _numbers(connection, query.group_by(messages.c.provider_id).having(func.count() > 1), "message")


def selected_without_message(connection: Connection) -> Iterator[str]:
    missing = (
        select(verdicts.c.plan_id, verdicts.c.customer_id)
        .join(plans, and_(plans.c.plan_id == verdicts.c.plan_id, plans.c.status == "applied"))
        .where(verdicts.c.verdict.in_(TO_SEND), verdicts.c.revised_verdict.is_(None))
        .where(~exists().where(_same_person()))
        .order_by(verdicts.c.plan_id, verdicts.c.customer_id)
    )
    for plan_id, customer_id in connection.execute(missing):
        yield f"customer {customer_id} of plan {plan_id}"


def message_without_verdict(connection: Connection) -> Iterator[str]:
    chosen = exists().where(_same_person(), verdicts.c.verdict.in_(TO_SEND))
    query = select(messages.c.message_id).where(messages.c.plan_id.is_not(None), ~chosen)
    yield from _numbers(connection, query, "message")


def sending_without_holder(connection: Connection, now: datetime) -> Iterator[str]:
    query = select(messages.c.message_id, messages.c.claim, messages.c.lease_until)
    for row in connection.execute(query.where(messages.c.state == "sending")):
        if not _is_held(row, now):
            yield f"message {row.message_id}"


def waiting_too_long(connection: Connection, now: datetime) -> Iterator[str]:
    query = (
        select(messages.c.message_id, messages.c.claim, messages.c.lease_until)
        .where(messages.c.state == "reserved", too_old(now - _LONGEST_WAIT))
        .order_by(messages.c.message_id)
    )
    for row in connection.execute(query):
        if not _is_held(row, now):
            yield f"message {row.message_id}"


def settled_without_proof(connection: Connection) -> Iterator[str]:
    column = messages.c
    without_reason = and_(column.state.in_(("refused", "unknown")), column.reason.is_(None))
    accepted = and_(column.state == "accepted", or_(column.provider_id.is_(None), column.sent_at.is_(None)))
    undated = and_(column.state.in_(("accepted", "refused", "unknown")), column.settled_at.is_(None))
    query = select(column.message_id).where(or_(without_reason, accepted, undated))
    yield from _numbers(connection, query, "message")


def cap_broken(connection: Connection) -> Iterator[str]:
    """Each message recounted against the rules stored with its plan, as when it was reserved: with those reserved
    before it that left, or wait to leave, within the window before its reservation or later."""
    for rule, plan_ids in _rules(connection).items():
        for since, chosen in _windows(connection, rule, plan_ids):
            yield from _over(connection, rule, since, chosen)


def _over(
    connection: Connection, rule: CapRule, since: ColumnElement[datetime], chosen: Sequence[int]
) -> Iterator[str]:
    """Messages of the plans `chosen` that had `rule.limit` or more before them, sent after `since`."""
    assert rule.limit is not None, "rules without limit are left out"
    one, other = messages, messages.alias("other")
    counted = [
        counts(rule, other),
        other.c.state.in_(COUNTED_STATES),
        other.c.send_at > since,
        or_(
            other.c.reserved_at < one.c.reserved_at,
            and_(other.c.reserved_at == one.c.reserved_at, other.c.message_id <= one.c.message_id),
        ),
    ]
    if rule.scope == "address":
        counted.append(other.c.address_hash == one.c.address_hash)
    else:
        counted.append(other.c.customer_id == one.c.customer_id)
    if rule.scope == "customer_and_shop":
        counted.append(other.c.shop == one.c.shop)
    query = (
        select(one.c.message_id)
        .join(other, and_(*counted))
        .where(one.c.plan_id.in_(chosen), one.c.state.in_(COUNTED_STATES), counts(rule))
        .group_by(one.c.message_id)
        .having(func.count() > rule.limit)
    )
    if rule.segments is not None:
        chosen_at = select(plans.c.as_of).where(plans.c.plan_id == one.c.plan_id).scalar_subquery()
        query = query.where(
            exists().where(
                segment_members.c.customer_id == one.c.customer_id,
                segment_members.c.segment.in_(rule.segments),
                segment_members.c.valid_from <= chosen_at,
                or_(segment_members.c.valid_to.is_(None), segment_members.c.valid_to > chosen_at),
            )
        )
    yield from _numbers(connection, query, f"{rule.name}: message")


def _windows(
    connection: Connection, rule: CapRule, plan_ids: Sequence[int]
) -> Iterator[tuple[ColumnElement[datetime], list[int]]]:
    """After which instant messages counted, and for which of the plans: a calendar period begins at its own."""
    if (rolling := length(rule)) is not None:
        yield plus_microseconds(messages.c.reserved_at, literal(-microseconds_of(rolling), Big)), list(plan_ids)
        return
    query = select(plans.c.plan_id, plans.c.applied_at).where(plans.c.plan_id.in_(plan_ids))
    of_period: dict[datetime, list[int]] = defaultdict(list)
    for plan_id, applied_at in connection.execute(query.where(plans.c.applied_at.is_not(None))):
        of_period[begins(rule, applied_at)].append(plan_id)
    for since, chosen in sorted(of_period.items()):
        yield literal(since, Instant()), chosen


def quota_broken(connection: Connection) -> Iterator[str]:
    """Each applied plan's quotas, with the limits and shops that it noted, recounted as when it reserved: what was
    sent since the window began or waited then, its own messages among them."""
    query = (
        select(plans.c.plan_id, plans.c.summary, plans.c.applied_at, cap_rules.c.rule, cap_rules.c.definition)
        .join(cap_rules, cap_rules.c.plan_id == plans.c.plan_id)
        .where(plans.c.status == "applied", cap_rules.c.kind == "quota")
        .order_by(plans.c.plan_id, cap_rules.c.position)
    )
    for plan_id, summary, applied_at, rule, definition in connection.execute(query).all():
        quota = Quota.model_validate(definition)
        for each in slots_of(summary):
            if each.rule == rule:
                limit = max(each.limit, _ramped(quota, applied_at))
                sent = _sent_of(connection, quota, each, plan_id, applied_at)
                if sent > limit:
                    yield f"{rule} of {each.group}: {sent:,} of {limit:,} with plan {plan_id}"


def _ramped(quota: Quota, at: datetime) -> int:
    """What a ramp allows on the day of `at`, which may be the day after the plan was made; 0 without one."""
    ramp = ramp_limit(quota, at) or 0
    return min(ramp, quota.limit) if isinstance(quota.limit, int) else ramp


def _sent_of(connection: Connection, quota: Quota, slots: Slots, plan_id: int, at: datetime) -> int:
    """By the group, where the plan itself has sent something for it; else 0."""
    here = [messages.c.shop.in_(slots.shops), messages.c.state.in_(COUNTED_STATES), counts(quota)]
    if quota.scope == "channel":
        here.append(messages.c.channel == slots.group)
    own = select(func.count()).where(*here, messages.c.plan_id == plan_id, messages.c.reserved_at == at)
    if not connection.execute(own).scalar_one():
        return 0
    together = select(func.count()).where(
        *here, messages.c.reserved_at <= at, messages.c.send_at > begins(quota, at)
    )
    return int(connection.execute(together).scalar_one())


def sent_to_suppressed(connection: Connection) -> Iterator[str]:
    said_no = suppressions.c
    query = select(messages.c.message_id, messages.c.sent_at, said_no.recorded_at, said_no.occurred_at).join(
        suppressions,
        and_(
            said_no.address_hash == messages.c.address_hash,
            said_no.channel == bindparam("kind"),
            or_(
                said_no.expires_at.is_(None),
                said_no.expires_at > messages.c.sent_at,
                said_no.reason == "complaint",
            ),
            or_(said_no.shop.is_(None), said_no.shop == messages.c.shop),
            said_no.purpose.in_(("all", messages.c.purpose)),
            said_no.recorded_at < messages.c.sent_at,
            or_(
                said_no.lifted_at.is_(None),
                said_no.lifted_at > messages.c.sent_at,
                said_no.reason == "complaint",
            ),
        ),
    )
    for (_, kind), plan_ids in _asked(connection).items():
        sent = query.where(messages.c.plan_id.in_(plan_ids), messages.c.state.in_(_LEFT))
        for row in connection.execute(sent.order_by(messages.c.message_id), {"kind": kind}):
            if row.sent_at - max(row.recorded_at, row.occurred_at) > CONSENT_GRACE:
                yield f"message {row.message_id}"


def sent_after_withdrawal(connection: Connection) -> Iterator[str]:
    """Marketing to people whose newest fact, of those known when it left, was a withdrawal."""
    no, yes = consents.alias("no"), consents.alias("yes")
    same = [yes.c[name] == no.c[name] for name in ("customer_id", "shop", "channel", "topic")]
    newer_yes = exists().where(
        *same,
        yes.c.status == "granted",
        yes.c.occurred_at > no.c.occurred_at,
        yes.c.occurred_at <= messages.c.sent_at,
        yes.c.recorded_at <= messages.c.sent_at,
        or_(yes.c.expires_at.is_(None), yes.c.expires_at > messages.c.sent_at),
    )
    for (topic, kind), plan_ids in _asked(connection).items():
        query = (
            select(messages.c.message_id, messages.c.sent_at, no.c.recorded_at, no.c.occurred_at)
            .join(no, and_(no.c.customer_id == messages.c.customer_id, no.c.shop == messages.c.shop))
            .where(messages.c.plan_id.in_(plan_ids), messages.c.state.in_(_LEFT))
            .where(messages.c.purpose == "marketing", no.c.recorded_at < messages.c.sent_at)
            .where(no.c.channel == kind, no.c.topic == topic, no.c.status == "withdrawn", ~newer_yes)
            .order_by(messages.c.message_id)
        )
        for row in connection.execute(query):
            if row.sent_at - max(row.recorded_at, row.occurred_at) > CONSENT_GRACE:
                yield f"message {row.message_id}"


def sent_without_consent(connection: Connection) -> Iterator[str]:
    """Marketing to people who had given no consent that was known and had not run out when it left."""
    yes = consents.c
    recorded_at = (
        select(func.min(yes.recorded_at))
        .where(yes.customer_id == messages.c.customer_id, yes.shop == messages.c.shop)
        .where(yes.status == "granted", yes.occurred_at <= messages.c.sent_at)
        .where(or_(yes.expires_at.is_(None), yes.expires_at > messages.c.sent_at))
    )
    for (topic, kind), plan_ids in _asked(connection).items():
        if kind in PLATFORM_KINDS:  # the platform asks its buyers itself
            continue
        known = recorded_at.where(yes.topic == topic, yes.channel == kind).scalar_subquery().label("known_at")
        left = (
            select(messages.c.message_id, messages.c.sent_at, known)
            .where(messages.c.plan_id.in_(plan_ids), messages.c.state.in_(_LEFT))
            .where(messages.c.purpose == "marketing")
            .subquery()
        )
        query = select(left).where(or_(left.c.known_at.is_(None), left.c.known_at > left.c.sent_at))
        for row in connection.execute(query.order_by(left.c.message_id)):
            if row.known_at is None or row.known_at - row.sent_at > CONSENT_GRACE:
                yield f"message {row.message_id}"


def audience_differs(connection: Connection) -> Iterator[str]:
    counted = select(func.count()).where(verdicts.c.plan_id == plans.c.plan_id).scalar_subquery()
    yield from _numbers(connection, select(plans.c.plan_id).where(plans.c.audience != counted), "plan")


def verdicts_changed(connection: Connection) -> Iterator[str]:
    hashed = select(plans.c.plan_id).where(plans.c.hash != "")  # empty: made before revision 0003
    for plan_id in connection.execute(hashed.order_by(plans.c.plan_id)).scalars().all():
        plan = stored_plan(connection, plan_id)
        if stored_hash(connection, plan) != plan.hash:
            yield f"plan {plan_id}"


def applied_without_approval(connection: Connection) -> Iterator[str]:
    """Plans that a person had to look at, and nobody approved what they say."""
    query = select(plans.c.plan_id, plans.c.hash, plans.c.summary).where(plans.c.status == "applied")
    for plan_id, plan_hash, summary in connection.execute(query).all():
        if (summary or {}).get("needs_approval") and approved_by(connection, plan_id, plan_hash) is None:
            yield f"plan {plan_id}"


def event_without_sending(connection: Connection) -> Iterator[str]:
    query = (
        select(message_events.c.event_id, message_events.c.occurred_at, messages.c.sent_at)
        .outerjoin(messages, messages.c.message_id == message_events.c.message_id)
        .where(or_(messages.c.sent_at.is_(None), message_events.c.occurred_at < messages.c.sent_at))
        .order_by(message_events.c.event_id)
    )
    for event_id, occurred_at, sent_at in connection.execute(query):
        if sent_at is None or sent_at - occurred_at > GRACE:
            yield f"event {event_id}"


def pages_elsewhere(connection: Connection, data_dir: Path) -> int:
    """How many pages were landed on another host: their folder has never been here."""
    paths = Counter(Path(path).parent for path in connection.execute(select(landing_pages.c.path)).scalars())
    return sum(pages for folder, pages in paths.items() if not (data_dir / folder).is_dir())


def page_changed(connection: Connection, data_dir: Path) -> Iterator[str]:
    """Pages of other hosts apart, those that are gone or are not what came."""
    query = select(landing_pages.c.page_id, landing_pages.c.path, landing_pages.c.sha256)
    for page_id, path, sha256 in connection.execute(query.order_by(landing_pages.c.page_id)):
        if not (data_dir / path).parent.is_dir():
            continue
        try:
            with gzip.open(data_dir / path) as page:
                found = hashlib.file_digest(page, "sha256").hexdigest()
        except (OSError, EOFError, zlib.error):
            found = None
        if found != sha256:
            yield f"page {page_id}"


def bookmark_ahead(connection: Connection, now: datetime) -> Iterator[str]:
    marks = pull_bookmarks.c
    query = (
        select(marks.shop, marks.entity).where(marks.watermark > now + GRACE).order_by(marks.shop, marks.entity)
    )
    for shop, entity in connection.execute(query):
        yield f"{entity} of {shop}"


def _is_held(row: Row[Any], now: datetime) -> bool:
    """By a process that lives, as far as anybody can tell from here."""
    return bool(row.claim and row.lease_until and row.lease_until > now and not is_orphan(row.claim))


def _same_person() -> ColumnElement[bool]:
    return and_(messages.c.plan_id == verdicts.c.plan_id, messages.c.customer_id == verdicts.c.customer_id)


def member_twice(connection: Connection) -> Iterator[str]:
    """Spans of one membership that overlap, or end before they begin."""
    first, second = segment_members.c, segment_members.alias("second")
    overlaps = and_(
        second.c.segment == first.segment,
        second.c.customer_id == first.customer_id,
        second.c.valid_from > first.valid_from,
        or_(first.valid_to.is_(None), second.c.valid_from < first.valid_to),
    )
    query = select(first.segment, first.customer_id).where(
        or_(first.valid_to <= first.valid_from, exists().where(overlaps))
    )
    for segment, customer_id in connection.execute(query.order_by(first.segment, first.customer_id)):
        yield f"customer {customer_id} in {segment}"


def members_miscounted(connection: Connection) -> Iterator[str]:
    """Segments of the newest build whose spans are more or fewer than it counted."""
    newest = select(segment_runs.c.counts).order_by(segment_runs.c.as_of.desc()).limit(1)
    counts = connection.execute(newest).scalar() or {}
    members = select(segment_members.c.segment, func.count()).where(segment_members.c.valid_to.is_(None))
    found = {segment: n for segment, n in connection.execute(members.group_by(segment_members.c.segment))}
    for segment, counted in sorted(counts.items()):
        if found.get(segment, 0) != counted:
            yield f"{segment} has {found.get(segment, 0):,} members, {counted:,} were counted"


def _numbers(connection: Connection, query: Select[tuple[int]], what: str) -> Iterator[str]:
    for number in sorted(connection.execute(query).scalars()):
        yield f"{what} {number}"


def _campaigns(connection: Connection) -> Iterator[tuple[int, Campaign]]:
    for plan_id, definition in connection.execute(select(plans.c.plan_id, plans.c.definition)):
        yield plan_id, Campaign.model_validate(definition)


def _asked(connection: Connection) -> dict[tuple[str, str], list[int]]:
    """Plans by the consent that they need: topic, and kind of channel."""
    query = select(plans.c.plan_id, plans.c.summary)
    kinds = {row.plan_id: (row.summary or {}).get("channel_kind", _EMAIL) for row in connection.execute(query)}
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for plan_id, campaign in _campaigns(connection):
        found[campaign.topic, kinds[plan_id]].append(plan_id)
    return found


def _rules(connection: Connection) -> dict[CapRule, list[int]]:
    """Plans by the cap rules that their messages had to pass."""
    stored: dict[int, list[CapRule]] = defaultdict(list)
    query = select(cap_rules.c.plan_id, cap_rules.c.definition).where(cap_rules.c.kind == "cap")
    for plan_id, definition in connection.execute(query):
        stored[plan_id].append(CapRule.model_validate(definition))
    found: dict[CapRule, list[int]] = defaultdict(list)
    for plan_id, campaign in _campaigns(connection):
        for rule in applicable(stored[plan_id], campaign):
            found[rule].append(plan_id)
    return found
