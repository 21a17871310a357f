"""What docs/segments.md shows is sound, and complete."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from lifecycle.segments.definitions import define
from lifecycle.segments.vocabulary import vocabulary
from lifecycle.settings import ROOT, Config
from lifecycle.settings.segments import CountedOrders, Recipe, Score, SegmentsFile

DOCS = (ROOT / "docs" / "segments.md").read_text()


def shown() -> dict[str, Any]:
    """All its YAML as one file."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    return {key: value for block in blocks for key, value in yaml.safe_load(block).items()}


def test_its_configuration_is_sound(changed: Callable[..., Config]) -> None:
    definitions = define(changed(segments_file=shown()))
    assert definitions.recipe.names == ("best", "fading", "middling", "others")
    assert len(definitions.rules) == len(shown()["segments"]) == 18


def test_it_shows_every_rule_and_method() -> None:
    rules = re.findall(r"rule: (\w+)", DOCS)
    assert set(rules) == {
        "new", "one_time", "active", "repeat", "vip", "high_value", "dormant", "lapsed", "churned", "at_risk",
        "won_back", "potential", "expression",
    }  # fmt: skip
    methods = set(Score.model_fields["by"].annotation.__args__[0].__args__)  # type: ignore[union-attr]
    described = re.findall(r"^\| `(\w+)` \| (?:1 and|quantiles|n equal|`thresholds)", DOCS, re.MULTILINE)
    assert methods == set(described)


def test_it_names_every_metric_and_setting() -> None:
    for name in vocabulary("EUR"):
        assert f"`{name}`" in DOCS, name
    for model in (CountedOrders, Score, Recipe, SegmentsFile):
        for name in model.model_fields:
            assert re.search(rf"\b{name}\b", DOCS) or name == "description", name
