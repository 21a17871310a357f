"""What can go wrong, named by what to do next.

TernError
├── ConfigError          a file or setting is wrong: mend the field that the message names (exit code 2)
│   └── UnknownShop      the shop is in no configuration file (any more)
├── UsageError           the command was called with something that does not exist (exit code 2)
├── NotReady             the database is missing or not migrated: run `tern init` (exit code 1)
├── PlatformError
│   ├── PlatformBusy     429, throttling, 5xx, timeout: try again after `retry_after` seconds
│   └── PlatformRejected 401, 403, 404, 422: a person must act
├── QualityError         too many rows were rejected; nothing was stored
├── InputError           a file cannot be read as what it should be
├── PlanError            a plan cannot be applied: changed, too old, already applied
├── ContentError         one person's message cannot be made as it must be: they get none, the others do
├── ChannelError
│   ├── ChannelDown      nothing can be sent through this channel now: connection or login refused
└── AuditFailed          the ledger breaks a promise; the message lists which
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TernError(Exception):
    """Base of all errors that are meant to be read by a person. `exit_code` is the command's."""

    exit_code = 1


class ConfigError(TernError):
    exit_code = 2


class UnknownShop(ConfigError):
    pass


class UsageError(TernError):
    exit_code = 2


class NotReady(TernError):
    pass


class PlatformError(TernError):
    pass


class PlatformBusy(PlatformError):
    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds to wait, where the platform said so."""


class PlatformRejected(PlatformError):
    pass


class QualityError(TernError):
    pass


class InputError(TernError):
    pass


class PlanError(TernError):
    pass


class ContentError(TernError):
    pass


class ChannelError(TernError):
    pass


class ChannelDown(ChannelError):
    """`retry_after`: seconds to wait, where the peer said so. `taken_none`: of the messages that were on their way
    the peer took none. `login`: it does not accept who we are, so that a person must act."""

    def __init__(
        self, message: str, retry_after: float | None = None, *, taken_none: bool = False, login: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.taken_none = taken_none
        self.login = login


class AuditFailed(TernError):
    pass


def suggest(wrong: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: `; did you mean "dormant"?` or the known names."""
    names = sorted(known)
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; known: {', '.join(names)}" if names else "; none are defined"
