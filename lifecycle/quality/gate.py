"""Nothing passes unchecked: every row of a pull or a file is looked at before the first one is taken in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from lifecycle.db.engine import writing
from lifecycle.errors import QualityError
from lifecycle.platforms.base import Platform
from lifecycle.platforms.landing import Fetched, read_page
from lifecycle.platforms.records import OrderRow, Row
from lifecycle.quality import quarantine
from lifecycle.quality.checks import Checked, Rejection, check_consents, check_customers, check_orders

_CHECKS: Mapping[str, Callable[..., Checked[Any]]] = {
    "orders": check_orders,
    "customers": check_customers,
    "consents": check_consents,
}
_BATCH_ROWS = 50_000  # a validation costs 0.1 s however few rows it has
_BATCH_LINES = 200_000  # and so many order lines need about 100 MB


@dataclass(frozen=True)
class Limit:
    """How many rows of a pull or a file may be rejected: a share of them, and some however few there are."""

    max_rejected_share: float
    tolerated_rows: int = 0

    def is_exceeded(self, rejected: int, rows: int) -> bool:
        return rejected > self.tolerated_rows and rejected > self.max_rejected_share * rows

    def error(self, shop: str, entity: str, rejected: int, rows: int, why: str) -> QualityError:
        return QualityError(
            f"shop {shop}, {entity}: {rejected:,} of {rows:,} rows ({100 * rejected / rows:.1f} %) were rejected, "
            f"more than the {100 * self.max_rejected_share:g} % allowed (config/shops.yaml: "
            f"quality.max_rejected_share); {why}. Nothing was stored but the rejected rows, in the table "
            "quarantine"
        )


@dataclass(frozen=True)
class GateResult:
    """What the gate saw. Small enough to hand from task to task: the rows themselves stay in landing."""

    shop: str
    entity: str
    rows: int
    rejected: int
    lines: int
    """Input lines in all rows."""
    rejected_lines: int
    reasons: dict[str, int]
    """Failed expectation to rows."""
    rejected_at: dict[int, tuple[int, ...]]
    """Page id (or a file's batch number) to the places in it of rejected rows."""


def check_fetched(
    engine: Engine,
    data_dir: Path,
    platform: Platform,
    fetched: Fetched,
    *,
    max_rejected_share: float,
    tolerated_rows: int = 0,
    now: datetime,
    run_id: str | None,
) -> GateResult:
    """Check every landed page. Rejected rows are in quarantine afterwards, also when this raises QualityError
    because they are more than `max_rejected_share` of all and more than `tolerated_rows`."""
    pages = (
        _Batch(page.page_id, page.path, platform.parse(fetched.entity, read_page(data_dir, page)))
        for page in fetched.pages
    )
    limit = Limit(max_rejected_share, tolerated_rows)
    return _check(engine, fetched.shop, fetched.entity, pages, limit, now, run_id)


def check_rows(
    engine: Engine,
    shop: str,
    entity: str,
    batches: Iterable[Sequence[Row]],
    *,
    source: str,
    max_rejected_share: float,
    tolerated_rows: int = 0,
    now: datetime,
    run_id: str | None,
) -> GateResult:
    """The same for the rows of a file, whose batches are numbered from 0."""
    numbered = (_Batch(number, source, rows) for number, rows in enumerate(batches))
    return _check(engine, shop, entity, numbered, Limit(max_rejected_share, tolerated_rows), now, run_id)


@dataclass(frozen=True)
class _Batch:
    number: int
    source: str
    rows: Sequence[Row]


@dataclass
class _Count:
    rows: int = 0
    lines: int = 0
    rejected_lines: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    rejected_at: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))


def _check(
    engine: Engine,
    shop: str,
    entity: str,
    batches: Iterable[_Batch],
    limit: Limit,
    now: datetime,
    run_id: str | None,
) -> GateResult:
    count = _Count()
    for group in _grouped(batches):
        rejections = list(_rejections(entity, group, now, count))
        if rejections:
            with writing(engine) as connection:
                quarantine.put(connection, shop, entity, rejections, now=now, run_id=run_id)
    rejected = count.reasons.total()
    if limit.is_exceeded(rejected, count.rows):
        raise limit.error(shop, entity, rejected, count.rows, _most_often(count))
    return GateResult(
        shop,
        entity,
        rows=count.rows,
        rejected=rejected,
        lines=count.lines,
        rejected_lines=count.rejected_lines,
        reasons=dict(count.reasons),
        rejected_at={number: tuple(places) for number, places in count.rejected_at.items()},
    )


def _grouped(batches: Iterable[_Batch]) -> Iterator[list[_Batch]]:
    group: list[_Batch] = []
    rows = lines = 0
    for batch in batches:
        group.append(batch)
        rows += len(batch.rows)
        lines += sum(len(row.lines) for row in batch.rows if isinstance(row, OrderRow))
        if rows >= _BATCH_ROWS or lines >= _BATCH_LINES:
            yield group
            group, rows, lines = [], 0, 0
    if group:
        yield group


def _rejections(
    entity: str, group: Sequence[_Batch], now: datetime, count: _Count
) -> Iterator[tuple[Rejection[Any], str]]:
    """The rejections of `group` with their sources; counts the whole group."""
    rows = [row for batch in group for row in batch.rows]
    places = [(batch, place) for batch in group for place in range(len(batch.rows))]
    count.rows += len(rows)
    count.lines += sum(map(quarantine.input_lines, rows))
    for rejection in _CHECKS[entity](rows, now=now).rejected:
        batch, place = places[rejection.index]
        count.rejected_at[batch.number].append(place)
        count.rejected_lines += quarantine.input_lines(rejection.row)
        count.reasons[rejection.expectation] += 1
        count.examples.setdefault(rejection.expectation, rejection.reason)
        yield rejection, batch.source


def _most_often(count: _Count) -> str:
    (expectation, times), *_ = count.reasons.most_common(1)
    return f"most often {expectation} ({times:,} rows), for example: {count.examples[expectation]}"
