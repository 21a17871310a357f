"""Numbers and names of a report as people read them."""

from __future__ import annotations

from datetime import datetime

from babel import Locale, UnknownLocaleError
from babel.numbers import format_currency

from lifecycle.money import show, to_minor
from lifecycle.reports.records import RunReport
from lifecycle.reports.statistics import Rate

VERDICT_WORDS = {
    "no_address": "no usable address",
    "suppressed": "address suppressed",
    "no_consent": "no consent",
    "policy": "forbidden by policy",
    "condition_gone": "reason to write is gone",
    "hold_out": "held out, to measure",
    "capped": "cap reached",
    "quota": "quota used up",
    "lost_to": "another message got the slot",
    "quiet_hours": "selected, held until their quiet hours end",
    "content": "could not be written",
    "selected": "selected",
}


def number(value: int) -> str:
    return f"{value:,}"


def percent(share: float | None) -> str:
    """As many digits as tell something: `24 %`, `12.1 %`, `1.2 %`, `0.12 %`."""
    if share is None:
        return "–"
    value = 100 * share
    digits = 0 if value >= 20 or value == 0 else 1 if value >= 1 else 2
    return f"{value:.{digits}f}\N{NO-BREAK SPACE}%"


def bounds(rate: Rate) -> str:
    """`10.1–13.8 %`: the 95 % interval."""
    if rate.low is None or rate.high is None:
        return ""
    narrow = rate.high - rate.low < 0.02
    digits = int(narrow) if rate.low >= 0.2 else 1 if rate.high >= 0.01 else 2
    return f"{100 * rate.low:.{digits}f}–{100 * rate.high:.{digits}f}\N{NO-BREAK SPACE}%"


def money(minor: int, currency: str) -> str:
    return show(minor, currency)


def round_money(minor: int, currency: str) -> str:
    """Large amounts without their fractions: `€5,237`."""
    unit = to_minor(1, currency)
    if abs(minor) < 1000 * unit:
        return show(minor, currency)
    return format_currency(round(minor / unit), currency, "¤#,##0", locale="en", currency_digits=False)


def worth(minor: float | None, currency: str) -> str:
    """Of a slot: an expectation, so no more digits than money has."""
    return "–" if minor is None else show(round(minor), currency)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    return f"{int(seconds) // 60}\N{NO-BREAK SPACE}min {int(seconds) % 60:02}\N{NO-BREAK SPACE}s"


def moment(at: datetime | None) -> str:
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M} UTC"


def plain(name: str) -> str:
    """`cant_lose` as words."""
    return name.replace("_", " ")


def language(code: str) -> str:
    """`French (fr)`; what is no language stays as it is."""
    try:
        name = Locale.parse(code, sep="-").get_display_name("en")
    except (ValueError, UnknownLocaleError):
        return "not chosen" if code == "–" else code
    return f"{name} ({code})" if name else code


def headline(report: RunReport) -> str:
    """What happened, in a few sentences."""
    return " ".join(sentence for sentence in (_of_plans(report), _of_earlier_dates(report)) if sentence)


def _of_plans(report: RunReport) -> str:
    figures = report.total.figures
    nothing = "" if report.also_sent else "Nothing was sent."
    if not report.plans:
        return "No campaign ran."
    if not any(plan.applied for plan in report.plans):
        chosen = f"{number(figures.selected)} of {number(figures.audience)} people would get a mail."
        return f"A dry run: {chosen} {nothing}".rstrip()
    if not figures.accepted:
        waiting = f"{number(figures.held)} messages are waiting." if figures.held else ""
        return f"{nothing} {waiting}".strip()
    sentence = (
        f"{_many(figures.accepted, 'mail')} went out; "
        f"{number(figures.opened['person'])} were opened by people, {number(figures.clicked['person'])} clicked, "
        f"and {_many(figures.orders, 'order')} worth {money(figures.revenue_minor, report.currency)} followed."
    )
    if not report.sent_now:
        return f"{sentence} All of them had gone out before this run, which sent nothing twice."
    if report.sent_now < figures.accepted:
        return f"{sentence} This run sent {number(report.sent_now)} of them, the others had gone out before."
    return sentence


def _of_earlier_dates(report: RunReport) -> str:
    if not report.also_sent:
        return ""
    mails = sum(each.mails for each in report.also_sent)
    more = "more " if report.total.figures.accepted else ""
    each_plan = ", ".join(
        f"{plain(each.campaign)} of {each.occurrence} ({number(each.mails)})" for each in report.also_sent
    )
    return f"{_many(mails, f'{more}mail')} of earlier dates went out in this run: {each_plan}."


def _many(count: int, noun: str) -> str:
    return f"{number(count)} {noun}" + ("" if count == 1 else "s")
