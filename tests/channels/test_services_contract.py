"""Each e-mail service's channel keeps the promise of all channels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lifecycle.messages.records import Letter
from sandbox.servers import serve
from sandbox.services.keeping import Conduct
from tests.channels.esp import KEY, channel, letter, sent, stand_in
from tests.contracts.channel import ChannelContract, Line, Peer

SECOND = letter(2).to

Faults = Mapping[Peer, Callable[[], Conduct]]

ENDINGS: Faults = {
    Peer.TAKES: Conduct,
    Peer.KNOWS_ANOTHER_PASSWORD: Conduct,
    Peer.BREAKS_BEFORE_IT_HAS_ALL: lambda: Conduct(takes=False, ends="breaks"),
    Peer.HAS_ALL_AND_BREAKS: lambda: Conduct(takes=False, ends="breaks"),
    Peer.TAKES_AND_BREAKS: lambda: Conduct(ends="breaks"),
    Peer.TAKES_AND_IS_SILENT: lambda: Conduct(ends="is_silent"),
    Peer.TAKES_AND_STAMMERS: lambda: Conduct(ends="stammers"),
}


def refusing(said: str, *addresses: str) -> Callable[[], Conduct]:
    return lambda: Conduct(refuses=lambda address: said if not addresses or address in addresses else None)


def saying(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Callable[[], Conduct]:
    return lambda: Conduct(answer=lambda: JSONResponse(body, status, headers))


class Stage:
    """One server for all stand-ins: the tests are many, and each start takes a quarter of a second."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def stage() -> Iterator[tuple[Stage, str]]:
    empty = Stage()
    with serve(empty) as url:
        yield empty, url


class ServiceContract(ChannelContract):
    SECRET = "correct-horse"
    KNOWS_WHAT_LEFT = False
    service: ClassVar[str]
    faults: ClassVar[Faults] = {}

    @pytest.fixture(autouse=True)
    def _stand(self, stage: tuple[Stage, str]) -> None:
        self.stage, self.url = stage

    @contextmanager
    def line(self, peer: Peer) -> Iterator[Line]:
        silent = peer is Peer.TAKES_AND_IS_SILENT
        if peer is Peer.IS_NOT_THERE:
            with channel(self.service, "http://127.0.0.1:9", timeout_seconds=0.5) as opened:
                yield Line(opened, list)
            return
        key = "AKIATERN:another" if peer is Peer.KNOWS_ANOTHER_PASSWORD else KEY
        there = stand_in(self.service, {**ENDINGS, **self.faults}[peer](), key)
        self.stage.app = there.app
        with channel(self.service, self.url, timeout_seconds=0.4 if silent else 10) as opened:
            yield Line(opened, lambda: [mail.marks["send_id"] for mail in there.delivered])

    def message(self, number: int) -> Letter:
        return letter(number)

    def sent(self, number: int) -> Any:
        return sent(number)

    def seen_as(self, message: Any) -> str:
        return str(message.send_id)


class TestSendGrid(ServiceContract):
    service = "sendgrid"
    faults: ClassVar[Faults] = {
        Peer.IS_BUSY: saying(503, {"errors": [{"message": "person.1@example.org: try again", "field": None}]}),
        Peer.NAMES_A_TIME_TO_WAIT: lambda: Conduct(
            answer=lambda: Response(status_code=429, headers={"X-RateLimit-Reset": f"{time.time() + 9:.0f}"})
        ),
        Peer.KNOWS_NO_SUCH_ADDRESS: refusing("to.0.email|person.1@example.org is not a valid address."),
        Peer.REFUSES_THE_SECOND: refusing("to.0.email|Does not contain a valid address.", SECOND),
        Peer.REFUSES_THE_MESSAGE: refusing("headers|Invalid characters found in a header."),
        Peer.REFUSES_THE_SENDER: saying(
            403, {"errors": [{"message": "news@example.com is not a verified Sender Identity", "field": "from"}]}
        ),
    }


class TestMailgun(ServiceContract):
    service = "mailgun"
    CANNOT: ClassVar[Mapping[Peer, str]] = {
        Peer.IS_BUSY: "Mailgun says only 429 for it, which stops everything, and 5xx, of which nobody knows"
    }
    faults: ClassVar[Faults] = {
        Peer.NAMES_A_TIME_TO_WAIT: saying(429, {"message": "Too many requests"}, {"Retry-After": "7"}),
        Peer.KNOWS_NO_SUCH_ADDRESS: refusing(
            "400|'to' parameter is not a valid address. please check documentation"
        ),
        Peer.REFUSES_THE_SECOND: refusing("400|'to' parameter is not a valid address.", SECOND),
        Peer.REFUSES_THE_MESSAGE: saying(400, {"message": "the mail to person.1@example.org is malformed"}),
        Peer.REFUSES_THE_SENDER: saying(403, {"message": "Domain mg.example.com is not allowed to send"}),
    }


class TestSes(ServiceContract):
    service = "ses"
    CANNOT: ClassVar[Mapping[Peer, str]] = {
        Peer.IS_BUSY: "of one mail SES says only 429 for it, which stops everything; of several see test_ses",
        Peer.NAMES_A_TIME_TO_WAIT: "SES names no time",
        Peer.KNOWS_NO_SUCH_ADDRESS: "SES takes every address that has the form of one, and reports later",
    }
    faults: ClassVar[Faults] = {
        Peer.REFUSES_THE_SECOND: refusing("MESSAGE_REJECTED|The message contained a virus.", SECOND),
        Peer.REFUSES_THE_MESSAGE: refusing("MessageRejected|The mail to person.1@example.org has a virus."),
        Peer.REFUSES_THE_SENDER: refusing(
            "MessageRejected|Email address is not verified. The following identities failed: news@example.com"
        ),
    }


class TestPostmark(ServiceContract):
    service = "postmark"
    faults: ClassVar[Faults] = {
        Peer.IS_BUSY: saying(503, {"ErrorCode": 100, "Message": "Maintenance"}),
        Peer.NAMES_A_TIME_TO_WAIT: saying(429, {"ErrorCode": 429, "Message": "Rate limit"}, {"Retry-After": "7"}),
        Peer.KNOWS_NO_SUCH_ADDRESS: refusing("406|Found inactive addresses: person.1@example.org."),
        Peer.REFUSES_THE_SECOND: refusing("406|Found inactive addresses.", SECOND),
        Peer.REFUSES_THE_MESSAGE: refusing("300|Invalid metadata content for person.1@example.org."),
        Peer.REFUSES_THE_SENDER: refusing("401|The Sender news@example.com is not confirmed."),
    }
