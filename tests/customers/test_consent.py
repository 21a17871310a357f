from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from lifecycle.customers.consent import (
    Said,
    ask,
    confirm,
    effective_consent,
    expiry,
    months_later,
    record,
    withdraw,
)
from lifecycle.customers.suppression import active_suppressions, suppress
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import consents, customers, quarantine
from lifecycle.platforms import open_platform
from lifecycle.platforms.files import read_consents
from lifecycle.platforms.records import ConsentFact
from lifecycle.settings import Config
from tests.customers.rows import NOW, ago, contents, customer, empty, granted, take, withdrawn

LONG_AGO = datetime.fromisoformat("1970-01-01T00:00Z")
WHO = ("atlas", "email", "promotions")


def add_person(engine: Engine) -> int:
    row = {"seed": 1, "first_seen_at": NOW, "updated_at": NOW}
    with writing(engine) as connection:
        return int(connection.execute(customers.insert().values(row)).inserted_primary_key[0])


def say(engine: Engine, who: int, *facts: ConsentFact, row_at: datetime | None = None, now: datetime = NOW) -> int:
    with writing(engine) as connection:
        return record(connection, "atlas", [Said(who, fact, row_at) for fact in facts], now=now)


def status(engine: Engine, as_of: datetime = NOW) -> str | None:
    with reading(engine) as connection:
        rows = connection.execute(effective_consent(as_of)).all()
    assert len(rows) <= 1
    return rows[0].status if rows else None


def question(engine: Engine, who: int, asked_at: datetime) -> None:
    with writing(engine) as connection:
        words = {"wording": "Yes, write to me", "evidence": "form of the home page"}
        ask(connection, who, *WHO, asked_at=asked_at, source="web", **words)


def answer(engine: Engine, who: int, confirmed_at: datetime, **options: Any) -> bool:
    with writing(engine) as connection:
        told = {"confirmed_at": confirmed_at, "recorded_at": confirmed_at, "source": "web", "evidence": "the link"}
        return confirm(connection, who, *WHO, **(told | options))


def test_the_newest_fact_counts_and_the_past_can_be_asked(engine: Engine):
    who = add_person(engine)
    say(engine, who, granted(ago(days=3)), withdrawn(ago(days=2)), granted(ago(days=1)))
    days = [4, 3, 2, 1, 0]
    assert [status(engine, ago(days=day)) for day in days] == [None, "granted", "withdrawn", "granted", "granted"]


def test_a_withdrawal_wins_against_a_grant_of_the_same_instant(engine: Engine):
    who = add_person(engine)
    say(engine, who, withdrawn(ago(days=1)))
    say(engine, who, granted(ago(days=1)))
    assert status(engine) == "withdrawn"


def test_an_expired_grant_gives_way_to_one_that_still_holds(engine: Engine):
    who = add_person(engine)
    say(engine, who, granted(ago(days=9)))
    with writing(engine) as connection:
        implied = {"status": "granted", "basis": "purchase", "source": "orders", "expires_at": ago(days=1)}
        where = dict(zip(("shop", "channel", "topic"), WHO, strict=True))
        row = {"customer_id": who, "occurred_at": ago(days=5), "recorded_at": NOW} | implied | where
        connection.execute(consents.insert().values(row))
    with reading(engine) as connection:
        for as_of, basis in ((ago(days=2), "purchase"), (ago(days=1), "express")):
            assert connection.execute(effective_consent(as_of)).one().basis == basis


def test_facts_without_a_date_can_only_lower(engine: Engine):
    who = add_person(engine)
    say(engine, who, granted(None), row_at=ago(days=1))
    assert status(engine) == "granted"
    say(engine, who, withdrawn(None), row_at=ago(days=5))
    assert status(engine) == "withdrawn"
    say(engine, who, granted(None), row_at=NOW)
    assert status(engine) == "withdrawn"


