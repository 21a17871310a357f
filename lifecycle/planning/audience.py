"""Everyone a campaign is meant for, before any rule, with the shop that would write and in which language."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, FromClause, Select, case, func, or_, select

from lifecycle.db.schema import customer_metrics, customers, segment_members
from lifecycle.errors import PlanError
from lifecycle.segments.definitions import define
from lifecycle.segments.members import member_at, members, newest_build
from lifecycle.segments.metrics import metrics
from lifecycle.segments.moments import At
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign


def audience(connection: Connection, config: Config, campaign: Campaign, *, as_of: datetime) -> Select:
    """customer_id, segment, shop, locale: one row per member, at `as_of`, of the campaign's segments.

    The first of the segments, as configured, that a person is in counts. The shop is that of their newest counted
    order. Raises PlanError where no segments had been built by then.
    """
    built = newest_build(connection, until=as_of)
    if built is None:
        raise PlanError("segments have not been built; run: tern segment")
    people = _in_segments(campaign, as_of).subquery("people")
    newest = _newest_shops(connection, config, built)
    query = (
        select(
            people.c.customer_id,
            case({i: name for i, name in enumerate(campaign.segments)}, value=people.c.position).label("segment"),
            newest.c.last_shop.label("shop"),
            _locale(customers.c.locale, campaign.locales).label("locale"),
        )
        .join_from(people, customers, customers.c.customer_id == people.c.customer_id)
        .outerjoin(newest, newest.c.customer_id == people.c.customer_id)
    )
    return query if campaign.shops is None else query.where(newest.c.last_shop.in_(campaign.shops))


def _in_segments(campaign: Campaign, as_of: datetime) -> Select:
    """customer_id and position, the index of the first matching segment."""
    position = case({name: i for i, name in enumerate(campaign.segments)}, value=segment_members.c.segment)
    query = (
        select(segment_members.c.customer_id, func.min(position).label("position"))
        .where(segment_members.c.segment.in_(campaign.segments), member_at(as_of))
        .group_by(segment_members.c.customer_id)
    )
    for segment in campaign.exclude:
        query = query.where(segment_members.c.customer_id.not_in(members(segment, as_of)))
    return query


def _newest_shops(connection: Connection, config: Config, built: datetime) -> FromClause:
    """customer_id, last_shop: kept for the newest build, computed again when looking further back."""
    if built == newest_build(connection):
        return customer_metrics
    return metrics(define(config).sources, At(built), {"last_shop"}).subquery("metrics")


def _locale(wanted: ColumnElement[str], offered: tuple[str, ...]) -> ColumnElement[str]:
    """The offered locale that is the person's or the longest beginning of it (RFC 4647 lookup), else the first:
    zh-Hans-CN reads zh-Hans before zh."""
    spoken = func.lower(wanted)
    longest_first = sorted(offered, key=len, reverse=True)
    fits = {o: or_(spoken == o.lower(), spoken.startswith(f"{o.lower()}-")) for o in longest_first}
    return case(*((condition, locale) for locale, condition in fits.items()), else_=offered[0])
