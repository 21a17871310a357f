"""Small pictures as inline SVG. Their numbers always stand beside them as text, so they are hidden from readers
of the screen. Widths are shares of the space there is: nothing overflows on a phone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from markupsafe import Markup

from lifecycle.reports.statistics import Rate


def bar(share: float, kind: str = "people") -> Markup:
    """One horizontal bar; `share` in [0, 1]. `kind`: a class of the style sheet."""
    return stack([(share, kind)])


def stack(parts: Iterable[tuple[float, str]]) -> Markup:
    """Parts of one whole, side by side."""
    drawn, start = '<rect class="track" width="100%" height="100%"/>', 0.0
    for share, kind in parts:
        if share > 0:
            drawn += f'<rect class="{kind}" x="{_percent(start)}" width="{_percent(share)}" height="100%"/>'
        start += share
    return _svg("bar", drawn)


def interval(rate: Rate, top: float) -> Markup:
    """A rate as a dot with its interval as a line, on an axis from 0 to `top`."""
    if rate.value is None or rate.low is None or rate.high is None or not top:
        return _svg("interval", "")
    low, value, high = (_percent(each / top) for each in (rate.low, rate.value, rate.high))
    return _svg(
        "interval",
        '<line class="axis" x1="0" x2="100%" y1="50%" y2="50%"/>'
        f'<line class="range" x1="{low}" x2="{high}" y1="50%" y2="50%"/>'
        f'<circle class="people" cx="{value}" cy="50%" r="4.5"/>',
    )


def span(start: float, length: float, kind: str = "people") -> Markup:
    """When something went on within a whole; both as shares of it. Never too short to be seen."""
    x, width = _percent(min(start, 0.995)), _percent(max(length, 0.005))
    return _svg(
        "bar",
        '<rect class="track" width="100%" height="100%"/>'
        f'<rect class="{kind}" x="{x}" width="{width}" height="100%"/>',
    )


def spark(points: Sequence[tuple[float, float | None]]) -> Markup:
    """A line through `points`, both as shares: from left to right, from bottom to top; None leaves a gap."""
    lines = ""
    for known, part in groupby(points, key=lambda point: point[1] is not None):
        if known:
            where = " ".join(f"{100 * x:.1f},{100 - 100 * (y or 0):.1f}" for x, y in part)
            lines += f'<polyline points="{where}"/>'
    drawn = f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{lines}</svg>'
    x, y = points[-1] if points else (0.0, None)
    if y is not None:
        drawn += f'<circle class="people" cx="{_percent(x)}" cy="{_percent(1 - y)}" r="2.5"/>'
    return _svg("spark", drawn)


def _svg(class_: str, drawn: str) -> Markup:
    return Markup(f'<svg class="{class_}" aria-hidden="true" focusable="false">{drawn}</svg>')


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%"
