"""Hold-outs: stable, of the right size, the same in Python and on both databases."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from lifecycle.db.schema import customers
from lifecycle.planning.holdout import bucket
from lifecycle.planning.plan import make_plan
from lifecycle.settings import Config
from tests.planning.people import NOW, add_people, change, verdict_rows, with_caps

LARGEST_SEED = 2**31 - 2


def test_buckets_never_change() -> None:
    """What they were when the first experiment began: other numbers would mix treated and held out."""
    assert [bucket(seed, "global") for seed in (1, 2, 1_000_000, LARGEST_SEED)] == [5206, 91, 9651, 9083]


@pytest.mark.parametrize("experiment", ["global", "winback"])
def test_shares_are_about_right_and_even(experiment: str) -> None:
    buckets = [bucket(seed * 104_729 % LARGEST_SEED + 1, experiment) for seed in range(50_000)]
    assert {n // 1_000 for n in buckets} == set(range(10))
    assert all(abs(sum(n // 1_000 == tenth for n in buckets) - 5_000) < 350 for tenth in range(10))


def test_experiments_are_independent() -> None:
    seeds = [seed * 104_729 % LARGEST_SEED + 1 for seed in range(50_000)]
    both = sum(bucket(seed, "global") < 2_000 and bucket(seed, "winback") < 2_000 for seed in seeds)
    assert abs(both - 2_000) < 250


def test_databases_hold_out_the_same_people(engine: Engine, changed: Callable[..., Config]) -> None:
    people = range(1, 201)
    add_people(engine, people)
    seeds = {i: i * 10_007_003 % LARGEST_SEED + 1 for i in people} | {200: LARGEST_SEED}
    for i, seed in seeds.items():
        change(engine, customers, customers.c.customer_id == i, seed=seed)
    config = with_caps(changed, hold_out=0.25)
    file = config.campaigns_file.model_dump() | {"global_hold_out": 0.1}
    config = changed(campaigns_file=file, caps_file={"caps": []})

    plan = make_plan(engine, config, "winback", as_of=NOW, now=NOW)

    found = {i: (row.verdict, row.rule) for i, row in verdict_rows(engine, plan.plan_id).items()}
    assert found == {i: _slowly(seed) for i, seed in seeds.items()}


def _slowly(seed: int) -> tuple[str, str | None]:
    if bucket(seed, "global") < 1_000:
        return "hold_out", "global"
    if bucket(seed, "winback") < 2_500:
        return "hold_out", "winback"
    return "selected", None
