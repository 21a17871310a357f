from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Engine

from lifecycle.customers import zones
from lifecycle.customers.zones import canonical, known_zone, region_code, zone_of_phone, zones_of
from lifecycle.db.schema import customers, orders
from lifecycle.settings import Config
from tests.customers.rows import ago, contents, customer, order
from tests.customers.rows import take_unchecked as take

TABLE: dict[str, dict[str, str]] = yaml.safe_load(
    Path(zones.__file__).with_name("regions.yaml").read_text(encoding="utf-8")
)["regions"]
TERRITORIES = {"America/Puerto_Rico", "Pacific/Guam", "Pacific/Pago_Pago"}
PARIS, BERLIN, LA, CHICAGO = "Europe/Paris", "Europe/Berlin", "America/Los_Angeles", "America/Chicago"


def zone_tab() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in files("tzdata").joinpath("zoneinfo/zone.tab").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            country, _, zone = line.split("\t")[:3]
            found.setdefault(country, set()).add(zone)
    return found


@pytest.mark.parametrize(
    ("timezone", "country", "region", "phone_zone", "wanted"),
    [
        (PARIS, "US", "CA", LA, (PARIS,)),
        (None, "US", "CA", CHICAGO, (LA,)),
        (None, "US", "HI", None, ("Pacific/Honolulu",)),
        (None, "CA", "CA", None, None),
        (None, "US", "TX", None, (CHICAGO, "America/Denver")),
        (None, "US", "TX", CHICAGO, (CHICAGO,)),
        (None, "US", "TX", LA, (CHICAGO, "America/Denver")),
        (None, "US", None, LA, (LA,)),
        (None, "US", "nowhere", LA, (LA,)),
        (None, "US", None, PARIS, None),
        (None, "FR", "IDF", None, (PARIS,)),
        (None, "FR", None, "Europe/Rome", (PARIS,)),
        (None, "IN", None, "Asia/Calcutta", ("Asia/Kolkata",)),
        (None, "MX", "Q ROO", None, ("America/Cancun",)),
        (None, "ES", "TF", None, ("Atlantic/Canary",)),
        (None, "XK", None, None, ("Europe/Belgrade",)),
        (None, None, "CA", PARIS, (PARIS,)),
        (None, "??", None, None, ()),
        (None, None, None, None, ()),
    ],
)
def test_the_clock_that_is_known_best_counts(
    timezone: str | None,
    country: str | None,
    region: str | None,
    phone_zone: str | None,
    wanted: tuple[str, ...] | None,
):
    """`wanted` None: all zones of the country."""
    found = zones_of(timezone, country, region, phone_zone)
    if wanted is None:
        assert set(map(canonical, found)) == set(map(canonical, zone_tab()[country or ""]))
        assert len(found) > 2
    else:
        assert found == wanted


def test_every_country_has_its_zones():
    for country, named in zone_tab().items():
        found = zones_of(None, country, None, None)
        assert set(found) <= named
        assert set(map(canonical, found)) == set(map(canonical, named))


@pytest.mark.parametrize("country", TABLE)
def test_regions_lie_in_their_country_and_leave_none_of_its_zones_out(country: str):
    named, written = zone_tab()[country], set(TABLE[country])
    assert written - named <= (TERRITORIES if country == "US" else set())
    assert set(map(canonical, named)) <= set(map(canonical, written))
    for codes in TABLE[country].values():
        assert isinstance(codes, str), "YAML reads ON, NO and 01 as something else"
        assert len(codes.split()) == len(set(codes.split()))
        for code in codes.split():
            assert code == region_code(country, code.lower())


@pytest.mark.parametrize(
    ("country", "states"),
    [("US", 50 + 6), ("CA", 13), ("AU", 8), ("BR", 27), ("RU", 83), ("ID", 38), ("CL", 16), ("EC", 24)],
)
def test_no_region_of_a_country_is_missing(country: str, states: int):
    """US: 50 states, the district and five territories. Canada: ten provinces, three territories."""
    assert len({code for codes in TABLE[country].values() for code in codes.split()}) == states


@pytest.mark.parametrize(
    ("country", "region", "code"),
    [
        ("US", "CA", "CA"),
        ("US", " us-ca ", "CA"),
        ("us", "US-CA", "CA"),
        ("FR", "US-CA", "US-CA"),
        ("PT", "PT-20", "20"),
        (None, "CA", None),
        ("US", "US-", None),
        ("US", "", None),
        ("US", None, None),
        ("US", "C\0A", "CA"),
    ],
)
def test_regions_without_their_country(country: str | None, region: str | None, code: str | None):
    assert region_code(country, region) == code


