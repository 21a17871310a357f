from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from lifecycle.platforms.countries import ALIASES, country_code

NO_COUNTRY = {"European Community", "Unspecified", "West Indies"}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("United Kingdom", "GB"),
        ("  united   kingdom ", "GB"),
        ("GB", "GB"),
        ("fr", "FR"),
        ("EIRE", "IE"),
        ("RSA", "ZA"),
        ("USA", "US"),
        ("Korea", "KR"),
        ("Hong Kong", "HK"),
        ("Czech Republic", "CZ"),
        ("Channel Islands", "JE"),
        ("EU", None),
        ("Atlantis", None),
        ("", None),
        (None, None),
        *((name, None) for name in sorted(NO_COUNTRY)),
    ],
)
def test_names(name: str | None, code: str | None) -> None:
    assert country_code(name) == code


def test_aliases_lead_to_countries() -> None:
    assert all(country_code(code) == code for code in ALIASES.values())


def test_every_country_of_a_real_retailer_is_known(shared: Path) -> None:
    files = sorted((shared / "data" / "online_retail_ii").glob("*.parquet"))
    names = {name for file in files for name in pd.read_parquet(file, columns=["Country"])["Country"].unique()}
    assert len(names) == 43
    assert {name for name in names if country_code(name) is None} == NO_COUNTRY
