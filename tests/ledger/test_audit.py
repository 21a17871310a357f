"""The audit passes on an honest ledger and fails on one that is broken by hand, promise by promise."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ColumnElement, Connection, Engine, delete, insert, select, update

from lifecycle.channels.base import Accepted, Outcome, Refused
from lifecycle.db.engine import writing
from lifecycle.db.schema import (
    approvals,
    cap_rules,
    consents,
    landing_pages,
    message_events,
    messages,
    plans,
    pull_bookmarks,
    segment_members,
    segment_runs,
    suppressions,
    verdicts,
)
from lifecycle.ledger.audit import audit
from lifecycle.ledger.drain import BatchResult
from lifecycle.ledger.reserve import reserve
from lifecycle.messages.records import Mail
from lifecycle.settings import Config
from tests.conftest import FakeClock
from tests.ledger.people import NOW, SECRET, ScriptedChannel, add_people, add_plan, numbered, restore, stored

SOON = NOW + timedelta(minutes=20)
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def sent(
    engine: Engine, config: Config, clock: FakeClock, send: Callable[..., BatchResult], tmp_path: Path
) -> Engine:
    """Six people: five messages sent 20 minutes after they were reserved, one refused, a capped person, one draft
    plan, events, a landed page and its bookmark."""
    people = add_people(engine, numbered(7))
    plan_id = add_plan(engine, config, people[:6], others={people[6]: "capped"})
    add_plan(engine, config, people, campaign="vip_thanks")
    reserve(engine, config, plan_id, now=clock(), secret=SECRET)
    clock.tick(minutes=20)

    def answer(mail: Mail) -> Outcome:
        dead = mail.envelope_to == "person.6@example.com"
        refused = Refused("550 5.1.1", "unknown", permanent=True, scope="address")
        return refused if dead else Accepted(mail.key)

    assert send(ScriptedChannel(answer)).accepted == 5
    body = b'{"orders": []}'
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "page.gz").write_bytes(gzip.compress(body))
    with writing(engine) as connection:
        connection.execute(
            insert(message_events).values(message_id=1, kind="opened", occurred_at=LATER, source="web")
        )
        connection.execute(
            insert(landing_pages).values(
                shop="atlas",
                platform="shopify",
                entity="orders",
                path="landing/page.gz",
                sha256=hashlib.sha256(body).hexdigest(),
                rows=0,
                window_until=NOW,
                landed_at=NOW,
            )
        )
        connection.execute(
            insert(pull_bookmarks).values(shop="atlas", entity="orders", watermark=NOW, moved_at=NOW)
        )
    return engine


def broken(engine: Engine, data_dir: Path) -> list[str]:
    found = audit(engine, data_dir=data_dir, now=LATER)
    assert len(found) >= 20
    return [finding.sentence.removeprefix("not true that ") for finding in found if not finding.passed]


def message(number: int) -> ColumnElement[bool]:
    return messages.c.message_id == number


def test_honest_ledger_passes(sent: Engine, tmp_path: Path) -> None:
    found = audit(sent, data_dir=tmp_path, now=LATER)
    assert broken(sent, tmp_path) == []
    assert {finding.invariant[0] for finding in found} == set("1234568")
    assert all(finding.sentence and finding.as_dict()["passed"] for finding in found)


def test_empty_ledger_passes(engine: Engine, tmp_path: Path) -> None:
    assert broken(engine, tmp_path) == []


def _same_provider_id(connection: Connection) -> None:
    connection.execute(update(messages).where(message(1)).values(provider_id="<2@atlas.example.com>"))


def _lost_message(connection: Connection) -> None:
    connection.execute(delete(messages).where(message(2)))


def _message_of_nobody_selected(connection: Connection) -> None:
    connection.execute(update(verdicts).where(verdicts.c.customer_id == 2).values(verdict="capped"))


def _nobody_sends_it(connection: Connection) -> None:
    connection.execute(update(messages).where(message(2)).values(state="sending", claim=None))


def _lease_ran_out(connection: Connection) -> None:
    held = {"state": "sending", "claim": "elsewhere:boot:1:1:x", "lease_until": LATER}
    connection.execute(update(messages).where(message(2)).values(held))


def _refused_without_reason(connection: Connection) -> None:
    connection.execute(update(messages).where(message(6)).values(reason=None))


def _accepted_without_proof(connection: Connection) -> None:
    connection.execute(update(messages).where(message(2)).values(provider_id=None))


def _broken_cap(connection: Connection) -> None:
    """The first customer gets the second one's message as well, of the day before."""
    yesterday = NOW - timedelta(days=1)
    moved = {"customer_id": 1, "occurrence": "2026-11-21", "plan_id": None}
    moved |= {"send_at": yesterday, "reserved_at": yesterday}
    connection.execute(update(messages).where(message(2)).values(moved))


