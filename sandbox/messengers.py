"""WhatsApp's Cloud API, Messenger's Send API and a receiver of our webhook on loopback, with their limits, and a
wire that breaks."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import socket
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any, Literal
from urllib.parse import urlsplit

import phonenumbers
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lifecycle.clock import Clock, utc_now

DAY = timedelta(days=1)
PAIR_BURST, PAIR_SECONDS = 45, 6
"""To one person: so many at once, then one in so many seconds."""

STATUSES: Mapping[int, int] = {
    **dict.fromkeys((0, 190), 401),
    **dict.fromkeys((10, 200, 368, 130497, 131005, 131031), 403),
    **dict.fromkeys((80007, 130429, 131056), 429),
    **dict.fromkeys((3, 131000), 500),
    **dict.fromkeys((2, 131016), 503),
    132001: 404,
}
"""HTTP statuses of Meta's error codes; all others are 400."""

TITLES: Mapping[int, str] = {
    2: "API Service",
    10: "This message is sent outside of allowed window.",
    100: "Invalid parameter",
    190: "Access token has expired",
    551: "This person isn't available right now.",
    613: "Calls to this API have exceeded the rate limit.",
    130429: "Rate limit hit",
    131000: "Something went wrong",
    131016: "Service unavailable",
    131026: "Message undeliverable",
    131047: "Re-engagement message",
    131048: "Spam rate limit hit",
    131049: "This message was not delivered to maintain healthy ecosystem engagement.",
    131050: "User has stopped marketing messages",
    131056: "(Business Account, Consumer Account) pair rate limit hit",
    132000: "Number of parameters does not match the expected number of params",
    132001: "Template name does not exist in the translation",
    132015: "Template is Paused",
    132016: "Template is Disabled",
    132018: "Param text cannot have new-line/tab characters or more than 4 consecutive spaces",
}


class _Problem(Exception):
    """Meta's shape of an error."""

    def __init__(
        self, code: int, details: str = "", *, subcode: int | None = None, wait: int | None = None
    ) -> None:
        super().__init__(code)
        error: dict[str, Any] = {"message": f"(#{code}) {TITLES.get(code, 'An error')}", "type": "OAuthException"}
        error |= {"code": code, "fbtrace_id": secrets.token_hex(8)}
        if details:
            error["error_data"] = {"messaging_product": "whatsapp", "details": details}
        if subcode is not None:
            error["error_subcode"] = subcode
        headers = {"Retry-After": str(wait)} if wait is not None else {}
        self.response = JSONResponse({"error": error}, STATUSES.get(code, 400), headers)

    @staticmethod
    async def answer(_request: Request, problem: Exception) -> Response:
        assert isinstance(problem, _Problem)
        return problem.response


@dataclass(frozen=True)
class Template:
    """As Meta has approved it."""

    name: str
    language: str
    parameters: int
    category: Literal["marketing", "utility"] = "marketing"
    state: Literal["approved", "paused", "disabled"] = "approved"


