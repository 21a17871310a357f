"""One recipient in, the exact bytes of one mail out."""

from __future__ import annotations

import base64
import hashlib
import hmac
from email.utils import format_datetime

from sqlalchemy import Engine

from lifecycle.addresses import domain_of, mailable
from lifecycle.clock import Clock, utc_now
from lifecycle.db.engine import reading
from lifecycle.errors import ContentError
from lifecycle.messages.anchors import track
from lifecycle.messages.headers import (
    address_header,
    header,
    mailbox_header,
    marked_subject,
    text_header,
    uri_header,
)
from lifecycle.messages.links import plan_campaign, read_links
from lifecycle.messages.records import Mail, Recipient, Rendered
from lifecycle.messages.templates import load_templates
from lifecycle.messages.variables import variables
from lifecycle.settings import Config, Environment
from lifecycle.settings.models import Shop
from lifecycle.tokens import Purpose, Token, sign

__all__ = ["Composer", "Mail", "Recipient"]


class Composer:
    """Makes the mails of one plan; `prepare_links` must have numbered its links."""

    def __init__(
        self, engine: Engine, config: Config, environment: Environment, plan_id: int, *, clock: Clock = utc_now
    ) -> None:
        with reading(engine) as connection:
            self._campaign = plan_campaign(connection, plan_id)
        self._links = read_links(engine, plan_id)
        self._templates = load_templates(environment.templates_dir)
        self._config = config
        self._secret = environment.secret
        self._base_url = config.channels_file.tracking.base_url.rstrip("/")
        self._bounce_domain = config.channels[self._campaign.channel].bounce_domain
        self._clock = clock

    def compose(self, recipient: Recipient) -> Mail:
        """The same recipient gets the same Message-ID, links and boundary again.

        Raises ContentError where the address or anything else cannot become a sound mail.
        """
        address = mailable(recipient.address)
        if address is None:
            raise ContentError("the customer has no address that plain SMTP can carry")
        shop = self._config.shop(recipient.shop)
        rendered = self._render(recipient, shop)
        mark = hmac.digest(self._secret, f"mail:{recipient.message_id}".encode(), "sha256").hex()
        message_id = f"<{recipient.message_id}.{mark[:16]}@{domain_of(shop.sender.address)}>"
        head = self._head(recipient, shop, address, rendered, message_id)
        return Mail(
            envelope_from=f"b+{self._token(Purpose.BOUNCE, recipient)}@{self._bounce_domain}",
            envelope_to=address,
            message_id=message_id,
            content=head.encode("ascii") + _alternative(rendered, boundary=f"=_{mark[16:48]}"),
        )

    def _render(self, recipient: Recipient, shop: Shop) -> Rendered:
        unsubscribe_url = self._url(Purpose.UNSUBSCRIBE, recipient)
        template = self._templates.mail(recipient.template, recipient.locale)
        values = variables(
            self._campaign,
            shop,
            locale=recipient.locale,
            name=recipient.name,
            unsubscribe_url=unsubscribe_url,
        )
        rendered = template.render(values, pixel_url=self._url(Purpose.OPEN, recipient) + ".gif")
        page, text = track(
            rendered.html,
            rendered.text,
            unsubscribe_url,
            self._links,
            lambda link_id: self._url(Purpose.CLICK, recipient, link_id),
        )
        return Rendered(marked_subject(rendered.subject, recipient.country, recipient.purpose), page, text)

    def _head(self, recipient: Recipient, shop: Shop, address: str, rendered: Rendered, message_id: str) -> str:
        if not rendered.subject:
            raise ContentError("the subject is empty")
        domain = domain_of(shop.sender.address)
        topic = self._campaign.topic.replace("_", "-")
        unsubscribe = self._token(Purpose.UNSUBSCRIBE, recipient)
        return "".join(
            (
                mailbox_header("From", shop.sender.name, shop.sender.address),
                address_header("To", address),
                address_header("Reply-To", shop.sender.reply_to),
                text_header("Subject", rendered.subject),
                header("Date", format_datetime(self._clock())),
                header("Message-ID", message_id),
                uri_header(
                    "List-Unsubscribe",
                    self._url(Purpose.UNSUBSCRIBE, recipient),
                    f"mailto:u+{unsubscribe}@{self._bounce_domain}?subject=unsubscribe",
                ),
                header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
                uri_header("List-ID", f"{topic}.{domain}"),
                header("Feedback-ID", f"{recipient.what}:{recipient.purpose}:{shop.name}:{_sender_id(domain)}"),
                header("X-Send-ID", str(recipient.message_id)),
            )
        )

    def _url(self, purpose: Purpose, recipient: Recipient, link_id: int = 0) -> str:
        return f"{self._base_url}/{purpose}/{self._token(purpose, recipient, link_id)}"

    def _token(self, purpose: Purpose, recipient: Recipient, link_id: int = 0) -> str:
        return sign(Token(purpose, recipient.message_id, link_id), self._secret)


def _sender_id(domain: str | None) -> str:
    """Feedback-ID wants one stable name of 5 to 15 characters for all mail of a sender."""
    return f"tern{hashlib.sha256(str(domain).encode()).hexdigest()[:8]}"


def _alternative(rendered: Rendered, *, boundary: str) -> bytes:
    """MIME headers and the two parts, text first, in base64: half of quoted-printable for Chinese."""
    return b"".join(
        (
            f'MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary="{boundary}"\r\n\r\n'.encode(),
            _part("plain", rendered.text, boundary),
            _part("html", rendered.html, boundary),
            f"--{boundary}--\r\n".encode(),
        )
    )


def _part(subtype: str, text: str, boundary: str) -> bytes:
    try:
        raw = text.replace("\r\n", "\n").replace("\n", "\r\n").encode()
    except UnicodeEncodeError:
        raise ContentError("the mail has a character that cannot be encoded") from None
    head = (
        f"--{boundary}\r\nContent-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    return head.encode() + base64.encodebytes(raw).replace(b"\n", b"\r\n")
