"""Money: Decimal outside, integer minor units with an ISO 4217 currency in tables."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any

from babel.core import get_global
from babel.numbers import format_currency

_FRACTIONS: Mapping[str, Any] = get_global("currency_fractions")
_CURRENCIES: frozenset[str] = frozenset(get_global("all_currencies"))


def is_currency(code: object) -> bool:
    """True for an upper-case ISO 4217 code, past or present (CLDR's list)."""
    return isinstance(code, str) and code in _CURRENCIES


def exponent(currency: str) -> int:
    """Digits after the point: 2 for EUR, 0 for JPY, 3 for KWD (CLDR supplemental data)."""
    return _FRACTIONS.get(currency, _FRACTIONS["DEFAULT"])[0]


def to_minor(amount: Decimal | str | int | float, currency: str) -> int:
    """Minor units of `amount`, rounded half to even. Raises ValueError for what is not a number."""
    try:
        value = amount if isinstance(amount, Decimal) else Decimal(str(amount))
        scaled = value.scaleb(exponent(currency))
        return int(scaled.to_integral_value(rounding=ROUND_HALF_EVEN))
    except (InvalidOperation, ValueError, OverflowError):
        raise ValueError(f'"{amount}" is not an amount of money') from None


def from_minor(minor: int, currency: str) -> Decimal:
    return Decimal(minor).scaleb(-exponent(currency))


def convert_minor(minor: int, currency: str, base: str, rate: Decimal) -> int:
    """Minor units of `base`, where `rate` is the price of one unit of `currency` in `base`."""
    if currency == base:
        return minor
    return to_minor(from_minor(minor, currency) * rate, base)


def show(minor: int, currency: str, locale: str = "en") -> str:
    """As a reader of `locale` writes it: `€1,234.50`."""
    return format_currency(from_minor(minor, currency), currency, locale=locale)
