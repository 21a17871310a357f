"""`tern bounces`."""

from __future__ import annotations

from typing import Annotated

import typer

from lifecycle.cli.common import console
from lifecycle.errors import UsageError
from lifecycle.tracking.feedback.desk import Desk
from lifecycle.tracking.feedback.lmtp import serve_lmtp
from lifecycle.workplace import open_workplace


def bounces(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: bounces.lmtp_host.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; default: bounces.lmtp_port.")] = None,
) -> None:
    """Take bounces, complaints and unsubscribes from the mail server by LMTP, until Ctrl-C.

    Example: `tern bounces --port 8024`
    """
    place = open_workplace()
    settings = place.config.channels_file.bounces
    wanted = port if port is not None else settings.lmtp_port
    if wanted is None:
        raise UsageError("no port to listen on: give --port, or set bounces.lmtp_port in config/channels.yaml")
    desk = Desk(place.engine, place.environment, place.config)
    address = host or settings.lmtp_host
    serve_lmtp(desk, address, wanted, started=lambda found: console.print(f"LMTP on {address}:{found}"))
    place.engine.dispose()


def register(app: typer.Typer) -> None:
    app.command()(bounces)