@dataclass
class CloudApi:
    """One telephone number. People are written with their plus; what nobody says of them holds for all others.

    `refused`: code by person. `all_refused`: code for whatever comes, with `wait` as Retry-After. `wrote_at`: when
    a person last wrote to us. `marketing_per_day`: Meta's cap for one person. `message_status`: of what is taken.
    """

    token: str
    phone_number_id: str
    templates: Sequence[Template] = ()
    clock: Clock = utc_now
    per_second: int = 80
    marketing_per_day: int = 2
    refused: Mapping[str, int] = field(default_factory=dict)
    all_refused: int | None = None
    wait: int | None = None
    wrote_at: dict[str, datetime] = field(default_factory=dict)
    stopped_marketing: set[str] = field(default_factory=set)
    message_status: str | None = None
    taken: list[Mapping[str, Any]] = field(default_factory=list)
    """Requests, as they came, in order."""
    seconds: float = 0
    """That an answer takes."""
    most_at_a_time: int = 0

    def __post_init__(self) -> None:
        self._at_a_time = 0
        self._leaving: deque[datetime] = deque()
        self._to_each: dict[str, list[datetime]] = defaultdict(list)
        self._marketing: dict[str, list[datetime]] = defaultdict(list)

    def app(self) -> Starlette:
        paths = (f"/v23.0/{self.phone_number_id}/{name}" for name in ("messages", "marketing_messages"))
        return Starlette(
            routes=[Route(path, self.messages, methods=["POST"]) for path in paths],
            exception_handlers={_Problem: _Problem.answer, 404: _no_such_object},
        )

    async def messages(self, request: Request) -> Response:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            raise _Problem(190)
        body = await request.json()
        await self._think()
        if self.all_refused is not None:
            raise _Problem(self.all_refused, wait=self.wait)
        to, now = str(body["to"]), self.clock()
        if code := self.refused.get(to):
            raise _Problem(code, f"Message failed to send to {to}")
        marketing = self._check(body, to, now, request.url.path.endswith("/marketing_messages"))
        self._limit(to, now)
        self._to_each[to].append(now)
        if marketing:
            self._marketing[to].append(now)
        message = {"id": f"wamid.{secrets.token_urlsafe(24)}"}
        if self.message_status:
            message["message_status"] = self.message_status
        if self.message_status != "paused":
            self.taken.append(body)
        contacts = [{"input": to, "wa_id": to.removeprefix("+")}]
        return JSONResponse({"messaging_product": "whatsapp", "contacts": contacts, "messages": [message]})

    async def _think(self) -> None:
        self._at_a_time += 1
        self.most_at_a_time = max(self.most_at_a_time, self._at_a_time)
        await asyncio.sleep(self.seconds)
        self._at_a_time -= 1

    def _check(self, body: Mapping[str, Any], to: str, now: datetime, only_marketing: bool) -> bool:
        """Whether it is marketing."""
        if body["type"] == "text":
            if only_marketing:
                raise _Problem(100, "Only templates are marketing")
            if len(body["text"]["body"]) > 4096:
                raise _Problem(100, "Param text['body'] must be at most 4096 characters long.")
            if to not in self.wrote_at or now - self.wrote_at[to] >= DAY:
                raise _Problem(131047, "More than 24 hours have passed since the customer last replied")
            return False
        template = self._template(body["template"])
        if template.category != "marketing":
            return False
        self._check_marketing(to, now)
        return True

    def _template(self, wanted: Mapping[str, Any]) -> Template:
        named = (each for each in self.templates if each.name == wanted["name"])
        found = next((each for each in named if each.language == wanted["language"]["code"]), None)
        if found is None:
            raise _Problem(
                132001, f"template name ({wanted['name']}) does not exist in {wanted['language']['code']}"
            )
        if found.state != "approved":
            raise _Problem(132015 if found.state == "paused" else 132016)
        texts = [
            parameter["text"]
            for component in wanted.get("components", ())
            if component["type"] == "body"
            for parameter in component["parameters"]
        ]
        if len(texts) != found.parameters:
            raise _Problem(132000, f"body: number of localizable_params ({len(texts)}) does not match")
        if any("\n" in text or "\t" in text or "     " in text for text in texts):
            raise _Problem(132018)
        if sum(map(len, texts)) > 1024:
            raise _Problem(132005, "Translated text too long")
        return found

    def _check_marketing(self, to: str, now: datetime) -> None:
        if to in self.stopped_marketing:
            raise _Problem(131050)
        lately = [at for at in self._marketing[to] if now - at < DAY]
        in_the_us = phonenumbers.region_code_for_number(phonenumbers.parse(to)) == "US"
        if in_the_us or len(lately) >= self.marketing_per_day:
            raise _Problem(131049)

    def _limit(self, to: str, now: datetime) -> None:
        """Throughput of the number; what one person may get, with a burst that is paid back."""
        while self._leaving and now - self._leaving[0] >= timedelta(seconds=1):
            self._leaving.popleft()
        if len(self._leaving) >= self.per_second:
            raise _Problem(130429, "Message failed to send because there were too many messages sent")
        burst = timedelta(seconds=PAIR_BURST * PAIR_SECONDS)
        if sum(now - at < burst for at in self._to_each[to]) >= PAIR_BURST:
            raise _Problem(131056, "too many messages sent from this phone number to the same phone number")
        self._leaving.append(now)


@dataclass
class PageApi:
    """One page on Messenger. `wrote_at`: when each person, by page-scoped id, last wrote to it. `subscribers`:
    tokens of those who asked for marketing. `unavailable`: who receive nothing from it now."""

    token: str
    page_id: str
    clock: Clock = utc_now
    wrote_at: dict[str, datetime] = field(default_factory=dict)
    subscribers: set[str] = field(default_factory=set)
    unavailable: set[str] = field(default_factory=set)
    all_refused: int | None = None
    wait: int | None = None
    taken: list[Mapping[str, Any]] = field(default_factory=list)

    def app(self) -> Starlette:
        return Starlette(
            routes=[Route(f"/v25.0/{self.page_id}/messages", self.messages, methods=["POST"])],
            exception_handlers={_Problem: _Problem.answer, 404: _no_such_object},
        )

    async def messages(self, request: Request) -> Response:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            raise _Problem(190)
        if self.all_refused is not None:
            raise _Problem(self.all_refused, wait=self.wait)
        body = await request.json()
        if not 0 < len(body["message"]["text"]) <= 2000:
            raise _Problem(100, "Length of param message[text] must be less than or equal to 2000")
        recipient = body["recipient"]
        if "notification_messages_token" in recipient:
            if recipient["notification_messages_token"] not in self.subscribers:
                raise _Problem(100, subcode=2018001)
        else:
            self._check_person(recipient["id"], body)
        self.taken.append(body)
        return JSONResponse({**recipient, "message_id": f"m_{secrets.token_urlsafe(24)}"})

    def _check_person(self, person: str, body: Mapping[str, Any]) -> None:
        if person not in self.wrote_at:
            raise _Problem(100, subcode=2018001)
        if person in self.unavailable:
            raise _Problem(551, subcode=1545041)
        longest = 7 * DAY if body.get("tag") == "HUMAN_AGENT" else DAY
        late = self.clock() - self.wrote_at[person] >= longest
        if late and not (body["messaging_type"] == "MESSAGE_TAG" and body["tag"] in ("ACCOUNT_UPDATE",)):
            raise _Problem(10, subcode=2018278)


