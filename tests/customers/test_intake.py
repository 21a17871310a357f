from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine

from lifecycle.customers import intake
from lifecycle.customers.intake import Intake, take_in
from lifecycle.db.schema import (
    customers,
    fx_rates,
    identities,
    metadata,
    order_lines,
    orders,
    pull_bookmarks,
    quarantine,
    refunds,
)
from lifecycle.errors import QualityError
from lifecycle.platforms import landing
from lifecycle.platforms.base import Window
from lifecycle.platforms.records import Row
from lifecycle.quality.gate import check_fetched
from lifecycle.settings import Config
from tests.customers.rows import (
    NOW,
    SECRET,
    Given,
    ago,
    contents,
    customer,
    everything,
    granted,
    line,
    order,
    refund,
    take,
    take_unchecked,
    withdrawn,
)


def pull(engine: Engine, folder: Path, config: Config, *pages: list[Row], window: Window) -> Intake:
    platform, when = Given(*pages), {"now": NOW, "run_id": None}
    fetched = landing.fetch(engine, folder, platform, config.shop("atlas"), "orders", window=window, **when)
    gate = check_fetched(engine, folder, platform, fetched, max_rejected_share=0.5, **when)
    return take_in(engine, folder, config, platform, fetched, gate, secret=SECRET, **when)


def test_an_order_is_stored_with_lines_and_refunds_in_minor_units(engine: Engine, config: Config):
    row = order(
        currency="USD",
        total=Decimal("10.01"),
        refunded=Decimal("4.50"),
        tax=Decimal("1.6"),
        lines=[line(category="Kitchen"), line(sku="BOWL", title=None, quantity=1, unit_price=Decimal("1.01"))],
        refunds=[refund(), refund(amount=Decimal(1), refunded_at=None)],
        attributes={"number": "#1001"},
        country="US",
    )
    take(engine, config, [row])
    columns = ("total_minor", "total_base_minor", "refunded_base_minor", "tax_minor", "line_count", "attributes")
    assert contents(engine, orders, *columns) == [(1001, 861, 387, 160, 2, {"number": "#1001"})]
    ((key,),) = contents(engine, orders, "order_key")
    assert contents(engine, order_lines) == [
        (key, 1, "MUG", "A mug", "Kitchen", 2, 450),
        (key, 2, "BOWL", None, None, 1, 101),
    ]
    assert contents(engine, refunds) == [
        (key, "R1", ago(days=1), 450, 387),
        (key, "R1 (2)", ago(days=9), 100, 86),
    ]


def test_the_same_rows_again_change_nothing(engine: Engine, config: Config):
    rows = [order("1"), order("2", refunds=[refund()]), order("3", customer_id=None, email="g@example.com")]
    people = [customer("C1", "ann@example.com", tags=["vip"], consents=[granted(None), withdrawn(ago(days=3))])]
    first = take(engine, config, people), take(engine, config, rows)
    before = everything(engine, metadata.sorted_tables)
    later = NOW + timedelta(days=3)
    again = take(engine, config, people, now=later), take(engine, config, rows, now=later)
    assert everything(engine, metadata.sorted_tables) == before
    assert [taken.new for taken in first] == [taken.equal for taken in again] == [1, 3]
    assert [taken.new + taken.changed for taken in again] == [0, 0]


def test_a_changed_order_replaces_its_lines_and_keeps_when_it_was_first_seen(engine: Engine, config: Config):
    take(engine, config, [order(lines=[line(), line(sku="BOWL")], refunds=[refund()])])
    later = NOW + timedelta(days=1)
    edited = order(updated_at=ago(), total=Decimal(1), lines=[line(sku="CUP")])
    taken = take(engine, config, [edited], now=later)
    assert (taken.changed, taken.new) == (1, 0)
    assert contents(engine, orders, "total_minor", "line_count", "landed_at") == [(100, 1, NOW)]
    assert contents(engine, order_lines, "sku") == [("CUP",)]
    assert contents(engine, refunds) == []


def test_a_late_page_never_overwrites_a_newer_version(engine: Engine, config: Config):
    take(engine, config, [order(updated_at=ago(days=1), status="refunded")])
    taken = take(engine, config, [order(updated_at=ago(days=2))])
    assert taken.superseded == 1
    assert contents(engine, orders, "status") == [("refunded",)]


def test_of_an_order_twice_in_a_pull_the_newest_counts(engine: Engine, config: Config):
    newest, old = order(updated_at=ago(days=1), total=Decimal(3)), order(updated_at=ago(days=2))
    taken = take(engine, config, [old, newest, old, newest])
    assert (taken.new, taken.superseded, taken.equal) == (1, 2, 1)
    assert contents(engine, orders, "total_minor") == [(300,)]


def test_an_amount_spelled_otherwise_is_no_change(engine: Engine, config: Config):
    take(engine, config, [order(total=Decimal("9"))])
    assert take(engine, config, [order(total=Decimal("9.000"))]).equal == 1


