"""eBay member messages against a stand-in of the Commerce Message API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from lifecycle.channels.base import Accepted, Refused, Unknown
from lifecycle.channels.ebay import EbayMessages
from lifecycle.errors import ChannelDown, ConfigError
from lifecycle.messages.records import Note, Sent
from lifecycle.settings.channels import EbayChannel
from sandbox.marketplaces.ebay import EbayStandIn
from sandbox.marketplaces.trouble import Trouble
from sandbox.servers import serve
from tests.channels.marketplaces import TIMEOUT, Clock, answers, served, spec
from tests.contracts.channel import ChannelContract, Line, Peer

SECRET = "correct horse battery"
ENV = {"ID": "Stand-In-PRD", "SECRET": SECRET, "REFRESH": "v^1.1#stand-in"}
SEND = "/commerce/message/v1/send_message"


def note(number: int = 1, **changes: Any) -> Note:
    first = Note(
        number, f"{number}.ab", f"buyer{number}", "12-1", "transactional", "late", "us", "en", text="Sorry!"
    )
    return replace(first, **changes)


def ebay(url: str, clock: Clock, env: dict[str, str] = ENV) -> EbayMessages:
    settings = {
        "name": "ebay",
        "kind": "ebay_messages",
        "url": url,
        "client_id_env": "ID",
        "client_secret_env": "SECRET",
        "refresh_token_env": "REFRESH",
        "timeout_seconds": TIMEOUT,
    }
    return EbayMessages(EbayChannel.model_validate(settings), env, clock)


def error(error_id: int, message: str) -> dict[str, Any]:
    return {"errors": [{"errorId": error_id, "domain": "API_MESSAGE", "category": "REQUEST", "message": message}]}


class TestEbay(ChannelContract):
    KNOWS_WHAT_LEFT = False

    @contextmanager
    def line(self, peer: Peer) -> Iterator[Line]:
        clock = Clock()
        secret = "another" if peer is Peer.KNOWS_ANOTHER_PASSWORD else SECRET
        stand = EbayStandIn(client_secret=secret, clock=clock)
        stand.grants_scope = peer is not Peer.REFUSES_THE_SENDER
        if peer is not Peer.KNOWS_NO_SUCH_ADDRESS:
            stand.users = {"buyer1", "buyer2", "buyer3"} - (
                {"buyer2"} if peer is Peer.REFUSES_THE_SECOND else set()
            )
        canned = {
            Peer.IS_BUSY: Trouble("answer", SEND, status=503, body=error(335000, "Internal error")),
            Peer.NAMES_A_TIME_TO_WAIT: Trouble(
                "answer", SEND, status=429, body=error(2001, "Too many requests"), headers={"Retry-After": "9"}
            ),
            Peer.REFUSES_THE_MESSAGE: Trouble(
                "answer", SEND, status=400, body=error(355012, "Invalid messageText")
            ),
        }
        if peer in canned:
            stand.app.plan(canned[peer])
        with served(stand.app, peer, SEND) as url, ebay(url, clock) as channel:
            yield Line(channel, lambda: [message["otherPartyUsername"] for message in stand.messages])

    def message(self, number: int) -> Note:
        return note(number)

    def seen_as(self, message: Note) -> str:
        return message.to

    def sent(self, number: int) -> Sent:
        return Sent(number, f"{number}.ab", f"buyer{number}", None, Clock().now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stand(clock: Clock) -> EbayStandIn:
    stand = EbayStandIn(client_secret=SECRET, cap=2, clock=clock)
    stand.users = {"buyer1", "buyer2", "buyer3"}
    return stand


@pytest.fixture
def channel(stand: EbayStandIn, clock: Clock) -> Iterator[EbayMessages]:
    with serve(stand.app) as url, ebay(url, clock) as channel:
        yield channel


def test_listing_is_named(channel: EbayMessages, stand: EbayStandIn) -> None:
    answers(channel, note(1), note(2, extras={"item_id": "110011001100"}))
    assert stand.seen == [
        {"otherPartyUsername": "buyer1", "messageText": "Sorry!"},
        {
            "otherPartyUsername": "buyer2",
            "messageText": "Sorry!",
            "reference": {"referenceId": "110011001100", "referenceType": "LISTING"},
        },
    ]


def test_cap_is_the_buyers_and_waits(channel: EbayMessages) -> None:
    *_, third, other = answers(channel, note(1), note(2, to="buyer1"), note(3, to="buyer1"), note(4, to="buyer3"))
    assert third == Refused("20957", "Service is not available.", False, "buyer", "policy", 3600)
    assert isinstance(other, Accepted)


def test_user_is_not_named_in_what_is_kept(channel: EbayMessages) -> None:
    (outcome,) = answers(channel, note(1, to="someone@example.com"))
    assert isinstance(outcome, Refused) and outcome.scope == "address" and outcome.kind == "hard"
    assert "someone" not in outcome.text


@pytest.mark.parametrize(
    "text",
    [
        "See https://shop.example.com/x",
        "See HTTP://shop.example.com",
        "See www.example.com",
        "Write to us@shop.example.com, please",
        "Write to us+1@shop-1.example",
    ],
)
def test_links_and_addresses_are_against_ebays_rules(channel: EbayMessages, stand: EbayStandIn, text: str) -> None:
    (outcome,) = answers(channel, note(1, text=text))
    assert isinstance(outcome, Refused) and outcome.permanent
    assert (outcome.scope, outcome.kind) == ("message", "policy") and stand.seen == []


@pytest.mark.parametrize("text", ["Sale @ noon, e.g. awww.", "1 @ 2.50 each", "A/B and http:"])
def test_what_only_looks_like_a_link(channel: EbayMessages, text: str) -> None:
    (outcome,) = answers(channel, note(1, text=text))
    assert isinstance(outcome, Accepted)


def test_length(channel: EbayMessages, stand: EbayStandIn) -> None:
    fits, too_long, empty = answers(channel, note(1, text="é" * 2000), note(2, text="é" * 2001), note(3, text=""))
    assert isinstance(fits, Accepted) and len(stand.seen) == 1
    for outcome in (too_long, empty):
        assert isinstance(outcome, Refused) and outcome.permanent and outcome.kind == "content"


def test_token_is_kept_and_fetched_anew_once(channel: EbayMessages, stand: EbayStandIn, clock: Clock) -> None:
    answers(channel, note(1), note(2))
    assert stand.tokens_given == 1
    stand.expire_tokens()
    (outcome,) = answers(channel, note(3))
    assert isinstance(outcome, Accepted) and stand.tokens_given == 2
    clock.pass_by(seconds=7100)
    answers(channel, note(4, to="buyer3"))
    assert stand.tokens_given == 3


def test_token_that_cannot_be_fetched_is_no_message_lost(channel: EbayMessages, stand: EbayStandIn) -> None:
    stand.app.plan(Trouble("mute", "/identity/v1/oauth2/token"))
    with pytest.raises(ChannelDown, match="no access token") as caught:
        answers(channel, note(1))
    assert caught.value.taken_none and not caught.value.login


@pytest.mark.parametrize("status", [500, 502, 504])
def test_error_of_the_server_says_nothing_of_the_message(
    channel: EbayMessages, stand: EbayStandIn, status: int
) -> None:
    stand.app.plan(Trouble("answer", SEND, status=status, body=error(335000, "Internal error")))
    (outcome,) = answers(channel, note(1))
    assert isinstance(outcome, Unknown)


def test_revoked_refresh_token(stand: EbayStandIn, clock: Clock) -> None:
    with (
        serve(stand.app) as url,
        ebay(url, clock, ENV | {"REFRESH": "v^1.1#old"}) as channel,
        pytest.raises(ChannelDown, match="invalid_grant") as caught,
    ):
        answers(channel, note(1))
    assert caught.value.login and "v^1.1" not in str(caught.value)


def test_missing_secret_names_field_and_variable(clock: Clock) -> None:
    with pytest.raises(ConfigError, match=r"config/channels\.yaml: ebay\.client_id_env is ID"):
        ebay("http://127.0.0.1:1", clock, {})


def test_requests_and_answers_are_those_of_the_specification(channel: EbayMessages, stand: EbayStandIn) -> None:
    facts = spec("ebay/fields.json")["commerce_message_v1"]
    assert facts["operations"]["POST /send_message"]["scopes"] == [
        "https://api.ebay.com/oauth/api_scope/commerce.message"
    ]
    answers(channel, note(1, extras={"item_id": "1"}))
    (body,) = stand.seen
    assert set(body) <= set(facts["schemas"]["SendMessageRequest"])
    assert set(body["reference"]) == set(facts["schemas"]["Reference"])
    assert "355006" in facts["operations"]["POST /send_message"]["responses"]["400"]["errorIds"]
