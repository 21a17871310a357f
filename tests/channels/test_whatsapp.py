"""WhatsApp's Cloud API, against a stand-in with its limits, and our requests against Meta's own description."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.channels.base import Accepted, Outcome, Refused, Unknown
from lifecycle.channels.meta import AT_A_TIME, CODES, Closed, judge
from lifecycle.channels.whatsapp import WhatsApp
from lifecycle.errors import ChannelDown, ConfigError
from lifecycle.messages.records import Note, Sent
from lifecycle.settings.channels import WhatsAppChannel
from sandbox.messengers import Break, CloudApi, Template, broken_wire
from sandbox.servers import serve
from tests.channels.wires import BREAKS, unused_address
from tests.conftest import FakeClock
from tests.contracts.channel import ChannelContract, Line, Peer, send_all

TOKEN = "EAAG-correct_token"
NUMBER_ID = "106540352242922"
OFFER = Template("winback_offer", "en", 2)
NEWS = Template("order_news", "en", 1, category="utility")

REFUSALS: Mapping[Peer, int] = {
    Peer.IS_BUSY: 131016,
    Peer.NAMES_A_TIME_TO_WAIT: 130429,
    Peer.KNOWS_NO_SUCH_ADDRESS: 131026,
    Peer.REFUSES_THE_MESSAGE: 131047,
    Peer.REFUSES_THE_SENDER: 131048,
}


def note(number: int = 1, **changes: Any) -> Note:
    usual = Note(
        send_id=number,
        key=f"{number}.0123456789abcdef",
        to=f"+4915112345{number:03}",
        order_id=None,
        purpose="marketing",
        what="winback",
        shop="atlas",
        language="en",
        template="winback_offer",
        parameters=("Ada", "BACK10"),
    )
    return replace(usual, **changes)


def settings(url: str, **changes: Any) -> WhatsAppChannel:
    wanted = {"name": "whatsapp", "kind": "whatsapp", "url": f"{url}/v23.0", "phone_number_id": NUMBER_ID}
    return WhatsAppChannel.model_validate(wanted | {"token_env": "TOKEN", "timeout_seconds": 0.5} | changes)


class TestWhatsApp(ChannelContract):
    SECRET = TOKEN
    KNOWS_WHAT_LEFT = False  # HTTP does not tell how much of a request has left

    @contextmanager
    def line(self, peer: Peer) -> Iterator[Line]:
        api = CloudApi(TOKEN, NUMBER_ID, [OFFER], all_refused=REFUSALS.get(peer), wait=7)
        if peer is Peer.REFUSES_THE_SECOND:
            api.refused = {note(2).to: 130472}
        if peer is Peer.KNOWS_ANOTHER_PASSWORD:
            api.token = "another"
        with at(api, BREAKS.get(peer)) as url:
            address = unused_address() if peer is Peer.IS_NOT_THERE else url
            with WhatsApp(settings(address), {"TOKEN": TOKEN}) as way:
                yield Line(way, lambda: [body["biz_opaque_callback_data"] for body in api.taken])

    def message(self, number: int) -> Note:
        return note(number)

    def sent(self, number: int) -> Sent:
        return Sent(number, note(number).key, note(number).to, None, datetime(2026, 11, 22, tzinfo=UTC))


def many(number: int) -> list[Note]:
    return [note(each) for each in range(1, number + 1)]


@contextmanager
def at(api: CloudApi, broken: Break | None = None) -> Iterator[str]:
    with serve(api.app()) as url:
        if broken is None:
            yield url
        else:
            with broken_wire(url, broken) as wire:
                yield wire


def sent(api: CloudApi, *notes: Note, **changes: Any) -> list[Outcome]:
    """Answers in the order of the notes. Raises ChannelDown."""
    with at(api) as url, WhatsApp(settings(url, **changes), {"TOKEN": TOKEN}) as way:
        answers = send_all(way, notes, [])
    return [answers[each.send_id] for each in notes]


Refusing = Callable[..., list[Outcome]]


@pytest.fixture(scope="module")
def refusing() -> Iterator[Refusing]:
    """`refusing(code, wait)`: what becomes of a message that Meta answers so."""
    api = CloudApi(TOKEN, NUMBER_ID)
    with at(api) as url, WhatsApp(settings(url), {"TOKEN": TOKEN}) as way:

        def refused(code: int, wait: int | None = None) -> list[Outcome]:
            api.all_refused, api.wait = code, wait
            return list(send_all(way, [note()], []).values())

        yield refused


@pytest.fixture
def api(clock: FakeClock) -> CloudApi:
    return CloudApi(TOKEN, NUMBER_ID, [OFFER, NEWS], clock)


@pytest.mark.parametrize(
    ("code", "permanent", "scope"),
    [
        (131049, True, "buyer"),
        (131050, True, "address"),
        (130472, True, "message"),
        (130497, True, "message"),
        (131026, True, "address"),
        (131047, True, "message"),
        (131031, True, "lane"),
        (368, True, "lane"),
        (131042, True, "lane"),
        (131048, True, "lane"),
        *((code, True, "lane") for code in (132000, 132001, 132007, 132015, 132016)),
        (132012, True, "message"),
        (100, True, "message"),
        (1, False, "message"),
        (2, False, "message"),
        (131000, False, "message"),
        (131016, False, "message"),
        (131056, False, "message"),
    ],
)
def test_codes_that_are_refusals(refusing: Refusing, code: int, permanent: bool, scope: str) -> None:
    (outcome,) = refusing(code)
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.permanent, outcome.scope) == (str(code), permanent, scope)
    assert not outcome.text.startswith("(#")


@pytest.mark.parametrize("code", [0, 3, 10, 190, 200, 219, 299, 131005])
def test_codes_about_who_we_are_close_the_channel(refusing: Refusing, code: int) -> None:
    with pytest.raises(ChannelDown) as caught:
        refusing(code)
    assert caught.value.login and caught.value.taken_none and TOKEN not in str(caught.value)


@pytest.mark.parametrize(("code", "wait", "expected"), [(4, None, 60), (80007, None, 60), (130429, 25, 25)])
def test_codes_about_our_rate_close_the_channel_for_a_while(
    refusing: Refusing, code: int, wait: int | None, expected: float
) -> None:
    with pytest.raises(ChannelDown) as caught:
        refusing(code, wait)
    assert (caught.value.login, caught.value.taken_none, caught.value.retry_after) == (False, True, expected)


def test_minutes_until_access_comes_back_are_waited_for() -> None:
    usage = json.dumps({"1": [{"type": "messaging", "estimated_time_to_regain_access": 19}]})
    answer = httpx.Response(400, headers={"X-Business-Use-Case-Usage": usage})
    with pytest.raises(ChannelDown) as caught:
        judge("WhatsApp", answer, {"code": 80007})
    assert caught.value.retry_after == 19 * 60


@pytest.mark.parametrize(("code", "status"), [(1, 500), (424242, 500), (424242, 502), ("?", 500)])
def test_error_that_does_not_say_whether_the_message_was_taken_is_unknown(code: object, status: int) -> None:
    assert isinstance(judge("WhatsApp", httpx.Response(status), {"code": code}), Unknown)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    error=st.fixed_dictionaries(
        {},
        optional={"code": ANYTHING | st.sampled_from(sorted(CODES)), "message": ANYTHING, "error_data": ANYTHING},
    ),
    status=st.integers(200, 599),
)
def test_any_error_is_judged(error: Mapping[str, Any], status: int) -> None:
    """A refusal is only said where the code or the status does."""
    try:
        outcome = judge("WhatsApp", httpx.Response(status), error)
    except ChannelDown as down:
        assert down.taken_none
    else:
        known = isinstance(error.get("code"), int | str) and str(error["code"]).isdecimal()
        in_table = known and int(error["code"]) in CODES
        assert isinstance(outcome, Refused) == (in_table or 400 <= status < 500)
        assert not isinstance(outcome, Accepted) and outcome.text


def test_a_person_who_stopped_marketing_still_gets_what_is_none(api: CloudApi) -> None:
    api.stopped_marketing.add(note(1).to)
    offer, news = sent(
        api, note(1), note(1, send_id=2, template="order_news", parameters=("A1",), purpose="transactional")
    )
    assert isinstance(offer, Refused) and (offer.code, offer.scope) == ("131050", "address")
    assert isinstance(news, Accepted)


def test_metas_own_cap_and_numbers_in_the_united_states(api: CloudApi) -> None:
    api.marketing_per_day = 1
    outcomes = sent(api, note(1))
    outcomes += sent(api, note(2, to=note(1).to), note(3, to="+12015550123"))
    assert [outcome.scope if isinstance(outcome, Refused) else "" for outcome in outcomes] == [
        "",
        "buyer",
        "buyer",
    ]


def test_one_person_too_often(api: CloudApi) -> None:
    often = [
        note(number, to=note(1).to, template="order_news", parameters=("A1",), purpose="transactional")
        for number in range(1, 47)
    ]
    refused = [outcome for outcome in sent(api, *often) if isinstance(outcome, Refused)]
    assert [(each.code, each.permanent) for each in refused] == [("131056", False)]
    assert refused[0].retry_after is not None and refused[0].retry_after >= 6


def test_too_many_a_second_close_the_channel_and_nothing_is_lost(api: CloudApi) -> None:
    begun: list[int] = []
    answered: list[Outcome] = []
    with at(api) as url, WhatsApp(settings(url), {"TOKEN": TOKEN}) as way, pytest.raises(ChannelDown) as caught:
        for _, outcome in way.send(many(99), lambda each: begun.append(each.send_id)):
            answered.append(outcome)
    assert caught.value.taken_none and len(api.taken) == len(answered) == 80
    assert all(isinstance(outcome, Accepted) for outcome in answered)
    assert len(begun) <= 80 + AT_A_TIME


def test_several_requests_are_on_their_way_at_a_time(api: CloudApi) -> None:
    api.seconds = 0.02
    outcomes = sent(api, *(note(number) for number in range(1, 41)))
    assert all(isinstance(outcome, Accepted) for outcome in outcomes) and 2 <= api.most_at_a_time <= AT_A_TIME


def test_the_rest_waits_once_nobody_answers() -> None:
    begun: list[int] = []
    answers: list[Outcome] = []
    with (
        at(CloudApi(TOKEN, NUMBER_ID, [OFFER]), "answer") as url,
        WhatsApp(settings(url), {"TOKEN": TOKEN}) as way,
    ):
        answering = way.send(many(99), lambda each: begun.append(each.send_id))
        with pytest.raises(ChannelDown, match="WhatsApp does not answer"):
            answers.extend(outcome for _, outcome in answering)
    assert len(answers) == len(begun) < 2 * AT_A_TIME and all(isinstance(each, Unknown) for each in answers)


def test_text_is_taken_within_a_day_of_their_message(api: CloudApi, clock: FakeClock) -> None:
    text = note(template="", parameters=(), text="Thank you!", purpose="transactional")
    api.wrote_at[text.to] = clock() - timedelta(hours=23)
    assert isinstance(sent(api, text)[0], Accepted)
    assert api.taken[0]["text"] == {"body": "Thank you!"}
    clock.tick(hours=1)
    (late,) = sent(api, text)
    assert isinstance(late, Refused) and late.code == "131047"


@pytest.mark.parametrize(
    ("template", "code"), [("winback_ofer", "132001"), ("paused", "132015"), ("disabled", "132016")]
)
def test_template_that_must_be_mended_stops_all_that_we_send(api: CloudApi, template: str, code: str) -> None:
    api.templates = [
        OFFER,
        replace(OFFER, name="paused", state="paused"),
        replace(OFFER, name="disabled", state="disabled"),
    ]
    outcomes = sent(api, note(1, template=template), note(2, parameters=("Ada",)))
    assert [(each.code, each.scope) for each in outcomes if isinstance(each, Refused)] == [
        (code, "lane"),
        ("132000", "lane"),
    ]


def test_quality_assessment(api: CloudApi) -> None:
    api.message_status = "held_for_quality_assessment"
    assert isinstance(sent(api, note())[0], Accepted)
    api.message_status = "paused"
    (paused,) = sent(api, note())
    assert isinstance(paused, Refused) and not paused.permanent and paused.code == "paused"


def test_names_with_odd_spaces_are_parameters_all_the_same(api: CloudApi) -> None:
    assert isinstance(sent(api, note(parameters=("Ada      Lovelace\t", "BACK\n10")))[0], Accepted)
    texts = [each["text"] for each in api.taken[0]["template"]["components"][0]["parameters"]]
    assert texts == ["Ada Lovelace", "BACK 10"]


@pytest.mark.parametrize("to", ["", "015112345678", "+49 151 1234567", "ada@example.com", "+491511234567\r\nX: y"])
def test_what_is_no_number_never_leaves(api: CloudApi, to: str) -> None:
    begun: list[int] = []
    with at(api) as url, WhatsApp(settings(url), {"TOKEN": TOKEN}) as way:
        answers = send_all(way, [note(n, to=to) for n in range(1, 40)], begun)
    assert begun == [] and len(answers) == 39
    outcome = answers[1]
    assert isinstance(outcome, Refused) and outcome.scope == "address" and (not to or to not in outcome.text)


def test_missing_number_in_the_settings_is_no_fault_of_the_message(api: CloudApi) -> None:
    (outcome,) = sent(api, note(), phone_number_id="1")
    assert isinstance(outcome, Refused) and (outcome.code, outcome.scope) == ("100", "lane")


def test_address_that_is_not_metas_closes_the_channel(api: CloudApi) -> None:
    with serve(_hello) as url, WhatsApp(settings(url), {"TOKEN": TOKEN}) as way:
        message = [note()]
        with pytest.raises(ChannelDown, match="answers 404 and not as Meta does") as caught:
            send_all(way, message, [])
    assert caught.value.taken_none


async def _hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"<h1>Hello</h1>"})


@pytest.mark.parametrize("value", ["", "  ", "two\nlines", "töken"])
def test_token_that_is_none(value: str) -> None:
    with pytest.raises(ConfigError, match=r"config/channels\.yaml: whatsapp\.token_env is TOKEN"):
        WhatsApp(settings("http://127.0.0.1:1"), {"TOKEN": value})


@pytest.fixture(scope="module")
def described(shared: Path) -> Mapping[str, Any]:
    """Meta's description, without what contradicts its own examples: parts of an `allOf` that forbid what the
    other parts ask for, and a pattern of button indexes without 0."""
    path = shared / "specs/whatsapp/business-messaging-api_v23.0.trimmed.json"
    if not path.is_file():
        pytest.skip("../shared/specs/whatsapp is absent")
    found: dict[str, Any] = json.loads(path.read_text())
    schemas = found["components"]["schemas"]
    for schema in schemas.values():
        for part in schema.get("allOf", ()):
            part.pop("additionalProperties", None)
    index = schemas["TemplateComponent"]["properties"]["index"]
    assert not re.fullmatch(index["pattern"], index["example"])
    for name in ("TemplateComponent", "ButtonComponent"):
        _without(schemas[name], "pattern")
    return found


def _without(schema: Any, keyword: str) -> None:
    if isinstance(schema, dict):
        schema.pop(keyword, None)
        for each in schema.values():
            _without(each, keyword)
    elif isinstance(schema, list):
        for each in schema:
            _without(each, keyword)


EXTRAS = {"header_image": "https://cdn.example/a.jpg", "button_0": "spring", "reply_1": "STOP"}


@pytest.mark.parametrize(
    ("message", "schema", "parts"),
    [
        (note(), "TemplateMessage", ["BodyComponent"]),
        (note(parameters=()), "TemplateMessage", []),
        (
            note(extras=EXTRAS),
            "TemplateMessage",
            ["HeaderComponent", "BodyComponent", "ButtonComponent", "ButtonComponent"],
        ),
        (note(extras={"header": "Ada"}), "TemplateMessage", ["HeaderComponent", "BodyComponent"]),
        (note(template="", parameters=(), text="Hello"), "TextMessage", []),
    ],
)
def test_requests_are_as_meta_describes_them(
    described: Mapping[str, Any], message: Note, schema: str, parts: list[str]
) -> None:
    with WhatsApp(settings("https://graph.example"), {"TOKEN": TOKEN}) as way:
        request = way.request(message)
    assert not isinstance(request, Refused)
    path, body = request
    assert path == f"{NUMBER_ID}/messages"
    _validate(body, schema, described)
    components = body.get("template", {}).get("components", [])
    assert len(components) == len(parts)
    for component, part in zip(components, parts, strict=True):
        _validate(component, part, described)


@pytest.mark.parametrize(
    ("purpose", "endpoint"), [("marketing", "marketing_messages"), ("transactional", "messages")]
)
def test_marketing_has_an_endpoint_of_its_own(described: Mapping[str, Any], purpose: str, endpoint: str) -> None:
    with WhatsApp(settings("https://graph.example", marketing_endpoint=True), {"TOKEN": TOKEN}) as way:
        request = way.request(note(purpose=purpose))
    assert not isinstance(request, Refused) and request[0] == f"{NUMBER_ID}/{endpoint}"
    if endpoint == "marketing_messages":
        _validate(request[1], "MarketingMessageRequestPayload", described)


def test_stand_in_answers_and_refuses_as_meta_describes(described: Mapping[str, Any], api: CloudApi) -> None:
    with serve(api.app()) as url, WhatsApp(settings(url), {"TOKEN": TOKEN}) as way:
        request = way.request(note())
        assert not isinstance(request, Refused)
        for code, schema in ((None, "MessageResponse"), (131049, "GraphAPIError")):
            api.all_refused = code
            headers = {"Authorization": f"Bearer {TOKEN}"}
            answer = httpx.post(f"{url}/v23.0/{request[0]}", json=request[1], headers=headers)
            _validate(answer.json(), schema, described)


def _validate(value: Any, schema: str, described: Mapping[str, Any]) -> None:
    jsonschema.validate(
        value, {"$ref": f"#/components/schemas/{schema}", **described}, jsonschema.Draft202012Validator
    )


def test_every_code_of_the_table_says_what_to_do() -> None:
    """No refusal for good names a time, and no login does."""
    for meaning in CODES.values():
        if isinstance(meaning, Closed):
            assert meaning.login == (meaning.seconds is None)
        else:
            assert not (meaning.permanent and meaning.retry_after)
