"""Which consent counts in which country, and for what: against a slow reading of the rules."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, insert, select

from lifecycle.customers.consent import ANY_CONSENT, ConsentLaw
from lifecycle.db.schema import consents, customers
from lifecycle.planning.judgement import Judgement, candidates, work_tables
from lifecycle.planning.reasons import no_consent
from lifecycle.settings import Config
from tests.planning.people import DAY, NOW, SEEDS, consent, hashed, with_caps

TICK = timedelta(microseconds=1)
LAW = ConsentLaw(
    bases={
        "DE": ("double_opt_in",),
        "FR": ("double_opt_in", "express"),
        "IT": ("double_opt_in", "express"),
        "US": None,
    },
    reconfirm_years={"KR": 2, "DE": 1},
    elsewhere=("express", "double_opt_in", "soft_opt_in"),
)
TWO_YEARS_AGO, A_YEAR_AGO = (NOW.replace(year=year) for year in (2024, 2025))


@pytest.fixture
def judgement(changed: Callable[..., Config]) -> Judgement:
    config = with_caps(changed)
    return Judgement(config, config.campaign("winback"), "2026-11-22", at=NOW)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


def add(connection: Connection, people: dict[int, tuple[str | None, list[dict[str, Any]]]]) -> None:
    """Candidates at atlas: country and facts by customer_id."""
    row = {"email": None, "first_seen_at": NOW, "updated_at": NOW}
    known = [row | {"customer_id": i, "seed": SEEDS[i], "country": country} for i, (country, _) in people.items()]
    connection.execute(insert(customers), known)
    facts = [fact for _, told in people.values() for fact in told]
    for fact in facts:
        connection.execute(insert(consents).values(fact))
    work_tables.create_all(connection)
    standing = {"segment": "dormant", "shop": "atlas", "locale": "fr"}
    rows = [
        standing | {"customer_id": i, "address_hash": hashed(i), "seed": SEEDS[i], "country": country}
        for i, (country, _) in people.items()
    ]
    connection.execute(insert(candidates), rows)


def rules(connection: Connection, judgement: Judgement, law: ConsentLaw = LAW) -> dict[int, str]:
    found = connection.execute(no_consent(judgement, law)).all()
    assert {verdict for _, verdict, _ in found} <= {"no_consent"}
    return {customer_id: rule for customer_id, _, rule in found}


@pytest.mark.parametrize(
    ("country", "basis", "at", "rule"),
    [
        ("DE", "double_opt_in", NOW - DAY, None),
        ("DE", "express", NOW - DAY, "basis_express"),
        ("DE", "express", NOW - 900 * DAY, "basis_express"),
        ("DE", "double_opt_in", A_YEAR_AGO, "reconfirm"),
        ("FR", "express", NOW - 900 * DAY, None),
        ("IT", "soft_opt_in", NOW - DAY, "basis_soft_opt_in"),
        ("US", "something else", NOW - 900 * DAY, None),
        ("KR", "soft_opt_in", NOW - DAY, None),
        ("KR", "express", TWO_YEARS_AGO + TICK, None),
        ("KR", "express", TWO_YEARS_AGO, "reconfirm"),
        ("KR", "express", datetime(1970, 1, 1, tzinfo=UTC), "reconfirm"),
        ("ZZ", "soft_opt_in", NOW - DAY, None),
        ("ZZ", "implied_purchase", NOW - DAY, "basis_implied_purchase"),
        (None, "implied_purchase", NOW - DAY, "basis_implied_purchase"),
        (None, "express", NOW - 900 * DAY, None),
    ],
)
def test_what_a_country_accepts(
    connection: Connection, judgement: Judgement, country: str | None, basis: str, at: datetime, rule: str | None
) -> None:
    add(connection, {1: (country, [consent(1, at=at, basis=basis)])})
    assert rules(connection, judgement) == ({1: rule} if rule else {})
    assert rules(connection, judgement, ANY_CONSENT) == {}


def test_the_state_comes_before_the_law(connection: Connection, judgement: Judgement) -> None:
    taken_back = [consent(1, at=NOW - 2 * DAY), consent(1, at=NOW - DAY, status="withdrawn", basis="request")]
    pending = consent(3, at=NOW - DAY, status="pending", basis="double_opt_in")
    asked = [consent(4, at=NOW - 2 * DAY, basis="double_opt_in"), pending | {"customer_id": 4}]
    add(connection, {1: ("DE", taken_back), 2: ("DE", []), 3: ("DE", [pending]), 4: ("DE", asked)})
    assert rules(connection, judgement) == {1: "withdrawn", 2: "never_given", 3: "never_given"}


def test_what_was_said_on_a_leap_day_is_a_year_old_on_the_first_of_march(
    connection: Connection, judgement: Judgement
) -> None:
    add(connection, {1: ("DE", [consent(1, at=datetime(2024, 2, 29, 9, tzinfo=UTC), basis="double_opt_in")])})
    march = datetime(2025, 3, 1, tzinfo=UTC)
    assert rules(connection, dataclasses.replace(judgement, at=march - TICK)) == {}
    assert rules(connection, dataclasses.replace(judgement, at=march)) == {1: "reconfirm"}


@pytest.mark.parametrize("purpose", ["transactional", "review_request"])
def test_consent_is_asked_for_marketing_only(connection: Connection, judgement: Judgement, purpose: str) -> None:
    add(connection, {1: ("DE", []), 2: ("DE", [consent(2, at=NOW, status="withdrawn")])})
    campaign = judgement.campaign.model_copy(update={"purpose": purpose})
    assert rules(connection, dataclasses.replace(judgement, campaign=campaign)) == {}
    assert len(rules(connection, judgement)) == 2


def oracle(country: str | None, facts: list[dict[str, Any]]) -> str | None:
    """The newest fact counts, then the country's word on it."""
    facts = [
        fact
        for fact in facts
        if fact["status"] != "pending"
        and (fact["status"] == "withdrawn" or (fact["expires_at"] or NOW + DAY) > NOW)
    ]
    if not facts:
        return "never_given"
    newest = max(facts, key=lambda fact: (fact["occurred_at"], fact["status"] == "withdrawn"))
    if newest["status"] == "withdrawn":
        return "withdrawn"
    accepted = LAW.bases.get(country or "", LAW.elsewhere)
    if accepted is not None and newest["basis"] not in accepted:
        return f"basis_{newest['basis']}"
    years = LAW.reconfirm_years.get(country or "")
    given = newest["occurred_at"]
    return "reconfirm" if years and given.replace(year=given.year + years) <= NOW else None


