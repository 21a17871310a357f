"""What WhatsApp and Messenger share: Meta's Graph API, its errors, and many requests on their way at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import httpx

from lifecycle.channels.base import BounceClass, Outcome, Refused, Scope, Unknown
from lifecycle.channels.http import PATIENCE, AnswerLost, HttpChannel, HttpPeer, seconds_to_wait, without_addresses
from lifecycle.errors import ChannelDown
from lifecycle.messages.records import Note, Outgoing

AT_A_TIME = 24
"""Requests on their way: enough for the 80 messages a second that Meta takes, at 0.2 seconds for an answer."""


@dataclass(frozen=True)
class No:
    """The message was not taken."""

    scope: Scope = "message"
    permanent: bool = True
    kind: BounceClass = "unknown"
    retry_after: float | None = None


@dataclass(frozen=True)
class Closed:
    """Nothing is taken. `seconds`: to wait, where Meta names no time."""

    login: bool = False
    seconds: float | None = None


_LOGIN = Closed(login=True)
_LATER = No(permanent=False, kind="soft")
_OUR_STANDING = No("lane", kind="policy")
_TEMPLATE = No("lane", kind="content")
_TOO_LATE = No(kind="policy")
_NOT_NOW = No("buyer", kind="policy")
_NOBODY = No("address", kind="hard")

CODES: Mapping[int, No | Closed] = {
    # What the platform facts, 7, have of Meta's error codes (22 November 2026), and what providers repeat of them;
    # 131005, 131037 and 131045 are unverified.
    **dict.fromkeys((0, 3, 10, 190, *range(200, 300), 131005), _LOGIN),
    **dict.fromkeys((4, 80007, 613), Closed(seconds=60)),
    **dict.fromkeys((130429, 131057), Closed(seconds=10)),  # throughput; the number moves to a higher one
    # One message in 6 seconds to one person; who was ahead with a burst of 45 has minutes to wait.
    131056: No(permanent=False, kind="policy", retry_after=60),
    131048: _OUR_STANDING,  # too many have blocked us or called it spam
    131031: _OUR_STANDING,  # the account is locked
    368: _OUR_STANDING,  # blocked for a violation of a policy
    131042: _OUR_STANDING,  # the account cannot pay
    131037: _OUR_STANDING,  # the name that is shown is not approved
    131045: _OUR_STANDING,  # the number is not registered rightly
    133010: _OUR_STANDING,  # the number is not registered
    33: _OUR_STANDING,  # the number does not exist any more
    131049: _NOT_NOW,  # Meta's own cap of marketing for one person, and marketing to the United States
    131050: No("address", kind="policy"),  # they have told WhatsApp to stop our marketing; other messages arrive
    130472: No(kind="policy"),  # part of an experiment of Meta's: no marketing
    130497: No(kind="policy"),  # we may not write to that country
    131026: _NOBODY,  # not on WhatsApp, or cannot get it
    131047: _TOO_LATE,  # the last message of theirs is older than a day: only a template
    132000: _TEMPLATE,  # number of parameters
    132001: _TEMPLATE,  # does not exist in this language
    132007: _TEMPLATE,  # breaks a policy
    132015: _TEMPLATE,  # paused
    132016: _TEMPLATE,  # disabled
    **dict.fromkeys((2, 131000, 131016), _LATER),  # says that it failed for now
    1200: _LATER,  # Messenger: for now
    551: _NOT_NOW,  # Messenger: they do not receive messages from us now
}

SUBCODES: Mapping[tuple[int, int], No | Closed] = {
    # Messenger's (its "Common error codes", as others repeat them), and where a code of the table means something
    # else with it. (10, 2018065) is unverified.
    (10, 2018065): _TOO_LATE,
    (10, 2018278): _TOO_LATE,
    (10, 2534022): _TOO_LATE,
    (100, 33): _OUR_STANDING,  # the number or page in our settings does not exist
    (100, 2018001): _NOBODY,
    (200, 1545041): _NOT_NOW,
    (200, 2018108): _NOT_NOW,
    (4, 2018354): _NOT_NOW,  # too soon after the last marketing message to them
    (9, 2018352): _NOT_NOW,
}

_TAKEN_ALL_THE_SAME = (1, 1357046)
"""Messenger: "Received invalid JSON reply", which it is known to answer to messages that did leave."""


class MetaChannel(HttpChannel):
    """One message in a request, several requests at a time. Subclasses write the request and read the answer.

    Nothing can be looked up: Meta tells by its webhook, and only then."""

    at_once = 100

    def __init__(self, name: str, url: str, token: str, timeout_seconds: float) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        super().__init__(HttpPeer(name, url, timeout_seconds=timeout_seconds, headers=headers))

    def request(self, note: Note) -> tuple[str, Mapping[str, Any]] | Refused:
        """Path and body; or why there can be no such message."""
        raise NotImplementedError

    def taken(self, note: Note, said: Mapping[str, Any]) -> Outcome:
        """What an answer without an error means. Raises AnswerLost where it is none."""
        raise NotImplementedError

    def send(
        self, messages: Sequence[Note], begin: Callable[[Outgoing], None]
    ) -> Iterator[tuple[Outgoing, Outcome]]:
        """As `Channel.send`. After three lost answers in a row the channel is down for the others."""
        waiting, on_way = iter(messages), dict[Future[Outcome], Note]()
        down: ChannelDown | None = None
        lost = 0
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            while True:
                while len(on_way) < AT_A_TIME and (note := next(waiting, None)) is not None:
                    request = self.request(note)
                    if isinstance(request, Refused):
                        yield note, request
                    else:
                        begin(note)
                        on_way[threads.submit(self._deliver, note, *request)] = note
                if not on_way:
                    break
                for answer in wait(on_way, return_when=FIRST_COMPLETED).done:
                    answered = on_way.pop(answer)
                    try:
                        outcome = answer.result()
                    except ChannelDown as error:
                        down = down or error
                    else:
                        yield answered, outcome
                        lost = lost + 1 if isinstance(outcome, Unknown) else 0
                        if lost >= PATIENCE:
                            down = down or ChannelDown(f"{self._peer.name} does not answer", taken_none=True)
                if down is not None:
                    waiting = iter(())
        if down is not None:
            raise down

    def _deliver(self, note: Note, path: str, body: Mapping[str, Any]) -> Outcome:
        """Raises ChannelDown, where it is certain that the message was not taken."""
        try:
            answer = self._peer.exchange("POST", path, json=body)
            said = self._said(answer)
            error = said.get("error")
            if isinstance(error, Mapping):
                return judge(self._peer.name, answer, error)
            return self.taken(note, said)
        except AnswerLost as lost:
            return Unknown(str(lost))

    def _said(self, answer: httpx.Response) -> Mapping[str, Any]:
        try:
            said = json.loads(answer.content)
        except ValueError:
            said = None
        if isinstance(said, Mapping) and (answer.is_success or isinstance(said.get("error"), Mapping)):
            return said
        if 300 <= answer.status_code < 500:
            raise ChannelDown(
                f"{self._peer.name} answers {answer.status_code} and not as Meta does; is the url right?",
                taken_none=True,
            )
        raise AnswerLost(f"{self._peer.name} answered {answer.status_code} with something that is no answer")


def judge(name: str, answer: httpx.Response, error: Mapping[str, Any]) -> Outcome:
    """What an error means. The code decides, as Meta advises; of one that is not in the table, the HTTP status.

    Raises ChannelDown where nothing is taken from us, and certainly this message was not.
    """
    code, subcode = _number(error.get("code")), _number(error.get("error_subcode"))
    text = _text(error)
    meaning = SUBCODES.get((code, subcode)) or CODES.get(code)
    if (code, subcode) == _TAKEN_ALL_THE_SAME:
        return Unknown(f"{code}/{subcode} {text}")
    if meaning is None:
        if not 400 <= answer.status_code < 500:
            return Unknown(f"{code} {text}")
        meaning = {401: _LOGIN, 429: Closed(seconds=60)}.get(answer.status_code) or (_LATER if code == 1 else No())
    named = _seconds_named(answer)
    if isinstance(meaning, Closed):
        why = "does not accept who we are" if meaning.login else "takes nothing for the moment"
        seconds = None if meaning.login else named or meaning.seconds
        raise ChannelDown(f"{name} {why}: {code} {text}", seconds, taken_none=True, login=meaning.login)
    seconds = None if meaning.permanent else max(filter(None, (named, meaning.retry_after)), default=None)
    return Refused(str(code), text, meaning.permanent, meaning.scope, meaning.kind, seconds)


def _text(error: Mapping[str, Any]) -> str:
    """Message and details, without the code that Meta repeats in front."""
    data = error.get("error_data")
    details = data.get("details") if isinstance(data, Mapping) else None
    message = str(error.get("message") or "").removeprefix(f"(#{error.get('code')})").strip()
    return without_addresses(": ".join(str(part) for part in (message, details) if part)) or "no reason given"


def _number(value: object) -> int:
    """-1 for what is none: 0 is a code."""
    return int(value) if isinstance(value, int | str) and str(value).isdecimal() else -1


def _seconds_named(answer: httpx.Response) -> float | None:
    """From Retry-After, or the minutes in X-Business-Use-Case-Usage (Graph API "Rate limits")."""
    if (seconds := seconds_to_wait(answer)) is not None:
        return seconds
    try:
        usage = json.loads(answer.headers.get("x-business-use-case-usage", "{}"))
        minutes = [entry["estimated_time_to_regain_access"] for entries in usage.values() for entry in entries]
        return min(max(map(float, minutes), default=0) * 60, 86_400) or None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
