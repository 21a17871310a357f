"""The exact bytes of a mail, read back by the standard library."""

from __future__ import annotations

import email
import email.policy
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from lifecycle import tokens
from lifecycle.errors import ContentError
from lifecycle.messages.compose import Composer, Mail, Recipient
from lifecycle.messages.headers import address_header, header, mailbox_header, text_header, uri_header
from lifecycle.messages.links import prepare_links
from lifecycle.settings import Config, Environment
from lifecycle.tokens import Purpose
from tests.ledger.people import NOW, add_people, add_plan

ZOE = Recipient(
    message_id=4711,
    plan_id=1,
    what="winback",
    customer_id=1,
    channel="email",
    purpose="marketing",
    shop="atlas",
    template="winback",
    locale="fr",
    address="Zoe.Muller@exämple.DE",
    name="Zoé Müller",
)
TOKEN = r"[A-Za-z0-9_-]{30}"


@pytest.fixture
def database_url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """What is composed does not depend on the database."""
    path = shutil.copy(request.getfixturevalue("_sqlite_template"), tmp_path / "tern.db")
    return f"sqlite:///{path}"


@pytest.fixture
def compose(engine: Engine, environment: Environment, changed: Callable[..., Config]) -> Callable[..., Mail]:
    """`compose(recipient)`, and for some at another time or with other templates."""
    config = changed(
        channels_file={
            "tracking": {"base_url": "https://t.brand.example"},
            "channels": [
                {"name": "email", "kind": "email", "smtp": {"host": "x", "port": 25}, "bounce_domain": "b.example"}
            ],
        }
    )
    plan_id = add_plan(engine, config, add_people(engine, ["zoe@example.com"]), locale="fr")
    prepare_links(engine, config, environment, plan_id)

    def build(recipient: Recipient, now: datetime = NOW, templates_dir: Path | None = None) -> Mail:
        used = replace(environment, templates_dir=templates_dir or environment.templates_dir)
        return Composer(engine, config, used, plan_id, clock=lambda: now).compose(recipient)

    return build


def parsed(mail: Mail) -> EmailMessage:
    message = email.message_from_bytes(mail.content, policy=email.policy.default)
    assert not message.defects
    for part in message.walk():
        assert not part.defects
    return message


def raw_headers(mail: Mail) -> dict[str, str]:
    head = mail.content.split(b"\r\n\r\n", 1)[0].decode("ascii")
    lines = re.sub(r"\r\n ", "\n", head).split("\r\n")
    return {name: value for name, value in (line.split(": ", 1) for line in lines)}


def test_every_header(compose: Callable[..., Mail], environment: Environment) -> None:
    mail = compose(ZOE)
    headers = raw_headers(mail)
    assert list(headers) == [
        "From", "To", "Reply-To", "Subject", "Date", "Message-ID", "List-Unsubscribe", "List-Unsubscribe-Post",
        "List-ID", "Feedback-ID", "X-Send-ID", "MIME-Version", "Content-Type",
    ]  # fmt: skip
    assert headers["From"] == "Atlas <news@atlas.example.com>"
    assert headers["To"] == mail.envelope_to == "Zoe.Muller@xn--exmple-cua.de"
    assert headers["Reply-To"] == "help@atlas.example.com"
    assert headers["Date"] == "Sun, 22 Nov 2026 09:00:00 +0000"
    assert re.fullmatch(r"<4711\.[0-9a-f]{16}@atlas\.example\.com>", headers["Message-ID"])
    assert mail.key == headers["Message-ID"]
    unsubscribe = re.fullmatch(
        rf"<https://t\.brand\.example/u/({TOKEN})>,\n<mailto:u\+({TOKEN})@b\.example\?subject=unsubscribe>",
        headers["List-Unsubscribe"],
    )
    assert unsubscribe and unsubscribe[1] == unsubscribe[2]
    assert tokens.read(unsubscribe[1], Purpose.UNSUBSCRIBE, environment.secret) is not None
    assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert headers["List-ID"] == "<promotions.atlas.example.com>"
    assert re.fullmatch(r"winback:marketing:atlas:tern[0-9a-f]{8}", headers["Feedback-ID"])
    assert headers["X-Send-ID"] == "4711"
    bounce = re.fullmatch(rf"b\+({TOKEN})@b\.example", mail.envelope_from)
    assert bounce and tokens.read(bounce[1], Purpose.BOUNCE, environment.secret).message_id == 4711  # type: ignore
    message = parsed(mail)
    assert message["Subject"] == "Zoé, cela fait longtemps…"
    assert message["From"].addresses[0].display_name == "Atlas"


def test_parts(compose: Callable[..., Mail]) -> None:
    message = parsed(compose(ZOE))
    assert message.get_content_type() == "multipart/alternative"
    text, page = message.iter_parts()
    assert (text.get_content_type(), page.get_content_type()) == ("text/plain", "text/html")
    assert {part["Content-Transfer-Encoding"] for part in (text, page)} == {"base64"}
    assert {part.get_content_charset() for part in (text, page)} == {"utf-8"}
    assert "Bonjour Zoé," in text.get_content() and "Bonjour Zoé," in page.get_content()


def test_no_line_is_too_long_nor_ends_without_carriage_return(compose: Callable[..., Mail]) -> None:
    content = compose(ZOE).content
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 90
    assert b"\n" not in content.replace(b"\r\n", b"") and b"\r" not in content.replace(b"\r\n", b"")


