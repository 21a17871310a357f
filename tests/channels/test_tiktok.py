"""TikTok Shop's customer engagement against a stand-in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from lifecycle.channels.base import Accepted, Refused, Unknown
from lifecycle.channels.tiktok import TikTokEngagement, signature
from lifecycle.errors import ChannelDown, ConfigError
from lifecycle.messages.records import Note, Sent
from lifecycle.settings.channels import TikTokChannel
from sandbox.marketplaces.tiktok import TikTokStandIn
from sandbox.marketplaces.trouble import Trouble
from sandbox.servers import serve
from tests.channels.marketplaces import TIMEOUT, Clock, answers, served, spec
from tests.contracts.channel import ChannelContract, Line, Peer

SECRET = "correct horse battery"
ENV = {"KEY": "6a1", "SECRET": SECRET, "TOKEN": "ROW_stand-in"}
CIPHER = "GCP_stand-in"
CUSTOM, MESSAGES = "/engagement_tasks/custom", "/customer_engagement/202412/messages"


def address(number: int) -> str:
    return f"v2b2V4{number}@scs2.tiktok.com"


def note(number: int = 1, **changes: Any) -> Note:
    first = Note(
        number, f"{number}.ab", address(number), None, "marketing", "spring", "tt", "en", "Hi", "Come back"
    )
    return replace(first, **changes)


def tiktok(url: str, clock: Clock, env: dict[str, str] = ENV, cipher: str = CIPHER) -> TikTokEngagement:
    settings = {
        "name": "tt",
        "kind": "tiktok_engagement",
        "url": url,
        "app_key_env": "KEY",
        "app_secret_env": "SECRET",
        "token_env": "TOKEN",
        "shop_cipher": cipher,
        "timeout_seconds": TIMEOUT,
    }
    return TikTokEngagement(TikTokChannel.model_validate(settings), env, clock)


def stand_in(clock: Clock, **options: str) -> TikTokStandIn:
    stand = TikTokStandIn(app_secret=SECRET, clock=clock, **options)
    stand.last_orders = {address(number): clock() - timedelta(days=90) for number in range(1, 200)}
    return stand


def said(code: int, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "request_id": "2026", "data": None}


class TestTikTok(ChannelContract):
    KNOWS_WHAT_LEFT = False
    CANNOT: ClassVar[Mapping[Peer, str]] = {
        Peer.KNOWS_NO_SUCH_ADDRESS: "TikTok publishes no code for a buyer who does not exist"
    }

    @contextmanager
    def line(self, peer: Peer) -> Iterator[Line]:
        clock = Clock()
        stand = stand_in(clock, token="another" if peer is Peer.KNOWS_ANOTHER_PASSWORD else ENV["TOKEN"])
        stand.scope_granted = peer is not Peer.REFUSES_THE_SENDER
        if peer in (Peer.REFUSES_THE_MESSAGE, Peer.REFUSES_THE_SECOND):
            del stand.last_orders[address(1 if peer is Peer.REFUSES_THE_MESSAGE else 2)]
        if peer is Peer.IS_BUSY:
            stand.app.plan(Trouble("answer", CUSTOM, body=said(36009003, "Internal error. Please try again")))
        if peer is Peer.NAMES_A_TIME_TO_WAIT:
            busy = said(36009002, "Too many requests")
            stand.app.plan(Trouble("answer", MESSAGES, status=429, body=busy, headers={"Retry-After": "8"}))
        with served(stand.app, peer, MESSAGES) as url, tiktok(url, clock) as channel:
            yield Line(channel, lambda: [buyer for _, buyer in stand.sent])

    def message(self, number: int) -> Note:
        return note(number)

    def seen_as(self, message: Note) -> str:
        return message.to

    def sent(self, number: int) -> Sent:
        return Sent(number, f"{number}.ab", address(number), None, Clock().now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stand(clock: Clock) -> TikTokStandIn:
    return stand_in(clock)


@pytest.fixture
def url(stand: TikTokStandIn) -> Iterator[str]:
    with serve(stand.app) as url:
        yield url


@pytest.fixture
def channel(url: str, clock: Clock) -> Iterator[TikTokEngagement]:
    with tiktok(url, clock) as channel:
        yield channel


def paths(stand: TikTokStandIn) -> list[str]:
    return [path.rsplit("/", 1)[-1] for path, _, _ in stand.seen]


def test_one_task_and_one_request_for_fifty_with_the_same_content(
    channel: TikTokEngagement, stand: TikTokStandIn
) -> None:
    assert channel.at_once == 50
    outcomes = answers(channel, *(note(number) for number in range(1, 121)))
    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert paths(stand) == ["custom", "messages", "messages", "messages"]
    assert [len(body["buyer_emails"]) for _, _, body in stand.seen[1:]] == [50, 50, 20]


def test_more_than_fifty_are_divided(channel: TikTokEngagement, stand: TikTokStandIn) -> None:
    list(channel.send([note(number) for number in range(1, 61)], lambda note: None))
    assert [len(body["buyer_emails"]) for _, _, body in stand.seen[1:]] == [50, 10]


def test_other_content_is_another_task(channel: TikTokEngagement, stand: TikTokStandIn) -> None:
    answers(channel, note(1), note(2, text="Come soon"), note(3), note(4, what="autumn"))
    assert len(stand.tasks) == 3
    assert {buyer: task for task, buyer in stand.sent}[address(1)] == {buyer: task for task, buyer in stand.sent}[
        address(3)
    ]


def test_two_processes_get_the_same_task(url: str, stand: TikTokStandIn, clock: Clock) -> None:
    for number in (1, 2):
        with tiktok(url, clock) as channel:
            answers(channel, note(number))
    assert len(stand.tasks) == 1 and len({task for task, _ in stand.sent}) == 1


def test_new_task_on_the_next_day_before_the_old_one_ends(
    channel: TikTokEngagement, stand: TikTokStandIn, clock: Clock
) -> None:
    clock.now = datetime(2026, 11, 22, 23, 59, tzinfo=UTC)
    answers(channel, note(1))
    clock.pass_by(hours=23, minutes=50)
    answers(channel, note(2))
    clock.pass_by(days=30)
    outcomes = answers(channel, note(3))
    assert isinstance(outcomes[0], Accepted) and len(stand.tasks) == 3


def test_task_that_is_over_is_forgotten(channel: TikTokEngagement, stand: TikTokStandIn) -> None:
    stand.app.plan(Trouble("answer", MESSAGES, status=400, body=said(45201005, "The task has ended"), times=1))
    first, second = (*answers(channel, note(1)), *answers(channel, note(2)))
    assert isinstance(first, Refused) and not first.permanent and isinstance(second, Accepted)
    assert paths(stand) == ["custom", "custom", "messages"]


def test_task_whose_answer_is_lost_costs_nobody_a_message(channel: TikTokEngagement, stand: TikTokStandIn) -> None:
    stand.app.plan(Trouble("mute", CUSTOM, times=1))
    (first,) = answers(channel, note(1))
    (again,) = answers(channel, note(1))
    assert isinstance(first, Refused) and not first.permanent and isinstance(again, Accepted)
    assert len(stand.tasks) == 1, "the same idempotency key"


def test_each_buyer_has_an_answer_of_their_own(
    channel: TikTokEngagement, stand: TikTokStandIn, clock: Clock
) -> None:
    stand.last_orders[address(2)] = clock() - timedelta(days=366)
    first, second, third = answers(channel, note(1), note(2, to=address(2)), note(3))
    assert isinstance(first, Accepted) and isinstance(third, Accepted)
    assert second == Refused("45201006", "(address) has not ordered in the past 365 days", permanent=True)


def test_same_buyer_twice_is_told_apart(channel: TikTokEngagement, stand: TikTokStandIn) -> None:
    first, second = answers(channel, note(1), note(2, to=address(1)))
    assert first != second and len(stand.sent) == 2
    assert [len(body["buyer_emails"]) for _, _, body in stand.seen[1:]] == [1, 1]


@pytest.mark.parametrize("detail", [{}, {"detail": None}, {"detail": {"buyer_email": "masked"}}, "words"])
def test_refusal_that_does_not_say_whom_leaves_all_unknown(
    channel: TikTokEngagement, stand: TikTokStandIn, detail: Any
) -> None:
    nameless = {"code": 45201006, "message": "no", **detail} if isinstance(detail, dict) else detail
    named = {"code": 36009003, "message": "Internal error", "detail": {"buyer_email": address(2)}}
    body = {"code": 0, "message": "Success", "data": {"errors": [nameless, named]}}
    stand.app.plan(Trouble("answer", MESSAGES, body=body))
    first, second = answers(channel, note(1), note(2))
    assert isinstance(first, Unknown)
    assert isinstance(second, Refused) and not second.permanent


def test_content_that_tiktok_would_not_take(channel: TikTokEngagement, stand: TikTokStandIn) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"title": ""}, "title has 0"),
        ({"title": "x" * 71}, "title has 71"),
        ({"text": ""}, "text has 0"),
        ({"text": "x" * 501}, "text has 501"),
        ({"extras": {"product_ids": "1,2,3,4,5"}}, "5 products"),
    ]
    for changes, words in wrong:
        (outcome,) = answers(channel, note(1, **changes))
        assert isinstance(outcome, Refused) and outcome.permanent and outcome.kind == "content"
        assert words in outcome.text and stand.seen == []


def test_longest_content_with_cards(channel: TikTokEngagement, stand: TikTokStandIn) -> None:
    extras = {"product_ids": "1, 2,3,4", "coupon_id": "9"}
    (outcome,) = answers(channel, note(1, title="ä" * 70, text="🎁" * 500, extras=extras))
    assert isinstance(outcome, Accepted)
    (task,) = stand.tasks.values()
    assert task.body["product_ids"] == ["1", "2", "3", "4"] and task.body["coupon_ids"] == ["9"]


def test_tiktoks_own_words(channel: TikTokEngagement, stand: TikTokStandIn) -> None:
    known, unknown = answers(channel, note(1, template="7001", title="", text=""), note(2, template="7002"))
    assert isinstance(known, Accepted)
    assert isinstance(unknown, Refused) and unknown.permanent and unknown.scope == "message"
    assert paths(stand) == ["engagement_tasks", "messages", "engagement_tasks"]


@pytest.mark.parametrize(
    ("status", "code", "message", "expected"),
    [
        (401, 105002, "access token is expired", "login"),
        (401, 106001, "sign is invalid", "login"),
        (200, 105002, "access token is expired", "login"),
        (400, 106013, "shop_cipher is invalid", "login"),
        (400, 36009004, "timestamp is invalid", "login"),
        (400, 36009004, "buyer_emails is invalid", "never"),
        (401, 105005, "scope is not granted", "lane"),
        (401, 36009044, "seller is deactivated", "lane"),
        (200, 36009002, "Too many requests", "down"),
        (429, 36009002, "Too many requests", "down"),
        (200, 36009003, "Internal error", "unknown"),
        (500, 1, "oops", "unknown"),
        (400, 45201003, "too many buyers", "never"),
    ],
)
def test_errors_of_a_request(
    channel: TikTokEngagement, stand: TikTokStandIn, status: int, code: int, message: str, expected: str
) -> None:
    stand.app.plan(Trouble("answer", MESSAGES, status=status, body=said(code, message)))
    try:
        outcomes = answers(channel, note(1), note(2))
    except ChannelDown as down:
        assert expected == ("login" if down.login else "down") and down.taken_none
        return
    for outcome in outcomes:
        if isinstance(outcome, Refused):
            assert expected == ("lane" if outcome.scope == "lane" else "never") and outcome.permanent
        else:
            assert isinstance(outcome, Unknown) and expected == "unknown"


@pytest.mark.parametrize("env", [{"TOKEN": "old"}, {"SECRET": "wrong"}])
def test_credentials(url: str, stand: TikTokStandIn, clock: Clock, env: dict[str, str]) -> None:
    with tiktok(url, clock, ENV | env) as channel, pytest.raises(ChannelDown, match="login") as caught:
        answers(channel, note(1))
    assert caught.value.login and stand.sent == []


def test_clock_that_is_wrong_is_about_us(url: str, clock: Clock) -> None:
    with tiktok(url, Clock(clock() - timedelta(minutes=6))) as channel, pytest.raises(ChannelDown) as caught:
        answers(channel, note(1))
    assert caught.value.login


def test_shop_without_the_right_to_its_own_words(channel: TikTokEngagement, stand: TikTokStandIn) -> None:
    stand.features.discard("CUSTOM_MSG")
    own, theirs = answers(channel, note(1), note(2, template="7001"))
    assert isinstance(own, Refused) and own.permanent and isinstance(theirs, Accepted)


def test_missing_secret_names_field_and_variable(clock: Clock) -> None:
    with pytest.raises(ConfigError, match=r"config/channels\.yaml: tt\.app_secret_env is SECRET"):
        tiktok("http://127.0.0.1:1", clock, {"KEY": "x", "TOKEN": "y"})


def test_signature() -> None:
    vector = spec("signature-vectors.json")["tiktok_shop"]
    assert signature(vector["secret"], vector["path"], vector["query"], vector["body"].encode()) == vector["sign"]


@pytest.mark.parametrize(
    ("changes", "operation"),
    [({}, "create_custom_engagement_task"), ({"template": "7001"}, "create_engagement_task")],
)
def test_requests_are_those_of_the_specification(
    channel: TikTokEngagement, stand: TikTokStandIn, changes: dict[str, str], operation: str
) -> None:
    facts = spec("tiktok-shop/fields.json")
    answers(channel, note(1, extras={"product_ids": "1", "coupon_id": "2"}, **changes))
    for (path, query, body), name in zip(stand.seen, (operation, "send_engagement_message"), strict=True):
        assert path == facts[name]["path"] and set(body) == set(facts[name]["body"])
        common = {"app_key", "shop_cipher", "sign", "timestamp"}
        assert set(query) == common | set(facts[name]["query"])
