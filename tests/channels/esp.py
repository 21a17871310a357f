"""Letters, and each e-mail service's channel in front of its stand-in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from lifecycle.channels.base import Outcome
from lifecycle.channels.mailgun import MailgunChannel
from lifecycle.channels.postmark import PostmarkChannel
from lifecycle.channels.sendgrid import SendGridChannel
from lifecycle.channels.services import ServiceChannel
from lifecycle.channels.ses import SesChannel
from lifecycle.messages.records import Letter, Sent
from lifecycle.settings.channels import EmailService
from sandbox.servers import serve
from sandbox.services.keeping import Conduct, Delivered
from sandbox.services.mailgun import Mailgun
from sandbox.services.postmark import Postmark
from sandbox.services.sendgrid import SendGrid
from sandbox.services.ses import Ses
from tests.contracts.channel import send_all

KEY = "AKIATERN:correct-horse"
SERVICES = ("sendgrid", "mailgun", "ses", "postmark")
NAMES = ("Anna", "王小明", "O'Neil & Söhne", 'Zoë "Z" <zoe>', "Anna")


def letter(number: int = 1, **changes: Any) -> Letter:
    """As the composer makes one: links with tokens, a name as in text and as in a page."""
    name = NAMES[number % len(NAMES)]
    escaped = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")
    url = f"https://t.example.com/u/{number:030d}"
    links = [f"https://t.example.com/c/{number:027d}{link:03d}" for link in range(3)]
    mailto = f"u+{number:030d}@bounce.example.com"
    buttons = "".join(f'<p><a href="{link}">100 % wool, -50%- {{only}} today</a></p>\n' for link in links)
    plain = Letter(
        send_id=number,
        key=f"<{number}.{number:016x}@example.com>",
        envelope_from=f"b+{number:030d}@bounce.example.com",
        to=f"person.{number}@example.org",
        sender_name='Atlas & Söhne, "Paris"',
        sender_address="news@example.com",
        reply_to="care@example.com",
        subject=f"{name}, 您好: we miss you",
        html=f"<style>@media(x){{.a{{color:red}}}}</style><p>Hello {escaped}</p>\n{buttons}<a href='{url}'>no</a>",
        text=f"Hello {name},\r\n\r\n" + "\n".join(f"100 % wool: {link}" for link in links) + f"\nStop: {url}\n",
        headers=(
            ("List-Unsubscribe", f"<{url}>, <mailto:{mailto}?subject=unsubscribe>"),
            ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
            ("List-ID", "<promo.example.com>"),
            ("Feedback-ID", "winback:marketing:fr:tern0123"),
        ),
        personal=(url, mailto, *links, name, escaped),
        what="winback",
        purpose="marketing",
        shop="fr",
    )
    return replace(plain, **changes)


def sent(number: int, **changes: Any) -> Sent:
    one = letter(number)
    return replace(Sent(number, one.key, one.to, None, datetime.now(UTC)), **changes)


@dataclass(frozen=True)
class Bench:
    """A channel and its stand-in."""

    channel: Any
    stand_in: Any

    @property
    def conduct(self) -> Conduct:
        return self.stand_in.conduct

    @property
    def delivered(self) -> list[Delivered]:
        return self.stand_in.delivered

    def send(self, letters: Sequence[Letter]) -> dict[int, Outcome]:
        return send_all(self.channel, letters, [])


def stand_in(service: str, conduct: Conduct | None = None, key: str = KEY) -> Any:
    access, _, secret = key.partition(":")
    match service:
        case "sendgrid":
            return SendGrid(key, conduct)
        case "mailgun":
            return Mailgun(key, "mg.example.com", conduct)
        case "postmark":
            return Postmark(key, conduct)
    return Ses(access, secret, "eu-central-1", conduct)


def channel(service: str, url: str, *, key: str = KEY, **changes: Any) -> ServiceChannel:
    kinds = {
        "sendgrid": SendGridChannel,
        "mailgun": MailgunChannel,
        "ses": SesChannel,
        "postmark": PostmarkChannel,
    }
    wanted = {
        "service": service,
        "key_env": "TERN_KEY",
        "url": url,
        "domain": "mg.example.com" if service == "mailgun" else "",
        "region": "eu-central-1" if service == "ses" else "",
        "stream": "broadcast" if service == "postmark" else "",
        "timeout_seconds": 10,
        **changes,
    }
    return kinds[service](EmailService.model_validate(wanted), key)  # type: ignore[abstract]


@contextmanager
def bench(service: str, conduct: Conduct | None = None, **changes: Any) -> Iterator[Bench]:
    there = stand_in(service, conduct)
    with serve(there.app) as url, channel(service, url, **changes) as opened:
        yield Bench(opened, there)


def answering(status: int, body: str = "", headers: dict[str, str] | None = None) -> Conduct:
    """The service answers all that sends with this."""
    return Conduct(answer=lambda: Response(body, status, headers, media_type="application/json"))
