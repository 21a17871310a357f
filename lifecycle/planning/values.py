"""What one message of a campaign is expected to bring, from what messages of the past were followed by.

Value = response rate x order value x margin, in minor units of the base currency. A message is answered when the
same customer places an order within the attribution window after it. What would have happened anyway is in this
rate: the hold-outs are not taken off yet, so it says what follows a message and not what the message causes. It is
good for weighing messages against each other, and too high as a forecast. An order in the windows of two messages
counts for both.

Rates of few messages are noise, so they are drawn towards a more general one, by empirical Bayes with a prior of
`prior_messages`: a segment's within a campaign to the campaign's, that to the one of all campaigns, and that to
PRIOR_RATE, so that an empty ledger has values too. Order values go the same way, their prior counted in orders.

The shop is no part of it: most shops have few messages of a campaign to a segment, and what differs between shops
would be noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Select, cast, func, literal, select

from lifecycle.db.instants import plus_days
from lifecycle.db.schema import Big, Instant, messages, orders
from lifecycle.errors import UsageError, suggest
from lifecycle.money import exponent
from lifecycle.segments.metrics import Sources, counted_orders
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign

SAMPLE = 200_000
"""So many messages tell a rate well enough; millions would take the time that a plan has."""
PRIOR_RATE = 0.01
"""Answers per message before there are any. An assumption, and soon outweighed; until then it is the same for all
campaigns, and matters only beside one whose config gives its `value`."""
PRIOR_ORDER_MINOR = 1_000.0
"""Where nobody has ordered."""


@dataclass(frozen=True)
class Value:
    """A campaign's message to a member of a segment, money in minor units of the base currency. `rate` is as
    counted, None without messages; `shrunk_rate` and `order_value_minor` are drawn to the general ones.
    `value_minor` is the campaign's own where its config gives one."""

    campaign: str
    segment: str
    messages: int
    responses: int
    rate: float | None
    shrunk_rate: float
    order_value_minor: float
    margin: float
    value_minor: float


@dataclass(frozen=True)
class Values:
    rows: Mapping[tuple[str, str], Value]
    """By campaign and segment."""
    others: Mapping[str, Value]
    """By campaign: of a segment that it does not name, or no more."""

    def of(self, campaign: str, segment: str, shop: str | None = None) -> float:
        """Expected value in minor units; the same for every `shop`. Raises UsageError for a campaign that was not
        asked for."""
        if campaign not in self.others:
            raise UsageError(f'the value of "{campaign}" was not estimated{suggest(campaign, self.others)}')
        return self.rows.get((campaign, segment), self.others[campaign]).value_minor

    def table(self) -> list[Value]:
        """A row per campaign and segment, as configured."""
        return list(self.rows.values())


@dataclass(frozen=True)
class _Seen:
    """Messages, those of them that were answered, and the orders that answered."""

    messages: int = 0
    responses: int = 0
    orders: int = 0
    orders_minor: int = 0

    def __add__(self, other: _Seen) -> _Seen:
        return _Seen(
            self.messages + other.messages,
            self.responses + other.responses,
            self.orders + other.orders,
            self.orders_minor + other.orders_minor,
        )


@dataclass(frozen=True)
class _Estimate:
    rate: float
    order_minor: float

    def drawn_to(self, seen: _Seen, weight: int) -> _Estimate:
        """What was seen, with this as `weight` messages and orders seen before."""
        return _Estimate(
            (seen.responses + weight * self.rate) / (seen.messages + weight),
            (seen.orders_minor + weight * self.order_minor) / (seen.orders + weight),
        )


