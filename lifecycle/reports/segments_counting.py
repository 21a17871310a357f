"""The numbers of a look at the segments: group-bys over spans and metrics, no customer leaves the database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import CTE, ColumnElement, Connection, Select, and_, case, cast, func, select

from lifecycle.db.schema import Big, customer_metrics, prediction_runs, segment_members, segment_runs
from lifecycle.reports.segments_records import (
    Bin,
    Calibration,
    Grid,
    GridField,
    Movement,
    Parameter,
    Prediction,
    SpendTenth,
)
from lifecycle.segments.members import member_at
from lifecycle.settings.segments import Recipe

Edges = Sequence[tuple[int, int | None]]
RECENCY_DAYS: Edges = ((0, 7), (8, 30), (31, 60), (61, 90), (91, 180), (181, 365), (366, 730), (731, None))
FREQUENCY: Edges = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 10), (11, 20), (21, None))
TENTHS = 10

_SEGMENT, _CUSTOMER = segment_members.c.segment, segment_members.c.customer_id


class Ends(NamedTuple):
    """Members of a segment at two instants."""

    before: int
    after: int
    both: int


def builds(connection: Connection, until: datetime | None = None, limit: int | None = None) -> list[Any]:
    """Rows of segment_runs, the newest `as_of` first; of equal ones the one built last."""
    query = select(segment_runs).order_by(segment_runs.c.as_of.desc(), segment_runs.c.segment_run_id.desc())
    if until is not None:
        query = query.where(segment_runs.c.as_of <= until)
    found: dict[datetime, Any] = {}
    for row in connection.execute(query.limit(limit)):
        found.setdefault(row.as_of, row)
    return list(found.values())


def first_build(connection: Connection) -> datetime | None:
    return connection.execute(select(func.min(segment_runs.c.as_of))).scalar()


def newest_build_before(connection: Connection, as_of: datetime) -> datetime | None:
    query = select(func.max(segment_runs.c.as_of)).where(segment_runs.c.as_of < as_of)
    return connection.execute(query).scalar()


def members(connection: Connection, as_of: datetime) -> dict[str, int]:
    query = select(_SEGMENT, func.count()).where(member_at(as_of)).group_by(_SEGMENT)
    return {segment: count for segment, count in connection.execute(query)}


def stayed(connection: Connection, before: datetime, after: datetime) -> dict[str, int]:
    """Members whose one span holds both instants: nearly all, and the cheapest to count."""
    query = select(_SEGMENT, func.count()).where(member_at(before), member_at(after)).group_by(_SEGMENT)
    return {segment: count for segment, count in connection.execute(query)}


def ends(connection: Connection, before: datetime, after: datetime, stayed: Mapping[str, int]) -> dict[str, Ends]:
    """Per segment, exact also for who left and came back; `stayed` of the same two instants."""
    spans = _changing(member_at(before), member_at(after))
    columns = (func.max(spans.c.was).label("was"), func.max(spans.c.now).label("now"))
    each = select(spans.c.segment, *columns).group_by(spans.c.segment, spans.c.customer_id).subquery("each")
    sums = (_total(each.c.was), _total(each.c.now), _total(each.c.was * each.c.now))
    query = select(each.c.segment, *sums).group_by(each.c.segment)
    moved = {segment: Ends(*counts) for segment, *counts in connection.execute(query)}
    return {
        segment: Ends(*(count + stayed.get(segment, 0) for count in moved.get(segment, Ends(0, 0, 0))))
        for segment in {*moved, *stayed}
    }


def movement(
    connection: Connection,
    before: datetime,
    after: datetime,
    cells_before: Sequence[str],
    cells_after: Sequence[str],
    stayed: Mapping[str, int],
) -> Movement:
    """Between the cells of two builds, whose recipes may differ; `stayed` of the same two instants."""
    was = and_(member_at(before), _SEGMENT.in_(cells_before))
    now = and_(member_at(after), _SEGMENT.in_(cells_after))
    spans = _changing(was, now)
    cell_before, cell_after = (case((holds == 1, spans.c.segment)) for holds in (spans.c.was, spans.c.now))
    columns = (func.max(cell_before).label("before"), func.max(cell_after).label("after"))
    each = select(*columns).group_by(spans.c.customer_id).subquery("each")
    query = select(each.c.before, each.c.after, func.count()).group_by(each.c.before, each.c.after)
    customers: dict[tuple[str | None, str | None], int] = {
        (before, after): count for before, after, count in connection.execute(query)
    }
    for cell in set(cells_before) & set(cells_after) & set(stayed):
        customers[cell, cell] = customers.get((cell, cell), 0) + stayed[cell]
    return Movement(tuple(cells_before), tuple(cells_after), customers)


def grid(connection: Connection, recipe: Recipe) -> Grid:
    metric = customer_metrics.c
    keys = (metric.r, metric.f, metric.rfm_segment)
    query = select(*keys, func.count(), _total(metric.m)).group_by(*keys)
    rows = [tuple(row) for row in connection.execute(query.order_by(func.count().desc(), metric.rfm_segment))]
    r_scores = max([recipe.scored["r"].scores or 0, *(row[0] for row in rows)])
    f_scores = max([recipe.scored["f"].scores or 0, *(row[1] for row in rows)])
    everybody = sum(row[3] for row in rows)
    pairs = [(r, f) for r in range(1, r_scores + 1) for f in range(1, f_scores + 1)]
    return Grid(r_scores, f_scores, {pair: _field(pair, rows, everybody, recipe) for pair in pairs})


def recency_days(connection: Connection, as_of: datetime) -> tuple[Bin, ...]:
    """Whole days since the last order, by cut-offs: so many days or fewer is after one day more ago."""
    last = customer_metrics.c.last_order_at
    upper = [last > as_of - timedelta(days=high + 1) for _, high in RECENCY_DAYS if high is not None]
    return _binned(connection, upper, RECENCY_DAYS)


def frequency(connection: Connection) -> tuple[Bin, ...]:
    upper = [customer_metrics.c.frequency <= high for _, high in FREQUENCY if high is not None]
    return _binned(connection, upper, FREQUENCY)


def spend_tenths(connection: Connection) -> tuple[SpendTenth, ...]:
    metric = customer_metrics.c
    # With the customer in the order no two are equal, so that both databases cut at the same place.
    place = func.ntile(TENTHS).over(order_by=(metric.monetary_minor.desc(), metric.customer_id))
    ranked = select(place.label("tenth"), metric.monetary_minor).subquery("ranked")
    spend = ranked.c.monetary_minor
    query = (
        select(ranked.c.tenth, func.count(), func.min(spend), func.max(spend), _total(spend))
        .group_by(ranked.c.tenth)
        .order_by(ranked.c.tenth)
    )
    rows = connection.execute(query).all()
    if len(rows) < TENTHS:
        return ()
    total = sum(spent for *_, spent in rows)
    return tuple(
        SpendTenth(tenth, customers, low, high, spent, spent / total if total > 0 else None)
        for tenth, customers, low, high, spent in rows
    )


def prediction(connection: Connection, until: datetime) -> Prediction | None:
    """The newest one as of `until` or before."""
    run = prediction_runs.c
    query = select(prediction_runs).where(run.as_of <= until)
    row = connection.execute(query.order_by(run.as_of.desc(), run.prediction_run_id.desc()).limit(1)).first()
    if row is None:
        return None
    return Prediction(
        as_of=row.as_of,
        fitted_at=row.fitted_at,
        horizon_days=row.horizon_days,
        customers=row.customers,
        repeat_customers=row.repeat_customers,
        problem=row.problem,
        parameters=_parameters(row.parameters or {}),
        calibration=tuple(
            Calibration(str(each["frequency"]), each["customers"], each["expected"], each["seen"])
            for each in row.calibration or ()
        ),
    )


def _changing(was: ColumnElement[bool], now: ColumnElement[bool]) -> CTE:
    """Spans for which just one of the two holds.

    Materialized, because SQLite otherwise walks all spans in the order of the grouping: four times slower when
    few have changed (4 million spans).
    """
    columns = (_SEGMENT, _CUSTOMER, _one(was).label("was"), _one(now).label("now"))
    return select(*columns).where(was != now).cte("changing").prefix_with("materialized")


def _field(pair: tuple[int, int], rows: Collection[tuple[Any, ...]], everybody: int, recipe: Recipe) -> GridField:
    mine = [row for row in rows if row[:2] == pair]
    customers = sum(row[3] for row in mine)
    m_sums = [row[4] for row in mine]
    cells = {row[2]: row[3] for row in mine}
    return GridField(
        customers=customers,
        share=customers / everybody if everybody else 0.0,
        cells=cells or dict.fromkeys((name for scores, name in recipe.cells.items() if scores[:2] == pair), 0),
        mean_m=sum(m_sums) / customers if customers and None not in m_sums else None,
    )


def _binned(connection: Connection, upper: Sequence[ColumnElement[bool]], edges: Edges) -> tuple[Bin, ...]:
    """Customers by the first bin whose upper end they are within; the last bin has none."""
    place = case(*((within, number) for number, within in enumerate(upper)), else_=len(upper))
    numbered: Select[Any] = select(place.label("place"))
    bins = numbered.select_from(customer_metrics).subquery("bins")
    query = select(bins.c.place, func.count()).group_by(bins.c.place)
    counts = {place: count for place, count in connection.execute(query)}
    everybody = sum(counts.values())
    return tuple(
        Bin(low, high, counts.get(number, 0), counts.get(number, 0) / everybody if everybody else 0.0)
        for number, (low, high) in enumerate(edges)
    )


def _parameters(models: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """Of each model its `values`, with `standard_errors` of the same names, and what else is a number of it.

    By name: the databases keep the keys of JSON in orders of their own.
    """
    found = []
    for model, told in sorted(models.items()):
        errors = told.get("standard_errors") or {}
        values = sorted((told.get("values") or {}).items())
        values += sorted((name, value) for name, value in told.items() if isinstance(value, int | float))
        found += [Parameter(model, name, value, errors.get(name)) for name, value in values]
    return tuple(found)


def _one(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return case((condition, 1), else_=0)


def _total(column: ColumnElement[Any]) -> ColumnElement[int]:
    return cast(func.sum(column), Big)
