from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest

from lifecycle.errors import InputError, TernError, UsageError
from lifecycle.platforms.files import read_consents, read_customers, read_file, read_orders
from lifecycle.platforms.records import CustomerRow, OrderRow
from lifecycle.settings import Config
from lifecycle.settings.models import Shop

LINES = """\
order_id,customer_id,ordered_at,currency,sku,quantity,unit_price,title,country,gift
1,c1,2026-07-01 10:00:00,GBP,tea,2,3.10,Tea,France,yes
2,,2026-07-01T12:00:00+02:00,GBP,pot,-1,12.5,Pot,EIRE,
1,c1,2026-07-01 10:00:00,GBP,cup,1,0.333,Cup,France,
"""


@pytest.fixture
def shop(config: Config) -> Shop:
    return config.shop("harbour")


@pytest.fixture
def orders(tmp_path: Path, shop: Shop) -> Callable[..., list[OrderRow]]:
    def read(text: str, mapping: Mapping[str, str] | None = None, name: str = "orders.csv") -> list[OrderRow]:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return [row for rows in read_orders(path, shop, mapping or {}) for row in rows]

    return read


def test_lines_of_an_order_come_together_from_anywhere_in_the_file(orders: Callable[..., list[OrderRow]]) -> None:
    first, second = orders(LINES)
    assert [(line.sku, line.quantity, line.unit_price) for line in first.lines] == [
        ("tea", 2, Decimal("3.10")),
        ("cup", 1, Decimal("0.333")),
    ]
    assert (first.order_id, first.customer_id, first.total, first.status) == ("1", "c1", Decimal("6.533"), "paid")
    assert (first.country, first.attributes, first.input_lines) == ("FR", {"gift": "yes"}, 2)
    assert first.ordered_at == datetime(2026, 7, 1, 9, tzinfo=UTC)
    assert (second.customer_id, second.total, second.status) == (None, Decimal("-12.5"), "returned")
    assert second.ordered_at == datetime(2026, 7, 1, 10, tzinfo=UTC)
    assert second.raw["lines"][0]["country"] == "EIRE"
    assert second.country == "IE"


def test_one_row_per_order_with_all_its_columns(orders: Callable[..., list[OrderRow]]) -> None:
    (row,) = orders(
        "order_id,customer_id,ordered_at,currency,total,email,phone,name,country,locale,status,paid_at,shipped_at,"
        "delivered_at,discount,tax,shipping,refunded,channel\n"
        "7,c,2026-01-02T03:04:05Z,EUR,19.90,a@example.com,+44 1,Ann,gb,en,Refunded,2026-01-02,2026-01-03T00:00Z,"
        "2026-01-04T00:00Z,1,2,3,19.9,web\n"
    )
    assert (row.total, row.refunded, row.discount, row.tax, row.shipping) == tuple(
        map(Decimal, ("19.90", "19.9", "1", "2", "3"))
    )
    assert (row.email, row.phone, row.name, row.country, row.locale) == (
        "a@example.com",
        "+44 1",
        "Ann",
        "GB",
        "en",
    )
    assert row.paid_at == datetime(2026, 1, 2, tzinfo=UTC)
    assert row.delivered_at == datetime(2026, 1, 4, tzinfo=UTC)
    assert (row.status, row.attributes, row.input_lines, row.lines) == ("refunded", {"channel": "web"}, 1, [])


def test_what_cannot_be_read_is_none_and_kept_raw(orders: Callable[..., list[OrderRow]]) -> None:
    (row,) = orders("order_id,customer_id,ordered_at,currency,total,status\n,,1/2/2026,EUR,much,odd\n")
    assert (row.order_id, row.ordered_at, row.total, row.status) == (None, None, None, "odd")
    assert row.raw == {"ordered_at": "1/2/2026", "currency": "EUR", "total": "much", "status": "odd"}


def test_half_a_total_is_no_total(orders: Callable[..., list[OrderRow]]) -> None:
    assert orders(LINES.replace("0.333", "?"))[0].total is None
    assert orders(LINES.replace("cup,1,", "cup,1.5,"))[0].total is None


def test_lines_without_an_order_stay_apart(orders: Callable[..., list[OrderRow]]) -> None:
    text = LINES.replace("\n1,", "\n,")
    assert sorted(str(row.order_id) for row in orders(text)) == ["2", "None", "None"]


def test_an_hour_that_does_not_exist_or_comes_twice(orders: Callable[..., list[OrderRow]]) -> None:
    text = (
        "order_id,customer_id,ordered_at,currency,total\n1,c,2026-03-29 01:30,GBP,1\n2,c,2026-10-25 01:30,GBP,1\n"
    )
    assert [row.ordered_at for row in orders(text)] == [
        datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
    ]


