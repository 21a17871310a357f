"""What verdicts and messages mean, in words for an operator. Instants are UTC; no address is ever written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_ADDRESS = re.compile(r"[^\s<>()]+@[^\s<>()]+")
_SUPPRESSIONS = {
    "unsubscribe": "they unsubscribed",
    "complaint": "they reported a message as spam",
    "hard_bounce": "their address bounced",
    "manual": "they were blocked by hand",
}


@dataclass(frozen=True)
class Filler:
    """A message that takes a slot of a cap."""

    message_id: int
    what: str
    send_at: datetime


@dataclass(frozen=True)
class Reason:
    """A verdict other than `selected` and what is known about it.

    cap: the rule as it stood, as in config/caps.yaml. fillers: messages that fill it, oldest first; for lost_to
    the one that won. since: when a suppression began.
    """

    verdict: str
    rule: str | None
    shop: str | None
    frees_at: datetime | None = None
    since: datetime | None = None
    cap: Mapping[str, Any] | None = None
    fillers: Sequence[Filler] = ()

    def words(self) -> str:
        explain = _EXPLAINED.get(self.verdict)
        return f"{self.verdict}: {explain(self)}" if explain else self.verdict


def moment(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"


def message_words(message: Any) -> str:
    """What became of a row of the ledger."""
    written = f"from {message.shop} in {message.locale}"
    left_at = moment(message.sent_at or message.send_at)
    match message.state:
        case "accepted":
            return f"sent at {left_at} {written}, accepted by the mail server"
        case "unknown":
            return (
                f"on its way at {left_at} {written} when contact was lost; it may have arrived and is not sent "
                "again"
            )
        case "refused":
            return f"refused: {_ADDRESS.sub('‹address›', message.reason or 'no reason was given')}"
        case "sending":
            return f"being sent {written}"
        case _:
            held = f", not before {moment(message.not_before)}" if message.not_before else ""
            return f"reserved at {moment(message.reserved_at)}, to be sent {written}{held}"


def _no_address(reason: Reason) -> str:
    return "no e-mail address is known that mail can be sent to"


def _suppressed(reason: Reason) -> str:
    words = _SUPPRESSIONS.get(reason.rule or "", reason.rule or "no reason is known")
    return words + (f" on {reason.since:%Y-%m-%d}" if reason.since else "")


def _no_consent(reason: Reason) -> str:
    if reason.rule == "withdrawn":
        return f"they withdrew their consent at {reason.shop}"
    return f"they gave {reason.shop or 'no shop'} no consent that counts"


def _policy(reason: Reason) -> str:
    return f"{reason.shop}, the shop of their newest order, is not in config/shops.yaml"


def _hold_out(reason: Reason) -> str:
    return f"left out on purpose by the experiment {reason.rule}, to measure what the others' messages do"


def _capped(reason: Reason) -> str:
    if reason.cap is None:
        return f"rule {reason.rule} had no slot left"
    if reason.cap["limit"] == 0:
        return f"rule {reason.rule} allows nothing"
    return f"{_allowance(reason)} and {_listed(reason.fillers)} it; {_free_again(reason)}"


def _lost_to(reason: Reason) -> str:
    if reason.cap is None or not reason.fillers:
        return f"a message of higher priority took the slot of rule {reason.rule}"
    [won] = reason.fillers
    took = f"message {won.message_id} ({won.what}, {_day(won.send_at)}) goes first and took the slot"
    return f"{took}: {_allowance(reason)}; {_free_again(reason)}"


def _condition_gone(reason: Reason) -> str:
    if reason.rule == "expired":
        return "it had waited too long for the mail server, so it was not sent any more"
    return "the reason to write no longer held"


_EXPLAINED = {
    "no_address": _no_address,
    "suppressed": _suppressed,
    "no_consent": _no_consent,
    "policy": _policy,
    "condition_gone": _condition_gone,
    "hold_out": _hold_out,
    "capped": _capped,
    "lost_to": _lost_to,
}


def _allowance(reason: Reason) -> str:
    assert reason.cap is not None
    limit, days = reason.cap["limit"], reason.cap["days"]
    kind = "e-mail" if reason.cap["channels"] == ["email"] else "message"
    where = f" from {reason.shop}" if reason.cap["scope"] == "customer_and_shop" else ""
    return f"rule {reason.rule} allows {_count(limit, kind)} in {_count(days, 'day')}{where}"


def _listed(fillers: Sequence[Filler]) -> str:
    """`messages 17 (winback, 18 Nov) and 42 (vip_thanks, 20 Nov) fill`."""
    named = [f"{filler.message_id} ({filler.what}, {_day(filler.send_at)})" for filler in fillers]
    if not named:
        return "earlier messages fill"
    if len(named) == 1:
        return f"message {named[0]} fills"
    return f"messages {', '.join(named[:-1])} and {named[-1]} fill"


def _free_again(reason: Reason) -> str:
    assert reason.frees_at is not None
    return f"free again on {moment(reason.frees_at)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _day(instant: datetime) -> str:
    return f"{instant.day} {instant:%b}"