def expected_values(
    connection: Connection, config: Config, campaigns: Sequence[Campaign], *, at: datetime, days: int = 365
) -> Values:
    """Of each campaign's segments, from marketing messages sent in (at - days, at], accepted, and with their
    attribution window over at `at`. Orders count as config/segments.yaml says, in whichever currency."""
    seen = _seen(connection, config, at, days)
    weight = config.campaigns_file.prior_messages
    prior = _Estimate(PRIOR_RATE, _usual_order(connection, config, at, days))
    general = prior.drawn_to(_sum(seen, None), weight)
    rows, others = {}, {}
    for campaign in campaigns:
        mine = general.drawn_to(_sum(seen, campaign.name), weight)
        others[campaign.name] = _value(config, campaign, "", _Seen(), mine)
        for segment in campaign.segments:
            here = seen.get((campaign.name, segment), _Seen())
            rows[campaign.name, segment] = _value(config, campaign, segment, here, mine.drawn_to(here, weight))
    return Values(rows, others)


def _value(config: Config, campaign: Campaign, segment: str, seen: _Seen, estimate: _Estimate) -> Value:
    margin = config.campaigns_file.margin if campaign.margin is None else campaign.margin
    value = estimate.rate * estimate.order_minor * margin
    if campaign.value is not None:
        value = float(campaign.value.scaleb(exponent(config.base_currency)))  # less than one unit is a value too
    return Value(
        campaign=campaign.name,
        segment=segment,
        messages=seen.messages,
        responses=seen.responses,
        rate=seen.responses / seen.messages if seen.messages else None,
        shrunk_rate=estimate.rate,
        order_value_minor=estimate.order_minor,
        margin=margin,
        value_minor=value,
    )


def _sum(seen: Mapping[tuple[str, str | None], _Seen], campaign: str | None) -> _Seen:
    """Of one campaign, or of all."""
    return sum((each for (what, _), each in seen.items() if campaign in (None, what)), _Seen())


def _seen(connection: Connection, config: Config, at: datetime, days: int) -> dict[tuple[str, str | None], _Seen]:
    """By campaign and segment, what the messages whose window is over were followed by; of a large ledger every
    k-th message."""
    attribution_days = config.channels_file.tracking.attribution_days
    period = (
        messages.c.sent_at > at - timedelta(days=days),
        messages.c.sent_at <= at - timedelta(days=attribution_days),
    )
    sent_then: int = connection.execute(select(func.count()).where(*period)).scalar_one()
    conditions = (
        *period,
        messages.c.message_id % max(sent_then // SAMPLE, 1) == 0,
        messages.c.state == "accepted",
        messages.c.purpose == "marketing",
    )
    group = (messages.c.what, messages.c.segment)
    sent = select(*group, func.count()).where(*conditions).group_by(*group)
    answered = (
        select(
            *group,
            func.count(messages.c.message_id.distinct()),
            func.count(),
            cast(func.sum(orders.c.total_base_minor), Big),
        )
        .join_from(messages, orders, orders.c.customer_id == messages.c.customer_id)
        .where(
            *conditions,
            orders.c.ordered_at > messages.c.sent_at,
            orders.c.ordered_at <= plus_days(messages.c.sent_at, attribution_days),
            *_counted(config, at),
        )
        .group_by(*group)
    )
    answers = {(what, segment): numbers for what, segment, *numbers in connection.execute(answered)}
    return {
        (what, segment): _Seen(count, *answers.get((what, segment), ()))
        for what, segment, count in connection.execute(sent)
    }


def _usual_order(connection: Connection, config: Config, at: datetime, days: int) -> float:
    """Mean of all counted orders in (at - days, at], drawn to nothing."""
    query: Select = select(func.count(), cast(func.sum(orders.c.total_base_minor), Big)).where(
        orders.c.ordered_at > at - timedelta(days=days), orders.c.ordered_at <= at, *_counted(config, at)
    )
    count, total = connection.execute(query).one()
    return total / count if count and total > 0 else PRIOR_ORDER_MINOR


def _counted(config: Config, at: datetime) -> list[ColumnElement[bool]]:
    """What an order must be; when it was placed is asked beside it."""
    counting = config.segments_file.counted_orders.model_copy(update={"currency": None, "totals": "positive"})
    return counted_orders(Sources(counting), orders, literal(at, Instant()), placed=False)
