"""Quiet hours: the first instant that is open in every zone, minute by minute, and for whole audiences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, time, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, Text, insert

from lifecycle.db.engine import writing
from lifecycle.db.schema import customers
from lifecycle.planning.judgement import Judgement, candidates, decided, work_tables
from lifecycle.planning.quiet import NoCommonHour, opens_at, quiet_hours
from lifecycle.settings import Config
from tests.planning.people import NOW, add_people, change

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
NIGHT = "21:00-08:00"
ZONES = [
    *("UTC", "Europe/Paris", "Europe/London", "Asia/Seoul", "Asia/Kolkata", "Asia/Kathmandu"),
    *("America/New_York", "America/Los_Angeles", "America/Phoenix", "Pacific/Kiritimati", "Pacific/Pago_Pago"),
    "Australia/Lord_Howe",  # by half an hour
    "Pacific/Apia",  # 2011-12-30 does not exist
    "Africa/Casablanca",  # twice around Ramadan
    *("America/Havana", "Asia/Beirut", "Africa/Cairo"),  # at midnight
    *("Pacific/Chatham", "America/St_Johns", "Antarctica/Troll"),  # by two hours at Troll
]
STARTS = [
    datetime(2011, 12, 28, tzinfo=UTC),  # Apia leaves out a day
    datetime(2026, 2, 13, tzinfo=UTC),  # Casablanca, Ramadan begins
    datetime(2026, 3, 5, tzinfo=UTC),  # Havana, New York
    datetime(2026, 3, 20, tzinfo=UTC),  # Casablanca, Ramadan ends
    datetime(2026, 3, 26, tzinfo=UTC),  # Paris, Beirut, Troll
    datetime(2026, 4, 2, tzinfo=UTC),  # Lord Howe, Chatham
    datetime(2026, 4, 22, tzinfo=UTC),  # Cairo
    datetime(2026, 10, 1, tzinfo=UTC),  # Lord Howe
    datetime(2026, 10, 22, tzinfo=UTC),  # Paris, Beirut, Cairo, Troll
    datetime(2026, 10, 29, tzinfo=UTC),  # Havana, New York
]
_DAYS = 10


@cache
def walls(zone: str, start: datetime) -> list[int]:
    """Minutes since midnight on a clock in the zone, minute by minute from `start` on."""
    place = ZoneInfo(zone)
    clocks = ((start + n * MINUTE).astimezone(place) for n in range(_DAYS * 1440))
    return [clock.hour * 60 + clock.minute for clock in clocks]


def by_the_minute(zones: Iterable[str], begins: int, ends: int, start: datetime, minute: int) -> int | None:
    """The first minute from `minute` on that is quiet in no zone; None where seven days have none."""
    is_quiet = [begins <= wall < ends if begins < ends else wall >= begins or wall < ends for wall in range(1440)]
    clocks = [walls(zone, start) for zone in zones]
    for n in range(minute, minute + 7 * 1440 + 1):
        if not any(is_quiet[clock[n]] for clock in clocks):
            return n
    return None


def written(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@settings(max_examples=2_000)
@given(
    zones=st.lists(st.sampled_from(ZONES), min_size=1, max_size=4, unique=True),
    begins=st.integers(0, 1439),
    length=st.one_of(st.integers(1, 1439), st.integers(500, 800)),
    start=st.sampled_from(STARTS),
    minute=st.integers(0, 3 * 1440 - 1),
    past=st.integers(0, 59_999_999),
)
def test_the_first_open_instant_is_that_of_a_search_minute_by_minute(
    zones: list[str], begins: int, length: int, start: datetime, minute: int, past: int
):
    """`past`: microseconds into the minute, in which nothing changes."""
    ends = (begins + length) % 1440
    at = start + minute * MINUTE
    wanted = by_the_minute(zones, begins, ends, start, minute)
    quiet = f"{written(begins)}-{written(ends)}"
    if wanted is None:
        with pytest.raises(NoCommonHour):
            opens_at(zones, quiet, at)
    else:
        found = opens_at(zones, quiet, at + timedelta(microseconds=past))
        assert found == (None if wanted == minute else start + wanted * MINUTE)
        assert found is None or found.tzinfo is UTC


@pytest.mark.parametrize(
    ("zone", "quiet", "at", "opens"),
    [
        ("Asia/Seoul", NIGHT, "2026-11-22T21:00:00+09:00", "2026-11-23T08:00:00+09:00"),
        ("Asia/Seoul", NIGHT, "2026-11-22T20:59:59.999999+09:00", None),
        ("Asia/Seoul", NIGHT, "2026-11-23T07:59:59.999999+09:00", "2026-11-23T08:00:00+09:00"),
        ("Asia/Seoul", NIGHT, "2026-11-23T08:00:00+09:00", None),
        ("Asia/Seoul", "12:00-14:00", "2026-11-23T12:30:00+09:00", "2026-11-23T14:00:00+09:00"),
        # 02:30 does not exist: the gap ends at 03:00.
        ("Europe/Paris", "22:00-02:30", "2026-03-29T00:30:00+01:00", "2026-03-29T03:00:00+02:00"),
        # 02:30 exists twice: open at the first, quiet never again.
        ("Europe/Paris", "22:00-02:30", "2026-10-25T00:30:00+02:00", "2026-10-25T02:30:00+02:00"),
        # The clock goes back from 03:00 into the quiet hours.
        ("Europe/Paris", "22:00-02:30", "2026-10-25T02:00:00+01:00", "2026-10-25T02:30:00+01:00"),
        # Midnight does not exist: quiet from 23:59 until 00:00 is over at 01:00.
        ("Asia/Beirut", "22:00-00:00", "2026-03-28T23:00:00+02:00", "2026-03-29T01:00:00+03:00"),
        ("Australia/Lord_Howe", "21:00-02:15", "2026-10-04T01:00:00+10:30", "2026-10-04T02:30:00+11:00"),
        ("Pacific/Apia", NIGHT, "2011-12-29T23:00:00-10:00", "2011-12-31T08:00:00+14:00"),
    ],
)
def test_the_clock_on_the_wall_decides(zone: str, quiet: str, at: str, opens: str | None):
    found = opens_at([zone], quiet, datetime.fromisoformat(at))
    assert found == (datetime.fromisoformat(opens) if opens else None)


def test_all_zones_must_be_open():
    at = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert opens_at(["America/New_York"], NIGHT, at) == datetime(2026, 11, 22, 13, tzinfo=UTC)
    both = ["America/New_York", "America/Los_Angeles"]
    assert opens_at(both, NIGHT, at) == datetime(2026, 11, 22, 16, tzinfo=UTC)
    assert opens_at([], NIGHT, at) is None


def test_a_repeated_hour_is_read_as_the_instant_that_it_is():
    """An aware instant in a fold equals no instant of another zone, so it must not be compared as it comes."""
    at = datetime(2026, 10, 25, 2, 45, fold=1, tzinfo=ZoneInfo("Europe/Paris"))
    assert opens_at(["Europe/Paris"], NIGHT, at) == datetime(2026, 10, 25, 7, tzinfo=UTC)
    assert opens_at(["Asia/Tokyo"], NIGHT, at) is None


def test_zones_without_a_common_hour():
    with pytest.raises(NoCommonHour):
        opens_at(["Europe/Paris", "Pacific/Auckland"], "18:00-08:00", NOW)


def ask(
    engine: Engine,
    config: Config,
    at: datetime,
    *,
    laws: Mapping[str | None, str] | None = None,
    done: Iterable[int] = (),
    purpose: str = "marketing",
) -> dict[int, tuple[Any, ...]]:
    """Verdict, rule, blocking message and instant by customer, of all customers."""
    campaign = config.campaigns["winback"].model_copy(update={"purpose": purpose})
    judgement = Judgement(config=config, campaign=campaign, occurrence="2026-11-22", at=at, rules=())
    blank = {c.name: "" if isinstance(c.type, Text) else 0 for c in candidates.c if not c.nullable}
    with writing(engine) as connection:
        work_tables.create_all(connection, checkfirst=False)
        ids = connection.execute(customers.select().with_only_columns(customers.c.customer_id)).scalars().all()
        connection.execute(insert(candidates), [blank | {"customer_id": i} for i in ids])
        for i in done:
            connection.execute(insert(decided).values(customer_id=i, verdict="capped"))
        quiet_hours(connection, judgement, lambda _country: "00:00-23:59")  # asked again, it forgets
        found = quiet_hours(connection, judgement, (laws or {}).get)
        names = [column.name for column in decided.c][: len(found.selected_columns)]
        connection.execute(insert(decided).from_select(names, found))
        rows = connection.execute(decided.select().where(decided.c.customer_id.not_in(list(done)))).all()
        work_tables.drop_all(connection, checkfirst=False)
    return {row.customer_id: tuple(row)[1:5] for row in rows}


def held(rule: str, until: datetime) -> tuple[Any, ...]:
    return ("quiet_hours", rule, None, until)


@pytest.fixture
def by_night(changed: Callable[..., Config]) -> Config:
    return changed(caps_file={"quiet_hours": NIGHT})


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


def test_people_are_held_by_their_own_clock(engine: Engine, by_night: Config):
    add_people(engine, [1, 2, 3], country="KR")
    add_people(engine, [4], country="US", region="CA")
    add_people(engine, [5], country="US")
    add_people(engine, [6], country="US", region="CA", timezone="Europe/Paris")
    add_people(engine, [7], country="US", phone_zone="America/New_York")
    add_people(engine, [8], country="FR")
    noon_in_seoul_night = utc(2026, 11, 22, 13)
    assert ask(engine, by_night, noon_in_seoul_night, done=[3]) == {
        1: held("quiet_hours", utc(2026, 11, 22, 23)),
        2: held("quiet_hours", utc(2026, 11, 22, 23)),
        4: held("quiet_hours", utc(2026, 11, 22, 16)),
        5: held("quiet_hours", utc(2026, 11, 22, 18)),  # 8:00 on the Aleutians
    }
    assert ask(engine, by_night, utc(2026, 11, 22, 12)).keys() == {1, 2, 3, 4, 5, 7}


def test_daylight_saving_moves_the_hour(engine: Engine, by_night: Config):
    add_people(engine, [1], country="US", region="CA")
    assert ask(engine, by_night, utc(2026, 10, 30, 12)) == {1: held("quiet_hours", utc(2026, 10, 30, 15))}
    assert ask(engine, by_night, utc(2026, 11, 1, 8)) == {1: held("quiet_hours", utc(2026, 11, 1, 16))}


def test_who_lives_nowhere_that_is_known_follows_the_shops(engine: Engine, by_night: Config):
    """Paris and London: 21:00 comes first in Paris, 8:00 last in London."""
    add_people(engine, [1])
    wanted = {1: held("quiet_hours", utc(2026, 11, 23, 8))}
    assert ask(engine, by_night, utc(2026, 11, 22, 20)) == wanted
    assert ask(engine, by_night, utc(2026, 11, 23, 7, 59)) == wanted
    assert ask(engine, by_night, utc(2026, 11, 22, 19, 59)) == {}
    assert ask(engine, by_night, utc(2026, 11, 23, 8)) == {}


@pytest.mark.parametrize(
    ("own", "law", "rule", "opens"),
    [
        (None, NIGHT, "quiet_hours_kr", 8),
        (NIGHT, None, "quiet_hours", 8),
        (NIGHT, NIGHT, "quiet_hours_kr", 8),
        ("20:00-09:30", NIGHT, "quiet_hours", 9.5),
        ("20:00-07:00", NIGHT, "quiet_hours_kr", 8),
        ("08:00-12:00", NIGHT, "quiet_hours", 12),  # one begins when the other ends
        (NIGHT, "08:00-12:00", "quiet_hours_kr", 12),
        ("12:00-13:00", NIGHT, "quiet_hours_kr", 8),
        (None, None, None, None),
    ],
)
def test_the_law_and_the_config_must_both_be_open(
    engine: Engine,
    changed: Callable[..., Config],
    own: str | None,
    law: str | None,
    rule: str | None,
    opens: float | None,
):
    add_people(engine, [1], country="KR")
    midnight = datetime.combine(utc(2026, 11, 23), time(), ZoneInfo("Asia/Seoul"))
    found = ask(
        engine, changed(caps_file={"quiet_hours": own}), midnight.astimezone(UTC), laws={"KR": law} if law else {}
    )
    assert found == ({1: held(rule, midnight + timedelta(hours=opens))} if rule and opens else {})


def test_a_law_is_asked_about_each_country_and_about_none(engine: Engine, changed: Callable[..., Config]):
    add_people(engine, [1], country="KR")
    add_people(engine, [2], country="JP")
    add_people(engine, [3])
    laws = {"KR": NIGHT, None: "06:00-23:00"}
    assert ask(engine, changed(caps_file={"quiet_hours": None}), utc(2026, 11, 22, 13), laws=laws) == {
        1: held("quiet_hours_kr", utc(2026, 11, 22, 23)),
        3: held("quiet_hours_unknown", utc(2026, 11, 22, 23)),
    }


def test_no_common_hour_is_a_matter_of_policy(engine: Engine, changed: Callable[..., Config]):
    """From Kaliningrad to Kamchatka are ten hours; Moscow alone has an hour."""
    add_people(engine, [1], country="RU")
    add_people(engine, [2], country="RU", region="MOW")
    config = changed(caps_file={"quiet_hours": "17:00-09:00"})
    assert ask(engine, config, utc(2026, 11, 22, 20)) == {
        1: ("policy", "no_common_hour", None, None),
        2: held("quiet_hours", utc(2026, 11, 23, 6)),
    }


@pytest.mark.parametrize("purpose", ["transactional", "review_request"])
def test_other_messages_than_marketing_go_at_any_hour(engine: Engine, by_night: Config, purpose: str):
    add_people(engine, [1], country="KR")
    assert ask(engine, by_night, utc(2026, 11, 22, 13), purpose=purpose) == {}


def test_an_address_that_is_known_in_part(engine: Engine, by_night: Config):
    """Null and the empty text are the same."""
    add_people(engine, [1, 2], country="KR")
    change(engine, customers, customers.c.customer_id == 2, region="", timezone="", phone_zone="")
    assert ask(engine, by_night, utc(2026, 11, 22, 13)).keys() == {1, 2}
