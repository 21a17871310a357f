"""Amazon's Selling Partner API: review requests (Solicitations v1) and messages about an order (Messaging v1).

Both ask Amazon first what it allows for an order, and send nothing else. A template's extras for messages:
`message_type`, one of `TEXT_LIMITS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, timedelta
from typing import Any, Literal
from urllib.parse import quote

import httpx

from lifecycle.channels.access_token import AccessToken
from lifecycle.channels.base import Accepted, Outcome, Refused
from lifecycle.channels.http import AnswerLost, HttpPeer, first_error, required_secret, without_addresses
from lifecycle.channels.marketplace import Declined, MarketplaceChannel, refused_content
from lifecycle.clock import Clock, utc_now
from lifecycle.errors import ChannelDown
from lifecycle.messages.records import Note, Sent
from lifecycle.settings.channels import AmazonMessagingChannel, AmazonSolicitationsChannel

REVIEW_REQUEST = "productReviewAndSellerFeedback"

TEXT_LIMITS: Mapping[str, int] = {
    # Characters; Messaging API v1, definitions Create…Request (model of 2026-08-05).
    "confirmCustomizationDetails": 800,
    "confirmDeliveryDetails": 2000,
    "confirmOrderDetails": 2000,
    "confirmServiceDetails": 2000,
    "digitalAccessKey": 400,
    "unexpectedProblem": 2000,
}
_WITH_FILES = ("invoice", "legalDisclosure", "warranty")
"""Messages without a text of ours, whose files would have to be uploaded first."""

_WAIT_SECONDS = 2.0
"""After a 429: the model says that the rate is no longer told with it, and one request a second is the default."""

_SETTLED_AFTER = timedelta(minutes=10)
"""A request that was on its way may still arrive; what Amazon says sooner is not final."""

_Api = Literal["solicitations", "messaging"]


class AmazonSolicitations(MarketplaceChannel):
    """Amazon's own words, so a note's text is not sent."""

    def __init__(
        self, settings: AmazonSolicitationsChannel, env: Mapping[str, str], clock: Clock = utc_now
    ) -> None:
        """Raises ConfigError where a secret is missing."""
        self._partner = _SellingPartner(settings, env, clock)
        self._clock = clock
        super().__init__(self._partner.peer)

    def deliver(self, notes: Sequence[Note], begin: Callable[[], None]) -> Sequence[Outcome]:
        (note,) = notes
        order_id = _order_of(note)
        if REVIEW_REQUEST not in self._partner.actions("solicitations", order_id):
            raise Declined(
                _not_allowed("a review request", "was asked for already, or it is too early or too late")
            )
        begin()
        return [self._partner.post("solicitations", order_id, REVIEW_REQUEST, {})]

    def look_up(self, sent: Sequence[Sent]) -> Mapping[int, Outcome]:
        """Not taken, where Amazon still offers the action ten minutes later: it sends one request per order, so it
        would also refuse a second one that we send by mistake.

        An action that is gone proves nothing: its time may have run out meanwhile, and Amazon is known to leave
        the list empty at times (selling-partner-api-models, issue 187). As `Channel.look_up`.
        """
        found: dict[int, Outcome] = {}
        for each in sent:
            if each.order_id is None or self._clock() - each.sent_at < _SETTLED_AFTER:
                continue
            try:
                offered = REVIEW_REQUEST in self._partner.actions("solicitations", each.order_id)
            except Declined:
                continue
            except AnswerLost as lost:
                raise ChannelDown(str(lost)) from None
            if offered:
                found[each.send_id] = Refused("", "Amazon still offers to ask for a review", permanent=False)
        return found


class AmazonMessaging(MarketplaceChannel):
    """The text must be in the buyer's language and without HTML and e-mail addresses, says Amazon; only links
    that the order needs are allowed. Amazon does not tell afterwards what it took."""

    def __init__(self, settings: AmazonMessagingChannel, env: Mapping[str, str], clock: Clock = utc_now) -> None:
        """Raises ConfigError where a secret is missing."""
        self._partner = _SellingPartner(settings, env, clock)
        super().__init__(self._partner.peer)

    def deliver(self, notes: Sequence[Note], begin: Callable[[], None]) -> Sequence[Outcome]:
        (note,) = notes
        kind, order_id = _message_type(note), _order_of(note)
        if kind not in self._partner.actions("messaging", order_id):
            raise Declined(_not_allowed(f"a message of the type {kind}", "does not fit the order now"))
        begin()
        return [self._partner.post("messaging", order_id, kind, {"text": note.text})]


class _SellingPartner:
    """One seller account at the Selling Partner API, logged in with Login with Amazon."""

    def __init__(
        self,
        settings: AmazonSolicitationsChannel | AmazonMessagingChannel,
        env: Mapping[str, str],
        clock: Clock,
    ) -> None:
        self.peer = HttpPeer("Amazon", settings.url, timeout_seconds=settings.timeout_seconds)
        self._marketplace_id = settings.marketplace_id
        self._clock = clock
        names = ("client_id", "client_secret", "refresh_token")
        form = {name: required_secret(settings, f"{name}_env", env) for name in names}
        self._token = AccessToken(self.peer, settings.login_url, form, clock)

    def actions(self, api: _Api, order_id: str) -> frozenset[str]:
        """What may be sent about an order now. Raises Declined, AnswerLost and ChannelDown."""
        answer = self._ask("GET", _path(api, order_id))
        if answer.status_code == 403:
            raise Declined(_refusal(answer, permanent=True, lane=True))
        if answer.status_code >= 500:
            raise Declined(_refusal(answer, permanent=False))
        if answer.status_code != 200:
            raise Declined(_refusal(answer, permanent=True))
        said = self.peer.json(answer)
        try:
            return frozenset(str(action["name"]) for action in said["_links"]["actions"])
        except (KeyError, TypeError):
            raise AnswerLost("Amazon answered without the actions of the order") from None

    def post(self, api: _Api, order_id: str, action: str, body: Mapping[str, Any]) -> Outcome:
        """Raises AnswerLost and ChannelDown.

        403 is about the order here, not about us: the action was offered a moment ago, and a second request for an
        order is answered so (selling-partner-api-models, issue 19).
        """
        what = {"json": body} if body else {}
        kind = "solicitations" if api == "solicitations" else "messages"
        answer = self._ask("POST", f"{_path(api, order_id)}/{kind}/{action}", **what)
        if answer.status_code == 201:
            self.peer.json(answer)
            return Accepted(answer.headers.get("x-amzn-requestid") or order_id)
        if answer.status_code == 503:
            return _refusal(answer, permanent=False)
        if 400 <= answer.status_code < 500:
            return _refusal(answer, permanent=True)
        raise AnswerLost(f"Amazon answered {answer.status_code}")

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self._token.used(lambda token: self._ask_with(token, method, path, **request))

    def _ask_with(self, token: str, method: str, path: str, **request: Any) -> httpx.Response:
        headers = {
            "x-amz-access-token": token,
            "x-amz-date": self._clock().astimezone(UTC).strftime("%Y%m%dT%H%M%SZ"),
            "user-agent": "Tern (Language=Python)",
        }
        answer = self.peer.exchange(
            method, path, params={"marketplaceIds": self._marketplace_id}, headers=headers, **request
        )
        if answer.status_code == 401 or (answer.status_code == 403 and "token" in _words(answer).lower()):
            raise ChannelDown("Amazon does not accept the access token", taken_none=True, login=True)
        if answer.status_code == 429:
            raise ChannelDown(
                "Amazon takes nothing for the moment (429)", _seconds_for_one(answer), taken_none=True
            )
        return answer


def _order_of(note: Note) -> str:
    if not note.order_id:
        raise Declined(Refused("", "Amazon writes only about an order, and none is known", permanent=True))
    return note.order_id


def _message_type(note: Note) -> str:
    """Raises Declined for a message that Amazon would not take as it is."""
    kind = note.extras.get("message_type", "")
    if kind in _WITH_FILES:
        raise refused_content(f"a message of the type {kind} needs files, which are not sent from here")
    if kind not in TEXT_LIMITS:
        raise refused_content(f'message_type is "{kind}"; known: {", ".join(TEXT_LIMITS)}')
    if not note.text:
        raise refused_content("the message is empty")
    if len(note.text) > TEXT_LIMITS[kind]:
        raise refused_content(
            f"the text has {len(note.text):,} characters; {kind} takes at most {TEXT_LIMITS[kind]:,}"
        )
    return kind


def _not_allowed(what: str, why: str) -> Refused:
    return Refused("", f"Amazon does not allow {what} for this order: it {why}", permanent=True, kind="policy")


def _path(api: _Api, order_id: str) -> str:
    return f"/{api}/v1/orders/{quote(order_id, safe='')}"


def _refusal(answer: httpx.Response, *, permanent: bool, lane: bool = False) -> Refused:
    text = without_addresses(_words(answer)) or "no reason given"
    code = f"{answer.status_code} {first_error(answer).get('code') or ''}".strip()
    return Refused(code[:80], text, permanent, "lane" if lane else "message", "policy" if lane else "unknown")


def _words(answer: httpx.Response) -> str:
    error = first_error(answer)
    return " ".join(str(error[name]) for name in ("message", "details") if error.get(name))


def _seconds_for_one(answer: httpx.Response) -> float:
    """From x-amzn-RateLimit-Limit, requests a second, where it comes."""
    try:
        return min(1 / float(answer.headers.get("x-amzn-ratelimit-limit", "")), 3600.0)
    except (ValueError, ZeroDivisionError):
        return _WAIT_SECONDS