@pytest.mark.parametrize("mark", ["\ufeff", ""])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_dialects(orders: Callable[..., list[OrderRow]], mark: str, separator: str) -> None:
    assert len(orders(mark + LINES.replace(",", separator))) == 2


def test_names_that_are_no_country_are_kept(orders: Callable[..., list[OrderRow]]) -> None:
    row = orders(LINES.replace("France", "West Indies"))[0]
    assert (row.country, row.attributes["country"]) == (None, "West Indies")


def test_excel_and_parquet_read_like_csv(
    tmp_path: Path, shop: Shop, orders: Callable[..., list[OrderRow]]
) -> None:
    frame = pd.DataFrame(
        {
            "order_id": [1, 1],
            "customer_id": [13085.0, None],
            "ordered_at": pd.to_datetime(["2026-07-01 10:00", "2026-07-01 10:00"]),
            "currency": ["GBP", "GBP"],
            "sku": ["85048", "POST"],
            "quantity": [12, 1],
            "unit_price": [6.95, 18.0],
        }
    )
    frame.to_excel(tmp_path / "lines.xlsx", index=False)
    frame.to_parquet(tmp_path / "lines.parquet")
    frame.astype({"customer_id": "Int64"}).to_csv(tmp_path / "lines.csv", index=False)
    found = [
        [row for rows in read_orders(tmp_path / f"lines.{kind}", shop, {}) for row in rows]
        for kind in ("csv", "xlsx", "parquet")
    ]
    for rows in found:
        (row,) = rows
        assert (row.order_id, row.customer_id, row.total) == ("1", "13085", Decimal("101.4"))
        assert row.ordered_at == datetime(2026, 7, 1, 9, tzinfo=UTC)


def test_columns_may_be_renamed(orders: Callable[..., list[OrderRow]]) -> None:
    text = LINES.replace("order_id", "Invoice", 1).replace("sku", "StockCode", 1)
    assert len(orders(text, {"order_id": "Invoice", "sku": "StockCode"})) == 2


@pytest.mark.parametrize(
    ("text", "mapping", "error", "sentence"),
    [
        (
            LINES.replace("ordered_at", "order_at", 1),
            {},
            InputError,
            r'orders.csv: column "ordered_at" is missing; found: order_id, customer_id, order_at, .*; '
            r'did you mean "order_at"\? Where it has another name, add --map ordered_at=order_at$',
        ),
        (
            "order_id,customer_id,ordered_at,total\n1,2,3,4\n",
            {},
            InputError,
            r'column "currency" is missing; found: order_id, customer_id, ordered_at, total\. '
            r"Where it has another name, add --map currency=NAME$",
        ),
        (LINES, {"total_": "x"}, UsageError, r'--map total_=x: order lines have no column "total_"; known: '),
        (LINES, {"email": "mail"}, InputError, r'orders.csv: there is no column "mail" to map; known: '),
        (LINES, {"sku": "title"}, InputError, r'there is a column "sku" already; leave out --map sku=title'),
        ("", {}, InputError, "orders.csv: the file has no rows"),
        (LINES.partition("\n")[0], {}, InputError, "orders.csv: the file has no rows"),
        (LINES + "1,2,3,4,5,6,7,8,9,10,11,12\n", {}, InputError, "orders.csv: not readable as CSV: .* line 5"),
        (LINES.replace("\n", ",x\n").replace(",x", "", 1), {}, InputError, "more cells than the header"),
    ],
)
def test_files_that_are_not_what_they_should_be(
    orders: Callable[..., list[OrderRow]],
    text: str,
    mapping: dict[str, str],
    error: type[TernError],
    sentence: str,
) -> None:
    with pytest.raises(error, match=sentence):
        orders(text, mapping)


