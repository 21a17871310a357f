"""From a plan's selected verdicts to messages in the ledger, in one transaction under one lock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, literal, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from lifecycle.customers import handles
from lifecycle.customers.mailboxes import fill_known_domains, provider_of_customer
from lifecycle.db.engine import lock_reservations, writing
from lifecycle.db.schema import Instant, customers, mail_domains, messages, plans, verdicts
from lifecycle.errors import PlanError
from lifecycle.ledger.secret import check_secret
from lifecycle.planning.applied import applied_plan
from lifecycle.planning.applying import check_applicable
from lifecycle.planning.counting import tags_of
from lifecycle.planning.judgement import decided
from lifecycle.planning.plan import stored_plan
from lifecycle.planning.recheck import rechecked, to_send
from lifecycle.settings import Config
from lifecycle.settings.channels import Way
from lifecycle.settings.models import Campaign


@dataclass(frozen=True)
class Reservation:
    """reserved: messages that are new in the ledger. revised: selected people who no longer held, by reason.
    batches: those that have something to send. waiting: how many messages are not to leave yet; waiting_from and
    waiting_until: when the first and the last of them are.
    """

    plan_id: int
    reserved: int
    revised: dict[str, int]
    batches: tuple[int, ...]
    already_applied: bool = False
    waiting: int = 0
    waiting_from: datetime | None = None
    waiting_until: datetime | None = None

    def sentence(self) -> str:
        if self.already_applied:
            return f"plan {self.plan_id} was applied before; {len(self.batches):,} of its batches are open"
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.revised.items()))
        return (
            f"plan {self.plan_id}: {self.reserved:,} messages reserved"
            + (f"; no longer selected: {dropped}" if dropped else "")
            + (f"; {self._waiting()}" if self.waiting else "")
        )

    def _waiting(self) -> str:
        span = " to ".join(dict.fromkeys(f"{at:%Y-%m-%d %H:%M}" for at in (self.waiting_from, self.waiting_until)))
        return f"{self.waiting:,} of them wait until {span} UTC, when quiet hours end; send-due sends them"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def reserve(
    engine: Engine,
    config: Config,
    plan_id: int,
    *,
    now: datetime,
    secret: bytes,
    content_hash: str | None = None,
    run_id: str | None = None,
) -> Reservation:
    """Judge the selected once more and reserve a message for each who still holds; the caps count them from now.

    A plan that is applied already stays as it is. Raises PlanError where the verdicts or templates are not those
    that were planned, an approval is missing, the plan is too old, the clock is behind, or another plan was
    applied for the same campaign and date; ConfigError for another `secret`. Then nothing is reserved.
    """
    with writing(engine) as connection:
        lock_reservations(connection)
        _hold_sends(connection)
        check_secret(connection, secret)
        plan = stored_plan(connection, plan_id)
        if plan.already_applied:
            return Reservation(plan_id, 0, {}, _batches(connection, plan_id), already_applied=True)
        row = connection.execute(select(plans).where(plans.c.plan_id == plan_id)).one()
        check_applicable(connection, config, plan, row.created_at, content_hash=content_hash, now=now)
        _refuse_second(connection, row)
        now = max([now, *_newest(connection, plan_id, now)])
        campaign = Campaign.model_validate(row.definition)
        settings = config.channel(campaign.channel)
        with rechecked(connection, config, plan_id, now=now) as revised:
            reserved = _insert(connection, row, campaign, settings, now, run_id)
        connection.execute(
            update(plans)
            .where(plans.c.plan_id == plan_id)
            .values(status="applied", applied_at=now, approved_by=plan.approved_by)
        )
        return Reservation(
            plan_id, reserved, revised, _batches(connection, plan_id), False, *_waiting(connection, plan_id, now)
        )


def _refuse_second(connection: Connection, plan: Row[Any]) -> None:
    other = applied_plan(connection, plan.campaign, plan.occurrence, plan.channel)
    if other is not None:
        raise PlanError(f"{plan.campaign} of {plan.occurrence} was sent as plan {other}; it is sent once a day")


def _hold_sends(connection: Connection) -> None:
    """A send that begins while we judge would move its message past our `now`, where the caps do not look. On
    SQLite `writing` alone keeps it waiting."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("lock table messages in share row exclusive mode"))


