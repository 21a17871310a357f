"""Exchange rates: from config/ into the table, and out of it for the day of an order."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, select

from lifecycle.clock import as_utc
from lifecycle.db.bulk import upsert
from lifecycle.db.schema import fx_rates
from lifecycle.settings import Config


class Rates:
    """What one unit of a currency costs in the base currency, day by day."""

    def __init__(self, base: str, rates: list[tuple[str, str, Decimal]]) -> None:
        """`rates`: currency, ISO date from which on, rate."""
        self.base = base
        self._days: defaultdict[str, list[str]] = defaultdict(list)
        self._rates: defaultdict[str, list[Decimal]] = defaultdict(list)
        for currency, valid_from, rate in sorted(rates):
            self._days[currency].append(valid_from)
            self._rates[currency].append(rate)

    def at(self, currency: str, instant: datetime) -> Decimal | None:
        """The newest rate valid on the UTC day of `instant`; None where there is none."""
        if currency == self.base:
            return Decimal(1)
        place = bisect_right(self._days[currency], as_utc(instant).date().isoformat())
        return self._rates[currency][place - 1] if place else None


def load_rates(connection: Connection, config: Config) -> Rates:
    """Store the rates of config/shops.yaml, then read all that the table has."""
    rows = [
        {
            "currency": rate.currency,
            "base": config.base_currency,
            "valid_from": rate.valid_from.isoformat(),
            "rate": rate.rate,
            "source": rate.source,
        }
        for rate in config.shops_file.exchange_rates
    ]
    key = ("currency", "base", "valid_from")
    upsert(connection, fx_rates, rows, key=key, update=("rate", "source"))
    query = select(fx_rates).where(fx_rates.c.base == config.base_currency)
    return Rates(
        config.base_currency, [(row.currency, row.valid_from, row.rate) for row in connection.execute(query)]
    )
