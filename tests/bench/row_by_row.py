"""The same verdicts by a loop over people, as one would write it first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import ceil
from typing import Any

from sqlalchemy import Connection, Engine, Row, bindparam, insert, or_, select

from lifecycle.customers.suppression import active_suppressions
from lifecycle.customers.zones import zones_of
from lifecycle.db.engine import lock_reservations, writing
from lifecycle.db.schema import Instant, consents, customers, messages, plans, verdicts
from lifecycle.planning.caps import applicable
from lifecycle.planning.counting import COUNTED_STATES
from lifecycle.planning.holdout import GLOBAL, bucket
from lifecycle.planning.quiet import opens_at
from lifecycle.planning.windows import begins
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign, CapRule

_SHOP = "atlas"
_AT: Any = bindparam("at", type_=Instant())
_SINCE: Any = bindparam("since", type_=Instant())
_BAN = active_suppressions(_AT).subquery("ban")

_PERSON = select(
    *(customers.c[name] for name in ("email_hash", "seed", "timezone", "country", "region", "phone_zone"))
).where(customers.c.customer_id == bindparam("who"))
_SUPPRESSED = select(_BAN.c.reason).where(
    _BAN.c.address_hash == bindparam("address_hash"),
    _BAN.c.channel == "email",
    or_(_BAN.c.shop.is_(None), _BAN.c.shop == _SHOP),
)
_CONSENT = (
    select(consents.c.status)
    .where(
        consents.c.customer_id == bindparam("who"),
        consents.c.shop == _SHOP,
        consents.c.channel == "email",
        consents.c.topic == "promotions",
        consents.c.occurred_at <= _AT,
        or_(consents.c.status == "withdrawn", consents.c.expires_at.is_(None), consents.c.expires_at > _AT),
    )
    .order_by(consents.c.occurred_at.desc(), consents.c.status.desc())
    .limit(1)
)
_RECENT = select(messages.c.what, messages.c.shop, messages.c.channel, messages.c.send_at).where(
    messages.c.customer_id == bindparam("who"),
    messages.c.send_at > _SINCE,
    messages.c.send_at <= _AT,
    messages.c.state.in_(COUNTED_STATES),
    messages.c.purpose != "transactional",
)


def judge_one_by_one(
    engine: Engine, config: Config, campaign_name: str, people: Sequence[int], *, at: datetime
) -> dict[int, str]:
    """Judges and stores in one transaction, as a plan does, without evidence and hash."""
    campaign = config.campaign(campaign_name)
    rules = applicable(config.caps_file.caps, campaign)
    found = {}
    with writing(engine) as connection:
        lock_reservations(connection)
        plan_id = _start(connection, campaign, at)
        for who in people:
            found[who] = _verdict(connection, config, campaign, rules, who, at)
            row = {"plan_id": plan_id, "customer_id": who, "verdict": found[who], "segment": "dormant"}
            connection.execute(insert(verdicts), row)
    return found


def _start(connection: Connection, campaign: Campaign, at: datetime) -> int:
    values = {"campaign": campaign.name, "occurrence": "one by one", "as_of": at, "created_at": at}
    more = {"hash": "", "audience": 0, "status": "draft", "definition": {}}
    plan_id: int = connection.execute(insert(plans).values(values | more).returning(plans.c.plan_id)).scalar_one()
    return plan_id


def _verdict(
    connection: Connection, config: Config, campaign: Campaign, rules: Sequence[CapRule], who: int, at: datetime
) -> str:
    person = connection.execute(_PERSON, {"who": who}).one()
    if person.email_hash is None:
        return "no_address"
    if connection.execute(_SUPPRESSED, {"address_hash": person.email_hash, "at": at}).first():
        return "suppressed"
    if connection.execute(_CONSENT, {"who": who, "at": at}).scalar() != "granted":
        return "no_consent"
    shares = {GLOBAL: config.campaigns_file.global_hold_out, campaign.name: campaign.hold_out}
    if any(bucket(person.seed, name) < ceil(share * 10_000) for name, share in shares.items()):
        return "hold_out"
    since = min(begins(rule, at) for rule in rules)
    recent = connection.execute(_RECENT, {"who": who, "since": since, "at": at}).all()
    if any(_blocks(rule, recent, at) for rule in rules):
        return "capped"
    zones = zones_of(person.timezone, person.country, person.region, person.phone_zone)
    return "quiet_hours" if opens_at(zones, config.caps_file.quiet_hours or "", at) else "selected"


def _blocks(rule: CapRule, recent: Sequence[Row[Any]], at: datetime) -> bool:
    counted = [
        message
        for message in recent
        if message.send_at > begins(rule, at)
        and (rule.scope == "customer" or message.shop == _SHOP)
        and (rule.channels is None or message.channel in rule.channels)
        and (rule.campaigns is None or message.what in rule.campaigns)
    ]
    return rule.limit is not None and len(counted) >= rule.limit
