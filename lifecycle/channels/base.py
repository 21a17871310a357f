"""What every channel promises: messages in, one honest answer for each out.

A channel never guesses. Accepted: the peer said that it takes the message. Refused: it is certain that the peer
did not take it. Unknown: the peer had everything it needs to take it, and its answer did not arrive. `ChannelDown`
is raised where nothing more can be sent: of messages without an answer, those that were not begun have not left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from lifecycle.messages.records import Outgoing, Sent

Scope = Literal["address", "buyer", "message", "lane"]
"""What a refusal is about: this address for good, this buyer for some time because the platform's own cap is
reached, this message, or everything we send on this way."""

BounceClass = Literal["hard", "full", "soft", "policy", "content", "unknown"]
"""Why a mail was not taken or came back: the address is dead, the mailbox is full, something temporary at the
mailbox, our standing (reputation, authentication, rate), the mail itself, or nobody says."""


@dataclass(frozen=True)
class Accepted:
    provider_id: str


@dataclass(frozen=True)
class Refused:
    """`code`: the peer's, for example `550 5.1.1`, or empty. `text`: its words, without addresses.

    permanent: trying the same again is pointless. retry_after: seconds to wait, where the peer says so.
    """

    code: str
    text: str
    permanent: bool
    scope: Scope = "message"
    kind: BounceClass = "unknown"
    retry_after: float | None = None


@dataclass(frozen=True)
class Unknown:
    text: str


Outcome = Accepted | Refused | Unknown


class Channel(Protocol):
    """`send` gets at most `at_once` messages in a call. Opened and closed by `with`; connects with the first."""

    at_once: int

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def send(
        self, messages: Sequence[Any], begin: Callable[[Outgoing], None]
    ) -> Iterator[tuple[Outgoing, Outcome]]:
        """One answer for each message, each as soon as it is known, in any order.

        `begin` is told of a message before the bytes leave with which the peer could take it; of many in one
        request, of all of them before the request.
        Raises ChannelDown, with `retry_after` where the peer named a time: begun messages without an answer are
        then unknown, unless the exception's `taken_none` says that the peer took none of them.
        """
        ...

    def look_up(self, sent: Sequence[Sent]) -> Mapping[int, Outcome]:
        """What the peer knows of messages whose answer is not known, by send_id; those of which it can say nothing
        certain are left out. Refused here means: proven not taken. Raises ChannelDown where it cannot be asked."""
        ...


def nothing_known(sent: Sequence[Sent]) -> Mapping[int, Outcome]:
    """`look_up` of a channel that has no way to ask."""
    return {}
