"""Values out of platforms' answers: what cannot be understood is None, so that the check can say so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any


def dig(value: Any, *path: str) -> Any:
    """`dig(order, "totalPriceSet", "shopMoney")`; None as soon as a step is missing or no object."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list, in its order; empty for anything that is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text(value: Any) -> str | None:
    """Without blanks around it; None for an empty one. Numbers (ids) become text, 64 bits stay exact."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value).strip() or None


def amount(value: Any) -> Decimal | None:
    """A finite amount from text or a JSON number, whose shortest decimal form is meant."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def whole(value: Any) -> int | None:
    """An integer, also where it is written 3.0."""
    if type(value) is int:
        return value
    number = amount(value)
    return int(number) if number is not None and number == number.to_integral_value() else None


def instant(value: Any, zone: tzinfo | None = None) -> datetime | None:
    """An ISO 8601 instant in UTC. One without an offset is read in `zone`; without `zone` it is None."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        if moment.tzinfo is None:
            if zone is None:
                return None
            moment = moment.replace(tzinfo=zone)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def next_second(moment: datetime) -> datetime:
    """`moment` in UTC, rounded up to a whole second.

    Platforms stamp whole seconds, so s >= t and s < t mean the same for t rounded up: half-open windows that
    touch each other stay so.
    """
    moment = moment.astimezone(UTC)
    rest = timedelta(microseconds=moment.microsecond)
    return moment if not rest else moment - rest + timedelta(seconds=1)
