"""What only Mailgun does."""

from __future__ import annotations

import pytest

from lifecycle.channels.base import Accepted, Refused, Unknown
from lifecycle.errors import ChannelDown
from sandbox.services.keeping import Conduct
from tests.channels.esp import answering, bench, letter, sent

BAD = "400|'to' parameter is not a valid address. please check documentation"


def test_the_ones_in_the_way_are_found_by_halving() -> None:
    wrong = {letter(number).to for number in (7, 63)}
    with bench("mailgun", Conduct(refuses=lambda address: BAD if address in wrong else None)) as line:
        answers = line.send([letter(number) for number in range(1, 65)])
        refused = {number for number, answer in answers.items() if isinstance(answer, Refused)}
        assert refused == {7, 63}
        assert len(line.delivered) == 62 and len({mail.to for mail in line.delivered}) == 62
        assert line.conduct.requests < 30


def test_what_is_wrong_with_all_is_not_halved() -> None:
    with bench("mailgun", answering(400, "{\"message\": \"Need at least one of 'text' or 'html'\"}")) as line:
        answers = line.send([letter(number) for number in range(1, 65)])
        assert all(isinstance(answer, Refused) for answer in answers.values())
        assert line.conduct.requests == 1


def test_sender_that_mailgun_does_not_take() -> None:
    said = '{"message": "\'from\' parameter is not a valid address. please check documentation"}'
    with bench("mailgun", answering(400, said)) as line:
        answers = line.send([letter(1), letter(2)])
        assert {answer.scope for answer in answers.values() if isinstance(answer, Refused)} == {"lane"}


@pytest.mark.parametrize("body", ["{}", "[]", '{"message": "Mailgun Magnificent API"}'])
def test_success_without_a_number_is_no_answer(body: str) -> None:
    with bench("mailgun", answering(200, body)) as line:
        assert isinstance(line.send([letter(1)])[1], Unknown)


def test_another_domain() -> None:
    with (
        bench("mailgun", domain="other.example.com") as line,
        pytest.raises(ChannelDown, match="Domain not found"),
    ):
        line.send([letter(1)])


def test_nobody_sees_another_recipient() -> None:
    with bench("mailgun") as line:
        line.send([letter(1), letter(2), letter(3, sender_name="Other")])
        assert sorted(mail.to for mail in line.delivered) == [letter(number).to for number in (1, 2, 3)]
        assert line.delivered[0].kept["from"] == '"Atlas & Söhne, \\"Paris\\"" <news@example.com>'


def test_a_single_mail_has_our_message_id() -> None:
    with bench("mailgun") as line:
        line.send([letter(1)])
        assert line.delivered[0].header("message-id") == letter(1).key


def test_what_mailgun_took_is_found_by_our_marks() -> None:
    with bench("mailgun", Conduct(ends="breaks")) as line:
        answers = line.send([letter(1), letter(2)])
        assert all(isinstance(answer, Unknown) for answer in answers.values())
        asked = [sent(1), sent(2), sent(3), sent(2, send_id=4, key="<4.0@example.com>"), sent(5, to=None)]
        found = line.channel.look_up(asked)
        assert set(found) == {1, 2}
        assert all(isinstance(answer, Accepted) and answer.provider_id for answer in found.values())


def test_event_of_a_mail_that_mailgun_refused_later_proves_nothing() -> None:
    with bench("mailgun") as line:
        line.send([letter(1)])
        line.stand_in.events[0]["event"] = "rejected"
        assert line.channel.look_up([sent(1)]) == {}


def test_events_that_cannot_be_read() -> None:
    with bench("mailgun", domain="other.example.com") as line, pytest.raises(ChannelDown):
        line.channel.look_up([sent(1)])
