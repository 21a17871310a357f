"""Rows as tables of plain text: Markdown and CSV."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any


def markdown_text(text: str) -> str:
    """As text: nothing in it is markup."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def markdown_table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Lines; the first column to the left, the others, numbers, to the right."""
    if not rows:
        return ["Nothing."]
    names = list(rows[0])
    cells = [names, ["---", *("---:" for _ in names[1:])]]
    cells += [[markdown_text(row[name]) for name in names] for row in rows]
    return [f"| {' | '.join(line)} |" for line in cells]


def csv_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The first row's keys are the head; None is empty, an instant ISO text ending in Z."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    if rows:
        table.writerow(rows[0])
    for row in rows:
        table.writerow(_cell(value) for value in row.values())
    return out.getvalue()


def csv_text(text: str) -> str:
    """A spreadsheet takes what begins so for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6f}"
    return csv_text(value) if isinstance(value, str) else value
