"""TikTok Shop customer engagement (API versions 202412 and 202502): a task for each content, and buyers to it.

Notes with a template use TikTok's own words by the template's id; others their title and text, for which TikTok
must have given the shop the right to CUSTOM_MSG. A template's extras: `product_ids` (up to 4, with commas between)
and `coupon_id`.
"""

from __future__ import annotations

import hmac
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import httpx

from lifecycle.channels.base import Accepted, Outcome, Refused, Unknown
from lifecycle.channels.http import AnswerLost, HttpPeer, required_secret, seconds_to_wait, without_addresses
from lifecycle.channels.marketplace import Declined, MarketplaceChannel, refused_content
from lifecycle.clock import Clock, utc_now
from lifecycle.errors import ChannelDown
from lifecycle.messages.records import Note
from lifecycle.settings.channels import TikTokChannel

BUYERS_AT_ONCE = 50
LONGEST_TITLE, LONGEST_BODY, MOST_PRODUCTS = 70, 500, 4

# Common errors (partner.tiktokshop.com/docv2/page/common-errors, as several connectors cite it in 2026). What a
# single buyer is refused with is not published.
_OUR_CREDENTIALS = frozenset({101000, 105000, 105001, 105002, 106001, 106011, 106013})
_NOT_OUR_RIGHT = frozenset({105005, 36009043, 36009044})
"""The scope is not granted; shop or seller is deactivated."""
_TOO_FAST = 36009002
_INTERNAL = frozenset({36009003, 45101001})
"""TikTok's own error; what it was asked for may have happened."""
_MANY_MEANINGS = 36009004
_ABOUT_US = re.compile(r"token|sign|timestamp|app.?key", re.IGNORECASE)
_TASK_IS_OVER = re.compile(r"\btask\b.*\b(end|ended|expired|cancell?ed)\b", re.IGNORECASE)

_TASK_DAYS = 2
"""A task begins and ends at midnight UTC, so that every process asks for the same one."""


@dataclass(frozen=True)
class _Content:
    """What all notes of a task have in common."""

    what: str
    shop: str
    template: str
    title: str
    text: str
    product_ids: tuple[str, ...]
    coupon_ids: tuple[str, ...]


class TikTokEngagement(MarketplaceChannel):
    """`at_once` buyers in one request. A note's `to` is the anonymised e-mail address of the order. TikTok does
    not tell to whom a task was sent, so there is nothing to look up."""

    at_once = BUYERS_AT_ONCE

    def __init__(self, settings: TikTokChannel, env: Mapping[str, str], clock: Clock = utc_now) -> None:
        """Raises ConfigError where a secret is missing."""
        super().__init__(HttpPeer("TikTok Shop", settings.url, timeout_seconds=settings.timeout_seconds))
        self._app_key = required_secret(settings, "app_key_env", env)
        self._app_secret = required_secret(settings, "app_secret_env", env)
        self._token = required_secret(settings, "token_env", env)
        self._shop_cipher = settings.shop_cipher
        self._clock = clock
        self._tasks: dict[tuple[_Content, date], str] = {}

    def requests(self, notes: Sequence[Note]) -> Iterable[Sequence[Note]]:
        """By content, and no buyer twice in a request: answers name buyers by their address."""
        groups: dict[tuple[_Content, int], list[Note]] = defaultdict(list)
        times: dict[tuple[_Content, str], int] = defaultdict(int)
        for note in notes:
            content = _content(note)
            times[content, note.to.lower()] += 1
            groups[content, times[content, note.to.lower()]].append(note)
        for group in groups.values():
            for start in range(0, len(group), BUYERS_AT_ONCE):
                yield group[start : start + BUYERS_AT_ONCE]

    def deliver(self, notes: Sequence[Note], begin: Callable[[], None]) -> Sequence[Outcome]:
        content, day = _content(notes[0]), self._clock().astimezone(UTC).date()
        task_id = self._task(content, day)
        begin()
        body = {"task_id": task_id, "buyer_emails": [note.to for note in notes]}
        try:
            data = self._call("/customer_engagement/202412/messages", body)
        except Declined as declined:
            if not _TASK_IS_OVER.search(declined.refused.text):
                raise
            self._tasks.pop((content, day), None)
            raise Declined(Refused(declined.refused.code, declined.refused.text, permanent=False)) from None
        return _outcomes(notes, task_id, data.get("errors") or [])

    def _task(self, content: _Content, day: date) -> str:
        """The task of a content and day; TikTok gives the same one again for the same idempotency key."""
        if (content, day) not in self._tasks:
            path, body = _task_wanted(content, day)
            data = self._call(path, body, idempotency_key=_idempotency_key(content, day))
            if not data.get("task_id"):
                raise AnswerLost("TikTok Shop answered without the id of the task")
            self._tasks[content, day] = str(data["task_id"])
        return self._tasks[content, day]

    def _call(self, path: str, body: Mapping[str, Any], **query: str) -> Mapping[str, Any]:
        """Raises Declined, AnswerLost and ChannelDown."""
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        query |= {
            "app_key": self._app_key,
            "shop_cipher": self._shop_cipher,
            "timestamp": str(int(self._clock().timestamp())),
        }
        query["sign"] = signature(self._app_secret, path, query, content)
        headers = {"x-tts-access-token": self._token, "content-type": "application/json"}
        return self._data(self._peer.exchange("POST", path, params=query, content=content, headers=headers))

    def _data(self, answer: httpx.Response) -> Mapping[str, Any]:
        if answer.status_code == 429:
            raise ChannelDown(
                "TikTok Shop takes nothing for the moment (429)", seconds_to_wait(answer), taken_none=True
            )
        said = self._peer.json(answer)
        if not isinstance(said, Mapping) or not isinstance(said.get("code"), int):
            raise AnswerLost(f"TikTok Shop answered {answer.status_code} without a code")
        if said["code"] != 0:
            raise _judged(answer, said["code"], without_addresses(said.get("message") or "") or "no reason given")
        if not answer.is_success:
            raise AnswerLost(f"TikTok Shop answered {answer.status_code}")
        data = said.get("data")
        return data if isinstance(data, Mapping) else {}


