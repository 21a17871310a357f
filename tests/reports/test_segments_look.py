"""A look at the segments: the numbers of counting one by one, the same in every form, right with little data."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, insert, update

from lifecycle.db.engine import writing
from lifecycle.db.schema import customer_metrics, customers, prediction_runs, segment_members, segment_runs
from lifecycle.errors import AuditFailed, TernError, UsageError
from lifecycle.reports.segments_counting import FREQUENCY, RECENCY_DAYS
from lifecycle.reports.segments_look import TREND_BUILDS, segments_look
from lifecycle.reports.segments_records import Prediction, SegmentsLook, Size
from lifecycle.reports.segments_render import (
    DEFINITIONS_CHANGED,
    FORMS,
    summary_rows,
    tables,
    to_csv,
    to_html,
    to_markdown,
)
from lifecycle.reports.segments_words import headline, people, signed, tiles
from lifecycle.segments.definitions import define
from lifecycle.settings import Config
from tests.reports.test_render import Reader

NOW = datetime(2026, 11, 22, 4, 30, tzinfo=UTC)
DAY = timedelta(days=1)
CELLS = ("champions", "loyal_customers", "at_risk", "hibernating")
OTHERS = ("new", "dormant", "vip")


@dataclass
class People:
    """Who is in which segments at each build, the last one as of NOW, a day apart."""

    builds: list[dict[int, set[str]]]
    metrics: dict[int, dict[str, Any]] = field(default_factory=dict)

    def as_of(self, build: int) -> datetime:
        return NOW - (len(self.builds) - 1 - build) * DAY

    def of(self, build: int, segment: str) -> set[int]:
        return {customer for customer, segments in self.builds[build].items() if segment in segments}

    def cell(self, build: int, customer: int) -> str | None:
        return next(iter(self.builds[build].get(customer, set()) & set(CELLS)), None)

    def store(self, engine: Engine, config: Config) -> None:
        everybody = sorted({customer for build in self.builds for customer in build} | {0})
        spans = self._spans()
        with writing(engine) as connection:
            connection.execute(
                insert(customers),
                [{"customer_id": i, "seed": 1, "first_seen_at": NOW, "updated_at": NOW} for i in everybody],
            )
            for number in range(len(self.builds)):
                connection.execute(insert(segment_runs).values(self._run(number, config)))
            if spans:
                connection.execute(insert(segment_members), spans)
            if self.metrics:
                connection.execute(insert(customer_metrics), list(self.metrics.values()))

    def _run(self, number: int, config: Config) -> dict[str, Any]:
        found = Counter(segment for segments in self.builds[number].values() for segment in segments)
        return {
            "as_of": self.as_of(number),
            "built_at": self.as_of(number) + timedelta(minutes=2),
            "kind": "incremental",
            "definitions_hash": "same",
            "definitions": stored_definitions(config),
            "customers": len(self.builds[number]),
            "counts": dict.fromkeys(config.segment_names, 0) | found,
        }

    def _spans(self) -> list[dict[str, Any]]:
        spans: list[tuple[str, int, datetime, datetime | None]] = []
        open_since: dict[tuple[str, int], datetime] = {}
        for number, build in enumerate(self.builds):
            now = {(segment, customer) for customer, segments in build.items() for segment in segments}
            for key in [key for key in open_since if key not in now]:
                spans.append((*key, open_since.pop(key), self.as_of(number)))
            for key in now:
                open_since.setdefault(key, self.as_of(number))
        spans += [(*key, since, None) for key, since in open_since.items()]
        names = ("segment", "customer_id", "valid_from", "valid_to")
        return [dict(zip(names, span, strict=True)) for span in spans]


def stored_definitions(config: Config) -> dict[str, Any]:
    """As a build keeps them: see `lifecycle.segments.definitions`."""
    stored: dict[str, Any] = json.loads(define(config).text)
    return stored


def metric(
    customer: int, *, days: float = 5, frequency: int = 1, spend: int = 100, **columns: Any
) -> dict[str, Any]:
    at = NOW - timedelta(days=days)
    return {
        "customer_id": customer,
        "first_order_at": at,
        "last_order_at": at,
        "last_shop": "atlas",
        "frequency": frequency,
        "order_days": frequency,
        "order_lines": frequency,
        "gross_minor": spend,
        "refunded_minor": 0,
        "monetary_minor": spend,
        "orders_12m": 0,
        "spend_12m_minor": 0,
        "r": 1,
        "f": 1,
        "m": 1,
        "rfm_segment": "hibernating",
    } | columns


def random_people(seed: int, count: int = 120, builds: int = 5) -> People:
    """Who comes, goes, comes back, and moves about."""
    rng = random.Random(seed)
    history: list[dict[int, set[str]]] = []
    for number in range(builds):
        before = history[-1] if history else {}
        build: dict[int, set[str]] = {}
        for customer in range(1, count + 1):
            if rng.random() < 0.5 and number:
                kept = before.get(customer)
            elif rng.random() < 0.8:
                kept = {rng.choice(CELLS), *rng.sample(OTHERS, rng.randrange(3))}
            else:
                kept = None
            if kept:
                build[customer] = kept
        history.append(build)
    people = People(history)
    for customer in history[-1]:
        people.metrics[customer] = metric(
            customer,
            days=rng.choice([rng.uniform(0, 900), *range(0, 100)]),
            frequency=rng.randint(1, 30),
            spend=rng.randrange(-500, 90_000),
            r=rng.randint(1, 5),
            f=rng.randint(1, 5),
            m=rng.randint(1, 5),
            rfm_segment=people.cell(len(history) - 1, customer),
        )
    return people


def look_at(people: People, engine: Engine, config: Config, **instants: Any) -> SegmentsLook:
    people.store(engine, config)
    return segments_look(engine, config, **{"as_of": NOW, **instants})


@pytest.fixture
def look(engine: Engine, config: Config) -> SegmentsLook:
    found = look_at(random_people(5, 600), engine, config)
    add_prediction(engine)
    return replace(found, prediction=segments_look(engine, config, as_of=NOW).prediction)


def add_prediction(engine: Engine, **columns: Any) -> None:
    values = {
        "as_of": NOW,
        "fitted_at": NOW + timedelta(minutes=3),
        "horizon_days": 90,
        "customers": 600,
        "repeat_customers": 250,
        "problem": None,
        "parameters": {
            "bg_nbd": {"values": {"r": 0.25, "a": 0.8}, "standard_errors": {"r": 0.01}, "log_likelihood": -95824.4}
        },
        "calibration": [{"frequency": 0, "customers": 350, "expected": 0.195, "seen": 0.213}],
    }
    with writing(engine) as connection:
        connection.execute(insert(prediction_runs).values(values | columns))


def forms(look: SegmentsLook) -> dict[str, str]:
    """Every form, each readable."""
    told = {ending: form(look) for ending, form in FORMS.items()}
    assert Reader(told[".html"]).tags["h1"] == 1
    return told


@pytest.mark.parametrize("seed", range(3))
def test_sizes_are_those_of_counting_people(seed: int, engine: Engine, config: Config) -> None:
    people = random_people(seed)
    people.store(engine, config)
    for before, now in ((3, 4), (0, 4), (1, 3), (0, 1)):
        look = segments_look(engine, config, as_of=people.as_of(now), since=people.as_of(before))
        assert [size.segment for size in look.sizes] == list(config.segment_names)
        assert look.customers == len(people.builds[now]) == look.build.customers
        for size in look.sizes:
            was, is_ = people.of(before, size.segment), people.of(now, size.segment)
            assert (size.members, size.before) == (len(is_), len(was))
            assert (size.entered, size.left) == (len(is_ - was), len(was - is_))
            assert size.change == len(is_) - len(was)
            assert size.share == pytest.approx(len(is_) / len(people.builds[now]))
            assert [point.members for point in size.trend] == [
                len(people.of(build, size.segment)) for build in range(now + 1)
            ]


@pytest.mark.parametrize("seed", range(3))
def test_movement_is_that_of_counting_people_and_adds_up_to_the_sizes(
    seed: int, engine: Engine, config: Config
) -> None:
    people = random_people(seed)
    people.store(engine, config)
    for before, now in ((3, 4), (0, 4), (1, 3)):
        look = segments_look(engine, config, as_of=people.as_of(now), since=people.as_of(before))
        movement = look.movement
        assert movement is not None
        ids = {*people.builds[before], *people.builds[now]}
        expected = Counter((people.cell(before, i), people.cell(now, i)) for i in ids)
        assert Counter(movement.customers) == expected
        for cell in config.recipe.names:
            assert movement.was(cell) == look.size(cell).before
            assert movement.became(cell) == look.size(cell).members
            entered = movement.became(cell) - movement.of(cell, cell)
            assert (entered, movement.was(cell) - movement.of(cell, cell)) == (
                look.size(cell).entered,
                look.size(cell).left,
            )
        assert movement.customers_after == look.customers
        assert movement.customers_before == len(people.builds[before])
        assert movement.was(None) == len(people.builds[now].keys() - people.builds[before].keys())
        assert movement.became(None) == len(people.builds[before].keys() - people.builds[now].keys())


def test_who_left_and_came_back_has_not_moved(engine: Engine, config: Config) -> None:
    steady, away = {"champions", "vip"}, {"at_risk"}
    look = look_at(People([{1: steady}, {1: away}, {1: steady}]), engine, config, since=NOW - 2 * DAY)
    for segment in steady:
        size = look.size(segment)
        assert (size.members, size.before, size.entered, size.left) == (1, 1, 0, 0)
    assert look.movement is not None and look.movement.customers == {("champions", "champions"): 1}
    assert headline(look) == "Nobody moved between cells since 2026-11-20 04:30 UTC."


@pytest.mark.parametrize("seed", range(2))
def test_scores_and_distributions_are_those_of_counting_people(seed: int, engine: Engine, config: Config) -> None:
    people = random_people(seed, 200)
    profile = look_at(people, engine, config).profile
    assert profile is not None
    rows = list(people.metrics.values())
    for (r, f), found in profile.grid.fields.items():
        mine = [row for row in rows if (row["r"], row["f"]) == (r, f)]
        assert found.customers == len(mine)
        if mine:
            assert found.cells == Counter(row["rfm_segment"] for row in mine)
            assert list(found.cells.values()) == sorted(found.cells.values(), reverse=True)
            assert found.mean_m == pytest.approx(sum(row["m"] for row in mine) / len(mine))
    assert sum(found.customers for found in profile.grid.fields.values()) == len(rows)
    assert sum(found.share for found in profile.grid.fields.values()) == pytest.approx(1)
    for bins, value, edges in (
        (profile.recency_days, lambda row: (NOW - row["last_order_at"]).days, RECENCY_DAYS),
        (profile.frequency, lambda row: row["frequency"], FREQUENCY),
    ):
        expected = [sum(low <= value(row) <= (high or 10**9) for row in rows) for low, high in edges]
        assert [each.customers for each in bins] == expected
        assert sum(expected) == len(rows)


def test_spend_by_tenths(engine: Engine, config: Config) -> None:
    people = random_people(1, 203)
    profile = look_at(people, engine, config).profile
    assert profile is not None
    spends = sorted((row["monetary_minor"] for row in people.metrics.values()), reverse=True)
    assert [each.tenth for each in profile.spend] == list(range(1, 11))
    sizes = [each.customers for each in profile.spend]
    assert sum(sizes) == len(spends) and max(sizes) - min(sizes) <= 1
    start = 0
    for each in profile.spend:
        mine = spends[start : start + each.customers]
        assert (each.from_minor, each.to_minor, each.total_minor) == (mine[-1], mine[0], sum(mine))
        assert each.share == pytest.approx(sum(mine) / sum(spends))
        start += each.customers


def test_days_are_whole_and_an_edge_belongs_to_the_bin_that_names_it(engine: Engine, config: Config) -> None:
    people = People([{i: {"hibernating"} for i in range(1, 5)}])
    for customer, days in ((1, 0), (2, 7.999), (3, 8), (4, 731)):
        people.metrics[customer] = metric(customer, days=days)
    profile = look_at(people, engine, config).profile
    assert profile is not None
    assert [each.customers for each in profile.recency_days] == [2, 1, 0, 0, 0, 0, 0, 1]


def test_an_empty_field_of_the_grid_has_the_cell_it_would_be(engine: Engine, config: Config) -> None:
    people = People([{1: {"hibernating"}}], {1: metric(1)})
    look = look_at(people, engine, config)
    assert look.profile is not None
    assert look.profile.grid.fields[5, 5].cells == {"champions": 0}
    assert "champions" in to_html(look) and "| R 5 | 0 new customers |" in to_markdown(look)


def test_without_money_in_the_recipe_there_is_no_mean_of_it(engine: Engine, config: Config) -> None:
    people = People([{1: {"hibernating"}}], {1: metric(1, m=None)})
    look = look_at(people, engine, config)
    assert look.profile is not None and not look.profile.grid.knows_money
    assert ", m " not in to_html(look)


def test_an_older_build_has_no_scores_and_says_so(engine: Engine, config: Config) -> None:
    look = look_at(random_people(2), engine, config, as_of=NOW - DAY)
    assert look.profile is None and look.newest_as_of == NOW
    told = forms(look)
    for ending in (".html", ".md"):
        assert "kept for the newest build only, which is as of 2026-11-22 04:30 UTC" in told[ending]
    assert tables(look)["grid"] == tables(look)["spend"] == []


def test_instants_mean_the_newest_build_up_to_them(engine: Engine, config: Config) -> None:
    random_people(3).store(engine, config)

    def builds(**instants: datetime) -> tuple[datetime, datetime | None]:
        look = segments_look(engine, config, **{"as_of": NOW, **instants})
        return look.build.as_of, look.before.as_of if look.before else None

    assert builds() == (NOW, NOW - DAY)
    assert builds(as_of=NOW + 9 * DAY) == (NOW, NOW - DAY)
    assert builds(as_of=NOW - timedelta(hours=1)) == (NOW - DAY, NOW - 2 * DAY)
    assert builds(since=NOW - 1.5 * DAY) == (NOW, NOW - 2 * DAY)
    assert builds(as_of=NOW - 4 * DAY) == (NOW - 4 * DAY, None)


def test_instants_without_a_build_are_refused(engine: Engine, config: Config) -> None:
    with pytest.raises(TernError, match=r"^segments have not been built; run: tern segment$"):
        segments_look(engine, config, as_of=NOW)
    random_people(3).store(engine, config)
    for instants in ({"as_of": NOW - 5 * DAY}, {"as_of": NOW, "since": NOW - 5 * DAY}):
        with pytest.raises(UsageError, match="or before; the first are as of 2026-11-18 04:30 UTC"):
            segments_look(engine, config, **instants)
    for since in (NOW, NOW + DAY):
        with pytest.raises(UsageError, match="give an earlier instant"):
            segments_look(engine, config, as_of=NOW, since=since)


def test_no_customers(engine: Engine, config: Config) -> None:
    look = look_at(People([{}, {}]), engine, config)
    told = forms(look)
    assert headline(look) == "No customer is in a segment as of 2026-11-22 04:30 UTC."
    assert "Nobody moved." in told[".html"] and "Fewer than ten customers" in told[".html"]
    assert look.customers == 0 and {size.share for size in look.sizes} == {None}


def test_one_customer_and_one_build(engine: Engine, config: Config) -> None:
    look = look_at(People([{1: {"hibernating", "new"}}], {1: metric(1)}), engine, config)
    told = forms(look)
    assert headline(look) == "1 customer; the largest cell is hibernating with 1 (100\xa0%)."
    assert look.movement is None and look.size("new").change is None
    assert "This is the first build" in told[".html"]
    assert "There is no earlier build to compare with." in told[".md"]
    assert "Fewer than ten customers" in told[".html"]
    assert look.size("champions").members == 0


def test_the_first_order_of_somebody_is_told(engine: Engine, config: Config) -> None:
    look = look_at(People([{}, {1: {"new_customers"}}]), engine, config)
    assert headline(look) == "Nobody changed cell since 2026-11-21 04:30 UTC; 1 customer came with a first order."
    assert forms(look)


def test_the_headline_names_what_changed_most(engine: Engine, config: Config) -> None:
    before = {i: {"champions"} for i in range(1, 101)} | {i: {"hibernating", "vip"} for i in range(101, 301)}
    moved = {i: {"at_risk"} for i in range(1, 41)} | {i: {"hibernating"} for i in range(41, 43)}
    look = look_at(People([before, before | moved]), engine, config)
    assert headline(look) == (
        "Champions shrank by 42 (42\xa0%) to 58 customers since 2026-11-21 04:30 UTC: "
        "0 entered, 42 left (40 of them to at risk)."
    )
    grown = replace(look, sizes=tuple(size for size in look.sizes if size.segment != "champions"))
    assert headline(grown) == (
        "At risk grew by 40 to 40 customers since 2026-11-21 04:30 UTC: 40 entered (all from champions), 0 left."
    )
    little = replace(look, sizes=tuple(size for size in look.sizes if size.segment == "vip"))
    assert headline(little) == (
        "No segment changed much since 2026-11-21 04:30 UTC; "
        "the largest movement is 40 customers from champions to at risk."
    )


def test_other_definitions_are_told_and_old_segments_kept(engine: Engine, config: Config) -> None:
    """The recipe changed between the builds: each build's cells are those of its own recipe."""
    People([{1: {"lost"}, 2: {"hibernating"}}, {1: {"hibernating"}, 2: {"hibernating"}}]).store(engine, config)
    old = stored_definitions(config.with_recipe("eleven_cells"))
    with writing(engine) as connection:
        first = update(segment_runs).where(segment_runs.c.as_of == NOW - DAY)
        connection.execute(first.values(definitions=old, definitions_hash="old", counts={"lost": 1}))
    look = segments_look(engine, config, as_of=NOW)
    assert look.definitions_changed
    lost = look.sizes[-1]
    assert (lost.segment, lost.kind, lost.members, lost.before, lost.left) == ("lost", "gone", 0, 1, 1)
    assert look.movement is not None
    assert look.movement.cells_before[-1] == "lost" and "lost" not in look.movement.cells_after
    assert look.movement.customers == {("lost", "hibernating"): 1, ("hibernating", "hibernating"): 1}
    assert not look.size("champions").comparable
    told = forms(look)
    assert DEFINITIONS_CHANGED in told[".html"] and DEFINITIONS_CHANGED in told[".md"]
    assert "No longer defined" in told[".html"]


