"""One recipient in, the exact bytes of one mail out, or what another channel needs."""

from __future__ import annotations

import base64
import hashlib
import html
import os
from collections.abc import Iterable, Mapping
from email.utils import format_datetime
from typing import Any

from sqlalchemy import Engine

from lifecycle.addresses import ascii_address, domain_of
from lifecycle.clock import Clock, utc_now
from lifecycle.db.engine import reading
from lifecycle.errors import ContentError
from lifecycle.messages.anchors import track
from lifecycle.messages.dkim import Signer, load_signer
from lifecycle.messages.headers import (
    address_header,
    header,
    mailbox_header,
    marked_subject,
    text_header,
    uri_header,
)
from lifecycle.messages.keys import mail_key, mark, note_key
from lifecycle.messages.links import plan_campaign, read_links
from lifecycle.messages.notes import NoteTemplate, broken_note_rules, load_note, track_note
from lifecycle.messages.records import Letter, Mail, Note, Outgoing, Recipient, Rendered
from lifecycle.messages.templates import load_templates
from lifecycle.messages.variables import first_name, variables
from lifecycle.settings import Config, Environment
from lifecycle.settings.channels import EmailAccount, EmailChannel
from lifecycle.settings.models import Shop
from lifecycle.tokens import Purpose, Token, sign

__all__ = ["Composer", "Mail", "Recipient"]