def test_the_rate_is_the_newest_on_the_day_of_the_order(engine: Engine, changed: Callable[..., Config]):
    rates = [("2026-01-01", "0.90"), ("2026-11-01", "0.80"), ("2026-12-01", "0.10")]
    exchange_rates = [{"currency": "USD", "rate": rate, "valid_from": day} for day, rate in rates]
    config = changed(shops_file={"exchange_rates": [*exchange_rates, {"currency": "GBP", "rate": "1.14"}]})
    before = NOW.replace(month=10, day=31, hour=23)
    rows = [
        order("1", currency="USD", ordered_at=before),
        order("2", currency="USD", ordered_at=before + timedelta(hours=1)),
        order("3", currency="USD", ordered_at=NOW.replace(year=2025)),
    ]
    taken = take(engine, config, rows)
    assert contents(engine, orders, "order_id", "total_base_minor") == [("1", 810), ("2", 720)]
    assert contents(engine, quarantine, "row_key", "reason") == [
        (
            "3",
            "currency is USD; it has no exchange rate to EUR on 2025-11-22: "
            "add one to exchange_rates in config/shops.yaml",
        )
    ]
    assert taken.reasons == {"exchange_rate_known": 1}
    assert len(contents(engine, fx_rates)) == 4


def test_an_order_waits_in_quarantine_until_its_currency_has_a_rate(
    engine: Engine, config: Config, changed: Callable[..., Config]
):
    row = order(currency="JPY", total=Decimal(900))
    assert take(engine, config, [row]).rejected == 1
    rates = [{"currency": "JPY", "rate": "0.006"}, {"currency": "GBP", "rate": "1.14"}]
    assert take(engine, changed(shops_file={"exchange_rates": rates}), [row]).new == 1
    assert contents(engine, orders, "total_minor", "total_base_minor") == [(900, 540)]
    assert contents(engine, quarantine, "resolved_at") == [(NOW,)]