def test_definitions_that_cannot_be_read_are_taken_for_those_of_today(engine: Engine, config: Config) -> None:
    random_people(1).store(engine, config)
    with writing(engine) as connection:
        connection.execute(update(segment_runs).values(definitions={"rfm": {"cells": []}}))
    look = segments_look(engine, config, as_of=NOW)
    assert look.movement is not None and look.movement.cells_after == config.recipe.names


def test_numbers_that_do_not_add_up_are_not_shown(engine: Engine, config: Config) -> None:
    with pytest.raises(AuditFailed, match=r"champions has 1 members, 0 by movement"):
        look_at(People([{}, {1: {"champions", "hibernating"}}]), engine, config)


def test_trends_end_with_the_build_and_show_gaps(engine: Engine, config: Config) -> None:
    people = People([{1: {"champions"}} for _ in range(TREND_BUILDS + 5)])
    people.store(engine, config)
    with writing(engine) as connection:
        one = update(segment_runs).where(segment_runs.c.as_of == NOW - 3 * DAY)
        connection.execute(one.values(counts={"hibernating": 1}))
    trend = segments_look(engine, config, as_of=NOW).size("champions").trend
    assert len(trend) == TREND_BUILDS and trend[-1].as_of == NOW
    assert [point.members for point in trend[-5:]] == [1, None, 1, 1, 1]
    assert to_html(segments_look(engine, config, as_of=NOW)).count("<polyline") >= 2 * len(CELLS)


