"""Export of members: columns as published, any instant, three kinds of files."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import Engine, insert

from lifecycle.db.engine import writing
from lifecycle.db.schema import identities
from lifecycle.errors import UsageError
from lifecycle.segments.export import export, write_export
from lifecycle.settings import Config
from tests.segments.history import NOW, Order, add_customers, add_orders

DAY = timedelta(days=1)
PUBLISHED = [
    "customer_id", "shop_customer_ids", "segments", "recency_days", "frequency", "monetary_minor", "currency",
    "r", "f", "m", "rfm_segment", "first_order_at", "last_order_at", "orders_12m", "spend_12m_minor",
]  # fmt: skip


@pytest.fixture
def members(engine: Engine, config: Config) -> pd.DataFrame:
    add_customers(engine, [1, 2])
    add_orders(
        engine,
        [
            Order(1, NOW - 400 * DAY, 10_000),
            Order(1, NOW - 2 * DAY - timedelta(hours=1), 70_000),
            Order(2, NOW - 100 * DAY, 5_000),
            Order(2, NOW + DAY, 5_000),
        ],
    )
    known = [("harbour", "7"), ("atlas", "12"), ("atlas", "3")]
    with writing(engine) as connection:
        rows = [
            {
                "shop": shop,
                "platform_customer_id": number,
                "customer_id": 1,
                "linked_by": "platform_id",
                "linked_at": NOW,
            }
            for shop, number in known
        ]
        connection.execute(insert(identities), rows)
    return export(engine, config, as_of=NOW)


def test_export_has_the_published_columns(members: pd.DataFrame) -> None:
    assert list(members.columns) == PUBLISHED
    first, second = members.to_dict("records")
    assert first == {
        "customer_id": 1,
        "shop_customer_ids": "atlas:12|atlas:3|harbour:7",
        "segments": "need_attention|vip|high_value",
        "recency_days": 2,
        "frequency": 2,
        "monetary_minor": 80_000,
        "currency": "EUR",
        "r": 3,
        "f": 3,
        "m": 3,
        "rfm_segment": "need_attention",
        "first_order_at": pd.Timestamp(NOW - 400 * DAY),
        "last_order_at": pd.Timestamp(NOW - 2 * DAY - timedelta(hours=1)),
        "orders_12m": 1,
        "spend_12m_minor": 70_000,
    }
    assert (second["shop_customer_ids"], second["segments"]) == ("", "hibernating|one_time|dormant")


def test_export_looks_back_without_a_build(engine: Engine, config: Config, members: pd.DataFrame) -> None:
    past = export(engine, config, as_of=NOW - 300 * DAY)
    assert list(past["customer_id"]) == [1]
    assert past.loc[0, "monetary_minor"] == 10_000


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".xlsx"])
def test_files_hold_what_was_exported(tmp_path: Path, members: pd.DataFrame, ending: str) -> None:
    path = tmp_path / f"members{ending}"
    path.write_text("an older export")
    write_export(members, path)
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".xlsx": pd.read_excel}[ending]
    found = read(path).fillna({"shop_customer_ids": ""})
    for column in ("first_order_at", "last_order_at"):
        assert ending == ".parquet" or found[column].str.endswith("Z").all()
        found[column] = pd.to_datetime(found[column], utc=True)
    pd.testing.assert_frame_equal(found, members, check_dtype=False)
    assert [file.name for file in tmp_path.glob("*members*")] == [path.name]


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".xlsx"])
def test_an_empty_export_has_its_columns(engine: Engine, config: Config, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"members{ending}"
    write_export(export(engine, config, as_of=NOW), path)
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".xlsx": pd.read_excel}[ending]
    assert (list(read(path).columns), len(read(path))) == (PUBLISHED, 0)


def test_files_that_cannot_be_written_are_refused(tmp_path: Path, members: pd.DataFrame) -> None:
    with pytest.raises(UsageError, match=r"members\.txt: unknown kind of file; end the name in \.csv, \.parquet"):
        write_export(members, tmp_path / "members.txt")
    with pytest.raises(UsageError, match="the folder does not exist"):
        write_export(members, tmp_path / "absent" / "members.csv")
    with pytest.raises(UsageError, match="1,048,575 rows"):
        write_export(members.loc[members.index.repeat(524_288)], tmp_path / "members.xlsx")
    assert not list(tmp_path.glob("*members*"))
