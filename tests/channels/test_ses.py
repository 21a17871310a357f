"""What only Amazon SES does."""

from __future__ import annotations

import json

import pytest

from lifecycle.channels.base import Accepted, Refused, Unknown
from lifecycle.errors import ChannelDown, ConfigError
from sandbox.servers import serve
from sandbox.services.keeping import Conduct
from sandbox.services.ses import Ses
from tests.channels.esp import answering, bench, channel, letter

STATUSES = {
    "MESSAGE_REJECTED": ("message", True),
    "INVALID_PARAMETER": ("message", True),
    "TRANSIENT_FAILURE": ("message", False),
    "FAILED": ("message", False),
    "ACCOUNT_DAILY_QUOTA_EXCEEDED": ("lane", True),
    "ACCOUNT_SUSPENDED": ("lane", True),
    "ACCOUNT_SENDING_PAUSED": ("lane", True),
    "CONFIGURATION_SET_NOT_FOUND": ("lane", True),
    "CONFIGURATION_SET_SENDING_PAUSED": ("lane", True),
    "INVALID_SENDING_POOL_NAME": ("lane", True),
    "MAIL_FROM_DOMAIN_NOT_VERIFIED": ("lane", True),
}


def test_each_entry_has_its_own_answer() -> None:
    said = {letter(number).to: f"{status}|no" for number, status in enumerate(STATUSES, start=1)}
    with bench("ses", Conduct(refuses=said.get)) as line:
        answers = line.send([letter(number) for number in range(1, 20)])
        for number, expected in enumerate(STATUSES.values(), start=1):
            answer = answers[number]
            assert isinstance(answer, Refused) and (answer.scope, answer.permanent) == expected
        assert all(isinstance(answers[number], Accepted) for number in range(len(STATUSES) + 1, 20))
        assert line.conduct.requests == 1


def test_a_status_that_is_new_is_not_known() -> None:
    said = {letter(1).to: "SOMETHING_NEW|no"}
    with bench("ses", Conduct(refuses=said.get)) as line:
        assert isinstance(line.send([letter(1), letter(2)])[1], Unknown)


