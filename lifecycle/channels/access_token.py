"""A short-lived access token, fetched with a long-lived refresh token (RFC 6749, section 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx

from lifecycle.channels.http import AnswerLost, HttpPeer, without_addresses
from lifecycle.clock import Clock
from lifecycle.errors import ChannelDown

_BEFORE_ITS_END = timedelta(minutes=2)
"""A token is not used so shortly before it expires."""


class AccessToken:
    """Kept until shortly before it expires. `url`: where it is fetched, by a POST of `form`; `auth`: user and
    password for Basic authentication, where the peer wants the client's credentials so."""

    def __init__(
        self,
        peer: HttpPeer,
        url: str,
        form: Mapping[str, str],
        clock: Clock,
        *,
        auth: tuple[str, str] | None = None,
    ) -> None:
        self._peer = peer
        self._url = url
        self._form = {"grant_type": "refresh_token", **form}
        self._clock = clock
        self._auth = auth
        self._kept: tuple[str, datetime] | None = None

    def used(self, ask: Callable[[str], httpx.Response]) -> httpx.Response:
        """`ask` with the token; once more, with a new one, where a kept one is not accepted (ChannelDown with
        `login`). Raises ChannelDown where no token is to be had; the message was then not sent."""
        kept = self._kept if self._kept and self._clock() < self._kept[1] else None
        if kept is not None:
            try:
                return ask(kept[0])
            except ChannelDown as down:
                if not down.login:
                    raise
        return ask(self._fetched())

    def _fetched(self) -> str:
        self._kept = None
        request: dict[str, Any] = {"data": self._form}
        if self._auth is not None:
            request["auth"] = self._auth
        try:
            answer = self._peer.ask("POST", self._url, **request)
            said = self._peer.json(answer)
        except AnswerLost as lost:
            raise ChannelDown(f"no access token: {lost}", taken_none=True) from None
        if answer.status_code in (400, 403):
            reason = without_addresses(said.get("error") if isinstance(said, Mapping) else "") or "no reason given"
            raise ChannelDown(
                f"{self._peer.name} does not accept the login ({reason}); mend the client's or the refresh token",
                taken_none=True,
                login=True,
            )
        try:
            token, seconds = str(said["access_token"]), float(said["expires_in"])
        except (KeyError, TypeError, ValueError):
            raise ChannelDown(
                f"{self._peer.name} answered {answer.status_code} without an access token", taken_none=True
            ) from None
        self._kept = token, self._clock() + timedelta(seconds=seconds) - _BEFORE_ITS_END
        return token
