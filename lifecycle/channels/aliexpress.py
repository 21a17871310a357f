"""AliExpress station messages, by the Open Platform (`aliexpress/message/…`).

A template's extras: `template_id` and `scene_id` as AliExpress numbers them, `item_id`, `order_id`, `promotion_id`
or `img_url` (with `width` and `height`) for a card instead of text.

Not verified, because AliExpress publishes no page about them: that these names go to `/sync`, which codes a
message is refused with once the buyer has had enough, and in which direction the history is read.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import httpx

from lifecycle.channels.base import Accepted, Outcome, Refused
from lifecycle.channels.http import AnswerLost, HttpPeer, required_secret, without_addresses
from lifecycle.channels.marketplace import Declined, MarketplaceChannel, refused_content
from lifecycle.clock import Clock, utc_now
from lifecycle.errors import ChannelDown
from lifecycle.messages.records import Note, Sent
from lifecycle.settings.channels import AliExpressChannel

TEXT, IMAGE, PRODUCT_CARD, ORDER_CARD, COUPON_CARD = 1, 3, 10006, 10007, 21004
_CARDS = {"promotion_id": COUPON_CARD, "order_id": ORDER_CARD, "item_id": PRODUCT_CARD, "img_url": IMAGE}
"""What a message is, by the first of these extras that it has."""

_SCENES = {"marketing": 5}
"""Abandoned order recovery; other purposes are basic service (1) where the template does not say more."""

_SELLER = 12
"""As an account type in the history; a buyer is 11."""

_OUR_CREDENTIALS = frozenset(
    {
        "IllegalAccessToken",
        "InvalidSession",
        "InvalidAppKey",
        "IncompleteSignature",
        "IllegalRefreshToken",
        "InvalidCode",
        "AUTH_TYPE_UNSUPPORTED",
    }
)
_NOT_OUR_RIGHT = frozenset({"InsufficientPermission"})
_TOO_FAST = frozenset({"AppApiCallLimit", "ApiCallLimit"})
_BAN = re.compile(r"ban will last (?:for )?(\d+)", re.IGNORECASE)
_BAN_SECONDS = 60.0
"""Where the ban's length is not told."""

_TEMPORARY = re.compile(r"unavailable|busy|system.?error|internal|retry", re.IGNORECASE)
_TIMED_OUT = re.compile(r"time.?out", re.IGNORECASE)
"""Somewhere behind the gateway; the message may have been taken."""
_ENOUGH = re.compile(r"limit|frequen|fatigue|exceed|too.?many", re.IGNORECASE)
"""How a refusal sounds when the buyer has had enough messages. Not verified."""

_PAGE = 20
_MOST_PAGES = 10
_SETTLED_AFTER = timedelta(minutes=10)
"""A request that was on its way may still arrive; what the history says sooner is not final."""
_CLOCKS_DIFFER = timedelta(minutes=2)


