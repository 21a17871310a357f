"""Reports on disk: one HTML file for people, beside it Markdown and CSV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lifecycle.errors import UsageError
from lifecycle.reports.records import RunReport
from lifecycle.reports.render import to_csv, to_html, to_markdown

_FORMS: dict[str, Callable[[RunReport], str]] = {".html": to_html, ".md": to_markdown, ".csv": to_csv}


def write_report(report: RunReport, folder: Path) -> Path:
    """`<folder>/<run id>.html`, `.md` and `.csv`. Returns the HTML file."""
    for suffix in _FORMS:
        write_as(report, folder / f"{report.run_id}{suffix}")
    return folder / f"{report.run_id}.html"


def write_as(report: RunReport, path: Path) -> None:
    """In the form that the file's name asks for. Raises UsageError for another one, or an unusable place."""
    form = _FORMS.get(path.suffix.lower())
    if form is None:
        raise UsageError(f'{path}: a report is written as .html, .md or .csv, not as "{path.suffix}"')
    write_text(path, form(report))


def write_text(path: Path, text: str) -> None:
    """The file whole, with its folder. Raises UsageError for an unusable place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"{path}: the report cannot be written: {error.strerror}") from None
