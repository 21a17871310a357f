"""The numbers of a report, each from one query over the plans' verdicts, messages, events and orders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, case, distinct, exists, func, or_, select

from lifecycle.db.instants import plus_days
from lifecycle.db.schema import (
    event_classes,
    links,
    message_events,
    messages,
    orders,
    plans,
    runs,
    verdicts,
)
from lifecycle.reports.records import AlsoSent, LinkClicks, Measure, Refusal, Why
from lifecycle.tracking.rules import CLASSES

NONE = "–"
"""Where a person was left out before a language was chosen."""
_MAIL_ADDRESS = re.compile(r"<?[^\s<>@]+@[^\s<>]+>?")
_EVENT_FLAGS = ("bounced", "complained", "unsubscribed")


class Fact(NamedTuple):
    campaign: str
    segment: str
    language: str
    measure: Measure
    number: int


@dataclass(frozen=True)
class Scope:
    """What is counted: plans, events and orders up to `as_of`, classes of one version of the rules."""

    plan_ids: Sequence[int]
    as_of: datetime
    rules_version: str
    attribution_days: int


def verdict_facts(connection: Connection, scope: Scope) -> tuple[list[Fact], list[Why]]:
    """One verdict per person: the revised one where there is one."""
    final = func.coalesce(verdicts.c.revised_verdict, verdicts.c.verdict)
    rule = case((verdicts.c.revised_verdict.is_not(None), verdicts.c.revised_rule), else_=verdicts.c.rule)
    columns = (plans.c.campaign, verdicts.c.segment, verdicts.c.locale, final.label("final"), rule.label("rule"))
    query = (
        select(*columns, func.count())
        .join(plans, plans.c.plan_id == verdicts.c.plan_id)
        .where(verdicts.c.plan_id.in_(scope.plan_ids))
        .group_by(*columns)
    )
    facts, why = [], Counter[tuple[str, str, str | None]]()
    for campaign, segment, locale, verdict, rule_name, count in connection.execute(query):
        facts.append(Fact(campaign, segment, locale or NONE, ("verdict", verdict), count))
        why[campaign, verdict, rule_name] += count
    return facts, [Why(*key, people) for key, people in why.most_common()]


def message_facts(connection: Connection, scope: Scope) -> tuple[list[Fact], int]:
    """States of the messages, and what came back for the delivered ones; how many others something came for.

    Whom sending dropped after all has a revised verdict and counts by that, not by state.
    """
    back = _what_came_back(scope).subquery()
    flags = [func.coalesce(back.c[name], 0) for name in _EVENT_FLAGS]
    columns = (
        messages.c.what,
        messages.c.segment,
        messages.c.locale,
        messages.c.state,
        case((_dropped(), 1), else_=0).label("dropped"),
        back.c.opened,
        back.c.clicked,
        *flags,
    )
    query = (
        select(*columns, func.count())
        .select_from(messages.outerjoin(back, back.c.message_id == messages.c.message_id))
        .where(messages.c.plan_id.in_(scope.plan_ids))
        .group_by(*columns)
    )
    facts: list[Fact] = []
    strays = 0
    for row in connection.execute(query):
        campaign, segment, locale, state, dropped, opened, clicked, bounced, complained, left, count = row
        accepted = state == "accepted"
        reached = accepted and not bounced
        always = [("state", state)] * (not dropped) + [("bounced", "")] * (accepted and bounced)
        seen: list[Measure] = [("complained", "")] * complained + [("unsubscribed", "")] * left
        seen += [("opened", CLASSES[opened])] if opened is not None else []
        seen += [("clicked", CLASSES[clicked])] if clicked is not None else []
        strays += count if seen and not reached else 0
        for measure in always + seen * reached:
            facts.append(Fact(campaign, segment or NONE, locale, measure, count))
    return facts, strays


def order_facts(connection: Connection, scope: Scope) -> list[Fact]:
    """Orders within the window after a click by a person; the last click before an order has caused it."""
    won = _last_clicks(scope).subquery()
    bounced = select(message_events.c.message_id).where(
        message_events.c.kind == "bounced", message_events.c.occurred_at <= scope.as_of
    )
    columns = (messages.c.what, messages.c.segment, messages.c.locale)
    query = (
        select(
            *columns,
            func.count(),
            func.count(distinct(messages.c.message_id)),
            func.sum(orders.c.total_base_minor - orders.c.refunded_base_minor),
        )
        .select_from(won)
        .join(messages, messages.c.message_id == won.c.message_id)
        .join(orders, orders.c.order_key == won.c.order_key)
        .where(
            won.c.place == 1,
            messages.c.plan_id.in_(scope.plan_ids),
            messages.c.state == "accepted",
            messages.c.message_id.not_in(bounced),
        )
        .group_by(*columns)
    )
    facts = []
    for campaign, segment, locale, count, buyers, revenue in connection.execute(query):
        for name, value in (("orders", count), ("buyers", buyers), ("revenue_minor", int(revenue))):
            facts.append(Fact(campaign, segment or NONE, locale, (name, ""), value))
    return facts


def refusals(connection: Connection, scope: Scope) -> list[Refusal]:
    """Reasons with addresses taken out: a peer likes to repeat them."""
    query = (
        select(messages.c.what, messages.c.reason, func.count())
        .where(messages.c.plan_id.in_(scope.plan_ids), messages.c.state == "refused", ~_dropped())
        .group_by(messages.c.what, messages.c.reason)
    )
    counts: Counter[tuple[str, str]] = Counter()
    for campaign, reason, count in connection.execute(query):
        counts[campaign, _MAIL_ADDRESS.sub("‹address›", reason or "no reason given")] += count
    return [Refusal(*key, count) for key, count in counts.most_common()]


def link_clicks(connection: Connection, scope: Scope) -> list[LinkClicks]:
    """Links by the number of messages in which a person followed them."""
    people = func.count(distinct(message_events.c.message_id))
    query = (
        select(plans.c.campaign, links.c.url, links.c.label, people)
        .select_from(message_events)
        .join(event_classes, _classed(scope))
        .join(messages, messages.c.message_id == message_events.c.message_id)
        .join(
            links,
            and_(links.c.plan_id == messages.c.plan_id, links.c.link_id == message_events.c.link_id),
        )
        .join(plans, plans.c.plan_id == links.c.plan_id)
        .where(
            links.c.plan_id.in_(scope.plan_ids),
            message_events.c.kind == "clicked",
            message_events.c.occurred_at <= scope.as_of,
            event_classes.c["class"] == "person",
        )
        .group_by(plans.c.campaign, links.c.url, links.c.label)
        .order_by(people.desc(), plans.c.campaign, links.c.url)
    )
    return [LinkClicks(*row) for row in connection.execute(query)]


def unclassified(connection: Connection, scope: Scope) -> int:
    query = (
        select(func.count())
        .select_from(message_events.outerjoin(event_classes, _classed(scope)))
        .join(messages, messages.c.message_id == message_events.c.message_id)
        .where(
            messages.c.plan_id.in_(scope.plan_ids),
            message_events.c.kind.in_(("opened", "clicked")),
            message_events.c.occurred_at <= scope.as_of,
            event_classes.c.event_id.is_(None),
        )
    )
    return int(connection.execute(query).scalar_one())


def message_count(connection: Connection, scope: Scope) -> int:
    """Without those that sending dropped."""
    query = select(func.count()).select_from(messages)
    query = query.where(messages.c.plan_id.in_(scope.plan_ids), ~_dropped())
    return int(connection.execute(query).scalar_one())


def sent_during(connection: Connection, scope: Scope, run: Any) -> int:
    """`run`: its row of `runs`."""
    query = (
        select(func.count())
        .select_from(messages)
        .where(
            messages.c.plan_id.in_(scope.plan_ids),
            messages.c.state == "accepted",
            messages.c.settled_at >= run.started_at,
        )
    )
    if run.ended_at is not None:
        query = query.where(messages.c.settled_at <= run.ended_at)
    return int(connection.execute(query).scalar_one())


def also_sent(connection: Connection, scope: Scope, tree: Iterable[Any]) -> list[AlsoSent]:
    """What the runs of `tree` sent of other plans, which earlier runs had left open."""
    spans = []
    for run in tree:
        if earlier := (run.summary or {}).get("also_sent_plans"):
            ended = [messages.c.sent_at <= run.ended_at] if run.ended_at is not None else []
            spans.append(and_(messages.c.plan_id.in_(earlier), messages.c.sent_at >= run.started_at, *ended))
    if not spans:
        return []
    query = (
        select(plans.c.campaign, plans.c.occurrence, func.count())
        .join(messages, messages.c.plan_id == plans.c.plan_id)
        .where(or_(*spans), messages.c.state == "accepted", plans.c.plan_id.not_in(scope.plan_ids))
        .group_by(plans.c.plan_id, plans.c.campaign, plans.c.occurrence)
        .order_by(plans.c.occurrence, plans.c.campaign)
    )
    return [AlsoSent(*row) for row in connection.execute(query)]


def run_tree(connection: Connection, run_id: str) -> list[Any]:
    """The rows of a run and of all its children, in the order in which they started."""
    found = list(connection.execute(select(runs).where(runs.c.run_id == run_id)))
    level = found
    while level:
        parents = [row.run_id for row in level]
        level = list(connection.execute(select(runs).where(runs.c.parent_run_id.in_(parents))))
        found += level
    return sorted(found, key=lambda row: (row.started_at, row.parent_run_id is not None, row.run_id))


def groups(facts: Iterable[Fact], by: str) -> Iterator[tuple[str, Counter[Measure]]]:
    """Sums of the facts by one of their attributes, in the order of their names."""
    sums: dict[str, Counter[Measure]] = {}
    for fact in facts:
        sums.setdefault(getattr(fact, by), Counter())[fact.measure] += fact.number
    yield from sorted(sums.items())


def _dropped() -> ColumnElement[bool]:
    """Of a message that never left: its person was suppressed, say, between planning and sending."""
    revised = exists().where(
        verdicts.c.plan_id == messages.c.plan_id,
        verdicts.c.customer_id == messages.c.customer_id,
        verdicts.c.revised_verdict.is_not(None),
    )
    return and_(messages.c.state == "refused", revised)


def _what_came_back(scope: Scope) -> Select[Any]:
    """Per message: the rank in CLASSES of its best open and click (null: none), 1 or 0 for the other kinds."""
    event, class_ = message_events.c, event_classes.c["class"]
    rank = case({name: place for place, name in enumerate(CLASSES)}, value=class_, else_=CLASSES.index("unknown"))

    def best(kind: str) -> ColumnElement[Any]:
        return func.min(case((event.kind == kind, rank)))

    return (
        select(
            event.message_id,
            best("opened").label("opened"),
            best("clicked").label("clicked"),
            *(func.max(case((event.kind == kind, 1), else_=0)).label(kind) for kind in _EVENT_FLAGS),
        )
        .select_from(message_events.outerjoin(event_classes, _classed(scope)))
        .join(messages, messages.c.message_id == event.message_id)
        .where(messages.c.plan_id.in_(scope.plan_ids), event.occurred_at <= scope.as_of)
        .group_by(event.message_id)
    )


def _last_clicks(scope: Scope) -> Select[Any]:
    """Pairs of order and click by a person before it, by whichever campaign; `place` 1 is the last click.

    Clicks of all campaigns on the people of the plans: a later click on another mail takes the order away.
    """
    event = message_events.c
    concerned = select(messages.c.customer_id).where(messages.c.plan_id.in_(scope.plan_ids))
    clicks = (
        select(event.event_id, event.occurred_at, event.message_id, messages.c.customer_id)
        .select_from(message_events)
        .join(event_classes, _classed(scope))
        .join(messages, messages.c.message_id == event.message_id)
        .where(
            event.kind == "clicked",
            event.occurred_at <= scope.as_of,
            event_classes.c["class"] == "person",
            messages.c.customer_id.in_(concerned),
        )
        .cte("clicks")
    )
    place = func.row_number().over(
        partition_by=orders.c.order_key, order_by=(clicks.c.occurred_at.desc(), clicks.c.event_id.desc())
    )
    return (
        select(orders.c.order_key, clicks.c.message_id, place.label("place"))
        .join(clicks, clicks.c.customer_id == orders.c.customer_id)
        .where(
            orders.c.status == "paid",
            orders.c.total_minor > 0,
            orders.c.ordered_at <= scope.as_of,
            orders.c.ordered_at > clicks.c.occurred_at,
            orders.c.ordered_at <= plus_days(clicks.c.occurred_at, scope.attribution_days),
        )
    )


def _classed(scope: Scope) -> ColumnElement[bool]:
    return and_(
        event_classes.c.event_id == message_events.c.event_id,
        event_classes.c.rules_version == scope.rules_version,
    )
