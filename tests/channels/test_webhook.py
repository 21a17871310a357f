"""The webhook channel, against a receiver that keeps to docs/webhook.md, and one that does not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lifecycle.channels.base import Accepted, Outcome, Refused, Unknown
from lifecycle.channels.webhook import Webhook
from lifecycle.errors import ChannelDown, ConfigError
from lifecycle.messages.records import Note, Sent
from lifecycle.settings import ROOT
from lifecycle.settings.channels import WebhookChannel
from sandbox.messengers import Receiver, broken_wire
from sandbox.servers import serve
from tests.channels.wires import BREAKS, unused_address
from tests.conftest import FakeClock
from tests.contracts.channel import ChannelContract, Line, Peer, send_all

SECRET = "a secret of at least 32 characters"
ANSWERS: Mapping[Peer, Mapping[str, Any]] = {
    Peer.IS_BUSY: {"status": "later", "text": "carrier of +49 151 12345678 is busy"},
    Peer.KNOWS_NO_SUCH_ADDRESS: {
        "status": "refused",
        "scope": "address",
        "text": "no such number: +4915112345678",
    },
    Peer.REFUSES_THE_SECOND: {"status": "refused", "code": 30007},
    Peer.REFUSES_THE_MESSAGE: {"status": "refused"},
    Peer.REFUSES_THE_SENDER: {"status": "refused", "scope": "lane", "text": "the account is closed"},
}


def note(number: int = 1, **changes: Any) -> Note:
    usual = Note(
        send_id=number,
        key=f"{number}.0123456789abcdef",
        to=f"+4915112345{number:03}",
        order_id="A-1",
        purpose="marketing",
        what="winback",
        shop="atlas",
        language="zh",
        text="你好 Ada",
        extras={"sender": "ATLAS"},
    )
    return replace(usual, **changes)


def looked_for(number: int) -> Sent:
    return Sent(number, note(number).key, note(number).to, None, datetime(2026, 11, 22, tzinfo=UTC))


def settings(url: str, **changes: Any) -> WebhookChannel:
    wanted = {"name": "sms", "kind": "webhook", "url": f"{url}/hook", "secret_env": "S", "timeout_seconds": 0.5}
    return WebhookChannel.model_validate(wanted | changes)


class TestWebhook(ChannelContract):
    SECRET = SECRET
    KNOWS_WHAT_LEFT = False  # HTTP does not tell how much of a request has left

    @contextmanager
    def line(self, peer: Peer) -> Iterator[Line]:
        receiver = Receiver(SECRET)
        if peer in ANSWERS:
            refused = (2,) if peer is Peer.REFUSES_THE_SECOND else (1, 2)
            receiver.answers = {note(number).to: ANSWERS[peer] for number in refused}
        if peer is Peer.NAMES_A_TIME_TO_WAIT:
            receiver.status, receiver.wait = 429, 7
        if peer is Peer.KNOWS_ANOTHER_PASSWORD:
            receiver.secret = "another"
        with serve(receiver.app()) as url, broken_wire(url, BREAKS.get(peer, "answer")) as wire:
            address = wire if peer in BREAKS else unused_address() if peer is Peer.IS_NOT_THERE else url
            with Webhook(settings(address), {"S": SECRET}) as way:
                yield Line(way, lambda: list(receiver.taken))

    def message(self, number: int) -> Note:
        return note(number)

    def sent(self, number: int) -> Sent:
        return looked_for(number)


@contextmanager
def open_way(receiver: Receiver, **changes: Any) -> Iterator[Webhook]:
    with serve(receiver.app()) as url, Webhook(settings(url, **changes), {"S": SECRET}, receiver.clock) as way:
        yield way


@pytest.fixture
def receiver(clock: FakeClock) -> Receiver:
    return Receiver(SECRET, clock)


def sent(receiver: Receiver, *notes: Note, **changes: Any) -> list[Outcome]:
    with open_way(receiver, **changes) as way:
        answers = send_all(way, notes, [])
    return [answers[each.send_id] for each in notes]


def test_everything_that_is_known_arrives(receiver: Receiver) -> None:
    sent(receiver, note(1, parameters=("Ada",), template="t", title="Hi"))
    assert list(receiver.taken.values()) == [
        {
            "id": 1,
            "key": "1.0123456789abcdef",
            "to": "+4915112345001",
            "order_id": "A-1",
            "campaign": "winback",
            "purpose": "marketing",
            "shop": "atlas",
            "language": "zh",
            "title": "Hi",
            "text": "你好 Ada",
            "template": "t",
            "parameters": ["Ada"],
            "extras": {"sender": "ATLAS"},
        }
    ]


def test_as_many_at_once_as_the_settings_allow(receiver: Receiver) -> None:
    assert len(sent(receiver, *map(note, range(1, 26)), per_request=10)) == 25
    assert [len(json.loads(each["body"])["messages"]) for each in receiver.requests] == [10, 10, 5]


def test_same_messages_have_the_same_idempotency_key(receiver: Receiver) -> None:
    for notes in ([note(1), note(2)], [note(1), note(2)], [note(2), note(1)], [note(1)]):
        sent(receiver, *notes)
    first, again, turned, fewer = (each["idempotency-key"] for each in receiver.requests)
    assert first == again and len({first, turned, fewer}) == 3
    assert len(receiver.taken) == 2


def test_each_message_has_its_own_answer(receiver: Receiver) -> None:
    receiver.status = 207
    receiver.answers = {
        note(1).to: {"status": "later", "retry_after": 60, "text": "busy"},
        note(2).to: {"status": "refused", "code": "21211", "text": "no", "scope": "buyer"},
        note(3).to: {"status": "refused", "permanent": False},
        note(4).to: {"status": "accepted"},
        note(5).to: {"status": "taken"},
        note(6).to: {"status": "refused", "scope": "everybody"},
        note(7).to: {"status": "accepted", "provider_id": ["?"]},
    }
    receiver.left_out = {note(8).to}
    outcomes = sent(receiver, *map(note, range(1, 9)))
    assert outcomes[:4] == [
        Refused("", "busy", False, retry_after=60),
        Refused("21211", "no", True, "buyer"),
        Refused("", "no reason given", False),
        Accepted(note(4).key),
    ]
    assert all(isinstance(outcome, Unknown) for outcome in outcomes[4:])


@pytest.mark.parametrize("status", [301, 400, 404, 413, 422, 429, 503])
def test_nothing_was_taken_of_a_request_that_is_refused(receiver: Receiver, status: int) -> None:
    receiver.status, receiver.wait = status, 30
    with pytest.raises(ChannelDown) as caught:
        sent(receiver, note())
    assert caught.value.taken_none and not caught.value.login and str(status) in str(caught.value)
    assert caught.value.retry_after == (30 if status in (429, 503) else None)


@pytest.mark.parametrize("status", [500, 502, 504, 201])
def test_other_statuses_do_not_say_whether_anything_was_taken(receiver: Receiver, status: int) -> None:
    receiver.status = status
    assert all(isinstance(outcome, Unknown) for outcome in sent(receiver, note(1), note(2)))


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 5) | st.floats() | st.sampled_from(["accepted", "refused", "1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["results", "id", "status", "scope", "text", "retry_after"]), inner)
    ),
    max_leaves=8,
)
RESULT = st.fixed_dictionaries(
    {
        "id": st.integers(1, 3) | st.just("2") | ODD,
        "status": st.sampled_from(["accepted", "refused", "later"]) | ODD,
    },
    optional={"provider_id": st.sampled_from(["a", "b"]) | ODD, "permanent": ODD, "retry_after": ODD},
)


@pytest.fixture(scope="module")
def saying() -> Iterator[Callable[[Any], list[Outcome]]]:
    """`saying(answer)`: what becomes of messages 1, 2 and 3 where the receiver says that."""
    said: list[Any] = [None]

    async def hook(_request: Request) -> Response:
        return Response(json.dumps(said[0]), media_type="application/json")

    app = Starlette(routes=[Route("/hook", hook, methods=["POST"])])
    with serve(app) as url, Webhook(settings(url), {"S": SECRET}) as way:

        def say(answer: Any) -> list[Outcome]:
            said[0] = answer
            answers = send_all(way, [note(1), note(2), note(3)], [])
            return [answers[number] for number in (1, 2, 3)]

        yield say


@given(answer=ODD | st.fixed_dictionaries({"results": st.lists(RESULT | ODD, max_size=6)}))
def test_no_answer_is_guessed(saying: Callable[[Any], list[Outcome]], answer: Any) -> None:
    """A message is only taken, or not taken, where a result names it and says so, and no other contradicts."""
    outcomes = saying(answer)
    results = answer.get("results") if isinstance(answer, dict) else None
    for number, outcome in zip((1, 2, 3), outcomes, strict=True):
        named = [
            result
            for result in (results if isinstance(results, list) else [])
            if isinstance(result, dict) and str(result.get("id")) == str(number)
        ]
        said = {str(result.get("status")) for result in named}
        if isinstance(outcome, Accepted):
            assert "accepted" in said
        elif isinstance(outcome, Refused):
            assert said & {"refused", "later"}
        if not named:
            assert isinstance(outcome, Unknown)


def test_two_answers_that_differ_are_none(saying: Callable[[Any], list[Outcome]]) -> None:
    results = [{"id": 1, "status": "accepted"}, {"id": 1, "status": "refused"}, {"id": 2, "status": "accepted"}]
    first, second, _ = saying({"results": [*results, {"id": "2", "status": "accepted"}]})
    assert isinstance(first, Unknown) and isinstance(second, Accepted)


def test_receiver_is_asked_what_it_has_taken(receiver: Receiver) -> None:
    receiver.left_out = {note(1).to}
    with open_way(receiver) as way:
        send_all(way, [note(1)], [])
        receiver.taken[note(1).key] = {}
        found = way.look_up([looked_for(number) for number in range(1, 121)])
    assert found[1] == Accepted(f"r-{note(1).key}")
    assert len(found) == 120
    assert all(isinstance(found[number], Refused) for number in range(2, 121))


def test_receiver_that_cannot_be_asked(receiver: Receiver) -> None:
    receiver.can_be_asked = False
    with open_way(receiver) as way:
        assert way.look_up([looked_for(1)]) == {}


def test_receiver_that_does_not_answer_when_asked() -> None:
    with Webhook(settings(unused_address()), {"S": SECRET}) as way, pytest.raises(ChannelDown):
        way.look_up([looked_for(1)])


def test_address_is_used_as_it_is_written(receiver: Receiver) -> None:
    seen: list[str] = []

    async def anything(request: Request) -> Response:
        seen.append(f"{request.method} {request.url.path}?{request.url.query}")
        return JSONResponse({"results": []})

    app = Starlette(routes=[Route("/{path:path}", anything, methods=["POST", "GET"])])
    with serve(app) as url:
        wanted = settings(url).model_copy(update={"url": f"{url}/a/b.php?tenant=7"})
        with Webhook(wanted, {"S": SECRET}) as way:
            send_all(way, [note()], [])
            way.look_up([looked_for(1)])
    assert seen == ["POST /a/b.php?tenant=7", f"GET /a/b.php?tenant=7&keys={note().key}"]


def test_check_of_the_signature_in_the_documentation_accepts_ours_and_no_other(receiver: Receiver) -> None:
    page = (ROOT / "docs/webhook.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], names)
    is_from_tern = names["is_from_tern"]
    receiver.clock = lambda: datetime.now(UTC)
    sent(receiver, note())
    (request,) = receiver.requests
    headers = {name: value for name, value in request.items() if name != "body"}
    body = request["body"].encode()
    assert is_from_tern(headers, body, SECRET)
    assert not is_from_tern(headers, body + b" ", SECRET)
    assert not is_from_tern(headers, body, SECRET + "!")
    assert not is_from_tern(headers | {"tern-timestamp": str(int(headers["tern-timestamp"]) - 1)}, body, SECRET)
    assert not is_from_tern({}, body, SECRET)


def test_examples_in_the_documentation_are_what_is_sent_and_understood(
    receiver: Receiver, saying: Callable[[Any], list[Outcome]]
) -> None:
    page = (ROOT / "docs/webhook.md").read_text(encoding="utf-8")
    request, answer, known = (json.loads(each) for each in re.findall(r"```json\n(.*?)```", page, re.DOTALL))
    sent(receiver, note())
    assert list(request["messages"][0]) == list(json.loads(receiver.requests[0]["body"])["messages"][0])
    outcomes = saying({"results": [each | {"id": each["id"] - 4710} for each in answer["results"]]})
    assert outcomes == [
        Accepted("sms-1"),
        Refused("21211", "no such number", True, "address", "hard"),
        Refused("", "carrier is busy", False, retry_after=60),
    ]
    assert set(known["results"][0]) == {"key", "status", "provider_id"}


def test_missing_secret() -> None:
    with pytest.raises(
        ConfigError, match=r"config/channels\.yaml: sms\.secret_env is S, which is not set; set it"
    ):
        Webhook(settings("http://127.0.0.1:1"), {})
