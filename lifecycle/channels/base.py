"""What every channel promises: one mail in, one honest answer out.

`send` never guesses. Accepted: the peer said that it takes the mail. Refused: it is certain that the peer did not
take it. Unknown: the peer had everything it needs to take it, and its answer did not arrive. `ChannelDown` is
raised only where not a byte of the mail has left.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self

from lifecycle.messages.records import Mail

Scope = Literal["address", "buyer", "message", "lane"]
"""What a refusal is about: this address for good, this buyer for some time because the platform's own cap is
reached, this message, or everything we send on this way."""


@dataclass(frozen=True)
class Accepted:
    provider_id: str


@dataclass(frozen=True)
class Refused:
    """`code`: the peer's, for example `550 5.1.1`, or empty. `text`: its words, without addresses.

    permanent: trying the same again is pointless.
    """

    code: str
    text: str
    permanent: bool
    scope: Scope = "message"


@dataclass(frozen=True)
class Unknown:
    text: str


Outcome = Accepted | Refused | Unknown


class Channel(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def send(self, mail: Mail) -> Outcome:
        """Raises ChannelDown where nothing can be sent now."""
        ...
