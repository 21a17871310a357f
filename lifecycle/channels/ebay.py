"""eBay member messages, by the Commerce Message API v1 (send_message). A template's extras: `item_id`, the listing
that the message is about."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from lifecycle.channels.access_token import AccessToken
from lifecycle.channels.base import Accepted, BounceClass, Outcome, Refused, Scope
from lifecycle.channels.http import AnswerLost, HttpPeer, first_error, required_secret, without_addresses
from lifecycle.channels.marketplace import Declined, MarketplaceChannel, refused_content
from lifecycle.clock import Clock, utc_now
from lifecycle.messages.records import Note
from lifecycle.settings.channels import EbayChannel

LONGEST_TEXT = 2000

_SCOPE = "https://api.ebay.com/oauth/api_scope/commerce.message"

_LINK_OR_ADDRESS = re.compile(r"https?://|\bwww\.|[\w.+-]+@[\w-]+(\.[\w-]+)+", re.IGNORECASE)
"""Banned in messages between members (eBay's spam policy)."""

_NO_SUCH_USER = 355006
_CAP_REACHED = 20957
_CAP_SECONDS = 3600.0
""""Service is not available": too many messages, of us or about one item; gone after an hour to a day
(developer.ebay.com, knowledge base 666, about the Trading API; that this API says the same is not verified)."""


class EbayMessages(MarketplaceChannel):
    """Does not look up: a message that is found in a conversation may be another with the same words, and that
    eBay shows every message at once is nowhere promised."""

    def __init__(self, settings: EbayChannel, env: Mapping[str, str], clock: Clock = utc_now) -> None:
        """Raises ConfigError where a secret is missing."""
        peer = HttpPeer("eBay", settings.url, timeout_seconds=settings.timeout_seconds)
        super().__init__(peer)
        client = (
            required_secret(settings, "client_id_env", env),
            required_secret(settings, "client_secret_env", env),
        )
        form = {"refresh_token": required_secret(settings, "refresh_token_env", env), "scope": _SCOPE}
        self._token = AccessToken(peer, "/identity/v1/oauth2/token", form, clock, auth=client)

    def deliver(self, notes: Sequence[Note], begin: Callable[[], None]) -> Sequence[Outcome]:
        (note,) = notes
        body = _body(note)
        begin()
        answer = self._token.used(
            lambda token: self._peer.ask(
                "POST",
                "/commerce/message/v1/send_message",
                json=body,
                headers={"Authorization": f"Bearer {token}"},
            )
        )
        return [self._outcome(answer, note)]

    def _outcome(self, answer: httpx.Response, note: Note) -> Outcome:
        if answer.is_success:
            said = self._peer.json(answer)
            return Accepted(str((said.get("messageId") if isinstance(said, Mapping) else None) or note.key))
        error = first_error(answer)
        code = error.get("errorId")
        if answer.status_code == 503:
            return _refused(answer, permanent=False)
        if code == _CAP_REACHED:
            return _refused(answer, permanent=False, scope="buyer", kind="policy", retry_after=_CAP_SECONDS)
        if code == _NO_SUCH_USER:
            return _refused(answer, scope="address", kind="hard")
        if answer.status_code == 403:
            return _refused(answer, scope="lane", kind="policy")
        if 400 <= answer.status_code < 500:
            return _refused(answer)
        raise AnswerLost(f"eBay answered {answer.status_code}")


def _body(note: Note) -> Mapping[str, Any]:
    """Raises Declined for a message that eBay would not take, or forbids."""
    if not note.text:
        raise refused_content("the message is empty")
    if len(note.text) > LONGEST_TEXT:
        raise refused_content(f"the text has {len(note.text):,} characters; eBay takes at most {LONGEST_TEXT:,}")
    if _LINK_OR_ADDRESS.search(note.text):
        said = "the text has a link or an e-mail address, which eBay forbids in messages between members"
        raise Declined(Refused("", said, permanent=True, kind="policy"))
    body: dict[str, Any] = {"otherPartyUsername": note.to, "messageText": note.text}
    if item_id := note.extras.get("item_id"):
        body["reference"] = {"referenceId": item_id, "referenceType": "LISTING"}
    return body


def _refused(
    answer: httpx.Response,
    *,
    permanent: bool = True,
    scope: Scope = "message",
    kind: BounceClass = "unknown",
    retry_after: float | None = None,
) -> Refused:
    error = first_error(answer)
    text = without_addresses(error.get("longMessage") or error.get("message") or "") or "no reason given"
    code = str(error.get("errorId") or answer.status_code)
    return Refused(code, text, permanent, scope, kind, retry_after)