@pytest.mark.parametrize(
    ("phone", "country", "zone"),
    [
        ("+1 415 555 2671", None, LA),
        ("(415) 555-2671", "US", LA),
        ("415 555 2671", None, None),
        ("02-312-3456", "KR", "Asia/Seoul"),
        ("02-312-3456", "US", None),
        ("+33 1 42 68 53 00", "US", PARIS),
        ("0033 1 42 68 53 00", "DE", PARIS),
        ("+1 800 555 0199", None, None),
        ("+61 491 570 006", None, None),
        ("+1 415", None, None),
        ("call me", "FR", None),
        ("9" * 400, "FR", None),
        ("", "FR", None),
        (None, "FR", None),
    ],
)
def test_zones_of_telephone_numbers(phone: str | None, country: str | None, zone: str | None):
    assert zone_of_phone(phone, country) == zone


@pytest.mark.parametrize("name", ["Mars/Olympus", "", None, "posixrules", "localtime", "../UTC", "europe/paris"])
def test_what_is_no_zone(name: str | None):
    assert known_zone(name) is None


def test_names_that_are_zones():
    assert [known_zone(name) for name in ("Asia/Kolkata", "Asia/Calcutta", " UTC ")] == [
        "Asia/Kolkata",
        "Asia/Calcutta",
        "UTC",
    ]


def places(engine: Engine) -> list[tuple[Any, ...]]:
    return contents(engine, customers, "country", "region", "timezone", "phone_zone")


def test_a_customer_row_says_where_and_when(engine: Engine, config: Config):
    row = customer(country="US", region="us-ca", timezone="America/Denver", phone="(212) 555-0123")
    take(engine, config, [row, customer("C2", country="US", timezone="Mars/Olympus", phone="?")])
    assert places(engine) == [
        ("US", "CA", "America/Denver", "America/New_York"),
        ("US", None, None, None),
    ]


def test_a_zone_that_is_no_longer_said_goes(engine: Engine, config: Config):
    take(engine, config, [customer(country="US", region="CA", timezone=PARIS)])
    take(engine, config, [customer(country="US", updated_at=ago(days=1))])
    assert places(engine) == [("US", None, None, None)]


def test_the_newest_order_says_the_region(engine: Engine, config: Config):
    bought = [
        order("1", country="US", region="NY", updated_at=ago(days=2)),
        order("2", country="US", region="CA", updated_at=ago(days=1)),
    ]
    for rows in (bought, bought[::-1]):
        take(engine, config, rows)
        assert places(engine) == [("US", "CA", None, None)]
    assert contents(engine, orders, "region") == [("NY",), ("CA",)]
    take(engine, config, [customer(country="US", region="TX", updated_at=ago())])
    assert places(engine) == [("US", "CA", None, None)]


def test_a_region_stays_in_its_country(engine: Engine, config: Config):
    """CA is California, and Canada, and Cádiz in Spain."""
    take(engine, config, [customer(country="ES", updated_at=ago(days=5))])
    take(engine, config, [order(country="US", region="CA", updated_at=ago(days=1))])
    assert places(engine) == [("ES", None, None, None)]
    take(engine, config, [customer(country="ES", region="M", updated_at=ago())])
    assert places(engine) == [("ES", "M", None, None)]
    take(engine, config, [customer("9", country=None, region="CA")], shop="harbour")
    assert places(engine)[1] == (None, None, None, None)


def test_a_guests_newest_order_says_all(engine: Engine, config: Config):
    def guest(order_id: str, days: int, **said: Any) -> Any:
        return order(order_id, customer_id=None, email="gil@example.com", updated_at=ago(days=days), **said)

    take(engine, config, [guest("1", 3, country="US", region="CA", phone="(415) 555-2671")])
    assert places(engine) == [("US", "CA", None, LA)]
    take(engine, config, [guest("2", 2, country="US")])
    assert places(engine) == [("US", None, None, None)]
    take(engine, config, [guest("3", 4, country="DE", region="BE")])
    assert places(engine) == [("US", None, None, None)]


def test_a_region_makes_a_new_version_of_an_order_and_none_makes_none(engine: Engine, config: Config):
    row = order(country="US")
    assert take(engine, config, [row]).new == 1
    assert take(engine, config, [order(country="US", region=" ")]).equal == 1
    assert take(engine, config, [order(country="US", region="CA")]).changed == 1
    assert places(engine) == [("US", "CA", None, None)]
