"""The report of a run: what was decided, sent, and came back, from the tables alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, func, or_, select

from lifecycle.db.engine import reading
from lifecycle.db.schema import plans, quarantine, runs, segment_members, segment_runs
from lifecycle.errors import AuditFailed, UsageError, suggest
from lifecycle.planning.records import slots_of
from lifecycle.reports import counting
from lifecycle.reports.counting import Fact, Scope
from lifecycle.reports.records import (
    Figures,
    Group,
    Measure,
    Plan,
    Pull,
    Quarantined,
    QuotaSlots,
    RunReport,
    SegmentMove,
    Stage,
)
from lifecycle.settings import Config
from lifecycle.tracking.rules import rules_version

_RECENT = 50


def build_report(engine: Engine, config: Config, *, run_id: str, as_of: datetime) -> RunReport:
    """Everything about a run and the runs within it.

    Events and orders count up to `as_of`. Raises UsageError for an unknown run and AuditFailed when the
    numbers do not add up.
    """
    tracking = config.channels_file.tracking
    with reading(engine) as connection:
        tree = counting.run_tree(connection, run_id)
        if not tree:
            raise UsageError(f'there is no run "{run_id}"{suggest(run_id, _recent_runs(connection))}')
        [run] = [row for row in tree if row.run_id == run_id]
        made = _plans(connection, tree)
        scope = Scope([plan.plan_id for plan in made], as_of, rules_version(tracking), tracking.attribution_days)
        facts, why = counting.verdict_facts(connection, scope)
        came_back, strays = counting.message_facts(connection, scope)
        facts += came_back + counting.order_facts(connection, scope)
        report = RunReport(
            run_id=run_id,
            flow=run.flow,
            state=run.state,
            as_of=as_of,
            started_at=run.started_at,
            ended_at=run.ended_at,
            currency=config.base_currency,
            attribution_days=tracking.attribution_days,
            rules_version=scope.rules_version,
            plans=tuple(made),
            total=_total(facts),
            campaigns=_groups(facts, "campaign"),
            segments=_groups(facts, "segment"),
            languages=_groups(facts, "language"),
            why=tuple(why),
            quota_slots=_quota_slots(connection, made),
            refusals=tuple(counting.refusals(connection, scope)),
            links=tuple(counting.link_clicks(connection, scope)),
            sent_now=counting.sent_during(connection, scope, run),
            also_sent=tuple(counting.also_sent(connection, scope, tree)),
            unclassified=counting.unclassified(connection, scope),
            strays=strays,
            stages=tuple(_stage(row) for row in tree),
            pulls=tuple(_pulls(tree)),
            quarantined=_quarantined(connection, tree),
            segment_moves=_segment_moves(connection, config, tree, as_of),
            problems=_problems(tree),
        )
        _check(report, facts, counting.message_count(connection, scope))
    return report


def _recent_runs(connection: Connection) -> list[str]:
    query = select(runs.c.run_id).order_by(runs.c.started_at.desc()).limit(_RECENT)
    return list(connection.execute(query).scalars())


def _plans(connection: Connection, tree: Sequence[Any]) -> list[Plan]:
    """The plans that the runs made or went on with. A run that was killed has no summary, but its plan has it."""
    named = [row.summary["plan_id"] for row in tree if row.summary and "plan_id" in row.summary]
    query = (
        select(plans.c.plan_id, plans.c.campaign, plans.c.occurrence, plans.c.status, plans.c.audience)
        .where(or_(plans.c.plan_id.in_(named), plans.c.run_id.in_([row.run_id for row in tree])))
        .order_by(plans.c.plan_id)
    )
    return [
        Plan(row.plan_id, row.campaign, row.occurrence, row.status == "applied", row.audience)
        for row in connection.execute(query)
    ]


def _quota_slots(connection: Connection, made: Sequence[Plan]) -> tuple[QuotaSlots, ...]:
    query = select(plans.c.campaign, plans.c.summary).where(plans.c.plan_id.in_([plan.plan_id for plan in made]))
    return tuple(
        QuotaSlots(campaign, each)
        for campaign, summary in connection.execute(query.order_by(plans.c.plan_id))
        for each in slots_of(summary)
    )


def _total(facts: Iterable[Fact]) -> Group:
    counts: Counter[Measure] = Counter()
    for fact in facts:
        counts[fact.measure] += fact.number
    return Group("total", "all", Figures(dict(counts)))


def _groups(facts: Sequence[Fact], by: str) -> tuple[Group, ...]:
    """Largest audience first."""
    found = [Group(by, name, Figures(dict(counts))) for name, counts in counting.groups(facts, by)]
    return tuple(sorted(found, key=lambda group: -group.figures.audience))


def _stage(row: Any) -> Stage:
    summary, parameters = row.summary or {}, row.parameters or {}
    about = parameters.get("shop") or parameters.get("campaign") or summary.get("campaign")
    return Stage(
        run_id=row.run_id,
        name=f"{row.flow} {about}" if about else row.flow,
        state=row.state,
        started_at=row.started_at,
        ended_at=row.ended_at,
        seconds=summary.get("seconds"),
        peak_mb=summary.get("peak_mb") or None,
        sentences=tuple(str(sentence) for sentence in summary.get("sentences", ())),
    )


def _pulls(tree: Sequence[Any]) -> Iterable[Pull]:
    for row in tree:
        shop = (row.parameters or {}).get("shop")
        if shop is None:
            continue
        for entity, counts in (row.summary or {}).items():
            if isinstance(counts, dict):
                yield Pull(shop, entity, {name: n for name, n in counts.items() if isinstance(n, int)})


def _quarantined(connection: Connection, tree: Sequence[Any]) -> tuple[Quarantined, ...]:
    columns = (quarantine.c.shop, quarantine.c.entity, quarantine.c.reason)
    query = (
        select(*columns, func.count().label("rows"), func.sum(quarantine.c.lines).label("lines"))
        .where(quarantine.c.run_id.in_([row.run_id for row in tree]))
        .group_by(*columns)
        .order_by(func.count().desc(), *columns)
    )
    return tuple(
        Quarantined(row.shop, row.entity, row.reason, row.rows, int(row.lines))
        for row in connection.execute(query)
    )


def _segment_moves(
    connection: Connection, config: Config, tree: Sequence[Any], as_of: datetime
) -> tuple[SegmentMove, ...]:
    """Of the run's own build of the segments, or of the newest one before it began."""
    built = select(segment_runs.c.as_of, segment_runs.c.counts).order_by(segment_runs.c.segment_run_id.desc())
    own = built.where(segment_runs.c.run_id.in_([row.run_id for row in tree]))
    before = built.where(segment_runs.c.built_at <= tree[0].started_at, segment_runs.c.as_of <= as_of)
    newest = connection.execute(own.limit(1)).first() or connection.execute(before.limit(1)).first()
    if newest is None:
        return ()
    entered = _moved(connection, segment_members.c.valid_from, newest.as_of)
    left = _moved(connection, segment_members.c.valid_to, newest.as_of)
    order = {segment: place for place, segment in enumerate(config.segment_names)}
    return tuple(
        SegmentMove(segment, newest.counts[segment], entered.get(segment, 0), left.get(segment, 0))
        for segment in sorted(newest.counts, key=lambda segment: (order.get(segment, len(order)), segment))
    )


