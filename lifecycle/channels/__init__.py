"""Ways out: one file each, one promise (`base`), opened by their settings (`opening`)."""

from __future__ import annotations

from lifecycle.channels.base import Accepted, Channel, Outcome, Refused, Unknown

__all__ = ["Accepted", "Channel", "Outcome", "Refused", "Unknown"]
