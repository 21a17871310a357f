"""Whom the platforms' rules forbid to write to: verdict policy, `rule` the name of the rule in settings/packs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

from sqlalchemy import ColumnElement, Select, and_, case, exists, literal, or_, select

from lifecycle.customers.consent import counts_at
from lifecycle.db.schema import consents, customers, inbound_messages, messages, orders
from lifecycle.planning.judgement import Judgement, candidates, standing
from lifecycle.settings.policies import (
    Forbid,
    Needs,
    OncePerOrder,
    forbidding,
    needs,
    once_per_order,
    personal,
    serves,
)

OTHER_SHOPS = "channel_not_of_shop"
"""The rule of people whose shop the channel does not send for."""


def not_served(judgement: Judgement) -> Select:
    """People whose shop the channel does not send for."""
    shops = judgement.config.shops.values()
    return _of_shops({shop.name: OTHER_SHOPS for shop in shops if not serves(judgement.channel, shop)})


def forbidden_by_pack(judgement: Judgement) -> Select:
    """People whose shop may send nobody such a message."""
    shops = judgement.config.shops.values()
    rules = {shop.name: forbidding(judgement.campaign, shop, judgement.channel_kind) for shop in shops}
    return _of_shops({shop: rule.name for shop, rule in rules.items() if rule is not None})


def forbidden_to_person(judgement: Judgement) -> Select:
    """People whose own address or telephone number no shop may send such a message to."""
    rules = personal(judgement.campaign.purpose, judgement.channel_kind)
    fits = {rule.name: and_(*_conditions(rule, judgement)) for rule in rules}
    if not fits:
        return _of_shops({})
    return (
        select(
            candidates.c.customer_id,
            literal("policy"),
            case(*((fit, literal(name)) for name, fit in fits.items())),
        )
        .join_from(candidates, customers, customers.c.customer_id == candidates.c.customer_id)
        .where(standing, or_(*fits.values()))
    )


def review_window(judgement: Judgement) -> Select:
    """People without an order that may be asked about now: delivered long enough ago and not too long, and nothing
    was asked since it was delivered."""
    campaign, kind = judgement.campaign, judgement.channel_kind
    found = {shop.name: once_per_order(shop, campaign.purpose, kind) for shop in judgement.config.shops.values()}
    rules = {shop: rule for shop, rule in found.items() if rule is not None}
    open_windows = (
        and_(candidates.c.shop == shop, _may_be_asked(rule, judgement)) for shop, rule in rules.items()
    )
    people = _of_shops({shop: rule.name for shop, rule in rules.items()})
    return people.where(~or_(*open_windows)) if rules else people


def unmet_needs(judgement: Judgement) -> Select:
    """People for whom the message lacks something that a rule of their shop or of the channel asks for; the first
    such rule, as policies.missing has it. How long a text may be is checked where it is written."""
    shops_of: dict[Needs, list[str]] = {}
    for shop in judgement.config.shops.values():
        for rule in needs(shop, judgement.campaign.purpose, judgement.channel_kind):
            shops_of.setdefault(rule, []).append(shop.name)
    unmet = [
        (and_(candidates.c.shop.in_(shops), lacking), literal(rule.name))
        for rule, shops in shops_of.items()
        if (lacking := _lacking(rule, judgement)) is not None
    ]
    if not unmet:
        return _of_shops({})
    each = select(candidates.c.customer_id, case(*unmet).label("rule")).where(standing).subquery("each")
    return select(each.c.customer_id, literal("policy"), each.c.rule).where(each.c.rule.is_not(None))


policy_reasons: tuple[Callable[[Judgement], Select], ...] = (
    not_served,
    forbidden_by_pack,
    forbidden_to_person,
    review_window,
    unmet_needs,
)


def _of_shops(rules: Mapping[str, str]) -> Select:
    """customer_id, verdict and rule of the candidates still standing whose shop is among `rules`: shop to rule."""
    rule = case(rules, value=candidates.c.shop) if rules else literal("")
    return select(candidates.c.customer_id, literal("policy"), rule).where(standing, candidates.c.shop.in_(rules))


def _conditions(rule: Forbid, judgement: Judgement) -> Iterator[ColumnElement[bool]]:
    if rule.address_domains:
        # A domain's star is LIKE's percent sign, and nothing else in a domain means anything to LIKE.
        patterns = ("%@" + domain.replace("*", "%") for domain in rule.address_domains)
        yield or_(*(customers.c.email_key.like(pattern) for pattern in patterns))
    if rule.phone_prefixes:
        yield or_(*(customers.c.phone.like(f"{prefix}%") for prefix in rule.phone_prefixes))
    if rule.phone_country:
        yield or_(customers.c.country.is_(None), customers.c.country == rule.phone_country)
    if rule.unless_bases:
        yield ~_agreed(judgement, _topic(judgement), consents.c.basis.in_(rule.unless_bases))


def _agreed(judgement: Judgement, *to: ColumnElement[bool]) -> ColumnElement[bool]:
    """The person's shop was given consent, on the channel and as `to` says, that still counts.

    By person and not from the consents as they count, because these are few people among all.
    """
    at, taken_back = judgement.at, consents.alias("taken_back")
    later = exists().where(
        *(taken_back.c[name] == consents.c[name] for name in ("customer_id", "shop", "channel", "topic")),
        taken_back.c.status == "withdrawn",
        taken_back.c.occurred_at >= consents.c.occurred_at,
        or_(taken_back.c.occurred_at <= at, taken_back.c.recorded_at <= at),
    )
    return exists().where(
        consents.c.customer_id == candidates.c.customer_id,
        consents.c.shop == candidates.c.shop,
        consents.c.channel == judgement.channel_kind,
        consents.c.status == "granted",
        *to,
        counts_at(at),
        ~later,
    )


def _may_be_asked(rule: OncePerOrder, judgement: Judgement) -> ColumnElement[bool]:
    """There is an order in its window. Refunded orders too: to leave out the unhappy is forbidden (Amazon)."""
    asked = exists().where(
        messages.c.customer_id == orders.c.customer_id,
        messages.c.shop == orders.c.shop,
        messages.c.purpose == judgement.campaign.purpose,
        messages.c.reserved_at >= orders.c.delivered_at,
        messages.c.state != "refused",
    )
    return exists().where(
        orders.c.customer_id == candidates.c.customer_id,
        orders.c.shop == candidates.c.shop,
        orders.c.status.not_in(("cancelled", "returned")),
        orders.c.delivered_at >= judgement.at - timedelta(days=rule.latest_days),
        orders.c.delivered_at <= judgement.at - timedelta(days=rule.earliest_days),
        ~asked,
    )


def _lacking(rule: Needs, judgement: Judgement) -> ColumnElement[bool] | None:
    """That a candidate's message does not meet the rule; None where it always does."""
    lacks = [~has for need in rule.needs if (has := _has(need, judgement)) is not None]
    if rule.ordered_within_days:
        lacks.append(~_ordered_within(timedelta(days=rule.ordered_within_days), judgement))
    if not lacks:
        return None
    if rule.open_window_hours:
        return and_(~_wrote_within(timedelta(hours=rule.open_window_hours), judgement), or_(*lacks))
    return or_(*lacks)


