"""Signatures, checked by dkimpy as a receiver would."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from email.header import Header
from pathlib import Path
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.errors import ConfigError, ContentError
from lifecycle.messages.dkim import SIGNED, Signer, load_signer
from lifecycle.settings.channels import Dkim

DOMAIN, SELECTOR = "brand.example", "tern1"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)

HEADERS = {
    "From": "Brand <news@brand.example>",
    "To": "anna@example.com",
    "Subject": "=?utf-8?q?Zo=C3=A9?=",
    "Date": "Tue, 24 Nov 2026 10:00:00 +0000",
    "Message-ID": "<1.ab@brand.example>",
    "Reply-To": "help@brand.example",
    "MIME-Version": "1.0",
    "Content-Type": 'multipart/alternative; boundary="=_x"',
    "List-Unsubscribe": "<https://t.brand.example/u/TOKEN>,\r\n <mailto:u+TOKEN@bounce.brand.example?subject=x>",
    "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    "List-ID": "<promo.brand.example>",
    "Feedback-ID": "again:marketing:atlas:tern0001",
    "X-Send-ID": "1",
}
BODY = b"--=_x\r\nContent-Type: text/plain\r\n\r\nHello  Anna \r\n--=_x--\r\n"


def pem(key: Any, encryption: Any = None) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return bytes(key.private_bytes(encoding, form, encryption or serialization.NoEncryption()))


def content(headers: dict[str, str] = HEADERS, body: bytes = BODY) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode() + b"\r\n" + body


def verifies(mail: bytes) -> bool:
    return bool(dkim.verify(mail, dnsfunc=published, minkey=2048))


def published(name: bytes, timeout: int = 5) -> bytes:
    assert name == f"{SELECTOR}._domainkey.{DOMAIN}.".encode()
    public = KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer(DOMAIN, SELECTOR, pem(KEY))


def tags(signature: bytes) -> dict[str, str]:
    value = b"".join(signature.partition(b":")[2].split()).decode()
    return dict(part.split("=", 1) for part in value.split(";"))


def test_signature_covers_all_that_must_be_covered(signer: Signer) -> None:
    mail = content()
    signature = signer.sign(mail)
    assert verifies(signature + mail)
    found = tags(signature)
    assert found["h"] == ":".join([*SIGNED, "from"])
    assert {"list-unsubscribe", "list-unsubscribe-post"} <= set(found["h"].split(":"))
    assert (found["v"], found["a"], found["c"], found["d"], found["s"]) == (
        "1", "rsa-sha256", "relaxed/relaxed", DOMAIN, SELECTOR,
    )  # fmt: skip
    assert "t" not in found and "l" not in found


def test_signature_is_a_sound_header(signer: Signer) -> None:
    signature = signer.sign(content())
    assert signature.endswith(b"\r\n") and signature.isascii()
    lines = signature[:-2].split(b"\r\n")
    assert max(map(len, lines)) <= 78 and all(line.startswith(b" ") and line.strip() for line in lines[1:])
    assert b"\n" not in signature.replace(b"\r\n", b"") and b"\r" not in signature.replace(b"\r\n", b"")


def test_same_mail_same_signature_unless_it_is_dated(signer: Signer) -> None:
    mail = content()
    assert signer.sign(mail) == signer.sign(mail)
    at = datetime(2026, 11, 24, 10, tzinfo=UTC)
    dated = signer.sign(mail, at=at)
    assert tags(dated)["t"] == str(int(at.timestamp())) and verifies(dated + mail)


@pytest.mark.parametrize("name", list(HEADERS))
def test_changed_header(signer: Signer, name: str) -> None:
    signature = signer.sign(content())
    for value in (f"{HEADERS[name]}x", f"x{HEADERS[name]}", HEADERS[name][:-1]):
        assert not verifies(signature + content({**HEADERS, name: value}))
    without = {each: value for each, value in HEADERS.items() if each != name}
    assert not verifies(signature + content(without))


@pytest.mark.parametrize("body", [BODY + b"x", BODY.replace(b"Anna", b"Anne"), b"", b"\r\nx" + BODY])
def test_changed_body(signer: Signer, body: bytes) -> None:
    assert not verifies(signer.sign(content()) + content(body=body))


@pytest.mark.parametrize("where", ["in front", "behind"])
def test_added_from(signer: Signer, where: str) -> None:
    mail, extra = content(), b"From: Mallory <m@evil.example>\r\n"
    head, _, body = mail.partition(b"\r\n\r\n")
    added = extra + mail if where == "in front" else head + b"\r\n" + extra + b"\r\n" + body
    assert not verifies(signer.sign(mail) + added)


def test_what_relays_change_on_the_way_does_no_harm(signer: Signer) -> None:
    mail = content()
    on_the_way = content({name.upper(): f" {value}\t " for name, value in HEADERS.items()}, BODY + b"\r\n\r\n")
    assert verifies(
        b"Received: from x\r\n" + signer.sign(mail) + on_the_way.replace(b"Hello  Anna ", b"Hello Anna")
    )


def test_mail_without_from(signer: Signer) -> None:
    with pytest.raises(ContentError, match="no From"):
        signer.sign(b"To: a@example.com\r\nX-From: b\r\n\r\nFrom: c\r\n")


def test_further_headers_of_one_name_are_all_signed(signer: Signer) -> None:
    mail = b"From: a@b.example\r\nSubject: one\r\nTo: x@y.example\r\nSubject: two\r\n\r\nHi\r\n"
    signature = signer.sign(mail)
    assert tags(signature)["h"] == "from:to:subject:subject:from" and verifies(signature + mail)
    assert not verifies(signature + mail.replace(b"one", b"1"))


_WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs", "S")), max_size=60)
_FOLD = st.sampled_from([" ", "  ", "\t", "\r\n ", "\r\n\t", " \r\n  "])


@st.composite
def _values(draw: st.DrawFn) -> str:
    """Words with folds and runs of white space between, or encoded words."""
    if draw(st.booleans()):
        return Header(draw(_WORDS), "utf-8", maxlinelen=76).encode(linesep="\r\n")
    pieces = draw(st.lists(st.from_regex(r"[!-9;-~]{1,20}", fullmatch=True), min_size=1, max_size=6))
    return draw(st.sampled_from(["", "\t", "  "])) + "".join(piece + draw(_FOLD) for piece in pieces).strip("\r\n")


_NAMES = st.sampled_from([*SIGNED, "X-Other", "Received"]).flatmap(
    lambda name: st.sampled_from([name, name.title(), name.upper()])
)
_BODIES = st.lists(
    st.sampled_from([b"\r\n", b" ", b"\t", b"a", b"words  here", b" \r\n", b"\r\n\r\n", b".", b"=", b"x" * 70]),
    max_size=12,
).map(b"".join)


@settings(max_examples=120, deadline=None)
@given(
    fields=st.lists(st.tuples(_NAMES, _values()), max_size=10),
    sender=_values(),
    position=st.integers(0, 10),
    body=_BODIES,
    gap=st.sampled_from(["", " ", "  "]),
)
def test_whatever_is_signed_verifies(
    signer: Signer, fields: list[tuple[str, str]], sender: str, position: int, body: bytes, gap: str
) -> None:
    fields.insert(position, ("From", sender))
    mail = "".join(f"{name}:{gap}{value}\r\n" for name, value in fields).encode() + b"\r\n" + body
    on_the_line = mail if mail.endswith(b"\r\n") else mail + b"\r\n"
    assert verifies(signer.sign(mail) + on_the_line)
    assert signer.sign(on_the_line) == signer.sign(mail)


def settings_of(**changes: str) -> Dkim:
    return Dkim.model_validate({"domain": DOMAIN, "selector": SELECTOR, **changes})


def test_key_from_the_environment_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(pem(KEY))
    text = pem(KEY).decode()
    mail = content()
    for found in (
        load_signer(settings_of(key_env="KEY"), {"KEY": text}),
        load_signer(settings_of(key_env="KEY"), {"KEY": text.replace("\n", "\\n")}),
        load_signer(settings_of(key_file=str(tmp_path / "key.pem")), {}),
    ):
        assert verifies(found.sign(mail) + mail)


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        (lambda: b"secret", "not a private key as PEM"),
        (lambda: pem(KEY)[:300], "not a private key as PEM"),
        (lambda: pem(ec.generate_private_key(ec.SECP256R1())), "not an RSA key"),
        (lambda: pem(ed25519.Ed25519PrivateKey.generate()), "not an RSA key"),
        (
            lambda: pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
            "has 1024 bits; it needs 2048",
        ),
        (lambda: pem(KEY, serialization.BestAvailableEncryption(b"x")), "is encrypted"),
    ],
)
def test_key_that_cannot_sign(key: Callable[[], bytes], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_signer(settings_of(key_env="KEY"), {"KEY": key().decode()})
    assert "dkim of brand.example" in str(caught.value) and "BEGIN RSA" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_key_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TERN_DKIM_KEY is not set"):
        load_signer(settings_of(key_env="TERN_DKIM_KEY"), {})
    with pytest.raises(ConfigError, match=r"key_file .*missing\.pem cannot be read: No such file"):
        load_signer(settings_of(key_file=str(tmp_path / "missing.pem")), {})


@pytest.mark.parametrize(
    "wrong", [{"domain": "exämple.de"}, {"domain": "a b"}, {"selector": "x;y"}, {"selector": "x\r\n"}]
)
def test_names_that_dns_does_not_have(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"dkim.{next(iter(wrong))}"):
        load_signer(settings_of(key_env="KEY", **wrong), {"KEY": pem(KEY).decode()})
