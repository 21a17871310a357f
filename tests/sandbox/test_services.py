"""The stand-ins of the e-mail services refuse what the services refuse, and keep nothing of it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from sandbox.servers import serve
from tests.channels.esp import KEY, channel, letter, stand_in

SENDGRID = {"Authorization": f"Bearer {KEY}"}


def mail(**changes: Any) -> dict[str, Any]:
    return {
        "personalizations": [{"to": [{"email": "a@example.com"}]}],
        "from": {"email": "news@example.com"},
        "subject": "Hello",
        "content": [{"type": "text/plain", "value": "x"}],
    } | changes


def people(*addresses: str, **more: Any) -> list[dict[str, Any]]:
    return [{"to": [{"email": address}], **more} for address in addresses]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"personalizations": people("a@example.com", "A@example.com")}, "personalizations"),
        ({"personalizations": people(*(f"{number}@example.com" for number in range(1001)))}, "personalizations"),
        ({"personalizations": people("a@example.com", "a b@example.com")}, "personalizations.1.to.0.email"),
        ({"personalizations": people("a@example.com", substitutions={"-x-": "y" * 10_000})}, "substitutions"),
        ({"personalizations": people("a@example.com", headers={"Subject": "y"})}, "personalizations.0.headers"),
        ({"personalizations": people("a@example.com", sub={})}, "personalizations.0"),
        ({"content": [{"type": "text/html", "value": "x"}, {"type": "text/plain", "value": "x"}]}, "content"),
        ({"content": [{"type": "text/html", "value": ""}]}, "content.0.value"),
        ({"subject": ""}, "subject"),
        ({"text": "x"}, "text"),
    ],
)
def test_sendgrid_names_the_field(changes: dict[str, Any], field: str) -> None:
    there = stand_in("sendgrid")
    with serve(there.app) as url:
        answer = httpx.post(f"{url}/v3/mail/send", json=mail(**changes), headers=SENDGRID)
    assert answer.status_code == 400
    assert any(str(error["field"]).endswith(field) for error in answer.json()["errors"])
    assert there.delivered == []


def test_mailgun_shows_all_addresses_where_there_are_no_variables() -> None:
    there = stand_in("mailgun")
    fields = {"from": "news@example.com", "to": ["a@example.com", "b@example.com"], "subject": "x", "text": "x"}
    with serve(there.app) as url:
        answer = httpx.post(f"{url}/v3/mg.example.com/messages", data=fields, auth=("api", KEY))
        assert answer.json()["message"] == "Queued. Thank you."
        for wrong in ({"to": "nobody"}, {"recipient-variables": "[]"}, {"text": ""}, {"from": "x"}):
            answer = httpx.post(f"{url}/v3/mg.example.com/messages", data=fields | wrong, auth=("api", KEY))
            assert answer.status_code == 400
    assert [one.to for one in there.delivered] == ["a@example.com, b@example.com"]


def test_postmark_answers_for_each() -> None:
    there = stand_in("postmark")
    good = {"From": "news@example.com", "To": "a@example.com", "Subject": "x", "TextBody": "x"}
    wrong: list[dict[str, Any]] = [
        {"To": "nobody"},
        {"TextBody": ""},
        {"MessageStream": "nowhere"},
        {"Metadata": {"name_of_more_than_twenty": "x"}},
        {"Headers": [{"Name": "X", "Value": "a\nb"}]},
        {"Text": "x"},
    ]
    with serve(there.app) as url:
        headers = {"X-Postmark-Server-Token": KEY}
        answer = httpx.post(f"{url}/email/batch", json=[good, *(good | each for each in wrong)], headers=headers)
        codes = [each["ErrorCode"] for each in answer.json()]
        many = httpx.post(f"{url}/email/batch", json=[good] * 501, headers=headers)
    assert codes == [0, 300, 300, 1235, 300, 300, 403]
    assert (many.status_code, many.json()["ErrorCode"], len(there.delivered)) == (422, 410, 1)


def test_ses_does_not_take_what_was_changed_after_it_was_signed() -> None:
    there = stand_in("ses")
    requests: list[httpx.Request] = []
    with serve(there.app) as url, channel("ses", url) as opened:
        opened._peer._client.event_hooks["request"] = [requests.append]
        list(opened.send([letter(1)], lambda _: None))
        (asked,) = requests
        body = json.loads(asked.content) | {"FromEmailAddress": "other@example.com"}
        headers = {name: value for name, value in asked.headers.items() if name != "content-length"}
        changed = httpx.post(str(asked.url), content=json.dumps(body), headers=headers)
        unsigned = httpx.post(str(asked.url), content=asked.content)
    assert (changed.status_code, unsigned.status_code, len(there.delivered)) == (403, 403, 1)


def test_ses_checks_by_amazons_own_model() -> None:
    there = stand_in("ses")
    with serve(there.app) as url, channel("ses", url) as opened:
        answer = opened._post("/v2/email/outbound-bulk-emails", {"BulkEmailEntries": [{}]})  # type: ignore[attr-defined]
        assert answer.status_code == 400
        assert "Missing required parameter" in answer.json()["message"]
    assert there.delivered == []
