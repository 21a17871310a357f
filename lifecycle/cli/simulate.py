"""`tern simulate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lifecycle.cli.common import AsJson, console, notes, print_json, print_table
from lifecycle.clock import utc_now
from lifecycle.errors import UsageError
from lifecycle.planning.simulation.records import Simulation
from lifecycle.planning.simulation.replay import simulate as replay
from lifecycle.settings.loading import with_files
from lifecycle.wholefile import whole_file
from lifecycle.workplace import open_workplace


def _day(value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise typer.BadParameter(f'"{value}" is no day; write for example 2026-11-22') from None


def simulate(
    first: Annotated[date, typer.Option("--from", parser=_day, metavar="DAY", help="The first day.")],
    last: Annotated[date, typer.Option("--to", parser=_day, metavar="DAY", help="The last day, included.")],
    caps: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, metavar="FILE", help="In place of config/caps.yaml."),
    ] = None,
    campaigns: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="In place of config/campaigns.yaml: other calendars, priorities, audiences.",
        ),
    ] = None,
    segments: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="In place of config/segments.yaml; every day of the range is built again, in memory.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Write one row a person to this file, and verdicts day by day beside it to FILE-days.csv.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay past days under the configured rules, or under others beside them: who would have got what.

    Nothing is sent and nothing is stored. With another file the two sets of rules are compared, without one the
    configured rules with what was really sent. Campaigns of a day are judged at 09:00 in their time zone. Orders,
    consents and segments are those of the past, whatever is simulated; quiet hours are left out; what a message is
    worth is estimated as of the first day.

    Example: `tern simulate --from 2025-11-23 --to 2026-11-22 --caps stricter.yaml --out people.csv`
    """
    place = open_workplace()
    files = {"caps": caps, "campaigns": campaigns, "segments": segments}
    given = {kind: path for kind, path in files.items() if path is not None}
    other = with_files(place.config, given) if given else None
    with _opened(out) as written, _progress() as on_progress:
        found = replay(
            place.engine, place.config, first=first, last=last, now=utc_now(), other=other, on_progress=on_progress
        )
        for file, frame in zip(written, (found.people_frame, found.days_frame), strict=False):
            frame().to_csv(file, index=False)
    if as_json:
        return print_json(found.as_dict())
    _show(found)
    if out is not None:
        console.print(f"Wrote {len(found.customer_ids):,} people to {out} and their days to {_days_file(out)}.")
    return None


def _show(found: Simulation) -> None:
    console.print(found.sentence())
    print_table(found.campaign_rows(), title="Messages")
    print_table(found.refusal_rows(), title="Refused, persons and days")
    print_table(found.month_rows(), title="By month")
    print_table(found.segment_rows(), title="People, by segment on the last day")
    print_table(found.distribution_rows(), title="People, by messages each gets")
    print_table(found.slot_rows(), title="Slots of quotas")
    if found.days_without_build:
        console.print(
            f"Note: on {found.days_without_build:,} of {found.days:,} days the segments were older than a day; "
            f"run: tern backfill segments --from {found.first} --to {found.last}"
        )


@contextmanager
def _opened(out: Path | None) -> Iterator[list[IO[bytes]]]:
    """The files to write to, at once: not after minutes. Raises UsageError where they cannot be."""
    if out is not None and out.suffix != ".csv":
        raise UsageError(f'{out}: people are written as .csv, not as "{out.suffix}"')
    with ExitStack() as stack:
        yield [stack.enter_context(whole_file(path)) for path in ((out, _days_file(out)) if out else ())]


def _days_file(out: Path) -> Path:
    return out.with_name(f"{out.stem}-days.csv")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """On stderr, where it is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as progress:
        tasks: dict[str, Any] = {}

        def on_progress(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=of)
            progress.update(tasks[what], completed=done)

        yield on_progress


def register(app: typer.Typer) -> None:
    app.command()(simulate)
