"""Which message of ours a report is about: only by what we have signed, because anybody can send a report."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping

from lifecycle import tokens
from lifecycle.addresses import address_hash, email_key
from lifecycle.messages.keys import mark
from lifecycle.tokens import Purpose, Token

_PURPOSES = {"b": Purpose.BOUNCE, "u": Purpose.UNSUBSCRIBE}
_KEY = re.compile(r"<?([1-9]\d{0,18})\.([0-9a-f]{16})(?:@[^\s>]*)?>?", re.ASCII)
_TAGGED = re.compile(r"\b([bu])\+([A-Za-z0-9_-]{30})@")
_LINK = re.compile(r"/u/([A-Za-z0-9_-]{30})(?![A-Za-z0-9_-])")
MAX_ID = 2**63 - 1


def token_in(address: str, secret: bytes) -> Token | None:
    """Of `b+TOKEN@…` (a bounce) or `u+TOKEN@…` (an unsubscribe), if we signed it."""
    tag, _, text = address.strip(" <>").partition("@")[0].partition("+")
    purpose = _PURPOSES.get(tag.lower())
    return tokens.read(text, purpose, secret) if purpose else None


def message_of_key(text: str, secret: bytes) -> int | None:
    """Of a Message-ID or idempotency key, if we made it: `<ID.hash16@domain>`, `ID.hash16`."""
    match = _KEY.fullmatch(text.strip())
    if match is None or int(match[1]) > MAX_ID:
        return None
    ours = hmac.compare_digest(mark(secret, int(match[1]))[:16], match[2])
    return int(match[1]) if ours else None


def message_of_headers(headers: Mapping[str, str], secret: bytes) -> int | None:
    """Of a returned mail, by lower-case header name. X-Send-ID alone proves nothing: anybody can write it."""
    if (message_id := message_of_key(headers.get("message-id", ""), secret)) is not None:
        return message_id
    for name in ("return-path", "original-mail-from", "list-unsubscribe"):
        for token in _tokens(headers.get(name, ""), secret):
            return token.message_id
    return None


def email_hash(address: str, secret: bytes) -> str | None:
    """As in `messages.address_hash`; None where the text is no address."""
    key = email_key(address)
    return address_hash(secret, "email", key) if key else None


def _tokens(text: str, secret: bytes) -> list[Token]:
    found = [tokens.read(each, _PURPOSES[tag], secret) for tag, each in _TAGGED.findall(text)]
    found += [tokens.read(each, Purpose.UNSUBSCRIBE, secret) for each in _LINK.findall(text)]
    return [token for token in found if token is not None]
