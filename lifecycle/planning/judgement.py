"""What a verdict depends on beside the person, and the tables in which people are while they are judged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Column, MetaData, Table, Text, exists

from lifecycle.db.schema import Big, Instant
from lifecycle.settings import Config
from lifecycle.settings.models import Campaign, CapRule

work_tables = MetaData()

candidates = Table(
    "candidates",
    work_tables,
    Column("customer_id", Big, primary_key=True, autoincrement=False),
    Column("segment", Text, nullable=False),
    Column("shop", Text),
    Column("locale", Text, nullable=False),
    # Copied from customers, so that suppressions are joined here by an index and by nothing else.
    Column("address_hash", Text, index=True, comment="null: no address to write to"),
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
    prefixes=["temporary"],
)

standing = ~exists().where(decided.c.customer_id == candidates.c.customer_id)
"""Candidates of whom nothing is decided yet."""


@dataclass(frozen=True)
class Judgement:
    """`at` is when a message would be sent; `rules` are all caps, also those that do not concern the campaign."""

    config: Config
    campaign: Campaign
    occurrence: str
    rules: tuple[CapRule, ...]
    at: datetime

    @property
    def channel_kind(self) -> str:
        """What people consent to and unsubscribe from: e-mail, whichever server carries it."""
        return self.config.channels[self.campaign.channel].kind
