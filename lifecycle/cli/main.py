"""The command `tern`. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."""

from __future__ import annotations

import os
import sys

import typer

from lifecycle.cli import bounces, campaigns, data, flows, segments, sending, setup, simulate, suppressions, up
from lifecycle.errors import TernError

app = typer.Typer(
    name="tern",
    help="Brings a cross-border shop's customers back: pull, check, segment, plan, send, track, report.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
for room in (setup, data, segments, campaigns, sending, bounces, suppressions, simulate, flows, up):
    room.register(app)


def run() -> None:
    """Entry point: errors that are meant for people end as one sentence on stderr."""
    try:
        app()
    except TernError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `tern … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    run()