def test_a_withdrawal_without_any_date_is_taken_in_once(engine: Engine):
    who = add_person(engine)
    assert say(engine, who, granted(ago(days=1)), withdrawn(None)) == 2
    assert say(engine, who, granted(ago(days=1)), withdrawn(None), now=NOW + timedelta(days=1)) == 0
    assert status(engine) == "withdrawn"


def test_taking_it_back_twice_is_once(engine: Engine):
    who = add_person(engine)
    say(engine, who, granted(ago(days=1)))
    for _ in range(2):
        with writing(engine) as connection:
            withdraw(
                connection, who, *WHO, occurred_at=NOW, recorded_at=NOW, source="web page", evidence="one click"
            )
    assert status(engine) == "withdrawn"
    assert len(contents(engine, consents)) == 2


@dataclass(frozen=True)
class Event:
    status: str
    day: int | None
    """None: the source does not say when."""
    row_day: int | None

    def fact(self) -> ConsentFact:
        return granted(None if self.day is None else ago(days=20 - self.day), self.status)

    def said_at(self) -> datetime | None:
        return None if self.row_day is None else ago(days=20 - self.row_day)


EVENTS = st.builds(
    Event,
    status=st.sampled_from(["granted", "withdrawn"]),
    day=st.none() | st.integers(0, 9),
    row_day=st.integers(0, 9),
)


def oracle(events: list[Event], as_of: datetime) -> str | None:
    """The rule in words: the newest counts, the withdrawal where two are equally new."""
    newest, best = None, None
    for event in events:
        at = event.fact().occurred_at or (LONG_AGO if event.status == "granted" else event.said_at())
        assert at is not None
        if at <= as_of and (best is None or (at, event.status == "withdrawn") > best):
            newest, best = event.status, (at, event.status == "withdrawn")
    return newest


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, max_size=6), repeated=st.lists(st.integers(0, 5), max_size=4), data=st.data())
def test_any_history_in_any_order_counts_as_the_rule_says(
    engine: Engine, events: list[Event], repeated: list[int], data: st.DataObject
):
    """Invariant 8, against a brute-force oracle, also for pages that come late or twice."""
    empty(engine)
    who = add_person(engine)
    told = [*events, *(events[number] for number in repeated if number < len(events))]
    for event in data.draw(st.permutations(told)):
        say(engine, who, event.fact(), row_at=event.said_at())
    for day in (0, 4, 9, 20):
        assert status(engine, ago(days=20 - day)) == oracle(events, ago(days=20 - day))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, max_size=6), day=st.integers(0, 9))
def test_only_evidence_newer_than_a_withdrawal_raises_consent(engine: Engine, events: list[Event], day: int):
    empty(engine)
    who = add_person(engine)
    say(engine, who, withdrawn(ago(days=20 - day)))
    for event in events:
        say(engine, who, event.fact(), row_at=event.said_at())
    if not any(event.status == "granted" and event.day is not None and event.day > day for event in events):
        assert status(engine) == "withdrawn"


def test_a_file_of_consents_reaches_people_by_id_or_address(engine: Engine, config: Config):
    take(engine, config, [customer("C1"), customer("C2", "bob@example.com")])
    rows = [
        customer("C1", consents=[granted(ago(days=2))], raw={"line": 1}),
        customer(None, "Bob@example.com", consents=[withdrawn(None)], updated_at=None, raw={"line": 2}),
        customer("C3", consents=[granted(ago())], raw={"line": 3}),
        customer(None, "eve@example.com", consents=[granted(ago())], raw={"line": 4}),
        customer("C1", consents=[granted(ago(), "perhaps")], raw={"line": 5}),
    ]
    first = take(engine, config, rows, entity="consents")
    assert (first.rows, first.new, first.rejected) == (5, 2, 3)
    assert sorted(contents(engine, quarantine, "expectation", "reason")) == [
        ("customer_known", "customer_id C3 is nobody's at shop atlas; import customers or orders first"),
        ("customer_known", "the address is nobody's at shop atlas; import customers or orders first"),
        ("status_known", "status is perhaps; it must be granted or withdrawn (consent 1)"),
    ]
    again = take(engine, config, rows, entity="consents", now=NOW + timedelta(days=1))
    assert (again.new, again.equal, again.rejected) == (0, 2, 3)


