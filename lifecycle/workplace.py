"""What every stage is handed: the environment, the configuration and an open, migrated database."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from lifecycle.db.engine import open_database
from lifecycle.settings import Config, Environment, load_config, load_environment


@dataclass(frozen=True)
class Workplace:
    environment: Environment
    config: Config
    engine: Engine


def open_workplace(env: Mapping[str, str] = os.environ) -> Workplace:
    """Raises ConfigError for wrong settings and NotReady for a database that is not migrated."""
    environment = load_environment(env)
    config = load_config(environment.config_dir, env)
    return Workplace(environment, config, open_database(environment.database_url))
