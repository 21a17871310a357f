"""What every channel must do. Subclass it in the channel's own tests and say how its peer is made to behave."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum, auto

import pytest

from lifecycle.channels import Accepted, Channel, Refused, Unknown
from lifecycle.errors import ChannelDown
from lifecycle.messages.records import Mail


class Peer(Enum):
    """How the other side behaves, to every mail unless said otherwise."""

    TAKES = auto()
    IS_BUSY = auto()
    KNOWS_NO_SUCH_ADDRESS = auto()
    REFUSES_THE_MESSAGE = auto()
    REFUSES_THE_SENDER = auto()
    BREAKS_BEFORE_IT_HAS_ALL = auto()
    TAKES_AND_BREAKS = auto()
    HAS_ALL_AND_BREAKS = auto()
    TAKES_AND_IS_SILENT = auto()
    TAKES_AND_STAMMERS = auto()
    IS_NOT_THERE = auto()
    KNOWS_ANOTHER_PASSWORD = auto()


@dataclass(frozen=True)
class Line:
    """A channel and what has arrived at its other end: (recipient, content)."""

    channel: Channel
    arrived: Callable[[], list[tuple[str, bytes]]]


def mail(number: int = 1, content: bytes = b"Subject: x\r\n\r\nHello\r\n") -> Mail:
    return Mail(
        "b+token@bounce.example.com", f"person.{number}@example.com", f"<{number}@atlas.example.com>", content
    )


class ChannelContract:
    SECRET = "correct horse battery"

    def line(self, peer: Peer) -> AbstractContextManager[Line]:
        """A channel to a peer that behaves so, with a time limit well under a second."""
        raise NotImplementedError

    def test_takes_mails_one_after_another_each_once(self) -> None:
        with self.line(Peer.TAKES) as line:
            outcomes = [line.channel.send(mail(number)) for number in (1, 2, 3)]
            arrived = [recipient for recipient, _ in line.arrived()]
        assert all(isinstance(outcome, Accepted) and outcome.provider_id for outcome in outcomes)
        assert len({outcome.provider_id for outcome in outcomes if isinstance(outcome, Accepted)}) == 3
        assert arrived == [mail(number).envelope_to for number in (1, 2, 3)]

    def test_content_arrives_byte_for_byte(self) -> None:
        content = b"Subject: x\r\n\r\n.\r\n..dots\r\n.\r\n" + bytes(range(33, 127)) + b"\r\n"
        with self.line(Peer.TAKES) as line:
            assert isinstance(line.channel.send(mail(content=content)), Accepted)
            assert [body for _, body in line.arrived()] == [content]

    @pytest.mark.parametrize(
        ("peer", "permanent", "scope"),
        [
            (Peer.IS_BUSY, False, "message"),
            (Peer.KNOWS_NO_SUCH_ADDRESS, True, "address"),
            (Peer.REFUSES_THE_MESSAGE, True, "message"),
            (Peer.REFUSES_THE_SENDER, True, "lane"),
            (Peer.BREAKS_BEFORE_IT_HAS_ALL, False, "message"),
        ],
    )
    def test_refusal_is_certain_and_says_what_it_is_about(self, peer: Peer, permanent: bool, scope: str) -> None:
        with self.line(peer) as line:
            outcome = line.channel.send(mail())
            assert line.arrived() == []
        assert isinstance(outcome, Refused)
        assert (outcome.permanent, outcome.scope) == (permanent, scope)
        assert outcome.text and "@" not in outcome.text

    @pytest.mark.parametrize(
        "peer",
        [Peer.TAKES_AND_BREAKS, Peer.HAS_ALL_AND_BREAKS, Peer.TAKES_AND_IS_SILENT, Peer.TAKES_AND_STAMMERS],
    )
    def test_lost_answer_is_unknown_and_nothing_is_sent_again(self, peer: Peer) -> None:
        with self.line(peer) as line:
            outcome = line.channel.send(mail())
            assert len(line.arrived()) <= 1
        assert isinstance(outcome, Unknown)
        assert outcome.text and "@" not in outcome.text

    def test_refusal_does_not_hinder_the_next_mail(self) -> None:
        with self.line(Peer.KNOWS_NO_SUCH_ADDRESS) as line:
            outcomes = [line.channel.send(mail(number)) for number in (1, 2)]
        assert [type(outcome) for outcome in outcomes] == [Refused, Refused]

    @pytest.mark.parametrize("peer", [Peer.IS_NOT_THERE, Peer.KNOWS_ANOTHER_PASSWORD])
    def test_nothing_can_be_sent(self, peer: Peer) -> None:
        with self.line(peer) as line, pytest.raises(ChannelDown) as caught:
            line.channel.send(mail())
        assert self.SECRET not in str(caught.value) and "@" not in str(caught.value)

    def test_closing_what_was_never_used(self) -> None:
        with self.line(Peer.IS_NOT_THERE):
            pass
