"""What a connector is: one file per platform, one promise for all (tests/contracts/platform.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from lifecycle.platforms.records import Row


@dataclass(frozen=True)
class Window:
    """Rows changed in the half-open span [since, until). `since` None is the beginning of time."""

    since: datetime | None
    until: datetime


@dataclass(frozen=True)
class Page:
    """One answer of the platform, byte for byte, ready to be kept."""

    body: bytes
    rows: int


class Platform(Protocol):
    """`pages` talks to the platform; `parse` does not, so that kept pages can be read again any time."""

    name: str
    entities: Sequence[str]
    """What can be pulled, in the order in which to pull it."""

    def pages(self, entity: str, window: Window) -> Iterator[Page]:
        """Every row changed in `window`, to the last page. Raises PlatformBusy after the last retry and
        PlatformRejected when a person must act."""
        ...

    def parse(self, entity: str, body: bytes) -> list[Row]:
        """The rows of one page, in the order of the page. Never raises for a bad value inside a row."""
        ...
