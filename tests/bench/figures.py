"""What was measured, and the table that shows it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rich import box
from rich.table import Table


@dataclass
class Figure:
    """`cpu_seconds` are this process's, where they were asked for."""

    what: str
    rows: int = 0
    seconds: float = 0.0
    cpu_seconds: float | None = None


Comparison = list[Figure]
"""Tern's figure first, then the baselines, or parts of Tern's own time."""


@contextmanager
def timed(what: str, rows: int = 0, *, cpu: bool = False) -> Iterator[Figure]:
    """`rows` may be set inside, where they are known only then."""
    figure = Figure(what, rows)
    began, cpu_began = time.perf_counter(), time.process_time()
    yield figure
    figure.seconds = time.perf_counter() - began
    if cpu:
        figure.cpu_seconds = time.process_time() - cpu_began


def topic_table(title: str, measured: Mapping[str, list[Comparison]]) -> Table:
    """One row per figure, database by database; the last columns divide Tern's seconds by that row's."""
    comparisons = [(name, comparison) for name, found in measured.items() for comparison in found]
    with_cpu = any(figure.cpu_seconds is not None for _, comparison in comparisons for figure in comparison)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("database")
    table.add_column("what", ratio=1)
    for heading in ("rows", "seconds", "rows/s", "Tern ÷ this", *(["CPU ms/row"] if with_cpu else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, comparison in comparisons:
        for place, figure in enumerate(comparison):
            style = "bold" if place == 0 else None
            table.add_row(name, *_cells(figure, comparison[0], with_cpu), style=style)
        table.add_section()
    return table


def _cells(figure: Figure, subject: Figure, with_cpu: bool) -> list[str]:
    cells = [
        figure.what,
        f"{figure.rows:,}",
        f"{figure.seconds:,.2f}",
        f"{figure.rows / figure.seconds:,.0f}",
        "1" if figure is subject else f"{subject.seconds / figure.seconds:.3g}",
    ]
    if with_cpu:
        cpu = figure.cpu_seconds
        cells.append("" if cpu is None else f"{1000 * cpu / figure.rows:.2f}")
    return cells
