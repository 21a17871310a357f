"""What a verdict depends on beside the person, and the tables in which people are while they are judged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Column, Integer, MetaData, Table, Text, exists

from lifecycle.db.schema import Big, Instant
from lifecycle.settings import Config
from lifecycle.settings.channels import PLATFORM_KINDS, AnyChannel
from lifecycle.settings.models import Campaign, CapRule, Quota

work_tables = MetaData()

candidates = Table(
    "candidates",
    work_tables,
    Column("customer_id", Big, primary_key=True, autoincrement=False),
    Column("segment", Text, nullable=False),
    Column("shop", Text),
    Column("locale", Text, nullable=False),
    Column("address_hash", Text, comment="null: no address to write to"),
    Column("country", Text),
    Column("seed", Big, nullable=False),
    prefixes=["temporary"],
)

decided = Table(
    "decided",
    work_tables,
    Column("customer_id", Big, primary_key=True, autoincrement=False),
    Column("verdict", Text, nullable=False),
    Column("rule", Text),
    Column("blocking_message_id", Big),
    Column("frees_at", Instant),
    Column("lost_to", Text),
    prefixes=["temporary"],
)

found = Table(
    "found",
    work_tables,
    Column("customer_id", Big, nullable=False),
    Column("verdict", Big, nullable=False, comment="place in schema.VERDICTS"),
    Column("rule", Big, nullable=False, comment="place in a list of names"),
    Column("blocking_message_id", Big, nullable=False),
    Column("frees_at", Big, nullable=False, comment="microseconds since 1970"),
    Column("lost_to", Big, nullable=False, comment="place in a list of names"),
    prefixes=["temporary"],
)
"""What was decided outside of the database, on its way into `decided`: whole numbers, arrays.NULL for nothing."""

contenders = Table(
    "contenders",
    work_tables,
    Column("customer_id", Big, primary_key=True, autoincrement=False),
    Column("shop", Integer, nullable=False, comment="place in config/shops.yaml"),
    prefixes=["temporary"],
)
"""Everybody who competes for slots: candidates still standing, and those of other campaigns."""

standing = ~exists().where(decided.c.customer_id == candidates.c.customer_id)
"""Candidates of whom nothing is decided yet."""


@dataclass(frozen=True)
class Judgement:
    """`at`: when a message would be sent. `since`: the build that chose the people. `rules`, `quotas`: all there
    are, also those that do not concern the campaign. `approved`: the locales of the template that the platform has
    approved; None: all."""

    config: Config
    campaign: Campaign
    occurrence: str
    at: datetime
    since: datetime | None = None
    rules: tuple[CapRule, ...] = ()
    quotas: tuple[Quota, ...] = ()
    approved: frozenset[str] | None = None

    @property
    def channel(self) -> AnyChannel:
        return self.config.channels[self.campaign.channel]

    @property
    def channel_kind(self) -> str:
        """What people consent to and unsubscribe from: e-mail, whichever server carries it."""
        return self.channel.kind

    @property
    def asks_consent(self) -> bool:
        """Marketing goes to those only who agreed to it. Inside a marketplace the platform itself asks its buyers
        what they want: we only know of those who told us no."""
        return self.campaign.purpose == "marketing" and self.channel_kind not in PLATFORM_KINDS