class Composer:
    """Makes the messages of one plan; `prepare_links` must have numbered its links.

    `env`: where the keys that sign mails are found. Raises ConfigError where one is wrong.
    """

    def __init__(
        self,
        engine: Engine,
        config: Config,
        environment: Environment,
        plan_id: int,
        *,
        env: Mapping[str, str] = os.environ,
        clock: Clock = utc_now,
    ) -> None:
        with reading(engine) as connection:
            self._campaign = plan_campaign(connection, plan_id)
        self._links = read_links(engine, plan_id)
        self._templates = load_templates(environment.templates_dir)
        self._config = config
        self._secret = environment.secret
        self._base_url = config.channels_file.tracking.base_url.rstrip("/")
        self._settings = config.channel(self._campaign.channel)
        self._env = env
        self._clock = clock
        self._senders: dict[tuple[str, str, str], _Sender] = {}
        self._notes: dict[str, NoteTemplate] = {}

    def compose(self, recipient: Recipient) -> Outgoing:
        """The same recipient gets the same Message-ID or key, links and boundary again.

        Raises ContentError where the address or anything else cannot become a sound message.
        """
        if isinstance(self._settings, EmailChannel):
            return self._mail(recipient, self._settings)
        return self._note(recipient)

    def _mail(self, recipient: Recipient, settings: EmailChannel) -> Mail | Letter:
        address = ascii_address(recipient.address)
        if address is None:
            raise ContentError("the customer has no address that plain SMTP can carry")
        sender = self._sender(recipient, settings)
        tokens = {purpose: self._token(purpose, recipient) for purpose in _TOKENS}
        unsubscribe_url = self._url(Purpose.UNSUBSCRIBE, tokens[Purpose.UNSUBSCRIBE])
        rendered, tracked = self._render(recipient, sender.shop, tokens, unsubscribe_url)
        if not rendered.subject:
            raise ContentError("the subject is empty")
        message_id = mail_key(self._secret, recipient.message_id, sender.domain)
        unsubscribe_mail = f"u+{tokens[Purpose.UNSUBSCRIBE]}@{sender.bounce_domain}"
        listed = f"mailto:{unsubscribe_mail}?subject=unsubscribe"
        envelope_from = f"b+{tokens[Purpose.BOUNCE]}@{sender.bounce_domain}"
        further = sender.headers
        if recipient.purpose != "transactional":
            further = ((_LIST_UNSUBSCRIBE, (unsubscribe_url, listed)), *further)
        if sender.account.api is not None:
            return Letter(
                send_id=recipient.message_id,
                key=message_id,
                envelope_from=envelope_from,
                to=address,
                sender_name=sender.name,
                sender_address=sender.address,
                reply_to=sender.shop.sender.reply_to,
                subject=rendered.subject,
                html=rendered.html,
                text=rendered.text,
                headers=_plainly(further),
                personal=_personal(recipient, (unsubscribe_url, unsubscribe_mail, *tracked)),
                what=recipient.what,
                purpose=recipient.purpose,
                shop=recipient.shop,
            )
        head = self._head(recipient, sender, address, rendered.subject, message_id, further)
        content = head.encode("ascii") + _alternative(rendered, boundary=self._boundary(recipient))
        if sender.signer is not None:
            content = sender.signer.sign(content) + content
        return Mail(recipient.message_id, message_id, envelope_from, address, content)

    def _note(self, recipient: Recipient) -> Note:
        assert recipient.address is not None, "the drain has seen to it"
        if recipient.locale not in self._notes:
            self._notes[recipient.locale] = load_note(self._templates.folder, recipient.template, recipient.locale)
        shop = self._config.shop(recipient.shop)
        url = self._url(Purpose.UNSUBSCRIBE, self._token(Purpose.UNSUBSCRIBE, recipient))
        rendered = self._notes[recipient.locale].render(self._variables(recipient, shop, url))
        said = track_note(rendered, self._links, lambda link_id: self._click(recipient, link_id))
        if broken := next(broken_note_rules(said, self._settings.kind), None):
            raise ContentError(broken)
        return Note(
            send_id=recipient.message_id,
            key=note_key(self._secret, recipient.message_id),
            to=recipient.address,
            order_id=recipient.order_id,
            purpose=recipient.purpose,
            what=recipient.what,
            shop=recipient.shop,
            language=said.language or recipient.locale,
            title=said.title,
            text=said.text,
            template=said.template,
            parameters=said.parameters,
            extras=said.extras,
        )

    def _sender(self, recipient: Recipient, settings: EmailChannel) -> _Sender:
        key = recipient.shop, recipient.locale, recipient.purpose
        if key not in self._senders:
            account = settings.account(*key)
            shop = self._config.shop(recipient.shop)
            self._senders[key] = _Sender(
                shop,
                account,
                name=account.sender_name or shop.sender.name,
                address=account.sender_address or shop.sender.address,
                bounce_domain=account.bounce_domain or settings.bounce_domain,
                signer=load_signer(account.dkim, self._env) if account.dkim else None,
                topic=self._campaign.topic,
                purpose=recipient.purpose,
                feedback=f"{recipient.what}:{recipient.purpose}:{shop.name}",
            )
        return self._senders[key]

    def _render(
        self, recipient: Recipient, shop: Shop, tokens: Mapping[Purpose, str], unsubscribe_url: str
    ) -> tuple[Rendered, list[str]]:
        """The mail's parts, and the tracked addresses in them."""
        template = self._templates.mail(recipient.template, recipient.locale)
        pixel_url = self._url(Purpose.OPEN, tokens[Purpose.OPEN]) + ".gif"
        rendered = template.render(self._variables(recipient, shop, unsubscribe_url), pixel_url=pixel_url)
        used: dict[int, str] = {}

        def address(link_id: int) -> str:
            return used.get(link_id) or used.setdefault(link_id, self._click(recipient, link_id))

        page, text = track(rendered.html, rendered.text, unsubscribe_url, self._links, address)
        if not text.strip():
            raise ContentError("the mail has no words")
        subject = marked_subject(rendered.subject, recipient.country, recipient.purpose)
        return Rendered(subject, page, text), [pixel_url, *used.values()]

    def _variables(self, recipient: Recipient, shop: Shop, unsubscribe_url: str) -> Mapping[str, Any]:
        return variables(
            self._campaign, shop, locale=recipient.locale, name=recipient.name, unsubscribe_url=unsubscribe_url
        )

    def _head(
        self,
        recipient: Recipient,
        sender: _Sender,
        address: str,
        subject: str,
        message_id: str,
        further: tuple[tuple[str, Any], ...],
    ) -> str:
        return "".join(
            (
                sender.from_header,
                address_header("To", address),
                sender.reply_to_header,
                text_header("Subject", subject),
                header("Date", format_datetime(self._clock())),
                header("Message-ID", message_id),
                *(uri_header(name, *value) if isinstance(value, tuple) else header(name, value)
                  for name, value in further),
                header("X-Send-ID", str(recipient.message_id)),
            )
        )  # fmt: skip

    def _click(self, recipient: Recipient, link_id: int) -> str:
        return self._url(Purpose.CLICK, self._token(Purpose.CLICK, recipient, link_id))

    def _url(self, purpose: Purpose, token: str) -> str:
        return f"{self._base_url}/{purpose}/{token}"

    def _token(self, purpose: Purpose, recipient: Recipient, link_id: int = 0) -> str:
        return sign(Token(purpose, recipient.message_id, link_id), self._secret)

    def _boundary(self, recipient: Recipient) -> str:
        return f"=_{mark(self._secret, recipient.message_id)[16:48]}"


