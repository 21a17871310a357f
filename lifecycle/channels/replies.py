"""What a mail server means by a refusal: SMTP replies, and the status codes of bounce reports.

Codes: RFC 5321, RFC 3463 and IANA's registry of enhanced status codes. Classes: deliverability notes, 2. Words: as
mailbox providers write them, read on 2026-11-24: support.google.com/a/answer/3726730, help.yahoo.com/kb SLN26151
and SLN3436, learn.microsoft.com "Email non-delivery reports and SMTP errors in Exchange Online", spamresource.com
of September 2023 on Microsoft's three ways to say that a user is unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from lifecycle.channels.base import BounceClass, Refused, Scope

At = Literal["mail", "rcpt", "data", "dot"]
"""The command, or the end of the mail, that was refused."""


@dataclass(frozen=True, slots=True)
class Reply:
    """`status`: enhanced code such as `5.1.1`, or empty. `text`: one line, without the codes and any address."""

    code: int
    status: str
    text: str


def parse(code: int, text: str, *, recipient: str = "") -> Reply:
    """`text`: the words of all lines, each without the code in front. `recipient`: whose name before the @ is
    taken out of the text, too."""
    lines = [_printable(line) for line in text.splitlines()]
    found = [_STATUS.match(line) for line in lines]
    status = next((match[1] for match in found if match), "")
    words = " ".join(line[match.end() :] if match else line for line, match in zip(lines, found, strict=True))
    return Reply(code, status, _without_addresses(_cut(words.strip()), recipient)[:_LONGEST_TEXT])


def classified(status: str, code: int | None, text: str) -> BounceClass:
    """Why a mail was not taken or came back. `status`: enhanced code, or empty. `code`: of the SMTP reply, where
    there is one; it decides whether the refusal is for good, else the status does."""
    for_good = code >= 500 if code else not status.startswith("4")
    if _SLOW_RECIPIENT.search(text):
        return "soft"
    return _for_good(status, code, text) if for_good else _for_now(status, code, text)


def refusal(reply: Reply, *, at: At) -> Refused:
    """What a reply of 400 and above means for what we wanted to send."""
    permanent = reply.code >= 500
    kind = classified(reply.status, reply.code, reply.text)
    if permanent and at == "mail":  # it knows no more than who we are
        kind = "policy"
    return Refused(
        code=f"{reply.code} {reply.status}".strip(),
        text=reply.text or "the server gave no reason",
        permanent=permanent,
        scope=_scope(reply, kind, at),
        kind=kind,
        retry_after=None if permanent else seconds_to_wait(reply.text),
    )


def seconds_to_wait(text: str) -> float | None:
    """From words such as "greylisted, try again in 5 minutes": so long and ten seconds more, at most a day."""
    if not _COME_BACK.search(text):
        return None
    if match := _CLOCK.search(text):
        hours, minutes, seconds = (int(part) for part in match.groups())
    elif match := _SPAN.search(text):
        number, unit = int(match[1]), match[2].lower()
        hours, minutes, seconds = (number if unit == each else 0 for each in "hms")
    else:
        return None
    return min(hours * 3600 + minutes * 60 + seconds + 10.0, 86_400.0)


def _scope(reply: Reply, kind: BounceClass, at: At) -> Scope:
    if reply.code < 500:
        return "lane" if kind == "policy" else "message"
    if at == "mail" or (kind == "policy" and not _ONE_RECIPIENT.fullmatch(reply.status)):
        return "lane"
    return "address" if kind == "hard" else "message"


def _for_now(status: str, code: int | None, text: str) -> BounceClass:
    if code == 421 or _RATE_STATUS.fullmatch(status) or _RATE.search(text):
        return "policy"
    return "full" if status.endswith(".2.2") or _FULL.search(text) else "soft"


def _for_good(status: str, code: int | None, text: str) -> BounceClass:
    if status == "5.4.1" and _NOT_IN_DIRECTORY.search(text):
        return "hard"
    if code in _LOGIN_WANTED:
        return "policy"
    if status in _SAYS_LITTLE or status.startswith(("2.", "4.")):
        return _by_words(text) or _by_code(code) or _by_status(status)
    if status == "5.2.3" and _TOO_LARGE.search(text):
        return "content"
    return _by_status(status)


def _by_status(status: str) -> BounceClass:
    if status in _DEAD:
        return "hard"
    if status in ("5.2.2", "5.2.3", "4.2.2"):
        return "full"
    if status in ("5.3.4", "5.1.7", "5.1.8") or status.startswith(("5.5.", "5.6.")):
        return "content"
    if status.startswith("5.7."):
        return "policy"
    return "unknown" if status in ("", "5.0.0") or status.startswith("5.1.") else "soft"


def _by_words(text: str) -> BounceClass | None:
    """What would cost an address comes last: also of a blocked sender some say that the mailbox is unavailable."""
    return next((kind for pattern, kind in _BY_WORDS if pattern.search(text)), None)


def _by_code(code: int | None) -> BounceClass | None:
    """552: exceeded storage (RFC 5321). 556: the domain takes no mail at all (RFC 7504)."""
    return "full" if code == 552 else "hard" if code == 556 else None


def _cut(text: str) -> str:
    """What can matter of it, so that nobody's nonsense keeps us busy; no address is cut in two."""
    return text if len(text) <= 1000 else text[:1000].rpartition(" ")[0]


