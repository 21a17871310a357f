"""What every channel must do. Subclass it in the channel's own tests and say how its peer is made to behave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, ClassVar

import pytest

from lifecycle.channels.base import Accepted, Channel, Outcome, Refused, Unknown
from lifecycle.errors import ChannelDown
from lifecycle.messages.records import Mail, Outgoing


class Peer(Enum):
    """How the other side behaves, to every message unless said otherwise."""

    TAKES = auto()
    IS_BUSY = auto()
    """Refuses for the moment, and has certainly not taken it."""
    NAMES_A_TIME_TO_WAIT = auto()
    """Takes nothing from us for the next 7 seconds, and says so."""
    KNOWS_NO_SUCH_ADDRESS = auto()
    REFUSES_THE_SECOND = auto()
    """Of several messages the second is refused for good; the others are taken."""
    REFUSES_THE_MESSAGE = auto()
    REFUSES_THE_SENDER = auto()
    BREAKS_BEFORE_IT_HAS_ALL = auto()
    TAKES_AND_BREAKS = auto()
    HAS_ALL_AND_BREAKS = auto()
    TAKES_AND_IS_SILENT = auto()
    TAKES_AND_STAMMERS = auto()
    """Half an answer, or one that is no answer."""
    IS_NOT_THERE = auto()
    KNOWS_ANOTHER_PASSWORD = auto()


@dataclass(frozen=True)
class Line:
    """A channel and what has arrived at its other end: the keys (or, where the peer never sees one, whatever the
    test's `seen_as` makes of a message), each as often as it was taken, in order."""

    channel: Channel
    arrived: Callable[[], list[str]]


def mail(number: int = 1, content: bytes = b"Subject: x\r\n\r\nHello\r\n") -> Mail:
    return Mail(
        send_id=number,
        key=f"<{number}@atlas.example.com>",
        envelope_from="b+token@bounce.example.com",
        envelope_to=f"person.{number}@example.com",
        content=content,
    )


class ChannelContract:
    SECRET: ClassVar[str] = "correct horse battery"
    CANNOT: ClassVar[Mapping[Peer, str]] = {}
    """Peers that do not exist on this way, each with the reason."""
    KNOWS_WHAT_LEFT: ClassVar[bool] = True
    """A connection that breaks before the peer has all can be told from one that breaks after it."""

    def line(self, peer: Peer) -> AbstractContextManager[Line]:
        """A channel to a peer that behaves so, with a time limit well under a second."""
        raise NotImplementedError

    def message(self, number: int) -> Outgoing:
        raise NotImplementedError

    def seen_as(self, message: Any) -> str:
        return str(message.key)

    def play(self, peer: Peer, *numbers: int) -> tuple[list[Outcome], list[str], list[int]]:
        """Answers in the order of the messages, what arrived, and the numbers of those that were begun."""
        if peer in self.CANNOT:
            pytest.skip(self.CANNOT[peer])
        begun: list[int] = []
        with self.line(peer) as line:
            answers = send_all(line.channel, [self.message(number) for number in numbers], begun)
            arrived = line.arrived()
        assert set(answers) == set(numbers), "one answer for each message"
        return [answers[number] for number in numbers], arrived, begun

    def test_takes_messages_each_once(self) -> None:
        answers, arrived, begun = self.play(Peer.TAKES, 1, 2, 3)
        assert all(isinstance(answer, Accepted) and answer.provider_id for answer in answers)
        assert len({answer.provider_id for answer in answers if isinstance(answer, Accepted)}) == 3
        assert sorted(arrived) == sorted(self.seen_as(self.message(number)) for number in (1, 2, 3))
        assert sorted(begun) == [1, 2, 3]

    @pytest.mark.parametrize(
        ("peer", "permanent", "scope"),
        [
            (Peer.IS_BUSY, False, "message"),
            (Peer.KNOWS_NO_SUCH_ADDRESS, True, "address"),
            (Peer.REFUSES_THE_MESSAGE, True, "message"),
            (Peer.REFUSES_THE_SENDER, True, "lane"),
        ],
    )
    def test_refusal_is_certain_and_says_what_it_is_about(self, peer: Peer, permanent: bool, scope: str) -> None:
        (outcome,), arrived, _ = self.play(peer, 1)
        assert arrived == []
        assert isinstance(outcome, Refused)
        assert (outcome.permanent, outcome.scope) == (permanent, scope)
        assert outcome.text and not _tells(outcome.text)

    def test_what_breaks_before_the_peer_has_all_was_not_taken(self) -> None:
        (outcome,), arrived, _ = self.play(Peer.BREAKS_BEFORE_IT_HAS_ALL, 1)
        assert arrived == []
        assert isinstance(outcome, Refused if self.KNOWS_WHAT_LEFT else Refused | Unknown)
        assert not (isinstance(outcome, Refused) and outcome.permanent)

    @pytest.mark.parametrize(
        "peer",
        [Peer.TAKES_AND_BREAKS, Peer.HAS_ALL_AND_BREAKS, Peer.TAKES_AND_IS_SILENT, Peer.TAKES_AND_STAMMERS],
    )
    def test_lost_answer_is_unknown_and_nothing_is_sent_again(self, peer: Peer) -> None:
        (outcome,), arrived, begun = self.play(peer, 1)
        assert len(arrived) <= 1
        assert isinstance(outcome, Unknown)
        assert outcome.text and not _tells(outcome.text)
        assert begun == [1]

    def test_one_of_several_is_refused(self) -> None:
        answers, arrived, _ = self.play(Peer.REFUSES_THE_SECOND, 1, 2, 3)
        assert [type(answer) for answer in answers] == [Accepted, Refused, Accepted]
        assert sorted(arrived) == sorted(self.seen_as(self.message(number)) for number in (1, 3))

    def test_refusal_does_not_hinder_the_next(self) -> None:
        answers, _, _ = self.play(Peer.KNOWS_NO_SUCH_ADDRESS, 1, 2)
        assert [type(answer) for answer in answers] == [Refused, Refused]

    @pytest.mark.parametrize("peer", [Peer.IS_NOT_THERE, Peer.KNOWS_ANOTHER_PASSWORD])
    def test_nothing_can_be_sent(self, peer: Peer) -> None:
        with pytest.raises(ChannelDown) as caught:
            self.play(peer, 1, 2)
        assert caught.value.login == (peer is Peer.KNOWS_ANOTHER_PASSWORD)
        assert self.SECRET not in str(caught.value) and not _tells(str(caught.value))

    def test_waits_as_long_as_the_peer_says(self) -> None:
        """Nothing was taken, so nothing is unknown."""
        if Peer.NAMES_A_TIME_TO_WAIT in self.CANNOT:
            pytest.skip(self.CANNOT[Peer.NAMES_A_TIME_TO_WAIT])
        begun: list[int] = []
        with self.line(Peer.NAMES_A_TIME_TO_WAIT) as line:
            try:
                answers = send_all(line.channel, [self.message(1)], begun)
            except ChannelDown as down:
                assert down.retry_after is not None and 7 <= down.retry_after <= 20
                assert down.taken_none or not begun
            else:
                (answer,) = answers.values()
                assert isinstance(answer, Refused) and not answer.permanent
                assert answer.retry_after is not None and 7 <= answer.retry_after <= 20
            assert line.arrived() == []

    def test_what_the_peer_took_is_looked_up_or_not_known(self) -> None:
        """Asked about a message that was taken, a channel never says that it was not."""
        with self.line(Peer.TAKES) as line:
            send_all(line.channel, [self.message(1)], [])
            found = line.channel.look_up([self.sent(1)])
        assert set(found) <= {1}
        assert all(isinstance(outcome, Accepted) for outcome in found.values())

    def test_nothing_leaves_where_there_is_nothing(self) -> None:
        with self.line(Peer.TAKES) as line:
            assert send_all(line.channel, [], []) == {}
            assert line.arrived() == []

    def test_closing_what_was_never_used(self) -> None:
        with self.line(Peer.IS_NOT_THERE):
            pass

    def sent(self, number: int) -> Any:
        raise NotImplementedError


def send_all(channel: Channel, messages: Sequence[Outgoing], begun: list[int]) -> dict[int, Outcome]:
    """Answers by number; no message is begun or answered twice, and none is answered Accepted or Unknown that was
    not begun."""
    answers: dict[int, Outcome] = {}

    def begin(message: Outgoing) -> None:
        assert message.send_id not in begun
        begun.append(message.send_id)

    for start in range(0, len(messages), channel.at_once):
        for message, outcome in channel.send(messages[start : start + channel.at_once], begin):
            assert message.send_id not in answers
            assert isinstance(outcome, Refused) or message.send_id in begun
            answers[message.send_id] = outcome
    return answers


def _tells(text: str) -> bool:
    """Whether an address or a telephone number stands in it."""
    return "@" in text or any(len(word) > 9 for word in text.replace("+", " ").split() if word.isdigit())
