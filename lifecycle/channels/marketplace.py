"""What the marketplaces' message channels share: one request after the other, and what its loss means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from lifecycle.channels.base import Outcome, Refused, Unknown
from lifecycle.channels.http import PATIENCE, AnswerLost, HttpChannel
from lifecycle.errors import ChannelDown
from lifecycle.messages.records import Note, Outgoing


class Declined(Exception):
    """It is certain that the notes of a request are not taken."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.text)
        self.refused = refused


class MarketplaceChannel(HttpChannel):
    """Subclasses say which notes share a request, and deliver them."""

    at_once = 100

    def requests(self, notes: Sequence[Note]) -> Iterable[Sequence[Note]]:
        """The notes by request; each in one of its own, where the marketplace does not take several."""
        return ([note] for note in notes)

    def deliver(self, notes: Sequence[Note], begin: Callable[[], None]) -> Sequence[Outcome]:
        """The outcomes of notes that share a request, in their order; `begin` is called before it leaves.

        Raises Declined, AnswerLost and ChannelDown, each for all of them.
        """
        raise NotImplementedError

    def send(
        self, messages: Sequence[Note], begin: Callable[[Outgoing], None]
    ) -> Iterator[tuple[Outgoing, Outcome]]:
        """As `Channel.send`. After three lost answers in a row the channel is down for the others."""
        lost_in_a_row = 0
        for notes in self.requests(messages):
            start = _Start(notes, begin)
            try:
                outcomes = self.deliver(notes, start)
                lost_in_a_row = 0
            except Declined as declined:
                outcomes = [declined.refused] * len(notes)
            except AnswerLost as lost:
                outcomes = [_when_lost(lost, begun=start.made)] * len(notes)
                lost_in_a_row += 1
            yield from zip(notes, outcomes, strict=True)
            if lost_in_a_row >= PATIENCE:
                raise ChannelDown(f"{self._peer.name} does not answer", taken_none=True)


class _Start:
    def __init__(self, notes: Sequence[Note], begin: Callable[[Outgoing], None]) -> None:
        self._notes = notes
        self._begin = begin
        self.made = False

    def __call__(self) -> None:
        self.made = True
        for note in self._notes:
            self._begin(note)


def _when_lost(lost: AnswerLost, *, begun: bool) -> Outcome:
    if begun:
        return Unknown(str(lost))
    return Refused("", f"{lost}, before the message was sent", permanent=False)


def refused_content(text: str) -> Declined:
    """The message itself cannot be sent on this way."""
    return Declined(Refused("", text, permanent=True, kind="content"))
