"""Time enters the program here, so that tests can pass another clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The current instant, aware, in UTC, to the microsecond."""
    return datetime.now(UTC)


def as_utc(value: datetime) -> datetime:
    """An aware instant in UTC. Raises ValueError for a naive one: its zone cannot be guessed."""
    if value.tzinfo is None:
        raise ValueError(f"{value.isoformat()} has no time zone; write for example {value.isoformat()}Z")
    return value.astimezone(UTC)


def parse_instant(text: str) -> datetime:
    """An ISO 8601 instant in UTC; a bare date is its midnight UTC. Raises ValueError with the way out."""
    try:
        value = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(
            f'"{text}" is not an instant; write for example 2026-11-22T09:00:00Z or 2026-11-22'
        ) from None
    if value.tzinfo is None and len(text.strip()) == 10:
        value = value.replace(tzinfo=UTC)
    return as_utc(value)
