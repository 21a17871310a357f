"""A storm of bounces or complaints stops the lane of one campaign to one mailbox provider; the others go on.

Exact one-sided binomial tests (deliverability notes, 8): the share is above its limit with an error of at most one
per cent, on at least 200 messages; or at least ten per cent of at least 100 bounced. Counted over seven days.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from scipy.stats import binom  # type: ignore[import-untyped]
from sqlalchemy import Connection, and_, select, update

from lifecycle.db.bulk import upsert
from lifecycle.db.schema import breakers, messages
from lifecycle.ledger import holds
from lifecycle.settings import Config
from lifecycle.settings.channels import EmailChannel, Way

MIN_MESSAGES = 200
CERTAINTY = 0.01
STORM_MESSAGES, STORM_SHARE = 100, 0.10
WINDOW = timedelta(days=7)
MAX_BOUNCE_SHARE, MAX_COMPLAINT_SHARE = 0.05, 0.001


@dataclass(frozen=True)
class Counts:
    """sent: accepted, refused for good and unknown. bounced: hard, at once or by a report."""

    sent: int
    bounced: int = 0
    complained: int = 0


def why_stop(counts: Counts, max_bounce_share: float, max_complaint_share: float) -> str | None:
    """The sentence for which such a lane must stop, or None."""
    sent, bounced, complained = counts.sent, counts.bounced, counts.complained
    if sent >= STORM_MESSAGES and bounced >= STORM_SHARE * sent:
        return f"{bounced:,} of {sent:,} mails bounced ({bounced / sent:.1%})"
    if sent < MIN_MESSAGES:
        return None
    if bounced and binom.sf(bounced - 1, sent, max_bounce_share) < CERTAINTY:
        return f"{bounced:,} of {sent:,} mails bounced ({bounced / sent:.1%}), surely over {max_bounce_share:.1%}"
    if complained and binom.sf(complained - 1, sent, max_complaint_share) < CERTAINTY:
        share = complained / sent
        return (
            f"{complained:,} complaints about {sent:,} mails ({share:.2%}), surely over {max_complaint_share:.2%}"
        )
    return None


def count(
    connection: Connection,
    settings: Way,
    campaign: str,
    provider: str,
    more: Counts,
    now: datetime,
) -> str | None:
    """Add to what the lane has counted. Returns why the lane is stopped by it, if it is."""
    key = {"campaign": campaign, "channel": settings.name, "mailbox_provider": provider}
    rows = breakers.c
    mine = and_(*(rows[name] == value for name, value in key.items()))
    nothing = {"counted_from": now, "sent": 0, "bounced": 0, "complained": 0}
    upsert(connection, breakers, [{**key, **nothing}], key=tuple(key))
    outdated = update(breakers).where(mine, rows.counted_from <= now - WINDOW)
    connection.execute(outdated.values(**nothing))
    added = {name: rows[name] + getattr(more, name) for name in ("sent", "bounced", "complained")}
    query = update(breakers).where(mine).values(added).returning(rows.sent, rows.bounced, rows.complained)
    found = connection.execute(query).one()
    why = why_stop(Counts(*found), *_limits(settings))
    if why is None or holds.standing(connection, campaign, settings.name, provider) is not None:
        return None
    holds.pause(
        connection, campaign, reason=why, by=holds.BREAKER, at=now, channel=settings.name, provider=provider
    )
    return why


def count_reports(
    connection: Connection, config: Config, kinds: Mapping[int, str], now: datetime
) -> Sequence[str]:
    """Bounces and complaints that came in later: message_id to `bounced` (hard) or `complained`. Returns why lanes
    are stopped by them."""
    query = select(messages.c.message_id, messages.c.what, messages.c.channel, messages.c.mailbox_provider).where(
        messages.c.message_id.in_(list(kinds))
    )
    by_lane: Counter[tuple[str, str, str, str]] = Counter()
    for row in connection.execute(query):
        by_lane[row.what, row.channel, row.mailbox_provider, kinds[row.message_id]] += 1
    stopped = []
    for (campaign, channel, provider, kind), number in sorted(by_lane.items()):
        if channel not in config.channels:
            continue
        more = Counts(0, **{kind: number})
        if why := count(connection, config.channels[channel], campaign, provider, more, now):
            stopped.append(f"{campaign}, {channel} to {provider or 'everybody'}: {why}")
    return stopped


def forget(connection: Connection, campaign: str, channel: str | None, provider: str | None) -> None:
    """Count from nothing: a person has looked and lets the lane go on."""
    rows = breakers.c
    wanted: list[Any] = [rows.campaign == campaign]
    wanted += [rows.channel == channel] if channel else []
    wanted += [rows.mailbox_provider == provider] if provider is not None else []
    connection.execute(update(breakers).where(*wanted).values(sent=0, bounced=0, complained=0))


def _limits(settings: Way) -> tuple[float, float]:
    if isinstance(settings, EmailChannel):
        return settings.max_bounce_share, settings.max_complaint_share
    return MAX_BOUNCE_SHARE, MAX_COMPLAINT_SHARE
