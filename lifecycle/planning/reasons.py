"""Reasons not to write to a person, caps apart. Each selects customer_id, verdict and rule of the candidates still
standing to whom it applies; `rule` says in one word what decided."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Select, Text, case, cast, func, literal, null, or_, select, union_all

from lifecycle.customers.consent import effective_consent
from lifecycle.customers.suppression import active_suppressions
from lifecycle.planning import holdout
from lifecycle.planning.judgement import Judgement, candidates, standing


def no_address(judgement: Judgement) -> Select:
    return _people("no_address", cast(null(), Text)).where(candidates.c.address_hash.is_(None))


def suppressed(judgement: Judgement) -> Select:
    """`rule` is the reason of the newest suppression in force for the shop that would write."""
    ban = active_suppressions(judgement.at).subquery("ban")
    newest_first = func.row_number().over(
        partition_by=candidates.c.customer_id, order_by=(ban.c.occurred_at.desc(), ban.c.reason)
    )
    found = (
        select(candidates.c.customer_id, ban.c.reason, newest_first.label("newest"))
        .join_from(candidates, ban, ban.c.address_hash == candidates.c.address_hash)
        .where(
            standing,
            ban.c.channel == judgement.channel_kind,
            or_(ban.c.shop.is_(None), ban.c.shop == candidates.c.shop),
            ban.c.purpose.in_(("all", judgement.campaign.purpose)),
        )
        .subquery("found")
    )
    return select(found.c.customer_id, literal("suppressed"), found.c.reason).where(found.c.newest == 1)


def no_consent(judgement: Judgement) -> Select:
    """`rule` is the state of the consent given to the shop that would write, or never_given."""
    consent = effective_consent(judgement.at).subquery("consent")
    said = select(candidates.c.customer_id, consent.c.status).where(
        standing,
        consent.c.customer_id == candidates.c.customer_id,
        consent.c.shop == candidates.c.shop,
        consent.c.channel == judgement.channel_kind,
        consent.c.topic == judgement.campaign.topic,
    )
    everybody = select(candidates.c.customer_id, cast(null(), Text)).where(standing)
    # A union and not an outer join, which SQLite would answer with one scan of all consents per person.
    both = union_all(said, everybody).subquery("both")
    status = func.coalesce(func.max(both.c.status), "never_given")
    return (
        select(both.c.customer_id, literal("no_consent"), status)
        .group_by(both.c.customer_id)
        .having(status != "granted")
    )


def unknown_shop(judgement: Judgement) -> Select:
    """The shop that would write is no longer configured: nobody could sign the message."""
    return _people("policy", literal("unknown_shop")).where(candidates.c.shop.not_in(judgement.config.shops))


def held_out(judgement: Judgement) -> Select:
    """`rule` is the experiment: global before the campaign's own."""
    campaign, everywhere = judgement.campaign, judgement.config.campaigns_file.global_hold_out
    globally = holdout.held_out(candidates.c.seed, holdout.GLOBAL, everywhere)
    here = holdout.held_out(candidates.c.seed, campaign.name, campaign.hold_out)
    experiment = case((globally, holdout.GLOBAL), else_=campaign.name)
    return _people("hold_out", experiment).where(or_(globally, here))


def _people(verdict: str, rule: ColumnElement[str]) -> Select:
    return select(candidates.c.customer_id, literal(verdict), rule).where(standing)
