"""Messages whose answer was lost, on a channel that can tell: the whole way through a real receiver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, update

from lifecycle.customers.handles import handle_hash
from lifecycle.db.engine import writing
from lifecycle.db.schema import consents, identities, messages
from lifecycle.ledger.reconcile import reconcile
from lifecycle.ledger.reserve import reserve
from lifecycle.ledger.sending import send_batch
from lifecycle.ledger.taking import open_batches
from lifecycle.messages.keys import note_key
from lifecycle.messages.links import prepare_links
from lifecycle.settings import ROOT, Config, Environment
from lifecycle.workplace import Workplace
from sandbox.messengers import Receiver
from sandbox.servers import serve
from tests.conftest import FakeClock
from tests.ledger.conftest import without_hold_out
from tests.ledger.people import NOW, SECRET, add_people, add_plan, ledger, numbered

ENV = {"TERN_HOOK_SECRET": "a secret for the receiver"}


@pytest.fixture
def receiver(clock: FakeClock) -> Receiver:
    return Receiver(ENV["TERN_HOOK_SECRET"], clock=clock)


@pytest.fixture
def place(
    engine: Engine, config: Config, changed: Callable[..., Config], tmp_path: Path, receiver: Receiver
) -> Iterator[Workplace]:
    """Four people whom the campaign winback reaches by a webhook, reserved."""
    with serve(receiver.app()) as address:
        hook = {"name": "hook", "kind": "webhook", "url": f"{address}/hook", "secret_env": "TERN_HOOK_SECRET"}
        campaigns = [each.model_dump() | {"channel": "hook"} for each in config.campaigns.values()]
        campaigns_file = {"campaigns": campaigns, "guards": {"max_age_hours": 24 * 30}}
        changed_config = changed(channels_file={"channels": [hook]}, campaigns_file=campaigns_file)
        config = without_hold_out(changed_config)
        environment = Environment(ROOT / "config", ROOT / "templates", tmp_path, "", SECRET)
        people = add_people(engine, numbered(4))
        with writing(engine) as connection:
            accounts = [
                {"shop": "atlas", "platform_customer_id": f"c{each}", "customer_id": each} for each in people
            ]
            linked = {"linked_by": "platform_id", "linked_at": NOW}
            for account in accounts:
                account["handle_hash"] = handle_hash(SECRET, "atlas", str(account["platform_customer_id"]))
            connection.execute(insert(identities), [account | linked for account in accounts])
            connection.execute(update(consents).values(channel="webhook"))
        plan_id = add_plan(engine, config, people)
        prepare_links(engine, config, environment, plan_id)
        reserve(engine, config, plan_id, now=NOW, secret=SECRET)
        yield Workplace(environment, config, engine)


def account(customer_id: int) -> dict[str, Any]:
    number = f"c{customer_id}"
    return {
        "shop": "atlas", "platform_customer_id": number, "customer_id": customer_id,
        "linked_by": "platform_id", "linked_at": NOW, "handle_hash": handle_hash(SECRET, "atlas", number),
    }  # fmt: skip


def send(place: Workplace, clock: FakeClock) -> None:
    for batch in open_batches(place.engine, now=clock()):
        send_batch(place, batch, env=ENV, clock=clock)


def test_sent_through_the_composer_and_the_wire(place: Workplace, receiver: Receiver, clock: FakeClock) -> None:
    send(place, clock)
    assert ledger(place.engine, "state") == [("accepted",)] * 4
    said = list(receiver.taken.values())
    assert [message["to"] for message in said] == ["c1", "c2", "c3", "c4"]
    assert said[0]["campaign"] == "winback" and "Ada" in said[0]["parameters"]


def test_taken_is_accepted_and_proven_not_taken_is_sent(
    place: Workplace, receiver: Receiver, clock: FakeClock
) -> None:
    receiver.left_out |= {"c2", "c3", "c4"}  # no answer about them: unknown
    send(place, clock)
    assert [state for (state,) in ledger(place.engine, "state")] == ["accepted", *["unknown"] * 3]
    receiver.left_out.clear()
    receiver.taken[note_key(SECRET, 2)] = {"to": "c2"}  # this one it had taken all the same
    found = reconcile(place, now=clock(), env=ENV)
    assert (found.asked, found.taken, found.not_taken, found.problems) == (3, 1, 2, ())
    send(place, clock)
    assert ledger(place.engine, "state") == [("accepted",)] * 4
    assert [message["to"] for message in receiver.taken.values()] == ["c1", "c2", "c3", "c4"]


def test_what_cannot_be_asked_stays_unknown(place: Workplace, receiver: Receiver, clock: FakeClock) -> None:
    receiver.left_out |= {"c1", "c2", "c3", "c4"}
    receiver.can_be_asked = False
    send(place, clock)
    with writing(place.engine) as connection:
        connection.execute(update(messages).values(sent_at=NOW - timedelta(days=8)))
    assert reconcile(place, now=clock(), env=ENV).asked == 0, "too old to be asked about"
    with writing(place.engine) as connection:
        connection.execute(update(messages).values(sent_at=NOW))
    found = reconcile(place, now=clock(), env={})
    assert (found.asked, found.taken, found.not_taken) == (4, 0, 0)
    assert "TERN_HOOK_SECRET" in found.sentence()
    assert ledger(place.engine, "state") == [("unknown",)] * 4
