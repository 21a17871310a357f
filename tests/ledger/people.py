"""People, plans and channels for tests of what happens after planning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Engine, Table, delete, func, insert, select, update

from lifecycle.addresses import address_hash, domain_of, email_key
from lifecycle.channels.base import Accepted, Outcome, nothing_known
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import cap_rules, consents, customers, messages, metadata, plans, verdicts
from lifecycle.errors import ChannelDown
from lifecycle.messages.records import Mail, Outgoing, Recipient, Sent
from lifecycle.planning.plan import load_plan, plan_hash, planned_verdicts
from lifecycle.settings import Config

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
SECRET = b"a secret for tests, 32 characters"


def add_people(
    engine: Engine,
    addresses: Sequence[str],
    *,
    shop: str = "atlas",
    name: str | None = "Ada Lovelace",
    said_yes_at: datetime = NOW - timedelta(days=300),
) -> list[int]:
    """Customers with these addresses who agreed to promotions. Returns their numbers, in order."""
    with writing(engine) as connection:
        first = (connection.execute(select(func.max(customers.c.customer_id))).scalar() or 0) + 1
        numbers = list(range(first, first + len(addresses)))
        people = [
            {
                "customer_id": number,
                "email": address,
                "email_key": email_key(address),
                "email_hash": address_hash(SECRET, "email", email_key(address) or ""),
                "email_domain": domain_of(email_key(address)),
                "name": name,
                "seed": number,
                "first_seen_at": said_yes_at,
                "updated_at": said_yes_at,
            }
            for number, address in zip(numbers, addresses, strict=True)
        ]
        connection.execute(insert(customers), people)
        yes = [
            {
                "customer_id": number,
                "shop": shop,
                "channel": "email",
                "topic": "promotions",
                "status": "granted",
                "basis": "express",
                "occurred_at": said_yes_at,
                "recorded_at": said_yes_at,
                "source": "test",
            }
            for number in numbers
        ]
        connection.execute(insert(consents), yes)
    return numbers


def numbered(count: int, prefix: str = "person") -> list[str]:
    return [f"{prefix}.{number}@example.com" for number in range(1, count + 1)]


def add_plan(
    engine: Engine,
    config: Config,
    selected: Iterable[int],
    *,
    campaign: str = "winback",
    occurrence: str = "2026-11-22",
    shop: str = "atlas",
    locale: str = "en",
    others: Mapping[int, str] | None = None,
    created_at: datetime = NOW,
) -> int:
    """A draft that selects some and gives `others` the verdicts named."""
    chosen = dict.fromkeys(selected, "selected") | dict(others or {})
    definition = config.campaign(campaign).model_dump(mode="json")
    with writing(engine) as connection:
        values = {
            "campaign": campaign,
            "occurrence": occurrence,
            "as_of": NOW,
            "created_at": created_at,
            "hash": "",
            "audience": len(chosen),
            "status": "draft",
            "definition": definition,
            "channel": definition["channel"],
        }
        plan_id: int = connection.execute(insert(plans).values(values).returning(plans.c.plan_id)).scalar_one()
        rows = [
            {
                "plan_id": plan_id,
                "customer_id": customer,
                "verdict": verdict,
                "segment": "dormant",
                "shop": shop,
                "locale": locale,
            }
            for customer, verdict in chosen.items()
        ]
        connection.execute(insert(verdicts), rows)
        rules = [
            {
                "plan_id": plan_id,
                "rule": rule.name,
                "position": position,
                "definition": rule.model_dump(mode="json"),
            }
            for position, rule in enumerate(config.caps_file.caps)
        ]
        connection.execute(insert(cap_rules), rules)
    plan = load_plan(engine, plan_id)
    with writing(engine) as connection:
        hashed = plan_hash(plan, planned_verdicts(connection, plan_id))
        connection.execute(update(plans).where(plans.c.plan_id == plan_id).values(hash=hashed))
    return plan_id


def simple_mail(recipient: Recipient) -> Mail:
    """A mail in a few lines, for tests that are not about its content."""
    key = f"<{recipient.message_id}@atlas.example.com>"
    content = f"From: news@atlas.example.com\r\nMessage-ID: {key}\r\n\r\nHello\r\n".encode()
    return Mail(recipient.message_id, key, "b@bounce.example.com", recipient.address or "", content)


class ScriptedChannel:
    """Answers as told; keeps what it took. `answer`: a mail to an outcome, or it raises."""

    def __init__(
        self, answer: Callable[[Mail], Outcome] = lambda mail: Accepted(mail.key), at_once: int = 1000
    ) -> None:
        self._answer = answer
        self.at_once = at_once
        self.taken: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def way(self, recipient: Recipient) -> tuple[str, ScriptedChannel]:
        return "main", self

    def send(
        self, messages: Sequence[Mail], begin: Callable[[Outgoing], None]
    ) -> Iterator[tuple[Outgoing, Outcome]]:
        for mail in messages:
            try:
                outcome = self._answer(mail)
            except ChannelDown:
                raise
            except BaseException:
                begin(mail)
                raise
            begin(mail)
            if isinstance(outcome, Accepted):
                self.taken.append(mail.envelope_to)
            yield mail, outcome

    def look_up(self, sent: Sequence[Sent]) -> Mapping[int, Outcome]:
        return nothing_known(sent)


def ledger(engine: Engine, *columns: str) -> list[tuple[Any, ...]]:
    """Rows of `messages`, by message_id."""
    with reading(engine) as connection:
        query = select(*(messages.c[name] for name in columns)).order_by(messages.c.message_id)
        return [tuple(row) for row in connection.execute(query)]


def states(engine: Engine) -> dict[str, int]:
    with reading(engine) as connection:
        query = select(messages.c.state, func.count()).group_by(messages.c.state)
        return {state: count for state, count in connection.execute(query)}


def stored(engine: Engine) -> dict[Table, list[dict[str, Any]]]:
    with reading(engine) as connection:
        return {
            table: [dict(row) for row in connection.execute(select(table)).mappings()]
            for table in metadata.sorted_tables
        }


def restore(engine: Engine, rows: Mapping[Table, list[dict[str, Any]]]) -> None:
    with writing(engine) as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(delete(table))
        for table in metadata.sorted_tables:
            if rows.get(table):
                connection.execute(insert(table), rows[table])
