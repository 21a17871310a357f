"""A small world for whole runs: two stand-in shops, a mailbox, and the environment that the product sees."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lifecycle.customers.intake import take_in
from lifecycle.db.engine import migrate
from lifecycle.platforms import landing, open_platform
from lifecycle.quality.gate import check_fetched
from lifecycle.segments.build import build
from lifecycle.settings import ROOT
from lifecycle.workplace import Workplace, open_workplace
from sandbox import shopify, woocommerce
from sandbox.mailbox import Mailbox, MailboxServer
from sandbox.servers import serve
from sandbox.stock import Stock, build_stock

ATLAS_TOKEN, HARBOUR_TOKEN = "shpat_test", "ck_test:cs_test"


@dataclass(frozen=True)
class World:
    folder: Path
    stock: Stock
    mailbox: Mailbox
    env: Mapping[str, str]
    extra: dict[str, str] = field(default_factory=dict)
    """What a test wants different: put it here before running something."""
    places: list[Workplace] = field(default_factory=list)

    @property
    def place(self) -> Workplace:
        """Opened once; closed with the world."""
        if not self.places:
            self.places.append(open_workplace({**os.environ, **self.env, **self.extra}))
        return self.places[0]

    def prepare(self) -> None:
        """Both shops pulled and segments built, in this process, without Prefect."""
        place, now = self.place, datetime.now(UTC)
        folder, pulling = place.environment.data_dir, place.config.shops_file.pulling
        for shop in place.config.shops.values():
            platform = open_platform(shop, pulling, {**self.env, **self.extra})
            for entity in platform.entities:
                window = landing.next_window(place.engine, shop.name, entity, pulling=pulling, until=now)
                fetched = landing.fetch(place.engine, folder, platform, shop, entity, window=window, now=now)
                gate = check_fetched(
                    place.engine, folder, platform, fetched, max_rejected_share=0.05, now=now, run_id=None
                )
                secret = place.environment.secret
                take_in(
                    place.engine,
                    folder,
                    place.config,
                    platform,
                    fetched,
                    gate,
                    secret=secret,
                    now=now,
                    run_id=None,
                )
        build(place.engine, place.config, as_of=now, now=now)

    def python(self, *arguments: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", *arguments],
            env={**os.environ, **self.env, **self.extra},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def flow(self, name: str, **parameters: object) -> tuple[int, str]:
        """Exit code and everything printed."""
        words = [word for key, value in parameters.items() for word in ("--param", f"{key}={value}")]
        process = self.python("-m", "flows", name, *words)
        output, _ = process.communicate(timeout=240)
        return process.returncode, output

    def send_ids(self) -> list[int]:
        """Message ids of all mails that the mailbox has kept."""
        return [int(mail.message["X-Send-ID"]) for mail in self.mailbox.mails()]


@contextmanager
def small_world(folder: Path, database_url: str, *, customers: int = 150) -> Iterator[World]:
    """The product's database is migrated and empty; the shops are stocked and up."""
    goods = folder / "goods.csv"
    _write_goods(goods, customers)
    stock = build_stock(goods, folder / "sandbox", today=datetime.now(UTC).date())
    mail = folder / "mail"
    with ExitStack() as stack:
        atlas = stack.enter_context(serve(shopify.create_app(stock.path, "atlas", ATLAS_TOKEN)))
        harbour = stack.enter_context(serve(woocommerce.create_app(stock.path, "harbour", HARBOUR_TOKEN)))
        server = stack.enter_context(MailboxServer(mail))
        migrate(database_url)
        world = World(
            folder,
            stock,
            Mailbox(mail),
            {
                "TERN_DATA": str(folder / "data"),
                "TERN_DATABASE_URL": database_url,
                "TERN_SECRET": "a secret for tests, 32 characters",
                "TERN_ATLAS_URL": atlas,
                "TERN_ATLAS_TOKEN": ATLAS_TOKEN,
                "TERN_HARBOUR_URL": harbour,
                "TERN_HARBOUR_TOKEN": HARBOUR_TOKEN,
                "TERN_SMTP_HOST": "127.0.0.1",
                "TERN_QUIET_HOURS": "none",
                "TERN_SMTP_PORT": str(server.port),
                "TERN_SMTP_SECURITY": "none",
                "TERN_TRACKING_URL": "http://127.0.0.1:8025",
            },
        )
        yield world
        for place in world.places:
            place.engine.dispose()


def _write_goods(path: Path, customers: int) -> None:
    """Order lines of so many people: a third of them has been quiet for months."""
    chance, today = random.Random(11), datetime.now(UTC)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["order_id", "customer_id", "ordered_at", "currency", "sku", "quantity", "unit_price", "country"]
        )
        for customer in range(customers):
            quiet = 120 if customer % 3 == 0 else 1
            for order in range(chance.randint(1, 6)):
                at = today - timedelta(days=quiet + chance.randint(0, 300), hours=chance.randint(0, 23))
                for line in range(chance.randint(1, 3)):
                    price = chance.randint(100, 9000) / 100
                    writer.writerow(
                        [
                            f"{customer}-{order}",
                            f"p{customer}",
                            at.isoformat(),
                            "EUR",
                            f"SKU-{line}",
                            1,
                            price,
                            "FR",
                        ]
                    )
