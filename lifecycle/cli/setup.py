"""`tern init`, `tern check`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from lifecycle.cli.common import console
from lifecycle.customers.handles import fill_hashes
from lifecycle.db.engine import migrate, open_database, writing
from lifecycle.errors import ConfigError
from lifecycle.ledger.secret import check_secret
from lifecycle.messages.notes import check_notes
from lifecycle.messages.templates import check_templates
from lifecycle.segments.definitions import define
from lifecycle.settings import load_config, load_environment


def init(
    database_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Default: TERN_DATABASE_URL, or sqlite:///data/tern.db.")
    ] = None,
) -> None:
    """Create the database, or migrate it to this version.

    Example: `tern init --database-url postgresql://tern@db.internal/tern`
    """
    env = {**os.environ, "TERN_DATABASE_URL": database_url} if database_url else os.environ
    environment = load_environment(env)
    before, after = migrate(environment.database_url)
    with writing(open_database(environment.database_url)) as connection:
        check_secret(connection, environment.secret)
        fill_hashes(connection, environment.secret)
    if before is None:
        console.print(f"Created the database at revision {after}.")
    elif before == after:
        console.print(f"The database is at revision {after} already; nothing to do.")
    else:
        console.print(f"Migrated the database from revision {before} to {after}.")


def check() -> None:
    """Validate all of config/ and templates/, and name every problem with file, field and remedy.

    Example: `tern check`
    """
    environment = load_environment()
    config = load_config(environment.config_dir)
    define(config)
    problems = [
        *check_templates(config, environment.templates_dir),
        *check_notes(config, environment.templates_dir),
    ]
    if problems:
        raise ConfigError("\n".join(problems))
    console.print(
        f"config/ and templates/ are sound: {len(config.shops)} shops, {len(config.segment_names)} segments, "
        f"{len(config.caps_file.caps)} caps, {len(config.campaigns)} campaigns, {len(config.channels)} channels."
    )


def register(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(check)