def test_predictions_stand_with_their_errors(look: SegmentsLook) -> None:
    assert look.prediction is not None
    assert [(each.name, each.value, each.standard_error) for each in look.prediction.parameters] == [
        ("a", 0.8, None), ("r", 0.25, 0.01), ("log_likelihood", -95824.4, None),
    ]  # fmt: skip
    html = to_html(look)
    assert ">0.195<" in html and ">0.213<" in html and ">0.01<" in html and "−95,824.4" in html


def test_a_problem_of_the_predictions_is_shown(engine: Engine, config: Config) -> None:
    add_prediction(engine, parameters={}, calibration=[], problem="Only 3 customers <came> back; 100 are needed.")
    add_prediction(engine, as_of=NOW + DAY)
    look = look_at(random_people(1), engine, config)
    assert isinstance(look.prediction, Prediction)
    assert "Only 3 customers &lt;came&gt; back; 100 are needed." in forms(look)[".html"]


def test_every_form_has_every_number_of_the_sizes(look: SegmentsLook) -> None:
    told = forms(look)
    rows = {row["segment"]: row for row in csv.DictReader(io.StringIO(told[".csv"]))}
    for size in look.sizes:
        row = rows[size.segment]
        values = (size.members, size.before, size.change, size.entered, size.left)
        shown = tuple(int(row[name]) for name in ("members", "before", "change", "entered", "left"))
        assert shown == values
        assert float(row["share"]) == pytest.approx(size.share, abs=1e-6)
        html_row = re.search(
            rf'<th scope="row">{size.segment.replace("_", " ")}</th>\n.*?</tr>', told[".html"], re.S
        )
        name = size.segment.replace("_", r"\_")
        markdown_row = next(line for line in told[".md"].splitlines() if line.startswith(f"| {name} |"))
        assert html_row is not None
        for text in texts(size):
            assert f">{text}<" in html_row.group() and f"| {text} |" in markdown_row


