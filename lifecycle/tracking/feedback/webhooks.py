"""What services and messengers send us, at `/hooks/…`. 200 is answered after the commit; what is not signed as it
must be is answered with 401 or 403 and leaves nothing behind."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import httpx
from sqlalchemy import Engine
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lifecycle.clock import Clock, utc_now
from lifecycle.settings import Config, Environment
from lifecycle.settings.channels import WhatsAppChannel
from lifecycle.tracking.feedback import signatures
from lifecycle.tracking.feedback.desk import Desk
from lifecycle.tracking.feedback.intake import Taken
from lifecycle.tracking.feedback.records import Entry
from lifecycle.tracking.feedback.services import Reader
from lifecycle.tracking.feedback.whatsapp import WhatsAppReader
from lifecycle.tracking.group_commit import GroupCommit

MAX_BODY_BYTES = 4_000_000
"""SendGrid and SNS send less than 1 MB, Meta up to 3."""

MAILGUN_SECONDS = 12 * 3600
"""Mailgun tries for 8 hours to hand in an event."""

_MOST_TOKENS = 100_000
_FETCH_SECONDS = 10
logger = logging.getLogger(__name__)

Fetch = Callable[[str], bytes]


def fetch(url: str) -> bytes:
    """Over HTTPS, without following anywhere else. Raises httpx.HTTPError."""
    answer = httpx.get(url, timeout=_FETCH_SECONDS, follow_redirects=False)
    if not answer.is_success:
        raise httpx.HTTPError(f"answered {answer.status_code}")
    return answer.content


class Webhooks:
    """`env`: where keys are found. A service without a key answers 404.

    Raises ConfigError for a key that is none.
    """

    def __init__(
        self,
        engine: Engine,
        environment: Environment,
        config: Config,
        *,
        env: Mapping[str, str] = os.environ,
        clock: Clock = utc_now,
        fetch: Fetch = fetch,
    ) -> None:
        desk = Desk(engine, environment, config, clock=clock)
        self._writer: GroupCommit[Sequence[Entry], Taken] = GroupCommit(engine, desk.write)
        self._secret, self._clock, self._fetch = environment.secret, clock, fetch
        keys, named = _Keys(env), config.channels_file.webhooks
        sendgrid = keys.get("webhooks.sendgrid_public_key_env", named.sendgrid_public_key_env)
        self._sendgrid_key = signatures.sendgrid_key(sendgrid) if sendgrid else None
        self._mailgun_key = keys.get("webhooks.mailgun_signing_key_env", named.mailgun_signing_key_env)
        self._postmark_login = keys.get("webhooks.postmark_login_env", named.postmark_login_env)
        self._topic = named.ses_topic_arn
        numbers = [each for each in config.channels.values() if isinstance(each, WhatsAppChannel)]
        self._numbers = {
            each.phone_number_id: secret
            for each in numbers
            if (secret := keys.get(f"{each.name}.app_secret_env", each.app_secret_env))
        }
        verifying = (keys.get(f"{each.name}.verify_token_env", each.verify_token_env) for each in numbers)
        self._verify_tokens = {token for token in verifying if token}
        self._mailgun_seen = _Tokens(_MOST_TOKENS)
        self._certificates: dict[str, bytes] = {}

    def routes(self) -> list[Route]:
        """For an app that calls `start` before the first request and `stop` after the last."""
        doors = {
            "sendgrid": self.sendgrid, "mailgun": self.mailgun, "ses": self.ses, "postmark": self.postmark,
            "whatsapp": self.whatsapp,
        }  # fmt: skip
        found = [
            Route(f"/hooks/{name}", door, methods=["POST"], max_body_size=MAX_BODY_BYTES)
            for name, door in doors.items()
        ]
        return [*found, Route("/hooks/whatsapp", self.whatsapp_asks, methods=["GET"])]

    def start(self) -> None:
        self._writer.start()

    async def stop(self) -> None:
        await self._writer.stop()

    async def sendgrid(self, request: Request) -> Response:
        if self._sendgrid_key is None:
            raise HTTPException(404)
        body = await request.body()
        if not signatures.is_sendgrid(self._sendgrid_key, request.headers, body):
            raise HTTPException(403)
        return await self._take(self._reader().sendgrid(_json(body)))

    async def mailgun(self, request: Request) -> Response:
        """The signature does not cover the event, so that each is good for one."""
        if not self._mailgun_key:
            raise HTTPException(404)
        body = await request.body()
        payload = _json(body)
        signed = payload.get("signature") if isinstance(payload, dict) else None
        signed = signed if isinstance(signed, dict) else {}
        timestamp, token = str(signed.get("timestamp", "")), str(signed.get("token", ""))
        if not signatures.is_mailgun(self._mailgun_key, timestamp, token, str(signed.get("signature", ""))):
            raise HTTPException(403)
        age = self._clock().timestamp() - int(timestamp) if timestamp.isdecimal() else MAILGUN_SECONDS + 1
        used = self._mailgun_seen.get(token)
        digest = sha256(json.dumps(payload.get("event-data"), sort_keys=True).encode()).digest()
        if abs(age) > MAILGUN_SECONDS or (used is not None and used != digest):
            raise HTTPException(403)
        self._mailgun_seen.keep(token, digest)
        return await self._take(self._reader().mailgun(payload))

    async def ses(self, request: Request) -> Response:
        if not self._topic:
            raise HTTPException(404)
        message = _json(await request.body())
        if not isinstance(message, dict) or message.get("TopicArn") != self._topic:
            raise HTTPException(403)
        url = str(message.get("SigningCertURL", ""))
        if not signatures.is_sns_address(url):
            raise HTTPException(403)
        if not signatures.is_sns(await self._certificate(url), message):
            raise HTTPException(403)
        if message["Type"] == "SubscriptionConfirmation":
            return await self._subscribe(str(message.get("SubscribeURL", "")))
        if message["Type"] == "UnsubscribeConfirmation":
            logger.warning("the SNS topic of webhooks.ses_topic_arn reports no more: its subscription was ended")
            return _taken()
        return await self._take(self._reader().ses(message))

    async def postmark(self, request: Request) -> Response:
        if not self._postmark_login:
            raise HTTPException(404)
        if not signatures.is_login(self._postmark_login, request.headers.get("authorization", "")):
            raise HTTPException(401, headers={"WWW-Authenticate": 'Basic realm="hooks"'})
        return await self._take(self._reader().postmark(_json(await request.body())))

    async def whatsapp(self, request: Request) -> Response:
        """Numbers of several apps report here; each is believed what its own app has signed."""
        if not self._numbers:
            raise HTTPException(404)
        body, header = await request.body(), request.headers.get("x-hub-signature-256", "")
        signing = {secret for secret in self._numbers.values() if signatures.is_meta(secret, header, body)}
        if not signing:
            raise HTTPException(403)
        numbers = [number for number, secret in self._numbers.items() if secret in signing]
        return await self._take(WhatsAppReader(self._secret, self._clock(), numbers).read(_json(body)))

    async def whatsapp_asks(self, request: Request) -> Response:
        """Meta's question when the webhook is set up."""
        if not self._verify_tokens:
            raise HTTPException(404)
        asked = request.query_params
        given = asked.get("hub.verify_token", "").encode()
        known = any([hmac.compare_digest(token.encode(), given) for token in self._verify_tokens])
        if asked.get("hub.mode") != "subscribe" or not known:
            raise HTTPException(403)
        return PlainTextResponse(asked.get("hub.challenge", "")[:1000])

    def _reader(self) -> Reader:
        return Reader(self._secret, self._clock())

    async def _take(self, entries: Iterable[Entry]) -> Response:
        if found := list(entries):
            await self._writer.write(found)
        return _taken()

    async def _certificate(self, url: str) -> bytes:
        if url not in self._certificates:
            certificate = await self._fetched(url)
            if len(self._certificates) >= 10:
                self._certificates.clear()
            self._certificates[url] = certificate
        return self._certificates[url]

    async def _subscribe(self, url: str) -> Response:
        if not signatures.is_sns_address(url):
            raise HTTPException(403)
        await self._fetched(url)
        logger.warning("the SNS topic of webhooks.ses_topic_arn now reports here")
        return _taken()

    async def _fetched(self, url: str) -> bytes:
        try:
            return await asyncio.to_thread(self._fetch, url)
        except httpx.HTTPError as error:
            logger.warning("SNS cannot be asked: %s", type(error).__name__)
            raise HTTPException(503) from None


class _Keys:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def get(self, field: str, variable: str) -> str:
        found = self._env.get(variable, "").strip() if variable else ""
        if variable and not found:
            logger.warning(
                "config/channels.yaml: %s is %s, which is not set: nothing is listened to", field, variable
            )
        return found


class _Tokens:
    """What each of the last tokens was used for."""

    def __init__(self, most: int) -> None:
        self._most, self._used = most, OrderedDict[str, bytes]()

    def get(self, token: str) -> bytes | None:
        return self._used.get(token)

    def keep(self, token: str, digest: bytes) -> None:
        self._used[token] = digest
        while len(self._used) > self._most:
            self._used.popitem(last=False)


def _taken() -> Response:
    return PlainTextResponse("taken\n")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400) from None
