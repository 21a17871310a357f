"""Mailgun, API v3: one form for up to 1,000 people in a request.

Source: https://documentation.mailgun.com, "Batch sending", "Messages" and "Events", read 2026-11-22. A 200 takes
the whole request and a 400 nothing of it, without saying who is in the way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from lifecycle.channels.base import Accepted, Outcome, Refused
from lifecycle.channels.http import AnswerLost
from lifecycle.channels.services import (
    Request,
    Result,
    ServiceChannel,
    as_json,
    by_status,
    mailbox,
    marks,
    of_all,
    parts_of,
    send_key,
    words_of,
)
from lifecycle.errors import ChannelDown
from lifecycle.messages.factoring import factored
from lifecycle.messages.records import Letter, Sent
from lifecycle.settings.channels import EmailService

_INTERPRETED = re.compile(r"%(?:recipient|unsubscribe|tag_unsubscribe|mailing_list)[^%\s]*%")
_ABOUT_RECIPIENTS = re.compile(r"'to' parameter|recipient", re.IGNORECASE)
_VALUES_BYTES = 100_000
_CLOCKS_DIFFER = timedelta(minutes=5)
_EVENTS = 300
_TOOK_IT = frozenset({"accepted", "delivered", "failed", "opened", "clicked", "complained", "unsubscribed"})


class MailgunChannel(ServiceChannel):
    name = "Mailgun"
    at_once = 1_000
    largest = 25_000_000

    def __init__(self, settings: EmailService, key: str) -> None:
        super().__init__(settings, "https://api.mailgun.net", key=key, headers={})
        self._login = "api", key
        self._domain = quote(settings.domain, safe="")

    def _requests(self, letters: Sequence[Letter]) -> Iterable[Request]:
        shared = factored(letters, placeholder=_place, interpreted=_INTERPRETED)
        return parts_of(shared, most=self.at_once, values_bytes=_VALUES_BYTES, weight=self.largest // 2)

    def _ask(self, request: Request) -> Result:
        answer = self._peer.ask("POST", f"/v3/{self._domain}/messages", files=_fields(request), auth=self._login)
        if answer.status_code == 200:
            return Result(list(self._accepted(request, self._peer.json(answer))))
        words = words_of(answer, "message")
        if answer.status_code == 400:
            if words.startswith("'from' parameter"):
                return of_all(request.letters, Refused("400", words, True, "lane", "policy"))
            if _ABOUT_RECIPIENTS.search(words):
                return _halved(request, words)
        return of_all(request.letters, by_status(self.name, answer, words))

    def _accepted(self, request: Request, said: Any) -> Iterable[tuple[Letter, Outcome]]:
        """One number for all of a request. A wrong address is answered with 200 and other words."""
        if not isinstance(said, dict) or not said.get("id"):
            raise AnswerLost("Mailgun answered 200 without saying that it took anything")
        for letter in request.letters:
            yield letter, Accepted(str(said["id"]) + (f"/{letter.send_id}" if len(request.letters) > 1 else ""))

    def look_up(self, sent: Sequence[Sent]) -> Mapping[int, Outcome]:
        """By Mailgun's events about the address. One that is not found may only not be written down yet.

        As `Channel.look_up`.
        """
        found: dict[int, Outcome] = {}
        for each in sent:
            if each.to is None:
                continue
            for event in self._events(each):
                if _is_about(event, each):
                    found[each.send_id] = Accepted(str(event["message"]["headers"]["message-id"]))
        return found

    def _events(self, sent: Sent) -> list[Mapping[str, Any]]:
        since = int((sent.sent_at - _CLOCKS_DIFFER).timestamp())
        query = {"recipient": str(sent.to), "begin": str(since), "ascending": "yes", "limit": str(_EVENTS)}
        try:
            answer = self._peer.ask("GET", f"/v3/{self._domain}/events", params=query, auth=self._login)
            said = self._peer.json(answer) if answer.status_code == 200 else {}
        except AnswerLost as lost:
            raise ChannelDown(str(lost)) from None
        if answer.status_code != 200:
            raise ChannelDown(f"Mailgun does not say what it knows: {words_of(answer, 'message')}")
        items = said.get("items") if isinstance(said, dict) else None
        return [event for event in items or () if isinstance(event, dict)]


def _is_about(event: Mapping[str, Any], sent: Sent) -> bool:
    variables, message = event.get("user-variables"), event.get("message")
    if event.get("event") not in _TOOK_IT or not isinstance(variables, dict) or not isinstance(message, dict):
        return False
    ours = str(sent.send_id), send_key(sent.key)
    named = (message.get("headers") or {}).get("message-id")
    return bool(named) and ours == (str(variables.get("send_id")), str(variables.get("send_key")))


def _halved(request: Request, words: str) -> Result:
    """Nothing was taken: each half is asked by itself, until the one in the way is alone."""
    if len(request.letters) == 1:
        if words.startswith("'to' parameter is not a valid address"):
            return of_all(request.letters, Refused("400", words, True, "address", "hard"))
        return of_all(request.letters, Refused("400", words, True))
    middle = len(request.letters) // 2
    return Result(again=[request.of(request.letters[:middle]), request.of(request.letters[middle:])])


def _place(name: str) -> str:
    return f"%recipient.{name}%"


def _fields(request: Request) -> list[tuple[str, tuple[None, str | bytes]]]:
    """Fields of a form. Mailgun writes the Message-ID of a batch itself."""
    sender, form, many = request.letters[0], request.form, request.shared is not None
    own = {name: _place(name) for name in marks(sender)} if many else marks(sender)
    fields: list[tuple[str, str | bytes]] = [
        ("from", mailbox(sender)),
        *(("to", letter.to) for letter in request.letters),
        ("subject", form.subject),
        *((kind, words) for kind, words in (("text", form.text), ("html", form.html)) if words),
        *((("h:Reply-To", sender.reply_to),) if sender.reply_to else ()),
        *((f"h:{name}", value) for name, value in form.headers),
        *((f"v:{name}", value) for name, value in own.items()),
        ("o:tracking", "no"),
        ("o:tracking-clicks", "no"),
        ("o:tracking-opens", "no"),
    ]
    if many:
        variables = {letter.to: {**request.values(letter), **marks(letter)} for letter in request.letters}
        fields.append(("recipient-variables", as_json(variables)))
    else:
        fields.append(("h:Message-Id", sender.key))
    return [(name, (None, value)) for name, value in fields]
