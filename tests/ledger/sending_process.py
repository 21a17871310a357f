"""One process that sends what is open: `python -m tests.ledger.sending_process DATABASE_URL SMTP_PORT DATA`."""

from __future__ import annotations

import sys
from pathlib import Path

from lifecycle.channels import open_channel
from lifecycle.clock import utc_now
from lifecycle.db.engine import open_database
from lifecycle.ledger.drain import drain, open_batches
from lifecycle.ledger.recover import recover
from lifecycle.messages.compose import Composer
from lifecycle.settings import ROOT, Environment, load_config
from tests.ledger.people import SECRET


def main(database_url: str, port: str, data_dir: str) -> None:
    smtp = {"TERN_SMTP_HOST": "127.0.0.1", "TERN_SMTP_PORT": port, "TERN_SMTP_SECURITY": "none"}
    smtp["TERN_QUIET_HOURS"] = "none"
    config = load_config(ROOT / "config", env=smtp)
    environment = Environment(ROOT / "config", ROOT / "templates", Path(data_dir), database_url, SECRET)
    engine = open_database(database_url)
    settings = config.channels["email"]
    recover(engine, now=utc_now())
    with open_channel(settings, {}) as channel:
        for batch in open_batches(engine, now=utc_now()):
            composer = Composer(engine, config, environment, batch.plan_id)
            result = drain(
                engine,
                batch,
                compose=composer.compose,
                channel=channel,
                config=config,
                secret=SECRET,
                clock=utc_now,
            )
            print(result.sentence())


if __name__ == "__main__":
    main(*sys.argv[1:])
