"""One call to a platform over HTTP: what an answer means, and when to try again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from lifecycle.errors import ConfigError, PlatformBusy, PlatformRejected
from lifecycle.settings.models import Pulling, Shop

T = TypeVar("T")

LONGEST_WAIT_SECONDS = 120
"""A platform that wants a longer pause gets it from the scheduler, not from a process that sleeps."""

_LATER = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


@dataclass(frozen=True)
class Caller:
    """How one shop is called. Holds no connection, so that a platform can be passed between processes."""

    shop: Shop
    pulling: Pulling
    platform: str
    """As people write it: Shopify, WooCommerce."""
    transport: httpx.BaseTransport | None = field(default=None, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        # A proxy from the environment must not stand between us and this machine.
        client = httpx.Client(
            transport=self.transport,
            timeout=self.pulling.timeout_seconds,
            trust_env=not is_loopback(self.shop.url),
        )
        with client:
            yield client

    def attempt(self, fetch: Callable[[], T]) -> T:
        """`fetch()`, again while it raises PlatformBusy: as long as the platform asks, or 1, 2, 4 … seconds.

        Raises the last PlatformBusy, and every PlatformRejected at once.
        """
        for number in range(1, self.pulling.max_attempts + 1):
            try:
                return fetch()
            except PlatformBusy as busy:
                wait = busy.retry_after if busy.retry_after is not None else 2.0 ** (number - 1)
                if number == self.pulling.max_attempts or wait > LONGEST_WAIT_SECONDS:
                    raise
                self.sleep(wait)
        raise AssertionError("max_attempts is at least 1")

    def send(self, client: httpx.Client, method: str, url: str, **content: Any) -> httpx.Response:
        """One request, one good answer. Raises PlatformBusy and PlatformRejected."""
        with self.transport_errors():
            response = client.request(method, url, **content)
        self.judge(response)
        return response

    @contextmanager
    def transport_errors(self) -> Iterator[None]:
        """What can go wrong below HTTP, as PlatformBusy. No httpx error leaves: it may quote headers."""
        try:
            yield
        except httpx.ConnectTimeout:
            raise self._silent("no connection") from None
        except httpx.TimeoutException:
            raise self._silent("no answer") from None
        except httpx.TransportError as error:
            raise self._unreachable(_reason(error)) from None

    def judge(self, response: httpx.Response) -> None:
        """Nothing for a good answer. Raises PlatformBusy and PlatformRejected for all others."""
        status = response.status_code
        if response.is_success:
            return
        if status >= 500 or status in _LATER:
            raise PlatformBusy(
                self.sentence(f"{self.platform} is busy ({status}); try again later"), _retry_after(response)
            )
        if status == HTTPStatus.UNAUTHORIZED:
            raise PlatformRejected(self.refused_token(str(status)))
        if status == HTTPStatus.FORBIDDEN:
            raise PlatformRejected(self.refused_scope(str(status)))
        if status == HTTPStatus.NOT_FOUND:
            raise PlatformRejected(
                self.sentence(
                    f"there is no {self.platform} API at {self.shop.url} (404); check its url in config/shops.yaml"
                )
            )
        raise PlatformRejected(
            self.sentence(f"{self.platform} answered {status} at {self.shop.url}; see its admin pages for why")
        )

    def decode(self, response: httpx.Response) -> Any:
        """JSON. Raises PlatformBusy for anything else: a cut or a proxy's page, gone the next time."""
        try:
            return json.loads(response.content)
        except ValueError:
            raise self.cut() from None

    def cut(self) -> PlatformBusy:
        return PlatformBusy(self.sentence(f"{self.platform}'s answer was cut or is not JSON; try again later"))

    def sentence(self, text: str) -> str:
        return f"shop {self.shop.name}: {text}"

    def refused_token(self, code: str) -> str:
        return self.sentence(f"{self.platform} refused the token ({code}); check {self.shop.token_env}")

    def refused_scope(self, code: str) -> str:
        return self.sentence(
            f"{self.platform} does not let this token read orders and customers ({code}); "
            f"give the app behind {self.shop.token_env} those rights"
        )

    def _silent(self, what: str) -> PlatformBusy:
        return self._unreachable(f"{what} within {self.pulling.timeout_seconds:g} s")

    def _unreachable(self, reason: str) -> PlatformBusy:
        return PlatformBusy(
            self.sentence(
                f"{self.shop.url} does not answer ({reason}); "
                "is it up, and is the shop's url in config/shops.yaml right?"
            )
        )


def check_url(shop: Shop) -> str:
    """The shop's base address without a slash at its end. Raises ConfigError for one that is none, or that
    would carry the token over the network in plain text."""
    parts = urlsplit(shop.url)
    where = f"config/shops.yaml: {shop.name}.url"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f'{where} "{shop.url}" is no web address; write for example https://shop.example.com')
    if parts.scheme == "http" and not is_loopback(shop.url):
        raise ConfigError(
            f'{where} "{shop.url}" would send the token unencrypted; use https:// (http:// only on this machine)'
        )
    return shop.url.rstrip("/")


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds. The date form of the header is left to our own back-off: it needs clocks that agree."""
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _reason(error: httpx.TransportError) -> str:
    """`connection refused` from `[Errno 111] Connection refused`."""
    said = str(error).rpartition("] ")[2].strip().rstrip(".")
    return said[:1].lower() + said[1:] if said else type(error).__name__