def test_files_that_cannot_be_opened(tmp_path: Path, shop: Shop) -> None:
    contents = {
        "latin.csv": "order_id;Café\n1;é\n".encode("latin-1"),
        "broken.xlsx": b"no zip",
        "broken.parquet": b"no parquet",
        "orders.json": b"[]",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    sentences = {
        "latin.csv": "not in UTF-8; save it as CSV UTF-8",
        "broken.xlsx": "not readable as XLSX",
        "broken.parquet": "not readable as PARQUET",
        "orders.json": '".json" files are not read; save it as .csv, .xlsx, .parquet',
        "absent.csv": "there is no such file",
        "": "there is no such file",
    }
    for name, sentence in sentences.items():
        with pytest.raises(InputError, match=sentence):
            list(read_orders(tmp_path / name, shop, {}))


def test_a_workbook_with_two_filled_sheets_is_refused(tmp_path: Path, shop: Shop) -> None:
    with pd.ExcelWriter(tmp_path / "two.xlsx") as book:
        for sheet in ("2009", "2010"):
            pd.DataFrame({"order_id": [1]}).to_excel(book, sheet_name=sheet, index=False)
    with pytest.raises(InputError, match="it has 2 sheets with rows; save each as a file of its own"):
        list(read_orders(tmp_path / "two.xlsx", shop, {}))


def test_customers(tmp_path: Path, shop: Shop) -> None:
    path = tmp_path / "customers.csv"
    path.write_text(
        "customer_id,email,name,country,locale,created_at,tags,shoe_size\n"
        "7,ann@example.com,Ann,Germany,de,2026-01-01T10:00,vip; press,38\n8,,,,,,,\n"
    )
    (rows,) = read_customers(path, shop, {})
    ann, nobody = rows
    assert (ann.customer_id, ann.email, ann.country, ann.locale) == ("7", "ann@example.com", "DE", "de")
    assert (ann.created_at, ann.tags) == (datetime(2026, 1, 1, 10, tzinfo=UTC), ["vip", "press"])
    assert ann.attributes == {"shoe_size": "38"}
    assert (nobody.customer_id, nobody.email, nobody.updated_at, nobody.attributes) == ("8", None, None, {})


def test_where_people_live_and_goods_go(tmp_path: Path, shop: Shop, orders: Callable[..., list[OrderRow]]) -> None:
    path = tmp_path / "customers.csv"
    path.write_text("customer_id,country,region,timezone\n7,US,CA,America/Los_Angeles\n8,US,,\n")
    (rows,) = read_customers(path, shop, {})
    assert [(row.country, row.region, row.timezone, row.attributes) for row in rows] == [
        ("US", "CA", "America/Los_Angeles", {}),
        ("US", None, None, {}),
    ]
    head = "order_id,customer_id,ordered_at,currency,country,region"
    (whole,) = orders(f"{head},total\n1,c,2026-07-01,USD,US,CA,9\n")
    (lines,) = orders(f"{head},sku,quantity,unit_price\n1,c,2026-07-01,USD,US,CA,tea,1,9\n")
    assert whole.region == lines.region == "CA"
    assert whole.attributes == lines.attributes == {}


def test_consents(tmp_path: Path, shop: Shop) -> None:
    path = tmp_path / "consents.csv"
    path.write_text(
        "email,channel,status,occurred_at,wording\n"
        "ann@example.com,Email,granted,2026-07-01T10:00,Yes please\n"
        "bob@example.com,email,withdrawn,2026-07-01T10:00Z,\n"
    )
    (rows,) = read_consents(path, shop, {})
    ann, bob = (row.consents[0] for row in rows)
    assert rows[0].email == "ann@example.com"
    assert (ann.channel, ann.topic, ann.status, ann.basis) == ("email", "promotions", "granted", "express")
    assert (ann.source, ann.wording, ann.evidence) == ("file", "Yes please", "consents.csv")
    assert ann.occurred_at == datetime(2026, 7, 1, 9, tzinfo=UTC)
    assert (bob.status, bob.basis) == ("withdrawn", "request")


def test_consents_need_somebody_to_belong_to(tmp_path: Path, shop: Shop) -> None:
    path = tmp_path / "consents.csv"
    path.write_text("channel,status,occurred_at\nemail,granted,2026-01-01\n")
    with pytest.raises(InputError, match='column "customer_id" is missing'):
        list(read_consents(path, shop, {}))


def test_read_file_knows_every_kind(tmp_path: Path, shop: Shop) -> None:
    path = tmp_path / "all.csv"
    path.write_text(
        "order_id,customer_id,ordered_at,currency,total,channel,status,occurred_at\n1,2,2026-01-01,EUR,3,email,paid,\n"
    )
    kinds = {
        kind: next(read_file(path, kind, shop, mapping={}))[0] for kind in ("orders", "customers", "consents")
    }
    assert isinstance(kinds["orders"], OrderRow)
    assert isinstance(kinds["customers"], CustomerRow)
    assert isinstance(kinds["consents"], CustomerRow)


def test_a_large_file_is_read_in_lists_of_a_thousand(tmp_path: Path, shop: Shop) -> None:
    lines = 40_000
    frame = pd.DataFrame(
        {
            "order_id": [number // 10 for number in range(lines)],
            "customer_id": 1,
            "ordered_at": "2026-01-01T00:00:00Z",
            "currency": "EUR",
            "sku": "tea",
            "quantity": 1,
            "unit_price": "1.10",
        }
    ).sample(frac=1, random_state=7)
    frame.to_csv(tmp_path / "lines.csv", index=False)
    started = time.monotonic()
    lists = [len(rows) for rows in read_orders(tmp_path / "lines.csv", shop, {})]
    assert lists == [1_000] * 4
    assert time.monotonic() - started < 5, "1,067,371 lines would take more than two minutes"
