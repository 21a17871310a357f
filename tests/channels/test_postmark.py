"""What only Postmark does."""

from __future__ import annotations

import json

import pytest

from lifecycle.channels.base import Accepted, Refused, Unknown
from lifecycle.errors import ChannelDown
from sandbox.servers import serve
from sandbox.services.keeping import Conduct
from tests.channels.esp import answering, bench, channel, letter, sent, stand_in

CODES = {
    "300|Invalid 'To' address: 'x@example.com'.": ("address", True, "hard"),
    "300|Error parsing 'To': Illegal email domain.": ("address", True, "hard"),
    "300|Invalid 'From' address.": ("lane", True, "policy"),
    "300|Error parsing 'Reply-To': Illegal email domain.": ("lane", True, "policy"),
    "300|Invalid metadata content.": ("message", True, "content"),
    "406|You tried to send to a recipient that has been marked as inactive.": ("address", True, "hard"),
    "400|The Sender Signature was not found.": ("lane", True, "policy"),
    "401|Sender signature not confirmed.": ("lane", True, "policy"),
    "405|Not allowed to send: you ran out of credits.": ("lane", True, "policy"),
    "412|Your account is pending approval.": ("lane", True, "policy"),
    "413|Account may not send.": ("lane", True, "policy"),
    "1235|The stream provided does not exist on this server.": ("lane", True, "policy"),
    "100|Maintenance": ("message", False, "soft"),
    "429|Rate limit exceeded": ("message", False, "soft"),
    "411|Forbidden attachment type.": ("message", True, "content"),
}


def test_each_letter_has_its_own_answer() -> None:
    said = {letter(number).to: words for number, words in enumerate(CODES, start=1)}
    with bench("postmark", Conduct(refuses=said.get)) as line:
        answers = line.send([letter(number) for number in range(1, 31)])
        for number, expected in enumerate(CODES.values(), start=1):
            answer = answers[number]
            assert isinstance(answer, Refused)
            assert (answer.scope, answer.permanent, answer.kind) == expected
            assert "@" not in answer.text
        assert all(isinstance(answers[number], Accepted) for number in range(len(CODES) + 1, 31))


@pytest.mark.parametrize(
    "item",
    [
        '{"ErrorCode": 0, "Message": "OK"}',
        '{"Message": "?"}',
        '{"ErrorCode": "0"}',
        "null",
    ],
)
def test_item_that_says_neither_yes_nor_no(item: str) -> None:
    with bench("postmark", answering(200, f"[{item}]")) as line:
        assert isinstance(line.send([letter(1)])[1], Unknown)


def test_taken_but_late_has_no_code() -> None:
    said = '[{"MessageID": "m", "Message": "Message accepted, but delivery may be delayed."}]'
    with bench("postmark", answering(200, said)) as line:
        assert line.send([letter(1)])[1] == Accepted("m")


def test_answers_for_another_number_of_letters_are_none() -> None:
    with bench("postmark", answering(200, '[{"ErrorCode": 0, "MessageID": "m"}]')) as line:
        assert all(isinstance(answer, Unknown) for answer in line.send([letter(1), letter(2)]).values())


def test_request_that_postmark_does_not_read() -> None:
    with bench("postmark", answering(422, '{"ErrorCode": 402, "Message": "Received invalid JSON"}')) as line:
        answers = line.send([letter(1), letter(2)])
        assert all(isinstance(answer, Refused) and answer.permanent for answer in answers.values())


def test_token_that_is_named_wrong_in_another_status() -> None:
    with bench("postmark", answering(422, '{"ErrorCode": 10, "Message": "Bad token"}')) as line:
        with pytest.raises(ChannelDown) as caught:
            line.send([letter(1)])
        assert caught.value.login


def test_stream_and_our_message_id() -> None:
    with bench("postmark") as line:
        line.send([letter(1)])
        (mail,) = line.delivered
        assert mail.kept["MessageStream"] == "broadcast"
        assert mail.header("Message-ID") == letter(1).key
        assert mail.kept["From"] == '"Atlas & Söhne, \\"Paris\\"" <news@example.com>'


def test_stream_that_does_not_exist_stops_the_lane() -> None:
    with bench("postmark", stream="nowhere") as line:
        answer = line.send([letter(1)])[1]
        assert isinstance(answer, Refused) and answer.scope == "lane"


def test_limits_of_a_part_and_of_a_request() -> None:
    heavy = [letter(number, text="é" * 2_400_000) for number in range(1, 13)]
    with bench("postmark") as line:
        answers = line.send([*heavy, letter(20, html="x" * 5_000_001)])
        refused = answers.pop(20)
        assert isinstance(refused, Refused) and refused.kind == "content"
        assert all(isinstance(answer, Accepted) for answer in answers.values())
        assert line.conduct.requests == 2
        assert max(len(body) for body in line.conduct.bodies) <= 50_000_000


def test_five_hundred_at_once() -> None:
    with bench("postmark") as line:
        line.send([letter(number) for number in range(1, 502)])
        assert [len(json.loads(body)) for body in line.conduct.bodies] == [500, 1]


def test_what_postmark_took_is_found_by_our_key() -> None:
    with bench("postmark", Conduct(ends="breaks")) as line:
        assert isinstance(line.send([letter(1)])[1], Unknown)
        found = line.channel.look_up([sent(1), sent(2), sent(1, send_id=7, key="<1.other@example.com>")])
        assert found == {1: Accepted(line.delivered[0].number)}


def test_look_up_with_a_wrong_token() -> None:
    with serve(stand_in("postmark", key="another").app) as url, channel("postmark", url) as opened:
        with pytest.raises(ChannelDown) as caught:
            opened.look_up([sent(1)])
        assert caught.value.login
