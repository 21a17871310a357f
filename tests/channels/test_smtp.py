"""SMTP against a real server that misbehaves as told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.channels.base import Accepted, Outcome, Refused, Unknown
from lifecycle.channels.opening import open_channel
from lifecycle.channels.smtp import LOST_IN_A_ROW, SmtpChannel
from lifecycle.channels.smtp_connection import dot_stuffed
from lifecycle.errors import ChannelDown, ConfigError
from lifecycle.messages.records import Mail, Outgoing, Sent
from lifecycle.settings.channels import EmailChannel, Smtp
from sandbox.mailbox import DROP, HALF_REPLY, STALL, Fault, MailboxServer, Stage
from tests.channels import scripted_smtp as play
from tests.channels.conftest import Certificate
from tests.channels.scripted_smtp import Script, ScriptedServer
from tests.contracts.channel import ChannelContract, Line, Peer, mail, send_all

FAULTS: dict[Peer, tuple[Stage, str]] = {
    Peer.IS_BUSY: ("dot", "451 4.3.0 <person@example.com> try again later"),
    Peer.NAMES_A_TIME_TO_WAIT: ("rcpt", "450 4.2.0 <person.1@example.com>: Greylisted, try again in 7 seconds"),
    Peer.KNOWS_NO_SUCH_ADDRESS: ("rcpt", "550 5.1.1 <person@example.com>: User unknown"),
    Peer.REFUSES_THE_MESSAGE: ("dot", "554 5.6.0 <person@example.com> cannot read this"),
    Peer.REFUSES_THE_SENDER: ("dot", "550 5.7.26 news@example.com is not authenticated"),
    Peer.BREAKS_BEFORE_IT_HAS_ALL: ("rcpt", DROP),
    Peer.TAKES_AND_BREAKS: ("taken", DROP),
    Peer.HAS_ALL_AND_BREAKS: ("dot", DROP),
    Peer.TAKES_AND_IS_SILENT: ("taken", STALL),
    Peer.TAKES_AND_STAMMERS: ("taken", HALF_REPLY),
}


def always(at: Stage, answer: str) -> Fault:
    return lambda stage, address: answer if stage == at else None


def for_second(at: Stage, answer: str) -> Fault:
    return lambda stage, address: answer if stage == at and address.startswith("person.2@") else None


def smtp(port: int, **changes: Any) -> Smtp:
    wanted = {"host": "127.0.0.1", "port": port, "security": "none", "timeout_seconds": 0.5, **changes}
    return Smtp.model_validate(wanted)


def send(channel: SmtpChannel, *mails: Mail) -> list[Outcome]:
    """Answers in the order of the mails, of which each has one."""
    answers = send_all(channel, mails, [])
    return [answers[each.send_id] for each in mails]


def sent_until_down(
    channel: SmtpChannel, *mails: Mail
) -> tuple[dict[int, Outcome], list[int], ChannelDown | None]:
    """Answers up to the end, numbers begun, and how it ended."""
    answers: dict[int, Outcome] = {}
    begun: list[int] = []

    def begin(message: Outgoing) -> None:
        assert message.send_id not in begun
        begun.append(message.send_id)

    try:
        for message, outcome in channel.send(mails, begin):
            assert message.send_id not in answers
            answers[message.send_id] = outcome
    except ChannelDown as down:
        return answers, begun, down
    return answers, begun, None


class TestSmtp(ChannelContract):
    PIPELINING: ClassVar[bool] = True

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.certificate = tmp_path, certificate
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))

    def message(self, number: int) -> Mail:
        return mail(number)

    def seen_as(self, message: Mail) -> str:
        return message.envelope_to

    def sent(self, number: int) -> Sent:
        return Sent(number, self.message(number).key, self.message(number).envelope_to, None, datetime.now(UTC))

    @contextmanager
    def line(self, peer: Peer) -> Iterator[Line]:
        fault = always(*FAULTS[peer]) if peer in FAULTS else None
        options: dict[str, Any] = {"pipelining": self.PIPELINING}
        changes: dict[str, Any] = {}
        if peer is Peer.REFUSES_THE_SECOND:
            fault = for_second("dot", "554 5.6.0 cannot read this")
        if peer is Peer.KNOWS_ANOTHER_PASSWORD:
            options |= {"tls": self.certificate.server, "login": ("tern", "another")}
            changes = {"security": "starttls", "username": "tern", "timeout_seconds": 10}
        with MailboxServer(self.folder, fault=fault, **options) as server:
            port = server.port
            if peer is not Peer.IS_NOT_THERE:
                with SmtpChannel(smtp(port, **changes), self.SECRET) as channel:
                    yield Line(channel, lambda: [kept.envelope_to for kept in server.mailbox.mails()])
        if peer is Peer.IS_NOT_THERE:
            with SmtpChannel(smtp(port)) as channel:
                yield Line(channel, list)


class TestSmtpOneCommandAtATime(TestSmtp):
    PIPELINING = False


@pytest.fixture
def to(tmp_path: Path) -> Iterator[Callable[..., tuple[SmtpChannel, MailboxServer]]]:
    """`to(fault)`: an open channel and its server."""
    opened: list[Any] = []

    def connect(
        fault: Fault | None = None, *, per_connection: int | None = None, largest: int = 2**25, **changes: Any
    ) -> tuple[SmtpChannel, MailboxServer]:
        server = MailboxServer(tmp_path, fault=fault, largest=largest).__enter__()
        wanted = smtp(server.port, **{"timeout_seconds": 10, **changes})
        channel = SmtpChannel(wanted, per_connection=per_connection).__enter__()
        opened.extend((channel, server))
        return channel, server

    yield connect
    for each in opened:
        each.__exit__(None, None, None)


@contextmanager
def scripted(
    *moves: str, extensions: tuple[str, ...] = ("PIPELINING",), asks_reset: bool = False, **at: Any
) -> Iterator[tuple[SmtpChannel, ScriptedServer]]:
    script = Script(iter(moves), {step: iter(list_) for step, list_ in at.items()})  # type: ignore[misc]
    with (
        ScriptedServer(script, extensions=extensions, asks_reset=asks_reset) as server,
        SmtpChannel(smtp(server.port, timeout_seconds=10)) as channel,
    ):
        yield channel, server
    assert server.rude == []


@pytest.mark.parametrize(
    ("reply", "code", "permanent", "scope"),
    [
        ("550 5.1.1 no such user", "550 5.1.1", True, "address"),
        ("550 5.1.10 null mx", "550 5.1.10", True, "address"),
        ("550 5.2.1 disabled", "550 5.2.1", True, "address"),
        ("550 5.1.8 bad sender domain", "550 5.1.8", True, "message"),
        ("552 5.2.2 over quota", "552 5.2.2", True, "message"),
        ("550 5.7.1 policy", "550 5.7.1", True, "lane"),
        ("550 5.7.13 user disabled", "550 5.7.13", True, "address"),
        ("530 authentication required", "530", True, "lane"),
        ("550 no", "550", True, "message"),
        ("450 4.2.0 greylisted", "450 4.2.0", False, "message"),
        ("421 4.7.28 too many", "421 4.7.28", False, "lane"),
        ("452 4.2.2 full", "452 4.2.2", False, "message"),
    ],
)
def test_codes(
    to: Callable[..., tuple[SmtpChannel, MailboxServer]], reply: str, code: str, permanent: bool, scope: str
) -> None:
    channel, _ = to(always("rcpt", reply))
    (outcome,) = send(channel, mail())
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.text) == (code, reply.removeprefix(code).strip())
    assert (outcome.permanent, outcome.scope) == (permanent, scope)


def test_refused_sender_is_about_everything_we_send(
    to: Callable[..., tuple[SmtpChannel, MailboxServer]],
) -> None:
    channel, _ = to(always("mail", "553 sender address rejected"))
    (outcome,) = send(channel, mail())
    assert isinstance(outcome, Refused) and outcome.scope == "lane"


@pytest.mark.parametrize(("reply", "wait"), [("550 5.7.1 blocked", None), ("421 4.7.0 try again in 1 minute", 70)])
@pytest.mark.parametrize("stage", ["mail", "rcpt", "dot"])
def test_refusal_of_all_that_we_send_leaves_the_others_unsent(
    to: Callable[..., tuple[SmtpChannel, MailboxServer]], stage: Stage, reply: str, wait: float | None
) -> None:
    seen: list[str] = []

    def fault(at: Stage, address: str) -> str | None:
        seen.append(at)
        return reply if at == stage and seen.count(at) == 2 else None

    channel, server = to(fault)
    answers, begun, down = sent_until_down(channel, *map(mail, (1, 2, 3, 4)))
    assert isinstance(answers[1], Accepted) and isinstance(answers[2], Refused) and set(answers) == {1, 2}
    assert answers[2].scope == "lane" and begun == ([1, 2] if stage == "dot" else [1])
    assert down is not None and (down.retry_after, down.login) == (wait, False)
    assert [kept.envelope_to for kept in server.mailbox.mails()] == ["person.1@example.com"]
    assert [type(each) for each in send(channel, mail(3), mail(4))] == [Accepted, Accepted]


def test_one_connection_carries_many_mails(to: Callable[..., tuple[SmtpChannel, MailboxServer]]) -> None:
    channel, server = to()
    for number in range(0, 10, 2):
        send(channel, mail(number), mail(number + 1))
    assert server.connections == 1 and server.mailbox.count() == 10


@pytest.mark.parametrize(("mails", "connections"), [(5, 3), (4, 2), (1, 1)])
def test_new_connection_after_so_many_mails(
    to: Callable[..., tuple[SmtpChannel, MailboxServer]], mails: int, connections: int
) -> None:
    channel, server = to(per_connection=2)
    assert [type(each) for each in send(channel, *map(mail, range(mails)))] == [Accepted] * mails
    assert server.connections == connections


@pytest.mark.parametrize("answer", [DROP, "421 4.4.2 idle for too long", "503 5.5.1 nested MAIL command"])
@pytest.mark.parametrize("stage", ["mail", "rcpt"])
@pytest.mark.parametrize("together", [True, False])
def test_connection_that_the_server_closed_meanwhile_is_made_anew(
    to: Callable[..., tuple[SmtpChannel, MailboxServer]], answer: str, stage: Stage, together: bool
) -> None:
    seen = 0

    def fault(at: Stage, address: str) -> str | None:
        nonlocal seen
        seen += at == stage
        return answer if at == stage and seen == 2 else None

    channel, server = to(fault)
    mails = [mail(number) for number in (1, 2, 3)]
    answers = send(channel, *mails) if together else [send(channel, each)[0] for each in mails]
    assert [type(answer) for answer in answers] == [Accepted] * 3
    assert server.mailbox.count() == 3 and server.connections == 2


def test_new_connection_that_is_closed_too_is_a_refusal(
    to: Callable[..., tuple[SmtpChannel, MailboxServer]],
) -> None:
    channel, server = to(for_second("rcpt", DROP))
    answers = send(channel, *map(mail, (1, 2, 3)))
    assert [type(answer) for answer in answers] == [Accepted, Refused, Accepted]
    assert server.connections == 3


def test_silence_before_the_mail_is_handed_over_is_a_refusal_and_not_tried_twice(
    to: Callable[..., tuple[SmtpChannel, MailboxServer]],
) -> None:
    channel, server = to(for_second("rcpt", STALL), timeout_seconds=0.5)
    _, outcome = send(channel, mail(1), mail(2))
    assert isinstance(outcome, Refused) and not outcome.permanent and "timed out" in outcome.text
    assert server.connections == 1


@pytest.mark.parametrize(("size", "known"), [(100, False), (30_000_000, True)])
def test_break_within_the_mail_is_only_a_refusal_where_the_end_was_not_handed_to_the_network(
    to: Callable[..., tuple[SmtpChannel, MailboxServer]], size: int, known: bool
) -> None:
    channel, server = to(always("data", DROP), timeout_seconds=10)
    (outcome,) = send(channel, mail(content=b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" * (size // 2)))
    assert server.mailbox.count() == 0
    assert isinstance(outcome, Refused if known else (Refused, Unknown))


def test_channel_goes_on_after_a_lost_answer(to: Callable[..., tuple[SmtpChannel, MailboxServer]]) -> None:
    lost = iter([DROP])
    channel, server = to(lambda stage, address: next(lost, None) if stage == "taken" else None)
    assert [type(answer) for answer in send(channel, mail(1), mail(2))] == [Unknown, Accepted]
    assert [kept.envelope_to for kept in server.mailbox.mails()] == [
        "person.1@example.com",
        "person.2@example.com",
    ]


def test_server_that_breaks_off_again_and_again_gets_no_more_mails(
    to: Callable[..., tuple[SmtpChannel, MailboxServer]],
) -> None:
    channel, _ = to(always("taken", DROP))
    answers, begun, down = sent_until_down(channel, *map(mail, range(20)))
    assert down is not None and "broke off 5 times in a row" in str(down)
    assert begun == list(answers) == list(range(LOST_IN_A_ROW))


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_tls_and_login(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, security: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    login = ("tern", "s3cret") if security == "starttls" else None
    with MailboxServer(tmp_path, tls=certificate.server, implicit_tls=security == "tls", login=login) as server:
        wanted = smtp(server.port, security=security, username="tern" if login else "", timeout_seconds=10)
        with SmtpChannel(wanted, "s3cret") as channel:
            answers = send(
                channel, *(mail(number, b"Subject: x\r\n\r\n" + b"x\r\n" * 20_000) for number in range(9))
            )
            assert [type(answer) for answer in answers] == [Accepted] * 9
        assert server.mailbox.count() == 9 and server.connections == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_certificate_that_nobody_trusts(tmp_path: Path, certificate: Certificate, security: str) -> None:
    with (
        MailboxServer(tmp_path, tls=certificate.server, implicit_tls=security == "tls") as server,
        SmtpChannel(smtp(server.port, security=security, timeout_seconds=10)) as channel,
        pytest.raises(ChannelDown, match="no secure connection: CERTIFICATE_VERIFY_FAILED"),
    ):
        send(channel, mail())


def test_server_without_starttls_is_not_written_to_in_the_clear(tmp_path: Path) -> None:
    with (
        MailboxServer(tmp_path) as server,
        SmtpChannel(smtp(server.port, security="starttls")) as channel,
        pytest.raises(ChannelDown, match="STARTTLS extension not supported"),
    ):
        send(channel, mail())
    assert server.mailbox.count() == 0


def test_username_without_password_names_the_variable() -> None:
    settings = EmailChannel.model_validate(
        {
            "name": "email",
            "kind": "email",
            "bounce_domain": "b.example",
            "smtp": {"host": "h", "port": 25, "username": "u", "password_env": "TERN_SMTP_PASSWORD"},
        }
    )
    with pytest.raises(ConfigError, match="set TERN_SMTP_PASSWORD"):
        open_channel(settings, {})
    assert isinstance(open_channel(settings, {"TERN_SMTP_PASSWORD": "x"}), SmtpChannel)


def test_password_that_smtp_cannot_carry(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    with MailboxServer(tmp_path, tls=certificate.server, login=("tern", "x")) as server:
        wanted = smtp(server.port, security="starttls", username="tern", timeout_seconds=10)
        with SmtpChannel(wanted, "geheimnißvoll") as channel, pytest.raises(ChannelDown) as caught:
            send(channel, mail())
    assert caught.value.login and "ASCII" in str(caught.value) and "geheim" not in str(caught.value)


def test_unknown_host() -> None:
    with (
        SmtpChannel(smtp(25, host="nowhere.invalid")) as channel,
        pytest.raises(ChannelDown, match="cannot be reached"),
    ):
        send(channel, mail())


def test_server_that_turns_us_away_says_why_and_for_how_long() -> None:
    with scripted("421 4.7.0 too busy for ops@example.com, try again in 2 minutes") as (channel, _):
        answers, begun, down = sent_until_down(channel, mail())
    assert answers == {} and begun == [] and down is not None
    assert down.retry_after == 130 and "421 4.7.0 too busy for (address)" in str(down) and not down.login


@pytest.mark.parametrize(
    "unfit",
    [
        {"envelope_to": "zoë@example.com"},
        {"envelope_to": "a@example.com>\r\nRCPT TO:<b@example.com"},
        {"envelope_to": "a b@example.com"},
        {"envelope_to": "a@example.com\n"},
        {"envelope_to": ""},
        {"envelope_from": "<b@example.com>"},
        {"content": b"Subject: x\n\nHello\n"},
        {"content": b"Subject: x\r\n\r\nHello\r\n.\nMAIL FROM:<x@example.com>\r\n"},
        {"content": b"Subject: x\r\n\r\nHello\rworld\r\n"},
        {"content": b"Subject: x\r\n\r\n" + b"x" * 999 + b"\r\n"},
        {"content": "Subject: x\r\n\r\nZoë\r\n".encode()},
    ],
)
def test_what_smtp_cannot_carry_is_refused_without_a_byte(unfit: dict[str, Any]) -> None:
    values = {name: getattr(mail(), name) for name in Mail.__dataclass_fields__}
    with scripted() as (channel, server):
        (outcome,) = send(channel, Mail(**values | unfit))
    assert isinstance(outcome, Refused) and outcome.permanent and (outcome.code, outcome.kind) == ("", "content")
    assert outcome.scope == "message" and "example.com" not in outcome.text
    assert server.connections == 0


def test_longest_line_that_smtp_can_carry() -> None:
    content = b"Subject: x\r\n\r\n" + b"x" * 998 + b"\r\n"
    with scripted() as (channel, server):
        send(channel, mail(content=content))
    assert server.taken == [("person.1@example.com", content)]


@pytest.mark.parametrize("first", [1, 2])
def test_mail_larger_than_the_server_takes_is_not_offered(
    to: Callable[..., tuple[SmtpChannel, MailboxServer]], first: int
) -> None:
    channel, server = to(largest=1000)
    large = mail(9, b"Subject: x\r\n\r\n" + b"x\r\n" * 400)
    outcomes = send(channel, *([large, mail(1), mail(2)] if first == 1 else [mail(1), large, mail(2)]))
    refused = outcomes[first - 1]
    assert isinstance(refused, Refused) and refused.permanent and refused.kind == "content"
    assert "larger than the 1,000 bytes" in refused.text
    assert server.mailbox.count() == 2 and server.connections == 1


@pytest.mark.parametrize("content", [b".", b".\r\n.", b"\r\n.\r\n", b"a\r\n..\r\n.b\r\n", b"", b"x", b"\r\n"])
def test_lines_that_are_dots(content: bytes) -> None:
    with scripted() as (channel, server):
        assert [type(each) for each in send(channel, mail(1, content), mail(2))] == [Accepted, Accepted]
    arrived = dict(server.taken)["person.1@example.com"]
    assert arrived == content + (b"" if content.endswith(b"\r\n") else b"\r\n")
    assert dot_stuffed(content).endswith(b"\r\n")


def test_refused_recipient_whose_content_the_server_waits_for_is_ended_by_a_dot() -> None:
    """RFC 2920, 3.1: a server may answer DATA with 354 although it has refused the only recipient."""

    class Lenient(ScriptedServer):
        def _talk(self, peer: Any) -> None:
            peer.say("220 lenient.example")
            recipient = ""
            while (line := peer.line()) != "QUIT":
                self.heard.append(line)
                if line.upper().startswith("EHLO"):
                    peer.say("250-lenient.example\r\n250 PIPELINING")
                elif line.startswith("RCPT") and "person.2@" in line:
                    recipient = ""
                    peer.say("550 5.1.1 no such user")
                elif line == "DATA":
                    peer.say("354 go on")
                    lines = list(iter(peer.line, "."))
                    if recipient:
                        self.taken.append((recipient, "\r\n".join(lines).encode()))
                    elif lines:
                        self.rude.append("content for nobody")
                    peer.say("250 taken" if recipient else "554 no valid recipients")
                else:
                    recipient = line if line.startswith("RCPT") else recipient
                    peer.say("250 ok")

    with Lenient(Script()) as server, SmtpChannel(smtp(server.port, timeout_seconds=10)) as channel:
        answers = send(channel, *map(mail, (1, 2, 3)))
    assert [type(answer) for answer in answers] == [Accepted, Refused, Accepted]
    assert server.connections == 1 and len(server.taken) == 2 and server.rude == []


def test_recipient_that_was_accepted_never_gets_an_empty_mail() -> None:
    """MAIL is refused, and yet the server takes RCPT and DATA."""

    class Absurd(ScriptedServer):
        def _talk(self, peer: Any) -> None:
            peer.say("220 absurd.example")
            while line := peer.line():
                if line.upper().startswith("EHLO"):
                    peer.say("250-absurd.example\r\n250 PIPELINING")
                elif line.startswith("MAIL"):
                    peer.say("451 not now")
                elif line == "DATA":
                    peer.say("354 go on")
                    self.taken.append((line, "\r\n".join(iter(peer.line, ".")).encode()))
                    peer.say("250 taken")
                else:
                    peer.say("250 ok")

    with Absurd(Script()) as server, SmtpChannel(smtp(server.port, timeout_seconds=10)) as channel:
        answers = send(channel, mail(1), mail(2))
    assert [type(answer) for answer in answers] == [Refused, Refused]
    assert server.taken == [] and server.connections == 2


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
def test_transaction_of_a_refused_mail_is_reset(extensions: tuple[str, ...]) -> None:
    with scripted(extensions=extensions, asks_reset=True, rcpt=["550 5.1.1 no", "450 busy"]) as (channel, server):
        answers = send(channel, mail(1), mail(2)) + send(channel, mail(3))
    assert [type(answer) for answer in answers] == [Refused, Refused, Accepted]
    assert server.heard.count("RSET") == 2 and server.connections == 1
    assert server.heard.count("DATA") == (3 if extensions else 1)


def test_commands_go_out_together_only_where_the_server_wants_them_so() -> None:
    """`rude` says whether more than one was in its buffer."""
    with scripted(extensions=("SIZE 0", "8BITMIME")) as (channel, server):
        send(channel, *map(mail, range(5)))
    assert len(server.taken) == 5 and server.rude == []


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
def test_server_that_answers_too_often_is_not_believed(extensions: tuple[str, ...]) -> None:
    """Else the answer to one mail would be taken for that to the next."""
    with scripted(extensions=extensions, rcpt=["250 ok\r\n250 ok"]) as (channel, server):
        outcome, other = send(channel, mail(1), mail(2))
    assert isinstance(outcome, Refused) and not outcome.permanent
    assert isinstance(other, Accepted) and [to for to, _ in server.taken] == ["person.2@example.com"]


@pytest.mark.parametrize("said", ["221 bye", "354 go on", "220 scripted.example ready"])
def test_answer_to_a_mail_that_is_neither_yes_nor_no(said: str) -> None:
    with scripted(dot=[said]) as (channel, _):
        outcome, other = send(channel, mail(1), mail(2))
    assert isinstance(outcome, Unknown) and "not SMTP" in outcome.text and isinstance(other, Accepted)


def test_reply_of_many_lines_and_one_that_never_ends() -> None:
    many = "550-5.1.1 The email account that you tried to reach\r\n550-5.1.1 does not exist.\r\n550 5.1.1 Bye"
    with scripted(rcpt=[many]) as (channel, _):
        (outcome,) = send(channel, mail())
    assert isinstance(outcome, Refused) and outcome.code == "550 5.1.1"
    assert outcome.text == "The email account that you tried to reach does not exist. Bye"
    with scripted(rcpt=["250-" + "x" * 70_000 + "250-\r\n" * 2000]) as (channel, _):
        (outcome,) = send(channel, mail())
    assert isinstance(outcome, Refused) and "not SMTP" in outcome.text


def test_reply_that_trickles_is_given_up() -> None:
    """A byte now and then does not keep us waiting for ever: the limit is for the whole answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"220 slow.example\r\n")
                peer.recv(1000)
                peer.sendall(b"250 slow.example\r\n")
                peer.settimeout(0.05)
                for _ in range(200):
                    try:
                        if not peer.recv(1000):
                            return
                    except TimeoutError:
                        pass
                    except OSError:
                        return
                    peer.sendall(b"2")

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        with SmtpChannel(smtp(listener.getsockname()[1], timeout_seconds=0.3)) as channel:
            (outcome,) = send(channel, mail())
        thread.join(20)
    assert isinstance(outcome, Refused) and "timed out" in outcome.text