def test_a_consent_that_waited_for_its_customer_is_resolved(engine: Engine, config: Config):
    rows = [customer("C1", consents=[withdrawn(ago(days=3))])]
    assert take(engine, config, rows, entity="consents").rejected == 1
    take(engine, config, [customer("C1")])
    assert take(engine, config, rows, entity="consents").new == 1
    assert contents(engine, quarantine, "resolved_at") == [(NOW,)]


@pytest.mark.parametrize("late_first", [True, False])
def test_what_a_late_page_says_of_consent_is_kept(engine: Engine, config: Config, late_first: bool):
    late = customer("C1", updated_at=ago(days=5), consents=[withdrawn(ago(days=6))])
    newer = customer("C1", updated_at=ago(days=1), consents=[])
    for row in (late, newer) if late_first else (newer, late):
        take(engine, config, [row])
    assert status(engine) == "withdrawn"


@pytest.mark.parametrize("email", [None, "x1@marketplace.amazon.de", "new@example.com"])
def test_a_grant_counts_at_no_other_address_than_its_own(engine: Engine, config: Config, email: str | None):
    take(engine, config, [customer("C1", "ann@example.com")])
    take(engine, config, [customer("9", "ann@example.com")], shop="harbour")
    unverified = customer(
        "C1", email, email_verified=False, updated_at=ago(days=5), consents=[granted(ago(days=5))]
    )
    take(engine, config, [unverified])
    assert contents(engine, customers, "email") == [("ann@example.com",)]
    assert status(engine) is None
    verified = replace(unverified, email="new@example.com", email_verified=True)
    take(engine, config, [verified])
    assert status(engine) == "granted"


def test_a_withdrawal_counts_from_an_unverified_address_too(engine: Engine, config: Config):
    take(engine, config, [customer("C1", "ann@example.com", consents=[granted(ago(days=9))])])
    row = customer("C1", "x@", email_verified=False, updated_at=ago(days=2), consents=[withdrawn(ago(days=2))])
    take(engine, config, [row])
    assert status(engine) == "withdrawn"


def test_a_withdrawal_dated_ahead_counts_from_its_record_and_a_grant_does_not(engine: Engine):
    who = add_person(engine)
    ahead = NOW + timedelta(hours=1)
    say(engine, who, granted(ago(days=1)), now=ago(days=1))
    say(engine, who, withdrawn(ahead))
    say(engine, who, granted(ahead + timedelta(hours=1)))
    times = [ago(minutes=1), NOW, ahead, ahead + timedelta(hours=1)]
    assert [status(engine, as_of) for as_of in times] == ["granted", "withdrawn", "withdrawn", "granted"]


def test_effective_consent_joins_to_people(engine: Engine):
    who = add_person(engine)
    say(engine, who, granted(ago(days=1)))
    counting = effective_consent(NOW).subquery()
    query = select(customers.c.customer_id).join(counting, counting.c.customer_id == customers.c.customer_id)
    with reading(engine) as connection:
        assert connection.scalars(query).all() == [who]


@pytest.mark.parametrize(
    ("said_on", "months", "ends_on"),
    [
        ("2026-01-31", 1, "2026-02-28"),
        ("2024-01-31", 1, "2024-02-29"),
        ("2024-02-29", 24, "2026-02-28"),
        ("2025-12-05", 1, "2026-01-05"),
        ("2026-11-30", 24, "2028-11-30"),
        ("2026-03-31", -1, "2026-02-28"),
        ("2026-01-15", -12, "2025-01-15"),
    ],
)
def test_months_are_those_of_the_calendar(said_on: str, months: int, ends_on: str):
    said_at, ends_at = (datetime.fromisoformat(f"{day}T23:30+00:00") for day in (said_on, ends_on))
    assert months_later(said_at, months) == ends_at
    assert months_later(datetime.fromisoformat(f"{said_on}T23:30-05:00"), 0).tzinfo == UTC


