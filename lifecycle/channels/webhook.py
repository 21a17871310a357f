"""Any other way out: signed JSON to an address of yours, many messages in a request. Protocol: docs/webhook.md."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lifecycle.channels.base import Accepted, Outcome, Refused, Scope, Unknown
from lifecycle.channels.http import (
    AnswerLost,
    HttpChannel,
    HttpPeer,
    required_secret,
    seconds_to_wait,
    without_addresses,
)
from lifecycle.clock import Clock, utc_now
from lifecycle.errors import ChannelDown
from lifecycle.messages.records import Note, Outgoing, Sent
from lifecycle.settings.channels import WebhookChannel

Model = TypeVar("Model", bound=BaseModel)

_KEYS_AT_A_TIME = 50
"""In the address of a look-up, so that it stays under 4 KB."""


class _Result(BaseModel):
    """What the receiver says of one message."""

    model_config = ConfigDict(strict=True, extra="ignore")

    status: Literal["accepted", "refused", "later"]
    provider_id: str | int | None = None
    code: str | int | None = None
    text: str | None = None
    scope: Scope = "message"
    permanent: bool = True
    retry_after: float | None = Field(default=None, ge=0, le=604_800)

    def outcome(self, key: str) -> Outcome:
        if self.status == "accepted":
            return Accepted(str(self.provider_id or key))
        permanent = self.status == "refused" and self.permanent
        return Refused(
            without_addresses(self.code if self.code is not None else "")[:40],
            without_addresses(self.text or "") or "no reason given",
            permanent,
            self.scope,
            "hard" if permanent and self.scope == "address" else "unknown",
            None if permanent else self.retry_after,
        )


class _Found(BaseModel):
    """What the receiver knows of one key."""

    model_config = ConfigDict(strict=True, extra="ignore")

    key: str
    status: Literal["accepted", "not_taken"]
    provider_id: str | int | None = None


class Webhook(HttpChannel):
    def __init__(self, settings: WebhookChannel, env: Mapping[str, str], clock: Clock = utc_now) -> None:
        """Raises ConfigError where the secret is missing."""
        self._secret = required_secret(settings, "secret_env", env).encode()
        self._url = settings.url
        name = f"the receiver of {settings.name}"
        super().__init__(HttpPeer(name, settings.url, timeout_seconds=settings.timeout_seconds))
        self._clock = clock
        self.at_once = settings.per_request

    def send(
        self, messages: Sequence[Note], begin: Callable[[Outgoing], None]
    ) -> Iterator[tuple[Outgoing, Outcome]]:
        """All in one request. As `Channel.send`."""
        if not messages:
            return
        body = json.dumps({"messages": [_as_json(note) for note in messages]}, separators=(",", ":")).encode()
        headers = self._signed(body) | {
            "Content-Type": "application/json",
            "Idempotency-Key": sha256("\n".join(note.key for note in messages).encode()).hexdigest(),
        }
        for note in messages:
            begin(note)
        try:
            said = self._results(self._peer.ask("POST", self._url, content=body, headers=headers))
        except AnswerLost as lost:
            yield from ((note, Unknown(str(lost))) for note in messages)
            return
        results = _by_id(said)
        for note in messages:
            found = results.get(str(note.send_id))
            yield note, found.outcome(note.key) if found else Unknown(f"{self._peer.name} did not answer for it")

    def look_up(self, sent: Sequence[Sent]) -> Mapping[int, Outcome]:
        """By key, where the receiver can be asked (it answers GET with 200). As `Channel.look_up`."""
        found: dict[int, Outcome] = {}
        for start in range(0, len(sent), _KEYS_AT_A_TIME):
            some = {each.key: each.send_id for each in sent[start : start + _KEYS_AT_A_TIME]}
            answer = self._look(list(some))
            if answer is None:
                return {}
            for each in _valid(_Found, answer):
                if each.key in some:
                    found[some[each.key]] = _known(each)
        return found

    def _look(self, keys: Sequence[str]) -> Sequence[Any] | None:
        """None where the receiver cannot be asked."""
        url = httpx.URL(self._url).copy_merge_params({"keys": list(keys)})
        try:
            answer = self._peer.ask("GET", str(url), headers=self._signed(url.query))
            if answer.status_code in (404, 405, 501):
                return None
            return self._results(answer)
        except AnswerLost as lost:
            raise ChannelDown(str(lost)) from None

    def _signed(self, content: bytes) -> dict[str, str]:
        timestamp = str(int(self._clock().timestamp()))
        return {"Tern-Timestamp": timestamp, "Tern-Signature": signature(self._secret, timestamp, content)}

    def _results(self, answer: httpx.Response) -> Sequence[Any]:
        """Raises ChannelDown where none was taken, AnswerLost where nobody knows."""
        name, status = self._peer.name, answer.status_code
        if status == 403:
            raise ChannelDown(f"{name} does not accept the signature (403)", taken_none=True, login=True)
        if status == 503:
            raise ChannelDown(
                f"{name} takes nothing for the moment (503)", seconds_to_wait(answer), taken_none=True
            )
        if 300 <= status < 500:
            raise ChannelDown(f"{name} refuses the request as a whole ({status})", taken_none=True)
        if status not in (200, 207):
            raise AnswerLost(f"{name} answered {status}")
        said = self._peer.json(answer)
        results = said.get("results") if isinstance(said, Mapping) else None
        if not isinstance(results, list):
            raise AnswerLost(f"{name} answered {status} without results")
        return results


def signature(secret: bytes, timestamp: str, content: bytes) -> str:
    """`content`: the body of a POST, the query of a GET, as it is on the wire."""
    return f"v1={hmac.digest(secret, timestamp.encode() + b'.' + content, 'sha256').hex()}"


def _as_json(note: Note) -> Mapping[str, Any]:
    return {
        "id": note.send_id,
        "key": note.key,
        "to": note.to,
        "order_id": note.order_id,
        "campaign": note.what,
        "purpose": note.purpose,
        "shop": note.shop,
        "language": note.language,
        "title": note.title,
        "text": note.text,
        "template": note.template,
        "parameters": list(note.parameters),
        "extras": dict(note.extras),
    }


def _by_id(results: Sequence[Any]) -> Mapping[str, _Result]:
    """Results that can be read; of a message with two that differ, none."""
    found: dict[str, _Result] = {}
    contradicted = set[str]()
    for result in results:
        for each in _valid(_Result, [result]):
            send_id = str(result.get("id"))
            if found.setdefault(send_id, each) != each:
                contradicted.add(send_id)
    return {send_id: each for send_id, each in found.items() if send_id not in contradicted}


def _valid(model: type[Model], results: Sequence[Any]) -> Iterator[Model]:
    for result in results:
        try:
            yield model.model_validate(result)
        except ValidationError:
            continue


def _known(found: _Found) -> Outcome:
    if found.status == "accepted":
        return Accepted(str(found.provider_id or found.key))
    return Refused("", "the receiver has not taken it and will not", permanent=False)
