"""Options and ways of printing that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lifecycle.clock import parse_instant

console = Console(highlight=False, soft_wrap=True)
notes = Console(stderr=True, highlight=False, soft_wrap=True)


def instant_option(value: str) -> datetime:
    try:
        return parse_instant(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


AsOf = Annotated[
    datetime | None,
    typer.Option(
        parser=instant_option, metavar="INSTANT", help="Look at the world as of this instant; default: now."
    ),
]
Since = Annotated[
    datetime | None,
    typer.Option(parser=instant_option, metavar="INSTANT", help="Changed from here on (included)."),
]
Until = Annotated[
    datetime | None, typer.Option(parser=instant_option, metavar="INSTANT", help="Changed before (not included).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def print_json(value: Any) -> None:
    json.dump(value, sys.stdout, ensure_ascii=False, indent=2, default=str)
    sys.stdout.write("\n")


def print_table(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> None:
    """Numbers to the right with thousands separated, everything else to the left."""
    if not rows:
        return
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for name in rows[0]:
        number = all(isinstance(row[name], int | float) for row in rows)
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table)


def print_across(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> None:
    """The same with a column for each row: few rows of many values fit a terminal that way."""
    if not rows:
        return
    first, *names = rows[0]
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    table.add_column("")
    for row in rows:
        table.add_column(str(row[first]), justify="right")
    for name in names:
        table.add_row(name, *(_cell(row[name]) for row in rows))
    console.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    return f"{value:,}" if isinstance(value, int | float) else str(value)