def _broken_cap_by_one_that_was_held(connection: Connection) -> None:
    """Reserved before the window, but it left within it."""
    days = {"reserved_at": NOW - timedelta(days=61), "send_at": NOW - timedelta(days=59)}
    moved = {"customer_id": 1, "occurrence": "2026-11-21", "plan_id": None, **days}
    connection.execute(update(messages).where(message(2)).values(moved))


def _waited_too_long(connection: Connection) -> None:
    waits = {"state": "reserved", "claim": None, "reserved_at": LATER - timedelta(hours=49)}
    connection.execute(update(messages).where(message(2)).values(waits))


def _suppressed_before(connection: Connection) -> None:
    hashed = select(messages.c.address_hash).where(message(2)).scalar_subquery()
    connection.execute(
        insert(suppressions).values(
            address_hash=hashed,
            channel="email",
            purpose="marketing",
            reason="unsubscribe",
            evidence="x",
            occurred_at=NOW,
            recorded_at=NOW,
        )
    )


def _withdrawn_before(connection: Connection) -> None:
    yes = select(consents).where(consents.c.customer_id == 2)
    row = dict(connection.execute(yes).mappings().one())
    row |= {"consent_id": 1_000, "status": "withdrawn", "occurred_at": NOW, "recorded_at": NOW}
    connection.execute(insert(consents).values(row))


def _never_agreed(connection: Connection) -> None:
    connection.execute(delete(consents).where(consents.c.customer_id == 2))


def _agreed_later(connection: Connection) -> None:
    connection.execute(update(consents).where(consents.c.customer_id == 2).values(occurred_at=LATER))


def _agreed_to_another_shop(connection: Connection) -> None:
    connection.execute(update(consents).where(consents.c.customer_id == 2).values(shop="harbour"))


def _agreement_known_later(connection: Connection) -> None:
    late = SOON + timedelta(minutes=16)
    connection.execute(update(consents).where(consents.c.customer_id == 2).values(recorded_at=late))


def _agreement_ran_out(connection: Connection) -> None:
    connection.execute(update(consents).where(consents.c.customer_id == 2).values(expires_at=SOON))


def _smaller_audience(connection: Connection) -> None:
    connection.execute(update(plans).where(plans.c.plan_id == 1).values(audience=6))


def _changed_verdict(connection: Connection) -> None:
    changed = update(verdicts).where(verdicts.c.plan_id == 1, verdicts.c.customer_id == 7)
    connection.execute(changed.values(verdict="hold_out"))


def _event_before_sending(connection: Connection) -> None:
    opened = {"message_id": 2, "kind": "opened", "occurred_at": NOW, "source": "web"}
    connection.execute(insert(message_events).values(opened))


def _event_of_what_was_never_sent(connection: Connection) -> None:
    connection.execute(update(messages).where(message(6)).values(sent_at=None))


def _other_page(connection: Connection) -> None:
    connection.execute(update(landing_pages).values(sha256="0" * 64))


def _missing_page(connection: Connection) -> None:
    connection.execute(update(landing_pages).values(path="landing/gone.gz"))


