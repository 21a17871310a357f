"""Caps: whom the messages of the past keep from getting one more.

A rule counts a person's messages that hold a slot and whose send time lies in the half-open window
(at - days, at]. At the limit, the limit-th newest of them is the one that blocks: when it leaves the window, a
slot is free. Transactional messages are exempt and do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import takewhile

from sqlalchemy import CTE, ColumnElement, Select, and_, case, cast, false, func, literal, null, select, union_all

from lifecycle.db.instants import plus_days
from lifecycle.db.schema import Big, Instant, messages
from lifecycle.planning.judgement import Judgement, candidates, standing
from lifecycle.settings.models import Campaign, CapRule

COUNTED_STATES = ("reserved", "sending", "accepted", "unknown")
"""`refused` gives its slot back."""


def applicable(rules: Iterable[CapRule], campaign: Campaign) -> tuple[CapRule, ...]:
    """The rules that a message of `campaign` must pass."""
    return tuple(
        rule
        for rule in rules
        if (rule.channels is None or campaign.channel in rule.channels)
        and (rule.campaigns is None or campaign.name in rule.campaigns)
    )


def going_first(campaigns: Iterable[Campaign], campaign: Campaign) -> tuple[str, ...]:
    """Names of the campaigns that take slots before `campaign`: lower priority number, then as written."""
    ordered = sorted(campaigns, key=lambda other: other.priority)
    before = takewhile(lambda o: o.name != campaign.name and o.priority <= campaign.priority, ordered)
    return tuple(other.name for other in before)


def capped(judgement: Judgement) -> Select:
    """customer_id, verdict (capped or lost_to), rule, blocking_message_id, frees_at of candidates still standing.

    Of several blocking rules the one whose slot frees last is named; a limit of 0 never frees. `lost_to`: without
    this occurrence's messages of the campaigns that go first no rule would block; then blocking_message_id is the
    newest of those in the rule that is named.
    """
    rules = applicable(judgement.rules, judgement.campaign)
    if not rules:
        return select(candidates.c.customer_id, literal(""), literal("")).where(false())
    recent = _recent(judgement, max(rule.days for rule in rules))
    by_rule = union_all(*(_by_rule(recent, rule, i, judgement) for i, rule in enumerate(rules))).subquery(
        "by_rule"
    )
    never_frees_first = case((by_rule.c.frees_at.is_(None), 0), else_=1)
    last_to_free = (never_frees_first, by_rule.c.frees_at.desc(), by_rule.c.position)
    person = by_rule.c.customer_id
    chosen = select(
        by_rule,
        func.max(by_rule.c.unaided).over(partition_by=person).label("unaided_at_all"),
        func.row_number().over(partition_by=person, order_by=last_to_free).label("choice"),
    ).subquery("chosen")
    unaided = chosen.c.unaided_at_all == 1
    return select(
        chosen.c.customer_id,
        case((unaided, "capped"), else_="lost_to"),
        case({i: rule.name for i, rule in enumerate(rules)}, value=chosen.c.position),
        case((unaided, chosen.c.message_id), else_=chosen.c.winner_id),
        chosen.c.frees_at,
    ).where(chosen.c.choice == 1)


def _recent(judgement: Judgement, days: int) -> CTE:
    """Counted messages in the widest window; `winner` is 1 for those that a candidate can lose to."""
    winners = going_first(judgement.config.campaigns_file.campaigns, judgement.campaign)
    won = and_(messages.c.occurrence == judgement.occurrence, messages.c.what.in_(winners))
    return (
        select(
            candidates.c.customer_id,
            case((messages.c.shop == candidates.c.shop, 1), else_=0).label("same_shop"),
            messages.c.message_id,
            messages.c.send_at,
            messages.c.channel,
            messages.c.what,
            case((won, 1), else_=0).label("winner"),
        )
        .join_from(candidates, messages, messages.c.customer_id == candidates.c.customer_id)
        .where(
            standing, messages.c.send_at > judgement.at - timedelta(days=days), messages.c.send_at <= judgement.at
        )
        .where(messages.c.state.in_(COUNTED_STATES), messages.c.purpose != "transactional")
        .cte("recent")
    )


def _by_rule(recent: CTE, rule: CapRule, position: int, judgement: Judgement) -> Select:
    """One row per candidate whom `rule` blocks; `unaided` is 1 where it does so without any winner."""
    if rule.limit == 0:
        return select(
            candidates.c.customer_id,
            literal(position).label("position"),
            literal(1).label("unaided"),
            cast(null(), Big).label("message_id"),
            cast(null(), Big).label("winner_id"),
            cast(null(), Instant).label("frees_at"),
        ).where(standing)
    person = recent.c.customer_id
    newest_first = (recent.c.send_at.desc(), recent.c.message_id.desc())
    winner_id = case((recent.c.winner == 1, recent.c.message_id))
    counted = (
        select(
            person,
            recent.c.message_id,
            recent.c.send_at,
            func.row_number().over(partition_by=person, order_by=newest_first).label("newest"),
            func.sum(1 - recent.c.winner).over(partition_by=person).label("others"),
            func.max(winner_id).over(partition_by=person).label("winner_id"),
        )
        .where(*_counts_for(rule, recent, judgement))
        .subquery()
    )
    return select(
        counted.c.customer_id,
        literal(position).label("position"),
        case((counted.c.others >= rule.limit, 1), else_=0).label("unaided"),
        counted.c.message_id,
        counted.c.winner_id,
        plus_days(counted.c.send_at, rule.days).label("frees_at"),
    ).where(counted.c.newest == rule.limit)


def _counts_for(rule: CapRule, recent: CTE, judgement: Judgement) -> Iterator[ColumnElement[bool]]:
    yield recent.c.send_at > judgement.at - timedelta(days=rule.days)
    if rule.scope == "customer_and_shop":
        yield recent.c.same_shop == 1
    if rule.channels is not None:
        yield recent.c.channel.in_(rule.channels)
    if rule.campaigns is not None:
        yield recent.c.what.in_(rule.campaigns)