class AliExpressMessages(MarketplaceChannel):
    """One seller account. AliExpress has no idempotency key: nothing is repeated after a lost answer."""

    def __init__(self, settings: AliExpressChannel, env: Mapping[str, str], clock: Clock = utc_now) -> None:
        """Raises ConfigError where a secret is missing."""
        super().__init__(HttpPeer("AliExpress", settings.url, timeout_seconds=settings.timeout_seconds))
        self._app_key = required_secret(settings, "app_key_env", env)
        self._app_secret = required_secret(settings, "app_secret_env", env)
        self._session = required_secret(settings, "token_env", env)
        self._clock = clock
        self._open = set[int]()

    def deliver(self, notes: Sequence[Note], begin: Callable[[], None]) -> Sequence[Outcome]:
        (note,) = notes
        message = _message(note)
        self._open_session(message["buyer_id"])
        begin()
        said, request_id = self._call("aliexpress/message/send", {"im_send_message_dto": message})
        return [Accepted(_message_id(said) or request_id or note.key)]

    def look_up(self, sent: Sequence[Sent]) -> Mapping[int, Outcome]:
        """By the history of messages with the buyer, ten minutes after the sending.

        Taken: our text is in it. Not taken: nothing of ours is in it since then, and it shows something older, so
        that it surely reaches back so far. Anything else is not certain. As `Channel.look_up`.
        """
        found: dict[int, Outcome] = {}
        for each in sent:
            if each.to is None or not each.to.isdecimal() or self._clock() - each.sent_at < _SETTLED_AFTER:
                continue
            outcome = self._looked_up(each, int(each.to))
            if outcome is not None:
                found[each.send_id] = outcome
        return found

    def _looked_up(self, sent: Sent, buyer_id: int) -> Outcome | None:
        since, ours, reaches_back = _milliseconds(sent.sent_at - _CLOCKS_DIFFER), [], False
        try:
            for message in self._history(buyer_id):
                if message["send_time"] < since:
                    reaches_back = True
                    break
                if message["from_account_type"] == _SELLER:
                    ours.append(message)
        except Declined:
            return None
        except (AnswerLost, KeyError, TypeError) as error:
            raise ChannelDown(f"AliExpress does not show its history: {error}") from None
        for message in ours:
            if sent.text and sent.text in _text_of(message):
                return Accepted(str(message["message_id"]))
        if reaches_back and not ours:
            return Refused("", "the history with the buyer does not hold it", permanent=False)
        return None

    def _history(self, buyer_id: int) -> Iterator[Mapping[str, Any]]:
        """Messages with a buyer, the newest first."""
        place: dict[str, Any] = {"start_time": _milliseconds(self._clock())}
        for _ in range(_MOST_PAGES):
            query = {"buyer_id": buyer_id, "page_size": _PAGE, **place}
            result, _ = self._call("aliexpress/message/history/list", {"im_query_message_dto": query})
            data = result.get("data") or {}
            yield from sorted(data.get("message_list") or [], key=lambda message: -message["send_time"])
            if not data.get("has_more"):
                return
            place = {"start_time": data["next_start_time"], "last_message_id": data["last_message_id"]}

    def _open_session(self, buyer_id: int) -> None:
        """Once for each buyer, as AliExpress wants it before the first message."""
        if buyer_id in self._open:
            return
        said, _ = self._call("aliexpress/message/session/open", {"im_session_open_dto": {"buyer_id": buyer_id}})
        data = said.get("data")
        if isinstance(data, Mapping) and data.get("open_result") == "FAIL":
            raise Declined(Refused("FAIL", "AliExpress opens no session with this buyer now", permanent=False))
        self._open.add(buyer_id)

    def _call(self, method: str, objects: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """The result and the request's id. Raises Declined, AnswerLost and ChannelDown."""
        parameters = {
            "app_key": self._app_key,
            "format": "json",
            "method": method,
            "session": self._session,
            "sign_method": "sha256",
            "simplify": "false",
            "timestamp": str(_milliseconds(self._clock())),
            **{name: json.dumps(value, separators=(",", ":")) for name, value in objects.items()},
        }
        parameters["sign"] = signature(self._app_secret, parameters)
        return self._result(self._peer.ask("POST", "/sync", data=parameters))

    def _result(self, answer: httpx.Response) -> tuple[Mapping[str, Any], str]:
        if answer.status_code >= 500:
            raise AnswerLost(f"AliExpress answered {answer.status_code}")
        said = self._peer.json(answer)
        error = _gateway_error(said)
        if error is not None:
            raise _judged(str(error.get("type") or ""), str(error.get("code") or ""), _message_in(error))
        said = _unwrapped(said)
        result = said.get("result")
        if not answer.is_success or not isinstance(result, Mapping):
            raise AnswerLost(f"AliExpress answered {answer.status_code} without a result")
        if str(result.get("success", True)).lower() == "false":
            code, text = str(result.get("error_code") or ""), without_addresses(result.get("error_message") or "")
            raise _business(code, text or "no reason given")
        return result, str(said.get("request_id") or "")


def signature(secret: str, parameters: Mapping[str, str], path: str = "") -> str:
    """HMAC-SHA256 over names and values in ASCII order, upper-case hexadecimal. `path`: only of calls to /rest."""
    text = path + "".join(f"{name}{value}" for name, value in sorted(parameters.items()))
    return hmac.digest(secret.encode(), text.encode(), "sha256").hex().upper()


def _message(note: Note) -> dict[str, Any]:
    """Raises Declined for a note that cannot become a message."""
    if not note.to.isdecimal():
        raise Declined(Refused("", "that is no AliExpress buyer id", permanent=True, scope="address", kind="hard"))
    card = next((template for extra, template in _CARDS.items() if note.extras.get(extra)), TEXT)
    template = _number(note, "template_id", card)
    content = {name: note.extras[name] for name in _CARDS if note.extras.get(name)}
    sizes = {name: _number(note, name, 0) for name in ("width", "height") if note.extras.get(name)}
    if template == ORDER_CARD and note.order_id:
        content.setdefault("order_id", note.order_id)
    if note.text:
        content["txt"] = note.text
    if not content or (template == TEXT and not note.text):
        raise refused_content("the message is empty")
    return {
        "buyer_id": int(note.to),
        "template_id": template,
        "scene_id": _number(note, "scene_id", _SCENES.get(note.purpose, 1)),
        "only_for_target": False,  # the message stands in the seller's history too
        "message_content_dto": content | sizes,
    }


def _number(note: Note, extra: str, otherwise: int) -> int:
    value = note.extras.get(extra, str(otherwise))
    if not value.isdecimal():
        raise refused_content(f'{extra} is "{value}"; it must be a number')
    return int(value)


def _gateway_error(said: Any) -> Mapping[str, Any] | None:
    """Both shapes: {"error_response": {...}}, and flat with a code other than "0"."""
    if not isinstance(said, Mapping):
        raise AnswerLost("AliExpress answered with something that is no object")
    wrapped = said.get("error_response")
    if isinstance(wrapped, Mapping):
        return wrapped
    return said if str(said.get("code", "0")) != "0" else None


def _unwrapped(said: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = next((value for name, value in said.items() if name.endswith("_response")), said)
    return inner if isinstance(inner, Mapping) else {}


def _message_in(error: Mapping[str, Any]) -> str:
    words = (error.get("msg") or error.get("message"), error.get("sub_code"), error.get("sub_msg"))
    return without_addresses(" ".join(str(word) for word in words if word)) or "no reason given"


def _judged(kind: str, code: str, text: str) -> Exception:
    """What an error of the gateway means. `kind`: ISV (ours), ISP or SYSTEM (theirs)."""
    if code in _TOO_FAST:
        ban = _BAN.search(text)
        seconds = float(ban.group(1)) if ban else _BAN_SECONDS
        return ChannelDown(f"AliExpress takes nothing for the moment: {code}", seconds, taken_none=True)
    if code in _OUR_CREDENTIALS:
        return ChannelDown(f"AliExpress does not accept the login: {code} {text}", taken_none=True, login=True)
    if _TIMED_OUT.search(code):
        return AnswerLost(f"AliExpress answered {code} {text}")
    if code in _NOT_OUR_RIGHT:
        return Declined(Refused(code, text, permanent=True, scope="lane", kind="policy"))
    temporary = kind in ("ISP", "SYSTEM") or code == "ServiceUnavailable"
    return Declined(Refused(code, text, permanent=not temporary))


def _business(code: str, text: str) -> Exception:
    """What a refusal of the message itself means; its codes are not published."""
    said = f"{code} {text}"
    if _TIMED_OUT.search(said):
        return AnswerLost(f"AliExpress answered {said}")
    if _ENOUGH.search(said):
        return Declined(Refused(code, text, permanent=True, scope="buyer", kind="policy"))
    return Declined(Refused(code, text, permanent=not _TEMPORARY.search(code)))


def _message_id(result: Mapping[str, Any]) -> str:
    data = result.get("data")
    found = data.get("message_id") if isinstance(data, Mapping) else None
    return str(found or result.get("message_id") or "")


def _text_of(message: Mapping[str, Any]) -> str:
    """A message's content is its text, or JSON that holds it."""
    content = str(message.get("content") or "")
    try:
        inner = json.loads(content)
    except ValueError:
        return content
    return "\n".join(str(value) for value in inner.values()) if isinstance(inner, Mapping) else content


def _milliseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)