MONTHS = {"CA": {"implied_purchase": 24, "implied_inquiry": 6, "soft_opt_in": 24}, "KR": {"implied_purchase": 6}}


@pytest.mark.parametrize(
    ("basis", "country", "months"),
    [
        ("implied_purchase", "CA", 24),
        ("implied_inquiry", "CA", 6),
        ("implied_purchase", "KR", 6),
        ("implied_inquiry", "KR", 6),
        ("implied_purchase", "FR", 6),
        ("implied_purchase", None, 6),
        ("soft_opt_in", "CA", 24),
        ("soft_opt_in", "FR", None),
        ("express", "CA", None),
    ],
)
def test_what_is_implied_runs_out_wherever_they_live(basis: str, country: str | None, months: int | None):
    found = expiry(basis, NOW, country, MONTHS)
    assert found == (None if months is None else months_later(NOW, months))
    assert expiry(basis, NOW, country, {}) is None


@pytest.mark.parametrize(
    ("country", "fact", "counts_until"),
    [
        ("CA", {}, months_later(ago(days=100), 24)),
        (None, {}, months_later(ago(days=100), 6)),
        ("CA", {"expires_at": ago(days=-3)}, ago(days=-3)),
        ("CA", {"basis": "express", "expires_at": ago(days=-3)}, ago(days=-3)),
        ("CA", {"expires_at": NOW.replace(year=2030, tzinfo=None)}, None),
        ("CA", {"occurred_at": None}, None),
    ],
)
def test_a_consent_gets_its_expiry_when_it_is_recorded(
    engine: Engine, country: str | None, fact: dict[str, Any], counts_until: datetime | None
):
    """Without a date or with an expiry that nobody can place it has run out at once."""
    who = add_person(engine)
    with writing(engine) as connection:
        connection.execute(customers.update().values(country=country))
        said = replace(granted(ago(days=100)), **{"basis": "implied_purchase"} | fact)
        assert record(connection, "atlas", [Said(who, said)], now=NOW, months=MONTHS) == 1
        assert record(connection, "atlas", [Said(who, said)], now=NOW, months=MONTHS) == 0
    if counts_until is None:
        assert status(engine) is None
    else:
        assert status(engine, counts_until - timedelta(microseconds=1)) == "granted"
        assert status(engine, counts_until) is None


def test_a_withdrawal_does_not_run_out(engine: Engine):
    who = add_person(engine)
    said = replace(withdrawn(ago(days=1)), basis="implied_purchase", expires_at=ago(days=1))
    with writing(engine) as connection:
        record(connection, "atlas", [Said(who, said)], now=NOW, months=MONTHS)
    assert status(engine) == "withdrawn"


def test_a_file_says_when_a_consent_runs_out(tmp_path: Path, config: Config):
    path = tmp_path / "consents.csv"
    path.write_text(
        "customer_id,channel,status,occurred_at,expires_at\n"
        "C1,email,granted,2026-01-01,2027-01-01T00:00Z\n"
        "C2,email,granted,2026-01-01,\n"
        "C3,email,granted,2026-01-01,31/12/2027\n"
    )
    (rows,) = read_consents(path, config.shop("atlas"), {})
    facts = [row.consents[0] for row in rows]
    assert [each.expires_at for each in facts] == [datetime(2027, 1, 1, tzinfo=UTC), None, LONG_AGO]
    assert not any(each.first_hand for each in facts)