_TOKENS = (Purpose.OPEN, Purpose.UNSUBSCRIBE, Purpose.BOUNCE)
_LIST_UNSUBSCRIBE = "List-Unsubscribe"


class _Sender:
    """What all mails of one account, shop and purpose have in common, written once. `headers`: values that are
    tuples are addresses."""

    def __init__(
        self,
        shop: Shop,
        account: EmailAccount,
        *,
        name: str,
        address: str,
        bounce_domain: str,
        signer: Signer | None,
        topic: str,
        purpose: str,
        feedback: str,
    ) -> None:
        self.shop, self.account, self.name, self.address = shop, account, name, address
        self.bounce_domain, self.signer = bounce_domain, signer
        self.domain = domain_of(address)
        self.from_header = mailbox_header("From", name, address)
        self.reply_to_header = address_header("Reply-To", shop.sender.reply_to)
        self.headers: tuple[tuple[str, Any], ...] = (("Feedback-ID", f"{feedback}:{_sender_id(self.domain)}"),)
        if purpose != "transactional":
            of_list = ("List-ID", (f"{topic.replace('_', '-')}.{self.domain}",))
            self.headers = (("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"), of_list, *self.headers)


def _plainly(headers: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, str], ...]:
    """On one line each, for services that fold by themselves. They get the message's number in their own field."""
    return tuple(
        (name, ", ".join(f"<{uri}>" for uri in value) if isinstance(value, tuple) else value)
        for name, value in headers
    )


def _personal(recipient: Recipient, pieces: Iterable[str]) -> tuple[str, ...]:
    """Pieces as they stand in a mail: addresses with tokens, the name as in text and as in a page."""
    name = (recipient.name or "").strip()
    names = (name, first_name(name)) if len(name) > 2 else ()
    both = [form for each in (*pieces, *names) if len(each) > 2 for form in (each, html.escape(each))]
    return tuple(dict.fromkeys(both))


def _sender_id(domain: str | None) -> str:
    """Feedback-ID wants one stable name of 5 to 15 characters for all mail of a sender."""
    return f"tern{hashlib.sha256(str(domain).encode()).hexdigest()[:8]}"


def _alternative(rendered: Rendered, *, boundary: str) -> bytes:
    """MIME headers and the two parts, text first, in base64: half of quoted-printable for Chinese."""
    return b"".join(
        (
            b"MIME-Version: 1.0\r\nContent-Type: multipart/alternative;\r\n",
            f' boundary="{boundary}"\r\n\r\n'.encode(),
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
    encoded = base64.b64encode(raw)
    lines = (encoded[start : start + 76] for start in range(0, len(encoded), 76))
    return head.encode() + b"\r\n".join((*lines, b""))
