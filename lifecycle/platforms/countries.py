"""Country names as people write them in files, to ISO 3166-1 alpha-2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from babel import Locale

ALIASES = {  # names that CLDR's English list spells otherwise
    "bosnia and herzegovina": "BA",
    "brunei darussalam": "BN",
    "burma": "MM",
    "cape verde": "CV",
    "channel islands": "JE",  # two bailiwicks without a code in common; Jersey is the larger
    "congo": "CG",
    "czech republic": "CZ",
    "eire": "IE",
    "england": "GB",
    "great britain": "GB",
    "holland": "NL",
    "hong kong": "HK",
    "ivory coast": "CI",
    "korea": "KR",
    "macao": "MO",
    "macau": "MO",
    "macedonia": "MK",
    "myanmar": "MM",
    "northern ireland": "GB",
    "palestine": "PS",
    "republic of ireland": "IE",
    "republic of korea": "KR",
    "rsa": "ZA",
    "russian federation": "RU",
    "scotland": "GB",
    "swaziland": "SZ",
    "the netherlands": "NL",
    "trinidad and tobago": "TT",
    "turkey": "TR",
    "turkiye": "TR",
    "u.k.": "GB",
    "u.s.": "US",
    "u.s.a.": "US",
    "uae": "AE",
    "uk": "GB",
    "united states of america": "US",
    "usa": "US",
    "viet nam": "VN",
    "wales": "GB",
}

_NOT_ISO = frozenset({"AC", "CP", "CQ", "DG", "EA", "EU", "EZ", "IC", "QO", "TA", "UN", "XA", "XB", "ZZ"})
"""CLDR regions of two letters that are no country of ISO 3166-1. Kosovo's XK is kept: platforms use it."""


def country_code(name: str | None) -> str | None:
    """`GB` for `United Kingdom`, `uk` or `GB`; None for what is no single country, such as `West Indies`."""
    if not name:
        return None
    written = " ".join(name.lower().split())
    return ALIASES.get(written) or _codes().get(written)


@cache
def _codes() -> Mapping[str, str]:
    """Lower-case code and English name to code."""
    names = {
        code: english
        for code, english in Locale("en").territories.items()
        if re.fullmatch("[A-Z]{2}", code) and code not in _NOT_ISO
    }
    return {code.lower(): code for code in names} | {english.lower(): code for code, english in names.items()}
