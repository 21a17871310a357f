"""A small input for the stand-in shops: every kind of order that a connector must read."""

from __future__ import annotations

import csv
from datetime import date, datetime, timedelta
from pathlib import Path

from lifecycle.platforms.files import ORDER_LINES
from sandbox.stock import Stock, build_stock

TODAY = date(2026, 11, 22)
ORDERS = 90
LONG_ORDER = 7
"""Number of the order with many lines."""


def write_order_lines(path: Path) -> Path:
    """90 orders of 30 customers, a day apart: returns, guests, zero prices, one order of 37 lines."""
    first = datetime(2026, 8, 1, 9, 30)  # noqa: DTZ001 (the shop's own clock)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*ORDER_LINES.required, "title", "country"])
        for number in range(ORDERS):
            moment = (first + timedelta(days=number, minutes=number)).isoformat()
            customer = "" if number % 9 == 4 else f"p{number % 30}"
            sign = -1 if number % 10 == 3 else 1
            for line in range(37 if number == LONG_ORDER else 1 + number % 4):
                price = "0" if number % 11 == 5 else f"{3 + line}.{number:02}"
                row = [f"A{number}", customer, moment, "EUR", f"sku{line}", sign * (1 + line), price]
                writer.writerow([*row, f'Tea "{line}" é', "France" if number % 2 else "United Kingdom"])
    return path


def small_stock(folder: Path) -> Stock:
    folder.mkdir(parents=True, exist_ok=True)
    return build_stock(write_order_lines(folder / "lines.csv"), folder, today=TODAY)
