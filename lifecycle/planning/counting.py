"""Which messages a cap or a quota is about: said once, for the ledger's rows and for a planned campaign."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import ColumnElement, FromClause, and_, case, literal, or_, true

from lifecycle.db.schema import Big, messages
from lifecycle.settings.models import Campaign, CapRule, Counting

COUNTED_STATES = ("reserved", "sending", "accepted", "unknown")
"""`refused` gives its slot back."""

WAITING_STATES = ("reserved", "sending")
"""They leave now or later: whatever the window, they count as sent now."""


WAITING = messages.c.state.in_(WAITING_STATES)
BUYER = "buyer"
"""A message's `refusal`: the platform's own cap for this buyer was reached, by whomever."""
REFUSED_BY_BUYER = and_(messages.c.state == "refused", messages.c.refusal == BUYER)
MAY_COUNT = or_(messages.c.state.in_(COUNTED_STATES), REFUSED_BY_BUYER)


def bits(conditions: Iterable[tuple[int, ColumnElement[bool]]]) -> ColumnElement[int]:
    """A whole number whose bit at each place is set where the condition holds."""
    each = (case((condition, literal(1 << place, Big)), else_=literal(0, Big)) for place, condition in conditions)
    return sum(each, literal(0, Big))


def by_address(rules: Iterable[CapRule]) -> bool:
    """Whether one of them counts messages to the same address, whoever got them."""
    return any(rule.scope == "address" for rule in rules)


def counts(rule: Counting, rows: FromClause = messages) -> ColumnElement[bool]:
    """Rows of `messages`, or of an alias of it, that the rule counts, whatever their state and time."""
    return and_(true(), *_conditions(rule, rows))


def _conditions(rule: Counting, rows: FromClause) -> Iterator[ColumnElement[bool]]:
    if rule.purposes is None:
        yield rows.c.purpose != "transactional"
    else:
        yield rows.c.purpose.in_(rule.purposes)
    if rule.channels is not None:
        yield rows.c.channel.in_(rule.channels)
    if rule.shops is not None:
        yield rows.c.shop.in_(rule.shops)
    if rule.campaigns is not None:
        yield rows.c.what.in_(rule.campaigns)
    if rule.tags is not None:
        yield or_(*(rows.c.tags.contains(f",{tag},", autoescape=True) for tag in rule.tags))


def concerns(rule: Counting, campaign: Campaign) -> bool:
    """Whether messages of the campaign must pass the rule and are counted by it; of some shops only, where the
    rule names shops."""
    purposes = rule.purposes or ("marketing", "review_request")
    return (
        campaign.purpose in purposes
        and (rule.channels is None or campaign.channel in rule.channels)
        and (rule.campaigns is None or campaign.name in rule.campaigns)
        and (rule.tags is None or bool(set(rule.tags) & set(campaign.tags)))
    )


def tags_of(campaign: Campaign) -> str | None:
    """As `messages.tags` holds them."""
    return f",{','.join(sorted(campaign.tags))}," if campaign.tags else None
