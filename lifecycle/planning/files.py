"""Plans as files: every verdict in JSON lines or CSV, under a head with the hash that they must have.

JSON lines carry the head as their first line; a CSV has it beside it, in `<name>.csv.json`. No address is in them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from lifecycle.clock import parse_instant
from lifecycle.db.engine import reading
from lifecycle.errors import InputError, PlanError, UsageError
from lifecycle.planning.plan import load_plan, plan_hash, planned_verdicts
from lifecycle.planning.records import Plan, Verdict
from lifecycle.planning.verdicts import COLUMNS
from lifecycle.wholefile import whole_file


def write_plan(engine: Engine, plan_id: int, path: Path) -> None:
    """Raises UsageError for an unknown plan, a name that ends in neither .jsonl nor .csv, a missing folder."""
    check_ending(path)
    plan = load_plan(engine, plan_id)
    head = json.dumps(plan.as_dict(), ensure_ascii=False)
    with reading(engine) as connection, whole_file(path) as file:
        text = TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        rows = (_fields(verdict) for verdict in planned_verdicts(connection, plan_id))
        if path.suffix == ".jsonl":
            text.writelines([head + "\n"])
            text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            table = csv.DictWriter(text, COLUMNS)
            table.writeheader()
            table.writerows(rows)
        text.detach()
    if path.suffix == ".csv":
        with whole_file(_head_of(path)) as file:
            file.write(head.encode())


def read_plan(engine: Engine, path: Path) -> int:
    """The plan's number, once the file is shown to hold exactly what the database has planned.

    Raises InputError for what is no plan file, PlanError where it was changed or is of another database.
    """
    check_ending(path)
    try:
        plan, rows = _read_jsonl(path) if path.suffix == ".jsonl" else _read_csv(path)
        found = plan_hash(plan, (_verdict(row) for row in rows))
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: the file is missing; write it with: tern plan --out") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not a plan as `tern plan --out` writes it") from None
    if found != plan.hash:
        raise PlanError(f"{path}: the file was changed after it was written; write it again with: tern plan --out")
    if load_plan(engine, plan.plan_id).hash != found:
        raise PlanError(f"{path}: plan {plan.plan_id} of this database is another one; plan again")
    return plan.plan_id


def check_ending(path: Path) -> None:
    if path.suffix not in (".jsonl", ".csv"):
        raise UsageError(f"{path.name}: a plan's file name ends in .jsonl or .csv")


def _head_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _fields(verdict: Verdict) -> dict[str, Any]:
    row = {name: getattr(verdict, name) for name in COLUMNS}
    return row | {"frees_at": verdict.frees_at.isoformat() if verdict.frees_at else None}


def _verdict(row: Mapping[str, Any]) -> Verdict:
    """From JSON, or from CSV, where nothing is an empty text and a number is a text."""
    message_id, frees_at = row["blocking_message_id"], row["frees_at"]
    return Verdict(
        customer_id=int(row["customer_id"]),
        verdict=row["verdict"],
        rule=row["rule"] or None,
        blocking_message_id=int(message_id) if message_id else None,
        frees_at=parse_instant(frees_at) if frees_at else None,
        lost_to=row["lost_to"] or None,
        segment=row["segment"],
        shop=row["shop"] or None,
        locale=row["locale"] or None,
    )


def _read_jsonl(path: Path) -> tuple[Plan, Iterator[Mapping[str, Any]]]:
    lines = _lines(path)
    head = next(lines, "")
    return _plan(head), map(json.loads, lines)


def _read_csv(path: Path) -> tuple[Plan, Iterator[Mapping[str, Any]]]:
    return _plan(_head_of(path).read_text(encoding="utf-8")), csv.DictReader(_lines(path))


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from file


def _plan(head: str) -> Plan:
    values = json.loads(head)
    return Plan(**values | {"as_of": datetime.fromisoformat(values["as_of"])})
