from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lifecycle.errors import InputError
from sandbox.inputs import REPEATED, SAMPLED, UNREADABLE
from sandbox.people import DOMAINS, is_gone
from sandbox.stock import Stock, build_stock
from tests.platforms.goods import TODAY, small_stock, write_order_lines

ONLINE_RETAIL_LINES = 1_067_371


def ask(stock: Stock, query: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(stock.path)) as connection:
        return connection.execute(query, values).fetchall()


def contents(stock: Stock) -> list[Any]:
    return ask(
        stock,
        "select shop, id, updated_at, json from orders union all select shop, id, updated_at, json from customers",
    )


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return build_stock(None, tmp_path_factory.mktemp("default"), today=TODAY)


def test_every_line_of_the_default_input_is_accounted_for(default: Stock) -> None:
    assert default.lines_read == 1_469_307
    assert list(default.accounting) == ["served by atlas", "served by harbour", SAMPLED]
    served = default.accounting["served by atlas"] + default.accounting["served by harbour"]
    ((stored,),) = ask(
        default, "select sum(json_array_length(coalesce(json -> 'lineItems', json -> 'line_items'))) from orders"
    )
    assert stored == served == default.lines_read - default.accounting[SAMPLED]
    assert 0.11 < served / default.lines_read < 0.14


def test_people_are_made_up_in_the_documented_shares(default: Stock) -> None:
    people = ask(default, "select shop, email, json from customers")
    shops = pd.Series([shop for shop, *_ in people]).value_counts(normalize=True)
    assert set(shops.index) == {"atlas", "harbour"}
    assert shops.between(0.4, 0.6).all()
    addresses = {email for _, email, _ in people if email}
    assert {address.partition("@")[2] for address in addresses} == set(DOMAINS)
    assert 0.01 < sum(map(is_gone, addresses)) / len(addresses) < 0.035
    assert 0 < sum(email is None for _, email, _ in people) / len(people) < 0.02
    both = len([1 for _, email, _ in people if email]) - len(addresses)
    assert 0.11 < both / len(addresses) < 0.19
    said = [json.loads(text) for shop, _, text in people if shop == "atlas"]
    states = pd.Series([c["defaultEmailAddress"]["marketingState"] for c in said if c["defaultEmailAddress"]])
    shares = states.value_counts(normalize=True)
    assert 0.65 < shares["SUBSCRIBED"] < 0.75
    assert 0.11 < shares["UNSUBSCRIBED"] < 0.19
    assert {c["locale"] for c in said} == {"en", "fr"}


def test_dates_end_on_the_eve_of_the_first_day(default: Stock) -> None:
    ((last,),) = ask(default, "select max(updated_at) from orders")
    assert datetime.fromtimestamp(last, UTC).date() == TODAY - timedelta(days=1)
    assert default.anchor == TODAY


def test_the_same_input_gives_the_same_stock(tmp_path: Path) -> None:
    first, second = (small_stock(tmp_path / name) for name in ("a", "b"))
    assert contents(first) == contents(second)
    assert len(contents(first)) > 100


def test_a_stock_is_built_once(tmp_path: Path) -> None:
    stock = small_stock(tmp_path)
    order = stock.add_order("atlas", *ask(stock, "select min(id) from customers where shop = 'atlas'")[0], later())
    again = build_stock(tmp_path / "lines.csv", tmp_path, today=TODAY + timedelta(days=3))
    assert again == stock
    assert ask(again, "select count(*) from orders where id = ?", order) == [(1,)]


def test_a_rebuild_of_the_same_input_keeps_its_dates(tmp_path: Path) -> None:
    stock = small_stock(tmp_path)
    before = contents(stock)
    with closing(sqlite3.connect(stock.path)) as connection, connection:
        connection.execute("update meta set value = '0' where key = 'version'")
    again = build_stock(tmp_path / "lines.csv", tmp_path, today=TODAY + timedelta(days=3))
    assert (again.anchor, contents(again)) == (TODAY, before)


