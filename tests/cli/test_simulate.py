"""`tern simulate`: what it prints and writes, and wrong input."""

from __future__ import annotations

import csv
import json
from datetime import date
from pathlib import Path

import pytest

from lifecycle.clock import utc_now
from lifecycle.db.engine import open_database
from lifecycle.segments.backfill import backfill
from lifecycle.settings import load_config
from tests.cli.conftest import Tern

FIRST, LAST = date(2026, 11, 10), date(2026, 11, 14)
RANGE = ("--from", str(FIRST), "--to", str(LAST))


@pytest.fixture
def built(ready: Tern, home: Path) -> Tern:
    """`ready`, with segments of the days before the newest build too."""
    engine = open_database(f"sqlite:///{home / 'data' / 'tern.db'}")
    backfill(engine, load_config(home / "config", env={}), first=FIRST, last=LAST, now=utc_now())
    engine.dispose()
    return ready


def test_other_caps_beside_the_configured_ones(built: Tern, home: Path) -> None:
    caps, out = home / "none.yaml", home / "people.csv"
    caps.write_text("caps: [{name: nothing, limit: 0, days: 1}]\n")
    result = built("simulate", *RANGE, "--caps", str(caps), "--out", str(out), "--json")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert (told["now"], told["then"]) == ("configured", "other")
    [*_, everything] = told["campaigns"]
    assert everything["configured"] > everything["other"] == 0
    people = list(csv.DictReader(out.read_text().splitlines()))
    assert len(people) == told["people"] > 0
    assert sum(int(row["messages_now"]) for row in people) == everything["configured"]
    assert all(int(row["difference"]) == -int(row["messages_now"]) for row in people)
    days = list(csv.DictReader((home / "people-days.csv").read_text().splitlines()))
    assert {row["rules"] for row in days} == {"configured", "other"}
    assert {row["rule"] for row in days if row["verdict"] == "capped" and row["rules"] == "other"} == {"nothing"}
    assert built("audit").code == 0


def test_the_configured_rules_beside_what_was_sent(built: Tern) -> None:
    result = built("simulate", *RANGE)
    assert result.code == 0, result.err
    assert result.out.startswith("5 days from 2026-11-10 to 2026-11-14: 0 messages sent, ")
    for title in ("Messages", "By month", "People, by segment on the last day", "People, by messages each gets"):
        assert title in result.out
    assert "winback" in result.out and "example." not in result.out


def test_other_calendars_and_other_segments(built: Tern, home: Path) -> None:
    campaigns, segments = home / "campaigns.yaml", home / "segments.yaml"
    text = (home / "config" / "campaigns.yaml").read_text()
    assert "priority: 50" in text
    campaigns.write_text(text.replace("priority: 50", "priority: 50\n    schedule: {dates: [2026-11-12]}"))
    result = built("simulate", *RANGE, "--campaigns", str(campaigns), "--json")
    assert result.code == 0, result.err
    sent = {row["campaign"]: row for row in json.loads(result.out)["campaigns"]}
    assert sent["winback"]["other"] <= sent["winback"]["configured"]
    old = (home / "config" / "segments.yaml").read_text()
    assert "days: 90}" in old
    segments.write_text(old.replace("days: 90}", "days: 1}"))
    result = built("simulate", *RANGE, "--segments", str(segments), "--json")
    assert result.code == 0, result.err


def test_wrong_files_are_named_as_they_were_given(built: Tern, home: Path) -> None:
    caps = home / "strict.yaml"
    caps.write_text("caps: [{name: a, limit: 1, days: 1, campaigns: [winbak]}]\n")
    result = built("simulate", *RANGE, "--caps", str(caps))
    assert result.code == 2
    assert f'{home.name}/strict.yaml: a.campaigns "winbak" is not defined; did you mean "winback"?' in result.err
    caps.write_text("caps: [{name: a, limit: 1, dayz: 1}]\n")
    result = built("simulate", *RANGE, "--caps", str(caps))
    assert result.code == 2 and 'strict.yaml: caps[a]: unknown key "dayz"' in result.err
    assert built("simulate", *RANGE, "--caps", str(home / "absent.yaml")).code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--from", "2026-11-14", "--to", "2026-11-10"), 2, "--to 2026-11-10 is before --from 2026-11-14"),
        (("--from", "2026-11-14", "--to", "3026-11-10"), 2, "is in the future"),
        (("--from", "14.11.2026", "--to", "2026-11-14"), 2, "is no day"),
        ((*RANGE, "--out", "people.xlsx"), 2, 'people.xlsx: people are written as .csv, not as ".xlsx"'),
        ((*RANGE, "--out", "absent/people.csv"), 2, "absent/people.csv: the folder does not exist"),
        (RANGE, 1, "run: tern backfill segments --from 2026-11-10 --to 2026-11-14"),
    ],
)
def test_wrong_arguments(ready: Tern, arguments: tuple[str, ...], code: int, told: str) -> None:
    result = ready("simulate", *arguments)
    assert (result.code, result.out) == (code, "")
    assert told in result.err
    assert "Traceback" not in result.err
