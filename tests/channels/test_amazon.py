"""Amazon's review requests and messages against a stand-in of the Selling Partner API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from lifecycle.channels.amazon import TEXT_LIMITS, AmazonMessaging, AmazonSolicitations
from lifecycle.channels.base import Accepted, Refused, Unknown
from lifecycle.errors import ChannelDown, ConfigError
from lifecycle.messages.records import Note, Sent
from lifecycle.settings.channels import AmazonMessagingChannel, AmazonSolicitationsChannel
from sandbox.marketplaces.amazon import LONGEST_TEXT, REVIEW_REQUEST, AmazonStandIn, Order
from sandbox.marketplaces.trouble import Trouble
from sandbox.servers import serve
from tests.channels.marketplaces import TIMEOUT, Clock, answers, served, spec
from tests.contracts.channel import ChannelContract, Line, Peer

SECRET = "correct horse battery"
ENV = {"ID": "amzn1.application-oa2-client.stand-in", "SECRET": SECRET, "REFRESH": "Atzr|stand-in"}
COMMON = {
    "client_id_env": "ID",
    "client_secret_env": "SECRET",
    "refresh_token_env": "REFRESH",
    "marketplace_id": "ATVPDKIKX0DER",
    "timeout_seconds": TIMEOUT,
}
BUSY = {"errors": [{"code": "ServiceUnavailable", "message": "Service is temporarily unavailable."}]}
CANNOT = {Peer.KNOWS_NO_SUCH_ADDRESS: "Amazon is asked about an order; there is no address"}


def order_id(number: int) -> str:
    return f"903-{number:07d}-0812628"


def note(number: int = 1, **changes: Any) -> Note:
    return replace(
        Note(number, f"{number}.ab", "buyer", order_id(number), "review_request", "ask", "us", "en"), **changes
    )


def message(number: int = 1, **changes: Any) -> Note:
    extras = {"message_type": "confirmOrderDetails"}
    return note(number, **{"purpose": "transactional", "text": "Which size?", "extras": extras, **changes})


def sent(number: int, clock: Clock) -> Sent:
    return Sent(number, f"{number}.ab", "buyer", order_id(number), clock())


def solicitations(url: str, clock: Clock, env: dict[str, str] = ENV) -> AmazonSolicitations:
    settings = {"name": "reviews", "kind": "amazon_solicitations", "url": url, "login_url": f"{url}/auth/o2/token"}
    return AmazonSolicitations(AmazonSolicitationsChannel.model_validate(settings | COMMON), env, clock)


def messaging(url: str, clock: Clock) -> AmazonMessaging:
    settings = {"name": "orders", "kind": "amazon_messaging", "url": url, "login_url": f"{url}/auth/o2/token"}
    return AmazonMessaging(AmazonMessagingChannel.model_validate(settings | COMMON), ENV, clock)


def stand_in(peer: Peer, clock: Clock) -> AmazonStandIn:
    slow = {"rate": 0.125, "burst": 0} if peer is Peer.NAMES_A_TIME_TO_WAIT else {}
    secret = "another" if peer is Peer.KNOWS_ANOTHER_PASSWORD else SECRET
    stand = AmazonStandIn(client_secret=secret, clock=clock, **slow)  # type: ignore[arg-type]
    stand.add(*(Order(order_id(number)) for number in range(1, 4)))
    stand.has_the_role = peer is not Peer.REFUSES_THE_SENDER
    if peer is Peer.IS_BUSY:
        stand.app.plan(Trouble("answer", "0812628", method="GET", status=503, body=BUSY))
    return stand


class TestSolicitations(ChannelContract):
    KNOWS_WHAT_LEFT = False
    CANNOT = CANNOT

    @contextmanager
    def line(self, peer: Peer) -> Iterator[Line]:
        clock = Clock()
        stand = stand_in(peer, clock)
        if peer in (Peer.REFUSES_THE_MESSAGE, Peer.REFUSES_THE_SECOND):
            stand.orders[order_id(1 if peer is Peer.REFUSES_THE_MESSAGE else 2)].may_be_asked = False
        with served(stand.app, peer, REVIEW_REQUEST) as url, solicitations(url, clock) as channel:
            yield Line(channel, lambda: list(stand.solicited))

    def message(self, number: int) -> Note:
        return note(number)

    def seen_as(self, message: Note) -> str:
        return str(message.order_id)

    def sent(self, number: int) -> Sent:
        return sent(number, Clock(Clock().now - timedelta(hours=1)))


class TestMessaging(ChannelContract):
    KNOWS_WHAT_LEFT = False
    CANNOT = CANNOT

    @contextmanager
    def line(self, peer: Peer) -> Iterator[Line]:
        clock = Clock()
        stand = stand_in(peer, clock)
        if peer in (Peer.REFUSES_THE_MESSAGE, Peer.REFUSES_THE_SECOND):
            stand.orders[order_id(1 if peer is Peer.REFUSES_THE_MESSAGE else 2)].message_types = frozenset()
        with served(stand.app, peer, "confirmOrderDetails") as url, messaging(url, clock) as channel:
            yield Line(channel, lambda: [order for order, _, _ in stand.messages])

    def message(self, number: int) -> Note:
        return message(number)

    def seen_as(self, message: Note) -> str:
        return str(message.order_id)

    def sent(self, number: int) -> Sent:
        return sent(number, Clock())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stand(clock: Clock) -> AmazonStandIn:
    stand = AmazonStandIn(client_secret=SECRET, clock=clock)
    stand.add(*(Order(order_id(number)) for number in range(1, 10)))
    return stand


@pytest.fixture
def url(stand: AmazonStandIn) -> Iterator[str]:
    with serve(stand.app) as url:
        yield url


@pytest.fixture
def reviews(url: str, clock: Clock) -> Iterator[AmazonSolicitations]:
    with solicitations(url, clock) as channel:
        yield channel


@pytest.fixture
def orders(url: str, clock: Clock) -> Iterator[AmazonMessaging]:
    with messaging(url, clock) as channel:
        yield channel


def test_asks_first_and_posts_only_what_is_offered(reviews: AmazonSolicitations, stand: AmazonStandIn) -> None:
    stand.orders[order_id(2)].may_be_asked = False
    first, second = answers(reviews, note(1), note(2))
    assert isinstance(first, Accepted)
    assert second == Refused(
        "",
        "Amazon does not allow a review request for this order: it was asked for already, or it is too early or "
        "too late",
        permanent=True,
        kind="policy",
    )
    assert [seen.method for seen in stand.seen] == ["GET", "POST", "GET"]
    assert all(seen.query == {"marketplaceIds": "ATVPDKIKX0DER"} for seen in stand.seen)


def test_second_request_for_an_order_is_about_the_order(
    reviews: AmazonSolicitations, stand: AmazonStandIn
) -> None:
    """Amazon answers it with 403 Unauthorized, as it answers a missing role."""
    refusal = {
        "code": "Unauthorized",
        "message": "The requested solicitation is not available for this amazonOrderId.",
        "details": "",
    }
    stand.app.plan(Trouble("answer", REVIEW_REQUEST, status=403, body={"errors": [refusal]}, times=1))
    (outcome,) = answers(reviews, note(1))
    assert isinstance(outcome, Refused) and outcome.permanent
    assert (outcome.scope, outcome.code, outcome.text) == ("message", "403 Unauthorized", refusal["message"])


def test_note_without_an_order(reviews: AmazonSolicitations, stand: AmazonStandIn) -> None:
    (outcome,) = answers(reviews, note(1, order_id=None))
    assert isinstance(outcome, Refused) and outcome.permanent and outcome.scope == "message"
    assert stand.seen == []


def test_order_that_amazon_does_not_know(reviews: AmazonSolicitations) -> None:
    (outcome,) = answers(reviews, note(77))
    assert isinstance(outcome, Refused) and outcome.permanent and outcome.code == "404 NotFound"


def test_order_id_is_quoted(reviews: AmazonSolicitations, stand: AmazonStandIn) -> None:
    (outcome,) = answers(reviews, note(1, order_id="../x?y=1"))
    assert isinstance(outcome, Refused) and stand.solicited == []


def test_one_token_serves_until_shortly_before_it_expires(
    reviews: AmazonSolicitations, stand: AmazonStandIn, clock: Clock
) -> None:
    answers(reviews, note(1), note(2))
    clock.pass_by(seconds=3400)
    answers(reviews, note(3))
    assert stand.tokens_given == 1
    clock.pass_by(seconds=100)
    answers(reviews, note(4))
    assert stand.tokens_given == 2 and len(stand.solicited) == 4


def test_token_that_is_not_accepted_any_more_is_fetched_anew_once(
    reviews: AmazonSolicitations, stand: AmazonStandIn
) -> None:
    answers(reviews, note(1))
    stand.expire_tokens()
    (outcome,) = answers(reviews, note(2))
    assert isinstance(outcome, Accepted) and stand.tokens_given == 2


@pytest.mark.parametrize(("code", "refresh"), [("invalid_grant", "Atzr|revoked"), ("invalid_client", None)])
def test_login_that_is_not_accepted(url: str, clock: Clock, code: str, refresh: str | None) -> None:
    env = ENV | ({"REFRESH": refresh} if refresh else {"SECRET": "wrong"})
    with solicitations(url, clock, env) as channel, pytest.raises(ChannelDown, match="does not accept") as caught:
        answers(channel, note(1))
    assert caught.value.login and caught.value.taken_none
    assert "revoked" not in str(caught.value) and (code == "invalid_client" or code in str(caught.value))


def test_burst_and_rate(clock: Clock) -> None:
    stand = AmazonStandIn(client_secret=SECRET, rate=1, burst=5, clock=clock)
    stand.add(*(Order(order_id(number)) for number in range(1, 10)))
    with serve(stand.app) as url, solicitations(url, clock) as channel:
        with pytest.raises(ChannelDown) as caught:
            answers(channel, *(note(number) for number in range(1, 10)))
        assert caught.value.retry_after == 1 and caught.value.taken_none and not caught.value.login
        assert len(stand.solicited) == 5
        clock.pass_by(seconds=10)
        assert [type(outcome) for outcome in answers(channel, note(6), note(7))] == [Accepted] * 2


def test_rate_that_is_not_told(reviews: AmazonSolicitations, stand: AmazonStandIn) -> None:
    body = {"errors": [{"code": "QuotaExceeded", "message": "You exceeded your quota."}]}
    stand.app.plan(Trouble("answer", "0812628", method="GET", status=429, body=body))
    with pytest.raises(ChannelDown) as caught:
        answers(reviews, note(1))
    assert caught.value.retry_after == 2


@pytest.mark.parametrize(("status", "expected"), [(500, Unknown), (502, Unknown), (503, Refused), (413, Refused)])
def test_errors_of_the_post(
    reviews: AmazonSolicitations, stand: AmazonStandIn, status: int, expected: type[object]
) -> None:
    stand.app.plan(Trouble("answer", REVIEW_REQUEST, status=status, body=BUSY))
    (outcome,) = answers(reviews, note(1))
    assert isinstance(outcome, expected)
    if isinstance(outcome, Refused):
        assert outcome.permanent == (status == 413)


def test_answer_that_is_lost_before_the_post_is_a_refusal(
    reviews: AmazonSolicitations, stand: AmazonStandIn
) -> None:
    stand.app.plan(Trouble("mute", "0812628", method="GET"))
    (outcome,) = answers(reviews, note(1))
    assert isinstance(outcome, Refused) and not outcome.permanent
    assert "before the message was sent" in outcome.text and stand.solicited == []


def test_after_three_lost_answers_the_others_wait(reviews: AmazonSolicitations, stand: AmazonStandIn) -> None:
    stand.app.plan(Trouble("mute", REVIEW_REQUEST))
    outcomes: list[object] = []
    with pytest.raises(ChannelDown, match="does not answer"):
        for _, outcome in reviews.send([note(number) for number in range(1, 8)], lambda note: None):
            outcomes.append(outcome)
    assert [type(outcome) for outcome in outcomes] == [Unknown] * 3 and len(stand.solicited) == 3


def test_looks_up_only_what_amazon_still_offers(
    reviews: AmazonSolicitations, stand: AmazonStandIn, clock: Clock
) -> None:
    stand.app.plan(Trouble("mute", REVIEW_REQUEST, times=1), Trouble("deaf", REVIEW_REQUEST, times=1))
    assert [type(outcome) for outcome in answers(reviews, note(1), note(2))] == [Unknown, Unknown]
    asked = [sent(1, clock), sent(2, clock), replace(sent(3, clock), order_id=None), sent(77, clock)]
    assert reviews.look_up(asked) == {}, "too soon: it may still be on its way"
    clock.pass_by(minutes=11)
    found = reviews.look_up(asked)
    assert list(found) == [2] and isinstance(found[2], Refused) and not found[2].permanent


def test_look_up_that_is_not_answered(reviews: AmazonSolicitations, stand: AmazonStandIn, clock: Clock) -> None:
    stand.app.plan(Trouble("mute", "0812628", method="GET"))
    asked = [sent(1, clock)]
    clock.pass_by(hours=1)
    with pytest.raises(ChannelDown):
        reviews.look_up(asked)


def test_each_message_type_with_a_text(orders: AmazonMessaging, stand: AmazonStandIn) -> None:
    for kind, limit in TEXT_LIMITS.items():
        longest, extras = "x" * limit, {"message_type": kind}
        fits, too_long = answers(
            orders, message(1, text=longest, extras=extras), message(2, text=f"{longest}x", extras=extras)
        )
        assert isinstance(fits, Accepted)
        assert isinstance(too_long, Refused) and too_long.permanent and too_long.kind == "content"
        assert stand.messages.pop() == (order_id(1), kind, {"text": longest}) and not stand.messages


def test_message_that_cannot_be(orders: AmazonMessaging, stand: AmazonStandIn) -> None:
    wrong = [
        ("warranty", "x", "needs files"),
        ("", "x", 'message_type is ""; known: confirmCustomizationDetails'),
        ("hello", "x", "known:"),
        ("confirmOrderDetails", "", "empty"),
    ]
    for kind, text, words in wrong:
        (outcome,) = answers(orders, message(1, text=text, extras={"message_type": kind}))
        assert isinstance(outcome, Refused) and outcome.permanent and words in outcome.text
    assert stand.seen == []


def test_missing_secret_names_field_and_variable(url: str, clock: Clock) -> None:
    with pytest.raises(ConfigError, match=r"config/channels\.yaml: reviews\.refresh_token_env is REFRESH"):
        solicitations(url, clock, {"ID": "x", "SECRET": "y"})


def test_limits_are_those_of_the_model() -> None:
    definitions = spec("amazon-sp-api/models/messaging.json")["definitions"]
    published = {
        name: definition["properties"]["text"]["maxLength"]
        for name, definition in definitions.items()
        if "text" in definition.get("properties", {})
    }
    assert sorted(published.values()) == sorted(TEXT_LIMITS.values()) and LONGEST_TEXT == TEXT_LIMITS
    for kind, longest in TEXT_LIMITS.items():
        assert published[f"Create{kind[0].upper()}{kind[1:]}Request"] == longest


@pytest.mark.parametrize("name", ["solicitations", "messaging"])
def test_requests_are_those_of_the_model(
    name: str, reviews: AmazonSolicitations, orders: AmazonMessaging, stand: AmazonStandIn
) -> None:
    paths = spec(f"amazon-sp-api/models/{name}.json")["paths"]
    answers(reviews, note(1)) if name == "solicitations" else answers(orders, message(1))
    assert len(stand.seen) == 2
    for seen in stand.seen:
        operation = paths[seen.path.replace(order_id(1), "{amazonOrderId}")][seen.method.lower()]
        required = {
            each["name"] for each in operation["parameters"] if each.get("required") and each["in"] != "path"
        }
        assert set(seen.query) | ({"body"} if seen.body is not None else set()) == required


def test_stand_in_answers_as_amazon_s_own_example(url: str, stand: AmazonStandIn) -> None:
    path = "/solicitations/v1/orders/{amazonOrderId}"
    model = spec("amazon-sp-api/models/solicitations.json")["paths"][path]["get"]["responses"]["200"]
    (example,) = model["x-amzn-api-sandbox"]["static"]
    known = example["request"]["parameters"]["amazonOrderId"]["value"]
    stand.add(Order(known))
    login = {"client_id": ENV["ID"], "client_secret": SECRET, "refresh_token": ENV["REFRESH"]}
    token = httpx.post(f"{url}/auth/o2/token", data=login | {"grant_type": "refresh_token"}).json()["access_token"]
    made = httpx.get(
        url + path.format(amazonOrderId=known),
        params={"marketplaceIds": "ATVPDKIKX0DER"},
        headers={"x-amz-access-token": token},
    )
    assert made.json() == example["response"]
