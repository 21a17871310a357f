"""What every connector must do, proven against a real server: subclass it and say how to serve and to open."""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from lifecycle.errors import PlatformBusy, PlatformRejected
from lifecycle.platforms import open_platform
from lifecycle.platforms.base import Page, Platform, Window
from lifecycle.platforms.records import CustomerRow, OrderRow, Row
from lifecycle.processes import free_port
from lifecycle.settings import ROOT, load_config
from lifecycle.settings.models import Pulling, Shop
from sandbox.faults import Fault, FaultKind, Faults
from sandbox.servers import serve
from sandbox.stock import Stock
from tests.platforms.goods import LONG_ORDER, small_stock

PULLING = Pulling(page_size=7, timeout_seconds=20, max_attempts=4)
END = datetime(2026, 11, 22, tzinfo=UTC)
EVERYTHING = Window(None, END)


class Naps:
    """Stands in for time.sleep and for the clock of a server's cost limit: nobody waits."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self._now = 0.0

    def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        self._now += seconds

    def clock(self) -> float:
        return self._now


@dataclass
class Site:
    """A running stand-in."""

    url: str
    faults: Faults
    naps: Naps


class PlatformContract:
    shop_name: str
    token: str
    changes: dict[str, object] = {}  # noqa: RUF012 (of the shop's configuration)
    windowed: tuple[str, ...] = ("customers", "orders")
    """Entities that the platform can ask for by date of change."""

    @classmethod
    def create_app(cls, stock: Stock, faults: Faults, naps: Naps) -> ASGIApp:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def site(cls, stock: Stock) -> Iterator[Site]:
        """One server for all tests that do not change its stock."""
        faults, naps = Faults(), Naps()
        with serve(cls.create_app(stock, faults, naps)) as url:
            yield Site(url, faults, naps)

    @pytest.fixture
    def faults(self, site: Site) -> Iterator[Faults]:
        yield site.faults
        site.faults.clear()

    @pytest.fixture
    def naps(self, site: Site) -> Iterator[Naps]:
        yield site.naps
        site.naps.taken.clear()

    @pytest.fixture
    def platform(self, site: Site, naps: Naps) -> Platform:
        return self.open(site.url, naps)

    @pytest.fixture
    def own_stock(self, tmp_path: Path) -> Stock:
        """One that the test may change."""
        return small_stock(tmp_path / "shops")

    @pytest.fixture
    def own_platform(self, own_stock: Stock, naps: Naps) -> Iterator[Platform]:
        with serve(self.create_app(own_stock, Faults(), naps)) as url:
            yield self.open(url, naps)

    def shop(self, url: str) -> Shop:
        known = load_config(ROOT / "config", env={}).shop(self.shop_name)
        return known.model_copy(update={"url": url, **self.changes})

    def open(self, url: str, naps: Naps, *, token: str | None = None, pulling: Pulling = PULLING) -> Platform:
        shop = self.shop(url)
        return open_platform(shop, pulling, {shop.token_env: token or self.token}, sleep=naps)

    def stored(self, stock: Stock, kind: str) -> dict[str, datetime]:
        """Ids and dates of change of everything the shop holds."""
        with closing(sqlite3.connect(stock.path)) as connection:
            rows = connection.execute(f"select id, updated_at from {kind} where shop = ?", (self.shop_name,))
            return {str(number): datetime.fromtimestamp(changed, UTC) for number, changed in rows}

    @pytest.mark.parametrize("entity", ["customers", "orders"])
    def test_every_row_to_the_last_page_exactly_once(self, platform: Platform, stock: Stock, entity: str) -> None:
        pages = list(platform.pages(entity, EVERYTHING))
        found = [key(row) for page in pages for row in platform.parse(entity, page.body)]
        assert sorted(found) == sorted(self.stored(stock, entity))
        assert len(found) > PULLING.page_size
        assert [page.rows for page in pages] == [len(platform.parse(entity, page.body)) for page in pages]

    @pytest.mark.parametrize("entity", ["customers", "orders"])
    def test_a_window_takes_its_start_and_leaves_its_end(
        self, platform: Platform, stock: Stock, entity: str
    ) -> None:
        changed = self.stored(stock, entity)
        moments = sorted(changed.values())
        since, middle, until = moments[2], moments[-9], moments[-3]
        windows = (Window(since, middle), Window(middle, until))
        found = [sorted(map(key, rows(platform, entity, window))) for window in windows]
        if entity in self.windowed:
            wanted = [sorted(k for k, v in changed.items() if w.since <= v < w.until) for w in windows]
            assert found == wanted
            assert all(wanted)
        else:
            assert found == [sorted(changed)] * 2

    def test_parts_of_a_second_move_no_border(self, platform: Platform, stock: Stock) -> None:
        changed = self.stored(stock, "orders")
        moment, a_bit = sorted(changed.values())[5], timedelta(milliseconds=300)
        wanted = [k for k, v in changed.items() if v == moment]
        assert [*map(key, rows(platform, "orders", Window(moment - a_bit, moment + a_bit)))] == wanted
        assert not rows(platform, "orders", Window(moment + a_bit, moment + 2 * a_bit))

    def test_instants_are_aware_and_utc(self, platform: Platform) -> None:
        orders = rows(platform, "orders", EVERYTHING)
        customers = rows(platform, "customers", EVERYTHING)
        moments = [
            *(m for row in orders if isinstance(row, OrderRow) for m in (row.ordered_at, row.updated_at)),
            *(m for row in customers if isinstance(row, CustomerRow) for m in (row.created_at, row.updated_at)),
            *(f.occurred_at for row in customers if isinstance(row, CustomerRow) for f in row.consents),
        ]
        assert len(moments) > 100
        assert all(moment is not None and moment.tzinfo is UTC for moment in moments)

    def test_orders_are_read_whole(self, platform: Platform) -> None:
        orders = {row.attributes["number"].lstrip("#"): row for row in _orders(platform)}
        assert len(orders) > 20
        for number, row in orders.items():
            n = int(number[1:])
            assert len(row.lines) == (37 if n == LONG_ORDER else 1 + n % 4)
            assert row.total == sum((line.quantity * line.unit_price for line in row.lines), 0)
            assert row.status == ("returned" if row.total < 0 else "paid")
            assert (row.customer_id is None) == (n % 9 == 4)
            assert row.country == ("FR" if n % 2 else "GB")
            assert row.lines[0].title == 'Tea "0" é'
        assert {row.status for row in orders.values()} == {"paid", "returned"}

    def test_consents_of_both_kinds_are_facts_with_a_date(self, platform: Platform) -> None:
        customers = [row for row in rows(platform, "customers", EVERYTHING) if isinstance(row, CustomerRow)]
        facts = [fact for row in customers for fact in row.consents]
        assert {fact.status for fact in facts} == {"granted", "withdrawn"}
        assert 0 < len(facts) < len(customers)
        assert all((f.channel, f.topic, f.source) == ("email", "promotions", f.source) for f in facts)

    @pytest.mark.parametrize("kind", ["error", "busy", "hang", "cut"])
    def test_a_bad_answer_is_asked_again(self, site: Site, stock: Stock, naps: Naps, kind: FaultKind) -> None:
        site.faults.plan(Fault(kind, times=2, seconds=0.8))
        patience = 0.4 if kind == "hang" else PULLING.timeout_seconds
        pulling = PULLING.model_copy(update={"timeout_seconds": patience})
        found = list(map(key, rows(self.open(site.url, naps, pulling=pulling), "orders", EVERYTHING)))
        assert sorted(found) == sorted(self.stored(stock, "orders"))
        assert naps.taken[:2] == ([0.8, 0.8] if kind == "busy" else [1, 2])

    def test_an_answer_that_stays_bad_is_busy(self, platform: Platform, faults: Faults, naps: Naps) -> None:
        faults.plan(Fault("error", times=99))
        with pytest.raises(PlatformBusy, match=f"^shop {self.shop_name}: .* is busy \\(500\\); try again later"):
            list(platform.pages("orders", EVERYTHING))
        assert naps.taken == [1, 2, 4]

    def test_a_long_pause_is_left_to_the_scheduler(self, platform: Platform, faults: Faults, naps: Naps) -> None:
        faults.plan(Fault("busy", seconds=3600))
        with pytest.raises(PlatformBusy) as error:
            list(platform.pages("orders", EVERYTHING))
        assert (error.value.retry_after, naps.taken) == (3600, [])

    def test_an_unreachable_shop_is_busy_and_named(self, naps: Naps) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        with pytest.raises(PlatformBusy) as error:
            list(self.open(url, naps).pages("orders", EVERYTHING))
        assert str(error.value).startswith(
            f"shop {self.shop_name}: {url} does not answer (connection refused); is it up"
        )

    def test_a_wrong_token_is_rejected_and_never_shown(self, site: Site, naps: Naps) -> None:
        platform = self.open(site.url, naps, token="ck_mistyped:cs_mistyped")
        with pytest.raises(PlatformRejected) as error:
            list(platform.pages("orders", EVERYTHING))
        shown = "".join(traceback.format_exception(error.value)) + repr(platform)
        assert str(error.value) == (
            f"shop {self.shop_name}: {self.shown_name()} refused the token (401); "
            f"check TERN_{self.shop_name.upper()}_TOKEN"
        )
        assert "mistyped" not in shown
        assert naps.taken == []

    def test_parsing_needs_no_platform(self, platform: Platform, naps: Naps) -> None:
        pages = {entity: list(platform.pages(entity, EVERYTHING)) for entity in platform.entities}
        elsewhere = self.open(f"http://127.0.0.1:{free_port()}", naps)
        for entity, kept in pages.items():
            for page in kept:
                assert elsewhere.parse(entity, page.body) == platform.parse(entity, page.body)

    def test_the_same_window_again_gives_the_same_pages(self, platform: Platform) -> None:
        window = Window(datetime(2026, 9, 1, tzinfo=UTC), END)
        once, again = (list(platform.pages("orders", window)) for _ in range(2))
        assert [bodies(platform, page) for page in once] == [bodies(platform, page) for page in again]

    def test_a_changed_order_comes_again(self, own_platform: Platform, own_stock: Stock) -> None:
        order_id = int(min(self.stored(own_stock, "orders"), key=int))
        own_stock.refund(self.shop_name, order_id, 150, END + timedelta(hours=1))
        (row,) = rows(own_platform, "orders", Window(END, END + timedelta(days=1)))
        assert isinstance(row, OrderRow)
        assert (row.order_id, str(row.refunded), row.status) == (str(order_id), "1.50", "paid")
        assert [(str(r.amount), r.refunded_at) for r in row.refunds] == [("1.50", END + timedelta(hours=1))]

    def test_a_purchase_comes_with_the_next_window(self, own_platform: Platform, own_stock: Stock) -> None:
        customer = int(min(self.stored(own_stock, "customers"), key=int))
        order_id = own_stock.add_order(self.shop_name, customer, END + timedelta(hours=2))
        (row,) = rows(own_platform, "orders", Window(END, END + timedelta(days=1)))
        assert isinstance(row, OrderRow)
        assert (row.order_id, row.customer_id) == (str(order_id), str(customer))
        assert row.total is not None
        assert row.total > 0

    @classmethod
    def shown_name(cls) -> str:
        raise NotImplementedError


def rows(platform: Platform, entity: str, window: Window) -> list[Row]:
    return [row for page in platform.pages(entity, window) for row in platform.parse(entity, page.body)]


def key(row: Row) -> str:
    return str(row.order_id if isinstance(row, OrderRow) else row.customer_id)


def bodies(platform: Platform, page: Page) -> list[Row]:
    """Answers differ in what they say about cost; their rows do not."""
    return platform.parse("orders", page.body)


def _orders(platform: Platform) -> list[OrderRow]:
    return [row for row in rows(platform, "orders", EVERYTHING) if isinstance(row, OrderRow)]
