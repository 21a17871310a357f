"""Whom a campaign is meant for, which shop would write, and in which language."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from lifecycle.errors import PlanError
from lifecycle.planning.plan import make_plan
from lifecycle.segments.build import build
from lifecycle.settings import Config
from tests.planning.people import (
    DAY,
    NOW,
    add_members,
    add_people,
    note_build,
    verdict_rows,
    with_caps,
)
from tests.segments.history import Order, add_customers, add_orders

TICK = timedelta(microseconds=1)


def people(engine: Engine, config: Config, **options: Any) -> dict[int, Any]:
    made = make_plan(engine, config, "winback", **{"as_of": NOW, "now": NOW} | options)
    assert made.audience == sum(made.counts.values())
    return verdict_rows(engine, made.plan_id)


def test_first_matching_segment_counts_and_excluded_ones_are_out(
    engine: Engine, changed: Callable[..., Config]
) -> None:
    """winback: cant_lose, at_risk, dormant; not new."""
    add_people(engine, [1, 2, 3, 4], segment="dormant")
    add_people(engine, [5], segment="champions")
    add_members(engine, "at_risk", [2, 3], since=NOW - DAY)
    add_members(engine, "cant_lose", [3], since=NOW - DAY)
    add_members(engine, "new", [4], since=NOW - DAY)
    found = people(engine, with_caps(changed))
    assert {i: row.segment for i, row in found.items()} == {1: "dormant", 2: "at_risk", 3: "cant_lose"}


def test_spans_are_half_open_and_older_audiences_can_be_planned(
    engine: Engine, changed: Callable[..., Config]
) -> None:
    add_people(engine, [1], segment="champions", built=NOW - 3 * DAY)
    add_people(engine, [2, 3], segment="champions", built=NOW - 2 * DAY)
    add_members(engine, "dormant", [1], since=NOW - 3 * DAY)
    add_members(engine, "dormant", [2], since=NOW - 3 * DAY, until=NOW - DAY)
    add_members(engine, "dormant", [3], since=NOW - DAY)
    note_build(engine, NOW - DAY)
    config = with_caps(changed)
    assert set(people(engine, config, as_of=NOW - DAY - TICK)) == {1, 2}
    assert set(people(engine, config, as_of=NOW - DAY)) == {1, 3}
    with pytest.raises(PlanError, match="segments have not been built; run: tern segment"):
        people(engine, config, as_of=NOW - 3 * DAY - TICK)


def test_the_shop_of_the_newest_order_writes(engine: Engine, changed: Callable[..., Config]) -> None:
    shops = {1: "atlas", 2: "harbour", 3: "harbour"}
    add_people(engine, shops, shops=shops)
    config = with_caps(changed, shops=["harbour"])
    assert {i: row.shop for i, row in people(engine, config).items()} == {2: "harbour", 3: "harbour"}
    assert {i: row.shop for i, row in people(engine, with_caps(changed)).items()} == shops


def test_the_shop_is_that_of_the_audience_s_day(engine: Engine, changed: Callable[..., Config]) -> None:
    """Looking back before the newest build: the order at harbour had not happened."""
    add_customers(engine, [1])
    add_orders(engine, [Order(1, NOW - 200 * DAY, 100), Order(1, NOW - 95 * DAY, 100, shop="harbour")])
    config = with_caps(changed)
    for as_of in (NOW - 100 * DAY, NOW):
        build(engine, config, as_of=as_of, now=NOW)
    assert people(engine, config, as_of=NOW - 98 * DAY)[1].shop == "atlas"
    assert people(engine, config)[1].shop == "harbour"


@pytest.mark.parametrize(
    ("spoken", "read"),
    [
        (None, "en"), ("de", "en"), ("fr", "fr"), ("fr-CA", "fr"), ("FR", "fr"), ("frr", "en"),
        ("zh-Hans-CN", "zh-Hans"), ("zh-Hans", "zh-Hans"), ("zh-Hant", "zh"), ("pt-BR", "pt-BR"), ("pt", "en"),
    ],
)  # fmt: skip
def test_locale_is_the_longest_that_fits(
    engine: Engine, changed: Callable[..., Config], spoken: str | None, read: str
) -> None:
    add_people(engine, [1], locale=spoken)
    config = with_caps(changed, locales=["en", "fr", "zh", "zh-Hans", "pt-BR"])
    assert people(engine, config)[1].locale == read


def test_nobody_is_an_audience(engine: Engine, changed: Callable[..., Config]) -> None:
    note_build(engine, NOW)
    plan = make_plan(engine, with_caps(changed), "winback", as_of=NOW, now=NOW)
    assert (plan.audience, plan.counts) == (0, {"selected": 0})
    assert plan.sentence() == "winback of 2026-11-22: 0 of 0 people selected"


def test_no_segments_yet(engine: Engine, config: Config) -> None:
    with pytest.raises(PlanError, match="segments have not been built; run: tern segment"):
        make_plan(engine, config, "winback", as_of=NOW, now=NOW)