def _bookmark_ahead(connection: Connection) -> None:
    connection.execute(update(pull_bookmarks).values(watermark=LATER + timedelta(minutes=1)))


def _member_twice(connection: Connection) -> None:
    for since in (NOW - timedelta(days=900), NOW - timedelta(days=800)):
        twice = {"segment": "new", "customer_id": 3, "valid_from": since, "valid_to": NOW}
        connection.execute(insert(segment_members).values(twice))


def _miscounted(connection: Connection) -> None:
    run = {"as_of": NOW, "built_at": NOW, "definitions_hash": "", "definitions": {}, "customers": 1_000}
    connection.execute(insert(segment_runs).values(**run, counts={"dormant": 1_000}))


BREAKS: tuple[tuple[Callable[[Connection], None], str], ...] = (
    (_same_provider_id, "no two messages have the same id at their provider: message 2"),
    (_lost_message, "everybody whom an applied plan selected has a message: customer 2 of plan 1"),
    (_message_of_nobody_selected, "every message goes back to a selected verdict: message 2"),
    (_nobody_sends_it, "no message is on its way without a live process that sends it: message 2"),
    (_lease_ran_out, "no message is on its way without a live process that sends it: message 2"),
    (
        _refused_without_reason,
        "every accepted message has its proof and every other end its reason: message 6",
    ),
    (
        _accepted_without_proof,
        "every accepted message has its proof and every other end its reason: message 2",
    ),
    (_broken_cap, "no message broke a cap when it was reserved: "),
    (_broken_cap_by_one_that_was_held, "no message broke a cap when it was reserved: "),
    (_waited_too_long, "no marketing message has been waiting for more than two days: message 2"),
    *(
        (break_it, "everybody who was sent marketing had a consent in force when it left: message 2")
        for break_it in (
            _never_agreed,
            _agreed_later,
            _agreed_to_another_shop,
            _agreement_known_later,
            _agreement_ran_out,
        )
    ),
    (_suppressed_before, "nothing was sent to a suppressed address: message 2"),
    (_withdrawn_before, "no marketing was sent after consent had been withdrawn: message 2"),
    (_smaller_audience, "every audience is the sum of its verdicts: plan 1"),
    (_changed_verdict, "no plan's verdicts were changed after it was made: plan 1"),
    (_event_before_sending, "every event belongs to a message that was sent before: event "),
    (_event_of_what_was_never_sent, "every event belongs to a message that was sent before: event 1"),
    (_other_page, "every landed page is stored as it came: page 1"),
    (_missing_page, "every landed page is stored as it came: page 1"),
    (_member_twice, "nobody is in a segment twice at a time: customer 3 in new"),
    (_miscounted, "the newest build's sizes are those of its spans: dormant has "),
    (_bookmark_ahead, "no bookmark is ahead of the clock: orders of atlas"),
)


def test_each_broken_promise_is_found(sent: Engine, tmp_path: Path) -> None:
    rows = stored(sent)
    for break_it, sentence in BREAKS:
        with writing(sent) as connection:
            break_it(connection)
        found = broken(sent, tmp_path)
        assert any(each.startswith(sentence) for each in found), (break_it.__name__, found)
        restore(sent, rows)
        assert broken(sent, tmp_path) == []


def test_two_messages_for_the_same_thing(sent: Engine, tmp_path: Path) -> None:
    """The database itself forbids it, so its rule goes first."""
    columns = ", ".join(column.name for column in messages.columns if column.name != "message_id")
    again = f"insert into messages (message_id, {columns}) select 99, {columns} from messages where message_id = 6"
    raw = sent.raw_connection()
    for statement in _FORGET_THE_RULE[sent.dialect.name] + [again]:
        raw.cursor().execute(statement)
    raw.commit()
    raw.close()
    claim = "no two messages are for the same campaign, date, customer and channel"
    assert f"{claim}: message 99" in broken(sent, tmp_path)


