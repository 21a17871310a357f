"""Hits of which we know who made them: User-Agents as seen in the wild, and the ways of people and machines.

Times are seconds after sending. Labels: person, proxy, prefetch, scanner, unknown.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pandas as pd

SENT_AT = datetime(2026, 11, 22, 8, tzinfo=UTC)

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36"
)
PEOPLE = (
    CHROME,
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1 (KHTML, like Gecko) Safari/605.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Thunderbird/140.4.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/4.0 (compatible; ms-office; MSOffice 16)",
    "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.17928; Pro)",
    "Outlook-iOS/723.4027091.prod.iphone (4.32.0)",
    "Mozilla/5.0 (Linux; Android 13; CUBOT X70) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Mobile",
    "Mozilla/5.0 (Linux; Android 14; SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Mobile",
)
PROXIES = (
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
    "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html",
    "Mozilla/5.0",
)
GMAIL_PREFETCH = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0"
)
SCANNERS = (
    "",
    "Mozilla/5.0 (compatible; BarracudaCentral/1.0)",
    "Mozilla/5.0 (compatible; proofpoint-urldefense/1.0)",
    "Mimecast-URL-Protect",
    "Mozilla/5.0 (Windows NT 6.1; WOW64) SymantecEmailSecurity.cloud",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (Windows NT 6.1; WOW64) AppleWebKit/534+ (KHTML, like Gecko) BingPreview/1.0b",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/141.0 Safari/537.36",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "python-requests/2.32.3",
    "curl/8.5.0",
    "Go-http-client/2.0",
    "Java/17.0.2",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
)
STRANGE = ("x", "SomeNewMailApp", "Dalvik/2.1.0", "\U0001f600")


@dataclass(frozen=True)
class Seen:
    kind: str
    message_id: int
    seconds: float
    user_agent: str | None
    ip: str
    label: str
    link_id: int | None = None
    prefetch: bool = False


def corpus(seed: int, *, messages: int = 1500) -> list[Seen]:
    """A mailing of `messages`: most to people, some behind proxies and scanners."""
    draw, seen = random.Random(seed), list[Seen]()
    for message_id in range(messages):
        who = draw.random()
        if who < 0.08:
            seen += _scanned(draw, message_id)
        if 0.08 <= who < 0.25:
            seen += _by_apple(draw, message_id)
        elif who >= 0.25 and draw.random() < 0.5:
            seen += _read(draw, message_id)
        if draw.random() < 0.05:
            seen += _crawled(draw, message_id)
        if draw.random() < 0.02:
            seen += draw.choice([_patient, _beside_a_scanner, _eager])(draw, message_id)
    return seen


def frame(seen: list[Seen]) -> pd.DataFrame:
    """As `rules.judge` wants it, and the label."""
    return pd.DataFrame(
        {
            "event_id": range(1, len(seen) + 1),
            "message_id": [each.message_id for each in seen],
            "kind": [each.kind for each in seen],
            "link_id": [each.link_id for each in seen],
            "occurred_at": pd.to_datetime([SENT_AT + timedelta(seconds=each.seconds) for each in seen], utc=True),
            "sent_at": pd.to_datetime([SENT_AT] * len(seen), utc=True),
            "user_agent": [each.user_agent for each in seen],
            "ip": [each.ip for each in seen],
            "prefetch": [each.prefetch for each in seen],
            "read": [False] * len(seen),
            "label": [each.label for each in seen],
        }
    )


def _read(draw: random.Random, message_id: int) -> list[Seen]:
    """A person reads, perhaps through a proxy, and perhaps clicks; some programs prefetch links."""
    agent, home = draw.choice(PEOPLE), f"81.2.{draw.randrange(250)}.{draw.randrange(250)}"
    at = draw.lognormvariate(6, 2) + 4
    seen = []
    if draw.random() < 0.03:
        seen.append(Seen("opened", message_id, draw.uniform(0.2, 60), GMAIL_PREFETCH, "66.249.84.2", "prefetch"))
    if draw.random() < 0.45:
        seen.append(Seen("opened", message_id, at, draw.choice(PROXIES[:2]), "66.249.84.1", "proxy"))
    else:
        seen.append(Seen("opened", message_id, at, agent, home, "person"))
    if draw.random() < 0.3:
        link = draw.randint(1, 5)
        if draw.random() < 0.1:
            seen.append(Seen("clicked", message_id, at + 1, agent, home, "prefetch", link, prefetch=True))
        seen.append(Seen("clicked", message_id, at + draw.uniform(1, 90), agent, home, "person", link))
        if draw.random() < 0.2:  # an eager one: two links, one after the other
            at += draw.uniform(91, 200)
            seen.append(Seen("clicked", message_id, at, agent, home, "person", link % 5 + 1))
    return seen


def _by_apple(draw: random.Random, message_id: int) -> list[Seen]:
    """Mail Privacy Protection loads the picture soon or late, read or not."""
    at = draw.choice([draw.uniform(0.1, 1.9), draw.uniform(3, 9000)])
    return [Seen("opened", message_id, at, "Mozilla/5.0", "17.58.100.3", "prefetch" if at < 2 else "proxy")]


def _scanned(draw: random.Random, message_id: int) -> list[Seen]:
    """A gateway with an ordinary browser's name follows every link: at once, or some minutes later."""
    ip, start = f"205.220.{draw.randrange(4)}.{draw.randrange(8)}", draw.choice([0.4, draw.uniform(20, 600)])
    seen = [Seen("opened", message_id, start - 0.1, CHROME, ip, "scanner")] if draw.random() < 0.5 else []
    for link in draw.sample(range(1, 6), 5):
        start += draw.uniform(0.02, 0.3)
        seen.append(Seen("clicked", message_id, start, CHROME, ip, "scanner", link))
    if draw.random() < 0.3:  # it comes back for one link, an hour later
        seen.append(Seen("clicked", message_id, start + draw.uniform(600, 3600), CHROME, ip, "scanner", 1))
    return seen


def _crawled(draw: random.Random, message_id: int) -> list[Seen]:
    at = draw.uniform(5, 5000)
    if draw.random() < 0.7:
        return [
            Seen("clicked", message_id, at, draw.choice(SCANNERS), "192.0.2.44", "scanner", draw.randint(1, 5))
        ]
    return [Seen("opened", message_id, at, draw.choice(STRANGE), "192.0.2.45", "unknown")]


def _patient(draw: random.Random, message_id: int) -> list[Seen]:
    """A scanner that takes its time: nothing tells it from a curious person."""
    ip, at, seen = f"205.220.9.{draw.randrange(250)}", 30.0, list[Seen]()
    for link in range(1, 6):
        at += draw.uniform(3, 30)
        seen.append(Seen("clicked", message_id, at, CHROME, ip, "scanner", link))
    return seen


def _beside_a_scanner(draw: random.Random, message_id: int) -> list[Seen]:
    """A person at a firm that reaches the net through the address of its scanner."""
    at, ip = draw.uniform(700, 9000), f"205.220.{draw.randrange(4)}.{draw.randrange(8)}"
    return [Seen("opened", message_id, at, CHROME, ip, "person")]


def _eager(draw: random.Random, message_id: int) -> list[Seen]:
    """A person who opens three links in tabs, one after the other, faster than the rules allow."""
    at, ip = draw.uniform(60, 9000), f"81.3.{draw.randrange(250)}.{draw.randrange(250)}"
    return [Seen("clicked", message_id, at + 0.8 * n, CHROME, ip, "person", n + 1) for n in range(3)]
