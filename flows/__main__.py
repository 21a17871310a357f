"""`python -m flows FLOW [--param name=value …]`: run one flow here, in this process."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lifecycle.errors import TernError, UsageError, suggest
from lifecycle.workplace import open_workplace

NAMES = {
    path.stem.replace("_", "-"): path.stem
    for path in sorted(Path(__file__).parent.glob("*.py"))
    if not path.stem.startswith("_")
}


QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
"""A temporary server of Prefect must not send anything out either."""


class WithoutTraceback(logging.Filter):
    """Errors that are meant for people arrive as their sentence, not with a stack of calls."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], TernError):
            record.exc_info = None
        return True


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m flows")
    parser.add_argument("flow")
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args(arguments)
    if given.flow not in NAMES:
        raise UsageError(f'there is no flow "{given.flow}"{suggest(given.flow, NAMES)}')
    parameters = dict(_parameter(text) for text in given.param)
    os.environ.update({**QUIET, **os.environ})
    open_workplace().engine.dispose()  # wrong settings are told before Prefect starts
    flow = _load(given.flow)
    _refuse_unknown(given.flow, parameters, set(inspect.signature(flow.fn).parameters))
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(WithoutTraceback())
    try:
        flow(**parameters)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(f"{given.flow}: {problems}") from None


def _load(name: str) -> Any:
    return getattr(importlib.import_module(f"flows.{NAMES[name]}"), NAMES[name])


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f'--param "{text}" must be NAME=VALUE, for example --param dry_run=true')
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _refuse_unknown(flow: str, parameters: dict[str, Any], known: set[str]) -> None:
    for name in parameters:
        if name not in known:
            raise UsageError(f'{flow} has no parameter "{name}"{suggest(name, known)}')


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except TernError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
