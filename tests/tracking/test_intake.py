"""What a report does to the ledger: events, suppressions, the state of unknown messages; twice is once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, update

from lifecycle.addresses import address_hash
from lifecycle.db.engine import writing
from lifecycle.db.schema import (
    breakers,
    consents,
    customers,
    holds,
    inbound_messages,
    message_events,
    messages,
    suppressions,
    unmatched_reports,
)
from lifecycle.ledger.proofs import event_without_sending
from lifecycle.settings import Config
from lifecycle.settings.channels import Bounces
from lifecycle.tracking.feedback.desk import Desk
from lifecycle.tracking.feedback.intake import Taken, prove_by_events, take_in
from lifecycle.tracking.feedback.mails import Arrived
from lifecycle.tracking.feedback.records import Entry, Inbound, Report, Stop
from lifecycle.tracking.feedback.scores import History, scored_days
from sandbox import bouncing
from tests.conftest import FakeClock
from tests.tracking.feedback import SECRET, address, bounce_address, rows, sent_mail, unsubscribe_address
from tests.tracking.ledger import SENT_AT, send_mails

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
TakeIn = Callable[..., Taken]


@pytest.fixture
def take(engine: Engine, config: Config) -> TakeIn:
    def take(*entries: Entry, now: datetime = NOW) -> Taken:
        with writing(engine) as connection:
            return take_in(connection, entries, config=config, now=now)

    return take


def bounced(message_id: int | None = 101, bounce: str = "hard", at: datetime = NOW, **further: object) -> Report:
    return Report("bounced", "lmtp", at, message_id=message_id, bounce=bounce, **further)  # type: ignore[arg-type]


def hash_of(message_id: int) -> str:
    return address_hash(SECRET, "email", address(message_id))


def test_a_hard_bounce_ends_all_mail_to_the_address(desk: Desk, engine: Engine, ids: list[int]) -> None:
    mail = bouncing.postfix(bounce_address(101), address(101), sent_mail(101))
    taken = desk.take_mails([Arrived(mail, [bounce_address(101)], "")], source="lmtp")
    assert (dict(taken.events), taken.suppressed, taken.unmatched) == ({"bounced": 1}, 1, 0)
    [event] = rows(engine, message_events)
    assert (event.message_id, event.kind, event.source, event.dedupe_key) == (
        101,
        "bounced",
        "lmtp",
        "bounced:101",
    )
    assert (event.detail["class"], event.detail["status"]) == ("hard", "5.1.1")
    assert "@" not in str(event.detail) and "p1" not in str(event.detail)
    [ban] = rows(engine, suppressions)
    assert (ban.address_hash, ban.channel, ban.shop, ban.purpose) == (hash_of(101), "email", None, "all")
    assert (ban.reason, ban.evidence, ban.expires_at) == ("hard_bounce", "message 101: 5.1.1", None)


def test_the_same_report_again_changes_nothing(
    desk: Desk, engine: Engine, ids: list[int], clock: FakeClock
) -> None:
    mails = [
        Arrived(bouncing.postfix(bounce_address(101), address(101), sent_mail(101)), [bounce_address(101)], ""),
        Arrived(bouncing.feedback_loop("fbl@b.example", sent_mail(102)), ["fbl@b.example"], None),
        Arrived(b"Subject: unsubscribe\r\n\r\n", [unsubscribe_address(103)], "p3@example.com"),
        Arrived(bouncing.postfix("b+x@b.example", address(101), b""), ["b+x@b.example"], ""),
    ]
    desk.take_mails(mails, source="lmtp")
    tables = (message_events, suppressions, consents, unmatched_reports, breakers)
    before = [rows(engine, table) for table in tables]
    assert [len(each) for each in before][:4] == [3, 3, 1, 1]
    clock.tick(days=1)
    with writing(engine) as connection:  # a person lifts what the report did; the report is read again
        connection.execute(update(suppressions).values(lifted_at=clock.now))
    taken = desk.take_mails([*mails, *mails], source="imap")
    assert (taken.events.total(), taken.unmatched) == (0, 1)  # by another way, nobody knows that it is the same
    after = [rows(engine, table) for table in tables]
    assert [len(each) for each in after][:3] == [3, 3, 1] and after[4] == before[4]
    assert all(ban.lifted_at is not None for ban in after[1])


def test_a_complaint_ends_marketing_to_the_address_of_then_and_of_now(
    take: TakeIn, engine: Engine, ids: list[int]
) -> None:
    new = address_hash(SECRET, "email", "new@example.com")
    with writing(engine) as connection:
        values = {"email_key": "new@example.com", "email": "new@example.com", "email_hash": new}
        connection.execute(update(customers).where(customers.c.customer_id == 1).values(values))
    taken = take(Report("complained", "lmtp", NOW, message_id=101))
    assert taken.suppressed == 2
    bans = rows(engine, suppressions)
    assert {ban.address_hash for ban in bans} == {hash_of(101), new}
    assert {(ban.reason, ban.purpose, ban.shop) for ban in bans} == {("complaint", "marketing", None)}


def test_an_unsubscribe_by_mail_is_as_good_as_one_by_click(
    desk: Desk, engine: Engine, ids: list[int], clock: FakeClock
) -> None:
    desk.take_mails([Arrived(b"\r\n", [unsubscribe_address(101)], "p1@example.com")], source="lmtp")
    [ban] = rows(engine, suppressions)
    assert (ban.address_hash, ban.reason, ban.purpose) == (hash_of(101), "unsubscribe", "marketing")
    [fact] = rows(engine, consents)
    assert (fact.customer_id, fact.status, fact.topic, fact.occurred_at) == (
        1,
        "withdrawn",
        "promotions",
        clock.now,
    )
    assert [event.detail for event in rows(engine, message_events)] == [{"via": "mail"}]


@pytest.mark.parametrize("bounce", ["policy", "content", "unknown", "soft", "full"])
def test_what_is_not_the_addresss_fault_does_not_suppress_it(
    take: TakeIn, engine: Engine, ids: list[int], bounce: str
) -> None:
    taken = take(bounced(bounce=bounce))
    assert (taken.suppressed, rows(engine, suppressions)) == (0, [])
    [event] = rows(engine, message_events)
    assert event.detail["class"] == bounce


def test_a_bounce_of_another_address_is_kept_for_a_person(take: TakeIn, engine: Engine, ids: list[int]) -> None:
    taken = take(
        bounced(named=(hash_of(102),), key="k"), bounced(named=(hash_of(102), hash_of(101)), bounce="soft")
    )
    assert (dict(taken.events), taken.unmatched, taken.suppressed) == ({"bounced": 1}, 1, 0)
    [report] = rows(engine, unmatched_reports)
    assert (report.kind, report.source, report.received_at) == ("bounced", "lmtp", NOW)
    assert (report.detail["message_id"], report.detail["class"]) == (101, "hard")


def test_what_names_no_message_is_kept_unless_it_is_of_no_use(
    take: TakeIn, engine: Engine, ids: list[int]
) -> None:
    taken = take(
        bounced(None), bounced(99_999), bounced(2**63 - 1), Report("complained", "sendgrid", NOW, key="e1"),
        Report("delivered", "sendgrid", NOW, provider_id="x"), Report("notice", "lmtp", NOW),
        Report("unclear", "lmtp", NOW, message_id=101, text="what is that"),
    )  # fmt: skip
    assert (taken.events.total(), taken.unmatched) == (0, 5)
    assert {report.kind for report in rows(engine, unmatched_reports)} == {"bounced", "complained", "unclear"}
    assert rows(engine, message_events) == rows(engine, suppressions) == []


def test_a_message_that_never_left_cannot_come_back(take: TakeIn, engine: Engine, ids: list[int]) -> None:
    with writing(engine) as connection:
        connection.execute(
            update(messages).where(messages.c.message_id == 101).values(state="reserved", sent_at=None)
        )
    assert take(bounced()).unmatched == 1
    assert rows(engine, message_events) == []


def test_a_services_own_id_leads_to_a_message_where_it_is_of_one_only(
    take: TakeIn, engine: Engine, ids: list[int]
) -> None:
    with writing(engine) as connection:
        for message_id, provider_id in ((101, "one"), (102, "shared"), (103, "shared")):
            connection.execute(
                update(messages).where(messages.c.message_id == message_id).values(provider_id=provider_id)
            )
    taken = take(
        Report("delivered", "ses", NOW, provider_id="one"),
        bounced(None, provider_id="shared", named=(hash_of(103),)),
        bounced(None, provider_id="shared"),
    )
    assert taken.unmatched == 1
    assert {(event.message_id, event.kind) for event in rows(engine, message_events)} == {
        (101, "delivered"), (103, "bounced"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["delivered", "bounced", "complained", "opened", "unsubscribed", "notice"])
def test_whatever_comes_back_proves_that_an_unknown_message_was_taken(
    take: TakeIn, engine: Engine, ids: list[int], kind: str
) -> None:
    with writing(engine) as connection:
        connection.execute(update(messages).values(state="unknown", claim="c", provider_id=None))
    take(Report(kind, "lmtp", NOW, message_id=101, bounce="soft"))  # type: ignore[arg-type]
    states = {row.message_id: (row.state, row.claim, row.settled_at) for row in rows(engine, messages)}
    assert states[101] == ("accepted", None, NOW)
    assert states[102] == ("unknown", "c", SENT_AT)


def test_an_open_proves_it_too(engine: Engine, ids: list[int]) -> None:
    with writing(engine) as connection:
        connection.execute(update(messages).values(state="unknown", claim="c"))
        opened = {"message_id": 102, "kind": "opened", "occurred_at": NOW, "source": "web"}
        connection.execute(message_events.insert().values(opened))
        assert prove_by_events(connection, NOW) == 1
        assert prove_by_events(connection, NOW) == 0
    assert [row.message_id for row in rows(engine, messages) if row.state == "accepted"] == [102]


def test_an_event_is_not_dated_before_its_message(take: TakeIn, engine: Engine, ids: list[int]) -> None:
    take(Report("delivered", "sendgrid", SENT_AT - timedelta(hours=1), message_id=101))
    [event] = rows(engine, message_events)
    assert event.occurred_at == SENT_AT
    with writing(engine) as connection:
        assert list(event_without_sending(connection)) == []


def test_a_hard_bounce_after_a_soft_one_counts(take: TakeIn, engine: Engine, ids: list[int]) -> None:
    take(bounced(bounce="soft"))
    assert take(bounced(), bounced()).suppressed == 1
    assert len(rows(engine, message_events)) == 2


def test_a_storm_of_hard_bounces_stops_the_lane(take: TakeIn, engine: Engine, config: Config) -> None:
    ids = send_mails(engine, SECRET, 120)
    with writing(engine) as connection:
        counted = {"campaign": "winback", "channel": "email", "mailbox_provider": "", "counted_from": NOW}
        connection.execute(breakers.insert().values(**counted, sent=120, bounced=0, complained=0))
    taken = take(*(bounced(message_id) for message_id in ids[:11]), bounced(ids[20], bounce="policy"))
    assert not taken.stopped
    taken = take(
        *(bounced(message_id) for message_id in ids[:12]), Report("complained", "lmtp", NOW, message_id=ids[50])
    )
    [why] = taken.stopped
    assert "12 of 120 mails bounced" in why and len(rows(engine, holds)) == 1
    [breaker] = rows(engine, breakers)
    assert (breaker.bounced, breaker.complained) == (12, 1)


def test_a_person_who_writes_or_says_stop(take: TakeIn, engine: Engine) -> None:
    wrote = Inbound("whatsapp", "h", NOW, "whatsapp:wamid.1")
    stop = Stop("whatsapp", "h", NOW, "told WhatsApp to stop marketing")
    for _ in range(2):
        take(wrote, stop)
    [inbound] = rows(engine, inbound_messages)
    assert (inbound.channel, inbound.address_hash, inbound.received_at) == ("whatsapp", "h", NOW)
    [ban] = rows(engine, suppressions)
    assert (ban.channel, ban.reason, ban.purpose, ban.shop) == ("whatsapp", "unsubscribe", "marketing", None)


def more_messages(engine: Engine, ids: list[int], count: int) -> list[int]:
    """Further mails to the first person."""
    with writing(engine) as connection:
        [first] = [row._asdict() for row in rows(engine, messages) if row.message_id == ids[0]]
        new = [first | {"message_id": 1000 + n, "occurrence": f"day {n}", "batch": 1} for n in range(count)]
        connection.execute(messages.insert(), new)
    return [1000 + n for n in range(count)]


def test_soft_bounces_on_five_days_give_the_address_a_rest(take: TakeIn, engine: Engine, ids: list[int]) -> None:
    mails = more_messages(engine, ids, 12)
    for day, message_id in enumerate(mails[:4]):
        at = NOW + timedelta(days=day)
        assert take(bounced(message_id, "full" if day else "soft", at), now=at).suppressed == 0
    same_day = NOW + timedelta(days=3, hours=2)
    assert take(bounced(mails[4], "soft", same_day), now=same_day).suppressed == 0
    fifth = NOW + timedelta(days=5)
    assert take(bounced(mails[5], "soft", fifth), now=fifth).suppressed == 1
    [ban] = rows(engine, suppressions)
    assert (ban.reason, ban.purpose, ban.expires_at) == ("soft_bounce", "marketing", fifth + timedelta(days=30))
    sixth = fifth + timedelta(days=1)  # after the rest it counts from nothing
    assert take(bounced(mails[6], "soft", sixth), now=sixth).suppressed == 0
    seventh = sixth + timedelta(days=1)
    take(Report("delivered", "lmtp", seventh, message_id=mails[7]), now=seventh)
    [ban] = rows(engine, suppressions)
    assert (ban.lifted_at, ban.lifted_note) == (seventh, "delivered"), "an order mail got through"


def test_a_delivery_between_starts_the_count_anew(take: TakeIn, engine: Engine, ids: list[int]) -> None:
    mails = more_messages(engine, ids, 12)
    for day, message_id in enumerate(mails[:4]):
        take(bounced(message_id, "soft", NOW + timedelta(days=day)), now=NOW + timedelta(days=day))
    at = NOW + timedelta(days=3, hours=6)
    take(Report("delivered", "lmtp", at, message_id=mails[4]), now=at)
    for day, message_id in enumerate(mails[5:9], 4):
        at = NOW + timedelta(days=day)
        assert take(bounced(message_id, "soft", at), now=at).suppressed == 0
    assert rows(engine, suppressions) == []


HOURS = st.integers(-24 * 45, 24)


@given(
    st.lists(
        st.tuples(st.integers(1, 6), HOURS, st.sampled_from(["soft", "full", "hard", "policy"])), max_size=12
    ),
    st.lists(st.tuples(st.integers(1, 9), HOURS), max_size=4),
    st.none() | HOURS,
    st.integers(1, 40),
)
def test_scored_days_by_a_slow_and_simple_count(
    found: list[tuple[int, int, str]], arrived: list[tuple[int, int]], rested: int | None, window: int
) -> None:
    at = {hour: NOW + timedelta(hours=hour) for hour in range(-24 * 45, 25)}
    history = History(
        [(message, at[hour], kind) for message, hour, kind in found],
        [(message, at[hour]) for message, hour in arrived],
        at[rested] if rested is not None else None,
    )
    days = set()
    for _, hour, kind in found:
        in_window = -24 * window < hour <= 0
        redeemed = any(
            hour <= other <= 0 and all(message != came_back for came_back, _, _ in found)
            for message, other in arrived
        )
        rest_over = rested is None or hour > rested
        if kind in ("soft", "full") and in_window and not redeemed and rest_over:
            days.add(at[hour].date())
    assert scored_days(history, now=NOW, window_days=window) == len(days)


EVERY = [
    bounced(101), bounced(101, "soft"), bounced(102, "full"), bounced(103, "policy"), bounced(None, key="a"),
    Report("delivered", "ses", NOW, message_id=102), Report("complained", "lmtp", NOW, message_id=103),
    Report("unsubscribed", "ses", NOW, message_id=101, key="u"), Report("unclear", "lmtp", NOW, key="b"),
    Report("opened", "whatsapp", NOW, message_id=102, detail={"read": True}),
]  # fmt: skip


def test_order_and_repetition_do_not_matter(
    engine: Engine, config: Config, tmp_path: Path, take: TakeIn, ids: list[int]
) -> None:
    def state() -> list[set[tuple[object, ...]]]:
        return [
            {(e.message_id, e.kind, str(e.detail)) for e in rows(engine, message_events)},
            {(s.address_hash, s.reason, s.purpose) for s in rows(engine, suppressions)},
            {(r.kind, r.dedupe_key) for r in rows(engine, unmatched_reports)},
            {(b.campaign, b.bounced, b.complained) for b in rows(engine, breakers)},
        ]

    for report in reversed(EVERY):
        take(report)
    one_by_one = state()
    take(*EVERY, *EVERY)
    assert state() == one_by_one
    with writing(engine) as connection:
        for table in (message_events, suppressions, unmatched_reports, breakers, consents):
            connection.execute(table.delete())
    take(*EVERY, *(replace(each) for each in EVERY))
    assert state() == one_by_one


def test_reports_that_come_by_several_ways_at_once_count_once(engine: Engine, take: TakeIn) -> None:
    ids = send_mails(engine, SECRET, 40)
    found = [bounced(message_id) for message_id in ids[:30]]
    found += [Report("complained", "lmtp", NOW, message_id=message_id) for message_id in ids[30:]]
    orders = [found, found[::-1], found[15:] + found[:15], found[1::2] + found[::2]]
    with ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(lambda order: take(*order), orders))
    assert sum(each.events.total() for each in taken) == sum(each.suppressed for each in taken) == 40
    [breaker] = rows(engine, breakers)
    assert (breaker.bounced, breaker.complained) == (30, 10)
    assert len(rows(engine, message_events)) == len(rows(engine, suppressions)) == 40


def test_the_settings_say_when_an_address_rests() -> None:
    assert Bounces().soft_days == 5 and Bounces().soft_window_days == Bounces().soft_rest_days == 30
