"""RFM: quintile scores and the cell of the grid that they fall into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, and_, case, func, select

from lifecycle.settings.models import RfmCell


def scored(metrics: FromClause, cells: Sequence[RfmCell]) -> Select:
    """All columns of `metrics`, and r, f, m (1 worst to 5 best) and rfm_segment.

    Customers are ranked upwards by recency (the longest ago first), orders and spend. The score is 1 plus the
    number of fifths of all customers that rank strictly below: with rank k of n, one for each i in 1..4 with
    5 (k - 1) >= i n. Equal values share the lowest of their ranks, so equal customers score equally; when all are
    equal, or there is only one, the score is 1.
    """
    ranked = select(
        metrics,
        _rank(metrics.c.recency_days.desc()).label("r_rank"),
        _rank(metrics.c.frequency).label("f_rank"),
        _rank(metrics.c.monetary_minor).label("m_rank"),
        func.count().over().label("customers"),
    ).subquery("ranked")
    scores = select(
        *(ranked.c[column.name] for column in metrics.c),
        *(_quintile(ranked.c[f"{s}_rank"], ranked.c.customers).label(s) for s in "rfm"),
    ).subquery("scores")
    return select(scores, _cell(scores, cells).label("rfm_segment"))


def _rank(order: ColumnElement[Any]) -> ColumnElement[int]:
    return func.rank().over(order_by=order)


def _quintile(rank: ColumnElement[int], customers: ColumnElement[int]) -> ColumnElement[int]:
    score: ColumnElement[int] = case((5 * (rank - 1) >= customers, 2), else_=1)
    for i in range(2, 5):
        score = score + case((5 * (rank - 1) >= i * customers, 1), else_=0)
    return score


def _cell(scores: FromClause, cells: Sequence[RfmCell]) -> ColumnElement[str]:
    return case(*((and_(scores.c.r.between(*cell.r), scores.c.f.between(*cell.f)), cell.name) for cell in cells))
