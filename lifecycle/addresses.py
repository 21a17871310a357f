"""Addresses: one spelling, a keyed hash where the address itself must not be kept, a mask for people.

An address is never logged. What outlives an erasure (a suppression) keeps only the hash.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email


@lru_cache(maxsize=200_000)
def mailable(address: str | None) -> str | None:
    """As `ascii_address`, kept for those that come again and again: in a history of orders, say."""
    return ascii_address(address)


def ascii_address(address: str | None) -> str | None:
    """The ASCII form to send to, or None where the text is no address that plain SMTP can carry.

    A non-ASCII local part would need SMTPUTF8, which few mailboxes take: it counts as not mailable.
    """
    if not address:
        return None
    try:
        return validate_email(address.strip(), check_deliverability=False).ascii_email
    except EmailNotValidError:
        return None


def email_key(address: str | None) -> str | None:
    """The key under which one mailbox is one person: lower case, ASCII domain. Dots and +tags stay."""
    ascii_form = mailable(address)
    return ascii_form.lower() if ascii_form else None


def address_hash(secret: bytes, channel: str, address: str) -> str:
    """HMAC-SHA256 of a normalised address, hex. Survives erasure; cannot be turned back without the key."""
    return hmac.new(secret, f"{channel}:{address.lower()}".encode(), hashlib.sha256).hexdigest()


def domain_of(address: str | None) -> str | None:
    return address.rpartition("@")[2].lower() if address and "@" in address else None
