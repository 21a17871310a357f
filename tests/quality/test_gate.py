from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from lifecycle.db.schema import customers, orders, pull_bookmarks, quarantine
from lifecycle.errors import QualityError
from lifecycle.platforms import landing
from lifecycle.platforms.base import Window
from lifecycle.platforms.records import Row
from lifecycle.quality.gate import GateResult, check_fetched, check_rows
from lifecycle.settings import Config
from tests.customers.rows import NOW, Given, ago, contents, customer, line, order, take


def check_pages(
    engine: Engine, folder: Path, config: Config, *pages: Sequence[Row], share: float = 0.5, **how: Any
) -> GateResult:
    platform, shop = Given(*pages), config.shop("atlas")
    when = {"now": NOW, "run_id": "run-1"} | how
    fetched = landing.fetch(engine, folder, platform, shop, "orders", window=Window(None, when["now"]), **when)
    return check_fetched(engine, folder, platform, fetched, max_rejected_share=share, **when)


def test_the_gate_tells_for_each_page_which_rows_may_not_pass(engine: Engine, tmp_path: Path, config: Config):
    good, bad = order("1"), order("2", total=None)
    gate = check_pages(engine, tmp_path, config, [good, bad], [order("3"), order("4"), order(None)])
    first, second = gate.rejected_at
    assert gate.rejected_at == {first: (1,), second: (2,)}
    assert first < second
    assert (gate.rows, gate.rejected, gate.reasons) == (5, 2, {"total_present": 1, "order_id_present": 1})
    assert pickle.loads(pickle.dumps(gate)) == gate


def test_quarantine_keeps_the_whole_row_and_where_it_came_from(engine: Engine, tmp_path: Path, config: Config):
    bad = order("2", total=None)
    bad.raw = {"id": 2, "note": "half a pair \ud800 and \0", "nested": {"price": Decimal("1.10"), "seen": [NOW]}}
    check_pages(engine, tmp_path, config, [order("1"), bad])
    ((row, key, reason, source, run_id),) = contents(
        engine, quarantine, "row", "row_key", "reason", "source", "run_id"
    )
    assert row == {
        "id": 2,
        "note": "half a pair ? and ",
        "nested": {"price": "1.10", "seen": ["2026-11-22T09:00:00+00:00"]},
    }
    assert (key, reason, run_id) == ("2", "total is missing", "run-1")
    assert (tmp_path / source).is_file()


def test_the_same_bad_row_again_is_only_seen_again(engine: Engine, tmp_path: Path, config: Config):
    later = NOW + timedelta(hours=1)
    pages = [[order("1"), order("2", total=None)]]
    check_pages(engine, tmp_path, config, *pages)
    check_pages(engine, tmp_path, config, *pages, now=later, run_id="run-2")
    assert contents(engine, quarantine, "first_seen_at", "last_seen_at", "run_id") == [(NOW, later, "run-1")]


def test_above_the_allowed_share_the_pull_fails_and_quarantine_stays(
    engine: Engine, tmp_path: Path, config: Config
):
    below = [line(unit_price=Decimal("-1.50"))]
    rows = [order(str(number)) for number in range(21)]
    rows += [order("bad", lines=below), order("bad too", lines=below), order("worse", total=None)]
    with pytest.raises(QualityError) as error:
        check_pages(engine, tmp_path, config, rows, share=0.05)
    assert str(error.value) == (
        "shop atlas, orders: 3 of 24 rows (12.5 %) were rejected, more than the 5 % allowed (config/shops.yaml: "
        "quality.max_rejected_share); most often unit_price_not_negative (2 rows), for example: "
        "unit_price is -1.50; it must be 0 or more (line 1). Nothing was stored "
        "but the rejected rows, in the table quarantine"
    )
    assert contents(engine, quarantine, "row_key") == [("bad",), ("bad too",), ("worse",)]
    assert contents(engine, orders) == contents(engine, customers) == contents(engine, pull_bookmarks) == []


def test_exactly_the_allowed_share_passes(engine: Engine):
    rows: list[Row] = [order(str(number)) for number in range(19)] + [order(None)]
    gate = check_rows(
        engine, "atlas", "orders", [rows], source="f.csv", max_rejected_share=0.05, now=NOW, run_id=None
    )
    assert gate.rejected == 1


@pytest.mark.parametrize(("rejected", "rows", "fails"), [(3, 4, False), (4, 5, True), (4, 40, False)])
def test_a_few_rows_never_fail_a_small_pull(engine: Engine, rejected: int, rows: int, fails: bool):
    batch: list[Row] = [
        order(str(number), total=None if number < rejected else Decimal(9)) for number in range(rows)
    ]
    limit = {"max_rejected_share": 0.1, "tolerated_rows": 3}
    with pytest.raises(QualityError) if fails else nullcontext():
        check_rows(engine, "atlas", "orders", [batch], source="f.csv", now=NOW, run_id=None, **limit)
    assert len(contents(engine, quarantine)) == rejected


def test_input_lines_of_accepted_and_rejected_rows_add_up(engine: Engine, changed: Callable[..., Config]):
    config = changed(shops_file={"quality": {"max_rejected_share": 1}})
    rows = [
        order("1", lines=[line(), line(), line()]),
        order("2", lines=[line(), line(quantity=0)]),
        order("3", lines=[line()], input_lines=4),
        order("4", lines=[], input_lines=7, total=None),
        order("5", currency="JPY"),
        order(None),
    ]
    taken = take(engine, config, rows)
    kept = contents(engine, quarantine, "row_key", "lines")
    assert sorted(lines for _, lines in kept) == [1, 1, 2, 7]
    assert taken.lines == 18
    assert taken.rejected_lines == sum(lines for _, lines in kept)
    assert taken.rejected == len(kept) == 4
    assert taken.rows == taken.new + taken.rejected


def test_a_later_version_that_passes_resolves_what_was_rejected(engine: Engine, config: Config):
    take(engine, config, [order("1", total=None), order("2", total=None), customer_less("3")])
    assert contents(engine, quarantine, "resolved_at") == [(None,), (None,), (None,)]
    later = NOW + timedelta(days=1)
    take(engine, config, [order("1", updated_at=ago(days=1)), customer_less("3")], now=later)
    assert contents(engine, quarantine, "row_key", "resolved_at") == [("1", later), ("2", None), ("3", None)]


def test_an_older_version_that_passes_resolves_nothing(engine: Engine, config: Config):
    take(engine, config, [order("1", total=None, updated_at=ago(days=1))])
    take(engine, config, [order("1", updated_at=ago(days=2))])
    assert contents(engine, quarantine, "row_key", "resolved_at") == [("1", None)]


def test_customers_without_an_id_share_no_key(engine: Engine, config: Config):
    rows = [customer(None, raw={"row": 1}), customer(None, raw={"row": 2}), customer("C1")]
    taken = take(engine, config, rows)
    keys = {key for (key,) in contents(engine, quarantine, "row_key")}
    assert (taken.rejected, len(keys)) == (2, 2)
    assert all(key.startswith("no id: ") for key in keys)


def customer_less(order_id: str) -> Row:
    return order(order_id, status="unheard of")
