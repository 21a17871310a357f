"""What replies and bounces mean, in the words of those who write them."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lifecycle.channels.base import BounceClass, Scope
from lifecycle.channels.replies import At, classified, parse, refusal, seconds_to_wait

GOOGLE = [  # support.google.com/a/answer/3726730
    ("550 5.1.1 The email account that you tried to reach does not exist. Please try double-checking the "
     "recipient's email address for typos or unnecessary spaces.", "hard", "address"),
    ("553 5.1.2 We weren't able to find the recipient domain. Please check for any spelling errors.",
     "hard", "address"),
    ("550 5.2.1 The email account that you tried to reach is disabled.", "hard", "address"),
    ("550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages "
     "from being delivered.", "soft", "message"),
    ("450 4.2.1 The user you are trying to contact is receiving mail too quickly. Please resend your message at a "
     "later time.", "soft", "message"),
    ("452 4.2.2 The email account that you tried to reach is over quota.", "full", "message"),
    ("552 5.2.2 The email account that you tried to reach is over quota.", "full", "message"),
    ("552 5.2.3 Your message exceeded Google's message size limits.", "content", "message"),
    ("554 5.6.0 Mail message is malformed. Not accepted.", "content", "message"),
    ("555 5.5.2 Syntax error, goodbye.", "content", "message"),
    ("550 5.4.5 Daily sending quota exceeded.", "policy", "lane"),
    ("550 5.7.1 Our system has detected that this message is likely unsolicited mail. To reduce the amount of "
     "spam sent to Gmail, this message has been blocked.", "policy", "lane"),
    ("550 5.7.26 This mail is unauthenticated, which poses a security risk to the sender and Gmail users, and has "
     "been blocked.", "policy", "lane"),
    ("530 5.5.1 Authentication Required.", "policy", "lane"),
    ("530 5.7.0 Must issue a STARTTLS command first.", "policy", "lane"),
    ("421 4.7.0 Try again later, closing connection.", "policy", "lane"),
    ("421 4.4.5 Server busy, try again later.", "policy", "lane"),
    ("421 4.7.28 [192.0.2.1] Our system has detected an unusual rate of unsolicited mail originating from your IP "
     "address. To protect our users from spam, mail sent from your IP address has been temporarily rate limited.",
     "policy", "lane"),
    ("451 4.7.23 The sending IP address does not have a PTR record.", "policy", "lane"),
    ("451 4.3.0 Mail server temporarily rejected message.", "soft", "message"),
]  # fmt: skip

YAHOO = [  # help.yahoo.com/kb SLN26151, SLN3436; error texts as administrators quote them
    ("421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints "
     "- 4.16.55.1; see https://postmaster.yahooinc.com/error-codes", "policy", "lane"),
    ("421 4.7.1 [TS03] All messages from 192.0.2.1 will be permanently deferred", "policy", "lane"),
    ("451 4.7.0 [TS02] Temporarily deferred", "policy", "lane"),
    ("451 Resources temporarily not available - Please try again later [#4.16.5].", "policy", "lane"),
    ("553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1, because the ip is in Spamhaus's list",
     "policy", "lane"),
    ("554 Message not allowed - [PH01] Email not accepted for policy reasons.", "policy", "lane"),
    ("554 5.7.9 Message not accepted for policy reasons.", "policy", "lane"),
    ("554 delivery error: dd This user doesn't have a yahoo.com account (anna@yahoo.com) [-5] - "
     "mta1024.mail.ac4.yahoo.com", "hard", "address"),
    ("554 delivery error: dd Requested mail action aborted - mta1054.mail.ir2.yahoo.com", "unknown", "message"),
]  # fmt: skip

MICROSOFT = [  # learn.microsoft.com, NDRs in Exchange Online; spamresource.com, 2023-09
    ("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", "hard", "address"),
    ("550 5.4.1 Recipient address rejected: Access denied. [2023-09-18T12:48:32.808Z 08DBB45899852BA7]",
     "hard", "address"),
    ("550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302). [2023-09-19T15:05:34.324Z]",
     "hard", "address"),
    ("550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service "
     "provider since part of their network is on our block list (S3150).", "policy", "lane"),
    ("550 SC-001 (BAY004-MC4F49) Unfortunately, messages from 192.0.2.1 weren't sent. Please contact your "
     "Internet service provider since part of their network is on our block list.", "policy", "lane"),
    ("550 5.7.515 Access denied, sending domain brand.example does not meet the required authentication level.",
     "policy", "lane"),
    ("451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)", "policy", "lane"),
    ("451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. (S775)",
     "policy", "lane"),
    ("432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", "soft", "message"),
    ("550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required", "policy", "message"),
]  # fmt: skip

OTHERS = [
    ("550 5.1.1 <anna@example.com>: Recipient address rejected: User unknown in local recipient table",
     "hard", "address"),
    ("450 4.1.1 <anna@example.com>: Recipient address rejected: unverified address", "soft", "message"),
    ("450 5.1.1 <anna@example.com>: not now", "soft", "message"),
    ("450 4.2.0 <anna@example.com>: Recipient address rejected: Greylisted", "soft", "message"),
    ("451 4.7.1 Greylisting in action, please come back later", "soft", "message"),
    ("450 4.7.1 Error: too many connections from 192.0.2.1", "policy", "lane"),
    ("454 Throttling failure: Maximum sending rate exceeded.", "policy", "lane"),
    ("454 Throttling failure: Daily message quota exceeded.", "policy", "lane"),
    ("452 4.3.1 Insufficient system storage", "soft", "message"),
    ("552 Requested mail action aborted: exceeded storage allocation", "full", "message"),
    ("552 5.3.4 Message size exceeds fixed limit", "content", "message"),
    ("552 Message size exceeds maximum permitted", "content", "message"),
    ("550 anna@example.com...User account is overquota", "full", "message"),
    ("553 5.3.0 <anna@example.com>... 550 addressee unknown, relay=[192.0.2.1]", "hard", "address"),
    ("556 5.1.10 Domain does not accept mail (nullMX)", "hard", "address"),
    ("556 no mail here", "hard", "address"),
    ("525 5.7.13 User account disabled", "hard", "address"),
    ("550 No such user here", "hard", "address"),
    ("550 Unknown user", "hard", "address"),
    ("550 Denied by policy", "policy", "lane"),
    ("550-Requested action not taken: mailbox unavailable\n550-Reject due to policy restrictions.\n550 For "
     "explanation visit http://postmaster.1and1.com/en/error-messages", "policy", "lane"),
    ("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", "policy", "lane"),
    ("554 5.7.1 <anna@example.com>: Relay access denied", "policy", "lane"),
    ("550 relay not permitted", "policy", "lane"),
    ("550 5.1.8 Sender address rejected: Domain not found", "content", "message"),
    ("550 5.1.7 bad sender address syntax", "content", "message"),
    ("550 4.1.1 something odd", "soft", "message"),
    ("550 no", "unknown", "message"),
    ("550 5.3.2 system not accepting network messages", "soft", "message"),
]  # fmt: skip


def read(line: str) -> tuple[int, str]:
    """A reply as it stands in a log: code, and the words of its lines."""
    lines = line.split("\n")
    return int(lines[0][:3]), "\n".join(each[4:] for each in lines)


@pytest.mark.parametrize(("line", "kind", "scope"), [*GOOGLE, *YAHOO, *MICROSOFT, *OTHERS])
def test_what_providers_say(line: str, kind: BounceClass, scope: Scope) -> None:
    reply = parse(*read(line))
    refused = refusal(reply, at="dot" if reply.code == 554 else "rcpt")
    assert (refused.kind, refused.scope) == (kind, scope)
    assert refused.permanent == (line[0] == "5")
    assert refused.code == f"{reply.code} {reply.status}".strip() and "@" not in refused.text
    assert classified(reply.status, reply.code, reply.text) == kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("5.1.1", "hard"),
        ("5.4.4", "hard"),
        ("4.4.7", "soft"),
        ("5.4.7", "soft"),
        ("4.2.2", "full"),
        ("5.2.3", "full"),
        ("4.7.28", "policy"),
        ("5.7.1", "policy"),
        ("5.7.13", "hard"),
        ("5.6.0", "content"),
        ("5.0.0", "unknown"),
        ("", "unknown"),
        ("4.0.0", "soft"),
    ],
)
def test_status_of_a_bounce_report_without_a_reply(status: str, kind: BounceClass) -> None:
    assert classified(status, None, "") == kind


def test_words_of_a_bounce_report_count_where_its_status_says_little() -> None:
    assert classified("5.0.0", None, "smtp; 550 No such user") == "hard"
    assert classified("5.0.0", None, "554 Message not allowed - [PH01] Email not accepted for policy") == "policy"
    assert classified("5.1.1", None, "the mailbox is full of policies") == "hard"


@pytest.mark.parametrize(
    "line", ["553 sender address rejected", "550 5.1.1 no such user", "552 5.2.2 full", "550 no"]
)
def test_refused_sender_is_about_all_that_we_send(line: str) -> None:
    refused = refusal(parse(*read(line)), at="mail")
    assert (refused.kind, refused.scope, refused.permanent) == ("policy", "lane", True)
    assert refusal(parse(450, "4.1.8 domain not found"), at="mail").scope == "message"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("4.2.0 Greylisted, try again in 300 seconds", 310),
        ("Greylisting in action, please come back in 00:04:59", 309),
        ("Please try again in 5 minutes", 310),
        ("You have been greylisted. Try again after 1 minute.", 70),
        ("4.7.1 greylisted, retry in 1 hour", 3610),
        ("please wait 30s", 40),
        ("try again later", None),
        ("busy", None),
        ("message 5 minutes old", None),
        ("try again in 999999 hours", 86_400),
    ],
)
def test_time_to_wait(text: str, seconds: float | None) -> None:
    assert seconds_to_wait(text) == seconds
    assert refusal(parse(450, text), at="rcpt").retry_after == seconds
    assert refusal(parse(550, text), at="rcpt").retry_after is None


def test_lines_become_one_without_the_code_of_each() -> None:
    text = "5.7.1 [192.0.2.1] This mail has been blocked.\n5.7.1 See https://example.com/?p=5.7.1\n5.7.1  - gsmtp"
    reply = parse(550, text)
    assert reply.status == "5.7.1"
    assert reply.text == "[192.0.2.1] This mail has been blocked. See https://example.com/?p=5.7.1 - gsmtp"


@pytest.mark.parametrize("text", ["5.1.1. no", "5.1.1.1 no", "1.1.1 no", "5.1 no", "x 5.1.1", "5.1000.1"])
def test_what_is_no_status(text: str) -> None:
    assert parse(550, text).status == ""


def test_silent_server() -> None:
    assert refusal(parse(550, ""), at="rcpt").text == "the server gave no reason"


_NAME = st.from_regex(r"[a-z0-9.+=_'-]{1,20}|\"[a-z @.]{1,9}\"", fullmatch=True)
_PRE = st.sampled_from(["", "<", "to=<", "user ", "[", "(", "'", "mailto:", "ä", "\t"])


@given(before=st.text(max_size=20), name=_NAME, mark=_PRE, after=st.text(max_size=20))
@example("", '"john doe"', "<", ">")
@example("b@", "a", "", "@c")
def test_no_address_is_left(before: str, name: str, mark: str, after: str) -> None:
    address = f"{name}@private.example"
    text = parse(550, f"{before} {mark}{address}> {after}").text
    assert "@" not in text and "private" not in text
    assert text.isprintable() and "\n" not in text and len(text) <= 300


@given(name=st.from_regex(r"[a-z][a-z0-9.+_-]{2,20}[a-z]", fullmatch=True))
def test_name_of_the_recipient_is_taken_out_too(name: str) -> None:
    for words in (f"user {name.upper()} unknown", f"({name}) gone", f"{name}: no", f"no '{name}'."):
        text = parse(550, words, recipient=f"{name}@example.com").text
        assert name not in text.lower().replace("(address)", "")


@given(
    code=st.integers(400, 599),
    text=st.text(max_size=60) | st.sampled_from([line for line, _, _ in (*GOOGLE, *YAHOO, *MICROSOFT, *OTHERS)]),
    status=st.sampled_from(["", "5.1.1 ", "4.2.2 ", "5.7.1 ", "4.7.28 ", "5.0.0 ", "9.9.9 "]),
    at=st.sampled_from(get_args(At)),
)
def test_rules_that_always_hold(code: int, text: str, status: str, at: At) -> None:
    refused = refusal(parse(code, status + text), at=at)
    assert refused.permanent == (code >= 500) and refused.text
    assert refused.kind in get_args(BounceClass)
    if refused.scope == "address":
        assert refused.permanent and refused.kind == "hard" and at != "mail"
    if not refused.permanent:
        assert refused.kind in ("soft", "full", "policy") and (refused.scope == "lane") == (
            refused.kind == "policy"
        )
    if code == 421:
        assert refused.scope == "lane" or "receiving mail" in text or "thread limit" in text
