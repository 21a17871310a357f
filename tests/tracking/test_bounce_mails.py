"""What mails at the bounce addresses mean: bounces of many servers, complaints, and all that is neither."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.addresses import address_hash
from lifecycle.tracking.feedback.mails import Arrived, read_mail
from lifecycle.tracking.feedback.records import Report
from sandbox import bouncing
from tests.tracking.feedback import SECRET, address, bounce_address, sent_mail, unsubscribe_address

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
ID = 101
FBL = "fbl@bounce.brand.example"


def read(content: bytes, to: str = bounce_address(ID), envelope_from: str | None = "") -> Report:
    [report] = read_all(content, to, envelope_from)
    return report


def read_all(content: bytes, to: str = bounce_address(ID), envelope_from: str | None = "") -> list[Report]:
    return read_mail(Arrived(content, [to], envelope_from), SECRET, source="lmtp", now=NOW)


def hashed(text: str) -> tuple[str, ...]:
    return (address_hash(SECRET, "email", text),)


@pytest.mark.parametrize(
    "shape", [bouncing.postfix, bouncing.exchange, bouncing.gmail, bouncing.qmail, bouncing.exim]
)
@pytest.mark.parametrize("to", [bounce_address(ID), FBL], ids=["token", "returned mail"])
def test_an_unknown_user_is_a_hard_bounce_whoever_writes_it(shape: object, to: str) -> None:
    report = read(shape(to, address(ID), sent_mail(ID)), to)  # type: ignore[operator]
    assert (report.kind, report.bounce) == ("bounced", "hard"), report
    assert report.named == hashed(address(ID))
    assert report.message_id == ID
    assert "@" not in report.text and "p1" not in report.text


@pytest.mark.parametrize(
    ("status", "words", "bounce"),
    [
        ("5.1.1", "550 5.1.1 no such user", "hard"),
        ("5.0.0", "550 5.1.1 no such user", "hard"),
        ("5.1.10", "550 5.1.10 RESOLVER.ADR.RecipientNotFound", "hard"),
        ("5.2.2", "552 5.2.2 mailbox full", "full"),
        ("4.2.2", "452 4.2.2 The email account that you tried to reach is over quota", "full"),
        ("4.4.7", "Message expired", "soft"),
        ("4.4.1", "connect to mx.example.com[192.0.2.1]:25: Connection timed out", "soft"),
        ("5.7.1", "550 5.7.1 blocked using a list of spammers", "policy"),
        ("5.7.26", "550-5.7.26 This mail has been blocked because the sender is unauthenticated", "policy"),
        ("5.3.4", "552 5.3.4 Message size exceeds fixed limit", "content"),
    ],
)
def test_the_status_decides_what_a_bounce_means(status: str, words: str, bounce: str) -> None:
    report = read(bouncing.postfix(bounce_address(ID), address(ID), sent_mail(ID), status=status, words=words))
    assert (report.kind, report.bounce) == ("bounced", bounce)


def test_a_full_mailbox_and_a_refused_text_in_words_only() -> None:
    full = "Remote host said: 552 sorry, that mailbox is over quota"
    spam = "Remote host said: 554 Your message was classified as spam"
    for words, bounce in ((full, "full"), (spam, "policy")):
        report = read(bouncing.qmail(bounce_address(ID), address(ID), sent_mail(ID), words=words))
        assert (report.kind, report.bounce) == ("bounced", bounce)


@pytest.mark.parametrize("action", ["delayed", "relayed", "expanded"])
def test_what_is_late_or_goes_on_is_no_bounce(action: str) -> None:
    content = bouncing.postfix(bounce_address(ID), address(ID), sent_mail(ID), action=action, status="4.4.1")
    report = read(content)
    assert (report.kind, report.message_id) == ("notice", ID)


def test_a_delivered_notice_is_a_delivery() -> None:
    content = bouncing.postfix(bounce_address(ID), address(ID), sent_mail(ID), action="delivered", status="2.0.0")
    assert read(content).kind == "delivered"


AWAY = [
    ("Automatic reply: We miss you", "I am out of the office until Monday.", ()),
    ("Out of Office: We miss you", "Back on 1 December.", ("Auto-Submitted: auto-replied",)),
    ("Automatische Antwort: Wir vermissen Sie", "Ich bin im Urlaub. Unbekannter Empfänger? 550", ()),
    ("Abwesenheitsnotiz", "Ich bin nicht im Büro.", ()),
    ("Réponse automatique : vous nous manquez", "Je suis absente jusqu'au 30 novembre.", ()),
    ("Respuesta automática: te echamos de menos", "Estoy fuera de la oficina.", ()),
    ("Risposta automatica", "Sono fuori sede.", ()),
    ("Resposta automática", "Estou de férias.", ()),
    ("自动回复: 我们想念您", "我现在休假，不在办公室。", ()),
    ("自動返信：お久しぶりです", "ただいま外出中です。", ()),
    ("부재중 자동 회신", "휴가 중입니다.", ()),
    ("Автоответ: мы скучаем", "Я в отпуске.", ()),
    ("رد تلقائي", "أنا خارج المكتب.", ()),
    ("Otomatik yanıt: sizi özledik", "Ofis dışındayım.", ()),
    ("Autosvar", "Jag är på semester. The user unknown 550 5.1.1.", ()),
    ("Re: We miss you", "Gone fishing.", ("Auto-Submitted: auto-replied (vacation)", "Precedence: bulk")),
    ("Re: We miss you", "Gone fishing.", ("Precedence: auto_reply",)),
    ("Re: We miss you", "Gone fishing.", ("X-Autoreply: yes",)),
    ("Please confirm your message to Anna", "Click here to prove that you are human.", ()),
    ("Read: We miss you", "Your message was read.", ()),
]


@pytest.mark.parametrize(("subject", "text", "headers"), AWAY)
@pytest.mark.parametrize("envelope_from", ["", "p1@example.com"], ids=["null sender", "own sender"])
def test_automatic_answers_are_no_bounces(
    subject: str, text: str, headers: tuple[str, ...], envelope_from: str
) -> None:
    content = bouncing.away(bounce_address(ID), "Anna <p1@example.com>", subject, text, *headers)
    report = read(content, envelope_from=envelope_from)
    assert (report.kind, report.message_id) == ("notice", ID)


def test_what_a_person_answers_is_kept_and_no_bounce() -> None:
    text = "Hello, my old mailbox p1@example.com is gone: 550 5.1.1 user unknown. Please use the new one."
    content = bouncing.away(bounce_address(ID), "Anna <p1@example.com>", "Re: We miss you", text)
    assert read(content, envelope_from="p1@example.com").kind == "unclear"
    assert read(content, to="b+nobody@bounce.brand.example", envelope_from="p1@example.com").kind == "notice"


@pytest.mark.parametrize("headers_only", [True, False])
def test_a_complaint_is_found_by_the_mail_that_it_returns(headers_only: bool) -> None:
    report = read(bouncing.feedback_loop(FBL, sent_mail(ID), headers_only=headers_only), FBL)
    assert (report.kind, report.message_id) == ("complained", ID)


def test_a_complaint_is_found_by_the_envelope_that_it_names() -> None:
    content = bouncing.feedback_loop(FBL, sent_mail(ID, key="<other@brand.example>"), mail_from=bounce_address(ID))
    assert read(content, FBL).message_id == ID


@pytest.mark.parametrize(
    ("kind", "meant"), [("not-spam", "notice"), ("fraud", "unclear"), ("auth-failure", "unclear")]
)
def test_other_feedback_is_no_complaint(kind: str, meant: str) -> None:
    assert read(bouncing.feedback_loop(FBL, sent_mail(ID), kind=kind), FBL).kind == meant


def test_an_unsubscribe_by_mail_needs_nothing_but_its_address() -> None:
    content = b"From: Anna <p1@example.com>\r\nSubject: unsubscribe\r\n\r\n"
    report = read(content, unsubscribe_address(ID), envelope_from="p1@example.com")
    assert (report.kind, report.message_id) == ("unsubscribed", ID)
    bounce = bouncing.postfix(unsubscribe_address(ID), address(ID), sent_mail(ID))
    assert read(bounce, unsubscribe_address(ID)).kind == "notice"


FORGED = {
    "foreign secret": bounce_address(ID, b"the secret of somebody else, 32 c"),
    "for another purpose": unsubscribe_address(ID).replace("u+", "b+"),
    "no token": "b+x@bounce.brand.example",
    "nothing": "postmaster@bounce.brand.example",
}


@pytest.mark.parametrize("to", FORGED.values(), ids=FORGED.keys())
@pytest.mark.parametrize("key", ["<101.0123456789abcdef@brand.example>", "<101@brand.example>", "", "<@>"])
def test_a_number_alone_names_no_message(to: str, key: str) -> None:
    report = read(bouncing.postfix(to, address(ID), sent_mail(ID, key=key)), to)
    assert (report.kind, report.message_id) == ("bounced", None)


def test_the_message_id_of_one_message_is_no_key_to_another() -> None:
    forged = sent_mail(
        102, key=sent_mail(101).split(b"Message-ID: ")[1].split(b"\r\n")[0].decode().replace("101.", "102.")
    )
    assert read(bouncing.postfix(FBL, address(102), forged), FBL).message_id is None


def test_a_token_in_upper_case_prefix_and_brackets_is_read() -> None:
    to = f"<B{bounce_address(ID)[1:]}>"
    assert read(bouncing.postfix(to, address(ID), b"Subject: x\r\n\r\n"), to).message_id == ID


def test_a_status_in_base64_and_headers_only_are_read() -> None:
    for options in ({"encoded": True}, {"headers_only": True}):
        report = read(bouncing.postfix(FBL, address(ID), sent_mail(ID), **options), FBL)  # type: ignore[arg-type]
        assert (report.kind, report.bounce, report.message_id) == ("bounced", "hard", ID)


def test_a_forwarded_mail_names_the_original_address_too() -> None:
    content = bouncing.postfix(bounce_address(ID), "other@example.net", sent_mail(ID), original=address(ID))
    assert set(read(content).named) == {*hashed(address(ID)), *hashed("other@example.net")}


def test_of_several_recipients_each_is_told() -> None:
    content = bouncing.postfix(bounce_address(ID), address(ID), sent_mail(ID))
    second = b"\r\nFinal-Recipient: rfc822; p2@example.com\r\nAction: delayed\r\nStatus: 4.4.1\r\n"
    both = content.replace(
        b"in virtual mailbox table\r\n\r\n--", b"in virtual mailbox table\r\n" + second + b"\r\n--"
    )
    assert [each.kind for each in read_all(both)] == ["bounced", "notice"]
    assert len({each.key for each in read_all(both)}) == 2


@pytest.mark.parametrize("depth", [50, 3000])
def test_parts_in_parts_without_end_break_nothing(depth: int) -> None:
    opened = b"".join(
        b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(depth)
    )
    assert read(opened).kind in ("unclear", "notice", "bounced")


BREAKS = st.sampled_from(
    [b"", b"\r\n", b"\r\n\r\n", b"--outer=_1", b"\xff\xfe", b"Content-Type: ", b"=?utf-8?b?", b"\0"]
)


@given(st.sampled_from([bouncing.postfix, bouncing.exchange, bouncing.gmail, bouncing.qmail]), st.data())
def test_a_mutilated_bounce_never_raises_nor_names_another_message(shape: object, data: st.DataObject) -> None:
    content = shape(FBL, address(ID), sent_mail(ID))  # type: ignore[operator]
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(len(content), start + 400)))
        content = content[:start] + data.draw(BREAKS) + content[stop:]
    for report in read_all(content, FBL):
        assert report.message_id in (None, ID)
        assert set(report.named) <= set(hashed(address(ID))) or report.kind in ("bounced", "delivered")


@given(st.binary(max_size=2000))
def test_any_bytes_are_read(content: bytes) -> None:
    assert all(each.kind in ("notice", "unclear", "bounced") for each in read_all(content))


CLASSES = {
    "hard": {"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1", "5.7.13", "5.4.4"},
    "full": {"5.2.2", "5.2.3"},
    "content": {"5.3.4", "5.6.0", "5.6.1", "5.1.7", "5.1.8"},
    "policy": {"5.7.1", "5.7.26", "5.7.515", "5.7.25"},
}
LOCALS = st.from_regex(r"[a-z][a-z0-9]{1,10}", fullmatch=True)


@given(
    st.sampled_from([(kind, status) for kind, found in CLASSES.items() for status in sorted(found)]),
    st.lists(LOCALS, min_size=1, max_size=4, unique=True),
    st.sampled_from(["failed", "delayed", "relayed", "expanded", "delivered", "Failed", "FAILED (permanent)"]),
    st.sampled_from(["\r\n", "\n"]),
    st.booleans(),
)
def test_generated_reports_mean_what_their_fields_say(
    classed: tuple[str, str], names: list[str], action: str, newline: str, wrapped: bool
) -> None:
    bounce, status = classed
    groups = [
        f"Original-Recipient: rfc822; {name}@example.com\nFinal-Recipient: rfc822; {name}@example.com\n"
        f"Action: {action}\nStatus: {status}{' (as we say)' if wrapped else ''}\n"
        for name in names
    ]
    status_part = "Reporting-MTA: dns; mx.example.com\n\n" + "\n".join(groups)
    fold = "\n " if wrapped else " "
    content = (
        "From: MAILER-DAEMON@mx.example.com\nMIME-Version: 1.0\n"
        f'Content-Type: multipart/report; report-type="delivery-status";{fold}boundary=b\n\n'
        "--b\nContent-Type: text/plain\n\nSorry.\n"
        f"--b\nContent-Type: message/delivery-status\n\n{status_part}\n--b--\n"
    ).replace("\n", newline)
    reports = read_all(content.encode())
    assert len(reports) == len(names)
    word = action.lower().split()[0]
    assert {each.kind for each in reports} == {{"failed": "bounced", "delivered": "delivered"}.get(word, "notice")}
    if word == "failed":
        assert [each.named for each in reports] == [hashed(f"{name}@example.com") for name in names]
        assert {(each.bounce, each.status) for each in reports} == {(bounce, status)}
