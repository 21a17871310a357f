"""Whether a plan may be sent: unchanged, approved where a person must look at it, and still of today.

An approval is of a hash and of nothing else.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Engine, insert, select

from lifecycle.db.engine import writing
from lifecycle.db.schema import approvals, plans
from lifecycle.errors import PlanError, UsageError


def approve(engine: Engine, plan_id: int, *, name: str, now: datetime, hash: str | None = None) -> None:
    """Record that `name` approves the plan. `hash`: what they have seen; None: the plan as it stands.

    Raises UsageError for an unknown plan or an empty name, PlanError where the plan has another hash.
    """
    if not name.strip():
        raise UsageError("an approval needs the name of who gives it: --approve NAME")
    with writing(engine) as connection:
        row = connection.execute(select(plans.c.hash).where(plans.c.plan_id == plan_id)).one_or_none()
        if row is None:
            raise UsageError(f"there is no plan {plan_id}; make one with: tern plan CAMPAIGN")
        if hash is not None and hash.strip() != row.hash:
            raise PlanError(
                f"plan {plan_id} has the hash {row.hash[:12]}…, the approval is for {hash.strip()[:12]}…; look at "
                "the plan again and approve what it says now"
            )
        values = {"plan_id": plan_id, "hash": row.hash, "approved_by": name.strip(), "approved_at": now}
        connection.execute(insert(approvals).values(values))


def approved_by(connection: Connection, plan_id: int, hash: str) -> str | None:
    """Who gave the newest approval of the plan with this hash."""
    query = select(approvals.c.approved_by).where(approvals.c.plan_id == plan_id, approvals.c.hash == hash)
    return connection.execute(query.order_by(approvals.c.approval_id.desc()).limit(1)).scalar()