@pytest.mark.parametrize(
    ("level", "known"), [("SINGLE_OPT_IN", True), ("CONFIRMED_OPT_IN", True), ("UNKNOWN", False), (None, False)]
)
def test_only_what_a_shop_knows_to_be_an_opt_in_is_first_hand(config: Config, level: str | None, known: bool):
    address = {"emailAddress": "a@example.com", "marketingState": "SUBSCRIBED", "marketingOptInLevel": level}
    node = {"id": "gid://shopify/Customer/1", "defaultEmailAddress": address}
    shop = config.shop("atlas").model_copy(update={"url": "https://atlas.example.com"})
    platform = open_platform(shop, config.shops_file.pulling, {"TERN_ATLAS_TOKEN": "t"})
    (row,) = platform.parse("customers", json.dumps({"data": {"customers": {"nodes": [node]}}}).encode())
    assert [fact.first_hand for fact in row.consents] == [known]


def test_asking_changes_nothing_and_confirming_gives_consent(engine: Engine):
    who = add_person(engine)
    for _ in range(2):
        question(engine, who, ago(days=3))
    assert status(engine) is None
    assert answer(engine, who, ago(days=2)) and answer(engine, who, ago(days=1))
    assert status(engine) == "granted"
    asked, given = contents(
        engine, consents, "consent_id", "status", "basis", "occurred_at", "wording", "evidence"
    )
    assert given[1:] == (
        "granted",
        "double_opt_in",
        ago(days=2),
        "Yes, write to me",
        f"consent {asked[0]} confirmed: the link",
    )
    question(engine, who, ago(hours=5))
    assert status(engine) == "granted", "a new question takes nothing back"
    assert answer(engine, who, ago(hours=4))
    assert len(contents(engine, consents)) == 4


@pytest.mark.parametrize(
    ("after", "counts"),
    [(timedelta(days=7), True), (timedelta(days=7, microseconds=1), False), (timedelta(microseconds=-1), False)],
)
def test_an_answer_must_come_in_time(engine: Engine, after: timedelta, counts: bool):
    who = add_person(engine)
    question(engine, who, ago(days=9))
    assert answer(engine, who, ago(days=9) + after) == counts
    assert status(engine) == ("granted" if counts else None)


def test_a_late_second_click_finds_the_consent_confirmed(engine: Engine):
    who = add_person(engine)
    question(engine, who, ago(days=30))
    assert answer(engine, who, ago(days=29))
    assert answer(engine, who, NOW)
    assert len(contents(engine, consents)) == 2


def test_nothing_was_asked(engine: Engine):
    who = add_person(engine)
    with writing(engine) as connection:
        ask(connection, who, "harbour", *WHO[1:], asked_at=ago(days=1), source="web", wording="", evidence="")
        ask(connection, who, *WHO[:2], "news", asked_at=ago(days=1), source="web", wording="", evidence="")
    assert not answer(engine, who, NOW)


@pytest.mark.parametrize(
    ("no_at", "counts"), [(ago(days=4), True), (ago(days=3), False), (ago(days=1), False), (NOW, False)]
)
@pytest.mark.parametrize("says_no", ["withdraws", "unsubscribes"])
def test_who_says_no_after_the_question_has_not_confirmed(
    engine: Engine, says_no: str, no_at: datetime, counts: bool
):
    who = add_person(engine)
    with writing(engine) as connection:
        connection.execute(customers.update().values(email="ann@example.com", email_hash="hers"))
        told = {"occurred_at": no_at, "recorded_at": no_at, "evidence": "one click"}
        if says_no == "withdraws":
            withdraw(connection, who, *WHO, source="web", **told)
        else:
            suppress(connection, ["hers"], "unsubscribe", channel="email", **told)
    question(engine, who, ago(days=3))
    assert answer(engine, who, NOW) == counts
    with reading(engine) as connection:
        assert connection.execute(active_suppressions()).all() == [] or not counts
