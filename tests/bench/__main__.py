"""Every topic on every database that starts here; nothing is asserted about times.

python -m tests.bench [TOPIC …] [--share 0.01]
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from tests.bench import intake, plan, segments, send, simulation
from tests.bench.databases import Database, open_databases
from tests.bench.figures import Comparison, topic_table

Measure = Callable[[Database, float], list[Comparison]]

TOPICS: dict[str, tuple[str, Measure]] = {
    "intake": ("Intake: 20,000 orders with 80,000 lines (rows are lines)", intake.measure),
    "segments": ("Segments: 5,000,000 orders of 1,000,000 customers, 1,000,000 of 200,000", segments.measure),
    "plan": ("Plan and reserve: 100,000 candidates, 1,000,000 and 10,000,000 past messages", plan.measure),
    "simulation": ("Simulation: a year of days for 100,000 customers (rows: people × days)", simulation.measure),
    "send": (
        "Send: 10,000 mails with 8 KB of HTML to a server on this machine (the sender's CPU; ratios per mail)",
        send.measure,
    ),
    "plan-large": (
        "Plan and reserve: 1,000,000 candidates, 1,000,000 and 10,000,000 past messages",
        plan.measure_large,
    ),
    "segments-large": ("Segments: 10,000,000 orders of 2,000,000 customers", segments.measure_large),
    "send-large": (
        "Send: the sender's memory at 100,000 to 10,000 mails; --share 10: 1,000,000 (ratios per mail)",
        send.measure_large,
    ),
    "send-prefect": ("Send: 20,000 mails as a flow with a task per batch of 2,000", send.measure_prefect),
}
LARGE = ("plan-large", "simulation", "segments-large", "send-large", "send-prefect")
"""Only when named."""

PER_ROW = ("send", "send-large", "send-prefect")
"""Their ratios are per row, for some baselines are too slow for as many; and there is one of CPU."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=f"of {', '.join(TOPICS)}; all but the large")
    parser.add_argument("--share", type=float, default=1.0, help="of the rows in the titles, for a quick look")
    options = parser.parse_args(arguments)
    if unknown := set(options.topics) - set(TOPICS):
        parser.error(f"no such topic: {', '.join(sorted(unknown))}; known: {', '.join(TOPICS)}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tern-bench-") as folder, open_databases(Path(folder)) as databases:
        console.print(_machine(databases))
        for name in options.topics or [each for each in TOPICS if each not in LARGE]:
            title, measure = TOPICS[name]
            measured = {database.name: measure(database, options.share) for database in databases}
            console.print(topic_table(_scaled(title, options.share), measured, per_row=name in PER_ROW))
    console.print(f"{time.perf_counter() - began:.0f} s in all, filling the databases included.")
    return 0


def _machine(databases: Sequence[Database]) -> str:
    versions = [f"{os.cpu_count()} cores", f"Python {platform.python_version()}"]
    load = f"load {os.getloadavg()[0]:.1f} before it began" if hasattr(os, "getloadavg") else ""
    return ", ".join(filter(None, [*versions, *(database.version for database in databases), load]))


def _scaled(title: str, share: float) -> str:
    return title if share == 1 else f"{title}, {share:g} of them"


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of libraries, about each other
    sys.exit(main())
