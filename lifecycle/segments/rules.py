"""Segments beside the cells of the recipe: each a condition on a customer's state, made of comparisons.

Every comparison is noted by its text. Two sets of rules of one configuration, as of two instants, have the same
comparisons with other cut-offs: who may have moved is who stands differently to one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from sqlalchemy import ColumnElement, and_, case, false, literal, not_, or_, select

from lifecycle.db import schema
from lifecycle.db.instants import elapsed, quotient
from lifecycle.db.schema import Big, Instant
from lifecycle.segments import language as lang
from lifecycle.segments.cuts import Cuts
from lifecycle.segments.metrics import Sources, counted_orders
from lifecycle.segments.scoring import reached
from lifecycle.segments.vocabulary import Columns, Metric, attribute
from lifecycle.settings.segments import (
    Active,
    AtRisk,
    Expressed,
    HighValue,
    NewCustomers,
    OneTime,
    Potential,
    Quiet,
    Repeat,
    SegmentRule,
    Vip,
    WonBack,
)

Condition = ColumnElement[bool]
_HAPPENED = {"messaged": "last_messaged_at", "opened": "last_opened_at", "clicked": "last_clicked_at"}
_DAYS_SINCE = {"first_order_at": "days_since_first_order", "last_order_at": "recency_days"}
_SINCE_HAPPENED = {"messaged": "days_since_message", "opened": "days_since_open", "clicked": "days_since_click"}
_SECOND_US = 1_000_000


class Rules:
    """Conditions over the columns `c`, as of an instant. `cuts`: by segment, of those defined by a share."""

    def __init__(
        self,
        rules: Mapping[str, SegmentRule | lang.Expression],
        metrics: Mapping[str, Metric],
        cells: tuple[str, ...],
        sources: Sources,
        *,
        c: Columns,
        as_of: datetime,
        cuts: Mapping[str, Cuts],
    ) -> None:
        self.comparisons: dict[str, Condition] = {}
        """By their text; the same text is the same comparison."""
        self.about: dict[str, str | None] = {}
        """The metric that a comparison is about, where it is one."""
        self._rules, self._metrics, self._cells, self._sources = rules, metrics, cells, sources
        self._c, self._as_of, self._cuts = c, as_of, cuts

    def condition(self, segment: str) -> Condition:
        """Who is in a segment of the configuration, a cell included."""
        if segment in self._cells:
            return self._note(f"rfm_segment = {segment}", self._c.rfm_segment == segment, "rfm_segment")
        return self._holds(segment, self._rules[segment])

    def _note(self, text: str, holds: Condition, about: str | None = None) -> Condition:
        self.about[text] = about
        return self.comparisons.setdefault(text, holds)

    def _compare(self, name: str, op: str, bound: Any) -> Condition:
        text = lang.to_text(lang.Compare(name, op, bound))  # type: ignore[arg-type]
        return self._note(text, self._metric(name).compare(self._c, op, bound, self._as_of), name)

    def _metric(self, name: str) -> Metric:
        return attribute(name) if name.startswith("attributes.") else self._metrics[name]

    def _cut_off(self, days: int) -> ColumnElement[datetime]:
        return literal(self._as_of - timedelta(days=days), Instant())

    def _since(self, column: str, days: int) -> Condition:
        """At most so many days of 24 hours ago."""
        text = f"{column.removesuffix('_at').replace('_', ' ')} at most {days} days ago"
        return self._note(text, self._c[column] >= self._cut_off(days), _DAYS_SINCE[column])

    def _holds(self, segment: str, rule: SegmentRule | lang.Expression) -> Condition:
        match rule:
            case NewCustomers(days=days):
                return self._since("first_order_at", days)
            case OneTime():
                return self._compare("orders", "=", 1)
            case Active(days=days):
                return self._since("last_order_at", days)
            case Repeat(orders=orders):
                return self._compare("orders", ">=", orders)
            case Vip(top_share=None, spend_12m=amount):
                return self._compare("spend_12m", ">=", amount)
            case Vip():
                spend = self._metrics["spend_12m"]
                (top,) = reached(spend, self._c, self._cuts[segment], self._as_of)
                best = self._note(f"spend_12m in the top share of {segment}", top, "spend_12m")
                return and_(self._compare("orders_12m", ">", 0), best)
            case HighValue(spend_12m=amount):
                return self._compare("spend_12m", ">", amount)
            case Quiet():
                return self._quiet(rule)
            case AtRisk():
                return and_(
                    self._compare("orders", ">=", rule.orders),
                    self._beyond_rhythm(rule.rhythm),
                    self._since("last_order_at", rule.at_most_days),
                )
            case WonBack():
                return and_(self._returned_after(rule.gap_days), self._since("last_order_at", rule.days))
            case Potential():
                return and_(
                    self._since("last_order_at", rule.days),
                    self._compare("orders", "<=", rule.orders_at_most),
                    self._compare("average_order", ">=", rule.average_order),
                )
            case Expressed():
                raise AssertionError("expressions are parsed before")
            case _:
                return self._expressed(rule)

    def _quiet(self, rule: Quiet) -> Condition:
        after_days = false() if rule.days is None else not_(self._since("last_order_at", rule.days))
        quiet = after_days
        if rule.rhythm is not None:
            repeat = self._compare("orders", ">=", 2)
            quiet = or_(and_(repeat, self._beyond_rhythm(rule.rhythm)), and_(not_(repeat), after_days))
        if rule.at_most_days is None:
            return quiet
        return and_(quiet, self._since("last_order_at", rule.at_most_days))

    def _beyond_rhythm(self, times: Decimal) -> Condition:
        """Quiet for longer than so many of the customer's own mean gaps, in whole seconds."""
        c, exact = self._c, Fraction(times)
        gaps = case(
            (c.frequency >= 2, (c.frequency - 1) * literal(_SECOND_US, Big)), else_=literal(_SECOND_US, Big)
        )
        seconds = quotient(elapsed(c.first_order_at, c.last_order_at), gaps)
        allowed = quotient(seconds * literal(exact.numerator, Big), literal(exact.denominator, Big))
        quiet = elapsed(c.last_order_at, literal(self._as_of, Instant()))
        return self._note(
            f"quiet for more than {times} of their gaps between orders",
            and_(c.frequency >= 2, quiet > allowed * literal(_SECOND_US, Big)),
            "recency_days",
        )

    def _returned_after(self, days: int) -> Condition:
        c = self._c
        return self._note(
            f"last order at least {days} days after the one before",
            and_(
                c.previous_order_at.is_not(None),
                elapsed(c.previous_order_at, c.last_order_at) >= literal(days * 86_400 * _SECOND_US, Big),
            ),
            "days_since_previous_order",
        )

    def _expressed(self, expression: lang.Expression) -> Condition:
        match expression:
            case lang.And(items):
                return and_(*map(self._expressed, items))
            case lang.Or(items):
                return or_(*map(self._expressed, items))
            case lang.Not(item):
                return not_(self._expressed(item))
            case lang.Compare(name, op, value):
                return self._compare(name, op, value)
            case lang.Between(name, low, high):
                return and_(self._compare(name, ">=", low), self._compare(name, "<=", high))
            case lang.OneOf(name, values):
                return or_(*(self._compare(name, "=", value) for value in values))
            case lang.Known(name):
                return self._note(lang.to_text(expression), self._metric(name).known(self._c), name)
            case lang.InSegment(segment):
                return self.condition(segment)
            case lang.Happened(kind, days):
                column = _HAPPENED[kind]
                known = self._c[column].is_not(None)
                recent = and_(known, self._c[column] > self._cut_off(days))
                return self._note(lang.to_text(expression), recent, _SINCE_HAPPENED[kind])
            case lang.HasTag(tag):
                return self._note(lang.to_text(expression), self._c.customer_id.in_(self._tagged(tag)))
            case lang.Bought(kind, values, days):
                return self._note(
                    lang.to_text(expression), self._c.customer_id.in_(self._buyers(kind, values, days))
                )

    def _tagged(self, tag: str) -> Any:
        tags, now = schema.tags.c, literal(self._as_of, Instant())
        still = or_(tags.removed_at.is_(None), tags.removed_at > now)
        return select(tags.customer_id).where(tags.tag == tag, tags.added_at <= now, still)

    def _buyers(self, kind: str, values: tuple[str, ...], days: int | None) -> Any:
        lines, orders = schema.order_lines.c, self._sources.orders
        what = lines.sku if kind == "sku" else lines.category
        query = select(orders.c.customer_id).join_from(
            schema.order_lines, orders, orders.c.order_key == lines.order_key
        )
        now = literal(self._as_of, Instant())
        query = query.where(what.in_(values), lines.quantity > 0, *counted_orders(self._sources, orders, now))
        return query if days is None else query.where(orders.c.ordered_at > self._cut_off(days))
