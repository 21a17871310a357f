"""What a message is expected to bring, against the ledger read row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import messages
from lifecycle.errors import UsageError
from lifecycle.planning.values import PRIOR_ORDER_MINOR, PRIOR_RATE, Values, expected_values
from lifecycle.settings import Config
from tests.planning.people import message
from tests.segments.history import NOW, Order, add_customers, add_orders, clear

DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)
PEOPLE = (1, 2, 3)
WINDOW = 7
"""Days, as config/channels.yaml says."""
CAMPAIGNS = ("vip_thanks", "winback")

moments = st.builds(
    lambda days, nudge: NOW - days * DAY + nudge,
    st.sampled_from([0, 3, 6, 7, 8, 13, 14, 30, 358, 365, 366]),
    st.sampled_from([timedelta(0), timedelta(0), TICK, -TICK, timedelta(hours=5)]),
)
sent = st.builds(
    lambda **fields: fields,
    customer_id=st.sampled_from(PEOPLE),
    send_at=moments,
    what=st.sampled_from(["winback", "winback", "vip_thanks", "a journey"]),
    segment=st.sampled_from(["at_risk", "dormant", "vip", "gone", None]),
    purpose=st.sampled_from(["marketing"] * 4 + ["transactional"]),
    state=st.sampled_from(["accepted"] * 4 + ["refused", "unknown"]),
)
bought = st.builds(
    Order,
    customer=st.sampled_from([*PEOPLE, None]),
    at=moments,
    total=st.sampled_from([2_000, 5_000, 12_345, 0, -700]),
    status=st.sampled_from(["paid"] * 5 + ["cancelled", "open", "refunded", "returned"]),
)


def estimate(engine: Engine, config: Config) -> Values:
    with reading(engine) as connection:
        return expected_values(connection, config, [config.campaign(name) for name in CAMPAIGNS], at=NOW)


def add_mails(engine: Engine, mails: Sequence[dict[str, Any]]) -> None:
    rows = [message(**mail) | {"occurrence": str(number)} for number, mail in enumerate(mails)]
    if rows:
        with writing(engine) as connection:
            connection.execute(insert(messages), rows)


def mails(count: int, segment: str = "dormant", what: str = "winback", customer: int = 2) -> list[dict[str, Any]]:
    """To somebody who ordered on `NOW - 30 days`, a day before that; customer 2 never orders."""
    fields = {"customer_id": customer, "segment": segment, "what": what, "send_at": NOW - 31 * DAY}
    return [fields] * count


def with_campaigns(changed: Callable[..., Config], **fields: dict[str, Any]) -> Config:
    """Fields of campaigns replaced, by campaign."""
    every = [campaign.model_dump() for campaign in changed().campaigns_file.campaigns]
    return changed(campaigns_file={"campaigns": [each | fields.get(each["name"], {}) for each in every]})


class Slowly:
    """Row by row, from the words of the module."""

    def __init__(self, config: Config, mails: Sequence[dict[str, Any]], orders: Sequence[Order]) -> None:
        self.weight = config.campaigns_file.prior_messages
        self.orders = [each for each in orders if each.status == "paid" and each.total > 0 and each.customer]
        self.mails = [
            mail
            for mail in mails
            if mail["state"] == "accepted"
            and mail["purpose"] == "marketing"
            and NOW - 365 * DAY < mail["send_at"] <= NOW - WINDOW * DAY
        ]
        usual = [order.total for order in self.orders if NOW - 365 * DAY < order.at <= NOW]
        prior = PRIOR_RATE, sum(usual) / len(usual) if usual else PRIOR_ORDER_MINOR
        self.general = self.drawn(prior, self.mails)

    def answers(self, mail: dict[str, Any]) -> list[int]:
        return [
            order.total
            for order in self.orders
            if order.customer == mail["customer_id"]
            and mail["send_at"] < order.at <= mail["send_at"] + WINDOW * DAY
        ]

    def drawn(self, prior: tuple[float, float], mails: Sequence[dict[str, Any]]) -> tuple[float, float]:
        rate, order = prior
        answered = [answers for mail in mails if (answers := self.answers(mail))]
        totals = [total for answers in answered for total in answers]
        return (
            (len(answered) + self.weight * rate) / (len(mails) + self.weight),
            (sum(totals) + self.weight * order) / (len(totals) + self.weight),
        )

    def of(self, campaign: str, segment: str) -> tuple[int, int, float, float]:
        mine = [mail for mail in self.mails if mail["what"] == campaign]
        here = [mail for mail in mine if mail["segment"] == segment]
        estimate = self.drawn(self.drawn(self.general, mine), here)
        return len(here), sum(1 for mail in here if self.answers(mail)), *estimate


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(sent, max_size=12), bought=st.lists(bought, max_size=8), weight=st.sampled_from([1, 5, 200]))
@example(
    sent=[mail | {"purpose": "marketing", "state": "accepted"} for mail in mails(2, customer=1)],
    bought=[Order(1, NOW - 31 * DAY, 5_000), Order(1, NOW - 24 * DAY, 2_000), Order(1, NOW - 24 * DAY + TICK, 9)],
    weight=5,
)
def test_values_equal_the_slow_way(
    engine: Engine,
    changed: Callable[..., Config],
    sent: list[dict[str, Any]],
    bought: list[Order],
    weight: int,
) -> None:
    clear(engine)
    config = changed(campaigns_file={"prior_messages": weight, "margin": 0.25})
    add_customers(engine, PEOPLE)
    add_orders(engine, bought)
    add_mails(engine, sent)

    values = estimate(engine, config)

    slowly = Slowly(config, sent, bought)
    assert [(row.campaign, row.segment) for row in values.table()] == [
        (name, segment) for name in CAMPAIGNS for segment in config.campaign(name).segments
    ]
    for row in values.table():
        count, responses, rate, order = slowly.of(row.campaign, row.segment)
        assert (row.messages, row.responses) == (count, responses)
        assert row.rate == (responses / count if count else None)
        assert (row.shrunk_rate, row.order_value_minor) == pytest.approx((rate, order))
        assert row.value_minor == pytest.approx(rate * order * 0.25)
        assert values.of(row.campaign, row.segment, "atlas") == row.value_minor > 0


def test_an_empty_ledger_has_values_too(engine: Engine, config: Config) -> None:
    values = estimate(engine, config)
    assert values.of("winback", "dormant") == pytest.approx(
        PRIOR_RATE * PRIOR_ORDER_MINOR * config.campaigns_file.margin
    )
    assert {row.rate for row in values.table()} == {None}


def test_few_messages_are_drawn_to_the_general_rate(engine: Engine, config: Config) -> None:
    add_customers(engine, PEOPLE)
    add_orders(engine, [Order(1, NOW - 30 * DAY, 5_000)])
    # All three of at_risk were answered, and one in ten of a thousand in dormant.
    many = [*mails(900, "dormant"), *mails(100, "dormant", customer=1)]
    add_mails(engine, [*many, *mails(3, "at_risk", customer=1)])
    rows = {row.segment: row for row in estimate(engine, config).table() if row.campaign == "winback"}
    assert rows["at_risk"].rate == 1
    assert rows["at_risk"].shrunk_rate == pytest.approx(0.1, abs=0.02)
    assert rows["dormant"].shrunk_rate == pytest.approx(0.1, abs=0.01)
    assert rows["dormant"].shrunk_rate < rows["at_risk"].shrunk_rate
    assert rows["cant_lose"].shrunk_rate == pytest.approx(0.09, abs=0.02)


def test_what_the_config_says_goes_before_the_estimate(engine: Engine, changed: Callable[..., Config]) -> None:
    config = with_campaigns(changed, vip_thanks={"value": Decimal("0.004")}, winback={"margin": 0.5})
    values = estimate(engine, config)
    assert values.of("vip_thanks", "vip") == pytest.approx(0.4)
    assert values.of("winback", "dormant") == pytest.approx(PRIOR_RATE * PRIOR_ORDER_MINOR * 0.5)


def test_a_segment_that_a_campaign_does_not_name_has_the_campaigns_value(engine: Engine, config: Config) -> None:
    values = estimate(engine, config)
    assert values.of("winback", "vip") == values.of("winback", "dormant")
    with pytest.raises(UsageError, match=r'"winbak" was not estimated.*winback'):
        values.of("winbak", "dormant")
