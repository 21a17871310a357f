"""prefect.yaml: complete, loadable, and in step with the README's table of flows."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from lifecycle.settings import ROOT, Config

DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


@pytest.fixture(params=DEPLOYMENTS, ids=lambda each: each["name"])
def deployment(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


def test_every_flow_has_its_deployment() -> None:
    files = {path.stem.replace("_", "-") for path in (ROOT / "flows").glob("*.py") if path.stem[0] != "_"}
    assert files == {each["name"] for each in DEPLOYMENTS}


def test_it_loads_by_its_module(deployment: dict[str, Any]) -> None:
    flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    assert flow.name == deployment["name"]


def test_every_parameter_is_typed_and_every_given_one_exists(deployment: dict[str, Any]) -> None:
    flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    parameters = inspect.signature(flow.fn).parameters
    assert all(each.annotation is not inspect.Parameter.empty for each in parameters.values())
    given = set(deployment.get("parameters", {}))
    for schedule in deployment["schedules"]:
        given |= set(schedule.get("parameters", {}))
    assert given <= set(parameters)


def test_an_operator_knows_when_who_and_how_bad(deployment: dict[str, Any]) -> None:
    assert all(schedule["timezone"] and schedule["slug"] for schedule in deployment["schedules"])
    assert deployment["schedules"] or deployment["name"] == "backfill-segments", "one flow is started by hand"
    assert "**Impact of failure:**" in deployment["description"]
    assert any(tag.startswith("owner:") for tag in deployment["tags"])
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


def test_schedules_name_shops_and_campaigns_that_exist(config: Config) -> None:
    schedules = [schedule for each in DEPLOYMENTS for schedule in each["schedules"]]
    given = [schedule.get("parameters", {}) for schedule in schedules]
    assert {each["shop"] for each in given if "shop" in each} == set(config.shops)
    assert {each["campaign"] for each in given if "campaign" in each} <= set(config.campaigns)


def test_only_daily_sends_campaigns_by_itself() -> None:
    sending = {
        each["name"]
        for each in DEPLOYMENTS
        for schedule in each["schedules"]
        if {**each.get("parameters", {}), **schedule.get("parameters", {})}.get("dry_run") is False
    }
    assert sending == {"daily"}


def test_readme_table_of_flows_is_in_step() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", readme, re.MULTILINE)
    table = {name: (schedule, impact) for name, schedule, _in, _out, impact in rows}
    assert set(table) == {each["name"] for each in DEPLOYMENTS}
    for each in DEPLOYMENTS:
        schedule, impact = table[each["name"]]
        told = " ".join(each["description"].split("**Impact of failure:**")[1].split())
        assert told.startswith(impact.split(";")[0].rstrip(".")), each["name"]
        for cron in (one["cron"].split() for one in each["schedules"]):
            assert _spoken(cron) in schedule, (each["name"], cron)


def _spoken(cron: list[str]) -> str:
    """How the table writes a schedule: `09:00`, `:05`, `every 30 minutes`."""
    minute, hour = cron[:2]
    if minute.startswith("*/"):
        return f"every {minute[2:]} minutes"
    return f":{int(minute):02d}" if hour == "*" else f"{int(hour):02d}:{int(minute):02d}"
