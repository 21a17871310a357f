"""From settings to something that sends: which account, with which secrets, and what is refused before."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from lifecycle.channels.opening import OpenWays, open_channel
from lifecycle.channels.postmark import PostmarkChannel
from lifecycle.channels.smtp import SmtpChannel
from lifecycle.errors import ConfigError
from lifecycle.messages.records import Recipient
from lifecycle.settings.channels import AnyChannel, EmailChannel

READ: TypeAdapter[Any] = TypeAdapter(AnyChannel)
SMTP = {"host": "127.0.0.1", "port": 25, "security": "none"}
POSTMARK = {"service": "postmark", "key_env": "PM_KEY"}


def email(**changes: Any) -> EmailChannel:
    wanted = {"name": "email", "kind": "email", "smtp": SMTP, "bounce_domain": "b.example.net", **changes}
    return EmailChannel.model_validate(wanted)


def recipient(shop: str = "atlas", locale: str = "en", purpose: str = "marketing") -> Recipient:
    return Recipient(
        message_id=1, plan_id=1, what="winback", customer_id=1, channel="email", purpose=purpose,
        shop=shop, template="winback", locale=locale, address="a@example.com", name=None,
    )  # fmt: skip


ACCOUNTS = [
    {"name": "orders", "purposes": ["transactional"], "api": POSTMARK},
    {"name": "french", "shops": ["atlas"], "locales": ["fr"], "smtp": SMTP},
]


@pytest.mark.parametrize(
    ("to", "account", "kind"),
    [
        (recipient(purpose="transactional", locale="fr"), "orders", PostmarkChannel),
        (recipient(locale="fr"), "french", SmtpChannel),
        (recipient(shop="harbour", locale="fr"), "main", SmtpChannel),
        (recipient(), "main", SmtpChannel),
    ],
)
def test_first_account_that_fits_sends(to: Recipient, account: str, kind: type) -> None:
    with OpenWays(email(accounts=ACCOUNTS), {"PM_KEY": "x"}) as ways:
        found, channel = ways.way(to)
        assert (found, type(channel)) == (account, kind)
        assert ways.way(to)[1] is channel, "opened once"


def test_missing_secret_names_the_field_and_the_variable() -> None:
    with OpenWays(email(accounts=ACCOUNTS), {}) as ways, pytest.raises(ConfigError) as caught:
        ways.way(recipient(purpose="transactional"))
    assert "email.accounts.orders.api needs the key of postmark; set PM_KEY" in str(caught.value)
    with pytest.raises(ConfigError, match=r"email\.smtp has a username but no password; set SMTP_PW"):
        open_channel(email(smtp={**SMTP, "username": "tern", "password_env": "SMTP_PW"}), {})


def test_secrets_go_nowhere_in_clear_text() -> None:
    hook = READ.validate_python(
        {"name": "h", "kind": "webhook", "url": "http://hooks.example.net/x", "secret_env": "S"}
    )
    with pytest.raises(ConfigError, match=r"h\.url must begin with https"):
        open_channel(hook, {"S": "secret"})


@pytest.mark.parametrize(
    "changes",
    [
        {"api": POSTMARK},
        {"smtp": None},
        {"accounts": [{"name": "main", "smtp": SMTP}]},
        {"accounts": [{"name": "a", "smtp": SMTP}, {"name": "a", "smtp": SMTP}]},
        {"dkim": {"domain": "x.example", "selector": "s", "key_env": "K", "key_file": "f"}},
        {"accounts": [{"name": "a", "api": {"service": "mailgun", "key_env": "K"}}]},
    ],
)
def test_settings_that_contradict_themselves(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        email(**changes)
