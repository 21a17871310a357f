"""SMTP against a real server that misbehaves as told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lifecycle.channels import Accepted, Refused, Unknown, open_channel
from lifecycle.channels.smtp import SmtpChannel
from lifecycle.errors import ChannelDown, ConfigError
from lifecycle.settings.models import EmailChannel, Smtp
from sandbox.mailbox import DROP, HALF_REPLY, STALL, Fault, MailboxServer, Stage
from tests.channels.conftest import Certificate
from tests.contracts.channel import ChannelContract, Line, Peer, mail

FAULTS: dict[Peer, tuple[Stage, str]] = {
    Peer.IS_BUSY: ("dot", "451 4.3.0 <person@example.com> try again later"),
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


def smtp(port: int, **changes: Any) -> Smtp:
    wanted = {"host": "127.0.0.1", "port": port, "security": "none", "timeout_seconds": 0.5, **changes}
    return Smtp.model_validate(wanted)


class TestSmtp(ChannelContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.certificate = tmp_path, certificate
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))

    @contextmanager
    def line(self, peer: Peer) -> Iterator[Line]:
        fault = always(*FAULTS[peer]) if peer in FAULTS else None
        options: dict[str, Any] = {}
        changes: dict[str, Any] = {}
        if peer is Peer.KNOWS_ANOTHER_PASSWORD:
            options = {"tls": self.certificate.server, "login": ("tern", "another")}
            changes = {"security": "starttls", "username": "tern", "timeout_seconds": 10}
        with MailboxServer(self.folder, fault=fault, **options) as server:
            port = server.port
            if peer is not Peer.IS_NOT_THERE:
                with SmtpChannel(smtp(port, **changes), self.SECRET) as channel:
                    yield Line(channel, lambda: [(k.envelope_to, k.content) for k in server.mailbox.mails()])
        if peer is Peer.IS_NOT_THERE:
            with SmtpChannel(smtp(port)) as channel:
                yield Line(channel, list)


@pytest.fixture
def to(tmp_path: Path) -> Iterator[Callable[..., tuple[SmtpChannel, MailboxServer]]]:
    """`to(fault)`: an open channel and its server."""
    opened: list[Any] = []

    def connect(fault: Fault | None = None, **changes: Any) -> tuple[SmtpChannel, MailboxServer]:
        server = MailboxServer(tmp_path, fault=fault).__enter__()
        channel = SmtpChannel(smtp(server.port, **changes)).__enter__()
        opened.extend((channel, server))
        return channel, server

    yield connect
    for each in opened:
        each.__exit__(None, None, None)


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
        ("421 4.7.28 too many", "421 4.7.28", False, "message"),
        ("452 4.2.2 full", "452 4.2.2", False, "message"),
    ],
)
def test_codes(
    to: Callable[..., tuple[SmtpChannel, MailboxServer]], reply: str, code: str, permanent: bool, scope: str
) -> None:
    channel, _ = to(always("rcpt", reply))
    words = reply.removeprefix(code).strip()
    assert channel.send(mail()) == Refused(code, words, permanent=permanent, scope=scope)  # type: ignore[arg-type]


def test_refused_sender_is_about_everything_we_send(
    to: Callable[..., tuple[SmtpChannel, MailboxServer]],
) -> None:
    channel, _ = to(always("mail", "553 sender address rejected"))
    outcome = channel.send(mail())
    assert isinstance(outcome, Refused) and outcome.scope == "lane"


def test_one_connection_carries_many_mails(to: Callable[..., tuple[SmtpChannel, MailboxServer]]) -> None:
    channel, server = to()
    for number in range(5):
        channel.send(mail(number))
    assert server.connections == 1 and server.mailbox.count() == 5


@pytest.mark.parametrize("answer", [DROP, "421 4.4.2 idle for too long"])
def test_connection_that_the_server_closed_meanwhile_is_made_anew(
    to: Callable[..., tuple[SmtpChannel, MailboxServer]], answer: str
) -> None:
    seen = 0

    def fault(stage: Stage, address: str) -> str | None:
        nonlocal seen
        seen += stage == "mail"
        return answer if stage == "mail" and seen == 2 else None

    channel, server = to(fault)
    assert [type(channel.send(mail(number))) for number in (1, 2, 3)] == [Accepted] * 3
    assert server.mailbox.count() == 3 and server.connections == 2


def test_silence_before_the_mail_is_handed_over_is_a_refusal_and_not_tried_twice(
    to: Callable[..., tuple[SmtpChannel, MailboxServer]],
) -> None:
    channel, server = to(always("rcpt", STALL))
    outcome = channel.send(mail())
    assert isinstance(outcome, Refused) and not outcome.permanent and "timed out" in outcome.text
    assert server.connections == 1


@pytest.mark.parametrize(("size", "known"), [(100, False), (30_000_000, True)])
def test_break_within_the_mail_is_only_a_refusal_where_the_end_was_not_handed_to_the_network(
    to: Callable[..., tuple[SmtpChannel, MailboxServer]], size: int, known: bool
) -> None:
    channel, server = to(always("data", DROP), timeout_seconds=10)
    outcome = channel.send(mail(content=b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" * (size // 2)))
    assert server.mailbox.count() == 0
    assert isinstance(outcome, Refused if known else (Refused, Unknown))


def test_channel_goes_on_after_a_lost_answer(to: Callable[..., tuple[SmtpChannel, MailboxServer]]) -> None:
    lost = iter([DROP])
    channel, server = to(lambda stage, address: next(lost, None) if stage == "taken" else None)
    assert [type(channel.send(mail(number))) for number in (1, 2)] == [Unknown, Accepted]
    assert [kept.envelope_to for kept in server.mailbox.mails()] == [
        "person.1@example.com",
        "person.2@example.com",
    ]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_tls_and_login(
    tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, security: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
    login = ("tern", "s3cret") if security == "starttls" else None
    with MailboxServer(tmp_path, tls=certificate.server, implicit_tls=security == "tls", login=login) as server:
        wanted = smtp(server.port, security=security, username="tern" if login else "", timeout_seconds=10)
        with SmtpChannel(wanted, "s3cret") as channel:
            assert isinstance(channel.send(mail()), Accepted)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_certificate_that_nobody_trusts(tmp_path: Path, certificate: Certificate, security: str) -> None:
    with (
        MailboxServer(tmp_path, tls=certificate.server, implicit_tls=security == "tls") as server,
        SmtpChannel(smtp(server.port, security=security, timeout_seconds=10)) as channel,
        pytest.raises(ChannelDown, match="no secure connection: CERTIFICATE_VERIFY_FAILED"),
    ):
        channel.send(mail())


def test_server_without_starttls_is_not_written_to_in_the_clear(tmp_path: Path) -> None:
    with (
        MailboxServer(tmp_path) as server,
        SmtpChannel(smtp(server.port, security="starttls")) as channel,
        pytest.raises(ChannelDown, match="STARTTLS extension not supported"),
    ):
        channel.send(mail())
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


def test_unknown_host() -> None:
    with (
        SmtpChannel(smtp(25, host="nowhere.invalid")) as channel,
        pytest.raises(ChannelDown, match="cannot be reached"),
    ):
        channel.send(mail())