_FORGET_THE_RULE = {
    "sqlite": [
        "pragma foreign_keys = off",
        "pragma legacy_alter_table = on",
        "create table bare as select * from messages",
        "drop table messages",
        "alter table bare rename to messages",
    ],
    "postgresql": ["alter table messages drop constraint uq_messages_what_occurrence_customer_id_channel"],
}


def test_suppression_while_a_mail_was_leaving_proves_nothing(sent: Engine, tmp_path: Path) -> None:
    with writing(sent) as connection:
        _suppressed_before(connection)
        clock = SOON - timedelta(minutes=14)
        connection.execute(update(suppressions).values(occurred_at=clock, recorded_at=clock))
    assert broken(sent, tmp_path) == []


def test_withdrawal_taken_in_while_mails_were_leaving_proves_nothing(sent: Engine, tmp_path: Path) -> None:
    """The intake read its clock 14 minutes before the mail left, and committed after."""
    with writing(sent) as connection:
        _withdrawn_before(connection)
        taken_in = update(consents).where(consents.c.consent_id == 1_000)
        connection.execute(taken_in.values(recorded_at=SOON - timedelta(minutes=14)))
    assert broken(sent, tmp_path) == []


def test_pages_of_another_host_are_counted_and_not_missed(sent: Engine, tmp_path: Path) -> None:
    with writing(sent) as connection:
        row = dict(connection.execute(select(landing_pages)).mappings().one())
        there = {"page_id": 2, "path": "landing/shopify/atlas/orders/page.gz"}
        connection.execute(insert(landing_pages).values({**row, **there}))
    sentences = [finding.sentence for finding in audit(sent, data_dir=tmp_path, now=LATER)]
    assert "every landed page is stored as it came (1 not on this host)" in sentences
    assert broken(sent, tmp_path) == []
    (tmp_path / "landing/shopify/atlas/orders").mkdir(parents=True)
    assert broken(sent, tmp_path) == ["every landed page is stored as it came: page 2"]


def test_consent_given_again_before_sending(sent: Engine, tmp_path: Path) -> None:
    with writing(sent) as connection:
        _withdrawn_before(connection)
        row = dict(connection.execute(select(consents).where(consents.c.consent_id == 1_000)).mappings().one())
        newer = {"consent_id": 1_001, "status": "granted", "occurred_at": NOW + timedelta(seconds=10)}
        connection.execute(insert(consents).values({**row, **newer}))
    assert broken(sent, tmp_path) == []


def test_many_offenders_are_counted_and_the_first_shown(sent: Engine, tmp_path: Path) -> None:
    with writing(sent) as connection:
        connection.execute(update(messages).values(state="sending", claim=None))
    (finding,) = broken(sent, tmp_path)
    assert finding.endswith(": message 1, message 2, message 3, message 4, message 5 and 1 more")


FIVE_A_DAY = {"name": "five_a_day", "limit": 5, "per": "day", "timezone": "Europe/Paris"}
SLOTS = {
    "rule": "five_a_day", "group": "atlas", "limit": 5, "used": 0, "wanted": 5, "taken": 5, "last_minor": None,
    "next_minor": None, "frees_at": None, "shops": ["atlas"],
}  # fmt: skip
NEEDS = {"needs_approval": ["5 messages are many"], "slots": [SLOTS]}
APPROVED = {"plan_id": 1, "hash": "", "approved_by": "Ada", "approved_at": NOW}
TODAY_IN_PARIS = datetime(2026, 11, 21, 23, tzinfo=UTC)
THIS_MONTH_IN_PARIS = datetime(2026, 10, 31, 23, tzinfo=UTC)
TICK = timedelta(microseconds=1)


