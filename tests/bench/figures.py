"""What was measured, and the table that shows it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from rich import box
from rich.table import Table

T = TypeVar("T")


@dataclass
class Figure:
    """`seconds`: 0 where only CPU was measured. `cpu_seconds` are this process's, where they were asked for;
    `peak_mb` is of a process of its own, imports included, without the database's where that is another one."""

    what: str
    rows: int = 0
    seconds: float = 0.0
    cpu_seconds: float | None = None
    peak_mb: float | None = None


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


def apart(step: Callable[..., tuple[Figure, T]], *arguments: Any) -> tuple[Figure, T]:
    """What `step` measures, in a process of its own, so that the peak of its memory is its own too."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_with_peak, step, arguments).result()


def _with_peak(step: Callable[..., tuple[Figure, T]], arguments: tuple[Any, ...]) -> tuple[Figure, T]:
    warnings.simplefilter("ignore")  # of libraries, about each other
    figure, result = step(*arguments)
    figure.peak_mb = _peak_mb()
    return figure, result


def _peak_mb() -> float | None:
    """None where the kernel does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def topic_table(title: str, measured: Mapping[str, list[Comparison]], *, per_row: bool = False) -> Table:
    """One row per figure, database by database. `Tern ÷ this` divides Tern's seconds by that row's; `per_row`:
    seconds and CPU of one row, where the baselines had fewer to do."""
    comparisons = [(name, comparison) for name, found in measured.items() for comparison in found]
    optional = [
        heading
        for heading, told in _OPTIONAL.items()
        if any(told(figure) for _, comparison in comparisons for figure in comparison)
    ]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("database")
    table.add_column("what", ratio=1)
    for heading in ("rows", "seconds", "rows/s", "Tern ÷ this", *optional, *(["CPU ÷ this"] if per_row else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, comparison in comparisons:
        for place, figure in enumerate(comparison):
            style = "bold" if place == 0 else None
            table.add_row(name, *_cells(figure, comparison[0], optional, per_row), style=style)
        table.add_section()
    return table


def _cells(figure: Figure, subject: Figure, optional: Sequence[str], per_row: bool) -> list[str]:
    more = figure.rows / subject.rows if per_row else 1.0
    return [
        figure.what,
        f"{figure.rows:,}",
        f"{figure.seconds:,.2f}" if figure.seconds else "",
        f"{figure.rows / figure.seconds:,.0f}" if figure.seconds else "",
        _ratio(figure is subject, subject.seconds * more, figure.seconds),
        *(_OPTIONAL[heading](figure) for heading in optional),
        *([_ratio(figure is subject, (subject.cpu_seconds or 0) * more, figure.cpu_seconds)] if per_row else []),
    ]


def _ratio(same: bool, of: float, to: float | None) -> str:
    return "1" if same else f"{of / to:.3g}" if to else ""


def _cpu(figure: Figure) -> str:
    return "" if figure.cpu_seconds is None else f"{1000 * figure.cpu_seconds / figure.rows:.2f}"


def _peak(figure: Figure) -> str:
    return "" if figure.peak_mb is None else f"{figure.peak_mb:,.0f}"


_OPTIONAL: Mapping[str, Callable[[Figure], str]] = {"CPU ms/row": _cpu, "peak MB": _peak}
"""Columns that are there when a figure tells something in them."""
