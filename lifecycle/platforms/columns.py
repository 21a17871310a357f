"""Tables from files, and their columns as values: whole columns at a time, None for what cannot be read."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import date, datetime, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import pandas as pd
import pyarrow as pa

from lifecycle.errors import InputError
from lifecycle.platforms.reading import amount, instant, text, whole


def read_table(path: Path) -> pd.DataFrame:
    """The rows of a CSV, Excel or Parquet file, column names without blanks around them.

    Raises InputError for a file that is missing, unreadable, of another kind, or without rows.
    """
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": _read_csv,
        ".xlsx": _read_excel,
        ".parquet": pd.read_parquet,
    }
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f'{path}: "{path.suffix}" files are not read; save it as {", ".join(readers)}')
    try:
        table = reader(path)
    except UnicodeDecodeError:
        raise InputError(f"{path}: not in UTF-8; save it as CSV UTF-8") from None
    except (OSError, ValueError, KeyError, BadZipFile, pa.ArrowException) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not readable as {path.suffix[1:].upper()}: {said}") from None
    if table.empty:
        raise InputError(f"{path}: the file has no rows")
    return table.rename(columns=lambda name: str(name).strip())


def _read_csv(path: Path) -> pd.DataFrame:
    """Texts, comma, semicolon or tab between them, with or without a byte order mark."""
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline()
    if not header.strip():
        return pd.DataFrame()
    separator = max(",;\t", key=header.count)
    table = pd.read_csv(path, sep=separator, dtype=str, na_filter=False, encoding="utf-8-sig")
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError("rows have more cells than the header")
    return table


def _read_excel(path: Path) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl remarks on styles that it does not know
        sheets = pd.read_excel(path, sheet_name=None, dtype=object)
    filled = {name: sheet for name, sheet in sheets.items() if not sheet.empty}
    if len(filled) > 1:
        raise ValueError(f"it has {len(filled)} sheets with rows; save each as a file of its own")
    return next(iter(filled.values()), pd.DataFrame())


def texts(column: pd.Series[Any]) -> list[str | None]:
    """Without blanks around them; whole numbers without a decimal point, dates in ISO 8601."""
    return [_written(value) for value in _plain(column)]


def amounts(column: pd.Series[Any]) -> list[Decimal | None]:
    return [amount(value) for value in _plain(column)]


def wholes(column: pd.Series[Any]) -> list[int | None]:
    return [whole(value) for value in _plain(column)]


def instants(column: pd.Series[Any], zone: tzinfo) -> list[datetime | None]:
    """UTC. Dates without an offset are read in `zone`; anything but ISO 8601 is None: 12/1/2010 has two
    meanings."""
    return [instant(_written(value), zone) for value in _plain(column)]


def _plain(column: pd.Series[Any]) -> list[Any]:
    """Python values, None for a missing one."""
    values = column.astype(object)
    return values.where(column.notna(), None).tolist()


def _written(value: Any) -> str | None:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, date):
        return value.isoformat()
    return text(value if isinstance(value, str | int) else str(value)) if value is not None else None
