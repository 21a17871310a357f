"""`tern pause`, `tern resume`, `tern cancel`, `tern lanes`."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy import select

from lifecycle.cli.common import AsJson, console, print_json, print_table
from lifecycle.clock import utc_now
from lifecycle.db.engine import reading, writing
from lifecycle.db.schema import breakers, lanes
from lifecycle.errors import UsageError
from lifecycle.ledger import breakers as breaking
from lifecycle.ledger import holds
from lifecycle.ledger import lanes as driving
from lifecycle.workplace import Workplace, open_workplace

Campaign = Annotated[str, typer.Argument(help="Name in config/campaigns.yaml.")]
By = Annotated[str, typer.Option(metavar="NAME", help="Who decides it.")]
Reason = Annotated[str, typer.Option(metavar="WHY", help="In a few words; people will read it.")]
OnChannel = Annotated[str | None, typer.Option("--channel", help="Only on this channel.")]
To = Annotated[str | None, typer.Option("--to", metavar="PROVIDER", help="Only to this mailbox provider.")]


def pause(campaign: Campaign, by: By, reason: Reason, channel: OnChannel = None, to: To = None) -> None:
    """Stop a campaign at once; what is on its way arrives, what is reserved waits, and expires as it would.

    Example: `tern pause winback --by Ada --reason "wrong prices"`
    """
    place = _known(campaign, channel)
    _named(by, reason)
    with writing(place.engine) as connection:
        holds.pause(connection, campaign, reason=reason, by=by, at=utc_now(), channel=channel, provider=to)
    console.print(f"{campaign} is paused. To go on: tern resume {campaign} --by NAME")


def resume(campaign: Campaign, by: By, channel: OnChannel = None, to: To = None) -> None:
    """End the pauses of a campaign, its breakers' too, which count from nothing then. `send-due` sends what waits.

    Example: `tern resume winback --by Ada --to google`
    """
    place = _known(campaign, channel)
    _named(by, "resumed")
    now = utc_now()
    with writing(place.engine) as connection:
        ended = holds.lift(connection, campaign, by=by, at=now, channel=channel, provider=to)
        breaking.forget(connection, campaign, channel, to)
        settings = place.config.campaign(campaign)
        for name in (channel,) if channel else (settings.channel, *settings.fallback):
            ended += driving.resume(connection, name, to, now)
    console.print(f"{ended:,} pauses of {campaign} ended.")


def cancel(campaign: Campaign, by: By, reason: Reason) -> None:
    """Take back every message of a campaign that has not begun to leave. Their slots are free again.

    Example: `tern cancel winback --by Ada --reason "wrong prices"`
    """
    place = _known(campaign, None)
    number = holds.cancel(place.engine, campaign, reason=reason, by=by, now=utc_now())
    console.print(f"{number:,} messages of {campaign} are cancelled and will not be sent.")


def show_lanes(as_json: AsJson = False) -> None:
    """What is paused, by whom and why; how each lane fares; what its breaker has counted.

    Example: `tern lanes`
    """
    place = open_workplace()
    with reading(place.engine) as connection:
        held = [dict(row) for row in connection.execute(holds.active()).mappings()]
        driven = [dict(row) for row in connection.execute(select(lanes)).mappings()]
        counted = [dict(row) for row in connection.execute(select(breakers)).mappings()]
    if as_json:
        return print_json({"holds": held, "lanes": driven, "breakers": counted})
    if not (held or driven or counted):
        console.print("Nothing is paused, and nothing was sent yet.")
    print_table(held, title="Campaigns on hold")
    print_table([_shown(row) for row in driven], title="Lanes")
    names = ("campaign", "channel", "mailbox_provider", "sent", "bounced", "complained")
    print_table([{name: row[name] for name in names} for row in counted], title="Counted by breakers")
    return None


def _shown(row: dict[str, object]) -> dict[str, object]:
    names = ("channel", "account", "mailbox_provider", "paused_until", "connections", "failures", "reason")
    return {name: row[name] for name in names}


def _known(campaign: str, channel: str | None) -> Workplace:
    place = open_workplace()
    place.config.campaign(campaign)
    if channel is not None:
        place.config.channel(channel)
    return place


def _named(by: str, reason: str) -> None:
    if not by.strip() or not reason.strip():
        raise UsageError("this is done by somebody with a name, who says why: --by NAME --reason WHY")


def register(app: typer.Typer) -> None:
    app.command()(pause)
    app.command()(resume)
    app.command()(cancel)
    app.command("lanes")(show_lanes)