@pytest.fixture
def ruled(
    engine: Engine,
    config: Config,
    changed: Callable[..., Config],
    clock: FakeClock,
    send: Callable[..., BatchResult],
) -> Engine:
    """Seven people; five messages of a sale by an approved plan, which are just what its rules allow."""
    rules = [
        {"name": "month", "limit": 1, "per": "month", "timezone": "Europe/Paris"},
        {"name": "address", "limit": 1, "days": 2, "scope": "address"},
        {"name": "sale", "limit": 1, "days": 60, "tags": ["sale"]},
    ]
    file = config.campaigns_file.model_dump()
    file["campaigns"] = [campaign | {"tags": ["sale", "warm"]} for campaign in file["campaigns"]]
    strict = changed(caps_file={"caps": rules}, campaigns_file=file)
    people = add_people(engine, numbered(7))
    plan_id = add_plan(engine, strict, people[:5], others={people[5]: "quota"})
    with writing(engine) as connection:
        quota = {"plan_id": plan_id, "rule": "five_a_day", "kind": "quota", "position": 9}
        connection.execute(insert(cap_rules).values(quota | {"definition": FIVE_A_DAY}))
        [plan_hash] = connection.execute(select(plans.c.hash)).scalars()
        connection.execute(update(plans).values(summary=NEEDS))
        connection.execute(insert(approvals).values(APPROVED | {"hash": plan_hash}))
    reserve(engine, strict, plan_id, now=clock(), secret=SECRET)
    clock.tick(minutes=20)
    assert send().accepted == 5
    return engine


def _also(like: int, **columns: Any) -> Callable[[Connection], None]:
    """Of old there was one more message, like the one with this number but for `columns`."""

    def add(connection: Connection) -> None:
        row = dict(connection.execute(select(messages).where(message(like))).mappings().one())
        sent_at = columns.get("sent_at", row["sent_at"])
        others = {"message_id": 50, "plan_id": None, "what": "imported", "tags": None, "provider_id": "<50@x>"}
        times = {"send_at": sent_at, "reserved_at": sent_at, "settled_at": sent_at}
        connection.execute(insert(messages).values(row | others | times | columns))

    return add


def _to_seventh(**columns: Any) -> Callable[[Connection], None]:
    """A message to somebody whom the plan did not write to, at an address of their own."""
    return _also(1, **{"customer_id": 7, "address_hash": "another", "sent_at": NOW} | columns)


def _level(connection: Connection, noted: dict[str, Any], **quota: Any) -> None:
    """Another quota, and what the plan noted of it."""
    changed = update(cap_rules).where(cap_rules.c.rule == "five_a_day")
    connection.execute(changed.values(definition=FIVE_A_DAY | quota))
    connection.execute(update(plans).values(summary=NEEDS | {"slots": [SLOTS | noted]}))


def _ramp(connection: Connection, limit: int, ramp: dict[str, Any]) -> None:
    noted = {"group": "atlas.example.com", "limit": limit}
    _level(connection, noted, scope="sender_domain", ramp=ramp)


def _domain_warmed_up_more_slowly(connection: Connection) -> None:
    _ramp(connection, 4, {"starts_on": "2026-11-20", "limits": [1, 2, 4]})


def _domain_begins_tomorrow(connection: Connection) -> None:
    _ramp(connection, 0, {"starts_on": "2026-11-23", "limits": [9]})


def _domain_warmed_up_enough(connection: Connection) -> None:
    """The plan was made the day before."""
    _ramp(connection, 2, {"starts_on": "2026-11-20", "limits": [1, 2, 9]})


def _four_a_day_by_level(connection: Connection) -> None:
    _level(connection, {"limit": 4}, limit={"": 4})


def _five_in_a_day_of_the_channel(connection: Connection) -> None:
    """Of those sent 24 hours before and earlier none counts."""
    rolling = {"per": None, "timezone": None, "hours": 24, "scope": "channel"}
    _level(connection, {"group": "email", "shops": ["atlas", "harbour"]}, **rolling)
    _to_seventh(shop="harbour", sent_at=NOW - timedelta(hours=24))(connection)


def _six_in_a_day_of_the_channel(connection: Connection) -> None:
    _five_in_a_day_of_the_channel(connection)
    sent_at = NOW - timedelta(hours=24) + TICK
    moved = {"send_at": sent_at, "reserved_at": sent_at, "sent_at": sent_at}
    connection.execute(update(messages).where(message(50)).values(moved))


