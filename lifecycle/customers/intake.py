"""Checked rows into the tables: all rows of a pull together with its bookmark, or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

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
from lifecycle.quality.gate import GateResult, Limit
from lifecycle.settings import Config

_BATCH_ROWS = 5_000
_BATCH_LINES = 50_000
_NO_RATE = "exchange_rate_known"


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

    def count_rejected(self, rejections: Iterable[_Quarantined]) -> None:
        for rejection, _ in rejections:
            self.rejected += 1
            self.rejected_lines += quarantine.input_lines(rejection.row)
            self.reasons[rejection.expectation] = self.reasons.get(rejection.expectation, 0) + 1

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
    Raises QualityError when with the orders that lack an exchange rate too many rows are rejected; only these are
    stored then, in quarantine.
    """
    pages = (
        (page.page_id, page.path, platform.parse(fetched.entity, read_page(data_dir, page)))
        for page in fetched.pages
    )
    return _in_one_transaction(
        engine, config, fetched.shop, pages, gate, fetched.window, secret=secret, now=now, run_id=run_id
    )


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
    return _in_one_transaction(engine, config, shop, numbered, gate, None, secret=secret, now=now, run_id=run_id)


@dataclass(frozen=True, slots=True)
class _Accepted:
    row: Row
    source: str


_Quarantined = tuple[Rejection[Any], str]
"""With the page or file it came from."""


@dataclass(eq=False)
class _TooManyRejected(Exception):
    """Undoes the transaction of an intake, and hands on what is rejected so far."""

    intake: Intake
    rates: Rates
    rejections: list[_Quarantined]


def _in_one_transaction(
    engine: Engine,
    config: Config,
    shop: str,
    batches: Iterable[tuple[int, str, Sequence[Row]]],
    gate: GateResult,
    window: Window | None,
    *,
    secret: bytes,
    now: datetime,
    run_id: str | None,
) -> Intake:
    """`window`: of a pull, whose bookmark moves."""
    groups, limit = _grouped(batches, gate), _limit(config)
    try:
        with writing(engine) as connection:
            lock_intake(connection)
            target = Target(connection, shop, secret, now, run_id)
            intake = _take(target, config, groups, gate, limit)
            if window is not None:
                _move_bookmark(target, gate.entity, window)
            return intake
    except _TooManyRejected as stopped:
        intake, why = stopped.intake, _quarantine_the_rest(engine, stopped, groups, now=now, run_id=run_id)
    raise limit.error(shop, gate.entity, intake.rejected, intake.rows, why)


def _limit(config: Config) -> Limit:
    quality = config.shops_file.quality
    return Limit(quality.max_rejected_share, quality.tolerated_rows)


def _quarantine_the_rest(
    engine: Engine,
    stopped: _TooManyRejected,
    groups: Iterable[list[_Accepted]],
    *,
    now: datetime,
    run_id: str | None,
) -> str:
    """Keep all orders without an exchange rate: those met already and those in the `groups` to come. Returns how
    many they are and an example, in words."""
    intake, example = stopped.intake, stopped.rejections[0][0].reason
    with writing(engine) as connection:
        quarantine.put(connection, intake.shop, intake.entity, stopped.rejections, now=now, run_id=run_id)
        for group in groups:
            _, rejections = _in_base(stopped.rates, group)
            quarantine.put(connection, intake.shop, intake.entity, rejections, now=now, run_id=run_id)
            intake.count_rejected(rejections)
    return f"{intake.reasons[_NO_RATE]:,} of them have no exchange rate, for example: {example}"


def _take(
    target: Target, config: Config, groups: Iterable[list[_Accepted]], gate: GateResult, limit: Limit
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
    without_rate: list[_Quarantined] = []
    for group in groups:
        if gate.entity == "orders":
            accepted, rejections = _take_orders(target, rates, group, intake)
            without_rate += rejections
            if rejections and limit.is_exceeded(intake.rejected, intake.rows):
                raise _TooManyRejected(intake, rates, without_rate)
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


def _take_orders(
    target: Target, rates: Rates, group: Sequence[_Accepted], intake: Intake
) -> tuple[list[Row], list[_Quarantined]]:
    """Returns the orders that were taken in, and those rejected after all, for want of an exchange rate."""
    entries, rejections = _in_base(rates, group)
    intake.guests += sum(is_anonymous(each.row) for each in entries)
    intake.count(take_orders(target, entries))
    _reject(target, intake, rejections)
    return [each.row for each in entries], rejections


def _in_base(rates: Rates, group: Sequence[_Accepted]) -> tuple[list[Entry], list[_Quarantined]]:
    """The orders as they will be stored, and those that have no exchange rate."""
    entries: list[Entry] = []
    rejections: list[_Quarantined] = []
    for place, each in enumerate(group):
        row = each.row
        assert isinstance(row, OrderRow) and row.currency and row.ordered_at, "the check lets no other row pass"
        rate = rates.at(row.currency, row.ordered_at)
        if rate is None:
            reason = (
                f"currency is {row.currency}; it has no exchange rate to {rates.base} on "
                f"{row.ordered_at:%Y-%m-%d}: add one to exchange_rates in config/shops.yaml"
            )
            rejections.append((Rejection(place, row, _NO_RATE, reason), each.source))
        else:
            entries.append(entry(row, base=rates.base, rate=rate))
    return entries, rejections


def _take_consents(target: Target, group: Sequence[_Accepted], intake: Intake) -> list[Row]:
    """Returns the rows about people whom we know; the others are rejected. However many these are, the file
    does not fail: a withdrawal in it must not wait for strangers."""
    rows = _customers(group)
    fates, strangers = take_consents(target, rows)
    intake.count(fates)
    rejected = frozenset(strangers)
    rejections: list[_Quarantined] = []
    for place in strangers:
        platform_id = rows[place].customer_id
        who = "the address" if platform_id is None or "@" in platform_id else f"customer_id {platform_id}"
        reason = f"{who} is nobody's at shop {target.shop}; import customers or orders first"
        rejections.append((Rejection(place, rows[place], "customer_known", reason), group[place].source))
    _reject(target, intake, rejections)
    return [row for place, row in enumerate(rows) if place not in rejected]


def _reject(target: Target, intake: Intake, rejections: Sequence[_Quarantined]) -> None:
    quarantine.put(target.connection, target.shop, intake.entity, rejections, now=target.now, run_id=target.run_id)
    intake.count_rejected(rejections)


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
    """Forward only, never over a gap and never into the future: everything changed before the watermark is
    stored."""
    query = select(pull_bookmarks.c.watermark).where(
        pull_bookmarks.c.shop == target.shop, pull_bookmarks.c.entity == entity
    )
    watermark = target.connection.execute(query).scalar()
    reaches_back = window.since is None or (watermark is not None and window.since <= watermark)
    until = min(window.until, target.now)
    if reaches_back and (watermark is None or until > watermark):
        row = {
            "shop": target.shop,
            "entity": entity,
            "watermark": until,
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
