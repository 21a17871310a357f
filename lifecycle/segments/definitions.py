"""Metrics, scores and segments put together as `config/segments.yaml` says."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CompoundSelect, FromClause, Select, literal, select, union_all

from lifecycle.db.schema import orders, refunds
from lifecycle.segments.metrics import metrics
from lifecycle.segments.rfm import scored
from lifecycle.segments.rules import conditions, with_spend_rank
from lifecycle.settings import Config


def scored_metrics(config: Config, as_of: datetime) -> Select:
    """One row per customer with an order: metrics, r, f, m and rfm_segment, straight from the orders."""
    return scored(metrics(orders, refunds, as_of).subquery("metrics"), config.segments_file.rfm.cells)


def memberships(metrics: FromClause, config: Config, as_of: datetime) -> CompoundSelect:
    """(segment, customer_id) for every segment that a customer of `metrics` is in."""
    ranked = with_spend_rank(metrics).cte("ranked")
    rules = conditions(ranked, config.segments_file.segments, base_currency=config.base_currency, as_of=as_of)
    return union_all(
        select(metrics.c.rfm_segment.label("segment"), metrics.c.customer_id),
        *(select(literal(name), ranked.c.customer_id).where(holds) for name, holds in rules.items()),
    )
