"""Processes that send what is open: `python -m tests.ledger.sending_process DATABASE_URL SMTP_HOST:PORT DATA`.

For each line on stdin a process is forked that sends until nothing is open; its number is printed, and `-NUMBER`
once it has ended in order. Forked, because a process that has to import everything first lives too long to be
killed often.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path

from lifecycle.clock import utc_now
from lifecycle.db.engine import open_database
from lifecycle.ledger.drain import open_batches
from lifecycle.ledger.recover import recover
from lifecycle.ledger.sending import send_batch, wire_dir
from lifecycle.settings import ROOT, Config, Environment, load_config
from lifecycle.workplace import Workplace
from tests.ledger.people import SECRET


def small_batches(server: str) -> Config:
    host, _, port = server.rpartition(":")
    wanted = {"TERN_SMTP_HOST": host, "TERN_SMTP_PORT": port, "TERN_SMTP_SECURITY": "none"}
    wanted |= {"TERN_TRACKING_URL": "https://t.example.net", "TERN_BOUNCE_DOMAIN": "bounce.example.net"}
    config = load_config(ROOT / "config", env={**wanted, "TERN_QUIET_HOURS": "none"})
    (channel,) = config.channels_file.model_dump(mode="json")["channels"]
    channel |= {"batch_size": 100, "retry_minutes": 0, "max_attempts": 30, "lease_seconds": 10}
    channel["smtp"]["timeout_seconds"] = 1
    file = {**config.channels_file.model_dump(mode="json"), "channels": [channel]}
    config = replace(config, channels_file=type(config.channels_file).model_validate(file))
    return config


def send(config: Config, database_url: str, data_dir: str) -> None:
    environment = Environment(ROOT / "config", ROOT / "templates", Path(data_dir), database_url, SECRET)
    place = Workplace(environment, config, open_database(database_url))
    recover(place.engine, place.config, now=utc_now(), wire_dir=wire_dir(place.environment))
    for batch in open_batches(place.engine, now=utc_now()):
        send_batch(place, batch)


def main(database_url: str, server: str, data_dir: str) -> None:
    config = small_batches(server)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are buried at once
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                send(config, database_url, data_dir)
            except BaseException:  # noqa: BLE001 (told, and the parent must hear of the end)
                traceback.print_exc()
            finally:
                sys.stdout.write(f"-{os.getpid()}\n")
                sys.stdout.flush()
                os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
