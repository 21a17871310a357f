"""The kill harness for longer: `make chaos`, or `python -m tests.ledger.chaos --kills 1000 --database-url URL`.

Without an address of a PostgreSQL it runs on SQLite in a temporary folder. Exit code 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from lifecycle.clock import utc_now
from lifecycle.db.engine import migrate, open_database
from lifecycle.ledger.audit import audit
from lifecycle.settings import ROOT, Environment, load_config
from sandbox.mailbox import MailboxServer
from tests.ledger.conftest import without_hold_out
from tests.ledger.people import SECRET, numbered
from tests.ledger.storm import Colony, Weather, compare, rage
from tests.ledger.test_killing import AT_ONCE, reserved


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.ledger.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--database-url", help="of an empty PostgreSQL database")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tern-chaos-") as folder:
        return _storm(options, Path(folder))


def _storm(options: argparse.Namespace, folder: Path) -> int:
    url = options.database_url or f"sqlite:///{folder / 'tern.db'}"
    migrate(url)
    engine = open_database(url)
    config = without_hold_out(load_config(ROOT / "config", env={"TERN_QUIET_HOURS": "none"}))
    environment = Environment(ROOT / "config", ROOT / "templates", folder, url, SECRET)
    addresses = [*numbered(options.messages), *numbered(50, "gone.person")]
    reserved(engine, config, environment, addresses, "fr")
    weather, began = Weather(options.seed, faults=0.02, deaths=0.2), time.monotonic()
    with MailboxServer(folder / "mailbox", fault=weather) as server:
        colony = Colony(url, f"127.0.0.1:{server.port}", folder)
        rage(colony, weather, kills=options.kills, at_once=AT_ONCE, seconds=3 * options.kills)
        while colony.living():
            time.sleep(0.1)
        for _ in range(3):
            colony.fork()
            colony.wait_for_all(600)
        colony.close()
        found = compare(engine, server.mailbox)
    broken = [each.sentence for each in audit(engine, data_dir=folder, now=utc_now()) if not each.passed]
    print(f"{colony.killed} kills of {colony.begun} processes in {time.monotonic() - began:.0f} s")
    print(
        f"faults: {dict(weather.seen)}\nledger: {dict(found.states)}, {found.arrived.total()} mails at the server"
    )
    for problem in (*found.problems, *broken):
        print(problem, file=sys.stderr)
    return 1 if found.problems or broken else 0


if __name__ == "__main__":
    sys.exit(main())
