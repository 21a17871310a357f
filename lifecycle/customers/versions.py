"""Which of two versions of a row counts, so that late and repeated pages change nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from lifecycle.platforms.records import OrderRow, Row


class Fate(StrEnum):
    NEW = "new"
    CHANGED = "changed"
    EQUAL = "equal"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Version:
    at: datetime
    """When the platform changed the row last."""
    content_hash: str


def fate(offered: Version, stored: Version | None) -> Fate:
    """Of two versions from the same instant the later one taken in counts: it was read with newer code."""
    if stored is None:
        return Fate.NEW
    if offered.content_hash == stored.content_hash:
        return Fate.EQUAL
    return Fate.SUPERSEDED if offered.at < stored.at else Fate.CHANGED


def said_at(row: Row) -> datetime:
    """When the platform changed the row last, as well as the row tells; files often do not, then 1970."""
    fallback = row.ordered_at if isinstance(row, OrderRow) else row.created_at
    return aware(row.updated_at) or aware(fallback) or datetime(1970, 1, 1, tzinfo=UTC)


def aware(instant: datetime | None) -> datetime | None:
    """In UTC; None for one without a zone, which nobody can place."""
    return instant.astimezone(UTC) if instant is not None and instant.tzinfo is not None else None


def content_hash(values: Iterable[Any]) -> str:
    """Over texts, numbers, instants and lists of them, none of which may change their spelling."""
    return hashlib.sha256(repr(tuple(values)).encode("utf-8", "surrogatepass")).hexdigest()
