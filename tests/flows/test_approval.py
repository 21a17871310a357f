"""A run that waits for a person: the form, the answer, and what happens without one."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import select

from flows.daily import due
from lifecycle.db.engine import reading
from lifecycle.db.schema import approvals, messages, plans, runs
from lifecycle.errors import PlanError
from lifecycle.planning.records import Plan
from lifecycle.settings import ROOT, Config
from tasks.plan import wait_for_approval
from tests.world import World

SEND_WINBACK = ("-m", "flows", "run-campaign", "--param", "campaign=winback", "--param", "dry_run=false")


@pytest.fixture
def world(sqlite_world: World) -> World:
    """Every message of a campaign needs an approval; only winback is due."""
    folder = sqlite_world.folder / "config"
    shutil.copytree(ROOT / "config", folder)
    campaigns = yaml.safe_load((folder / "campaigns.yaml").read_text()) | {"guards": {"approve_over": 0}}
    for each in campaigns["campaigns"]:
        if each["name"] != "winback":
            each["schedule"] = {"dates": ["2020-01-01"]}
    caps = yaml.safe_load((folder / "caps.yaml").read_text()) | {"quiet_hours": None}
    (folder / "campaigns.yaml").write_text(yaml.safe_dump(campaigns))
    (folder / "caps.yaml").write_text(yaml.safe_dump(caps))
    sqlite_world.extra["TERN_CONFIG"] = str(folder)
    return sqlite_world


def all_of(world: World, *columns: Any) -> list[tuple[Any, ...]]:
    with reading(world.place.engine) as connection:
        return [tuple(row) for row in connection.execute(select(*columns))]


def paused(api: str, process: subprocess.Popen[str]) -> str:
    """The id of the run that waits, once its form is there."""
    wanted = {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}}
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None and time.monotonic() < deadline, "it does not pause"
        for found in httpx.post(f"{api}/flow_runs/filter", json=wanted).json():
            if httpx.get(f"{api}/flow_runs/{found['id']}/input/paused-1-description").is_success:
                return str(found["id"])
        time.sleep(0.2)


def answer(api: str, flow_run: str, **given: Any) -> str:
    """What becomes of an answer: ACCEPT or REJECT."""
    response = httpx.post(f"{api}/flow_runs/{flow_run}/resume", json={"run_input": given}).json()
    return str(response["status"])


def test_refused_then_approved(world: World) -> None:
    world.prepare()
    api = world.extra["PREFECT_API_URL"]
    process = world.python(*SEND_WINBACK)
    flow_run = paused(api, process)
    shown = httpx.get(f"{api}/flow_runs/{flow_run}/input/paused-1-description").text
    ((plan_id, planned_hash),) = all_of(world, plans.c.plan_id, plans.c.hash)
    assert planned_hash in shown and "messages are more than guards.approve\\\\_over 0" in shown
    assert answer(api, flow_run, approve=True) == "REJECT", "without a name"
    assert answer(api, flow_run, approve=True, name="") == "REJECT"
    assert answer(api, flow_run, approve=False, name="Grace") == "ACCEPT"
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"Grace does not approve plan {plan_id}, winback of" in output and "Traceback" not in output
    assert world.mailbox.count() == 0
    assert all_of(world, messages.c.message_id) == all_of(world, approvals.c.approval_id) == []

    process = world.python(*SEND_WINBACK)
    assert answer(api, paused(api, process), approve=True, name="Ada") == "ACCEPT"
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    ((approved, by),) = all_of(world, approvals.c.plan_id, approvals.c.approved_by)
    assert (approved, by) == (plan_id + 1, "Ada")
    assert set(all_of(world, plans.c.plan_id, plans.c.status, plans.c.approved_by)) == {
        (plan_id, "draft", None),
        (approved, "applied", "Ada"),
    }
    assert world.mailbox.count() == all_of(world, messages.c.state).count(("accepted",)) > 0


def test_the_main_job_goes_on_without_what_waits(world: World) -> None:
    code, output = world.flow("daily")
    assert code == 0, output
    assert world.mailbox.count() == 0
    ((plan_id, campaign),) = all_of(world, plans.c.plan_id, plans.c.campaign)
    assert campaign == "winback", "the other one is not due"
    told = str(dict(all_of(world, runs.c.flow, runs.c.summary))["run-campaign"])
    assert f"tern apply {plan_id} --approve NAME, or run run-campaign and fill in its form" in told
    (report,) = (world.folder / "data" / "reports").glob("daily-*.html")
    assert "winback waits for an approval" in report.read_text()


def test_without_a_server_nobody_can_be_asked() -> None:
    plan = Plan(
        plan_id=7,
        campaign="winback",
        occurrence="2026-11-22",
        as_of=datetime(2026, 11, 22, tzinfo=UTC),
        hash="f" * 64,
        audience=1,
        counts={"selected": 1},
        definition_hash="",
        content_hash=None,
        summary={"needs_approval": ["it is much"]},
    )
    with pytest.raises(PlanError) as refused:
        wait_for_approval(plan)
    assert str(refused.value) == (
        "plan 7, winback of 2026-11-22, needs an approval, and no Prefect server is there to ask at: it is much; "
        "to send it all the same: tern apply 7 --approve NAME"
    )


def test_what_is_due_in_the_zone_of_the_campaigns(changed: Callable[..., Config]) -> None:
    vip, winback = changed().campaigns_file.model_dump()["campaigns"]
    config = changed(campaigns_file={"campaigns": [winback, vip | {"schedule": {"dates": ["2026-11-23"]}}]})
    late = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)
    assert [each.name for each in due(config, late)] == ["vip_thanks", "winback"], "it is the 23rd in Paris"
    assert [each.name for each in due(config, late.replace(hour=22))] == ["winback"]
