"""Quotas: how many messages a shop, a channel or a sender's domain may still send, and what it has sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select

from lifecycle.db.arrays import arrays
from lifecycle.db.schema import instant, messages
from lifecycle.planning.counting import COUNTED_STATES, WAITING_STATES, counts
from lifecycle.planning.windows import begins, ends, length
from lifecycle.settings import Config
from lifecycle.settings.models import Quota, Shop, zone

UNLIMITED = int(np.iinfo(np.int32).max)

Used = Mapping[tuple[str, str], tuple[int, NDArray[np.int64]]]
"""By shop and channel: messages that count; of a rolling quota also when those that were sent were, microseconds
since 1970."""


@dataclass(frozen=True)
class Room:
    """What a group of a quota has: its own limit, what was sent, and when a slot frees where it is full; None:
    never, as nothing is allowed."""

    limit: int
    used: int
    frees_at: datetime | None

    @property
    def free(self) -> int:
        return max(self.limit - self.used, 0)


def used(connection: Connection, quota: Quota, at: datetime) -> Used:
    """What counts in the quota's window at `at`; what waits counts whenever it was reserved."""
    group = (messages.c.shop, messages.c.channel)
    counting = select(*group, func.count()).where(counts(quota)).group_by(*group)
    period = (
        messages.c.sent_at > begins(quota, at),
        messages.c.sent_at <= at,
        messages.c.state.in_(set(COUNTED_STATES) - set(WAITING_STATES)),
    )
    found = {
        (shop, channel): (count, _NOTHING) for shop, channel, count in connection.execute(counting.where(*period))
    }
    if length(quota) is not None:
        for place in found:
            sent = select(messages.c.sent_at).where(counts(quota), *period)
            here = sent.where(messages.c.shop == place[0], messages.c.channel == place[1])
            found[place] = found[place][0], arrays(connection, here)["sent_at"]
    for shop, channel, count in connection.execute(counting.where(messages.c.state.in_(WAITING_STATES))):
        before, times = found.get((shop, channel), (0, _NOTHING))
        found[shop, channel] = before + count, times
    return found


_NOTHING = np.array([], dtype=np.int64)


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
    limit, count = limit_of(config, quota, group, at), sum(count for count, _ in mine)
    sent = np.sort(np.concatenate([_NOTHING, *(times for _, times in mine)]))
    return Room(limit, count, _frees_at(quota, limit, count, sent, at))


def _frees_at(quota: Quota, limit: int, count: int, sent: NDArray[np.int64], at: datetime) -> datetime | None:
    """When one of the messages that fill it leaves the window; what waits counts as sent now."""
    if limit == 0:
        return None
    rolling = length(quota)
    if rolling is None:
        return ends(quota, at)
    leaves = max(count - limit, 0)
    return (instant(int(sent[leaves])) if leaves < len(sent) else at) + rolling


def limit_of(config: Config, quota: Quota, group: str, at: datetime) -> int:
    """Of the day of `at`: while a ramp lasts its own, before it nothing."""
    limit = quota.limit
    if isinstance(limit, dict):
        limit = limit.get(config.shops[group].service_level, 0)
    limit = UNLIMITED if limit is None else limit
    ramp = ramp_limit(quota, at)
    return limit if ramp is None else min(ramp, limit)


def ramp_limit(quota: Quota, at: datetime) -> int | None:
    """Of the day of `at`; None where there is no ramp or it is over."""
    if quota.ramp is None:
        return None
    day = (at.astimezone(zone(quota.timezone) if quota.timezone else UTC).date() - quota.ramp.starts_on).days
    if day < 0:
        return 0
    return quota.ramp.limits[day] if day < len(quota.ramp.limits) else None


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
