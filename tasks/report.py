"""Write a run's report: files for people, artifacts for the Prefect UI."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from lifecycle.clock import utc_now
from lifecycle.reports.files import write_report
from lifecycle.reports.render import summary_rows, to_markdown
from lifecycle.reports.run_report import build_report
from tasks.place import workplace


@task(name="report", task_run_name="report of {run_id}", cache_policy=NO_CACHE)
def report(run_id: str) -> Path:
    """Returns the HTML file."""
    place = workplace()
    built = build_report(place.engine, place.config, run_id=run_id, as_of=utc_now())
    path = write_report(built, place.environment.reports_dir)
    create_markdown_artifact(key="run-report", markdown=to_markdown(built), description=run_id)
    create_table_artifact(key="run-summary", table=summary_rows(built), description=run_id)
    create_link_artifact(key="run-report-file", link=path.as_uri(), link_text=f"Report of {run_id} (HTML)")
    return path