def test_name_of_the_recipient_is_in_no_answer() -> None:
    with scripted(rcpt=["550 5.1.1 Mailbox person.1 (Person.1) unknown"]) as (channel, _):
        (outcome,) = send(channel, mail())
    assert isinstance(outcome, Refused) and "erson" not in outcome.text.replace("(address)", "")


def test_sending_that_is_given_up_leaves_no_mail_half_begun() -> None:
    """Whoever reads the answers stops reading, while the next mail is already offered."""
    with scripted() as (channel, server):
        answers = channel.send([mail(1), mail(2), mail(3)], lambda message: None)
        next(answers)
        answers.close()  # type: ignore[attr-defined]
        assert isinstance(send(channel, mail(4))[0], Accepted)
    assert [to for to, _ in server.taken] == ["person.1@example.com", "person.4@example.com"]
    assert server.connections == 2


def test_mail_is_not_sent_where_it_cannot_be_noted() -> None:
    def full(message: Outgoing) -> None:
        raise OSError("disk full")

    with scripted() as (channel, server):
        with pytest.raises(OSError, match="disk full"):
            list(channel.send([mail(1)], full))
        assert isinstance(send(channel, mail(2))[0], Accepted)
    assert [to for to, _ in server.taken] == ["person.2@example.com"]


