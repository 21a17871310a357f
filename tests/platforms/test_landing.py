from __future__ import annotations

import gzip
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import landing_pages, pull_bookmarks
from lifecycle.errors import InputError, PlatformBusy, UsageError
from lifecycle.platforms.base import Page, Window
from lifecycle.platforms.landing import Fetched, fetch, next_window, read_page
from lifecycle.platforms.records import Row
from lifecycle.settings import Config
from lifecycle.settings.models import Pulling

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
WINDOW = Window(NOW - timedelta(hours=1), NOW)


class Given:
    """A platform that gives these pages, or fails after them."""

    name = "shopify"
    entities = ("orders",)

    def __init__(self, *bodies: bytes, error: Exception | None = None) -> None:
        self.bodies = bodies
        self.error = error

    def pages(self, entity: str, window: Window) -> Iterator[Page]:
        for body in self.bodies:
            yield Page(body, body.count(b"row"))
        if self.error:
            raise self.error

    def parse(self, entity: str, body: bytes) -> list[Row]:
        return []


@pytest.fixture
def landed(engine: Engine, tmp_path: Path, config: Config) -> object:
    def run(platform: Given, window: Window = WINDOW, **options: object) -> Fetched:
        shop = config.shop("atlas")
        return fetch(engine, tmp_path, platform, shop, "orders", window=window, now=NOW, **options)  # type: ignore[arg-type]

    return run


def registered(engine: Engine) -> list[dict[str, object]]:
    with reading(engine) as connection:
        query = select(landing_pages).order_by(landing_pages.c.page_id)
        return [dict(row) for row in connection.execute(query).mappings()]


def test_pages_are_kept_byte_for_byte_and_registered_in_order(
    landed: object, engine: Engine, tmp_path: Path
) -> None:
    told: list[int] = []
    fetched = landed(Given(b'{"row":1}', b"row row \xc3\xa9"), run_id="r1", on_page=told.append)  # type: ignore[operator]
    assert (fetched.rows, [page.rows for page in fetched.pages], told) == (3, [1, 2], [1, 2])
    assert [read_page(tmp_path, page) for page in fetched.pages] == [b'{"row":1}', b"row row \xc3\xa9"]
    rows = registered(engine)
    assert [row["page_id"] for row in rows] == [page.page_id for page in fetched.pages]
    for row in rows:
        path = tmp_path / str(row["path"])
        assert str(row["path"]).startswith("landing/shopify/atlas/orders/")
        assert gzip.decompress(path.read_bytes())
        assert (row["window_from"], row["window_until"], row["run_id"]) == (WINDOW.since, WINDOW.until, "r1")
    assert pickle.loads(pickle.dumps(fetched)) == fetched


def test_a_failed_pull_leaves_the_tables_as_they_were(landed: object, engine: Engine) -> None:
    with pytest.raises(PlatformBusy):
        landed(Given(b"row", error=PlatformBusy("later")))  # type: ignore[operator]
    assert registered(engine) == []


@pytest.mark.parametrize("window", [WINDOW, Window(None, NOW)])
def test_the_same_page_of_the_same_window_lands_once(
    landed: object, engine: Engine, tmp_path: Path, window: Window
) -> None:
    once = landed(Given(b"row 1", b"row 2"), window)  # type: ignore[operator]
    again = landed(Given(b"row 2", b"row 3"), window)  # type: ignore[operator]
    assert again.pages[0] == once.pages[1]
    assert len(registered(engine)) == 3
    assert len(list(tmp_path.rglob("*.gz"))) == 3
    landed(Given(b"row 1"), Window(window.since, NOW - timedelta(minutes=1)))  # type: ignore[operator]
    assert len(registered(engine)) == 4


def test_a_page_whose_file_is_gone_lands_anew(landed: object, tmp_path: Path) -> None:
    (page,) = landed(Given(b"row 1")).pages  # type: ignore[operator]
    (tmp_path / page.path).unlink()
    with pytest.raises(InputError, match=f"landed page {page.page_id} cannot be read .* pull its window again"):
        read_page(tmp_path, page)
    (new,) = landed(Given(b"row 1")).pages  # type: ignore[operator]
    assert read_page(tmp_path, new) == b"row 1"


def test_pages_without_rows_are_not_kept(landed: object, engine: Engine, tmp_path: Path) -> None:
    assert landed(Given(b"nothing")).pages == ()  # type: ignore[operator]
    assert registered(engine) == []
    assert not list(tmp_path.rglob("*.gz"))


@pytest.mark.parametrize("since", [NOW, NOW + timedelta(days=1)])
def test_an_empty_window_is_refused(landed: object, since: datetime) -> None:
    with pytest.raises(UsageError) as error:
        landed(Given(b"row"), Window(since, NOW))  # type: ignore[operator]
    assert f"since {since.isoformat()} is not before until {NOW.isoformat()};" in str(error.value)


def test_a_window_into_the_future_is_refused_and_a_fast_clock_cut_off(landed: object, engine: Engine) -> None:
    with pytest.raises(UsageError, match=r"orders: until 2027-01-01T00:00:00\+00:00 lies in the future"):
        landed(Given(b"row"), Window(None, datetime(2027, 1, 1, tzinfo=UTC)))  # type: ignore[operator]
    assert registered(engine) == []
    fetched = landed(Given(b"row"), Window(None, NOW + timedelta(minutes=1)))  # type: ignore[operator]
    assert fetched.window == Window(None, NOW)


def test_a_window_starts_before_the_bookmark(engine: Engine) -> None:
    pulling = Pulling(overlap_minutes=15)
    assert next_window(engine, "atlas", "orders", pulling=pulling, until=NOW) == Window(None, NOW)
    with writing(engine) as connection:
        connection.execute(
            pull_bookmarks.insert(),
            [
                {"shop": "atlas", "entity": "orders", "watermark": NOW - timedelta(days=1), "moved_at": NOW},
                {"shop": "atlas", "entity": "customers", "watermark": NOW, "moved_at": NOW},
            ],
        )
    since = NOW - timedelta(days=1, minutes=15)
    assert next_window(engine, "atlas", "orders", pulling=pulling, until=NOW) == Window(since, NOW)
