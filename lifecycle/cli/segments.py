"""`tern segment`, `tern segments …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lifecycle.cli.common import AsJson, AsOf, console, instant_option, print_json, print_table
from lifecycle.clock import utc_now
from lifecycle.db.engine import reading
from lifecycle.db.runs import booked
from lifecycle.reports import segments_render as render
from lifecycle.reports.files import write_text
from lifecycle.reports.segments_look import segments_look
from lifecycle.segments import build, export, movement
from lifecycle.segments.definitions import define
from lifecycle.segments.prediction.columns import predictor
from lifecycle.segments.snapshot import take_snapshot
from lifecycle.wholefile import whole_file
from lifecycle.workplace import open_workplace

Recipe = Annotated[
    str | None, typer.Option("--recipe", metavar="NAME", help="Of config/segments.yaml; default: the chosen one.")
]
Since = Annotated[
    str | None,
    typer.Option(
        parser=instant_option, metavar="INSTANT", help="Compare with the build at or before this instant."
    ),
]


def segment(
    as_of: AsOf = None,
    recipe: Recipe = None,
    full: Annotated[bool, typer.Option("--full", help="Look at everybody, whatever has changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build all segments as of an instant: who changed since the last build, or everybody.

    With --recipe another recipe's sizes are shown and nothing is stored: campaigns keep the chosen one.

    Example: `tern segment --as-of 2026-11-22T06:00:00Z`
    """
    place, moment = open_workplace(), as_of or utc_now()
    if recipe is not None and recipe != place.config.segments_file.recipe:
        config = place.config.with_recipe(recipe)
        definitions = define(config)
        with reading(place.engine) as connection:
            found = take_snapshot(connection, definitions, moment, predict=predictor(config))
        counts = found.counts(definitions)
        customers = len(found.columns["customer_id"])
        looked = [{"segment": name, "members": count} for name, count in counts.items()]
        if as_json:
            return print_json({"as_of": moment.isoformat(), "customers": customers, "segments": looked})
        console.print(
            f"{customers:,} customers by the recipe {recipe} as of {moment:%Y-%m-%d %H:%M} UTC; not stored."
        )
        return print_table(looked)
    with booked(place.engine, "segment", as_of=moment) as run:
        built = build.build(place.engine, place.config, as_of=moment, now=utc_now(), run_id=run.run_id, full=full)
        run.say(built.sentence())
    rows = built.rows()
    if as_json:
        return print_json({"as_of": moment.isoformat(), "customers": built.customers, "segments": rows})
    console.print(built.sentence())
    return print_table(rows)


segments = typer.Typer(help="Look at segments.", no_args_is_help=True)


@segments.command("export")
def export_members(
    out: Annotated[Path, typer.Option(help="File to write: .csv, .parquet or .xlsx.")],
    as_of: AsOf = None,
    landed_by: Annotated[
        str | None,
        typer.Option(
            parser=instant_option, metavar="INSTANT", help="Only orders that had been landed here by then."
        ),
    ] = None,
    recipe: Recipe = None,
    all_metrics: Annotated[bool, typer.Option("--all-metrics", help="Every other metric as well.")] = False,
) -> None:
    """Export every customer with metrics, scores and segments as of an instant, past or present.

    Example: `tern segments export --as-of 2026-03-31 --out members.csv`
    """
    export.check_ending(out)
    place = open_workplace()
    config = place.config.with_recipe(recipe)
    frame = export.export(
        place.engine,
        config,
        as_of=as_of or utc_now(),
        landed_by=landed_by,  # type: ignore[arg-type]
        all_metrics=all_metrics,
        predict=predictor(config),
    )
    export.write_export(frame, out)
    console.print(f"Wrote {len(frame):,} customers to {out}.")


@segments.command()
def show(
    as_of: AsOf = None,
    since: Since = None,
    out: Annotated[
        Path | None, typer.Option(help="Write to this .html, .md or .csv file; default: print a table.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sizes, change since the last build, who moved where, the RFM grid and how recency and frequency are spread.

    Example: `tern segments show --since 2026-10-01 --out segments.html`
    """
    form = None if out is None else render.form_of(out)
    place = open_workplace()
    look = segments_look(place.engine, place.config, as_of=as_of or utc_now(), since=since)  # type: ignore[arg-type]
    if out is not None and form is not None:
        write_text(out, form(look))
        console.print(f"Wrote the segments as of {look.build.as_of:%Y-%m-%d %H:%M} UTC to {out}.")
    elif as_json:
        print_json(render.tables(look))
    else:
        console.print(render.headline(look))
        print_table(render.summary_rows(look))


@segments.command()
def moves(
    as_of: AsOf = None,
    since: Since = None,
    segment: Annotated[str | None, typer.Option(help="Only this segment.")] = None,
    out: Annotated[Path | None, typer.Option(help="Every customer who moved, with the values, as .csv.")] = None,
    as_json: AsJson = False,
) -> None:
    """Who entered and who left between two builds, and why: which metric crossed what.

    Example: `tern segments moves --segment dormant --out moves.csv`
    """
    place = open_workplace()
    found = movement.moves(
        place.engine,
        place.config,
        as_of=as_of or utc_now(),
        since=since,  # type: ignore[arg-type]
        segment=segment,
    )
    rows = movement.reasons(found)
    if out is not None:
        with whole_file(out) as file:
            found.to_csv(file, index=False)
        console.print(f"Wrote {found['customer_id'].nunique():,} customers who moved to {out}.")
    elif as_json:
        print_json(rows)
    elif rows:
        print_table(rows)
    else:
        console.print("Nobody entered or left a segment.")


@segments.command()
def predict(
    as_of: AsOf = None,
    days: Annotated[int, typer.Option(min=1, max=730, help="How far ahead.")] = 90,
    as_json: AsJson = False,
) -> None:
    """Fit how often customers order and what they spend, and predict it for each of them.

    Example: `tern segments predict --days 90`
    """
    from lifecycle.segments.prediction.store import fit_and_store  # scipy: half a second

    place, moment = open_workplace(), as_of or utc_now()
    with booked(place.engine, "predict", as_of=moment, parameters={"days": days}) as run:
        done = fit_and_store(
            place.engine, place.config, as_of=moment, now=utc_now(), horizon_days=days, run_id=run.run_id
        )
        run.say(done.sentence())
    if as_json:
        return print_json({"as_of": moment.isoformat(), "sentence": done.sentence(), **done.fitted.parameters()})
    console.print(done.sentence())
    return None


def register(app: typer.Typer) -> None:
    app.command()(segment)
    app.add_typer(segments, name="segments")