def test_connection_that_closes_while_answers_are_read_costs_no_mail() -> None:
    """The next mail had been offered; nothing of it has left, so it goes over a new connection."""
    with scripted() as (channel, server):
        begun: list[int] = []
        answers = channel.send([mail(1), mail(2)], lambda message: begun.append(message.send_id))
        next(answers)
        server.hang_up()
        assert isinstance(next(answers)[1], Accepted)
    assert begun == [1, 2] and [to for to, _ in server.taken] == ["person.1@example.com", "person.2@example.com"]


_INSTEAD = (play.DROP, play.HALF, play.NONSENSE)
_REFUSALS = (
    "450 4.2.0 greylisted",
    "550 5.1.1 no such user",
    "550 5.7.1 blocked",
    "421 4.3.2 shutting down",
    "451 4.7.500 Server busy",
    "554 5.6.0 malformed",
)
_MOVE = st.one_of(
    st.just(play.OK),
    st.just(play.OK),
    st.just(play.OK),
    st.sampled_from(_REFUSALS),
    st.sampled_from([prefix + each for prefix in ("", play.TAKE_AND) for each in _INSTEAD]),
)
_STALLS = st.sampled_from([play.STALL, play.TAKE_AND + play.STALL])


@st.composite
def _moves(draw: st.DrawFn) -> list[str]:
    """Seldom a silence, because each takes its time."""
    moves = draw(st.lists(_MOVE, max_size=40))
    if draw(st.integers(0, 4)) == 0:
        moves.insert(draw(st.integers(0, len(moves))), draw(_STALLS))
    return moves


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
@pytest.mark.parametrize("asks_reset", [True, False])
@settings(max_examples=60, deadline=None)
@given(moves=_moves(), number=st.integers(1, 8), per_connection=st.sampled_from([None, None, 1, 3]))
def test_whatever_the_server_does_the_answers_are_true(
    extensions: tuple[str, ...], asks_reset: bool, moves: list[str], number: int, per_connection: int | None
) -> None:
    mails = [mail(each, b"Subject: x\r\n\r\n.%d\r\n" % each) for each in range(number)]
    patience = 0.1 if any(play.STALL in move for move in moves) else 10
    with (
        ScriptedServer(Script(iter(moves)), extensions=extensions, asks_reset=asks_reset) as server,
        SmtpChannel(smtp(server.port, timeout_seconds=patience), per_connection=per_connection) as channel,
    ):
        answers, begun, down = sent_until_down(channel, *mails)
    assert server.rude == []
    taken = [to for to, _ in server.taken]
    assert len(taken) == len(set(taken)), "nobody twice"
    assert set(begun) <= set(answers), "what was begun is answered"
    assert down is not None or len(answers) == number
    for each in mails:
        outcome = answers.get(each.send_id)
        if isinstance(outcome, Accepted):
            assert (each.envelope_to, each.content) in server.taken
        elif isinstance(outcome, Unknown):
            assert each.send_id in begun and each.envelope_to in server.asked
        else:
            assert each.envelope_to not in taken
    refused = [each for each in answers.values() if isinstance(each, Refused)]
    assert all(each.scope != "lane" for each in refused[:-1])
    if all(move == play.OK for move in moves):
        assert len(taken) == number and down is None


def test_thousand_mails_need_hardly_more_trips_than_mails() -> None:
    with scripted() as (channel, server):
        answers, begun, _ = sent_until_down(channel, *(mail(number) for number in range(1000)))
    assert all(isinstance(each, Accepted) for each in answers.values()) and len(server.taken) == 1000
    assert list(answers) == begun == list(range(1000))


def test_nothing_is_said_where_there_is_nothing_to_send() -> None:
    with scripted() as (channel, server):
        assert send(channel) == []
    assert server.connections == 0
