"""Whom the platforms' rules forbid to write to: verdict policy, `rule` the name of the rule in settings/packs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

from sqlalchemy import ColumnElement, Select, and_, case, exists, literal, or_, select

from lifecycle.customers.consent import counts_at
from lifecycle.db.schema import consents, customers, messages, orders
from lifecycle.planning.judgement import Judgement, candidates, standing
from lifecycle.settings.policies import Forbid, OncePerOrder, forbidding, once_per_order, personal


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


policy_reasons: tuple[Callable[[Judgement], Select], ...] = (forbidden_by_pack, forbidden_to_person, review_window)


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
        yield ~_agreed(rule, judgement)


def _agreed(rule: Forbid, judgement: Judgement) -> ColumnElement[bool]:
    """The person's shop was given consent on one of the rule's bases that still counts.

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
        consents.c.topic == judgement.campaign.topic,
        consents.c.status == "granted",
        consents.c.basis.in_(rule.unless_bases),
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
