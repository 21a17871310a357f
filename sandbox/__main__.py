"""`python -m sandbox run [--input FILE]`: the main job against local stand-ins, from nothing to the report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lifecycle.errors import TernError
from sandbox.demo import run_demo


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="the whole main job, on sample data")
    run.add_argument("--input", type=Path, help="order lines: a file in the import format, or a folder of them")
    run.add_argument("--seed", type=int, default=7, help="of the shoppers' behaviour")
    given = parser.parse_args()
    try:
        run_demo(given.input, seed=given.seed)
    except TernError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
