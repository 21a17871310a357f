"""What docs/planning.md shows is sound, and complete."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from lifecycle.db.schema import VERDICTS
from lifecycle.settings import ROOT, Config
from lifecycle.settings.models import CampaignsFile, CapRule, CapsFile, Guards, Quota, Ramp, Schedule
from lifecycle.settings.policies import policies

DOCS = (ROOT / "docs" / "planning.md").read_text()


def shown() -> dict[str, Any]:
    """All its YAML as one file."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    return {key: value for block in blocks for key, value in yaml.safe_load(block).items()}


def test_its_configuration_is_sound(changed: Callable[..., Config]) -> None:
    values = shown()
    caps = {"caps": values.pop("caps"), "quotas": values.pop("quotas"), "quiet_hours": "21:00-08:00"}
    config = changed(caps_file=caps, campaigns_file=values)
    assert (len(config.caps_file.caps), len(config.caps_file.quotas), len(config.campaigns)) == (7, 3, 1)


def test_it_names_every_verdict_in_order() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]*\|$", DOCS, re.MULTILINE)[: len(VERDICTS)]) == VERDICTS


def test_it_names_every_setting() -> None:
    for model in (CapRule, Quota, Ramp, Schedule, Guards, CapsFile, CampaignsFile):
        for name in model.model_fields:
            assert re.search(rf"\b{name}\b", DOCS), name


def test_it_quotes_every_rule_as_it_is() -> None:
    table = DOCS.partition("<!-- rules -->")[2].partition("<!-- /rules -->")[0]
    quoted = {
        (name, bool(dagger), says)
        for name, dagger, says in re.findall(r"^\| `(\w+)`( †)? \| ([^|]+) \|", table, re.MULTILINE)
    }
    assert quoted == {(rule.name, not rule.verified, rule.says.replace("|", "/")) for rule in policies().rules}
