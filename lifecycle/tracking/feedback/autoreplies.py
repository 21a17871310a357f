"""Mails that a machine or a person answers with, and that are no bounces: out of office, challenges, receipts."""

from __future__ import annotations

import re
from collections.abc import Mapping

_DAEMON = re.compile(
    r"\b(mailer-?daemon|mail-?daemon|postmaster|mdaemon|mail delivery (sub)?system)\b", re.IGNORECASE
)

_AUTOMATIC_HEADERS = ("x-autoreply", "x-autorespond", "x-autoresponse", "x-auto-reply-from", "x-vacation")

_SUBJECTS = re.compile(
    "|".join(
        (
            r"\bout[- ]of[- ](the[- ])?office\b",
            r"\bauto(mated|matic)?[- ]?(reply|response)\b",
            r"\bon (vacation|holiday|(annual|parental|maternity) leave)\b",
            r"\baway from (my|the) (mail|office|desk)\b",
            r"\bautomatische (antwort|e?-?mail)|\babwesenheit|\bnicht im (büro|haus)\b|\bim urlaub\b",
            r"\br[ée]ponse automatique\b|\babsen(ce|te?) du bureau\b",
            r"\brespuesta autom[áa]tica\b|\b(fuera|ausente) de (la )?oficina\b",
            r"\brisposta automatica\b|\bfuori (sede|ufficio)\b",
            r"\bresposta autom[áa]tica\b|\bfora do escrit[óo]rio\b",
            r"\bautomatisch antwoord\b|\bafwezig",
            r"\bautosvar\b|\bautomatiskt? svar\b|\bfrånvaro|\bfrav[æe]r",
            r"\bautomaattinen vastaus\b|\bpoissaolo",
            r"\bodpowied[źz] automatyczna\b|\bautomatyczna odpowied[źz]\b|\bautoodpowied",
            r"\bautomatick[áé] odpov",
            r"\botomatik yan[ıi]t\b|\bofis d[ıi][şs][ıi]nda\b",
            r"\bавтоматическ(ий|ое) ответ|\bавтоответ|\bвне офиса\b|\bв отпуске\b",
            r"自动(回复|答复)|自動(回覆|返信|応答)|不在(通知|の?お知らせ|のため)|外出中|休假",
            r"자동 ?(회신|응답)|부재|휴가",
            r"رد تلقائي|خارج المكتب",
            r"תשובה אוטומטית",
            r"ตอบกลับอัตโนมัติ",
            r"trả lời tự động",
        )
    ),
    re.IGNORECASE,
)

_CHALLENGES = re.compile(
    "|".join(
        (
            r"\b(confirm|verify|authenticate|approve) (that |your )?(you|your|the|this|message|e-?mail|sender)\b",
            r"\b(confirmation|verification) (required|needed)\b",
            r"\bchallenge[- ]response\b",
            r"\bwaiting for (your )?(verification|approval|confirmation)\b",
            r"\bplease (verify|confirm|authenticate)\b",
        )
    ),
    re.IGNORECASE,
)

_RECEIPTS = re.compile(
    r"^\s*(read|gelesen|lu|leído|letto|прочитано|已读|開封済み?)\s*[::]|\bnot read:", re.IGNORECASE
)


def from_daemon(headers: Mapping[str, str]) -> bool:
    """A mail server speaks, and nobody in its name."""
    return bool(_DAEMON.search(headers.get("from", "")))


def is_auto_reply(headers: Mapping[str, str], subject: str) -> bool:
    """headers: by lower-case name. subject: decoded. Mail servers, too, mark what they write as automatic
    (RFC 3834), so that of them only the subject decides."""
    if _SUBJECTS.search(subject) or _CHALLENGES.search(subject) or _RECEIPTS.search(subject):
        return True
    if "x-failed-recipients" in headers or from_daemon(headers):
        return False
    automatic = headers.get("auto-submitted", "no").strip().lower()
    if automatic and not automatic.startswith("no"):
        return True
    if headers.get("precedence", "").strip().lower() in ("auto_reply", "auto-reply"):
        return True
    return any(name in headers for name in _AUTOMATIC_HEADERS)