def test_throttled_entries_were_not_taken_and_stop_the_rest() -> None:
    said = {letter(number).to: "ACCOUNT_THROTTLED|Maximum sending rate exceeded" for number in (2, 3)}
    answers = {}
    begun: list[int] = []
    letters = [*(letter(number) for number in (1, 2, 3, 4)), letter(5, sender_name="Other")]
    with bench("ses", Conduct(refuses=said.get)) as line, pytest.raises(ChannelDown) as caught:
        for message, outcome in line.channel.send(letters, lambda one: begun.append(one.send_id)):
            answers[message.send_id] = outcome
    assert caught.value.taken_none and caught.value.retry_after == 60
    assert (sorted(answers), begun) == ([1, 4], [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("words", "seconds"), [("Maximum sending rate exceeded.", 60), ("Daily message quota", 600)]
)
def test_throttled_as_a_whole(words: str, seconds: float) -> None:
    said = answering(429, json.dumps({"message": words}), {"x-amzn-ErrorType": "TooManyRequestsException"})
    with bench("ses", said) as line, pytest.raises(ChannelDown) as caught:
        line.send([letter(1)])
    assert (caught.value.retry_after, caught.value.taken_none, caught.value.login) == (seconds, True, False)


@pytest.mark.parametrize(
    ("name", "status", "scope"),
    [
        ("MessageRejected", 400, "message"),
        ("BadRequestException", 400, "message"),
        ("AccountSuspendedException", 400, "lane"),
        ("SendingPausedException", 400, "lane"),
        ("LimitExceededException", 400, "lane"),
        ("MailFromDomainNotVerifiedException", 400, "lane"),
        ("NotFoundException", 404, "lane"),
    ],
)
def test_errors_of_a_whole_request(name: str, status: int, scope: str) -> None:
    with bench(
        "ses", answering(status, json.dumps({"__type": f"com.amazonaws.sesv2#{name}", "message": "no"}))
    ) as line:
        answers = line.send([letter(1), letter(2)])
        assert {answer.scope for answer in answers.values() if isinstance(answer, Refused)} == {scope}


def test_answer_for_another_number_of_entries_is_none() -> None:
    with bench(
        "ses", answering(200, '{"BulkEmailEntryResults": [{"Status": "SUCCESS", "MessageId": "x"}]}')
    ) as line:
        assert all(isinstance(answer, Unknown) for answer in line.send([letter(1), letter(2)]).values())


def test_session_token_and_its_signature() -> None:
    there = Ses("AKIA", "secret/with+signs", "eu-central-1", token="token==")
    with serve(there.app) as url:
        with channel("ses", url, key="AKIA:secret/with+signs:token==") as good:
            assert [answer for _, answer in good.send([letter(1)], lambda _: None)] == [
                Accepted(there.delivered[0].number)
            ]
        with channel("ses", url, key="AKIA:secret/with+signs") as bad, pytest.raises(ChannelDown) as caught:
            list(bad.send([letter(1)], lambda _: None))
    assert caught.value.login


def test_region_is_part_of_the_signature() -> None:
    with bench("ses", region="us-east-1") as line, pytest.raises(ChannelDown, match="SignatureDoesNotMatch"):
        line.send([letter(1)])


@pytest.mark.parametrize("key", ["AKIA", "AKIA:", ":secret"])
def test_key_without_its_secret(key: str) -> None:
    with pytest.raises(ConfigError, match="with a colon between them") as caught:
        channel("ses", "http://127.0.0.1:9", key=key)
    assert "secret:" not in str(caught.value)


def test_braces_are_never_read_as_places() -> None:
    """A form is shared only where Handlebars finds in it no more than our places."""
    texts = ["{{name}}", "{{{x}}}", "{{#if a}}b{{/if}}", "\\{{x}}", "{{", "a{b}c }} {"]
    letters = [letter(number, text=texts[number % len(texts)] + " word" * 90) for number in range(1, 40)]
    brace = [letter(number, text="{" + letter(number).personal[0] + "}" + " word" * 90) for number in (51, 52)]
    with bench("ses") as line:
        line.send([*letters, *brace])
        assert line.stand_in.not_rendered == []
        assert sorted(mail.text for mail in line.delivered) == sorted(one.text for one in [*letters, *brace])


def test_forms_too_large_for_a_bulk_request_go_one_by_one() -> None:
    """An inline template may have 1 MB, with all its values; a mail by itself 40."""
    large = [letter(number, text=letter(number).text + "word " * 190_000) for number in (1, 2, 3)]
    values = [letter(number, text=letter(number).text + "word " * 160_000) for number in range(11, 41)]
    with bench("ses") as line:
        assert all(isinstance(answer, Accepted) for answer in line.send([*large, *values]).values())
        assert len(line.delivered) == 33
        assert line.conduct.requests == 5, "three alone, and two times as many as fit"


def test_headers_over_the_limit_of_ses() -> None:
    many = tuple((f"X-{number}", "x") for number in range(16))
    with bench("ses") as line:
        answers = line.send([letter(1, headers=many), letter(2, headers=(("X-Long", "x" * 995),)), letter(3)])
        assert [type(answers[number]) for number in (1, 2, 3)] == [Refused, Refused, Accepted]


def test_configuration_set_and_tags() -> None:
    with bench("ses", configuration_set="events") as line:
        line.send([letter(1), letter(2), letter(3, sender_name="Other")])
        assert {mail.kept["ConfigurationSetName"] for mail in line.delivered} == {"events"}
        assert sorted(mail.marks["send_id"] for mail in line.delivered) == ["1", "2", "3"]
        assert all(mail.kept["FromEmailAddress"].isascii() for mail in line.delivered)