def test_orders_without_a_rate_count_towards_what_fails_a_pull(
    engine: Engine, config: Config, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(intake, "_BATCH_ROWS", 2)
    take(engine, config, [order("0")])
    before = everything(engine, [customers, orders, order_lines])
    rows = [order("1", total=None), order("2"), *(order(f"J{n}", currency="JPY") for n in range(5)), order("3")]
    with pytest.raises(QualityError) as error:
        take(engine, config, rows)
    assert str(error.value) == (
        "shop atlas, orders: 6 of 8 rows (75.0 %) were rejected, more than the 5 % allowed (config/shops.yaml: "
        "quality.max_rejected_share); 5 of them have no exchange rate, for example: currency is JPY; it has no "
        "exchange rate to EUR on 2026-11-12: add one to exchange_rates in config/shops.yaml. Nothing was stored "
        "but the rejected rows, in the table quarantine"
    )
    assert everything(engine, [customers, orders, order_lines]) == before
    assert sorted(contents(engine, quarantine, "row_key")) == [("1",), *((f"J{n}",) for n in range(5))]


def test_a_few_orders_without_a_rate_fail_nothing(engine: Engine, config: Config):
    taken = take(engine, config, [*(order(f"J{n}", currency="JPY") for n in range(3)), order("1")])
    assert (taken.rejected, taken.new) == (3, 1)


def test_a_corrected_rate_reaches_orders_that_are_read_again(engine: Engine, changed: Callable[..., Config]):
    def with_rate(rate: str) -> Config:
        rates = [{"currency": "USD", "rate": rate}, {"currency": "GBP", "rate": "1.14"}]
        return changed(shops_file={"exchange_rates": rates})

    rows = [order(currency="USD", refunded=Decimal(1), refunds=[refund(amount=Decimal(1))]), order("2")]
    take(engine, with_rate("0.90"), rows)
    taken = take(engine, with_rate("0.80"), rows)
    assert (taken.changed, taken.equal) == (1, 1)
    assert contents(engine, orders, "total_base_minor", "refunded_base_minor") == [(720, 80), (900, 0)]
    assert contents(engine, refunds, "amount_base_minor") == [(80,)]


def test_a_bookmark_never_moves_into_the_future(engine: Engine, tmp_path: Path, config: Config):
    platform, when = Given([order("1")]), {"now": NOW, "run_id": None}
    window, shop = Window(None, NOW), config.shop("atlas")
    fetched = landing.fetch(engine, tmp_path, platform, shop, "orders", window=window, **when)
    fetched = replace(fetched, window=Window(None, NOW + timedelta(days=40)))
    gate = check_fetched(engine, tmp_path, platform, fetched, max_rejected_share=0.5, **when)
    take_in(engine, tmp_path, config, platform, fetched, gate, secret=SECRET, **when)
    assert contents(engine, pull_bookmarks, "watermark") == [(NOW,)]


def test_a_pull_moves_its_bookmark_forward_and_never_over_a_gap(engine: Engine, tmp_path: Path, config: Config):
    def bookmark() -> list[tuple[object, ...]]:
        return contents(engine, pull_bookmarks, "watermark")

    pull(engine, tmp_path, config, [order("1")], window=Window(ago(days=9), ago(days=8)))
    assert bookmark() == []
    pull(engine, tmp_path, config, [order("1")], window=Window(None, ago(days=5)))
    assert bookmark() == [(ago(days=5),)]
    pull(engine, tmp_path, config, [order("1")], window=Window(ago(days=2), ago(days=1)))
    pull(engine, tmp_path, config, [order("1")], window=Window(ago(days=9), ago(days=8)))
    assert bookmark() == [(ago(days=5),)]
    pull(engine, tmp_path, config, [order("2")], window=Window(ago(days=5, minutes=15), NOW))
    assert bookmark() == [(NOW,)]


def test_only_rows_that_passed_the_gate_are_taken_in(engine: Engine, tmp_path: Path, config: Config):
    pages = [[order("1"), order("2", total=None)], [order(None), order("3")]]
    taken = pull(engine, tmp_path, config, *pages, window=Window(None, NOW))
    assert contents(engine, orders, "order_id") == [("1",), ("3",)]
    assert (taken.rows, taken.new, taken.rejected) == (4, 2, 2)


def test_a_pull_that_breaks_in_the_middle_leaves_everything_as_it_was(
    engine: Engine, tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
):
    pull(engine, tmp_path, config, [order("1")], window=Window(None, ago(days=1)))
    before = everything(engine, [orders, order_lines, pull_bookmarks])
    monkeypatch.setattr(intake, "_BATCH_ROWS", 1)

    class Breaking(Given):
        def parse(self, entity: str, body: bytes) -> list[Row]:
            rows = super().parse(entity, body)
            if self.broken and "3" in {row.order_id for row in rows if hasattr(row, "order_id")}:
                raise RuntimeError("the power is out")
            return rows

    platform, when = Breaking([order("2")], [order("3")]), {"now": NOW, "run_id": None}
    platform.broken = False
    window = Window(ago(days=2), NOW)
    fetched = landing.fetch(engine, tmp_path, platform, config.shop("atlas"), "orders", window=window, **when)
    gate = check_fetched(engine, tmp_path, platform, fetched, max_rejected_share=0.5, **when)
    platform.broken = True
    with pytest.raises(RuntimeError):
        take_in(engine, tmp_path, config, platform, fetched, gate, secret=SECRET, **when)
    assert everything(engine, [orders, order_lines, pull_bookmarks]) == before


def test_a_large_page_is_taken_in_by_parts(engine: Engine, config: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(intake, "_BATCH_LINES", 4)
    rows = [order(str(number), customer_id=f"C{number % 3}", lines=[line()] * 3) for number in range(11)]
    taken = take(engine, config, rows)
    assert (taken.new, taken.lines) == (11, 33)
    assert len(contents(engine, order_lines)) == 33


def test_the_sentence_accounts_for_every_row(engine: Engine, config: Config):
    rows = [
        order("1", lines=[line(), line()]),
        order("1", updated_at=ago(days=30)),
        order("2", customer_id=None),
        order("3", total=None),
    ]
    taken = take(engine, config, rows)
    assert taken.sentence() == (
        "atlas, orders: 4 rows (5 lines, 1 of them rejected): 2 new, 0 changed, 0 equal, "
        "1 older than what is stored, 1 rejected; 1 from guests whom nothing identifies."
    )
    assert taken.counts() == {
        "rows": 4,
        "new": 2,
        "changed": 0,
        "equal": 0,
        "superseded": 1,
        "rejected": 1,
        "guests": 1,
        "lines": 5,
        "rejected_lines": 1,
    }


def test_a_file_of_customers_without_dates_can_be_mended_and_read_again(engine: Engine, config: Config):
    row = customer("C1", updated_at=None, name="Anne")
    take(engine, config, [row])
    assert take(engine, config, [row]).equal == 1
    assert take(engine, config, [replace(row, name="Ann")]).changed == 1


def test_two_shops_taken_in_at_once_make_one_person_of_one_address(engine: Engine, config: Config):
    rows = [customer(f"C{number}", f"p{number}@example.com") for number in range(200)]
    with ThreadPoolExecutor(4) as pool:
        shops = ("atlas", "harbour") * 2
        taken = list(pool.map(lambda shop: take_unchecked(engine, config, rows, shop=shop), shops))
    assert sorted((each.new, each.equal) for each in taken) == [(0, 200), (0, 200), (200, 0), (200, 0)]
    assert len(contents(engine, customers, "customer_id")) == 200
    assert len(contents(engine, identities, "customer_id")) == 400


def test_how_long_a_batch_takes(engine: Engine, config: Config):
    """Prints, because a shared machine makes no promise: `pytest -s`."""
    rows: list[Row] = [
        order(
            str(number), customer_id=f"C{number % 1000}", email=f"p{number % 1000}@example.com", lines=[line()] * 4
        )
        for number in range(5_000)
    ]
    for what in ("new", "equal"):
        started = time.perf_counter()
        taken = take_unchecked(engine, config, rows)
        seconds = time.perf_counter() - started
        print(f"\n{engine.dialect.name}: {len(rows):,} {what} orders of 4 lines in {seconds:.2f} s")
        assert taken.counts()[what] == len(rows)
