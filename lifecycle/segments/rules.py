"""Segments beside the RFM grid: each a condition on a customer's metrics."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from fractions import Fraction

from sqlalchemy import ColumnElement, FromClause, Select, and_, case, func, select

from lifecycle.money import to_minor
from lifecycle.settings.models import Dormant, HighValue, NewCustomers, OneTime, SegmentRule, Vip


def with_spend_rank(metrics: FromClause) -> Select:
    """All columns of `metrics`, and where 12-month spend puts a customer among those who bought in that time:
    spend_rank (1 is most, equal spend shares a rank) of `buyers`. Other customers are ranked apart."""
    bought = case((metrics.c.orders_12m > 0, 1), else_=0)
    return select(
        metrics,
        func.rank().over(partition_by=bought, order_by=metrics.c.spend_12m_minor.desc()).label("spend_rank"),
        func.count().over(partition_by=bought).label("buyers"),
    )


def conditions(
    ranked: FromClause, rules: Mapping[str, SegmentRule], *, base_currency: str, as_of: datetime
) -> dict[str, ColumnElement[bool]]:
    """Who is in each segment, over the columns of `with_spend_rank`."""
    return {name: _condition(ranked, rule, base_currency, as_of) for name, rule in rules.items()}


def _condition(ranked: FromClause, rule: SegmentRule, base_currency: str, as_of: datetime) -> ColumnElement[bool]:
    match rule:
        case NewCustomers(days=days):
            return ranked.c.first_order_at >= as_of - timedelta(days=days)
        case OneTime():
            return ranked.c.frequency == 1
        case Vip(top_share=share):
            exact = Fraction(str(share))
            top = (ranked.c.spend_rank - 1) * exact.denominator < exact.numerator * ranked.c.buyers
            return and_(ranked.c.orders_12m > 0, top)
        case HighValue(spend_12m=amount):
            return ranked.c.spend_12m_minor > to_minor(amount, base_currency)
        case Dormant(days=days):
            return ranked.c.last_order_at < as_of - timedelta(days=days)
