"""Shoppers who read the mail in the mailbox and answer it: open, click, unsubscribe, buy again. And machines.

Everything is drawn from the seed, the recipient and the subject, with the shares below, so that the same mails
meet the same people. Time is compressed: what takes people hours takes seconds here, on the real clock. Machines
act at once, so shoppers must run while the mail is being sent.

    python -m sandbox.shoppers --mailbox data/sandbox/mail --shops data/sandbox/shops.db --seconds 25 --seed 7

Ends with one line of JSON: what was really done, to be compared with the report.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from html import unescape
from pathlib import Path

import httpx

from sandbox.mailbox import Kept, Mailbox
from sandbox.stock import Stock

READ = 0.45
"""Of the people; they see the pictures."""
CLICK = 0.22
"""Of those who read; they follow one of the links."""
BUY = 0.12
"""Of those who click; they buy what they bought last."""
ONE_CLICK, PAGE = 0.02, 0.005
"""Of the people; they unsubscribe with their mail program's button (RFC 8058), or on our page."""

READ_AFTER, CLICK_AFTER, BUY_AFTER, PAGE_AFTER = (3.0, 20.0), (1.0, 5.0), (2.0, 4.0), (1.0, 3.0)
"""Seconds after the arrival, the opening, the click, and before the button on the page is pressed."""
APPLE_AFTER = (3.0, 12.0)
"""Seconds after the arrival until Apple's proxy loads the pictures, read or not."""
SCAN_WITHIN = 1.0
"""Seconds after the arrival within which a scanner has followed every link, the unsubscribe link too."""

GMAIL, APPLE, SCANNED = "gmail.example.com", "icloud.example.com", "firm.example.org"
"""Domains whose pictures are loaded by Google's proxy, by Apple's, and whose mail passes a link scanner first. The
shares of the domains are in `sandbox.people`; everybody else loads pictures from home."""

GOOGLE_AGENT = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
APPLE_AGENT = "Mozilla/5.0"
_WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64"
SCANNER_AGENT = f"{_WINDOWS}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
PEOPLES_AGENTS = (
    SCANNER_AGENT,
    f"{_WINDOWS}; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Thunderbird/140.4.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E1",
)
GOOGLE_IP, APPLE_IP, SCANNER_IP = "192.0.2.10", "198.51.100.20", "203.0.113.30"
"""Addresses for documentation; people live in 198.18.0.0/15. The app believes X-Forwarded-For from loopback, as it
would from the proxy in front of it."""

_POLL_SECONDS = 0.2
_CONNECTIONS = 40
_LINK = re.compile(r'(?:href|src)="(https?://[^"]+/([ocu])/[\w-]+(?:\.gif)?)"')


@dataclass(frozen=True)
class Letter:
    recipient: str
    sender: str
    subject: str
    arrived: float
    """On time.time()'s clock."""
    pixel: str | None
    links: tuple[str, ...]
    unsubscribe: str | None

    @property
    def domain(self) -> str:
        return self.recipient.rpartition("@")[2]


def read_letter(kept: Kept) -> Letter:
    """What a mail program finds in a mail: the picture, the links, the way to unsubscribe."""
    message = kept.message
    page = message.get_body(("html",))
    found: dict[str, list[str]] = {"o": [], "c": [], "u": []}
    for address, kind in _LINK.findall(page.get_content() if page else ""):
        found[kind].append(unescape(address))
    header = re.search(r"<(https?://[^>]+)>", str(message["List-Unsubscribe"] or ""))
    return Letter(
        recipient=kept.envelope_to,
        sender=str(message["From"]),
        subject=str(message["Subject"]),
        arrived=kept.received_at.timestamp(),
        pixel=next(iter(found["o"]), None),
        links=tuple(dict.fromkeys(found["c"])),
        unsubscribe=header.group(1) if header else next(iter(found["u"]), None),
    )


