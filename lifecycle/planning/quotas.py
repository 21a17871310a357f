"""Quotas: how many messages a shop, a channel or a sender's domain may still send, and what it has sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import Connection, func, select

from lifecycle.db.schema import messages
from lifecycle.planning.counting import COUNTED_STATES, WAITING_STATES, counts
from lifecycle.planning.windows import begins, ends, length
from lifecycle.settings import Config
from lifecycle.settings.models import Quota, Shop, zone

UNLIMITED = int(np.iinfo(np.int32).max)

Used = Mapping[tuple[str, str], tuple[int, datetime | None]]
"""By shop and channel: messages that count, and when the oldest of them was sent."""


@dataclass(frozen=True)
class Room:
    """What a group of a quota has: its own limit, what was sent, and when a slot frees where it is full."""

    limit: int
    used: int
    frees_at: datetime

    @property
    def free(self) -> int:
        return max(self.limit - self.used, 0)


def used(connection: Connection, quota: Quota, at: datetime) -> Used:
    """What counts in the quota's window at `at`; what waits counts whenever it was reserved."""
    group = (messages.c.shop, messages.c.channel)
    counting = select(*group, func.count(), func.min(messages.c.sent_at)).where(counts(quota)).group_by(*group)
    sent = counting.where(
        messages.c.sent_at > begins(quota, at),
        messages.c.sent_at <= at,
        messages.c.state.in_(set(COUNTED_STATES) - set(WAITING_STATES)),
    )
    waiting = counting.where(messages.c.state.in_(WAITING_STATES))
    found: dict[tuple[str, str], tuple[int, datetime | None]] = {}
    for shop, channel, count, oldest in connection.execute(sent):
        found[shop, channel] = count, oldest
    for shop, channel, count, _ in connection.execute(waiting):
        before, oldest = found.get((shop, channel), (0, None))
        found[shop, channel] = before + count, oldest
    return found


def groups(config: Config, quota: Quota, channel: str) -> dict[str, str]:
    """By shop: the group whose slots a message from there on `channel` takes. Shops without are not limited."""
    shops = {name: shop for name, shop in config.shops.items() if quota.shops is None or name in quota.shops}
    match quota.scope:
        case "shop":
            return {name: name for name in shops}
        case "channel":
            return dict.fromkeys(shops, channel)
        case _:
            return {name: domain(shop) for name, shop in shops.items()}


def room(config: Config, quota: Quota, group: str, spent: Used, at: datetime) -> Room:
    """Of one group at `at`."""
    mine = [each for key, each in spent.items() if _group_of(config, quota, *key) == group]
    oldest = min((since for _, since in mine if since is not None), default=at)
    rolling = length(quota)
    frees_at = ends(quota, at) if rolling is None else max(oldest + rolling, at)
    return Room(limit_of(config, quota, group, at), sum(count for count, _ in mine), frees_at)


def limit_of(config: Config, quota: Quota, group: str, at: datetime) -> int:
    """Of the day of `at`: while a ramp lasts its own, before it nothing."""
    limit = quota.limit
    if isinstance(limit, dict):
        limit = limit.get(config.shops[group].service_level, 0)
    limit = UNLIMITED if limit is None else limit
    if quota.ramp is None:
        return limit
    day = (at.astimezone(zone(quota.timezone) if quota.timezone else UTC).date() - quota.ramp.starts_on).days
    if day < 0:
        return 0
    return min(quota.ramp.limits[day], limit) if day < len(quota.ramp.limits) else limit


def domain(shop: Shop) -> str:
    return shop.sender.address.rpartition("@")[2].lower()


def _group_of(config: Config, quota: Quota, shop: str, channel: str) -> str | None:
    """Also of a shop that is no longer configured, as long as it names the group itself."""
    match quota.scope:
        case "shop":
            return shop
        case "channel":
            return channel
        case _:
            return domain(config.shops[shop]) if shop in config.shops else None
