"""Who runs a mailbox, and how fast each provider may be written to: dated data, in `mailboxes.yaml`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lifecycle.errors import ConfigError
from lifecycle.settings.channels import EmailChannel, LaneLimits
from lifecycle.settings.models import Section

OTHER = "other"
"""All domains of which it is not known who runs them, together."""

_FILE = Path(__file__).parent / "mailboxes.yaml"


class Provider(Section):
    domains: tuple[str, ...] = ()
    exchangers: tuple[str, ...] = ()
    limits: LaneLimits = LaneLimits()


class MailboxesFile(Section):
    dated: date
    source: str
    default: LaneLimits
    other: LaneLimits
    providers: dict[str, Provider]


@dataclass(frozen=True)
class Limits:
    """Of one lane. per_connection: mails, then a new connection."""

    connections: int
    per_connection: int
    per_second: float | None


@cache
def mailboxes() -> MailboxesFile:
    """Raises ConfigError where the file is missing or broken."""
    try:
        return MailboxesFile.model_validate(yaml.safe_load(_FILE.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{_FILE.name}: {' '.join(str(error).split())}; install Tern again") from None


@cache
def by_domain() -> Mapping[str, str]:
    """Provider of each domain that is known without asking."""
    providers = mailboxes().providers.items()
    return {domain: name for name, provider in providers for domain in provider.domains}


def provider_of_exchanger(host: str) -> str:
    """Provider by the name of a mail exchanger, for example `aspmx.l.google.com`."""
    host = host.rstrip(".").lower()
    for name, provider in mailboxes().providers.items():
        if any(host == suffix or host.endswith(f".{suffix}") for suffix in provider.exchangers):
            return name
    return OTHER


def limits_of(channel: EmailChannel, provider: str) -> Limits:
    """As configured; else as published for this provider; else as for any. `other` has no limit per second."""
    file = mailboxes()
    known = file.other if provider == OTHER else file.providers.get(provider, Provider()).limits
    general = LaneLimits() if provider == OTHER else file.default
    sources = (channel.mailbox_providers.get(provider, LaneLimits()), known, general)
    return Limits(
        connections=_first(sources, "connections") or 1,
        per_connection=_first(sources, "per_connection") or 1,
        per_second=_first(sources, "per_second"),
    )


def _first(sources: Iterable[LaneLimits], name: str) -> Any:
    return next((value for each in sources if (value := getattr(each, name)) is not None), None)