class Shoppers:
    """`done` counts mails by who opened and clicked them, the rest by what was done."""

    def __init__(self, stock: Stock, client: httpx.AsyncClient, *, seed: int) -> None:
        self._stock, self._client, self._seed = stock, client, seed
        self.done: Counter[str] = Counter()

    async def answer(self, kept: Kept) -> None:
        """All that happens to one mail."""
        letter = await asyncio.to_thread(read_letter, kept)
        self.done["mails"] += 1
        draw = random.Random(f"{self._seed}|{letter.recipient}|{letter.subject}")
        acts: list[Awaitable[None]] = [self._person(letter, draw)]
        if letter.domain == APPLE:
            acts.append(self._apple(letter, draw.uniform(*APPLE_AFTER)))
        if letter.domain == SCANNED:
            acts.append(self._scanner(letter, draw.uniform(0, SCAN_WITHIN)))
        await asyncio.gather(*acts)

    async def _person(self, letter: Letter, draw: random.Random) -> None:
        agent, ip = draw.choice(PEOPLES_AGENTS), _home(letter.recipient)
        reads, clicks, buys, leaves = (draw.random() for _ in range(4))
        link = draw.choice(letter.links) if letter.links else None
        after = [draw.uniform(*span) for span in (READ_AFTER, CLICK_AFTER, BUY_AFTER, PAGE_AFTER)]
        await _until(letter.arrived + after[0])
        if reads < READ:
            self.done["read"] += 1
            await self._open(letter, agent, ip)
            if clicks < CLICK and link:
                await asyncio.sleep(after[1])
                await self._get(link, agent, ip)
                self.done["clicked by people"] += 1
                if buys < BUY:
                    await asyncio.sleep(after[2])
                    await self._buy(letter)
        if leaves < ONE_CLICK and letter.unsubscribe:
            await self._unsubscribe(letter, {"List-Unsubscribe": "One-Click"}, agent, ip)
            self.done["unsubscribed in one click"] += 1
        elif leaves < ONE_CLICK + PAGE and letter.unsubscribe:
            await self._get(letter.unsubscribe, agent, ip)
            await asyncio.sleep(after[3])
            await self._unsubscribe(letter, {"unsubscribe": "yes"}, agent, ip)
            self.done["unsubscribed on the page"] += 1

    async def _open(self, letter: Letter, agent: str, ip: str) -> None:
        """Apple's proxy has loaded the picture, or will: nobody sees when its people read."""
        if letter.domain == GMAIL:
            await self._get(letter.pixel, GOOGLE_AGENT, GOOGLE_IP)
            self.done["opened through Google's proxy"] += 1
        elif letter.domain != APPLE:
            await self._get(letter.pixel, agent, ip)
            self.done["opened by people"] += 1

    async def _apple(self, letter: Letter, after: float) -> None:
        await _until(letter.arrived + after)
        await self._get(letter.pixel, APPLE_AGENT, APPLE_IP)
        self.done["opened by Apple's proxy"] += 1

    async def _scanner(self, letter: Letter, after: float) -> None:
        await _until(letter.arrived + after)
        addresses = (letter.pixel, *letter.links, letter.unsubscribe)
        await asyncio.gather(*(self._get(address, SCANNER_AGENT, SCANNER_IP) for address in addresses))
        self.done["scanned"] += 1

    async def _buy(self, letter: Letter) -> None:
        """At the shop that wrote, where it knows the customer; else at the other."""
        known = await asyncio.to_thread(self._stock.customers_of, letter.recipient)
        wrote = [(shop, number) for shop, number in known if shop in letter.sender.lower()]
        for shop, number in (wrote or known)[:1]:
            await asyncio.to_thread(self._stock.add_order, shop, number, datetime.now(UTC))
            self.done["ordered"] += 1

    async def _get(self, address: str | None, agent: str, ip: str) -> None:
        if address:
            await self._ask(self._client.get(address, headers=_headers(agent, ip)))

    async def _unsubscribe(self, letter: Letter, body: dict[str, str], agent: str, ip: str) -> None:
        if letter.unsubscribe:
            await self._ask(self._client.post(letter.unsubscribe, data=body, headers=_headers(agent, ip)))

    async def _ask(self, answer: Awaitable[httpx.Response]) -> None:
        self.done["requests"] += 1
        try:
            self.done["failed requests"] += (await answer).status_code >= 400
        except httpx.HTTPError:
            self.done["failed requests"] += 1


async def shop(
    mailbox: Mailbox, stock: Stock, *, seed: int, notes: Path, over: Callable[[], bool]
) -> Counter[str]:
    """Answer new mail until `over`, then finish what has begun. `notes` keeps which mail was answered: a mail
    is answered once, also by the next shoppers."""
    handled = int(notes.read_text()) if notes.exists() else 0
    limits = httpx.Limits(max_connections=_CONNECTIONS)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client, asyncio.TaskGroup() as busy:
        shoppers, going_on = Shoppers(stock, client, seed=seed), True
        while going_on:
            going_on = not over()
            for kept in await asyncio.to_thread(mailbox.mails, handled):
                busy.create_task(shoppers.answer(kept))
                handled = kept.mail_id
            notes.write_text(str(handled))
            await asyncio.sleep(_POLL_SECONDS if going_on else 0)
    return shoppers.done


def _headers(agent: str, ip: str) -> dict[str, str]:
    return {"User-Agent": agent, "X-Forwarded-For": ip}


def _home(recipient: str) -> str:
    high, middle, low = hashlib.sha256(recipient.encode()).digest()[:3]
    return f"198.{18 + high % 2}.{middle}.{low}"


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.time()))


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox.shoppers", description=__doc__.splitlines()[0])
    parser.add_argument("--mailbox", type=Path, required=True, help="folder of sandbox.mailbox")
    parser.add_argument("--shops", type=Path, required=True, help="database of the stand-in shops")
    parser.add_argument("--seed", type=int, default=7)
    ends = parser.add_mutually_exclusive_group(required=True)
    ends.add_argument("--seconds", type=float, help="look for new mail so long")
    ends.add_argument("--until", type=Path, metavar="FILE", help="look for new mail until FILE exists")
    given = parser.parse_args(None if arguments is None else list(arguments))
    if not given.shops.exists():
        print(f"{given.shops}: there are no shops; build them with: python -m sandbox run", file=sys.stderr)
        return 1
    deadline = time.monotonic() + (given.seconds or 0)
    over = given.until.exists if given.until else lambda: time.monotonic() >= deadline
    stock = Stock(given.shops, accounting={}, lines_read=0, anchor=date.min)
    notes = given.mailbox / "answered"
    done = asyncio.run(shop(Mailbox(given.mailbox), stock, seed=given.seed, notes=notes, over=over))
    print(json.dumps(dict(sorted(done.items()))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
