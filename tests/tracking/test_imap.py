"""IMAP: a mail is marked as seen after its commit and never before."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, OperationalError

from lifecycle.db.schema import message_events, suppressions
from lifecycle.errors import NotReady
from lifecycle.settings.channels import Bounces
from lifecycle.tracking.feedback.desk import Desk
from lifecycle.tracking.feedback.imap import MAX_MAIL_BYTES, read_imap
from lifecycle.tracking.feedback.intake import Taken
from lifecycle.tracking.feedback.mails import Arrived
from sandbox.imap import Folder, Step, serve_imap
from tests.tracking.feedback import bounce_of, database_url, rows

__all__ = ["database_url"]


def settings(port: int, **further: object) -> Bounces:
    values = {"imap_host": "127.0.0.1", "imap_port": port, "imap_security": "none", "imap_user": "bounces"}
    return Bounces.model_validate(values | further)


def by_imap(desk: Desk, mails: Sequence[Arrived]) -> Taken:
    return desk.take_mails(mails, source="imap")


@pytest.mark.parametrize("uid_last", [False, True])
def test_a_mailbox_is_read_once(desk: Desk, engine: Engine, ids: list[int], uid_last: bool) -> None:
    folder = Folder(uid_last=uid_last)
    for content in (bounce_of(101), b"", b"\xff\r\n\r\nno mail )\r\n* 1 FETCH (UID 5)", bounce_of(102)):
        folder.put(content)
    with serve_imap(folder) as port:
        counts = read_imap(settings(port), "let me in", lambda mails: by_imap(desk, mails))
        assert (counts.taken, counts.failed, counts.too_large) == (4, 0, 0)
        assert read_imap(settings(port), "let me in", lambda mails: by_imap(desk, mails)).taken == 0
    assert folder.unseen() == [] and folder.logins == 2
    assert {event.source for event in rows(engine, message_events)} == {"imap"}
    assert len(rows(engine, suppressions)) == 2


def test_a_mail_that_cannot_be_written_down_keeps_no_other_waiting() -> None:
    folder = Folder()
    uids = [folder.put(bounce_of(101 + n)) for n in range(3)]

    def take(mails: Sequence[Arrived]) -> Taken:
        if any(b"p2@example.com" in mail.content for mail in mails):
            raise IntegrityError("insert", None, Exception("no"))
        return Taken()

    with serve_imap(folder) as port:
        counts = read_imap(settings(port), "let me in", take)
    assert (counts.taken, counts.failed, folder.unseen()) == (2, 1, [uids[1]])
    assert counts.sentence() == "2 mails read, 1 could not be written down"


def test_many_and_large_mails_come_in_batches() -> None:
    folder = Folder()
    for n in range(120):
        folder.put(b"Subject: %d\r\n\r\n" % n)
    large = folder.put(b"x" * (MAX_MAIL_BYTES + 1))
    sizes: list[int] = []

    def take(mails: Sequence[Arrived]) -> Taken:
        sizes.append(len(mails))
        return Taken()

    with serve_imap(folder) as port:
        counts = read_imap(settings(port), "let me in", take)
    assert (counts.taken, counts.too_large, sizes, folder.unseen()) == (120, 1, [50, 50, 20], [large])


@pytest.mark.parametrize("step", ["login", "search", "fetch", "store"])
def test_a_lost_connection_loses_no_mail(desk: Desk, engine: Engine, ids: list[int], step: Step) -> None:
    folder = Folder(fault=lambda at: at == step)
    folder.put(bounce_of(101))
    with serve_imap(folder) as port:
        with pytest.raises(NotReady, match=r"the mailbox at 127\.0\.0\.1 cannot be read: "):
            read_imap(settings(port), "let me in", lambda mails: by_imap(desk, mails))
        assert len(folder.unseen()) == 1
        folder.fault = lambda _step: False
        assert read_imap(settings(port), "let me in", lambda mails: by_imap(desk, mails)).taken == 1
    assert len(rows(engine, suppressions)) == len(rows(engine, message_events)) == 1


def test_while_the_database_is_away_mails_stay_unseen() -> None:
    folder = Folder()
    folder.put(bounce_of(101))

    def take(_mails: Sequence[Arrived]) -> Taken:
        raise OperationalError("select", None, Exception("away"))

    with serve_imap(folder) as port, pytest.raises(OperationalError):
        read_imap(settings(port), "let me in", take)
    assert len(folder.unseen()) == 1


def test_what_is_wrong_is_a_sentence_without_the_password() -> None:
    with serve_imap(Folder()) as port:
        with pytest.raises(NotReady, match=r"does not accept the login; check bounces\.imap_user and MY_PASSWORD"):
            read_imap(settings(port, imap_password_env="MY_PASSWORD"), "wrong", lambda _: Taken())
        with pytest.raises(NotReady, match='has no folder "Bounces"'):
            read_imap(settings(port, imap_folder="Bounces"), "let me in", lambda _: Taken())
        with pytest.raises(NotReady, match="cannot be read") as error:
            read_imap(settings(port, imap_security="tls"), "a secret", lambda _: Taken())
        assert "a secret" not in str(error.value)
    for further, password in (({"imap_folder": "Rückläufer"}, "x"), ({}, "gehëim")):
        with pytest.raises(NotReady, match="ASCII letters only") as error:
            read_imap(settings(1, **further), password, lambda _: Taken())
        assert "gehëim" not in str(error.value)
    with pytest.raises(NotReady, match="Connection refused"):
        read_imap(settings(port), "x", lambda _: Taken())
