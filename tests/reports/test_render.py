"""The forms of a report: complete, harmless, and readable without anything else."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sqlalchemy import Engine

from lifecycle.errors import UsageError
from lifecycle.reports.files import write_as, write_report
from lifecycle.reports.records import AlsoSent, Figures, Group, LinkClicks, Plan, Refusal, RunReport
from lifecycle.reports.render import summary_rows, to_csv, to_html, to_markdown
from lifecycle.reports.run_report import build_report
from lifecycle.reports.statistics import Rate, wilson
from lifecycle.reports.words import bounds, headline, percent
from lifecycle.settings import Config
from lifecycle.tracking.rules import rules_version
from tests.reports.ledger import AS_OF, RUN, random_ledger

NASTY = "<script>alert(1)</script>\"'&|*_[x](javascript:1)"


@pytest.fixture
def report(engine: Engine, config: Config) -> RunReport:
    random_ledger(3, rules_version(config.channels_file.tracking)).store(engine)
    return build_report(engine, config, run_id=RUN, as_of=AS_OF)


@pytest.fixture
def nasty(report: RunReport) -> RunReport:
    """Every text that comes from outside is an attack."""
    return replace(
        report,
        run_id=NASTY,
        campaigns=tuple(replace(group, name=NASTY + str(n)) for n, group in enumerate(report.campaigns)),
        segments=(Group("segment", "=1+1" + NASTY, report.total.figures),),
        languages=(Group("language", NASTY, report.total.figures),),
        why=tuple(replace(why, rule=NASTY) for why in report.why),
        refusals=(Refusal(NASTY, NASTY, 3),),
        links=(LinkClicks(NASTY, f"https://x.example/?{NASTY}", NASTY, 2),),
        stages=tuple(replace(stage, name=NASTY, sentences=(NASTY,)) for stage in report.stages),
        problems=(NASTY,),
    )


class Reader(HTMLParser):
    """Tags with their attributes, and whether every tag is closed where it should be."""

    VOID = frozenset({"meta", "link", "br", "rect", "line", "circle"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"


def test_the_html_needs_nothing_else_and_runs_nothing(report: RunReport, nasty: RunReport) -> None:
    for each in (report, nasty):
        html = to_html(each)
        page = Reader(html)
        assert page.tags["script"] == page.tags["img"] == page.tags["iframe"] == 0
        assert {value for _, name, value in page.attributes if name in ("src", "href")} == {"data:,"}
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]
        assert "url(" not in html and "@import" not in html
        assert page.tags["svg"] > 20 and page.tags["h1"] == 1
        assert 'name="viewport"' in html and "prefers-color-scheme: dark" in html and "@media print" in html


def test_the_html_tells_the_numbers(report: RunReport) -> None:
    html, figures = to_html(report), report.total.figures
    assert headline(report) in html
    for number in (figures.accepted, figures.audience, figures.unsubscribed, figures.opened["person"]):
        assert f">{number:,}<" in html
    for group in (*report.campaigns, *report.segments):
        assert group.name.replace("_", " ") in html
    assert "French (fr)" in html and "Portuguese (Brazil) (pt-BR)" in html


def test_a_report_of_nothing_is_shown_too(report: RunReport) -> None:
    empty = replace(
        report, plans=(), total=Group("total", "all", type(report.total.figures)({})), campaigns=(), segments=(),
        languages=(), why=(), refusals=(), links=(), sent_now=0,
    )  # fmt: skip
    assert "No campaign ran." in to_html(empty)
    assert Reader(to_html(empty)).tags["h1"] == 1
    assert to_markdown(empty).startswith("# No campaign ran.")
    assert len(summary_rows(empty)) == 1 and to_csv(empty)


def test_markdown_shows_names_as_text(nasty: RunReport) -> None:
    text = to_markdown(nasty)
    assert "<script" not in text and "\\|" in text and "](" not in text.replace("\\]", "")


def test_the_csv_is_one_tidy_table_that_adds_up(report: RunReport, nasty: RunReport) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(report))))
    assert list(rows[0]) == ["scope", "name", "measure", "value", "low", "high"]
    values = {(row["scope"], row["name"], row["measure"]): row["value"] for row in rows}
    assert len(values) == len(rows), "a number stands there twice"
    total = {
        measure: int(value)
        for (scope, _, measure), value in values.items()
        if scope == "total" and "." not in value
    }
    for scope in ("campaign", "segment", "language"):
        for measure, expected in total.items():
            parts = [int(v) for (s, _, m), v in values.items() if (s, m) == (scope, measure)]
            assert sum(parts) == expected, (scope, measure)
    verdicts = [v for measure, v in total.items() if measure.startswith("verdict ")]
    assert sum(verdicts) == total["audience"]
    rates = [row for row in rows if row["measure"].startswith("rate ") and row["value"]]
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in rates) and len(rates) > 40
    assert all(row["name"][0] not in "=+-@" for row in csv.DictReader(io.StringIO(to_csv(nasty))))


def test_the_terminal_table_has_a_row_per_campaign_and_one_for_all(report: RunReport) -> None:
    rows = summary_rows(report)
    assert [row["campaign"] for row in rows] == [*(group.name for group in report.campaigns), "all"]
    assert sum(row["audience"] for row in rows[:-1]) == rows[-1]["audience"] == report.total.figures.audience
    json.dumps(rows)


def test_the_headline_says_what_this_run_did(report: RunReport) -> None:
    assert headline(report).endswith("followed.")
    assert headline(replace(report, sent_now=0)).endswith("which sent nothing twice.")
    assert headline(replace(report, sent_now=1)).endswith(
        "This run sent 1 of them, the others had gone out before."
    )
    draft = replace(
        report, plans=tuple(Plan(p.plan_id, p.campaign, p.occurrence, False, p.audience) for p in report.plans)
    )
    assert headline(draft).startswith("A dry run: ")


def test_the_headline_says_what_was_sent_of_earlier_dates(report: RunReport) -> None:
    late = replace(report, also_sent=(AlsoSent("winback", "2026-11-19", 1200), AlsoSent("x_y", "2026-11-20", 5)))
    told = "mails of earlier dates went out in this run: winback of 2026-11-19 (1,200), x y of 2026-11-20 (5)."
    assert headline(late) == f"{headline(report)} 1,205 more {told}"
    assert headline(late) in to_html(late)
    nothing = Group("total", "all", Figures({("state", "reserved"): 3}))
    assert headline(replace(report, total=nothing)) == "Nothing was sent. 3 messages are waiting."
    assert headline(replace(late, total=nothing)) == f"3 messages are waiting. 1,205 {told}"


def test_the_tiles_fill_their_rows_at_every_width(report: RunReport) -> None:
    html = to_html(report)
    columns = [int(count) for count in re.findall(r"\.tiles \{[^}]*repeat\((\w+[-\w]*)", html)]
    assert columns and all(html.count('class="tile"') % count == 0 for count in columns)


def test_files_are_named_after_the_run(report: RunReport, tmp_path: Path) -> None:
    path = write_report(report, tmp_path / "reports")
    assert path == tmp_path / "reports" / f"{RUN}.html"
    assert sorted(file.suffix for file in path.parent.iterdir()) == [".csv", ".html", ".md"]
    assert path.read_text(encoding="utf-8") == to_html(report)
    with pytest.raises(UsageError, match=r'not as "\.pdf"'):
        write_as(report, tmp_path / "x.pdf")
    with pytest.raises(UsageError, match="cannot be written"):
        write_as(report, path / "below" / "x.csv")


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    # R: PropCIs::scoreci(hits, of, 0.95); the first two are also in Newcombe 1998, table I
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0)],
)
def test_wilson_intervals(hits: int, of: int, low: float, high: float) -> None:
    assert wilson(hits, of) == pytest.approx((low, high), abs=5e-5)


def test_numbers_as_words() -> None:
    assert [percent(share) for share in (None, 0.0, 0.0012, 0.0123, 0.123, 0.5)] == [
        "–", "0\xa0%", "0.12\xa0%", "1.2\xa0%", "12.3\xa0%", "50\xa0%",
    ]  # fmt: skip
    assert (bounds(Rate(0, 0)), bounds(Rate(12, 100))) == ("", "7.0–19.8\xa0%")
    assert not re.search(r"\d%", percent(0.1)), "a number and its unit stand apart"
