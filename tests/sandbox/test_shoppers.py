"""Shoppers against the real mailbox and the real web app: what they say they did is what was stored."""

from __future__ import annotations

import asyncio
import json
import smtplib
from collections import Counter
from collections.abc import Iterator
from datetime import date
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, func, select

from lifecycle import tokens
from lifecycle.db.engine import reading
from lifecycle.db.schema import message_events, suppressions
from lifecycle.settings import Environment
from lifecycle.tokens import Purpose, Token
from sandbox import shoppers
from sandbox.mailbox import Mailbox, MailboxServer
from sandbox.stock import Stock, build_stock
from sandbox.storeroom import connected
from tests.tracking.conftest import web
from tests.tracking.ledger import send_mails

__all__ = ["web"]


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits, and everything happens often enough to be seen."""
    for name in ("READ_AFTER", "CLICK_AFTER", "BUY_AFTER", "PAGE_AFTER", "APPLE_AFTER"):
        monkeypatch.setattr(shoppers, name, (0.0, 0.05))
    for name, share in (("READ", 0.8), ("CLICK", 0.5), ("BUY", 0.5), ("ONE_CLICK", 0.1), ("PAGE", 0.1)):
        monkeypatch.setattr(shoppers, name, share)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    """A shop with sixty customers, one purchase each."""
    folder = tmp_path_factory.mktemp("stock")
    rows = [f"o{n},c{n},2026-01-{1 + n % 28:02}T10:00:00Z,EUR,sku,1,9.90" for n in range(60)]
    lines = folder / "order_lines.csv"
    lines.write_text("\n".join(["order_id,customer_id,ordered_at,currency,sku,quantity,unit_price", *rows]))
    return build_stock(lines, folder, today=date(2026, 11, 22))


@pytest.fixture
def mailbox(
    web: httpx.Client, engine: Engine, environment: Environment, stock: Stock, tmp_path: Path
) -> Iterator[Mailbox]:
    """A mail to everybody in the stock who has a mailbox, and to some behind a scanner."""
    with connected(stock.path) as connection:
        query = (
            "select distinct email from customers where email is not null and email not like 'gone.%' order by 1"
        )
        known = [email for (email,) in connection.execute(query)]
    people = [*known, *(f"p{n}@{shoppers.SCANNED}" for n in range(10))]
    ids = send_mails(engine, environment.secret, len(people))
    with MailboxServer(tmp_path / "mail") as server, smtplib.SMTP("127.0.0.1", server.port) as smtp:
        for message_id, recipient in zip(ids, people, strict=True):
            smtp.send_message(mail(str(web.base_url), environment.secret, message_id, recipient))
        yield server.mailbox


def mail(base: str, secret: bytes, message_id: int, recipient: str) -> EmailMessage:
    def address(purpose: Purpose, link_id: int = 0) -> str:
        return f"{base}/{purpose.value}/{tokens.sign(Token(purpose, message_id, link_id), secret)}"

    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Atlas <news@atlas.example.com>", recipient, "We miss you"
    message["List-Unsubscribe"] = f"<{address(Purpose.UNSUBSCRIBE)}>"
    message.set_content("Hello")
    links = "".join(f'<a href="{address(Purpose.CLICK, n)}">{n}</a>' for n in (1, 2, 3))
    page = f'{links}<a href="{address(Purpose.UNSUBSCRIBE)}">Stop</a><img src="{address(Purpose.OPEN)}.gif">'
    message.add_alternative(page, subtype="html")
    return message


def answer(mailbox: Mailbox, stock: Stock, folder: Path) -> Counter[str]:
    return asyncio.run(shoppers.shop(mailbox, stock, seed=7, notes=folder / "answered", over=lambda: True))


def test_what_they_say_they_did_is_what_was_stored(
    mailbox: Mailbox, stock: Stock, engine: Engine, tmp_path: Path
) -> None:
    before = orders(stock)
    done = answer(mailbox, stock, tmp_path)
    assert done["mails"] == mailbox.count() and done["failed requests"] == 0
    assert min(done[what] for what in ("scanned", "ordered", "unsubscribed on the page", "opened by people")) > 0
    scanned = done["scanned"]
    assert counted(engine, "opened", shoppers.APPLE_AGENT) == done["opened by Apple's proxy"]
    assert counted(engine, "opened", shoppers.GOOGLE_AGENT) == done["opened through Google's proxy"]
    opened = sum(counted(engine, "opened", agent) for agent in shoppers.PEOPLES_AGENTS)
    assert opened == done["opened by people"] + scanned
    assert counted(engine, "clicked") == done["clicked by people"] + 3 * scanned
    left = done["unsubscribed in one click"] + done["unsubscribed on the page"]
    assert counted(engine, "unsubscribed") == left
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(suppressions)).scalar() == left
    assert orders(stock) - before == done["ordered"]


def test_a_mail_is_answered_once_also_by_the_next_shoppers(
    mailbox: Mailbox, stock: Stock, engine: Engine, tmp_path: Path
) -> None:
    answer(mailbox, stock, tmp_path)
    events = counted(engine, "opened")
    assert answer(mailbox, stock, tmp_path) == Counter()
    assert counted(engine, "opened") == events


def test_as_a_command(mailbox: Mailbox, stock: Stock, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    over = tmp_path / "over"
    over.touch()
    where = ["--mailbox", str(tmp_path / "mail"), "--until", str(over)]
    assert shoppers.main([*where, "--shops", str(stock.path)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["mails"] == mailbox.count() and said["requests"] > said["read"] > 0
    assert shoppers.main([*where, "--shops", str(tmp_path / "none.db")]) == 1
    assert "there are no shops" in capsys.readouterr().err


def test_a_web_app_that_is_gone_is_counted_and_not_the_end(
    stock: Stock, environment: Environment, tmp_path: Path
) -> None:
    with MailboxServer(tmp_path / "mail") as server:
        with smtplib.SMTP("127.0.0.1", server.port) as smtp:
            smtp.send_message(mail("http://127.0.0.1:9", environment.secret, 1, f"p@{shoppers.SCANNED}"))
        done = answer(server.mailbox, stock, tmp_path)
    assert (done["mails"], done["scanned"]) == (1, 1) and done["failed requests"] >= 5


def counted(engine: Engine, kind: str, agent: str | None = None) -> int:
    query = select(func.count()).select_from(message_events).where(message_events.c.kind == kind)
    if agent is not None:
        query = query.where(message_events.c.user_agent == agent)
    with reading(engine) as connection:
        return int(connection.execute(query).scalar_one())


def orders(stock: Stock) -> int:
    with connected(stock.path) as connection:
        return int(connection.execute("select count(*) from orders").fetchone()[0])
