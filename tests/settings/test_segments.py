"""Mistakes in config/segments.yaml: each a sentence that names the place and the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lifecycle.errors import ConfigError
from lifecycle.segments.definitions import define
from lifecycle.settings import ROOT, load_config
from tests.settings.test_loading import edit, folder, problem

__all__ = ["folder"]


def with_cells(content: Any, *cells: Any, **recipe: Any) -> None:
    content["recipes"]["ten_cells"] = {"map": list(cells), "monetary": False, "scores": 2, **recipe}


LOW, HIGH = {"name": "low", "r": [1, 1]}, {"name": "high", "r": [2, 2]}


@pytest.mark.parametrize(
    ("cells", "recipe", "told"),
    [
        ([LOW], {}, "no cell covers r=2, f=1; add a cell"),
        ([LOW], {"match": "first"}, "no cell covers r=2, f=1; add a cell, or name the rest: otherwise: others"),
        ([LOW, HIGH, {"name": "x", "f": [2, 2]}], {}, "r=1, f=2 is in both low and x; take it out of one"),
        ([LOW, {"name": "high", "r": [2, 3]}], {}, "high: r is 2 to 3, outside the scores 1 to 2"),
        ([LOW, {"name": "high", "r": [2, 1]}], {}, "r goes from 2 to 1; write the lower one first"),
        ([LOW, {**HIGH, "m": [1, 2]}], {}, "high asks for m, but monetary is off"),
        ([LOW, HIGH, {"name": "never", "total": [9, 9]}], {}, "never asks for scores that do not exist"),
        ([{"name": "low", "patterns": ["[1-"]}], {}, 'pattern "[1-" is not readable; write for example'),
        ([{"name": "low", "patterns": ["111"]}], {}, 'pattern "111" of low needs 2 places: rf'),
        ([LOW, HIGH], {"otherwise": "others"}, "otherwise goes with match: first"),
        ([LOW, HIGH], {"recency": {"thresholds": [90, 30]}}, "thresholds of r must go up, each once"),
        ([LOW, HIGH], {"recency": {"by": "thresholds"}}, "r is scored by thresholds and has no thresholds"),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be(folder: Path, cells: list[Any], recipe: dict[str, Any], told: str) -> None:
    edit(folder, "segments.yaml", lambda c: with_cells(c, *cells, **recipe))
    assert problem(folder).startswith("config/segments.yaml: recipes.ten_cells")
    assert told in problem(folder)


def test_a_chosen_recipe_that_is_not_there(folder: Path) -> None:
    edit(folder, "segments.yaml", lambda c: c.update(recipe="ten_cell"))
    assert 'recipe "ten_cell" is not defined; did you mean "ten_cells"?' in problem(folder)
    config = load_config(ROOT / "config", env={})
    with pytest.raises(ConfigError, match=r'config/segments.yaml: recipe "elevn" is not defined; known: '):
        config.with_recipe("elevn")


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"rule": "vip"}, "a vip rule needs either top_share or spend_12m"),
        ({"rule": "dormant"}, "a dormant rule needs days, rhythm or both"),
        ({"rule": "dormant", "days": 90, "at_most_days": 60}, "at_most_days must be more than days"),
        ({"rule": "dormand", "days": 90}, "dormand"),
    ],
)
def test_a_rule_that_cannot_be(folder: Path, rule: dict[str, Any], told: str) -> None:
    edit(folder, "segments.yaml", lambda c: c["segments"].update(quiet=rule))
    assert "config/segments.yaml: segments.quiet" in problem(folder)
    assert told in problem(folder)


def told_by(folder: Path, **segments: str) -> list[str]:
    path = folder / "segments.yaml"
    content = yaml.safe_load(path.read_text())
    for name, where in segments.items():
        content["segments"][name] = {"rule": "expression", "where": where}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ConfigError) as caught:
        define(load_config(folder, env={}))
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("order_12m >= 2", 'there is no metric "order_12m"; did you mean "orders_12m"?'),
        ("orders >= 2 and in vipp", 'segment "vipp" is not defined; did you mean "vip"?'),
        ("orders_90d > 1", 'there is no metric "orders_90d"'),
        ("country > FR", "> compares with a number or a date, not with text"),
        ("spend = lots", "spend is a number, lots is none"),
        ("first_order_at < 30", "first_order_at is an instant; compare it with a date, like 2026-01-01"),
        ("country between 1 and 2", "country is a word and can only be equal or not; use =, != or in"),
        ("country = 7", "country is a word, 7 is none; write it in quotes if it is meant"),
        ("refund_share > 12.34567%", "refund_share is compared with at most four digits after the point"),
        ("orders >= 2 and", "a condition"),
    ],
)
def test_an_expression_with_a_mistake(folder: Path, where: str, told: str) -> None:
    (line,) = told_by(folder, mine=where)
    assert line.startswith("config/segments.yaml: segments.mine.where: ")
    assert told in line


def test_segments_that_build_on_themselves(folder: Path) -> None:
    (line,) = told_by(folder, one="in two or orders = 1", two="not in three", three="in one")
    assert line == (
        "config/segments.yaml: segments.one.where: builds on itself: one → two → three → one; take one step out"
    )


def test_every_mistake_is_told_at_once(folder: Path) -> None:
    assert len(told_by(folder, one="orderz > 1", two="spend >", three="in nowhere")) == 3


def test_a_score_of_what_is_no_number(folder: Path) -> None:
    edit(folder, "segments.yaml", lambda c: c["recipes"]["ten_cells"].update(frequency={"of": "order"}))
    with pytest.raises(ConfigError) as caught:
        define(load_config(folder, env={}))
    assert str(caught.value) == (
        'config/segments.yaml: recipes.ten_cells: f is scored by "order", which is no whole number that everybody '
        'has; did you mean "orders"?'
    )


def test_ready_made_maps_cover_every_score_once() -> None:
    recipes = load_config(ROOT / "config", env={}).segments_file.recipes
    assert {name: len(recipe.names) for name, recipe in recipes.items()} == {
        "ten_cells": 10,
        "eleven_cells": 11,
        "first_match": 11,
    }
    assert all(len(recipe.cells) == 125 for recipe in recipes.values())
