"""One peer that is spoken to over HTTP, and what its silence means for the messages in a request."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import httpx

from lifecycle.channels.base import Outcome, nothing_known
from lifecycle.errors import ChannelDown, ConfigError
from lifecycle.messages.records import Sent
from lifecycle.settings.channels import Way

_PRIVATE = re.compile(r"[^\s<>()\[\]:;,\"']+@[^\s<>()\[\]:;,\"']+|\+?\d[\d ().-]{7,}\d")
"""Addresses and telephone numbers; long ids of the peer go with them."""

_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


PATIENCE = 3
"""After so many lost answers in a row the others wait: each would only become one more that nobody knows of."""


class AnswerLost(Exception):
    """The request may have arrived whole, and its answer did not come, or is none."""


class HttpPeer:
    """`name`: as the peer is called in sentences. Connects with the first request and keeps the connection."""

    def __init__(self, name: str, base_url: str, *, timeout_seconds: float, headers: dict[str, str] | None = None):
        self.name = name
        self._client = httpx.Client(
            base_url=base_url.rstrip("/"), timeout=timeout_seconds, headers=headers, follow_redirects=False
        )

    def close(self) -> None:
        self._client.close()

    def exchange(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The answer, whatever its status, read to its end; `request` as for httpx. May be called by several
        threads at a time.

        Raises ChannelDown where nothing can have arrived, AnswerLost where nobody knows.
        """
        try:
            return self._client.request(method, path, **request)
        except _NOT_CONNECTED as error:
            raise ChannelDown(f"{self.name} cannot be reached: {_words(error)}", taken_none=True) from None
        except httpx.HTTPError as error:
            raise AnswerLost(f"the answer of {self.name} was lost: {_words(error)}") from None

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """As `exchange`, for peers whose statuses mean what HTTP says. Raises ChannelDown also where the login is
        not accepted (401) or the peer names a time to wait (429)."""
        answer = self.exchange(method, path, **request)
        if answer.status_code == 401:
            raise ChannelDown(f"{self.name} does not accept the login (401)", taken_none=True, login=True)
        if answer.status_code == 429:
            raise ChannelDown(
                f"{self.name} takes nothing for the moment (429)", seconds_to_wait(answer), taken_none=True
            )
        return answer

    def json(self, answer: httpx.Response) -> Any:
        """Raises AnswerLost where the body is not JSON."""
        try:
            return answer.json()
        except ValueError:
            raise AnswerLost(
                f"{self.name} answered {answer.status_code} with something that is not JSON"
            ) from None


class HttpChannel:
    """What the channels have in common whose peer is spoken to over HTTP."""

    def __init__(self, peer: HttpPeer) -> None:
        self._peer = peer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._peer.close()

    def look_up(self, sent: Sequence[Sent]) -> Mapping[int, Outcome]:
        """As `Channel.look_up`, of a peer that cannot be asked."""
        return nothing_known(sent)


def required_secret(settings: Way, field: str, env: Mapping[str, str]) -> str:
    """The secret whose variable a field of a channel names. Raises ConfigError where it is not set, or is nothing
    that can stand in a header."""
    variable = getattr(settings, field)
    secret = env.get(variable, "").strip()
    if not secret:
        raise ConfigError(f"config/channels.yaml: {settings.name}.{field} is {variable}, which is not set; set it")
    if not (secret.isascii() and secret.isprintable()):
        raise ConfigError(
            f"config/channels.yaml: {settings.name}.{field} is {variable}, which has a line break or a character "
            "that is not ASCII; copy the secret again"
        )
    return secret


def first_error(answer: httpx.Response) -> Mapping[str, Any]:
    """The first of `errors` in a JSON answer, as Amazon and eBay have it; empty where there is none."""
    try:
        error = answer.json()["errors"][0]
    except (ValueError, KeyError, IndexError, TypeError):
        return {}
    return error if isinstance(error, Mapping) else {}


def seconds_to_wait(answer: httpx.Response) -> float | None:
    """From Retry-After, which is seconds or a date (RFC 9110, 10.2.3), or else a time in X-RateLimit-Reset (Unix
    time, as SendGrid gives it; others count seconds there, or days, and are not believed)."""
    value = answer.headers.get("retry-after", "").strip()
    if not value:
        reset = answer.headers.get("x-ratelimit-reset", "").strip()
        return max(int(reset) - time.time(), 0.0) if re.fullmatch(r"[1-9]\d{9}", reset) else None
    if re.fullmatch(r"\d{1,7}(\.\d*)?", value):
        return float(value)
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


def without_addresses(text: object) -> str:
    """A peer's words on one line, without any address or telephone number in them."""
    return _PRIVATE.sub("(address)", " ".join(str(text).split()))[:300]


def _words(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return {"ConnectError": "nothing listens there"}.get(type(error).__name__, type(error).__name__)
