"""AliExpress station messages against a stand-in of the Open Platform."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifecycle.channels.aliexpress import AliExpressMessages, signature
from lifecycle.channels.base import Accepted, Refused, Unknown
from lifecycle.errors import ChannelDown, ConfigError
from lifecycle.messages.records import Note, Sent
from lifecycle.settings.channels import AliExpressChannel
from sandbox.marketplaces.aliexpress import BUYER, SELLER, AliExpressStandIn
from sandbox.marketplaces.trouble import Trouble
from sandbox.servers import serve
from tests.channels.marketplaces import TIMEOUT, Clock, answers, served, spec
from tests.contracts.channel import ChannelContract, Line, Peer

SECRET = "correct horse battery"
ENV = {"KEY": "501234", "SECRET": SECRET, "TOKEN": "50000stand-in"}
SEND, OPEN, HISTORY = (
    "aliexpress/message/send",
    "aliexpress/message/session/open",
    "aliexpress/message/history/list",
)
BUYER_ID = 6_000_000_012_345_678_900
"""Ids are above 2^53."""


def buyer(number: int) -> int:
    return BUYER_ID + number


def note(number: int = 1, **changes: Any) -> Note:
    first = Note(
        number,
        f"{number}.ab",
        str(buyer(number)),
        "8100",
        "marketing",
        "again",
        "bazaar",
        "en",
        text=f"Hello {number}",
    )
    return replace(first, **changes)


def aliexpress(url: str, clock: Clock, env: dict[str, str] = ENV) -> AliExpressMessages:
    settings = {
        "name": "bazaar",
        "kind": "aliexpress_messages",
        "url": url,
        "app_key_env": "KEY",
        "app_secret_env": "SECRET",
        "token_env": "TOKEN",
        "timeout_seconds": TIMEOUT,
    }
    return AliExpressMessages(AliExpressChannel.model_validate(settings), env, clock)


class TestAliExpress(ChannelContract):
    KNOWS_WHAT_LEFT = False
    CANNOT: ClassVar[Mapping[Peer, str]] = {
        Peer.KNOWS_NO_SUCH_ADDRESS: "AliExpress publishes no code for a buyer whom it does not know"
    }

    @contextmanager
    def line(self, peer: Peer) -> Iterator[Line]:
        clock = Clock()
        token = "another" if peer is Peer.KNOWS_ANOTHER_PASSWORD else ENV["TOKEN"]
        stand = AliExpressStandIn(app_secret=SECRET, session=token, clock=clock)
        stand.may_send = peer is not Peer.REFUSES_THE_SENDER
        if peer is Peer.NAMES_A_TIME_TO_WAIT:
            stand.ban(8)
        if peer in (Peer.REFUSES_THE_MESSAGE, Peer.REFUSES_THE_SECOND):
            refused = buyer(1 if peer is Peer.REFUSES_THE_MESSAGE else 2)
            stand.failing[refused] = (
                "CONTENT_ILLEGAL",
                f"the message to {refused} has words that are not allowed",
            )
        if peer is Peer.IS_BUSY:
            problem = {"type": "ISP", "code": "ServiceUnavailable", "msg": "The service is unavailable now"}
            stand.app.plan(Trouble("answer", "/sync", body={"error_response": problem}))
        with served(stand.app, peer, "/sync", after=1) as url, aliexpress(url, clock) as channel:
            yield Line(channel, lambda: [str(sent["buyer_id"]) for sent in stand.messages])

    def message(self, number: int) -> Note:
        return note(number)

    def seen_as(self, message: Note) -> str:
        return message.to

    def sent(self, number: int) -> Sent:
        return Sent(number, f"{number}.ab", str(buyer(number)), None, Clock().now - timedelta(hours=1))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stand(clock: Clock) -> AliExpressStandIn:
    return AliExpressStandIn(app_secret=SECRET, clock=clock)


@pytest.fixture
def channel(stand: AliExpressStandIn, clock: Clock) -> Iterator[AliExpressMessages]:
    with serve(stand.app) as url, aliexpress(url, clock) as channel:
        yield channel


def asked(clock: Clock, number: int = 1, text: str = "") -> Sent:
    return Sent(number, f"{number}.ab", str(buyer(number)), None, clock(), text)


def test_session_is_opened_once_for_each_buyer(channel: AliExpressMessages, stand: AliExpressStandIn) -> None:
    answers(channel, note(1), note(2, to=str(buyer(1))), note(3))
    assert [method for method, _ in stand.calls] == [OPEN, SEND, SEND, OPEN, SEND]


def test_session_that_does_not_open_is_tried_again_later(
    channel: AliExpressMessages, stand: AliExpressStandIn
) -> None:
    stand.closed_to_us = {buyer(1)}
    first, second = answers(channel, note(1), note(2))
    assert isinstance(first, Refused) and not first.permanent and isinstance(second, Accepted)


@pytest.mark.parametrize(
    ("changes", "template", "scene", "content"),
    [
        ({}, 1, 5, {"txt": "Hello 1"}),
        ({"purpose": "transactional"}, 1, 1, {"txt": "Hello 1"}),
        ({"extras": {"scene_id": "6"}}, 1, 6, {"txt": "Hello 1"}),
        ({"extras": {"promotion_id": "77"}}, 21004, 5, {"promotion_id": "77", "txt": "Hello 1"}),
        ({"extras": {"item_id": "5"}, "text": ""}, 10006, 5, {"item_id": "5"}),
        ({"extras": {"template_id": "10007"}, "text": ""}, 10007, 5, {"order_id": "8100"}),
        ({"extras": {"order_id": "9", "scene_id": "4"}, "text": ""}, 10007, 4, {"order_id": "9"}),
        (
            {"extras": {"img_url": "https://ae01.example/x.png", "width": "200", "height": "100"}, "text": ""},
            3,
            5,
            {"img_url": "https://ae01.example/x.png", "width": 200, "height": 100},
        ),
    ],
)
def test_what_a_message_is(
    channel: AliExpressMessages,
    stand: AliExpressStandIn,
    changes: dict[str, Any],
    template: int,
    scene: int,
    content: dict[str, Any],
) -> None:
    (outcome,) = answers(channel, note(1, **changes))
    assert isinstance(outcome, Accepted)
    assert stand.messages == [
        {
            "buyer_id": buyer(1),
            "template_id": template,
            "scene_id": scene,
            "only_for_target": False,
            "message_content_dto": content,
        }
    ]


@pytest.mark.parametrize(
    ("changes", "scope", "kind"),
    [
        ({"text": ""}, "message", "content"),
        ({"extras": {"scene_id": "five"}}, "message", "content"),
        ({"extras": {"template_id": "3"}, "text": ""}, "message", "content"),
        ({"to": "someone@example.com"}, "address", "hard"),
        ({"to": ""}, "address", "hard"),
    ],
)
def test_message_that_cannot_be(
    channel: AliExpressMessages, stand: AliExpressStandIn, changes: dict[str, Any], scope: str, kind: str
) -> None:
    (outcome,) = answers(channel, note(1, **changes))
    assert isinstance(outcome, Refused) and outcome.permanent
    assert (outcome.scope, outcome.kind) == (scope, kind) and stand.calls == []


@pytest.mark.parametrize("flat", [True, False])
def test_ban_holds_for_everything(clock: Clock, flat: bool) -> None:
    stand = AliExpressStandIn(app_secret=SECRET, flat_errors=flat, clock=clock)
    with serve(stand.app) as url, aliexpress(url, clock) as channel:
        answers(channel, note(1))
        stand.ban(5400)
        begun: list[int] = []
        with pytest.raises(ChannelDown) as caught:
            list(channel.send([note(2, to=str(buyer(1)))], lambda note: begun.append(note.send_id)))
        assert begun == [2] and caught.value.taken_none
        assert caught.value.retry_after == 5400 and not caught.value.login
        clock.pass_by(seconds=5401)
        (outcome,) = answers(channel, note(3))
        assert isinstance(outcome, Accepted) and len(stand.messages) == 2


@pytest.mark.parametrize(
    ("kind", "code", "expected"),
    [
        ("ISV", "IllegalAccessToken", "login"),
        ("ISV", "InvalidSession", "login"),
        ("ISV", "InvalidAppKey", "login"),
        ("ISV", "IncompleteSignature", "login"),
        ("ISV", "ApiCallLimit", "down"),
        ("ISP", "SomethingOfTheirs", "later"),
        ("SYSTEM", "InternalError", "later"),
        ("ISV", "ServiceUnavailable", "later"),
        ("ISP", "ServiceTimeout", "unknown"),
        ("ISV", "MissingParameter", "never"),
        ("ISV", "InsufficientPermission", "lane"),
    ],
)
def test_errors_of_the_gateway(
    channel: AliExpressMessages, stand: AliExpressStandIn, kind: str, code: str, expected: str
) -> None:
    problem = {"type": kind, "code": code, "message": "words", "msg": "words", "request_id": "2101"}
    answers(channel, note(1))
    for body in (problem, {"error_response": problem}):
        stand.app.clear()
        stand.app.plan(Trouble("answer", body=body))
        assert meaning(channel, note(2, to=str(buyer(1)))) == expected


def meaning(channel: AliExpressMessages, note: Note) -> str:
    try:
        (outcome,) = answers(channel, note)
    except ChannelDown as down:
        assert down.taken_none
        return "login" if down.login else "down"
    if isinstance(outcome, Refused):
        return "lane" if outcome.scope == "lane" else "never" if outcome.permanent else "later"
    return "unknown" if isinstance(outcome, Unknown) else "taken"


@pytest.mark.parametrize(
    ("code", "message", "permanent", "scope"),
    [
        ("MESSAGE_SEND_LIMIT", "", True, "buyer"),
        ("F00-00-10", "messages to this buyer are too frequent", True, "buyer"),
        ("CONTENT_ILLEGAL", "not allowed", True, "message"),
        ("SYSTEM_ERROR", "try again", False, "message"),
    ],
)
def test_refusals_of_a_message(
    channel: AliExpressMessages, stand: AliExpressStandIn, code: str, message: str, permanent: bool, scope: str
) -> None:
    stand.failing[buyer(1)] = (code, message)
    (outcome,) = answers(channel, note(1))
    assert isinstance(outcome, Refused) and outcome.text
    assert (outcome.permanent, outcome.scope, outcome.code) == (permanent, scope, code)


def test_buyer_who_has_had_enough(clock: Clock) -> None:
    stand = AliExpressStandIn(app_secret=SECRET, cap=1, clock=clock)
    with serve(stand.app) as url, aliexpress(url, clock) as channel:
        _, second, other = answers(channel, note(1), note(2, to=str(buyer(1))), note(3))
    assert isinstance(second, Refused) and (second.scope, second.kind) == ("buyer", "policy")
    assert str(buyer(1)) not in second.text and isinstance(other, Accepted)


@pytest.mark.parametrize("env", [{"TOKEN": "old"}, {"SECRET": "wrong"}, {"KEY": "999"}])
def test_credentials(stand: AliExpressStandIn, clock: Clock, env: dict[str, str]) -> None:
    with (
        serve(stand.app) as url,
        aliexpress(url, clock, ENV | env) as channel,
        pytest.raises(ChannelDown, match="does not accept the login") as caught,
    ):
        answers(channel, note(1))
    assert caught.value.login and stand.messages == []


def test_our_text_in_the_history_was_taken(
    channel: AliExpressMessages, stand: AliExpressStandIn, clock: Clock
) -> None:
    stand.app.plan(Trouble("none", times=1), Trouble("mute", times=1))
    (outcome,) = answers(channel, note(1))
    sent = asked(clock, text="Hello 1")
    assert isinstance(outcome, Unknown) and channel.look_up([sent]) == {}, "too soon to tell"
    clock.pass_by(minutes=11)
    found = channel.look_up([sent])
    assert found == {1: Accepted(stand.history[buyer(1)][-1]["message_id"])}


def test_history_that_reaches_back_and_holds_nothing_of_ours_proves_it_was_not_taken(
    channel: AliExpressMessages, stand: AliExpressStandIn, clock: Clock
) -> None:
    stand.wrote(buyer(1), "Is it there?", clock() - timedelta(days=3), by=BUYER)
    stand.wrote(buyer(1), "Hello?", clock() + timedelta(minutes=1), by=BUYER)
    sent = asked(clock, text="Hello 1")
    clock.pass_by(hours=1)
    found = channel.look_up([sent])
    assert isinstance(found[1], Refused) and not found[1].permanent


@pytest.mark.parametrize("text", ["", "Hello 1"])
def test_what_is_not_certain_stays_unknown(
    channel: AliExpressMessages, stand: AliExpressStandIn, clock: Clock, text: str
) -> None:
    nothing_older, another_of_ours = asked(clock, 1, text), asked(clock, 2, text)
    stand.wrote(buyer(1), "Hello?", clock() + timedelta(minutes=1), by=BUYER)
    stand.wrote(buyer(2), "Hello?", clock() - timedelta(days=1), by=BUYER)
    stand.wrote(buyer(2), "written by hand", clock() + timedelta(minutes=1))
    nowhere = [replace(nothing_older, send_id=3, to=None), replace(nothing_older, send_id=4, to="x")]
    clock.pass_by(hours=1)
    assert channel.look_up([nothing_older, another_of_ours, *nowhere]) == {}


def test_history_that_cannot_be_read(channel: AliExpressMessages, stand: AliExpressStandIn, clock: Clock) -> None:
    sent = asked(clock)
    clock.pass_by(hours=1)
    stand.app.plan(Trouble("babble"))
    with pytest.raises(ChannelDown):
        channel.look_up([sent])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    history=st.lists(st.tuples(st.integers(-90, 90), st.sampled_from(["ours", "by hand", "buyer"])), max_size=50),
)
def test_look_up_says_only_what_the_history_shows(
    channel: AliExpressMessages, stand: AliExpressStandIn, clock: Clock, history: list[tuple[int, str]]
) -> None:
    """Minutes before and after the sending."""
    stand.history.clear()
    sent = asked(clock, text="Hello 1")
    for minute, who in history:
        by = BUYER if who == "buyer" else SELLER
        text = "Hello 1" if who == "ours" else "something else"
        stand.wrote(buyer(1), text, clock() + timedelta(minutes=minute), by=by)
    clock.pass_by(minutes=91)
    found = channel.look_up([sent]).get(1)
    since = [who for minute, who in history if minute >= -2]
    if "ours" in since:
        assert isinstance(found, Accepted)
    elif "by hand" not in since and any(minute < -2 for minute, _ in history):
        assert isinstance(found, Refused)
    else:
        assert found is None


def test_missing_secret_names_field_and_variable(clock: Clock) -> None:
    with pytest.raises(ConfigError, match=r"config/channels\.yaml: bazaar\.token_env is TOKEN"):
        aliexpress("http://127.0.0.1:1", clock, {"KEY": "x", "SECRET": "y"})


@pytest.mark.parametrize("name", ["aliexpress_sync", "aliexpress_rest"])
def test_signature(name: str) -> None:
    vector = spec("signature-vectors.json")[name]
    assert signature(vector["secret"], vector["params"], vector.get("path", "")) == vector["sign"]


def test_requests_and_answers_are_those_of_the_specification(
    channel: AliExpressMessages, stand: AliExpressStandIn, clock: Clock
) -> None:
    facts = spec("aliexpress/fields.json")
    answers(channel, note(1, extras={"item_id": "5"}))
    sent = asked(clock)
    clock.pass_by(hours=1)
    channel.look_up([sent])
    assert [method for method, _ in stand.calls] == [OPEN, SEND, HISTORY]
    for method, call in stand.calls:
        for name, value in call.items():
            known = facts[method]["request"][name]["type"]
            assert set(value) <= set(known)
            assert set(value.get("message_content_dto", {})) <= set(known.get("message_content_dto", {}))
    (message,) = stand.history[buyer(1)]
    assert set(message) == set(facts[HISTORY]["response"]["result"]["data"]["message_list"][0])
