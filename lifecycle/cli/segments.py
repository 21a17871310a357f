"""`tern segment`, `tern segments export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lifecycle.cli.common import AsJson, AsOf, console, print_json, print_table
from lifecycle.clock import utc_now
from lifecycle.db.runs import booked
from lifecycle.segments import build, export
from lifecycle.workplace import open_workplace


def segment(as_of: AsOf = None, as_json: AsJson = False) -> None:
    """Build all segments as of an instant.

    Example: `tern segment --as-of 2026-11-22T06:00:00Z`
    """
    place, moment = open_workplace(), as_of or utc_now()
    with booked(place.engine, "segment", as_of=moment) as run:
        built = build.build(place.engine, place.config, as_of=moment, now=utc_now(), run_id=run.run_id)
        run.say(built.sentence())
    rows = [
        {"segment": name, "members": count, "entered": built.entered[name], "left": built.left[name]}
        for name, count in built.counts.items()
    ]
    if as_json:
        return print_json({"as_of": moment.isoformat(), "customers": built.customers, "segments": rows})
    console.print(built.sentence())
    print_table(rows)
    return None


segments = typer.Typer(help="Look at segments.", no_args_is_help=True)


@segments.command("export")
def export_members(
    out: Annotated[Path, typer.Option(help="File to write: .csv, .parquet or .xlsx.")], as_of: AsOf = None
) -> None:
    """Export every customer with metrics, scores and segments as of an instant, past or present.

    Example: `tern segments export --as-of 2026-03-31 --out members.csv`
    """
    place = open_workplace()
    frame = export.export(place.engine, place.config, as_of=as_of or utc_now())
    export.write_export(frame, out)
    console.print(f"Wrote {len(frame):,} customers to {out}.")


def register(app: typer.Typer) -> None:
    app.command()(segment)
    app.add_typer(segments, name="segments")