_facts = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["granted", "granted", "withdrawn", "pending"]),
        "basis": st.sampled_from(["express", "double_opt_in", "soft_opt_in", "implied_purchase"]),
        "at": st.integers(0, 900).map(lambda days: NOW - days * DAY),
        "expires_at": st.none() | st.integers(-5, 5).map(lambda days: NOW + days * DAY),
    }
)
_people = st.tuples(
    st.sampled_from(["DE", "FR", "US", "KR", "ZZ", None]),
    st.lists(_facts, max_size=4, unique_by=lambda fact: fact["at"]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(people=st.lists(_people, min_size=1, max_size=8))
def test_anybodys_consent_counts_as_a_slow_reading_says(
    engine: Engine, judgement: Judgement, people: list[tuple[str | None, list[dict[str, Any]]]]
) -> None:
    told = {
        i: (country, [consent(i, **fact) for fact in facts]) for i, (country, facts) in enumerate(people, start=1)
    }
    expected = {i: oracle(country, facts) for i, (country, facts) in told.items()}
    with engine.connect() as connection, connection.begin() as transaction:
        add(connection, told)
        assert rules(connection, judgement) == {i: rule for i, rule in expected.items() if rule}
        transaction.rollback()


def test_everybody_is_asked_once_however_many_rules_there_are(
    connection: Connection, judgement: Judgement
) -> None:
    """All countries times all bases, one statement; who was decided before is left out."""
    pairs = list(itertools.product(["DE", "FR", "KR", None], ["express", "implied_purchase"]))
    add(
        connection,
        {
            i: (country, [consent(i, at=NOW - DAY, basis=basis)])
            for i, (country, basis) in enumerate(pairs, start=1)
        },
    )
    found = connection.execute(select(no_consent(judgement, LAW).subquery().c[0])).scalars().all()
    assert sorted(found) == [1, 2, 4, 6, 8]
