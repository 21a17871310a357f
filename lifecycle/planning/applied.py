"""What was sent for a campaign's date: one plan by each channel, at most."""

from __future__ import annotations

from sqlalchemy import Connection, select

from lifecycle.db.schema import plans


def applied_plan(connection: Connection, campaign: str, occurrence: str, channel: str) -> int | None:
    """The number of the plan of this date that was applied by this channel, None where none was."""
    query = select(plans.c.plan_id).where(
        plans.c.campaign == campaign,
        plans.c.occurrence == occurrence,
        plans.c.channel == channel,
        plans.c.status == "applied",
    )
    return connection.execute(query).scalar()
