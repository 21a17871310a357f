"""What names one message for ever, the same whenever it is sent: Message-ID or idempotency key."""

from __future__ import annotations

import hmac


def mark(secret: bytes, message_id: int) -> str:
    """64 hexadecimal digits that only we can make."""
    return hmac.digest(secret, f"mail:{message_id}".encode(), "sha256").hex()


def mail_key(secret: bytes, message_id: int, domain: str | None) -> str:
    """A Message-ID, with its angle brackets. `domain`: of the sender's address."""
    return f"<{message_id}.{mark(secret, message_id)[:16]}@{domain}>"


def note_key(secret: bytes, message_id: int) -> str:
    """Idempotency key on a messenger or platform."""
    return f"{message_id}.{mark(secret, message_id)[:16]}"