def signature(secret: str, path: str, query: Mapping[str, str], body: bytes = b"") -> str:
    """HMAC-SHA256 over path, sorted query and body, with the secret around them; lower-case hexadecimal."""
    sorted_query = "".join(f"{name}{value}" for name, value in sorted(query.items()))
    text = b"".join((secret.encode(), path.encode(), sorted_query.encode(), body, secret.encode()))
    return hmac.digest(secret.encode(), text, "sha256").hex()


def _content(note: Note) -> _Content:
    products = tuple(part.strip() for part in note.extras.get("product_ids", "").split(",") if part.strip())
    coupons = tuple(part for part in (note.extras.get("coupon_id", "").strip(),) if part)
    words = ("", "") if note.template else (note.title, note.text)
    return _Content(note.what, note.shop, note.template, *words, products, coupons)


def _task_wanted(content: _Content, day: date) -> tuple[str, Mapping[str, Any]]:
    """Path and body. Raises Declined for what TikTok would not take."""
    _check(content)
    body: dict[str, Any] = {
        "task_name": f"{content.what} {day.isoformat()}"[:100],
        "end_time": int(_end_of_task(day).timestamp()),
        "channel": "TIKTOK_IM",
    }
    if content.product_ids:
        body["product_ids"] = list(content.product_ids)
    if content.coupon_ids:
        body["coupon_ids"] = list(content.coupon_ids)
    if content.template:
        return "/customer_engagement/202412/engagement_tasks", body | {"template_id": content.template}
    message = {"title": content.title, "body": content.text}
    return "/customer_engagement/202502/engagement_tasks/custom", body | {"custom_message": message}


def _check(content: _Content) -> None:
    """Raises Declined for what TikTok would not take."""
    if len(content.product_ids) > MOST_PRODUCTS:
        raise refused_content(
            f"there are {len(content.product_ids)} products; TikTok takes at most {MOST_PRODUCTS}"
        )
    if content.template:
        return
    for name, value, longest in (("title", content.title, LONGEST_TITLE), ("text", content.text, LONGEST_BODY)):
        if not 1 <= len(value) <= longest:
            raise refused_content(f"the {name} has {len(value)} characters; TikTok takes 1 to {longest}")


def _end_of_task(day: date) -> datetime:
    return datetime.combine(day + timedelta(days=_TASK_DAYS), time(), UTC)


def _idempotency_key(content: _Content, day: date) -> str:
    return str(uuid5(NAMESPACE_URL, repr((content, day))))


def _outcomes(notes: Sequence[Note], task_id: str, errors: Sequence[Any]) -> Sequence[Outcome]:
    """Whom no error names was reached; where an error names nobody of ours, no one can say who was."""
    refused: dict[str, Refused] = {}
    nameless = False
    mine = {note.to.lower() for note in notes}
    for error in errors:
        try:
            buyer, code = str(error["detail"]["buyer_email"]).lower(), error.get("code")
        except (KeyError, TypeError, AttributeError):
            buyer, code = "", None
        nameless |= buyer not in mine
        if buyer in mine:
            text = without_addresses(error.get("message") or "") or "no reason given"
            later = code in _INTERNAL or code == _TOO_FAST
            refused[buyer] = Refused(str(code or ""), text, permanent=not later)
    doubtful = Unknown("TikTok Shop refuses one of several buyers and does not say whom")
    return [
        refused.get(note.to.lower()) or (doubtful if nameless else Accepted(f"{task_id}:{note.send_id}"))
        for note in notes
    ]


def _judged(answer: httpx.Response, code: int, text: str) -> Exception:
    """What an error of the whole request means."""
    if code == _TOO_FAST:
        return ChannelDown(
            f"TikTok Shop takes nothing for the moment ({code})", seconds_to_wait(answer), taken_none=True
        )
    if code in _NOT_OUR_RIGHT:
        return Declined(Refused(str(code), text, permanent=True, scope="lane", kind="policy"))
    about_us = code == _MANY_MEANINGS and _ABOUT_US.search(text)
    if code in _OUR_CREDENTIALS or about_us or answer.status_code == 401:
        return ChannelDown(f"TikTok Shop does not accept the login: {code} {text}", taken_none=True, login=True)
    if code in _INTERNAL or answer.status_code >= 500:
        return AnswerLost(f"TikTok Shop answered {code} {text}")
    return Declined(Refused(str(code), text, permanent=True))
