"""Before a claimed batch leaves: is there still a reason to write, and is it day where they are?"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, and_, exists, func, select, update

from lifecycle.db.schema import messages, verdicts
from lifecycle.planning.judgement import decided
from lifecycle.planning.recheck import judgement_of
from lifecycle.planning.verdicts import reconsidered
from lifecycle.settings import Config


def withhold(connection: Connection, config: Config, plan_id: int, claim: str, now: datetime) -> tuple[int, int]:
    """Refuse the messages of the claim whose condition is gone, and put off those for whom it is night.

    Returns how many of each.
    """
    judgement = judgement_of(connection, config, plan_id, now=now)
    people = select(
        messages.c.customer_id, func.coalesce(messages.c.segment, "").label("segment"), messages.c.shop,
        messages.c.locale,
    ).where(messages.c.claim == claim)  # fmt: skip
    with reconsidered(connection, people, judgement):
        return _refuse(connection, plan_id, claim, now), _put_off(connection, claim)


def _refuse(connection: Connection, plan_id: int, claim: str, now: datetime) -> int:
    gone = select(decided.c.customer_id).where(decided.c.verdict != "quiet_hours")
    revised = {
        verdicts.c.revised_verdict: decided.c.verdict,
        verdicts.c.revised_rule: decided.c.rule,
        verdicts.c.revised_at: now,
    }
    connection.execute(
        update(verdicts)
        .where(verdicts.c.plan_id == plan_id, verdicts.c.customer_id == decided.c.customer_id)
        .where(decided.c.verdict != "quiet_hours", verdicts.c.revised_verdict.is_(None))
        .where(exists().where(messages.c.claim == claim, messages.c.customer_id == decided.c.customer_id))
        .values(revised)
    )
    refused = {
        "state": "refused", "reason": "the reason to write was gone when it was to be sent", "settled_at": now,
        "claim": None, "lease_until": None,
    }  # fmt: skip
    mine = and_(messages.c.claim == claim, messages.c.customer_id.in_(gone))
    return connection.execute(update(messages).where(mine).values(refused)).rowcount


def _put_off(connection: Connection, claim: str) -> int:
    """Until their quiet hours end."""
    held = update(messages).where(
        messages.c.claim == claim,
        messages.c.customer_id == decided.c.customer_id,
        decided.c.verdict == "quiet_hours",
    )
    values = {"not_before": decided.c.frees_at, "claim": None, "lease_until": None}
    return connection.execute(held.values(values)).rowcount