def _newest(connection: Connection, plan_id: int, now: datetime) -> Iterator[datetime]:
    """Caps look back from the time of sending, so times must follow the order in which the lock was held: a
    reservation that waited, or a host whose clock is behind, would not see the one before it, nor what has been
    sent to its people meanwhile."""
    applied = select(func.max(plans.c.applied_at))
    sent = (
        select(func.max(messages.c.send_at))
        .join_from(verdicts, messages, messages.c.customer_id == verdicts.c.customer_id)
        .where(to_send(plan_id), messages.c.send_at > now)
    )
    for query in (applied, sent):
        if (newest := connection.execute(query).scalar()) is not None:
            yield newest


def _insert(
    connection: Connection, plan: Row[Any], campaign: Campaign, settings: Way, now: datetime, run_id: str | None
) -> int:
    """A batch holds people of one shop whose mailboxes one provider runs, with neighbouring customer numbers."""
    fill_known_domains(connection, now)
    provider = provider_of_customer() if settings.kind == "email" else literal("")
    chosen = (
        select(
            verdicts.c.shop,
            verdicts.c.customer_id,
            verdicts.c.segment,
            verdicts.c.locale,
            handles.address_hash_of(settings.kind, verdicts.c.customer_id, verdicts.c.shop).label("address_hash"),
            provider.label("provider"),
            decided.c.frees_at,
        )
        .join_from(verdicts, customers, customers.c.customer_id == verdicts.c.customer_id)
        .outerjoin(mail_domains, mail_domains.c.domain == customers.c.email_domain)
        .outerjoin(decided, decided.c.customer_id == verdicts.c.customer_id)  # who is left and there, is held
        .where(to_send(plan.plan_id))
        .subquery("chosen")
    )
    place = func.row_number().over(partition_by=(chosen.c.shop, chosen.c.provider), order_by=chosen.c.customer_id)
    placed = select(chosen, ((place - 1) // settings.batch_size).label("part")).subquery("placed")
    batch = func.dense_rank().over(order_by=(placed.c.shop, placed.c.provider, placed.c.part))
    columns = {
        "plan_id": literal(plan.plan_id),
        "what": literal(campaign.name),
        "occurrence": literal(plan.occurrence),
        "customer_id": placed.c.customer_id,
        "channel": literal(campaign.channel),
        "purpose": literal(campaign.purpose),
        "tags": literal(tags_of(campaign)),
        "shop": placed.c.shop,
        "segment": placed.c.segment,
        "template": literal(campaign.template),
        "locale": placed.c.locale,
        "address_hash": placed.c.address_hash,
        "mailbox_provider": placed.c.provider,
        "batch": batch,
        "state": literal("reserved"),
        "send_at": literal(now, Instant()),
        "not_before": placed.c.frees_at,
        "reserved_at": literal(now, Instant()),
        "run_id": literal(run_id),
    }
    rows = select(*(value.label(name) for name, value in columns.items())).order_by(
        placed.c.shop, placed.c.provider, placed.c.customer_id
    )
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(messages).from_select(list(columns), rows).on_conflict_do_nothing()
    connection.execute(statement)
    counted = select(func.count()).where(messages.c.plan_id == plan.plan_id)
    return connection.execute(counted).scalar_one()


def _waiting(connection: Connection, plan_id: int, now: datetime) -> tuple[int, datetime | None, datetime | None]:
    until = messages.c.not_before
    query = select(func.count(), func.min(until), func.max(until)).where(
        messages.c.plan_id == plan_id, messages.c.state == "reserved", until > now
    )
    number, first_at, last_at = connection.execute(query).one()
    return number, first_at, last_at


def _batches(connection: Connection, plan_id: int) -> tuple[int, ...]:
    query = select(messages.c.batch).where(messages.c.plan_id == plan_id, messages.c.state == "reserved")
    return tuple(connection.execute(query.distinct().order_by(messages.c.batch)).scalars())