def _moved(connection: Connection, edge: Any, at: datetime) -> dict[str, int]:
    query = select(segment_members.c.segment, func.count()).where(edge == at)
    return {row[0]: row[1] for row in connection.execute(query.group_by(segment_members.c.segment))}


def _problems(tree: Sequence[Any]) -> tuple[str, ...]:
    """What the runs could not do, each sentence once."""
    said = [
        sentence
        for row in reversed(tree)
        for sentence in ((row.summary or {}).get("failures") or [(row.summary or {}).get("error")])
        if sentence
    ]
    return tuple(dict.fromkeys(said))


def _check(report: RunReport, facts: Sequence[Fact], messages: int) -> None:
    """Raises AuditFailed where two ways to the same number disagree."""
    wrong = []
    total, planned = report.total.figures, Counter[str]()
    for plan in report.plans:
        planned[plan.campaign] += plan.audience
    for group in report.campaigns:
        if group.figures.audience != planned[group.name]:
            wrong.append(
                f"{group.name} has {group.figures.audience} verdicts for an audience of {planned[group.name]}"
            )
    if sum(planned.values()) != total.audience:
        wrong.append(f"{total.audience} verdicts for {sum(planned.values())} people in all plans")
    states = total.accepted + total.refused + total.unknown + total.held
    if states != messages:
        wrong.append(f"{states} messages by state, {messages} in the ledger")
    drafts = {plan.campaign for plan in report.plans if not plan.applied}
    applied = [fact for fact in facts if fact.campaign not in drafts]
    for name, parts in (
        ("campaign", report.campaigns),
        ("segment", report.segments),
        ("language", report.languages),
    ):
        summed: Counter[Measure] = Counter()
        for group in parts:
            summed.update(group.figures.counts)
        if summed != Counter(total.counts):
            wrong.append(f"the sums by {name} differ from the total")
        for group in _groups(applied, name):
            mine = group.figures
            states = mine.accepted + mine.refused + mine.unknown + mine.held
            if states != mine.selected:
                wrong.append(f"{group.name} has {mine.selected} selected people, but {states} messages")
    if wrong:
        raise AuditFailed(f"the report of {report.run_id} does not add up: {'; '.join(wrong)}")
