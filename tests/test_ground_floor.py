"""Money, addresses, tokens and instants."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.addresses import address_hash, email_key, mailable
from lifecycle.clock import as_utc, parse_instant
from lifecycle.money import convert_minor, from_minor, is_currency, show, to_minor
from lifecycle.tokens import Purpose, Token, read, sign

SECRET = b"a secret for tests, 32 characters"


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("12.345", "EUR", 1234),
        ("12.355", "EUR", 1236),
        ("100", "JPY", 100),
        ("1.2345", "KWD", 1234),
        (-3, "USD", -300),
    ],
)
def test_minor_units(amount: str, currency: str, minor: int) -> None:
    assert to_minor(amount, currency) == minor


@given(st.integers(-(10**15), 10**15), st.sampled_from(["EUR", "JPY", "KWD"]))
def test_minor_units_there_and_back(minor: int, currency: str) -> None:
    assert to_minor(from_minor(minor, currency), currency) == minor


def test_what_is_no_money_is_said() -> None:
    with pytest.raises(ValueError, match='"twelve" is not an amount'):
        to_minor("twelve", "EUR")
    with pytest.raises(ValueError, match="not an amount"):
        to_minor("NaN", "EUR")
    assert not is_currency("eur")
    assert not is_currency(None)


def test_conversion_and_words() -> None:
    assert convert_minor(1000, "JPY", "EUR", Decimal("0.006")) == 600
    assert show(123450, "EUR", "fr").replace("\u202f", " ").replace("\xa0", " ") == "1 234,50 €"


def test_addresses_have_one_key() -> None:
    assert email_key(" Ada@Example.COM ") == "ada@example.com"
    assert mailable("anna@exämple.de") == "anna@xn--exmple-cua.de"
    assert email_key("a.b+c@example.com") != email_key("ab@example.com")


@pytest.mark.parametrize(
    "wrong", [None, "", "nobody", "a@b@c.com", "x@localhost", "ü@example.com", "a\r\nb@example.com"]
)
def test_what_cannot_be_mailed(wrong: str | None) -> None:
    assert mailable(wrong) is None


def test_hash_depends_on_key_and_channel_only() -> None:
    one = address_hash(SECRET, "email", "Ada@example.com")
    assert one == address_hash(SECRET, "email", "ada@example.com")
    assert one != address_hash(b"another", "email", "ada@example.com")
    assert one != address_hash(SECRET, "whatsapp", "ada@example.com")
    assert "ada" not in one


@given(st.sampled_from(Purpose), st.integers(0, 2**64 - 1), st.integers(0, 2**16 - 1))
def test_tokens_come_back(purpose: Purpose, message_id: int, link_id: int) -> None:
    token = Token(purpose, message_id, link_id)
    text = sign(token, SECRET)
    assert len(text) == 30
    assert read(text, purpose, SECRET) == token


@given(st.sampled_from(Purpose), st.sampled_from(Purpose), st.integers(0, 2**64 - 1))
def test_a_token_serves_one_purpose(made_for: Purpose, used_for: Purpose, message_id: int) -> None:
    found = read(sign(Token(made_for, message_id), SECRET), used_for, SECRET)
    assert (found is not None) == (made_for is used_for)


@given(st.text(max_size=60))
def test_garbage_is_no_token(text: str) -> None:
    assert read(text, Purpose.CLICK, SECRET) is None


@given(st.integers(0, 29), st.sampled_from("ABCabc019-_é\x00"))
def test_one_changed_character_breaks_a_token(position: int, character: str) -> None:
    text = sign(Token(Purpose.CLICK, 7, 1), SECRET)
    changed = text[:position] + character + text[position + 1 :]
    found = read(changed, Purpose.CLICK, SECRET)
    # The last character carries unused bits: another spelling of the very same token is no forgery.
    assert found is None or found == Token(Purpose.CLICK, 7, 1)


def test_another_key_reads_nothing() -> None:
    assert read(sign(Token(Purpose.OPEN, 1), SECRET), Purpose.OPEN, b"other") is None


def test_instants_need_a_zone() -> None:
    assert parse_instant("2026-11-22") == datetime(2026, 11, 22, tzinfo=UTC)
    assert parse_instant("2026-11-22T10:00:00+01:00") == datetime(2026, 11, 22, 9, tzinfo=UTC)
    with pytest.raises(ValueError, match="has no time zone"):
        parse_instant("2026-11-22T10:00:00")
    with pytest.raises(ValueError, match='"tomorrow" is not an instant'):
        parse_instant("tomorrow")
    with pytest.raises(ValueError, match="has no time zone"):
        as_utc(datetime(2026, 1, 1))  # noqa: DTZ001 (the point of the test)
