"""The calibration as a picture: inline SVG in the colour of the text around it, for light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import chain
from math import ceil, floor, log10
from typing import Any

_WIDTH, _LEFT, _TOP, _HEIGHT = 640, 84, 34, 200
_TICKS = 4


def calibration_svg(rows: Sequence[Mapping[str, Any]]) -> str:
    """`rows`: of a Calibration; none, no picture. Bars are the means seen, the dots on the line those expected;
    the numbers stand below."""
    if not rows:
        return ""
    highest = max(max(row["expected"], row["seen"]) for row in rows)
    step = _tick(highest)
    top = step * max(1, ceil(highest / step - 1e-9))
    place = (_WIDTH - _LEFT) / len(rows)
    drawn = (_axis(step, top), _bars(rows, place, top), _line(rows, place, top), _numbers(rows, place), _key())
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_TOP + _HEIGHT + 84}" width="100%" role="img" fill="currentColor" '
        'font-family="inherit" font-size="12" xmlns="http://www.w3.org/2000/svg">'
        "<title>Days with an order: expected and seen</title>"
        f"<desc>{escape(_description(rows))}</desc>{''.join(chain(*drawn))}</svg>"
    )


def _description(rows: Sequence[Mapping[str, Any]]) -> str:
    told = (f"{row['frequency']}: {row['expected']:.2f} expected, {row['seen']:.2f} seen" for row in rows)
    return f"Mean of a customer in the hold-out period, by repeat days before it. {'; '.join(told)}."


def _axis(step: float, top: float) -> Iterator[str]:
    for number in range(round(top / step) + 1):
        y = _y(number * step, top)
        yield f'<path d="M{_LEFT} {y:.1f}H{_WIDTH}" stroke="currentColor" opacity="0.2"/>'
        yield _text(_LEFT - 8, y + 4, f"{number * step:.10g}", "end")


def _bars(rows: Sequence[Mapping[str, Any]], place: float, top: float) -> Iterator[str]:
    for number, row in enumerate(rows):
        x, y = _LEFT + place * (number + 0.2), _y(row["seen"], top)
        height = _TOP + _HEIGHT - y
        yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{place * 0.6:.1f}" height="{height:.1f}" opacity="0.3"/>'


def _line(rows: Sequence[Mapping[str, Any]], place: float, top: float) -> Iterator[str]:
    points = [(_middle(number, place), _y(row["expected"], top)) for number, row in enumerate(rows)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="2"/>'
    yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in points)


def _numbers(rows: Sequence[Mapping[str, Any]], place: float) -> Iterator[str]:
    lines = (
        ("before", [str(row["frequency"]) for row in rows]),
        ("expected", [f"{row['expected']:.2f}" for row in rows]),
        ("seen", [f"{row['seen']:.2f}" for row in rows]),
        ("customers", [f"{row['customers']:,}" for row in rows]),
    )
    for line, (name, values) in enumerate(lines):
        y = _TOP + _HEIGHT + 20 + 18 * line
        yield _text(_LEFT - 8, y, name, "end")
        yield from (_text(_middle(number, place), y, value) for number, value in enumerate(values))


def _key() -> Iterator[str]:
    yield f'<circle cx="{_LEFT + 6}" cy="12" r="4"/>'
    yield _text(_LEFT + 18, 16, "expected", "start")
    yield f'<rect x="{_LEFT + 90}" y="6" width="12" height="12" opacity="0.3"/>'
    yield _text(_LEFT + 108, 16, "seen, days with an order of one customer", "start")


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _tick(highest: float) -> float:
    """1, 2 or 5 times a power of ten, for about _TICKS of them."""
    if highest <= 0:
        return 1.0
    rough = highest / _TICKS
    power = 10.0 ** floor(log10(rough))
    return float(next(each * power for each in (1, 2, 5, 10) if each * power >= rough * (1 - 1e-9)))


def _y(value: float, top: float) -> float:
    return _TOP + _HEIGHT * (1 - value / top)


def _middle(number: int, place: float) -> float:
    return _LEFT + place * (number + 0.5)