def test_another_input_is_another_stock(tmp_path: Path) -> None:
    stock = small_stock(tmp_path)
    path = tmp_path / "lines.csv"
    path.write_text(path.read_text() + "B1,p1,2026-11-01,EUR,sku,1,2.00,Tea,France\n")
    again = build_stock(path, tmp_path, today=date(2026, 12, 1))
    assert (again.lines_read, again.anchor) == (stock.lines_read + 1, date(2026, 12, 1))


def later(hours: int = 2) -> datetime:
    return datetime(2026, 11, 22, tzinfo=UTC) + timedelta(hours=hours)


@pytest.mark.parametrize("shop", ["atlas", "harbour"])
def test_a_purchase_is_of_things_bought_before(tmp_path: Path, shop: str) -> None:
    stock = small_stock(tmp_path)
    ((customer, email),) = ask(
        stock, "select id, email from customers where shop = ? and email is not null order by id limit 1", shop
    )
    assert (shop, customer) in stock.customers_of(email)
    usual = stock.last_lines(shop, customer)
    numbers = [stock.add_order(shop, customer, later(hours)) for hours in (2, 3)]
    assert numbers[1] == numbers[0] + 1
    assert stock.last_lines(shop, customer) == usual
    assert sum(line.quantity * line.price for line in usual) > 0
    ((stored,),) = ask(stock, "select json from orders where shop = ? and id = ?", shop, numbers[1])
    assert email in stored


def test_nobody_buys_who_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        small_stock(tmp_path).add_order("atlas", 1, later())


def test_lines_that_no_shop_could_serve_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    write_order_lines(path)
    lines = path.read_text().splitlines()
    bad = ["B1,p1,never,EUR,sku,1,2.00,Tea,France", "B2,p1,2026-10-01,EUR,sku,some,2.00,Tea,France"] * 2
    path.write_text("\n".join([*lines, *bad]))
    stock = build_stock(path, tmp_path, today=TODAY)
    assert stock.accounting[UNREADABLE] == 4
    assert stock.lines_read == len(lines) - 1 + 4


def test_one_row_per_order_can_be_served_too(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(
        "order_id,customer_id,ordered_at,currency,total,status\n1,a,2026-01-01,EUR,5,paid\n2,a,2026-02-01,EUR,6,open\n"
    )
    stock = build_stock(path, tmp_path, today=TODAY)
    assert stock.lines_read == sum(stock.accounting.values()) == 2
    assert len(ask(stock, "select json from orders")) == 2


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the folder holds no CSV, Excel or Parquet file"):
        build_stock(tmp_path, tmp_path / "stock", today=TODAY)


def test_a_folder_of_files_is_one_input(tmp_path: Path) -> None:
    folder = tmp_path / "input"
    folder.mkdir()
    lines = write_order_lines(folder / "a.csv").read_text()
    (folder / "b.csv").write_text(lines.replace("\nA", "\nB"))
    stock = build_stock(folder, tmp_path, today=TODAY)
    assert stock.lines_read == 2 * (len(lines.splitlines()) - 1)


@pytest.mark.timeout(200)
def test_every_line_of_a_real_retailer_is_accounted_for(shared: Path, tmp_path: Path) -> None:
    stock = build_stock(shared / "data" / "online_retail_ii", tmp_path, today=TODAY)
    assert stock.lines_read == ONLINE_RETAIL_LINES
    assert stock.accounting[REPEATED] == 22_523
    assert sum(stock.accounting.values()) == ONLINE_RETAIL_LINES
    ((orders, guests),) = ask(stock, "select count(*), sum(customer_id is null) from orders")
    assert (orders, guests) == (53_628, 8_752)
    ((bad_debts,),) = ask(
        stock,
        "select count(*) from orders where coalesce(json ->> 'number', substr(json ->> 'name', 2)) like 'A%'",
    )
    assert bad_debts == 6
