"""Which account writes a mail, and what it looks like for a relay, a service, and with a signature."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import Engine

from lifecycle import tokens
from lifecycle.errors import ConfigError
from lifecycle.messages.compose import Composer
from lifecycle.messages.links import prepare_links
from lifecycle.messages.records import Letter, Mail, Outgoing
from lifecycle.settings import Config, Environment
from lifecycle.tokens import Purpose
from tests.ledger.people import NOW, add_people, add_plan
from tests.messages.test_compose import ZOE, database_url, parsed, raw_headers

__all__ = ["database_url"]

SMTP = {"host": "x", "port": 25}
ACCOUNTS: list[dict[str, Any]] = [
    {"name": "orders", "purposes": ["transactional"], "api": {"service": "postmark", "key_env": "PM"}},
    {
        "name": "abroad", "locales": ["en"], "smtp": SMTP, "bounce_domain": "b.intl.example",
        "sender_name": "Atlas International", "sender_address": "news@intl.example",
    },
]  # fmt: skip


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def compose(
    engine: Engine, environment: Environment, changed: Callable[..., Config], key: rsa.RSAPrivateKey
) -> Callable[..., Outgoing]:
    signed = {"domain": "atlas.example.com", "selector": "s1", "key_env": "DKIM_KEY"}
    channel = {"name": "email", "kind": "email", "smtp": SMTP, "bounce_domain": "b.example", "dkim": signed}
    config = changed(
        channels_file={
            "tracking": {"base_url": "https://t.brand.example"},
            "channels": [channel | {"accounts": ACCOUNTS}],
        }
    )
    plan_id = add_plan(engine, config, add_people(engine, ["zoe@example.com"]), locale="fr")
    prepare_links(engine, config, environment, plan_id)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()

    def build(env: dict[str, str] | None = None, **changes: Any) -> Outgoing:
        wanted = {"DKIM_KEY": pem} if env is None else env
        composer = Composer(engine, config, environment, plan_id, env=wanted, clock=lambda: NOW)
        return composer.compose(replace(ZOE, **changes))

    return build


def test_main_account_signs_and_a_receiver_finds_it_good(
    compose: Callable[..., Outgoing], key: rsa.RSAPrivateKey
) -> None:
    mail = compose()
    assert isinstance(mail, Mail)
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    asked: list[bytes] = []

    def dns(name: bytes, timeout: int = 5) -> bytes:
        asked.append(name)
        return record

    assert dkim.verify(mail.content, dnsfunc=dns)
    assert asked == [b"s1._domainkey.atlas.example.com."]
    forged = mail.content.replace(b"https://t.brand.example/u/", b"https://t.brand.example/x/", 1)
    assert not dkim.verify(forged, dnsfunc=dns)
    signed = raw_headers(mail)["DKIM-Signature"].lower()
    assert "list-unsubscribe:list-unsubscribe-post" in signed
    parsed(mail)


def test_missing_key_is_said_before_anybody_gets_a_mail(compose: Callable[..., Outgoing]) -> None:
    with pytest.raises(ConfigError, match="DKIM_KEY"):
        compose(env={})


def test_account_of_a_language_has_its_own_sender(compose: Callable[..., Outgoing]) -> None:
    mail, usual = compose(locale="en", env={}), compose()
    assert isinstance(mail, Mail) and isinstance(usual, Mail)
    assert raw_headers(mail)["From"] == "Atlas International <news@intl.example>"
    assert mail.envelope_from.endswith("@b.intl.example") and mail.key.endswith("@intl.example>")
    assert "DKIM-Signature" not in raw_headers(mail), "its relay signs"
    assert usual.envelope_from.endswith("@b.example")


def test_letter_for_a_service_has_the_same_parts(
    compose: Callable[..., Outgoing], environment: Environment
) -> None:
    letter = compose(purpose="transactional")
    assert isinstance(letter, Letter)
    assert (letter.sender_name, letter.sender_address) == ("Atlas", "news@atlas.example.com")
    assert (letter.to, letter.reply_to) == ("Zoe.Muller@xn--exmple-cua.de", "help@atlas.example.com")
    names = [name for name, _ in letter.headers]
    assert names == ["Feedback-ID"], "an order mail is no list's"
    assert letter.key == f"<4711.{letter.key.split('.')[1].split('@')[0]}@atlas.example.com>"
    (token,) = {piece for piece in letter.personal if piece.startswith("https://t.brand.example/u/")}
    read = tokens.read(token.rpartition("/")[2], Purpose.UNSUBSCRIBE, environment.secret)
    assert read is not None and read.message_id == 4711
    assert "Zoé" in letter.personal
    left = letter.html
    for piece in sorted(letter.personal, key=len, reverse=True):
        left = left.replace(piece, "·")
    other = compose(purpose="transactional", message_id=4712, name="Ada Lovelace")
    assert isinstance(other, Letter)
    same = other.html
    for piece in sorted(other.personal, key=len, reverse=True):
        same = same.replace(piece, "·")
    assert left == same, "without what is personal, the mails of two people are one"