def _never_approved(connection: Connection) -> None:
    connection.execute(delete(approvals))


def _something_else_was_approved(connection: Connection) -> None:
    connection.execute(update(approvals).values(hash="0" * 64))


def _no_approval_was_needed(connection: Connection) -> None:
    _never_approved(connection)
    connection.execute(update(plans).values(summary=NEEDS | {"needs_approval": []}))


_QUOTA = "no plan went over a quota: five_a_day of "
_APPROVAL = "no plan that needed an approval was sent without one: plan 1"
_CAP = "no message broke a cap when it was reserved: "
EARLIER = NOW - timedelta(days=25)
YESTERDAY = NOW - timedelta(days=1)

RULE_BREAKS: tuple[tuple[Callable[[Connection], None], str], ...] = (
    (_to_seventh(), f"{_QUOTA}atlas: 6 of 5 with plan 1"),
    (_to_seventh(sent_at=TODAY_IN_PARIS), f"{_QUOTA}atlas: 6 of 5 with plan 1"),
    (_to_seventh(state="unknown", reason="gone"), f"{_QUOTA}atlas: 6 of 5 with plan 1"),
    (_to_seventh(state="reserved"), f"{_QUOTA}atlas: 6 of 5 with plan 1"),
    (_four_a_day_by_level, f"{_QUOTA}atlas: 5 of 4 with plan 1"),
    (_domain_warmed_up_more_slowly, f"{_QUOTA}atlas.example.com: 5 of 4 with plan 1"),
    (_domain_begins_tomorrow, f"{_QUOTA}atlas.example.com: 5 of 0 with plan 1"),
    (_six_in_a_day_of_the_channel, f"{_QUOTA}email: 6 of 5 with plan 1"),
    (_never_approved, _APPROVAL),
    (_something_else_was_approved, _APPROVAL),
    (_also(1, sent_at=THIS_MONTH_IN_PARIS), f"{_CAP}month: message 1"),
    (_also(1, customer_id=7, sent_at=YESTERDAY), f"{_CAP}address: message 1"),
    (_also(2, sent_at=EARLIER, tags=",sale,"), f"{_CAP}sale: message 2"),
    (_also(2, sent_at=EARLIER, tags=",new,sale,"), f"{_CAP}sale: message 2"),
)
RULES_KEPT: tuple[Callable[[Connection], None], ...] = (
    _to_seventh(sent_at=TODAY_IN_PARIS - TICK),
    _to_seventh(shop="harbour"),
    _to_seventh(purpose="transactional"),
    _to_seventh(state="refused", reason="550"),
    _to_seventh(reserved_at=NOW + TICK),
    _domain_warmed_up_enough,
    _five_in_a_day_of_the_channel,
    _no_approval_was_needed,
    _also(1, sent_at=THIS_MONTH_IN_PARIS - TICK),
    _also(1, sent_at=THIS_MONTH_IN_PARIS, purpose="transactional"),
    _also(1, customer_id=7, sent_at=NOW - timedelta(days=2)),
    _also(2, sent_at=EARLIER, tags=",sales,"),
    _also(2, sent_at=EARLIER, tags=",presale,warm,"),
)


def test_each_broken_rule_is_found(ruled: Engine, tmp_path: Path) -> None:
    rows = stored(ruled)
    assert broken(ruled, tmp_path) == []
    for number, (break_it, sentence) in enumerate(RULE_BREAKS):
        with writing(ruled) as connection:
            break_it(connection)
        assert broken(ruled, tmp_path) == [sentence], number
        restore(ruled, rows)


def test_what_the_rules_just_allow_is_not_found(ruled: Engine, tmp_path: Path) -> None:
    rows = stored(ruled)
    for number, allowed in enumerate(RULES_KEPT):
        with writing(ruled) as connection:
            allowed(connection)
        assert broken(ruled, tmp_path) == [], number
        restore(ruled, rows)
