"""`tern run`, `tern backfill`, `tern report`."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lifecycle.cli.common import console, print_across
from lifecycle.clock import utc_now
from lifecycle.db.runs import sending_runs
from lifecycle.errors import UsageError
from lifecycle.reports.files import write_as
from lifecycle.reports.render import summary_rows
from lifecycle.reports.run_report import build_report
from lifecycle.workplace import open_workplace


def _day(value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise typer.BadParameter(f'"{value}" is no day; write for example 2026-11-22') from None


def run_flow(
    flow: Annotated[str, typer.Argument(help="daily, pull-shop, build-segments, run-campaign, send-due …")],
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter; may be repeated.")
    ] = None,
) -> None:
    """Start a flow here and wait for its end.

    A process of its own: the commands themselves never load Prefect.

    Example: `tern run run-campaign --param campaign=winback --param dry_run=true`
    """
    parameters = [word for text in param or () for word in ("--param", text)]
    raise typer.Exit(subprocess.run([sys.executable, "-m", "flows", flow, *parameters], check=False).returncode)


class What(StrEnum):
    SEGMENTS = "segments"


def backfill(
    what: Annotated[What, typer.Argument(help="What to build again.")],
    first: Annotated[date, typer.Option("--from", parser=_day, metavar="DAY", help="The first day.")],
    last: Annotated[date, typer.Option("--to", parser=_day, metavar="DAY", help="The last day, included.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be built.")] = False,
) -> None:
    """Build every day of a range of the past, as a flow, with progress. Sends nothing.

    Killed and started again, it goes on where it stopped.

    Example: `tern backfill segments --from 2025-11-23 --to 2026-11-22`
    """
    run_flow(f"backfill-{what.value}", [f"first={first}", f"last={last}", f"dry_run={str(dry_run).lower()}"])


def report(
    run: Annotated[str, typer.Argument(help="The id of a run, or `latest`.")] = "latest",
    out: Annotated[
        Path | None, typer.Option(help="Write to this .html, .md or .csv file; default: print a table.")
    ] = None,
) -> None:
    """The report of a run, from the tables as they are now.

    Example: `tern report latest --out report.html`
    """
    place = open_workplace()
    run_id = next(iter(sending_runs(place.engine)), None) if run == "latest" else run
    if run_id is None:
        raise UsageError("there is no run to report yet; start one with: tern run daily")
    built = build_report(place.engine, place.config, run_id=run_id, as_of=utc_now())
    if out is not None:
        write_as(built, out)
        console.print(f"Wrote the report of {run_id} to {out}.")
        return
    print_across(summary_rows(built), title=run_id)


def register(app: typer.Typer) -> None:
    app.command("run")(run_flow)
    app.command()(backfill)
    app.command()(report)
