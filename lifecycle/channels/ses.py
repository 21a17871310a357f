"""Amazon SES, API v2: one form for up to 50 people in a request and an answer for each, or one mail by itself.

Source: the service's own model, sesv2 2019-09-27, as botocore carries it, and docs.aws.amazon.com/ses, read
2026-11-22. SES writes the Message-ID itself, and answers with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from email.header import Header
from email.utils import formataddr
from typing import TYPE_CHECKING, Any

import httpx

from lifecycle.channels.base import Accepted, Outcome, Refused, Unknown
from lifecycle.channels.http import AnswerLost, without_addresses
from lifecycle.channels.services import (
    Request,
    Result,
    ServiceChannel,
    as_json,
    by_status,
    of_all,
    parts_of,
)
from lifecycle.errors import ChannelDown, ConfigError
from lifecycle.messages.factoring import Shared, factored
from lifecycle.messages.records import Letter
from lifecycle.settings.channels import EmailService

if TYPE_CHECKING:
    from botocore.auth import SigV4Auth

_ONE, _BULK = "/v2/email/outbound-emails", "/v2/email/outbound-bulk-emails"
_INTERPRETED = re.compile(r"[\\{}]*\{\{[^{}]*[{}]*")
"""A place of Handlebars, with what next to it would make something else of it."""

_VALUES_BYTES = 40_000
_BULK_BYTES = 1_000_000
"""Of a request with its form in it. Values are JSON within JSON: a quote may become four bytes."""

_HEADERS, _HEADER_BYTES = 15, 995
_THROTTLED = frozenset({"ACCOUNT_THROTTLED", "TooManyRequestsException", "ThrottlingException", "Throttling"})
_WAIT_SECONDS, _DAY_WAIT_SECONDS = 60.0, 600.0
"""SES names no time. Its limits are mails a second, and mails in the last 24 hours."""

_OUR_STANDING = frozenset(
    {
        "ACCOUNT_DAILY_QUOTA_EXCEEDED",
        "ACCOUNT_SENDING_PAUSED",
        "ACCOUNT_SUSPENDED",
        "CONFIGURATION_SET_NOT_FOUND",
        "CONFIGURATION_SET_SENDING_PAUSED",
        "INVALID_SENDING_POOL_NAME",
        "MAIL_FROM_DOMAIN_NOT_VERIFIED",
        "AccountSuspendedException",
        "LimitExceededException",
        "MailFromDomainNotVerifiedException",
        "NotFoundException",
        "SendingPausedException",
    }
)
_TEMPORARY = frozenset({"TRANSIENT_FAILURE", "FAILED"})
_CONTENT = frozenset(
    {"MESSAGE_REJECTED", "INVALID_PARAMETER", "TEMPLATE_NOT_FOUND", "MessageRejected", "BadRequestException"}
)


class SesChannel(ServiceChannel):
    """key: ACCESS_KEY_ID:SECRET, and with temporary credentials a third part, the session token.

    Raises ConfigError where it is something else.
    """

    name = "Amazon SES"
    at_once = 50
    largest = 40_000_000

    def __init__(self, settings: EmailService, key: str) -> None:
        url = (settings.url or f"https://email.{settings.region}.amazonaws.com").rstrip("/")
        super().__init__(settings, url, key=key, headers={})
        access, _, rest = key.partition(":")
        secret, _, token = rest.partition(":")
        if not access or not secret:
            raise ConfigError(
                f"config/channels.yaml: {settings.key_env} must be the access key id and the secret with a colon "
                "between them"
            )
        self._url = url
        self._signer = _signer(access, secret, token, settings.region)

    def _requests(self, letters: Sequence[Letter]) -> Iterable[Request]:
        for each in factored(letters, placeholder=_place, interpreted=_INTERPRETED):
            room = (_BULK_BYTES - len(as_json(_form(each)))) // 4
            if room < _VALUES_BYTES + 2_000:
                yield from (Request((letter,)) for letter in each.letters)
            else:
                yield from parts_of([each], most=self.at_once, values_bytes=_VALUES_BYTES, weight=room)

    def _ask(self, request: Request) -> Result:
        if request.shared is None:
            return self._one(request.letters[0])
        answer = self._post(_BULK, self._bulk(request))
        if answer.status_code != 200:
            return of_all(request.letters, self._refusal(answer))
        said = self._peer.json(answer)
        results = said.get("BulkEmailEntryResults") if isinstance(said, dict) else None
        if not isinstance(results, list) or len(results) != len(request.letters):
            raise AnswerLost("Amazon SES did not answer for each letter of the request")
        return self._each(request, results)

    def _one(self, letter: Letter) -> Result:
        answer = self._post(_ONE, self._single(letter))
        if answer.status_code != 200:
            return of_all([letter], self._refusal(answer))
        said = self._peer.json(answer)
        if not isinstance(said, dict) or not said.get("MessageId"):
            raise AnswerLost("Amazon SES answered 200 without saying that it took the mail")
        return of_all([letter], Accepted(str(said["MessageId"])))

    def _post(self, path: str, payload: Mapping[str, Any]) -> httpx.Response:
        from botocore.awsrequest import AWSRequest  # here, because it takes a tenth of a second to import

        content = as_json(payload)
        request = AWSRequest("POST", self._url + path, {"Content-Type": "application/json"}, content)
        self._signer.add_auth(request)
        return self._peer.exchange("POST", path, content=content, headers=dict(request.headers.items()))

    def _each(self, request: Request, results: Sequence[Any]) -> Result:
        answers: list[tuple[Letter, Outcome]] = []
        down = None
        for letter, result in zip(request.letters, results, strict=True):
            status = result.get("Status") if isinstance(result, dict) else None
            words = without_addresses((result.get("Error") or status) if isinstance(result, dict) else "")
            if status in _THROTTLED:
                down = _throttled(words)
            elif status == "SUCCESS" and result.get("MessageId"):
                answers.append((letter, Accepted(str(result["MessageId"]))))
            else:
                unclear = Unknown("Amazon SES did not say whether it took this letter")
                answers.append((letter, _refused(str(status), words) or unclear))
        return Result(answers, down=down)

    def _refusal(self, answer: httpx.Response) -> Outcome:
        """Of an answer to a whole request. Raises ChannelDown."""
        name, words = _error(answer)
        if answer.status_code == 429 or name in _THROTTLED:
            raise _throttled(words)
        if answer.status_code in (401, 403):
            raise ChannelDown(
                f"Amazon SES does not accept the login ({name}): {words}", taken_none=True, login=True
            )
        known = _refused(name, words) if answer.status_code < 500 else None
        return known or by_status(self.name, answer, words)

    def _problem(self, letter: Letter) -> str | None:
        if len(letter.headers) > _HEADERS:
            return f"Amazon SES takes {_HEADERS} headers at the most, and the mail has {len(letter.headers)}"
        if any(len(name) + len(value) > _HEADER_BYTES for name, value in letter.headers):
            return f"Amazon SES takes headers of {_HEADER_BYTES} characters at the most"
        return super()._problem(letter)

    def _single(self, letter: Letter) -> dict[str, Any]:
        bodies = {"Text": letter.text, "Html": letter.html}
        return {
            **self._sender(letter),
            "Destination": {"ToAddresses": [letter.to]},
            "Content": {
                "Simple": {
                    "Subject": _content(letter.subject),
                    "Body": {name: _content(words) for name, words in bodies.items() if words},
                    "Headers": _headers(letter),
                }
            },
            "EmailTags": _tags(letter),
        }

    def _bulk(self, request: Request) -> dict[str, Any]:
        assert request.shared is not None
        return {
            **self._sender(request.letters[0]),
            "DefaultContent": {"Template": _form(request.shared)},
            "BulkEmailEntries": [
                {
                    "Destination": {"ToAddresses": [letter.to]},
                    "ReplacementTags": _tags(letter),
                    "ReplacementEmailContent": {
                        "ReplacementTemplate": {
                            "ReplacementTemplateData": json.dumps(dict(request.values(letter)), ensure_ascii=False)
                        }
                    },
                    "ReplacementHeaders": _headers(letter),
                }
                for letter in request.letters
            ],
        }

    def _sender(self, letter: Letter) -> dict[str, Any]:
        off = {"OpenTrackingEnabled": "DISABLED", "ClickTrackingEnabled": "DISABLED"}
        configuration_set = self._settings.configuration_set
        return {
            "FromEmailAddress": _mailbox(letter),
            **({"ReplyToAddresses": [letter.reply_to]} if letter.reply_to else {}),
            **({"ConfigurationSetName": configuration_set} if configuration_set else {}),
            "ConfigurationOverrides": {"Tracking": off},
        }


def _signer(access: str, secret: str, token: str, region: str) -> SigV4Auth:
    from botocore.auth import SigV4Auth
    from botocore.credentials import Credentials

    return SigV4Auth(Credentials(access, secret, token or None), "ses", region)


def _place(name: str) -> str:
    return f"{{{{{name}}}}}"


def _form(shared: Shared) -> dict[str, Any]:
    """Values must be given, if only to be replaced."""
    bodies = {"Subject": shared.subject, "Text": shared.text, "Html": shared.html}
    return {"TemplateContent": {name: words for name, words in bodies.items() if words}, "TemplateData": "{}"}


def _headers(letter: Letter) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in letter.headers]


def _tags(letter: Letter) -> list[dict[str, str]]:
    """Letters, digits, `_` and `-` only, so that the number must do."""
    return [{"Name": "send_id", "Value": str(letter.send_id)}]


def _content(words: str) -> dict[str, str]:
    return {"Data": words, "Charset": "UTF-8"}


def _mailbox(sender: Letter) -> str:
    """ASCII, as SES wants it."""
    if sender.sender_name.isascii():
        return formataddr((sender.sender_name, sender.sender_address))
    return f"{Header(sender.sender_name, 'utf-8', maxlinelen=75).encode(linesep='')} <{sender.sender_address}>"


def _error(answer: httpx.Response) -> tuple[str, str]:
    """Name and words of an exception, in the ways in which AWS services say them."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    body = body if isinstance(body, dict) else {}
    name = answer.headers.get("x-amzn-errortype") or body.get("__type") or body.get("code") or ""
    words = body.get("message") or body.get("Message") or f"status {answer.status_code}"
    return str(name).partition(":")[0].rpartition("#")[2], without_addresses(words)


def _refused(status: str, words: str) -> Refused | None:
    """Of a status of a bulk entry or the name of an exception."""
    if status in _OUR_STANDING or (status in _CONTENT and "not verified" in words):
        return Refused(status, words, True, "lane", "policy")
    if status in _TEMPORARY:
        return Refused(status, words, False, kind="soft")
    if status in _CONTENT:
        return Refused(status, words, True, kind="content")
    return None


def _throttled(words: str) -> ChannelDown:
    wait = _DAY_WAIT_SECONDS if "daily" in words.lower() else _WAIT_SECONDS
    return ChannelDown(f"Amazon SES takes nothing for the moment: {words}", wait, taken_none=True)
