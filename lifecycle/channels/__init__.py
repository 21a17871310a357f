"""Ways out: one file each, one promise (`base`)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from lifecycle.channels.base import Accepted, Channel, Outcome, Refused, Unknown
from lifecycle.channels.smtp import SmtpChannel
from lifecycle.errors import ConfigError
from lifecycle.settings.models import EmailChannel

__all__ = ["Accepted", "Channel", "Outcome", "Refused", "Unknown", "open_channel"]


def open_channel(settings: EmailChannel, env: Mapping[str, str] = os.environ) -> Channel:
    """Connects with the first mail. Raises ConfigError where a password is wanted and not set."""
    smtp = settings.smtp
    password = env.get(smtp.password_env, "")
    if smtp.username and not password:
        raise ConfigError(
            f"config/channels.yaml: {settings.name}.smtp has a username but no password; "
            f"set {smtp.password_env or 'password_env and the variable that it names'}"
        )
    return SmtpChannel(smtp, password)