def test_links_pixel_and_unsubscribing_are_personal_and_tracked(
    compose: Callable[..., Mail], environment: Environment
) -> None:
    mail = compose(ZOE)
    text, page = (part.get_content() for part in parsed(mail).iter_parts())
    unsubscribe = re.search(rf"https://t\.brand\.example/u/{TOKEN}", raw_headers(mail)["List-Unsubscribe"])
    assert unsubscribe and unsubscribe[0] in page and unsubscribe[0] in text
    pixels = re.findall(rf'<img src="https://t\.brand\.example/o/({TOKEN})\.gif" alt=""', page)
    assert len(pixels) == 1 and tokens.read(pixels[0], Purpose.OPEN, environment.secret)
    for part in (text, page):
        clicks = re.findall(rf"https://t\.brand\.example/c/({TOKEN})", part)
        read = [tokens.read(click, Purpose.CLICK, environment.secret) for click in clicks]
        assert [token.link_id for token in read if token] == [1, 2, 3, 4, 5]
        assert "atlas.example.com/" not in part


def test_again_gives_the_same_mail_another_message_another(compose: Callable[..., Mail]) -> None:
    assert compose(ZOE) == compose(ZOE)
    later = compose(ZOE, NOW + timedelta(hours=1))
    assert later.key == compose(ZOE).key
    assert compose(replace(ZOE, message_id=4712)).key != later.key


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": None},
        {"address": "nobody"},
        {"address": "jürgen@example.com"},
        {"address": "a@example.com\r\nBcc: b@example.com"},
        {"address": "a@example.com>, <b@example.com"},
        {"name": "Zo\x00e"},
        {"name": "Zo\x7fe"},
        {"name": "Zoé\ud800"},
    ],
)
def test_what_cannot_become_a_sound_mail_is_refused(
    compose: Callable[..., Mail], wrong: dict[str, str | None]
) -> None:
    with pytest.raises(ContentError) as caught:
        compose(replace(ZOE, **wrong))  # type: ignore
    assert "@" not in str(caught.value)


@pytest.mark.parametrize("line_break", ["\r\n", "\n", "\r", "\v", "\x1c", "\x85", "\u2028"])
def test_line_breaks_in_any_field_end_in_an_error_and_never_in_a_header(line_break: str) -> None:
    words = f"Sale{line_break}Bcc: eve@example.com"
    for make in (
        lambda: text_header("Subject", words),
        lambda: text_header("Subject", f"é{words}"),
        lambda: mailbox_header("From", words, "news@example.com"),
        lambda: mailbox_header("From", "Atlas", f"news@example.com{line_break}"),
        lambda: address_header("To", f"eve@example.com{line_break}"),
        lambda: header("Feedback-ID", words),
        lambda: uri_header("List-Unsubscribe", f"https://t.example/{line_break}x"),
        lambda: uri_header("List-Unsubscribe", "https://t.example/>,<https://else.example"),
    ):
        with pytest.raises(ContentError):
            make()


def test_name_with_a_line_break_in_the_subject_is_refused(
    compose: Callable[..., Mail], environment: Environment, templates: Path, spoil: Callable[[str, str, str], None]
) -> None:
    spoil("winback/fr.html", "cela{% else %}", "cela {{ customer.name }}{% else %}")
    assert "Zoé Müller" in parsed(compose(ZOE, templates_dir=templates))["Subject"]
    with pytest.raises(ContentError, match=r"^Subject has a line break"):
        compose(replace(ZOE, name="Zoé\r\nBcc: eve@example.com"), templates_dir=templates)


SUBJECTS = st.text(
    st.one_of(
        st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")),
        st.sampled_from("你好世界特价优惠 日本語한국어🎉👩‍🚀é à=?_ "),
    ),
    min_size=1,
    max_size=150,
)


@given(SUBJECTS.map(str.strip).filter(bool))
@settings(max_examples=300, deadline=None)
def test_any_subject_survives_within_75_columns(subject: str) -> None:
    header = text_header("Subject", subject)
    assert header.isascii() and header.endswith("\r\n")
    for line in header.removesuffix("\r\n").split("\r\n"):
        assert len(line) <= 78
        assert all(len(word) <= 75 for word in re.findall(r"=\?.*?\?=", line))
        assert not re.search(r"\?==\?", line)
    message = email.message_from_bytes(header.encode() + b"\r\n", policy=email.policy.default)
    assert message["Subject"] == subject


@given(SUBJECTS.map(str.strip).filter(bool))
@settings(max_examples=100, deadline=None)
def test_any_brand_survives_beside_its_address(brand: str) -> None:
    header = mailbox_header("From", brand, "news@atlas.example.com")
    assert "<news@atlas.example.com>\r\n" in header
    message = email.message_from_bytes(header.encode() + b"\r\n", policy=email.policy.default)
    (address,) = message["From"].addresses
    assert address.addr_spec == "news@atlas.example.com"
    # Some versions of the parser put a space between two encoded words, where RFC 2047 has none.
    assert "".join(address.display_name.split()) == "".join(brand.split())


@given(name=st.text(max_size=60))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_adds_a_header(compose: Callable[..., Mail], name: str) -> None:
    usual = list(raw_headers(compose(ZOE)))
    try:
        mail = compose(replace(ZOE, name=name))
    except ContentError:
        return
    assert list(raw_headers(mail)) == usual
    assert len(list(parsed(mail).iter_parts())) == 2
