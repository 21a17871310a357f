"""Checked rows into the tables: all rows of a pull together with its bookmark, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine, select

from lifecycle.customers.exchange import Rates, load_rates
from lifecycle.customers.identity import Target
from lifecycle.customers.orders import Entry, entry, is_anonymous, take_orders
from lifecycle.customers.people import take_consents, take_customers
from lifecycle.customers.versions import Fate, said_at
from lifecycle.db.bulk import upsert
from lifecycle.db.engine import lock_intake, writing
from lifecycle.db.schema import pull_bookmarks
from lifecycle.platforms.base import Platform, Window
from lifecycle.platforms.landing import Fetched, read_page
from lifecycle.platforms.records import CustomerRow, OrderRow, Row
from lifecycle.quality import quarantine
from lifecycle.quality.checks import Rejection
from lifecycle.quality.gate import GateResult
from lifecycle.settings import Config

_BATCH_ROWS = 5_000
_BATCH_LINES = 50_000


@dataclass
class Intake:
    """What became of the rows of a pull or a file: rows = new + changed + equal + superseded + rejected.

    `superseded`: an older version of a row that is stored, or that came again in the same pull. `guests`:
    orders that nothing ties to a person. `lines`: input lines of all rows, `rejected_lines` those of rejected
    ones.
    """

    shop: str
    entity: str
    rows: int = 0
    new: int = 0
    changed: int = 0
    equal: int = 0
    superseded: int = 0
    rejected: int = 0
    guests: int = 0
    lines: int = 0
    rejected_lines: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Failed expectation to rows."""

    def count(self, fates: Mapping[Fate, int]) -> None:
        for what, rows in fates.items():
            setattr(self, what.value, getattr(self, what.value) + rows)

    def counts(self) -> dict[str, int]:
        return {name: value for name, value in asdict(self).items() if isinstance(value, int)}

    def sentence(self) -> str:
        parts = [f"{self.new:,} new", f"{self.changed:,} changed", f"{self.equal:,} equal"]
        if self.superseded:
            parts.append(f"{self.superseded:,} older than what is stored")
        parts.append(f"{self.rejected:,} rejected")
        guests = f"; {self.guests:,} from guests whom nothing identifies" if self.guests else ""
        lines = (
            f" ({self.lines:,} lines, {self.rejected_lines:,} of them rejected)" if self.lines > self.rows else ""
        )
        return f"{self.shop}, {self.entity}: {self.rows:,} rows{lines}: {', '.join(parts)}{guests}."


def take_in(
    engine: Engine,
    data_dir: Path,
    config: Config,
    platform: Platform,
    fetched: Fetched,
    gate: GateResult,
    *,
    secret: bytes,
    now: datetime,
    run_id: str | None,
) -> Intake:
    """Take in the landed rows that passed the gate, and move the bookmark, in one transaction.

    The same pull again changes nothing. `secret` keys the address hashes that join people to suppressions.
    """
    pages = (
        (page.page_id, page.path, platform.parse(fetched.entity, read_page(data_dir, page)))
        for page in fetched.pages
    )
    with writing(engine) as connection:
        lock_intake(connection)
        target = Target(connection, fetched.shop, secret, now, run_id)
        intake = _take(target, config, pages, gate)
        _move_bookmark(target, fetched.entity, fetched.window)
    return intake


def take_in_rows(
    engine: Engine,
    config: Config,
    shop: str,
    batches: Iterable[Sequence[Row]],
    gate: GateResult,
    *,
    secret: bytes,
    now: datetime,
    run_id: str | None,
    source: str,
) -> Intake:
    """The same for a file, read a second time in the same batches as for the gate; there is no bookmark."""
    numbered = ((number, source, rows) for number, rows in enumerate(batches))
    with writing(engine) as connection:
        lock_intake(connection)
        return _take(Target(connection, shop, secret, now, run_id), config, numbered, gate)


@dataclass(frozen=True, slots=True)
class _Accepted:
    row: Row
    source: str


def _take(
    target: Target, config: Config, batches: Iterable[tuple[int, str, Sequence[Row]]], gate: GateResult
) -> Intake:
    intake = Intake(
        target.shop,
        gate.entity,
        rows=gate.rows,
        rejected=gate.rejected,
        lines=gate.lines,
        rejected_lines=gate.rejected_lines,
        reasons=dict(gate.reasons),
    )
    rates = load_rates(target.connection, config)
    still_rejected = quarantine.open_keys(target.connection, target.shop, gate.entity)
    for group in _grouped(batches, gate):
        if gate.entity == "orders":
            accepted = _take_orders(target, rates, group, intake)
        elif gate.entity == "customers":
            intake.count(take_customers(target, _customers(group)))
            accepted = [each.row for each in group]
        else:
            accepted = _take_consents(target, group, intake)
        _resolve(target, gate.entity, accepted, still_rejected)
    return intake


