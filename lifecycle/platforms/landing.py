"""Raw pages, kept as the platform gave them: any later table can be rebuilt without asking again."""

from __future__ import annotations

import gzip
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, select

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import landing_pages, pull_bookmarks
from lifecycle.errors import InputError, UsageError
from lifecycle.platforms.base import Page, Platform, Window
from lifecycle.settings.models import Pulling, Shop

_COMPRESSION = 3  # 6 takes three times as long for a tenth less on JSON
_CLOCKS_DIFFER = timedelta(minutes=1)


@dataclass(frozen=True)
class LandedPage:
    page_id: int
    path: str
    """Below the data folder."""
    rows: int


@dataclass(frozen=True)
class Fetched:
    """What one pull of one entity has landed; small enough to travel between processes."""

    shop: str
    platform: str
    entity: str
    window: Window
    pages: tuple[LandedPage, ...]
    rows: int


@dataclass(frozen=True)
class _Stored:
    path: str
    sha256: str
    rows: int


def next_window(
    engine: Engine, shop: str, entity: str, *, pulling: Pulling, until: datetime, since: datetime | None = None
) -> Window:
    """From `since` or, without it, from the bookmark less the overlap for rows that show up late; from the
    beginning where there is neither."""
    if since is not None:
        return Window(since, until)
    query = select(pull_bookmarks.c.watermark).where(
        pull_bookmarks.c.shop == shop, pull_bookmarks.c.entity == entity
    )
    with reading(engine) as connection:
        watermark = connection.execute(query).scalar()
    if watermark is None:
        return Window(None, until)
    return Window(watermark - timedelta(minutes=pulling.overlap_minutes), until)


def fetch(
    engine: Engine,
    data_dir: Path,
    platform: Platform,
    shop: Shop,
    entity: str,
    *,
    window: Window,
    now: datetime,
    run_id: str | None = None,
    on_page: Callable[[int], None] | None = None,
) -> Fetched:
    """Land every page of `entity` changed in `window`.

    All pages are stored before the first is registered: a pull that fails leaves the tables as they were, and
    at most files that no table knows. A page that landed before for the same window is registered once.
    `on_page` is told the rows of each page. Raises PlatformBusy and PlatformRejected, and UsageError for a window
    that is empty or ends in the future.
    """
    window = _until_now(window, shop.name, entity, now)
    folder = Path("landing", platform.name, shop.name, entity)
    (data_dir / folder).mkdir(parents=True, exist_ok=True)
    empty = Fetched(shop.name, platform.name, entity, window, (), 0)
    known = _already_landed(engine, data_dir, empty)
    landed: dict[str, LandedPage | _Stored] = {}
    series = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    for number, page in enumerate(platform.pages(entity, window), start=1):
        if page.rows:
            sha256 = hashlib.sha256(page.body).hexdigest()
            name = f"{series}-{number:05d}.gz"
            landed[sha256] = known.get(sha256) or _store(data_dir, folder / name, sha256, page)
        if on_page is not None:
            on_page(page.rows)
    pages = _register(engine, empty, landed.values(), now, run_id)
    return replace(empty, pages=pages, rows=sum(page.rows for page in pages))


def read_page(data_dir: Path, page: LandedPage) -> bytes:
    """The page, byte for byte. Raises InputError for a file that is gone or broken."""
    try:
        return gzip.decompress((data_dir / page.path).read_bytes())
    except (OSError, EOFError) as error:
        raise InputError(
            f"{page.path}: landed page {page.page_id} cannot be read ({error}); pull its window again"
        ) from None


def _until_now(window: Window, shop: str, entity: str, now: datetime) -> Window:
    """`window`, cut off at `now`: what has not happened yet must not count as pulled."""
    since, until = window.since, window.until
    if since is not None and since >= until:
        raise UsageError(
            f"shop {shop}, {entity}: since {since.isoformat()} is not before until {until.isoformat()}; "
            "give an earlier --since (without it a pull goes on from its bookmark) or a later --until"
        )
    if until > now + _CLOCKS_DIFFER:
        raise UsageError(
            f"shop {shop}, {entity}: until {until.isoformat()} lies in the future; leave --until out to pull up "
            "to now"
        )
    return Window(since, min(until, now))


def _already_landed(engine: Engine, data_dir: Path, fetched: Fetched) -> dict[str, LandedPage]:
    """Pages of the same window by their hash, as far as their files are still there."""
    pages, window = landing_pages.c, fetched.window
    query = select(pages.sha256, pages.page_id, pages.path, pages.rows).where(
        pages.shop == fetched.shop,
        pages.entity == fetched.entity,
        pages.window_from.is_not_distinct_from(window.since),
        pages.window_until == window.until,
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return {
        row.sha256: LandedPage(row.page_id, row.path, row.rows) for row in rows if (data_dir / row.path).exists()
    }


def _store(data_dir: Path, path: Path, sha256: str, page: Page) -> _Stored:
    draft = (data_dir / path).with_suffix(f".{os.getpid()}.part")
    with draft.open("wb") as file:
        file.write(gzip.compress(page.body, _COMPRESSION, mtime=0))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(data_dir / path)
    return _Stored(path.as_posix(), sha256, page.rows)


def _register(
    engine: Engine,
    fetched: Fetched,
    landed: Iterable[LandedPage | _Stored],
    now: datetime,
    run_id: str | None,
) -> tuple[LandedPage, ...]:
    """Every page, in the order in which it came, once the new ones have their row in landing_pages."""
    landed = list(landed)
    new = [page for page in landed if isinstance(page, _Stored)]
    if not new:
        return tuple(page for page in landed if isinstance(page, LandedPage))
    statement = landing_pages.insert().returning(landing_pages.c.page_id, sort_by_parameter_order=True)
    with writing(engine) as connection:
        ids = iter(
            connection.execute(statement, [_row(fetched, page, now, run_id) for page in new]).scalars().all()
        )
    return tuple(
        LandedPage(next(ids), page.path, page.rows) if isinstance(page, _Stored) else page for page in landed
    )


def _row(fetched: Fetched, page: _Stored, now: datetime, run_id: str | None) -> dict[str, object]:
    return {
        "shop": fetched.shop,
        "platform": fetched.platform,
        "entity": fetched.entity,
        "path": page.path,
        "sha256": page.sha256,
        "rows": page.rows,
        "window_from": fetched.window.since,
        "window_until": fetched.window.until,
        "landed_at": now,
        "run_id": run_id,
    }