async def _no_such_object(request: Request, _error: Exception) -> Response:
    return _Problem(100, "Unsupported post request. Object does not exist", subcode=33).response


@dataclass
class Receiver:
    """Of our webhook, as docs/webhook.md asks. `answers`: what it says of a person instead of accepting. `status`:
    of the whole answer, where it is not 200. `left_out`: people for whom it gives no result."""

    secret: str
    clock: Clock = utc_now
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    status: int = 200
    wait: int | None = None
    can_be_asked: bool = True
    taken: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Messages by key, each once, in order."""
    requests: list[Mapping[str, str]] = field(default_factory=list)
    """Headers of each POST, with the body under `body`."""

    def app(self) -> Starlette:
        methods = ["POST", "GET"] if self.can_be_asked else ["POST"]
        return Starlette(routes=[Route("/hook", self.hook, methods=methods)])

    async def hook(self, request: Request) -> Response:
        body = await request.body()
        content = body if request.method == "POST" else request.url.query.encode()
        if not self._is_signed(request, content):
            return JSONResponse({"error": "wrong signature"}, 403)
        if request.method == "GET":
            return JSONResponse({"results": [self._known(key) for key in request.query_params.getlist("keys")]})
        self.requests.append({**request.headers, "body": body.decode()})
        if self.status not in (200, 207):
            headers = {"Retry-After": str(self.wait)} if self.wait is not None else {}
            return JSONResponse({"error": "not now"}, self.status, headers)
        messages = json.loads(body)["messages"]
        results = [self._result(message) for message in messages if message["to"] not in self.left_out]
        return JSONResponse({"results": results}, self.status)

    def _is_signed(self, request: Request, content: bytes) -> bool:
        timestamp = request.headers.get("Tern-Timestamp", "")
        if not timestamp.isdecimal() or abs(self.clock().timestamp() - int(timestamp)) > 300:
            return False
        expected = hmac.new(self.secret.encode(), timestamp.encode() + b"." + content, sha256).hexdigest()
        return hmac.compare_digest(request.headers.get("Tern-Signature", ""), f"v1={expected}")

    def _result(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        if message["to"] in self.answers:
            return {"id": message["id"], **self.answers[message["to"]]}
        self.taken.setdefault(message["key"], message)
        return {"id": message["id"], "status": "accepted", "provider_id": f"r-{message['key']}"}

    def _known(self, key: str) -> Mapping[str, Any]:
        if key in self.taken:
            return {"key": key, "status": "accepted", "provider_id": f"r-{key}"}
        return {"key": key, "status": "not_taken"}


Break = Literal["request", "whole_request", "answer", "half_answer", "silence"]
"""Where a wire breaks: before the peer has the whole request; when it has it, and the peer does nothing; after the
peer has done it; within its answer; or it stays open, and no answer comes."""


@contextmanager
def broken_wire(url: str, at: Break) -> Iterator[str]:
    """The address of a wire to the server at `url` that breaks on every request."""
    upstream = urlsplit(url)
    over = threading.Event()

    class Wire(BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.carry(self.request)

        def carry(self, client: socket.socket) -> None:
            head = _read_until(client, b"\r\n\r\n")
            if at == "request":
                return
            head, _, body = head.partition(b"\r\n\r\n")
            lines = head.decode().lower().split("\r\n")
            length = next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0)
            while len(body) < length:
                body += client.recv(65_536)
            if at == "whole_request":
                return
            answer = self.ask(head.replace(b"keep-alive", b"close") + b"\r\n\r\n" + body)
            if at == "half_answer":
                client.sendall(answer[: -len(answer) // 8])
            elif at == "silence":
                over.wait(30)

        def ask(self, request: bytes) -> bytes:
            with socket.create_connection((upstream.hostname, upstream.port)) as server:
                server.sendall(request)
                return _read_until(server, None)

    class Server(ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 64
        block_on_close = False

    with Server(("127.0.0.1", 0), Wire) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            over.set()
            server.shutdown()
            thread.join()


def _read_until(peer: socket.socket, mark: bytes | None) -> bytes:
    """To the end of the connection where there is no mark."""
    read = b""
    while mark is None or mark not in read:
        piece = peer.recv(65_536)
        if not piece:
            break
        read += piece
    return read