def _grouped(batches: Iterable[tuple[int, str, Sequence[Row]]], gate: GateResult) -> Iterator[list[_Accepted]]:
    """Accepted rows in groups that fit in memory, whatever the size of a page."""
    group: list[_Accepted] = []
    lines = 0
    for number, source, rows in batches:
        rejected = frozenset(gate.rejected_at.get(number, ()))
        for place, row in enumerate(rows):
            if place in rejected:
                continue
            group.append(_Accepted(row, source))
            lines += quarantine.input_lines(row)
            if len(group) >= _BATCH_ROWS or lines >= _BATCH_LINES:
                yield group
                group, lines = [], 0
    if group:
        yield group


def _take_orders(target: Target, rates: Rates, group: Sequence[_Accepted], intake: Intake) -> list[Row]:
    """Returns the orders that were not rejected after all, for want of an exchange rate."""
    entries: list[Entry] = []
    reasons: dict[int, str] = {}
    for place, each in enumerate(group):
        row = each.row
        assert isinstance(row, OrderRow) and row.currency and row.ordered_at, "the check lets no other row pass"
        rate = rates.at(row.currency, row.ordered_at)
        if rate is None:
            reasons[place] = (
                f"currency is {row.currency}; it has no exchange rate to {rates.base} on "
                f"{row.ordered_at:%Y-%m-%d}: add one to exchange_rates in config/shops.yaml"
            )
        else:
            entries.append(entry(row, base=rates.base, rate=rate))
            intake.guests += is_anonymous(row)
    intake.count(take_orders(target, entries))
    return _reject(target, intake, group, "exchange_rate_known", reasons)


def _take_consents(target: Target, group: Sequence[_Accepted], intake: Intake) -> list[Row]:
    """Returns the rows about people whom we know; the others are rejected."""
    rows = _customers(group)
    fates, strangers = take_consents(target, rows)
    intake.count(fates)
    reasons = {}
    for place in strangers:
        platform_id = rows[place].customer_id
        who = "the address" if platform_id is None or "@" in platform_id else f"customer_id {platform_id}"
        reasons[place] = f"{who} is nobody's at shop {target.shop}; import customers or orders first"
    return _reject(target, intake, group, "customer_known", reasons)


def _reject(
    target: Target, intake: Intake, group: Sequence[_Accepted], expectation: str, reasons: Mapping[int, str]
) -> list[Row]:
    """Put rows into quarantine, by their places in `group`. Returns the others."""
    rejections = [
        (Rejection(place, group[place].row, expectation, reason), group[place].source)
        for place, reason in reasons.items()
    ]
    quarantine.put(target.connection, target.shop, intake.entity, rejections, now=target.now, run_id=target.run_id)
    if reasons:
        intake.rejected += len(reasons)
        intake.rejected_lines += sum(quarantine.input_lines(group[place].row) for place in reasons)
        intake.reasons[expectation] = intake.reasons.get(expectation, 0) + len(reasons)
    return [each.row for place, each in enumerate(group) if place not in reasons]


def _customers(group: Iterable[_Accepted]) -> list[CustomerRow]:
    return [each.row for each in group if isinstance(each.row, CustomerRow)]


def _resolve(target: Target, entity: str, rows: Iterable[Row], still_rejected: set[str]) -> None:
    """Close what was rejected of the rows that are accepted now."""
    if not still_rejected:
        return
    accepted: dict[str, datetime] = {}
    for row in rows:
        key = quarantine.row_key(entity, row)
        if key in still_rejected:
            accepted[key] = max(said_at(row), accepted.get(key, said_at(row)))
    quarantine.resolve(target.connection, target.shop, entity, accepted, now=target.now)


def _move_bookmark(target: Target, entity: str, window: Window) -> None:
    """Forward only, and never over a gap: everything changed before the watermark is stored."""
    query = select(pull_bookmarks.c.watermark).where(
        pull_bookmarks.c.shop == target.shop, pull_bookmarks.c.entity == entity
    )
    watermark = target.connection.execute(query).scalar()
    reaches_back = window.since is None or (watermark is not None and window.since <= watermark)
    if reaches_back and (watermark is None or window.until > watermark):
        row = {
            "shop": target.shop,
            "entity": entity,
            "watermark": window.until,
            "moved_at": target.now,
            "run_id": target.run_id,
        }
        upsert(
            target.connection,
            pull_bookmarks,
            [row],
            key=("shop", "entity"),
            update=("watermark", "moved_at", "run_id"),
        )
