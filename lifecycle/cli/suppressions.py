"""`tern undo-suppressions`."""

from __future__ import annotations

from typing import Annotated

import typer

from lifecycle.cli.common import Since, Until, console
from lifecycle.clock import utc_now
from lifecycle.customers.suppression import undo
from lifecycle.db.engine import writing
from lifecycle.errors import UsageError
from lifecycle.workplace import open_workplace


def undo_suppressions(
    reason: Annotated[str, typer.Argument(help="hard_bounce, soft_bounce, manual, or unsubscribe.")],
    by: Annotated[str, typer.Option(metavar="NAME", help="Who decides it.")],
    note: Annotated[str, typer.Option(metavar="WHY", help="In a few words; it is kept.")],
    since: Since = None,
    until: Until = None,
    evidence: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only those whose evidence has this in it.")
    ] = None,
    channel: Annotated[str, typer.Option(help="Kind of channel.")] = "email",
    shop: Annotated[str | None, typer.Option(help="Only those of this shop.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
) -> None:
    """End suppressions of a time span that were wrong: a provider that refused everybody for an hour, say.

    A complaint is never undone, an unsubscribe only by its evidence.

    Example: `tern undo-suppressions hard_bounce --since 2026-11-24 --until 2026-11-25 --by Ada --note outage`
    """
    if since is None or until is None:
        raise UsageError("which ones? Name the time span: --since and --until")
    place = open_workplace()
    with writing(place.engine) as connection:
        found = undo(
            connection,
            reason=reason,
            since=since,
            until=until,
            evidence_like=evidence,
            shop=shop,
            channel=channel,
            lifted_by=by,
            note=note,
            at=utc_now(),
            dry_run=dry_run,
        )
    ended = "would be ended" if dry_run else "are ended"
    console.print(f"{found['suppressions']:,} suppressions of {found['addresses']:,} addresses {ended}.")


def register(app: typer.Typer) -> None:
    app.command("undo-suppressions")(undo_suppressions)