def _printable(line: str) -> str:
    """PostgreSQL takes no NUL, and a terminal obeys what it is told."""
    return " ".join("".join(each if each.isprintable() else " " for each in line).split())


def _without_addresses(text: str, recipient: str) -> str:
    text = _ANY_AT.sub("(address)", _ADDRESS.sub("(address)", text))
    name = recipient.rpartition("@")[0]
    if len(name) > 1:
        text = re.sub(rf"(?<![\w.+-]){re.escape(name)}(?![\w+-])", "(address)", text, flags=re.IGNORECASE)
    return text


_LONGEST_TEXT = 300

_DEAD = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1", "5.4.4", "5.7.13"})
"""No such mailbox or domain, moved, disabled; 5.4.4: no way to the domain."""

_LOGIN_WANTED = frozenset({530, 534, 535, 538})

_SAYS_LITTLE = frozenset(
    {"", "5.0.0", "5.1.0", "5.2.0", "5.3.0", "5.4.0", "5.4.1", "5.4.5", "5.5.0", "5.5.1", "5.5.2", "5.5.4"}
)
"""Where the words say more; Outlook.com, for example, has 5.5.0 for a mailbox that does not exist."""

_RATE_STATUS = re.compile(r"4\.7\.(2\d|3\d|40|[5-8]\d\d)")
"""Our reverse name, SPF, DKIM, DMARC, TLS or rate (IANA's and Google's); Microsoft's 4.7.500 to 4.7.899."""

_ONE_RECIPIENT = re.compile(r"5\.7\.(2|124|13[3-6])")
"""Mailing lists and mailboxes that take mail from some only; the numbers with three digits are Exchange's."""

_STATUS = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?![\w.])[\s:;,]*")
_ADDRESS = re.compile(r"(?:\"[^\"]*\"|[^\s<>()\[\]:;,\"']+)@[^\s<>()\[\]:;,\"']+")
_ANY_AT = re.compile(r"\S*[@＠]\S*")


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_SLOW_RECIPIENT = _words(r"receiving mail (too quickly|at a rate)", r"recipient thread limit")
"""Google's 4.2.1 and 5.2.1, Exchange's 4.3.2: others write too much to this mailbox."""

_NOT_IN_DIRECTORY = _words(r"recipient address rejected: access denied")
"""Exchange Online for a mailbox that does not exist."""

