"""Sending reserved messages: every answer, every reason not to, every way to be interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, select, update

from lifecycle.addresses import address_hash
from lifecycle.channels.base import Accepted, Outcome, Refused, Unknown
from lifecycle.customers.consent import withdraw
from lifecycle.customers.suppression import suppress
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import consents, customers, message_events, messages, suppressions, verdicts
from lifecycle.errors import ChannelDown, ConfigError, ContentError
from lifecycle.ledger.drain import BatchResult, drain, open_batches, total
from lifecycle.ledger.recover import recover
from lifecycle.ledger.reserve import reserve
from lifecycle.messages.records import Mail, Outgoing, Recipient
from lifecycle.settings import Config
from tests.conftest import FakeClock
from tests.ledger.people import (
    NOW,
    SECRET,
    ScriptedChannel,
    add_people,
    add_plan,
    ledger,
    numbered,
    simple_mail,
    states,
)

Send = Callable[..., BatchResult]


@pytest.fixture
def people(engine: Engine, config: Config) -> list[int]:
    """Six people with a reserved message each, in batches of four."""
    found = add_people(engine, numbered(6))
    reserve(engine, config, add_plan(engine, config, found), now=NOW, secret=SECRET)
    return found


def answering(**outcomes: Outcome) -> ScriptedChannel:
    """`answering(person_2=Refused(…))`; the others are accepted."""

    def answer(mail: Mail) -> Outcome:
        name = mail.envelope_to.partition("@")[0].replace(".", "_")
        return outcomes.get(name, Accepted(mail.key))

    return ScriptedChannel(answer)


def revised(engine: Engine) -> list[tuple[int, str, str | None]]:
    columns = verdicts.c
    query = select(columns.customer_id, columns.revised_verdict, columns.revised_rule)
    with reading(engine) as connection:
        rows = connection.execute(query.where(columns.revised_verdict.is_not(None)).order_by(columns.customer_id))
        return [tuple(row) for row in rows]  # type: ignore[misc]


def test_everything_is_sent_once_in_order(engine: Engine, people: list[int], send: Send, clock: FakeClock) -> None:
    channel, done = ScriptedChannel(), list[int]()
    result = send(channel, on_progress=done.append)
    assert result.sentence() == "6 accepted"
    assert channel.taken == numbered(6)
    assert done == [1, 2, 3, 4, 1, 2]
    assert set(ledger(engine, "state", "claim", "lease_until", "attempts", "sent_at", "settled_at", "reason")) == {
        ("accepted", None, None, 1, clock(), clock(), None)
    }
    assert ledger(engine, "provider_id")[0] == ("<1@atlas.example.com>",)
    assert send(channel).sentence() == "0 accepted"


def test_dead_address_is_refused_suppressed_and_noted(engine: Engine, people: list[int], send: Send) -> None:
    result = send(answering(person_2=Refused("550 5.1.1", "User unknown", permanent=True, scope="address")))
    assert (result.accepted, result.refused) == (5, 1)
    assert ledger(engine, "state", "reason")[1] == ("refused", "550 5.1.1 User unknown")
    with reading(engine) as connection:
        event = connection.execute(select(message_events)).one()
        suppression = connection.execute(select(suppressions)).one()
    assert (event.message_id, event.kind, event.detail) == (
        2,
        "bounced",
        {"code": "550 5.1.1", "text": "User unknown", "class": "unknown"},
    )
    assert (suppression.address_hash,) == ledger(engine, "address_hash")[1]
    assert (suppression.reason, suppression.purpose, suppression.shop) == ("hard_bounce", "all", None)
    assert revised(engine) == []


def test_refused_message_leaves_the_address_alone(engine: Engine, people: list[int], send: Send) -> None:
    send(answering(person_2=Refused("554 5.6.0", "cannot read this", permanent=True, scope="message")))
    assert ledger(engine, "state", "reason")[1] == ("refused", "554 5.6.0 cannot read this")
    with reading(engine) as connection:
        assert connection.execute(select(suppressions)).all() == []


def test_temporary_refusal_waits_longer_each_time_and_ends(
    engine: Engine, people: list[int], send: Send, clock: FakeClock
) -> None:
    busy = answering(person_2=Refused("451 4.3.0", "later", permanent=False))
    assert send(busy).sentence() == "5 accepted, 1 held for later"
    state, not_before, attempts = ledger(engine, "state", "not_before", "attempts")[1]
    assert (state, attempts) == ("reserved", 1)
    assert timedelta(minutes=12) <= not_before - NOW <= timedelta(minutes=18)
    clock.tick(minutes=12)
    assert open_batches(engine, now=clock()) == []
    clock.tick(minutes=6)
    assert send(busy).held == 1
    not_before, attempts = ledger(engine, "not_before", "attempts")[1]
    assert attempts == 2 and timedelta(minutes=24) <= not_before - clock() <= timedelta(minutes=36)
    clock.tick(minutes=36)
    assert send(busy).refused == 1
    assert ledger(engine, "state", "reason")[1] == ("refused", "gave up after 3 attempts: 451 4.3.0 later")
    assert len(busy.taken) == 5


def test_lost_answer_is_unknown_and_never_sent_again(engine: Engine, people: list[int], send: Send) -> None:
    assert send(answering(person_2=Unknown("the connection was lost"))).unknown == 1
    assert ledger(engine, "state", "reason")[1] == ("unknown", "the connection was lost")
    again = ScriptedChannel()
    send(again)
    assert again.taken == []


def test_channel_that_is_down_stops_the_batch_and_loses_nothing(
    engine: Engine, people: list[int], send: Send, clock: FakeClock
) -> None:
    def answer(mail: Mail) -> Outcome:
        if mail.envelope_to == "person.3@example.com":
            raise ChannelDown("SMTP server x:25 cannot be reached")
        return Accepted(mail.key)

    result = send(ScriptedChannel(answer))
    assert (result.accepted, result.held) == (2, 4)
    assert result.problem is not None and result.problem.startswith("SMTP server x:25 cannot be reached; email to")
    assert set(ledger(engine, "state", "attempts", "claim")[2:]) == {("reserved", 0, None)}
    rest = ScriptedChannel()
    assert send(rest).accepted == 0, "the way rests for a minute"
    clock.tick(minutes=1)
    assert send(rest).accepted == 4
    assert rest.taken == numbered(6)[2:]


def test_wrong_login_is_tried_again_at_once(engine: Engine, people: list[int], send: Send) -> None:
    def answer(mail: Mail) -> Outcome:
        raise ChannelDown("SMTP server x:25 does not accept the login (535)", login=True)

    assert send(ScriptedChannel(answer)).problem == "SMTP server x:25 does not accept the login (535)"
    assert send().accepted == 6


def test_peer_that_took_none_of_a_request_leaves_nobody_unknown(
    engine: Engine, people: list[int], send: Send, clock: FakeClock
) -> None:
    class Busy(ScriptedChannel):
        def send(
            self, messages: Sequence[Mail], begin: Callable[[Outgoing], None]
        ) -> Iterator[tuple[Outgoing, Outcome]]:
            for mail in messages:
                begin(mail)
            raise ChannelDown("too many requests", 90, taken_none=True)
            yield

    assert send(Busy()).held == 6
    assert states(engine) == {"reserved": 6}
    clock.tick(seconds=89)
    assert send().accepted == 0
    clock.tick(seconds=1)
    assert send().accepted == 6


def test_refusal_of_everything_we_send_stops_the_lane_and_costs_no_attempt(
    engine: Engine, people: list[int], send: Send, clock: FakeClock
) -> None:
    blocked = answering(person_1=Refused("550 5.7.1", "blocked", permanent=True, scope="lane"))
    result = send(blocked, chunk=1)
    assert result.problem == "email to other rests until 2026-11-22 10:00 UTC: 550 5.7.1 blocked"
    assert (result.accepted, result.held) == (0, 6)
    assert ledger(engine, "state", "reason", "attempts")[0] == ("reserved", "550 5.7.1 blocked", 0)
    clock.tick(minutes=59)
    assert send().accepted == 0
    clock.tick(minutes=1)
    assert send(blocked, chunk=1).problem == "email to other rests until 2026-11-22 12:00 UTC: 550 5.7.1 blocked"
    clock.tick(hours=2)
    assert send().accepted == 6


def test_suppressed_since_planning(engine: Engine, people: list[int], send: Send) -> None:
    hashes = [value for (value,) in ledger(engine, "address_hash")]
    with writing(engine) as connection:
        for shop, address_hash in (("atlas", hashes[0]), (None, hashes[1]), ("harbour", hashes[2])):
            suppress(
                connection, [address_hash], "unsubscribe",
                channel="email", evidence="x", occurred_at=NOW, recorded_at=NOW, shop=shop,
            )  # fmt: skip
    channel = ScriptedChannel()
    result = send(channel)
    assert (result.accepted, result.revised) == (4, 2)
    assert channel.taken == numbered(6)[2:]
    assert ledger(engine, "state", "reason")[0] == ("refused", "suppressed since planning: unsubscribe")
    assert revised(engine) == [(people[0], "suppressed", "unsubscribe"), (people[1], "suppressed", "unsubscribe")]


def test_suppression_by_a_clock_that_is_ahead_holds_at_once(engine: Engine, people: list[int], send: Send) -> None:
    soon = NOW + timedelta(minutes=2)
    with writing(engine) as connection:
        suppress(
            connection, [ledger(engine, "address_hash")[0][0]], "unsubscribe",
            channel="email", evidence="x", occurred_at=soon, recorded_at=soon,
        )  # fmt: skip
    assert send().revised == 1
    assert revised(engine) == [(people[0], "suppressed", "unsubscribe")]


def test_consent_withdrawn_since_planning(engine: Engine, people: list[int], send: Send) -> None:
    with writing(engine) as connection:
        for person, shop, topic in (
            (people[0], "atlas", "promotions"),
            (people[1], "harbour", "promotions"),
            (people[2], "atlas", "news"),
        ):
            withdraw(
                connection, person, shop, "email", topic,
                occurred_at=NOW, recorded_at=NOW, source="web", evidence="x",
            )  # fmt: skip
        connection.execute(delete(consents).where(consents.c.customer_id == people[5]))
    result = send()
    assert (result.accepted, result.revised) == (4, 2)
    assert ledger(engine, "state", "reason")[0] == ("refused", "consent withdrawn since planning")
    assert revised(engine) == [(people[0], "no_consent", "withdrawn"), (people[5], "no_consent", "never_given")]


def test_unsubscribing_while_the_batch_is_sent_works_before_the_next_mail(
    engine: Engine, people: list[int], send: Send
) -> None:
    last = ledger(engine, "address_hash")[3][0]

    def answer(mail: Mail) -> Outcome:
        if mail.envelope_to == "person.1@example.com":
            with writing(engine) as connection:
                suppress(
                    connection, [last], "unsubscribe",
                    channel="email", evidence="x", occurred_at=NOW, recorded_at=NOW,
                )  # fmt: skip
        return Accepted(mail.key)

    channel = ScriptedChannel(answer)
    assert send(channel, chunk=1).revised == 1
    assert "person.4@example.com" not in channel.taken


def test_erased_and_moved_people(engine: Engine, people: list[int], send: Send) -> None:
    moved = address_hash(SECRET, "email", "new@example.com")
    with writing(engine) as connection:
        erase = update(customers).where(customers.c.customer_id == people[0])
        connection.execute(erase.values(email=None, email_key=None, email_hash=None))
        move = update(customers).where(customers.c.customer_id == people[1])
        connection.execute(move.values(email="new@example.com", email_key="new@example.com", email_hash=moved))
    channel = ScriptedChannel()
    result = send(channel)
    assert (result.accepted, result.revised) == (5, 1)
    assert channel.taken[0] == "new@example.com"
    assert ledger(engine, "state", "reason")[0] == ("refused", "no address any more")
    assert ledger(engine, "address_hash")[1] == (moved,)


def test_address_that_changes_while_the_batch_is_sent_waits_for_the_next(
    engine: Engine, people: list[int], send: Send
) -> None:
    moved = address_hash(SECRET, "email", "new@example.com")

    def answer(mail: Mail) -> Outcome:
        if mail.envelope_to == "person.1@example.com":
            with writing(engine) as connection:
                move = update(customers).where(customers.c.customer_id == people[1])
                connection.execute(
                    move.values(email="new@example.com", email_key="new@example.com", email_hash=moved)
                )
        return Accepted(mail.key)

    channel = ScriptedChannel(answer)
    assert send(channel, chunk=1).held == 1
    assert "person.2@example.com" not in channel.taken
    send(channel)
    assert channel.taken[-1] == "new@example.com"


def test_mail_that_cannot_be_made_is_a_verdict_and_the_others_go(
    engine: Engine, people: list[int], send: Send
) -> None:
    def compose(recipient: Recipient) -> Mail:
        if recipient.customer_id == people[0]:
            raise ContentError("Subject has a line break")
        return simple_mail(recipient)

    assert send(compose=compose).sentence() == "5 accepted, 1 not sent after all"
    assert ledger(engine, "state", "reason")[0] == ("refused", "content: Subject has a line break")
    assert revised(engine) == [(people[0], "content", None)]


def test_shop_that_is_no_longer_configured_is_a_verdict_and_the_others_go(
    engine: Engine, config: Config, people: list[int], send: Send
) -> None:
    def compose(recipient: Recipient) -> Mail:
        if recipient.customer_id == people[0]:
            config.shop("closed")
        return simple_mail(recipient)

    with writing(engine) as connection:
        closed = update(messages).where(messages.c.customer_id == people[0])
        connection.execute(closed.values(shop="closed"))
    assert send(compose=compose).sentence() == "5 accepted, 1 not sent after all"
    assert ledger(engine, "state", "reason")[0] == ("refused", "policy: the shop is no longer configured")
    assert revised(engine) == [(people[0], "policy", "unknown_shop")]


def test_other_mistake_in_the_configuration_refuses_nobody(engine: Engine, people: list[int], send: Send) -> None:
    def compose(recipient: Recipient) -> Mail:
        raise ConfigError("winback.en.mjml: the file is missing")

    with pytest.raises(ConfigError, match="the file is missing"):
        send(compose=compose, chunk=1)
    assert states(engine) == {"reserved": 6}


def test_mistake_in_our_code_does_not_lose_the_answer_before_it(
    engine: Engine, people: list[int], send: Send
) -> None:
    def compose(recipient: Recipient) -> Mail:
        if recipient.customer_id == people[1]:
            raise RuntimeError("a bug")
        return simple_mail(recipient)

    with pytest.raises(RuntimeError, match="a bug"):
        send(compose=compose, chunk=1)
    assert states(engine) == {"accepted": 1, "reserved": 5}
    assert {claim for (claim,) in ledger(engine, "claim")} == {None}


def test_interrupted_while_a_mail_is_on_its_way(engine: Engine, people: list[int], send: Send) -> None:
    def answer(mail: Mail) -> Outcome:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        send(ScriptedChannel(answer))
    assert states(engine) == {"unknown": 1, "reserved": 5}


def test_batch_that_somebody_holds_is_left_alone(engine: Engine, people: list[int], send: Send) -> None:
    inner: list[BatchResult] = []

    def answer(mail: Mail) -> Outcome:
        if mail.envelope_to == "person.1@example.com":
            inner.append(send(second))
        return Accepted(mail.key)

    first, second = ScriptedChannel(answer), ScriptedChannel()
    send(first)
    assert first.taken == numbered(4)
    assert second.taken == numbered(6)[4:]
    assert not inner[0].busy and inner[0].accepted == 2


def test_all_busy_is_said(engine: Engine, people: list[int], send: Send) -> None:
    with writing(engine) as connection:
        connection.execute(update(messages).values(claim="other", lease_until=NOW + timedelta(seconds=1)))
    assert send().sentence() == "another process is sending this batch"


def test_losing_the_claim_stops_at_once_and_writes_nothing_more(
    engine: Engine, config: Config, people: list[int], send: Send, clock: FakeClock, tmp_path: Path
) -> None:
    """The lease runs out during a long silence; another process takes over and finishes."""
    other = ScriptedChannel()

    def answer(mail: Mail) -> Outcome:
        if mail.envelope_to == "person.2@example.com":
            clock.tick(seconds=61)
            recover(engine, config, now=clock(), wire_dir=tmp_path / "wire")
            send(other)
        return Accepted(mail.key)

    slow = ScriptedChannel(answer)
    result = send(slow)
    assert result.problem == "another process took the batch over"
    assert slow.taken == numbered(2)
    assert other.taken == numbered(6)[4:]
    assert ledger(engine, "state") == [*[("accepted",)] * 2, *[("reserved",)] * 2, *[("accepted",)] * 2]
    send(other)
    assert sorted(other.taken) == numbered(6)[2:]


def test_lease_is_renewed_as_it_goes(
    engine: Engine, config: Config, people: list[int], send: Send, clock: FakeClock, tmp_path: Path
) -> None:
    def answer(mail: Mail) -> Outcome:
        clock.tick(seconds=50)
        assert recover(engine, config, now=clock(), wire_dir=tmp_path / "wire").unknown == 0
        return Accepted(mail.key)

    assert send(ScriptedChannel(answer)).accepted == 6


def test_another_secret_sends_nothing(engine: Engine, people: list[int], send: Send) -> None:
    with pytest.raises(ConfigError, match="TERN_SECRET is not the one"):
        send(secret=b"x" * 32)
    assert states(engine) == {"reserved": 6}


def test_open_batches_by_plan_and_campaign(engine: Engine, config: Config, people: list[int]) -> None:
    found = open_batches(engine, now=NOW)
    assert [(batch.plan_id, batch.batch, batch.channel, batch.messages) for batch in found] == [
        (1, 1, "email", 4), (1, 2, "email", 2),
    ]  # fmt: skip
    assert open_batches(engine, now=NOW, plan_id=1, campaign="winback") == found
    assert open_batches(engine, now=NOW, plan_id=2) == open_batches(engine, now=NOW, campaign="vip_thanks") == []


def test_batch_that_is_done_is_drained_to_nothing(
    engine: Engine, config: Config, people: list[int], send: Send, clock: FakeClock, tmp_path: Path
) -> None:
    (first, *_) = open_batches(engine, now=NOW)
    send()
    result = drain(
        engine, first, compose=simple_mail, ways=ScriptedChannel(),
        config=config, secret=SECRET, clock=clock, wire_dir=tmp_path,
    )  # fmt: skip
    assert result == BatchResult(first.plan_id, first.batch)


def test_total_of_several_batches() -> None:
    results = [
        BatchResult(1, 1, accepted=2, refused=1, problem="down"),
        BatchResult(1, 2, accepted=1_000, unknown=1, held=3, problem="down"),
        BatchResult(1, 3, busy=True),
    ]
    assert total(results) == BatchResult(1, None, accepted=1_002, refused=1, unknown=1, held=3, problem="down")
    assert total(results).sentence() == "1,002 accepted, 1 refused, 1 unknown, 3 held for later; stopped: down"
    assert total([]).sentence() == "0 accepted"
    assert total(results).as_dict()["accepted"] == 1_002