def texts(size: Size) -> list[str]:
    numbers = [
        f"{number:,}" for number in (size.members, size.before, size.entered, size.left) if number is not None
    ]
    return [*numbers, signed(size.change)]


def test_the_html_needs_nothing_else_and_runs_nothing(look: SegmentsLook) -> None:
    html = to_html(look)
    page = Reader(html)
    assert page.tags["script"] == page.tags["img"] == page.tags["iframe"] == 0
    assert {value for _, name, value in page.attributes if name in ("src", "href")} == {"data:,"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "url(" not in html and "@import" not in html and "http" not in html
    assert page.tags["svg"] > 40
    assert headline(look) in html


def test_tables_can_be_heard(look: SegmentsLook) -> None:
    page = Reader(to_html(look))
    assert page.tags["table"] == page.tags["caption"] == 5
    assert page.tags["th"] == sum(tag == "th" and name == "scope" for tag, name, _ in page.attributes)
    pictures = [name for tag, name, _ in page.attributes if tag == "svg" and name == "aria-hidden"]
    assert pictures
    ids = [value for _, name, value in page.attributes if name == "id"]
    labels = {value for _, name, value in page.attributes if name == "aria-labelledby"}
    assert len(ids) == len(set(ids)) and labels <= set(ids)


def test_there_are_six_tiles_whatever_there_is_to_tell(look: SegmentsLook) -> None:
    bare = replace(look, profile=None, movement=None, before=None)
    for each in (look, replace(look, profile=None), replace(look, movement=None, before=None), bare):
        assert len(tiles(each)) == 6
        assert len({tile.name for tile in tiles(each)}) == 6
        assert to_html(each).count('class="tile"') == 6


def test_all_tables_can_be_exported(look: SegmentsLook) -> None:
    every = tables(look)
    assert json.loads(json.dumps(every)) == every
    assert set(every) == {
        "build", "sizes", "trend", "movement", "grid", "recency", "frequency", "spend", "parameters",
        "calibration",
    }  # fmt: skip
    for name, rows in every.items():
        assert rows and all(list(row) == list(rows[0]) for row in rows), name
        written = list(csv.DictReader(io.StringIO(to_csv(look, name))))
        assert len(written) == len(rows) and list(written[0]) == list(rows[0])
    assert every["build"][0]["as_of"] == "2026-11-22T04:30:00Z"
    moved = sum(row["customers"] for row in every["movement"])
    assert look.movement is not None and moved == sum(look.movement.customers.values())
    assert [row["segment"] for row in summary_rows(look)] == [row["segment"] for row in every["sizes"]]


def test_names_are_text_in_every_form(look: SegmentsLook) -> None:
    nasty = "=<script>alert(1)</script>|*_"
    every = forms(replace(look, sizes=(replace(look.sizes[0], segment=nasty), *look.sizes[1:])))
    assert "<script" not in every[".html"] and "<script" not in every[".md"]
    assert f"'{nasty}" in every[".csv"] and r"\|\*\_" in every[".md"]


def test_fields_with_several_cells_name_them(engine: Engine, changed: Callable[..., Config]) -> None:
    config = changed(segments_file={"recipe": "eleven_cells"})
    people = People([{i: {"champions"} for i in range(1, 4)}])
    for customer, m, cell in ((1, 5, "champions"), (2, 4, "champions"), (3, 1, "potential_loyalists")):
        people.metrics[customer] = metric(customer, r=5, f=5, m=m, rfm_segment=cell)
    look = look_at(people, engine, config)
    assert look.profile is not None
    assert list(look.profile.grid.fields[5, 5].cells.items()) == [("champions", 2), ("potential_loyalists", 1)]
    assert "champions, potential loyalists" in to_html(look)


@pytest.mark.parametrize(
    ("change", "text"), [(None, "–"), (0, "0"), (12, "+12"), (-3, "−3"), (1234, "+1,234"), (-1234, "−1,234")]
)
def test_changes_as_words(change: int | None, text: str) -> None:
    assert signed(change) == text
    assert (people(1), people(1200)) == ("1 customer", "1,200 customers")
