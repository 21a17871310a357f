"""Whole runs, each flow in a process of its own, against real stand-ins and a real Prefect server."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from datetime import UTC, datetime, timedelta

import httpx
from sqlalchemy import func, select

from lifecycle.db.engine import reading
from lifecycle.db.schema import messages, plans, runs, segment_runs
from lifecycle.ledger.audit import audit
from lifecycle.processes import free_port
from tests.world import World


def states(world: World) -> dict[str, int]:
    with reading(world.place.engine) as connection:
        return dict(
            connection.execute(select(messages.c.state, func.count()).group_by(messages.c.state)).tuples().all()
        )


def summary(world: World, flow: str) -> list[dict[str, object]]:
    """Summaries of the runs of a flow, oldest first."""
    query = select(runs.c.summary).where(runs.c.flow == flow).order_by(runs.c.started_at)
    with reading(world.place.engine) as connection:
        return list(connection.execute(query).scalars())


def sound(world: World) -> bool:
    place = world.place
    findings = audit(place.engine, data_dir=place.environment.data_dir, now=datetime.now(UTC))
    assert findings
    return all(finding.passed for finding in findings)


def test_the_main_job_and_the_main_job_again(world: World) -> None:
    code, output = world.flow("daily")
    assert code == 0, output
    first = world.send_ids()
    assert 20 < len(first) == len(set(first)) == states(world)["accepted"]
    (report,) = (world.folder / "data" / "reports").glob("daily-*.html")
    assert "winback" in report.read_text()
    assert sound(world)

    code, output = world.flow("daily")
    assert code == 0, output
    assert world.send_ids() == first
    pulled = [
        counts for run in summary(world, "pull-shop")[2:] for counts in run.values() if isinstance(counts, dict)
    ]
    assert len(pulled) == 4
    assert all(counts["new"] == counts["changed"] == 0 for counts in pulled)
    assert sound(world)


def test_a_killed_run_is_finished_by_the_next_one(sqlite_world: World) -> None:
    """The process of the flow, with Prefect and all its threads, dies in the middle of sending."""
    world = sqlite_world
    for flow in ("pull-shop",):
        for shop in ("atlas", "harbour"):
            assert world.flow(flow, shop=shop)[0] == 0
    assert world.flow("build-segments")[0] == 0
    process = world.python(
        "-m", "flows", "run-campaign", "--param", "campaign=winback", "--param", "dry_run=false"
    )
    enough, deadline = random.Random(5).randint(3, 15), time.monotonic() + 120
    while world.mailbox.count() < enough:
        assert process.poll() is None and time.monotonic() < deadline, "nothing was sent"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert "reserved" in states(world), "it was killed too late to prove anything"

    code, output = world.flow("run-campaign", campaign="winback", dry_run="false")
    assert code == 0, output
    ids, found = world.send_ids(), states(world)
    assert len(ids) == len(set(ids))
    assert set(found) <= {"accepted", "unknown", "refused"}
    assert found.get("unknown", 0) <= 2, "one message per sending thread can be in doubt"
    assert sum(found.values()) == _selected(world)
    assert sound(world)


def _selected(world: World) -> int:
    with reading(world.place.engine) as connection:
        (plan_id,) = connection.execute(select(plans.c.plan_id).where(plans.c.status == "applied")).scalars()
        return connection.execute(select(func.count()).where(messages.c.plan_id == plan_id)).scalar_one()


def test_a_shop_that_does_not_answer_stops_the_campaigns_but_not_the_other_shop(sqlite_world: World) -> None:
    world = sqlite_world
    world.extra["TERN_ATLAS_URL"] = f"http://127.0.0.1:{free_port()}"
    world.extra["TERN_CONFIG"] = _impatient(world)
    code, output = world.flow("daily")
    assert code == 1
    assert "shop atlas: http://127.0.0.1:" in output and "does not answer" in output
    assert "Traceback" not in output
    assert world.mailbox.count() == 0
    (daily,) = summary(world, "daily")
    assert daily["failures"]
    assert "No campaign ran, because the data is not of today." in str(daily["sentences"])
    with reading(world.place.engine) as connection:
        assert connection.execute(select(segment_runs.c.customers)).scalar_one() > 0, "harbour was pulled"


def _impatient(world: World) -> str:
    """The project's configuration, but a shop that is down is asked only twice."""
    folder = world.folder / "config"
    folder.mkdir()
    for path in world.place.environment.config_dir.glob("*.yaml"):
        patient, hasty = "max_attempts: 5", "max_attempts: 1, busy_wait_seconds: [1]"
        (folder / path.name).write_text(path.read_text().replace(patient, hasty))
    return str(folder)


