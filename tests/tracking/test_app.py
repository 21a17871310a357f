"""Pixel, links, unsubscribing: through a real server, as mail programs, scanners and forgers use it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, func, select

from lifecycle import tokens
from lifecycle.addresses import address_hash
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import consents, customers, message_events, messages, suppressions
from lifecycle.settings import Config, Environment
from lifecycle.tokens import Purpose, Token
from tests.conftest import FakeClock
from tests.tracking.ledger import URLS, send_mails


@pytest.fixture
def ids(engine: Engine, environment: Environment) -> list[int]:
    return send_mails(engine, environment.secret, locales=("en", "fr"))


def signed(environment: Environment, purpose: Purpose, message_id: int, link_id: int = 0) -> str:
    return tokens.sign(Token(purpose, message_id, link_id), environment.secret)


def rows(engine: Engine, table: Any) -> list[Any]:
    with reading(engine) as connection:
        return list(connection.execute(select(table)))


def test_a_pixel_is_a_gif_that_nobody_keeps_and_is_stored(
    web: httpx.Client, engine: Engine, environment: Environment, ids: list[int], clock: FakeClock
) -> None:
    answer = web.get(f"/o/{signed(environment, Purpose.OPEN, ids[0])}.gif")
    assert answer.status_code == 200
    assert answer.content[:6] == b"GIF89a" and len(answer.content) == 43
    assert "no-store" in answer.headers["cache-control"]
    [event] = rows(engine, message_events)
    assert (event.message_id, event.kind, event.occurred_at) == (ids[0], "opened", clock.now)
    assert (event.user_agent, event.ip, event.detail, event.source) == (
        "Mozilla/5.0 (X11)", "127.0.0.1", None, "web",
    )  # fmt: skip


def test_a_click_leads_to_the_link_of_the_plan(
    web: httpx.Client, engine: Engine, environment: Environment, ids: list[int]
) -> None:
    answer = web.get(f"/c/{signed(environment, Purpose.CLICK, ids[1], 1)}")
    assert (answer.status_code, answer.headers["location"]) == (307, URLS[0])
    [event] = rows(engine, message_events)
    assert (event.message_id, event.kind, event.link_id) == (ids[1], "clicked", 1)


def forged(environment: Environment, purpose: Purpose, message_id: int) -> dict[str, str]:
    good = signed(environment, purpose, message_id, 1)
    other = next(each for each in Purpose if each is not purpose)
    return {
        "truncated": good[:-1],
        "longer": good + "A",
        "changed": ("B" if good[5] != "B" else "C").join((good[:5], good[6:])),
        "foreign": tokens.sign(Token(purpose, message_id, 1), b"the secret of somebody else, 32 c"),
        "for another purpose": signed(environment, other, message_id, 1),
        "of no message": signed(environment, purpose, 999_999, 1),
        "no base64": "!" * 30,
        "not ASCII": "é" * 30,
        "a URL": "https:evil.example",
        "NUL": "%00" * 30,
    }


def test_a_bad_pixel_is_still_a_picture_and_stores_nothing(
    web: httpx.Client, engine: Engine, environment: Environment, ids: list[int]
) -> None:
    for name, token in forged(environment, Purpose.OPEN, ids[0]).items():
        answer = web.get(f"/o/{token}.gif")
        assert (answer.status_code, len(answer.content)) == (200, 43), name
    assert rows(engine, message_events) == []


@pytest.mark.parametrize("path", ["/c/", "/u/"])
def test_a_bad_token_gets_a_neutral_page_and_never_a_redirect(
    web: httpx.Client, engine: Engine, environment: Environment, ids: list[int], path: str
) -> None:
    purpose = Purpose.CLICK if path == "/c/" else Purpose.UNSUBSCRIBE
    bodies = set()
    for name, token in forged(environment, purpose, ids[0]).items():
        answer = web.get(path + token, params={"url": "https://evil.example", "next": "//evil.example"})
        assert answer.status_code == 404 and "location" not in answer.headers, name
        bodies.add(answer.text)
    assert len(bodies) == 1 and "evil" not in bodies.pop()
    assert rows(engine, message_events) == rows(engine, suppressions) == []


def test_a_link_that_the_plan_does_not_have_leads_nowhere(
    web: httpx.Client, engine: Engine, environment: Environment, ids: list[int]
) -> None:
    assert web.get(f"/c/{signed(environment, Purpose.CLICK, ids[0], 4)}").status_code == 404
    assert rows(engine, message_events) == []


def test_prefetches_are_answered_and_marked(
    web: httpx.Client, engine: Engine, environment: Environment, ids: list[int]
) -> None:
    link = f"/c/{signed(environment, Purpose.CLICK, ids[0], 1)}"
    assert web.head(link).status_code == 307
    assert web.get(link, headers={"Sec-Purpose": "prefetch;prerender"}).status_code == 307
    assert web.get(link, headers={"Purpose": "prefetch"}).status_code == 307
    assert web.get(link).status_code == 307
    marks = [bool(event.detail and event.detail["prefetch"]) for event in rows(engine, message_events)]
    assert marks == [True, True, True, False]


@pytest.mark.parametrize(
    ("how", "via"),
    [
        ({"data": {"List-Unsubscribe": "One-Click"}}, "one_click"),
        ({"files": {"List-Unsubscribe": (None, "One-Click")}}, "one_click"),
        ({"content": b"List-Unsubscribe=One-Click"}, "one_click"),
        ({"data": {"unsubscribe": "yes"}}, "page"),
    ],
    ids=["urlencoded", "multipart", "no content type", "button"],
)
def test_unsubscribing_ends_marketing_once_however_often_it_is_asked(
    web: httpx.Client,
    engine: Engine,
    environment: Environment,
    ids: list[int],
    clock: FakeClock,
    how: Any,
    via: str,
) -> None:
    link = f"/u/{signed(environment, Purpose.UNSUBSCRIBE, ids[0])}"
    for _ in range(3):
        answer = web.post(link, **how)
        assert answer.status_code == 200 and "set-cookie" not in answer.headers and len(answer.content) < 5000
        clock.tick(hours=1)
    [suppression], [consent], [event] = (rows(engine, t) for t in (suppressions, consents, message_events))
    assert (suppression.shop, suppression.channel, suppression.purpose) == (None, "email", "marketing")
    assert (suppression.reason, suppression.lifted_at) == ("unsubscribe", None)
    assert (consent.status, consent.shop, consent.topic, consent.customer_id) == (
        "withdrawn", "atlas", "promotions", 1,
    )  # fmt: skip
    assert (event.kind, event.detail) == ("unsubscribed", {"via": via})


def test_unsubscribing_works_again_after_a_new_opt_in(
    web: httpx.Client, engine: Engine, environment: Environment, ids: list[int], clock: FakeClock
) -> None:
    link = f"/u/{signed(environment, Purpose.UNSUBSCRIBE, ids[0])}"
    body = {"List-Unsubscribe": "One-Click"}
    web.post(link, data=body)
    with writing(engine) as connection:
        connection.execute(suppressions.update().values(lifted_at=clock.tick(days=1)))
    clock.tick(days=1)
    web.post(link, data=body)
    assert [row.lifted_at is None for row in rows(engine, suppressions)] == [False, True]


class TestRenamedChannel:
    """Consent and suppressions are by kind of channel, whatever its name in config/channels.yaml."""

    @pytest.fixture
    def config(self, changed: Callable[..., Config], config: Config) -> Config:
        (email,) = config.channels_file.channels
        bulk = {**email.model_dump(by_alias=True), "name": "bulk"}
        return changed(channels_file={"channels": [email.model_dump(by_alias=True), bulk]})

    @pytest.mark.parametrize("name", ["bulk", "no longer configured"])
    def test_unsubscribing_is_from_its_kind(
        self, web: httpx.Client, engine: Engine, environment: Environment, ids: list[int], name: str
    ) -> None:
        with writing(engine) as connection:
            connection.execute(messages.update().values(channel=name))
        for _ in range(2):
            web.post(f"/u/{signed(environment, Purpose.UNSUBSCRIBE, ids[0])}", data={"unsubscribe": "yes"})
        [suppression], [consent] = rows(engine, suppressions), rows(engine, consents)
        assert (suppression.channel, consent.channel) == ("email", "email")


def test_unsubscribing_holds_for_an_address_that_has_changed_since(
    web: httpx.Client, engine: Engine, environment: Environment, ids: list[int]
) -> None:
    with writing(engine) as connection:
        connection.execute(customers.update().where(customers.c.customer_id == 1).values(email_hash="the new one"))
    web.post(f"/u/{signed(environment, Purpose.UNSUBSCRIBE, ids[0])}", data={"unsubscribe": "yes"})
    old = address_hash(environment.secret, "email", "p1@example.com")
    assert {row.address_hash for row in rows(engine, suppressions)} == {old, "the new one"}


def test_looking_at_the_unsubscribe_page_changes_nothing(
    web: httpx.Client, engine: Engine, environment: Environment, ids: list[int]
) -> None:
    link = f"/u/{signed(environment, Purpose.UNSUBSCRIBE, ids[0])}"
    for call in (web.get, web.head, web.options):
        call(link)
    web.get(link, params={"List-Unsubscribe": "One-Click"})
    assert web.post(link, data={"something": "else"}).status_code == 400
    assert web.post(link).status_code == 400
    assert rows(engine, suppressions) == rows(engine, consents) == rows(engine, message_events) == []


def test_the_page_speaks_the_language_of_the_mail_and_needs_no_script(
    web: httpx.Client, environment: Environment, ids: list[int]
) -> None:
    for message_id, locale, words in ((ids[1], "en", "Unsubscribe"), (ids[0], "fr", "Se désabonner")):
        page = web.get(f"/u/{signed(environment, Purpose.UNSUBSCRIBE, message_id)}")
        assert f'<html lang="{locale}">' in page.text and words in page.text and "Atlas" in page.text
        assert 'name="viewport"' in page.text and "<script" not in page.text
        assert "prefers-color-scheme: dark" in page.text
        assert "set-cookie" not in page.headers and page.headers["referrer-policy"] == "no-referrer"
        assert not re.findall(r"(?:src|href)=", page.text), "the page loads or links something"


def test_a_stranger_is_answered_in_the_browsers_language(web: httpx.Client) -> None:
    for asked, locale in (
        ("fr-CA,fr;q=0.9,en;q=0.8", "fr"),
        ("de, en;q=0.5, fr;q=0.7", "fr"),
        ("xx;q=x,,;", "en"),
    ):
        answer = web.get("/nothing", headers={"accept-language": asked})
        assert answer.status_code == 404 and f'<html lang="{locale}">' in answer.text


def test_an_oversized_body_is_refused_and_does_nothing(
    web: httpx.Client, engine: Engine, environment: Environment, ids: list[int]
) -> None:
    link = f"/u/{signed(environment, Purpose.UNSUBSCRIBE, ids[0])}"
    body = {"List-Unsubscribe": "One-Click", "padding": "x" * 10_000}
    chunks = (b"List-Unsubscribe=One-Click&" + b"x" * 5000 for _ in range(3))
    assert web.post(link, data=body).status_code == 413
    assert web.post(link, files={"List-Unsubscribe": (None, "One-Click" + "x" * 10_000)}).status_code == 413
    assert web.post(link, content=chunks).status_code == 413
    assert rows(engine, suppressions) == []


def test_garbage_is_never_our_fault(web: httpx.Client, environment: Environment, ids: list[int]) -> None:
    link = f"/u/{signed(environment, Purpose.UNSUBSCRIBE, ids[0])}"
    answers = [
        web.post(link, content=b"\xff\xfe%ZZ&&==", headers={"content-type": "application/x-www-form-urlencoded"}),
        web.post(link, content=b"--x\r\nnonsense", headers={"content-type": "multipart/form-data; boundary=x"}),
        web.post(link, content=b"nonsense", headers={"content-type": "multipart/form-data"}),
        web.post("/c/x"),
        web.delete("/o/x.gif"),
        web.get("/../../etc/passwd"),
        web.get("/o/" + "x" * 3000),
    ]
    assert all(400 <= answer.status_code < 500 for answer in answers), answers


def test_it_says_that_it_is_well(web: httpx.Client) -> None:
    assert (web.get("/healthz").status_code, web.get("/healthz").json()) == (200, {"status": "ok"})


def test_five_hundred_hits_at_once_are_all_stored(
    web: httpx.Client, engine: Engine, environment: Environment, ids: list[int]
) -> None:
    paths = [
        f"/o/{signed(environment, Purpose.OPEN, ids[n % 3])}.gif"
        if n % 2
        else f"/c/{signed(environment, Purpose.CLICK, ids[n % 3], 1 + n % 3)}"
        for n in range(500)
    ]

    async def all_at_once() -> list[int]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=web.base_url, limits=limits, timeout=30) as client:
            return [answer.status_code for answer in await asyncio.gather(*(client.get(path) for path in paths))]

    assert sorted(set(asyncio.run(all_at_once()))) == [200, 307]
    with reading(engine) as connection:
        counts = dict(
            connection.execute(select(message_events.c.kind, func.count()).group_by(message_events.c.kind)).all()
        )
    assert counts == {"opened": 250, "clicked": 250}
