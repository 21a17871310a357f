"""Signed tokens in links: who was sent what, and nothing a person could read or forge.

Layout: base64url(version 1, key id 1, message id 8, link id 2, HMAC-SHA256 cut to 10 bytes): 22 bytes, 30
characters. The purpose is part of what is signed, so an open token cannot unsubscribe anybody.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from dataclasses import dataclass
from enum import StrEnum

_VERSION, _KEY_ID = 1, 0
_BODY = struct.Struct(">BBQH")


class Purpose(StrEnum):
    OPEN = "o"
    CLICK = "c"
    UNSUBSCRIBE = "u"
    BOUNCE = "b"


@dataclass(frozen=True)
class Token:
    purpose: Purpose
    message_id: int
    link_id: int = 0


def sign(token: Token, secret: bytes) -> str:
    body = _BODY.pack(_VERSION, _KEY_ID, token.message_id, token.link_id)
    return base64.urlsafe_b64encode(body + _mac(token.purpose, body, secret)).decode().rstrip("=")


def read(text: str, purpose: Purpose, secret: bytes) -> Token | None:
    """The token, or None for anything that we did not sign for this purpose. Never raises."""
    if len(text) != 30:
        return None
    try:
        raw = base64.b64decode(text + "==", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    body, mac = raw[: _BODY.size], raw[_BODY.size :]
    if not hmac.compare_digest(mac, _mac(purpose, body, secret)):
        return None
    version, key_id, message_id, link_id = _BODY.unpack(body)
    if (version, key_id) != (_VERSION, _KEY_ID):
        return None
    return Token(purpose, message_id, link_id)


def _mac(purpose: Purpose, body: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, purpose.value.encode() + body, "sha256")[:10]
