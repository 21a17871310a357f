"""The e-mail services over their HTTP interfaces, against stand-ins that fill in forms as the services do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lifecycle.channels.base import Accepted, Refused, Unknown
from lifecycle.errors import ChannelDown, ConfigError
from lifecycle.messages.records import Letter
from sandbox.services.keeping import Conduct
from tests.channels.esp import SERVICES, Bench, answering, bench, channel, letter, sent
from tests.contracts.channel import send_all


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def as_sent(one: Letter) -> tuple[Any, ...]:
    return one.to, one.sender_address, one.reply_to, one.subject, one.html, one.text, one.headers


def as_arrived(line: Bench) -> dict[str, tuple[Any, ...]]:
    arrived = {}
    for mail in line.delivered:
        assert mail.marks["send_id"] not in arrived
        headers = tuple(each for each in mail.headers if each[0].lower() != "message-id")
        content = mail.subject, mail.html, mail.text
        arrived[mail.marks["send_id"]] = (mail.to, mail.sender, mail.reply_to, *content, headers)
    return arrived


def test_every_mail_arrives_to_the_last_byte(service: str) -> None:
    letters = [letter(number) for number in range(1, 121)]
    odd = [
        letter(201, subject="%recipient.name% -place0_0- {{name}}", text="{{#if x}} %recipient% \\{{y}} {{{z"),
        letter(202, html="", personal=()),
        letter(203, text="", personal=()),
        letter(204, headers=(), reply_to="", sender_name=""),
        letter(205, sender_name="Ein Name, der mit Umlauten länger ist als alles, was in ein Wort passt, zweimal"),
        letter(206, personal=("a", "e", "o", "%", "{", "}")),
    ]
    with bench(service) as line:
        answers = line.send([*letters, *odd])
        assert all(isinstance(answer, Accepted) for answer in answers.values())
        assert len({answer.provider_id for answer in answers.values() if isinstance(answer, Accepted)}) == 126
        arrived = as_arrived(line)
        assert arrived == {str(one.send_id): as_sent(one) for one in [*letters, *odd]}


@pytest.mark.parametrize(
    ("one_service", "requests"), [("sendgrid", 1), ("mailgun", 1), ("ses", 6), ("postmark", 1)]
)
def test_as_few_requests_as_the_service_allows(one_service: str, requests: int) -> None:
    with bench(one_service) as line:
        line.send([letter(number) for number in range(1, 301)])
        assert (line.conduct.requests, len(line.delivered)) == (requests, 300)


def test_two_mails_to_one_address_arrive_as_two(service: str) -> None:
    letters = [letter(1), letter(2, to=letter(1).to.upper()), letter(3, to=letter(1).to), letter(4)]
    with bench(service) as line:
        line.send(letters)
        assert as_arrived(line) == {str(one.send_id): as_sent(one) for one in letters}


UNSOUND: tuple[dict[str, Any], ...] = (
    {"subject": "Hello\r\nBcc: all@example.com"},
    {"subject": ""},
    {"to": "a@example.com\r\nb@example.com"},
    {"to": "a@example.com, b@example.com"},
    {"to": "ä@example.com"},
    {"sender_name": "Atlas\nBcc: x"},
    {"sender_address": "news"},
    {"reply_to": "care@example.com\r\nX: y"},
    {"headers": (("X-One", "a\r\nBcc: x@example.com"),)},
    {"headers": (("X-One\r\nBcc", "x"),)},
    {"headers": (("X-One:", "x"),)},
    {"headers": (("X-One", "ä"),)},
    {"headers": (("X-One", ""),)},
    {"headers": (("X-One", "a"), ("x-one", "b"))},
    {"headers": (("Subject", "a"),)},
    {"key": "<1@example.com>\r\nX: y"},
    {"html": "", "text": ""},
    {"text": "\ud800"},
    {"html": "x" * 31_000_000},
)


def test_what_would_not_arrive_as_it_is_does_not_leave(service: str) -> None:
    unsound = [letter(number, **changes) for number, changes in enumerate(UNSOUND, start=10)]
    begun: list[int] = []
    with bench(service) as line:
        answers = send_all(line.channel, [letter(1), *unsound, letter(3)], begun)
        for one in unsound:
            refused = answers.pop(one.send_id)
            assert isinstance(refused, Refused)
            assert (refused.permanent, refused.scope, refused.kind) == (True, "message", "content")
            assert refused.text.isprintable() and "@" not in refused.text
        assert all(isinstance(answer, Accepted) for answer in answers.values())
        assert begun == [1, 3] and sorted(as_arrived(line)) == ["1", "3"]


def test_after_a_lost_answer_nothing_more_is_asked(service: str) -> None:
    """Letters of two forms are two requests, and of Postmark, where each is whole, of two pages."""
    letters = [letter(1), letter(2), letter(3, sender_name="Other"), letter(4, sender_name="Other")]
    answers: dict[int, Any] = {}
    begun: list[int] = []
    with bench(service, Conduct(ends="breaks")) as line:
        if service == "postmark":
            line.channel.at_once = 2
        with pytest.raises(ChannelDown) as caught:
            for message, outcome in line.channel.send(letters, lambda one: begun.append(one.send_id)):
                answers[message.send_id] = outcome
        assert caught.value.taken_none and not caught.value.login
        assert all(isinstance(outcome, Unknown) for outcome in answers.values())
        assert (sorted(answers), begun, line.conduct.requests) == ([1, 2], [1, 2], 1)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_nobody_knows_what_a_server_error_means(service: str, status: int) -> None:
    with bench(service, answering(status, "<html>Bad Gateway</html>")) as line:
        answers = line.send([letter(1), letter(2), letter(3, sender_name="Other")])
        assert all(isinstance(outcome, Unknown) for outcome in answers.values())
        assert str(status) in answers[1].text  # type: ignore[union-attr]


@pytest.mark.parametrize("status", [301, 404, 405])
def test_an_address_that_is_not_the_interface_stops_everything(service: str, status: int) -> None:
    with bench(service, answering(status, "no such page")) as line, pytest.raises(ChannelDown) as caught:
        line.send([letter(1), letter(2)])
    assert caught.value.taken_none and caught.value.login


def test_too_large_for_the_service_after_all(service: str) -> None:
    with bench(service, answering(413, "{}")) as line:
        answers = line.send([letter(1), letter(2)])
        assert {(answer.permanent, answer.scope, answer.kind) for answer in answers.values()} == {  # type: ignore[union-attr]
            (True, "message", "content")
        }


@pytest.mark.parametrize("key", ["", "two\nlines:x", "clé:x"])
def test_key_that_cannot_stand_in_a_header(service: str, key: str) -> None:
    with pytest.raises(ConfigError, match="TERN_KEY"):
        channel(service, "http://127.0.0.1:9", key=key)


def test_no_tracking_but_ours(service: str) -> None:
    with bench(service) as line:
        line.send([letter(1), letter(2), letter(3, sender_name="Other")])
        said = json.dumps([mail.kept for mail in line.delivered])
    wanted = {
        "sendgrid": '"click_tracking": {"enable": false, "enable_text": false}, "open_tracking"',
        "mailgun": '"o:tracking": "no", "o:tracking-clicks": "no", "o:tracking-opens": "no"',
        "ses": '{"OpenTrackingEnabled": "DISABLED", "ClickTrackingEnabled": "DISABLED"}',
        "postmark": '"TrackOpens": false, "TrackLinks": "None"',
    }
    assert said.count(wanted[service]) == 3


def test_look_up_of_what_is_not_known(service: str) -> None:
    with bench(service) as line:
        line.send([letter(1)])
        assert set(line.channel.look_up([sent(2), sent(3, to=None)])) == set()
