"""The tracking web app: pixel, links, unsubscribing, webhooks. GET changes nothing but the list of raw hits.

A hit is answered after it is stored. Who we do not know gets the same neutral answer as who forges.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal
from urllib.parse import parse_qs

from sqlalchemy import Engine, Row, text
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from lifecycle import tokens
from lifecycle.clock import Clock, utc_now
from lifecycle.db.engine import reading
from lifecycle.db.storable import storable_text
from lifecycle.settings import Config, Environment
from lifecycle.tokens import Purpose, Token
from lifecycle.tracking import pages
from lifecycle.tracking.feedback.webhooks import Fetch, Webhooks, fetch
from lifecycle.tracking.group_commit import GroupCommit
from lifecycle.tracking.store import Entry, Hit, Stored, Unsubscribe, Visitor, find_message, store
from lifecycle.tracking.unsubscribe import end_marketing

MAX_BODY_BYTES = 10_000
_LONGEST_AGENT = 500
_PIXEL = bytes.fromhex("47494638396101000100800000ffffff00000021f90401000000002c00000000010001000002024401003b")
_NOT_STORED = {
    "Cache-Control": "no-store, no-cache, must-revalidate, private, max-age=0",
    "Pragma": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow",
}
logger = logging.getLogger(__name__)


def create_app(
    engine: Engine,
    environment: Environment,
    config: Config,
    *,
    clock: Clock = utc_now,
    env: Mapping[str, str] = os.environ,
    fetch: Fetch = fetch,
) -> Starlette:
    """`env`: where the keys of webhooks are found. `fetch`: gets what SNS signs with.

    Raises ConfigError when a page is missing in `templates/pages/` or a key is none.
    """
    hooks = Webhooks(engine, environment, config, env=env, clock=clock, fetch=fetch)
    return Tracking(engine, environment, config, clock, hooks).app()


class Tracking:
    def __init__(
        self, engine: Engine, environment: Environment, config: Config, clock: Clock, hooks: Webhooks
    ) -> None:
        self._hooks = hooks
        self._engine, self._secret, self._config, self._clock = engine, environment.secret, config, clock
        self._pages = pages.Pages(environment.templates_dir / "pages")
        unsubscribing = partial(end_marketing, channels=config.channels)
        self._writer: GroupCommit[Entry, Stored] = GroupCommit(engine, partial(store, end_marketing=unsubscribing))

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/o/{token}.gif", self.opened),
                Route("/c/{token}", self.clicked),
                Route("/u/{token}", self.ask),
                Route("/u/{token}", self.unsubscribe, methods=["POST"]),
                Route("/healthz", self.health),
                *self._hooks.routes(),
            ],
            exception_handlers={404: self._not_found, SQLAlchemyError: self._try_again},
            lifespan=self._running,
            max_body_size=MAX_BODY_BYTES,
        )

    @asynccontextmanager
    async def _running(self, _app: Starlette) -> AsyncIterator[None]:
        self._writer.start()
        self._hooks.start()
        try:
            yield
        finally:
            await self._writer.stop()
            await self._hooks.stop()

    async def opened(self, request: Request) -> Response:
        """Always the picture: a broken image in a mail helps nobody."""
        if token := self._token(request, Purpose.OPEN):
            try:
                await self._writer.write(self._hit(request, "opened", token))
            except SQLAlchemyError:
                logger.exception("an open could not be stored")
        return Response(_PIXEL, media_type="image/gif", headers=_NOT_STORED)

    async def clicked(self, request: Request) -> Response:
        """The address comes from our own table, never from the request: no open redirect."""
        token = self._token(request, Purpose.CLICK)
        stored = await self._writer.write(self._hit(request, "clicked", token)) if token else None
        if stored is None or stored.url is None:
            raise HTTPException(404)
        return RedirectResponse(stored.url, status_code=307, headers=_NOT_STORED)

    async def ask(self, request: Request) -> Response:
        """Scanners fetch this address from every mail: it shows a button and changes nothing."""
        token = self._token(request, Purpose.UNSUBSCRIBE)
        message = await asyncio.to_thread(find_message, self._engine, token.message_id) if token else None
        if message is None:
            raise HTTPException(404)
        return self._page(pages.UNSUBSCRIBE, message)

    async def unsubscribe(self, request: Request) -> Response:
        """RFC 8058's one click, in both encodings, or the page's button."""
        token, via = self._token(request, Purpose.UNSUBSCRIBE), await _asked_by(request)
        message = await asyncio.to_thread(find_message, self._engine, token.message_id) if token else None
        if token is None or message is None:
            raise HTTPException(404)
        if via is None:
            return self._page(pages.UNSUBSCRIBE, message, status=400)
        await self._writer.write(Unsubscribe(token.message_id, self._clock(), _visitor(request), via))
        if via == "one_click":
            return PlainTextResponse("Unsubscribed.\n", headers=_NOT_STORED)
        return self._page(pages.UNSUBSCRIBED, message)

    async def health(self, _request: Request) -> Response:
        try:
            await asyncio.to_thread(self._ping)
        except SQLAlchemyError:
            return JSONResponse({"status": "the database does not answer"}, status_code=503)
        return JSONResponse({"status": "ok"})

    def _ping(self) -> None:
        with reading(self._engine) as connection:
            connection.execute(text("select 1"))

    def _token(self, request: Request, purpose: Purpose) -> Token | None:
        return tokens.read(request.path_params["token"], purpose, self._secret)

    def _hit(self, request: Request, kind: Literal["opened", "clicked"], token: Token) -> Hit:
        link_id = token.link_id if kind == "clicked" else None
        return Hit(kind, token.message_id, link_id, self._clock(), _visitor(request), _prefetch(request))

    def _page(self, name: str, message: Row[Any], *, status: int = 200) -> Response:
        shop = self._config.shops.get(message.shop)
        brand = shop.sender.name if shop else message.shop
        return self._pages.respond(name, message.locale, status=status, brand=brand)

    async def _not_found(self, request: Request, _error: Exception) -> Response:
        return self._for_a_stranger(request, pages.NOT_FOUND, 404)

    async def _try_again(self, request: Request, _error: Exception) -> Response:
        logger.exception("a request could not be stored")
        return self._for_a_stranger(request, pages.TRY_AGAIN, 503)

    def _for_a_stranger(self, request: Request, name: str, status: int) -> Response:
        locale = self._pages.asked_for(request.headers.get("accept-language", ""))
        return self._pages.respond(name, locale, status=status)


def _visitor(request: Request) -> Visitor:
    agent = storable_text(request.headers.get("user-agent", "")[:_LONGEST_AGENT])
    return Visitor(agent or "", request.client.host if request.client else None)


def _prefetch(request: Request) -> dict[str, Any] | None:
    """The mark of a request that says itself that nobody is looking yet."""
    if request.method == "HEAD":
        return {"prefetch": True, "because": "HEAD"}
    for header in ("sec-purpose", "purpose", "x-purpose", "x-moz"):
        if "prefetch" in (value := request.headers.get(header, "").lower()) or "preview" in value:
            return {"prefetch": True, "because": f"{header}: {value[:50]}"}
    return None


async def _asked_by(request: Request) -> Literal["one_click", "page"] | None:
    """`one_click`, `page`, or None for a body that asks for nothing. Some senders forget the content type."""
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=1, max_fields=10) as form:
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
    else:
        body = (await request.body()).decode("ascii", "replace")
        fields = {name: values[-1] for name, values in parse_qs(body).items()}
    if fields.get("List-Unsubscribe", "").strip().lower() == "one-click":
        return "one_click"
    return "page" if "unsubscribe" in fields else None