def test_a_wrong_token_names_the_variable_and_never_the_token(sqlite_world: World) -> None:
    world = sqlite_world
    world.extra["TERN_HARBOUR_TOKEN"] = "ck_wrong:cs_verysecret"
    code, output = world.flow("pull-shop", shop="harbour")
    assert code == 1
    assert "TERN_HARBOUR_TOKEN" in output
    assert "verysecret" not in output and "Traceback" not in output


def test_wrong_calls_end_before_prefect_starts(sqlite_world: World) -> None:
    world = sqlite_world
    for arguments, told in (
        (["daly"], 'there is no flow "daly"; did you mean "daily"?'),
        (["daily", "--param", "dryrun=1"], 'daily has no parameter "dryrun"; did you mean "dry_run"?'),
        (["run-campaign", "--param", "campaign"], "must be NAME=VALUE"),
    ):
        process = world.python("-m", "flows", *arguments)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 2
        assert told in output and "Traceback" not in output


def test_a_dry_run_and_a_look_back_send_nothing(sqlite_world: World) -> None:
    world = sqlite_world
    world.prepare()
    assert world.flow("run-campaign", campaign="winback")[0] == 0
    past = (datetime.now(UTC) - timedelta(days=40)).isoformat()
    code, output = world.flow("run-campaign", campaign="winback", as_of=past, dry_run="false")
    assert code == 1 and "is in the past; only a dry run may look back" in output
    assert world.mailbox.count() == 0
    assert states(world) == {}


def test_deployed_to_a_fresh_server_and_run_by_a_worker_elsewhere(sqlite_world: World) -> None:
    """`prefect deploy --all` asks nothing, scheduled runs appear, a worker in another folder runs `daily`."""
    world = sqlite_world
    api = world.extra["PREFECT_API_URL"]
    for command in (["work-pool", "create", "tern", "--type", "process", "--overwrite"], ["deploy", "--all"]):
        process = world.python("-m", "prefect", *command)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    worker = world.python("-m", "prefect", "worker", "start", "--pool", "tern", cwd=world.folder)
    try:
        deployment = httpx.get(f"{api}/deployments/name/daily/daily").json()
        started = httpx.post(f"{api}/deployments/{deployment['id']}/create_flow_run", json={}).json()
        assert _final_state(api, started["id"]) == "COMPLETED", _logs(api, started["id"])
    finally:
        worker.terminate()
        worker.communicate(timeout=30)
    assert world.mailbox.count() == states(world)["accepted"] > 20
    assert _scheduled(api) > 10, "the server's scheduler makes no runs: see prefect and sqlalchemy versions"


def _final_state(api: str, flow_run: str) -> str:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        state = httpx.get(f"{api}/flow_runs/{flow_run}").json()["state"]["type"]
        if state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return str(state)
        time.sleep(0.5)
    return "still running"


def _logs(api: str, flow_run: str) -> str:
    found = httpx.post(f"{api}/logs/filter", json={"logs": {"flow_run_id": {"any_": [flow_run]}}}).json()
    return json.dumps([entry["message"] for entry in found], indent=1)


def _scheduled(api: str) -> int:
    """Scheduled runs, once the server's scheduler has come round (it does so every minute)."""
    wanted = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    deadline = time.monotonic() + 90
    while (count := int(httpx.post(f"{api}/flow_runs/count", json=wanted).json())) == 0:
        if time.monotonic() > deadline:
            break
        time.sleep(1)
    return count
