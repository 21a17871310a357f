"""From the settings of a channel to something that sends."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from lifecycle.channels.aliexpress import AliExpressMessages
from lifecycle.channels.amazon import AmazonMessaging, AmazonSolicitations
from lifecycle.channels.base import Channel
from lifecycle.channels.ebay import EbayMessages
from lifecycle.channels.mailgun import MailgunChannel
from lifecycle.channels.messenger import Messenger
from lifecycle.channels.postmark import PostmarkChannel
from lifecycle.channels.sendgrid import SendGridChannel
from lifecycle.channels.ses import SesChannel
from lifecycle.channels.smtp import SmtpChannel
from lifecycle.channels.tiktok import TikTokEngagement
from lifecycle.channels.webhook import Webhook
from lifecycle.channels.whatsapp import WhatsApp
from lifecycle.clock import Clock, utc_now
from lifecycle.errors import ConfigError
from lifecycle.messages.records import Recipient
from lifecycle.settings.channels import AnyChannel, EmailAccount, EmailChannel, EmailService, Smtp
from lifecycle.settings.mailboxes import limits_of

_PLATFORMS: Mapping[str, Callable[..., Any]] = {
    "whatsapp": WhatsApp,
    "messenger": Messenger,
    "aliexpress_messages": AliExpressMessages,
    "amazon_solicitations": AmazonSolicitations,
    "amazon_messaging": AmazonMessaging,
    "ebay_messages": EbayMessages,
    "tiktok_engagement": TikTokEngagement,
    "webhook": Webhook,
}
_SERVICES: Mapping[str, Callable[[EmailService, str], Any]] = {
    "sendgrid": SendGridChannel,
    "mailgun": MailgunChannel,
    "ses": SesChannel,
    "postmark": PostmarkChannel,
}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class OpenWays:
    """The accounts of one channel, each opened when the first message needs it and closed with the `with`.

    `provider`: the mailbox provider of all that is sent, whose limit of mails per connection holds. `env`: where
    passwords and keys are found. Raises ConfigError, when a message needs it, for one that is missing.
    """

    def __init__(
        self,
        settings: AnyChannel,
        env: Mapping[str, str] = os.environ,
        *,
        provider: str = "",
        clock: Clock = utc_now,
    ) -> None:
        self._settings, self._env, self._provider, self._clock = settings, env, provider, clock
        self._stack = ExitStack()
        self._open: dict[str, Channel] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def way(self, recipient: Recipient) -> tuple[str, Channel]:
        """The account that sends to a recipient, and its channel."""
        if not isinstance(self._settings, EmailChannel):
            return "", self._opened("", lambda: open_channel(self._settings, self._env, self._clock))
        account = self._settings.account(recipient.shop, recipient.locale, recipient.purpose)
        settings = self._settings
        return account.name, self._opened(
            account.name, lambda: open_account(settings, account, self._env, provider=self._provider)
        )

    def _opened(self, name: str, make: Callable[[], Channel]) -> Channel:
        if name not in self._open:
            self._open[name] = self._stack.enter_context(make())
        return self._open[name]


def open_channel(settings: AnyChannel, env: Mapping[str, str] = os.environ, clock: Clock = utc_now) -> Channel:
    """Of e-mail the main account. Connects with the first message. Raises ConfigError for a secret that is
    missing, or an address without https that leads off this machine."""
    if isinstance(settings, EmailChannel):
        return open_account(settings, settings.main, env)
    _check_address(settings.url, f"{settings.name}.url")
    channel: Channel = _PLATFORMS[settings.kind](settings, env, clock)
    return channel


def open_account(
    settings: EmailChannel, account: EmailAccount, env: Mapping[str, str], *, provider: str = ""
) -> Channel:
    """Raises ConfigError where a password or key is wanted and not set."""
    where = settings.name if account.name == settings.main.name else f"{settings.name}.accounts.{account.name}"
    if account.smtp is not None:
        per_connection = limits_of(settings, provider).per_connection if provider else None
        return SmtpChannel(account.smtp, _password(account.smtp, env, where), per_connection=per_connection)
    assert account.api is not None, "the settings see to it"
    _check_address(account.api.url, f"{where}.api.url")
    key = env.get(account.api.key_env, "")
    if not key:
        raise ConfigError(
            f"config/channels.yaml: {where}.api needs the key of {account.api.service}; set {account.api.key_env}"
        )
    channel: Channel = _SERVICES[account.api.service](account.api, key)
    return channel


def _password(smtp: Smtp, env: Mapping[str, str], where: str) -> str:
    password = env.get(smtp.password_env, "") if smtp.password_env else ""
    if smtp.username and not password:
        raise ConfigError(
            f"config/channels.yaml: {where}.smtp has a username but no password; "
            f"set {smtp.password_env or 'password_env and the variable that it names'}"
        )
    return password


def _check_address(url: str, where: str) -> None:
    parts = urlsplit(url)
    if url and parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise ConfigError(f"config/channels.yaml: {where} must begin with https, because secrets go there")