_RATE = _words(
    r"temporarily deferred",
    r"rate[- ]?limit",
    r"server (is )?(too )?busy",
    r"\[TSS?\d\d\]",
    r"throttl",
    r"unusual (rate|traffic)",
    r"unexpected volume",
    r"too many (concurrent|connections|sessions|messages|mails|emails)",
    r"(sending|send|message|mail|connection|relay) (rate|limit|quota) (has been |was )?exceeded",
    r"exceeded .{0,30}(sending|message|mail|connection|hourly|daily) (rate|limit|quota)",
    r"resources temporarily (not available|unavailable)",
)
_TOO_LARGE = _words(
    r"(message|mail|content|body|header)s?('s)? (file )?(size|length) .{0,20}(exceed|limit|max|too)",
    r"(message|mail|content|body) (is |was )?(too|larger|bigger|exceeds) ",
    r"(exceeds|maximum|max) .{0,20}(message|mail) size",
    r"size limit",
    r"too (large|big|long)\b",
)
_FULL = _words(
    r"over ?-?(its |disk )?quota",
    r"quota (is |has been |was )?(exceeded|full|reached)",
    r"exceed(s|ed|ing)? .{0,30}(quota|storage)",
    r"(mailbox|inbox|mail box|account|storage|user)('s)? .{0,20}\bfull\b",
    r"(mailbox|recipient|user) (size|storage) .{0,20}(exceed|limit)",
    r"out of storage",
    r"(not enough|insufficient) (storage|space|disk)",
)
_BLOCKED = _words(
    r"block(ed)? ?-?list",
    r"black ?-?list",
    r"denied by|denylist",
    r"\bblocked\b",
    r"banned",
    r"spam",
    r"\brbl\b|dnsbl",
    r"unsolicited",
    r"reputation",
    r"polic(y|ies)",
    r"relay(ing)?\b.{0,20}(denied|not permitted|not allowed|prohibited)",
    r"unable to relay",
    r"\b(spf|dkim|dmarc)\b",
    r"authenticat",
    r"reverse dns|\bptr\b|rdns",
    r"sender .{0,30}(rejected|denied|refused|not allowed|verify)",
    r"not accepted from|will not be accepted",
    r"\[(PH|BL|TS)\d\d\]",
)
_GONE = _words(
    r"(user|recipient|mailbox|account|address|addressee|person|name|alias)\b.{0,40}\b(unknown|not found|not exist|"
    r"does ?n[o']t exist|no longer|invalid|not valid|disabled|deactivated|inactive|suspended|closed|discontinued|"
    r"unavailable|not available|expired|terminated)",
    r"(unknown|invalid|no such|non-?existent|inactive|disabled|bad destination) (\w+ ){0,2}?(user|recipient|"
    r"mailbox|mail box|account|address|local part|person|alias|domain|name)",
    r"(user|account|mailbox|recipient).{0,20}(is|was|has been) (disabled|deleted|removed|closed|suspended)",
    r"no (mailbox|mail box|account|user|one|recipient)\b.{0,30}\b(here|by that name|with that|of that name|found)",
    r"(does ?n[o']t|does not|not) have an? .{0,30}account",
    r"not (a |our )(valid |known )?(user|recipient|mailbox|customer|account)",
    r"not listed in|not known (here|to this|at this)",
    r"(host|domain)( name| or domain name)?( is| was)? (not found|does ?n[o']t exist|unknown)",
    r"(has been|is|was) (permanently )?(discontinued|deactivated)",
)
_BY_WORDS: tuple[tuple[re.Pattern[str], BounceClass], ...] = (
    (_TOO_LARGE, "content"),
    (_RATE, "policy"),
    (_FULL, "full"),
    (_BLOCKED, "policy"),
    (_GONE, "hard"),
)

_COME_BACK = _words(r"try", r"wait", r"gr[ea]y-?list", r"come back", r"re-?send", r"later")
_CLOCK = re.compile(r"\b(\d\d):([0-5]\d):([0-5]\d)\b")
_SPAN = re.compile(
    r"\b(?:in|after|for|wait|least|about)\s+(\d{1,6})\s*(h|m|s)(?:\b|ou?r|rs?\b|in|ec)", re.IGNORECASE
)