def _has(need: str, judgement: Judgement) -> ColumnElement[bool] | None:
    """None where everybody who is still standing has it."""
    if need == "template":
        return None if judgement.approved is None else candidates.c.locale.in_(sorted(judgement.approved))
    if judgement.asks_consent:  # the reason no_consent has left nobody without
        return None
    about = (_topic(judgement),) if need == "consent" else ()  # an opt-in says that the shop may write at all
    return _agreed(judgement, *about)


def _topic(judgement: Judgement) -> ColumnElement[bool]:
    return consents.c.topic == judgement.campaign.topic


def _wrote_within(window: timedelta, judgement: Judgement) -> ColumnElement[bool]:
    return exists().where(
        inbound_messages.c.address_hash == candidates.c.address_hash,
        inbound_messages.c.channel == judgement.channel_kind,
        inbound_messages.c.received_at >= judgement.at - window,
        inbound_messages.c.received_at <= judgement.at,
    )


def _ordered_within(window: timedelta, judgement: Judgement) -> ColumnElement[bool]:
    return exists().where(
        orders.c.customer_id == candidates.c.customer_id,
        orders.c.shop == candidates.c.shop,
        orders.c.status.not_in(("cancelled", "returned")),
        orders.c.ordered_at >= judgement.at - window,
        orders.c.ordered_at <= judgement.at,
    )
