"""What only SendGrid does."""

from __future__ import annotations

import json

import pytest

from lifecycle.channels.base import Accepted, Refused
from lifecycle.errors import ChannelDown
from sandbox.services.keeping import Conduct
from tests.channels.esp import answering, bench, letter
from tests.conftest import SHARED

SPEC = SHARED / "specs" / "sendgrid" / "tsg_mail_v3.json"


def test_requests_are_as_sendgrid_describes_them() -> None:
    if not SPEC.exists():
        pytest.skip("SendGrid's OpenAPI description is not on this machine")
    jsonschema = pytest.importorskip("jsonschema")
    described = json.loads(SPEC.read_text(encoding="utf-8"))
    place = "#/components/requestBodies/PostMailSend/content/application~1json/schema"
    validator = jsonschema.Draft202012Validator({"$ref": place, "components": described["components"]})
    with bench("sendgrid") as line:
        line.send([*(letter(number) for number in range(1, 50)), letter(60, html="", reply_to="", headers=())])
        bodies = [json.loads(body) for body in line.conduct.bodies]
    assert len(bodies) == 2
    for body in bodies:
        validator.validate(body)


def test_those_in_the_way_are_refused_and_the_others_go() -> None:
    said = {
        letter(3).to: "to.0.email|Does not contain a valid address.",
        letter(5).to: "substitutions|Invalid type.",
    }
    with bench("sendgrid", Conduct(refuses=said.get)) as line:
        answers = line.send([letter(number) for number in range(1, 8)])
        assert {number for number, answer in answers.items() if isinstance(answer, Accepted)} == {1, 2, 4, 6, 7}
        assert (answers[3].scope, answers[5].scope) == ("address", "message")  # type: ignore[union-attr]
        assert line.conduct.requests == 2
        assert len(line.delivered) == 5


def test_large_values_are_not_substituted() -> None:
    """SendGrid takes 10,000 bytes of substitutions for each person."""
    names = [f"{number}{'x' * size}" for number, size in enumerate((6_000, 6_000, 12_000, 12_000))]
    letters = [
        letter(number, html="", text=f"{name} " + "word " * 9_000, personal=(name, *letter(number).personal))
        for number, name in enumerate(names)
    ]
    with bench("sendgrid") as line:
        answers = line.send(letters)
        assert all(isinstance(answer, Accepted) for answer in answers.values())
        assert line.conduct.requests == 3, "two together and each of the others alone"
        assert {mail.text for mail in line.delivered} == {one.text for one in letters}


def test_headers_and_numbers_are_each_persons_own() -> None:
    with bench("sendgrid") as line:
        line.send([letter(1), letter(2)])
        for mail in line.delivered:
            one = letter(int(mail.marks["send_id"]))
            assert mail.marks == {"send_id": str(one.send_id), "send_key": one.key.strip("<>").split("@")[0]}
            assert (mail.header("Message-ID"), mail.header("list-unsubscribe")) == (
                one.key,
                dict(one.headers)["List-Unsubscribe"],
            )
            assert mail.kept["name"] == one.sender_name


@pytest.mark.parametrize(
    ("status", "body", "scope", "permanent"),
    [
        (400, '{"errors": [{"message": "bad", "field": "from.email"}]}', "lane", True),
        (400, '{"errors": [{"message": "bad", "field": "content.0.value"}]}', "message", True),
        (400, '{"errors": [{"message": "bad", "field": null}]}', "message", True),
        (400, "<html>", "message", True),
        (400, '{"errors": [{"message": "bad", "field": "personalizations.9.to"}]}', "message", True),
        (402, "{}", "lane", True),
        (503, "<html>", "message", False),
    ],
)
def test_answers_to_the_whole_request(status: int, body: str, scope: str, permanent: bool) -> None:
    with bench("sendgrid", answering(status, body)) as line:
        answers = line.send([letter(1), letter(2)])
        assert len(answers) == 2
        for answer in answers.values():
            assert isinstance(answer, Refused)
            assert (answer.scope, answer.permanent) == (scope, permanent)


def test_key_that_may_not_send() -> None:
    said = '{"errors": [{"message": "access forbidden", "field": null}]}'
    with bench("sendgrid", answering(403, said)) as line, pytest.raises(ChannelDown) as caught:
        line.send([letter(1)])
    assert caught.value.login and caught.value.taken_none


def test_a_mail_that_was_only_checked_is_not_called_sent() -> None:
    """SendGrid answers 200 in its sandbox mode, and 202 to what it takes."""
    with bench("sendgrid", answering(200)) as line:
        assert not isinstance(line.send([letter(1)])[1], Accepted)
