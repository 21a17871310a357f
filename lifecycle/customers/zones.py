"""Which clock a person lives by, as far as it is known.

Sources: the tz database of the package tzdata (zone.tab: a country's zones; tzdata.zi: names that mean the same
zone), regions.yaml beside this file, and the telephone numbering plans in the package phonenumbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import phonenumbers
import yaml
from phonenumbers import NumberParseException
from phonenumbers import timezone as phone_zones

from lifecycle.db.storable import storable_text

_UNKNOWN = phone_zones.UNKNOWN_TIMEZONE


@lru_cache(maxsize=100_000)
def zones_of(
    timezone: str | None, country: str | None, region: str | None, phone_zone: str | None
) -> tuple[str, ...]:
    """IANA names of the zones that a person may live in; empty where nothing tells.

    The first that is known: `timezone`, as the person or shop says; the zone of the region of `country`
    (ISO 3166-1) that goods are sent to, where it lies in one; `phone_zone`; all zones of the region or else the
    country. A telephone number from outside of where goods are sent says nothing about the clock there and does
    not count.
    """
    if timezone:
        return (timezone,)
    code = (region or "").replace(" ", "")  # Shopify writes Q ROO
    around = _regions().get((country or "", code), ()) or _countries().get(country or "", ())
    if len(around) == 1 or not phone_zone:
        return around
    lies_there = canonical(phone_zone) in map(canonical, around)
    return (phone_zone,) if lies_there or not around else around


def region_code(country: str | None, region: str | None) -> str | None:
    """`CA` for `ca` or `US-CA` in `US`: upper case, without the country. None where there is no country, because
    codes mean something in one only."""
    if not country or not region:
        return None
    written = (storable_text(region) or "").strip().upper()
    return written.removeprefix(f"{country.upper()}-") or None


def known_zone(name: str | None) -> str | None:
    """`name` where it is one of the tz database, else None."""
    name = name.strip() if name else None
    return name if name in _names() else None


@lru_cache(maxsize=100_000)
def zone_of_phone(phone: str | None, country: str | None) -> str | None:
    """IANA name of the zone of a telephone number; None where it is not valid or of several zones.

    A number without `+` is read as it is dialled in `country` (ISO 3166-1).
    """
    if not phone:
        return None
    try:
        number = phonenumbers.parse(phone, country)
    except NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    zones = phone_zones.time_zones_for_number(number)
    return known_zone(zones[0]) if len(zones) == 1 and zones[0] != _UNKNOWN else None


def canonical(zone: str) -> str:
    """The zone that `zone` is another name of, or `zone` itself."""
    return _links().get(zone, zone)


@cache
def _regions() -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Country and region to zones."""
    zones: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for country, regions in _table()["regions"].items():
        for zone, codes in regions.items():
            for code in codes.split():
                zones[country, code].append(zone)
    return {place: tuple(found) for place, found in zones.items()}


@cache
def _countries() -> Mapping[str, tuple[str, ...]]:
    """Country to zones: of names that mean the same zone only the first."""
    zones: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for line in _lines("zoneinfo/zone.tab"):
        if not line.startswith("#"):
            country, _coordinates, zone, *_comment = line.split("\t")
            zones[country].setdefault(canonical(zone), zone)
    return {country: tuple(found.values()) for country, found in zones.items()} | {
        country: (zone,) for country, zone in _table()["countries"].items()
    }


@cache
def _links() -> Mapping[str, str]:
    links = (line.split() for line in _lines("zoneinfo/tzdata.zi") if line.startswith("L "))
    return {name: target for _, target, name in links}


@cache
def _names() -> frozenset[str]:
    return frozenset(_lines("zones"))


def _lines(name: str) -> Iterator[str]:
    yield from files("tzdata").joinpath(name).read_text(encoding="utf-8").splitlines()


@cache
def _table() -> Mapping[str, Any]:
    table: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_name("regions.yaml").read_text(encoding="utf-8"))
    return table
