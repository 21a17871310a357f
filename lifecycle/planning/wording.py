"""What verdicts and messages mean, in words for an operator. Instants are UTC; no address is ever written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lifecycle.planning.policy import OTHER_SHOPS
from lifecycle.settings.models import CapRule, Counting, Quota
from lifecycle.settings.policies import policies

_ADDRESS = re.compile(r"[^\s<>()]+@[^\s<>()]+")
_SUPPRESSIONS = {
    "unsubscribe": "they unsubscribed",
    "complaint": "they reported a message as spam",
    "hard_bounce": "their address bounced",
    "soft_bounce": "mails to their address came back again and again, so that it rests",
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

    cap, quota: the rule as it stood. fillers: messages that fill it, oldest first; for lost_to the one that won.
    lost_to: the campaign that won, where its message is not reserved yet. since: when a suppression began.
    """

    verdict: str
    rule: str | None
    shop: str | None
    frees_at: datetime | None = None
    since: datetime | None = None
    cap: CapRule | None = None
    quota: Quota | None = None
    lost_to: str | None = None
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
            taker = (
                "the mail server" if message.mailbox_provider or message.channel == "email" else message.channel
            )
            return f"sent at {left_at} {written}, accepted by {taker}"
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
    if reason.rule == "phone":
        return "no telephone number is known that messages can be sent to"
    if reason.rule == "account":
        return f"no account of theirs at {reason.shop} is known that messages can be sent to"
    return "no e-mail address is known that mail can be sent to"


def _suppressed(reason: Reason) -> str:
    words = _SUPPRESSIONS.get(reason.rule or "", reason.rule or "no reason is known")
    return words + (f" on {reason.since:%Y-%m-%d}" if reason.since else "")


def _no_consent(reason: Reason) -> str:
    if reason.rule == "withdrawn":
        return f"they withdrew their consent at {reason.shop}"
    if reason.rule == "reconfirm":
        return f"their consent at {reason.shop} is so old that their country's law wants it confirmed again"
    if (reason.rule or "").startswith("basis_"):
        basis = (reason.rule or "").removeprefix("basis_").replace("_", " ")
        return f"their consent at {reason.shop} is by {basis}, which their country's law does not accept"
    return f"they gave {reason.shop or 'no shop'} no consent that counts"


def _policy(reason: Reason) -> str:
    if reason.rule == "unknown_shop":
        return f"{reason.shop}, the shop of their newest order, is not in config/shops.yaml"
    if reason.rule == OTHER_SHOPS:
        return f"the channel does not send for {reason.shop}"
    if reason.rule == "no_common_hour":
        return "there is no hour outside of the quiet hours in all the time zones where they may be"
    rule = next((each for each in policies().rules if each.name == reason.rule), None)
    if rule is None:
        return f"rule {reason.rule} forbids it"
    return f'{rule.name} forbids it: "{rule.says}" ({rule.source}, read {rule.dated})'


def _hold_out(reason: Reason) -> str:
    return f"left out on purpose by the experiment {reason.rule}, to measure what the others' messages do"


def _capped(reason: Reason) -> str:
    if reason.cap is None:
        return f"rule {reason.rule} had no slot left"
    if reason.cap.limit == 0:
        return f"rule {reason.rule} allows nothing"
    return f"{_allowance(reason.cap, reason.shop)} and {_listed(reason.fillers)} it; {_free_again(reason)}"


def _lost_to(reason: Reason) -> str:
    if reason.lost_to is not None:
        won = f"{reason.lost_to} goes first or is worth more, and the slot is kept for it"
    elif reason.fillers:
        [filler] = reason.fillers
        won = f"message {filler.message_id} ({filler.what}, {_day(filler.send_at)}) goes first and took the slot"
    else:
        won = "a message that goes first took the slot"
    if reason.cap is None:
        return f"{won} of rule {reason.rule}"
    return f"{won}: {_allowance(reason.cap, reason.shop)}; {_free_again(reason)}"


def _quota(reason: Reason) -> str:
    if reason.quota is None:
        return f"quota {reason.rule} was used up"
    of = {"shop": f" of {reason.shop}", "channel": " of the channel", "sender_domain": " of the sender's domain"}
    free = f"; {_free_again(reason)}" if reason.frees_at else ""
    return (
        f"the slots of quota {reason.rule}{of[reason.quota.scope]} {window_words(reason.quota)} were used up, or "
        f"went to messages that are worth more{free}"
    )


def _condition_gone(reason: Reason) -> str:
    if reason.rule == "expired":
        return "it had waited too long for the mail server, so it was not sent any more"
    if reason.rule == "ordered":
        return "they have ordered since the segments were built"
    return "the reason to write no longer held"


def _quiet_hours(reason: Reason) -> str:
    until = f" until {moment(reason.frees_at)}" if reason.frees_at else ""
    return f"it is night where they are; held{until}"


_EXPLAINED = {
    "no_address": _no_address,
    "suppressed": _suppressed,
    "no_consent": _no_consent,
    "policy": _policy,
    "condition_gone": _condition_gone,
    "hold_out": _hold_out,
    "capped": _capped,
    "quota": _quota,
    "lost_to": _lost_to,
    "quiet_hours": _quiet_hours,
}


def _allowance(cap: CapRule, shop: str | None) -> str:
    kind = "e-mail" if cap.channels == ("email",) else "message"
    where = {"customer_and_shop": f" from {shop}", "address": " to one address"}.get(cap.scope, "")
    return f"rule {cap.name} allows {_count(cap.limit or 0, kind)} {window_words(cap)}{where}"


def window_words(rule: Counting) -> str:
    """`in 7 days`, `per month (Europe/Paris)`."""
    if rule.per is not None:
        return f"per {rule.per} ({rule.timezone})"
    return f"in {_count(rule.days, 'day')}" if rule.days else f"in {_count(rule.hours or 0, 'hour')}"


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
