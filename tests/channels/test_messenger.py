"""Messenger's Send API, against a stand-in of one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from lifecycle.channels.base import Accepted, Outcome, Refused, Unknown
from lifecycle.channels.messenger import Messenger
from lifecycle.channels.meta import judge
from lifecycle.errors import ChannelDown, ConfigError
from lifecycle.messages.records import Note, Sent
from lifecycle.settings.channels import MessengerChannel
from sandbox.messengers import PageApi, broken_wire
from sandbox.servers import serve
from tests.channels.wires import BREAKS, unused_address
from tests.conftest import FakeClock
from tests.contracts.channel import ChannelContract, Line, Peer, send_all

TOKEN = "EAAG-page_token"
REFUSALS: Mapping[Peer, int] = {
    Peer.IS_BUSY: 1200,
    Peer.NAMES_A_TIME_TO_WAIT: 613,
    Peer.REFUSES_THE_MESSAGE: 100,
    Peer.REFUSES_THE_SENDER: 368,
}


def note(number: int = 1, **changes: Any) -> Note:
    usual = Note(
        send_id=number,
        key=f"{number}.0123456789abcdef",
        to=f"{7_000_000_000_000_000 + number}",
        order_id=None,
        purpose="transactional",
        what="news",
        shop="atlas",
        language="en",
        text="Your parcel is on its way.",
    )
    return replace(usual, **changes)


def settings(url: str) -> MessengerChannel:
    wanted = {"name": "fb", "kind": "messenger", "url": f"{url}/v25.0", "page_id": "1029384756", "token_env": "T"}
    return MessengerChannel.model_validate(wanted | {"timeout_seconds": 0.5})


class TestMessenger(ChannelContract):
    SECRET = TOKEN
    KNOWS_WHAT_LEFT = False  # HTTP does not tell how much of a request has left

    @contextmanager
    def line(self, peer: Peer) -> Iterator[Line]:
        api = PageApi(TOKEN, "1029384756", all_refused=REFUSALS.get(peer), wait=7)
        known = {Peer.KNOWS_NO_SUCH_ADDRESS: (), Peer.REFUSES_THE_SECOND: (1, 3)}.get(peer, (1, 2, 3))
        api.wrote_at = {note(number).to: api.clock() for number in known}
        if peer is Peer.KNOWS_ANOTHER_PASSWORD:
            api.token = "another"
        with serve(api.app()) as url, broken_wire(url, BREAKS.get(peer, "answer")) as wire:
            address = wire if peer in BREAKS else unused_address() if peer is Peer.IS_NOT_THERE else url
            with Messenger(settings(address), {"T": TOKEN}) as way:
                yield Line(way, lambda: [body["message"]["metadata"] for body in api.taken])

    def message(self, number: int) -> Note:
        return note(number)

    def sent(self, number: int) -> Sent:
        return Sent(number, note(number).key, note(number).to, None, datetime(2026, 11, 22, tzinfo=UTC))


@pytest.fixture
def api(clock: FakeClock) -> PageApi:
    return PageApi(TOKEN, "1029384756", clock, wrote_at={note().to: clock()})


def sent(api: PageApi, *notes: Note) -> list[Outcome]:
    with serve(api.app()) as url, Messenger(settings(url), {"T": TOKEN}) as way:
        answers = send_all(way, notes, [])
    return [answers[each.send_id] for each in notes]


def test_within_a_day_anything_may_be_said_and_later_only_under_a_tag(api: PageApi, clock: FakeClock) -> None:
    tagged = note(2, to=note().to, extras={"tag": "HUMAN_AGENT"})
    assert isinstance(sent(api, note(purpose="marketing"))[0], Accepted)
    clock.tick(hours=24)
    late, with_tag = sent(api, note(), tagged)
    assert isinstance(late, Refused) and (late.code, late.permanent, late.scope) == ("10", True, "message")
    assert isinstance(with_tag, Accepted)
    clock.tick(days=6)
    assert isinstance(sent(api, tagged)[0], Refused)


def test_marketing_later_needs_the_token_of_who_asked_for_it(api: PageApi, clock: FakeClock) -> None:
    api.subscribers = {"tok-A1"}
    clock.tick(days=30)
    outcomes = sent(
        api,
        note(1, to="tok-A1", purpose="marketing"),
        note(2, to=note(1).to, purpose="marketing", extras={"notification_messages_token": "tok-A1"}),
        note(3, to="tok-B2", purpose="marketing"),
    )
    assert [type(outcome) for outcome in outcomes] == [Accepted, Accepted, Refused]
    assert [body["recipient"] for body in api.taken] == [{"notification_messages_token": "tok-A1"}] * 2


def test_marketing_never_leaves_under_a_tag(api: PageApi) -> None:
    (outcome,) = sent(api, note(purpose="marketing", extras={"tag": "ACCOUNT_UPDATE"}))
    assert isinstance(outcome, Refused) and outcome.permanent and "tag" in outcome.text and api.taken == []


def test_person_who_is_not_available_now_is_no_dead_address(api: PageApi) -> None:
    api.unavailable = {note().to}
    (outcome,) = sent(api, note())
    assert isinstance(outcome, Refused) and (outcome.code, outcome.scope) == ("551", "buyer")


def test_text_over_the_limit_is_refused_for_good(api: PageApi) -> None:
    longest, longer = sent(api, note(1, text="x" * 2000), note(2, to=note(1).to, text="x" * 2001))
    assert isinstance(longest, Accepted) and isinstance(longer, Refused) and longer.permanent


@pytest.mark.parametrize("code", [10, 200, 190])
def test_missing_permission_is_a_login(code: int) -> None:
    with pytest.raises(ChannelDown) as caught:
        judge("Messenger", httpx.Response(403), {"code": code, "message": "(#10) no"})
    assert caught.value.login


def test_error_that_is_known_to_be_said_of_messages_that_left() -> None:
    outcome = judge("Messenger", httpx.Response(400), {"code": 1, "error_subcode": 1357046})
    assert isinstance(outcome, Unknown)


def test_empty_message_never_leaves(api: PageApi) -> None:
    assert isinstance(sent(api, note(text=""))[0], Refused) and api.taken == []


def test_missing_token() -> None:
    with pytest.raises(ConfigError, match=r"config/channels\.yaml: fb\.token_env is T, which is not set"):
        Messenger(settings("http://127.0.0.1:1"), {})
