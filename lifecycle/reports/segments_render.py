"""A look at the segments as one HTML file, as Markdown, as CSV, as rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lifecycle.errors import UsageError
from lifecycle.reports import charts, words
from lifecycle.reports import segments_words as told
from lifecycle.reports.pages import page_environment
from lifecycle.reports.plain_tables import csv_table, markdown_table, markdown_text
from lifecycle.reports.segments_records import Movement, SegmentsLook, Size

Row = dict[str, Any]
DEFINITIONS_CHANGED = "The definitions changed between the two builds: part of the movement may come from that."
_SCALE_FROM = 30
"""Shares of fewer customers do not stretch the colours of everybody else."""


def to_html(look: SegmentsLook) -> str:
    """One file that needs nothing else: no network, no script."""
    environment = page_environment()
    environment.globals.update(
        charts=charts,
        told=told,
        spark=_spark,
        extent=_extent,
        heat=_heat,
        no_profile=no_profile,
        definitions_changed=DEFINITIONS_CHANGED,
    )
    for name in ("number", "percent", "round_money", "moment", "plain"):
        environment.filters[name] = getattr(words, name)
    page = environment.get_template("segments.html.j2")
    return page.render(look=look, top=_top_share(look.movement) if look.movement else 0)


def to_markdown(look: SegmentsLook) -> str:
    """Headline, sizes, movement and grid: what fits an artifact."""
    lines = [f"# {markdown_text(told.headline(look))}", "", _about(look), ""]
    if look.definitions_changed:
        lines += [f"**{DEFINITIONS_CHANGED}**", ""]
    lines += ["## Sizes", "", *markdown_table(summary_rows(look)), ""]
    lines += ["## Who moved where", ""]
    if look.movement is None:
        lines += ["There is no earlier build to compare with.", ""]
    else:
        lines += ["Rows: before. Columns: after.", "", *markdown_table(_movement_matrix(look.movement)), ""]
    lines += ["## Recency and frequency", ""]
    if look.profile is None:
        lines += [markdown_text(no_profile(look))]
    else:
        lines += ["Rows: recency score. Columns: frequency score.", "", *markdown_table(_grid_rows(look))]
    return "\n".join(lines).rstrip() + "\n"


def to_csv(look: SegmentsLook, table: str = "sizes") -> str:
    """One of `tables`."""
    return csv_table(tables(look)[table])


FORMS: Mapping[str, Callable[[SegmentsLook], str]] = {".html": to_html, ".md": to_markdown, ".csv": to_csv}
"""By the ending of a file's name."""


def form_of(path: Path) -> Callable[[SegmentsLook], str]:
    """The form that a file's name asks for. Raises UsageError for another one."""
    form = FORMS.get(path.suffix.lower())
    if form is None:
        raise UsageError(f'{path}: segments are written as .html, .md or .csv, not as "{path.suffix}"')
    return form


def headline(look: SegmentsLook) -> str:
    return told.headline(look)


def tables(look: SegmentsLook) -> dict[str, list[Row]]:
    """Everything as rows that JSON and CSV can hold: instants as ISO text, money in minor units of the currency.

    build, sizes, trend, movement, grid, recency, frequency, spend, parameters, calibration; empty where there is
    nothing to tell.
    """
    return {
        "build": [_build_row(look)],
        "sizes": [_size_row(size) for size in look.sizes],
        "trend": [
            {"segment": size.segment, "as_of": _iso(point.as_of), "members": point.members}
            for size in look.sizes
            for point in size.trend
        ],
        "movement": _movement_rows(look.movement) if look.movement else [],
        **_profile_tables(look),
        **_prediction_tables(look),
    }


def summary_rows(look: SegmentsLook) -> list[dict[str, str]]:
    """The sizes as text, a row per segment, for a terminal or a Prefect table."""
    return [
        {
            "segment": size.segment,
            "members": words.number(size.members),
            "share": words.percent(size.share),
            "before": _or_dash(size.before),
            "change": told.signed(size.change),
            "entered": _or_dash(size.entered),
            "left": _or_dash(size.left),
        }
        for size in look.sizes
    ]


def no_profile(look: SegmentsLook) -> str:
    """Why there are neither scores nor distributions."""
    return (
        "Scores, recency, orders and spend of everybody are kept for the newest build only, which is as of "
        f"{words.moment(look.newest_as_of)}; this page is as of {words.moment(look.build.as_of)}."
    )


def _about(look: SegmentsLook) -> str:
    compared = f", compared with {words.moment(look.before.as_of)}" if look.before else ""
    return f"{told.people(look.customers)} as of {words.moment(look.build.as_of)}{compared}."


def _build_row(look: SegmentsLook) -> Row:
    before = look.before
    return {
        "as_of": _iso(look.build.as_of),
        "built_at": _iso(look.build.built_at),
        "kind": look.build.kind,
        "customers": look.build.customers,
        "compared_with": _iso(before.as_of) if before else None,
        "customers_before": before.customers if before else None,
        "definitions_changed": look.definitions_changed,
        "newest_as_of": _iso(look.newest_as_of),
        "currency": look.currency,
        "headline": told.headline(look),
    }


def _size_row(size: Size) -> Row:
    return {
        "segment": size.segment,
        "kind": size.kind,
        "members": size.members,
        "share": size.share,
        "before": size.before,
        "change": size.change,
        "entered": size.entered,
        "left": size.left,
    }


def _movement_rows(movement: Movement) -> list[Row]:
    """One row per pair of cells; empty cells: not a customer."""
    return [
        {
            "before": before,
            "after": after,
            "customers": movement.of(before, after),
            "share_of_before": movement.share(before, after),
        }
        for before in (*movement.cells_before, None)
        for after in (*movement.cells_after, None)
        if before or after
    ]


def _profile_tables(look: SegmentsLook) -> dict[str, list[Row]]:
    profile = look.profile
    if profile is None:
        return {"grid": [], "recency": [], "frequency": [], "spend": []}
    return {
        "grid": [
            {
                "r": r,
                "f": f,
                "customers": field.customers,
                "share": field.share,
                "mean_m": field.mean_m,
                "cells": "|".join(field.cells),
            }
            for (r, f), field in profile.grid.fields.items()
        ],
        "recency": [
            {"days_from": each.low, "days_to": each.high, "customers": each.customers, "share": each.share}
            for each in profile.recency_days
        ],
        "frequency": [
            {"orders_from": each.low, "orders_to": each.high, "customers": each.customers, "share": each.share}
            for each in profile.frequency
        ],
        "spend": [
            {
                "tenth": each.tenth,
                "customers": each.customers,
                "from_minor": each.from_minor,
                "to_minor": each.to_minor,
                "total_minor": each.total_minor,
                "currency": look.currency,
                "share": each.share,
            }
            for each in profile.spend
        ],
    }


def _prediction_tables(look: SegmentsLook) -> dict[str, list[Row]]:
    prediction = look.prediction
    if prediction is None:
        return {"parameters": [], "calibration": []}
    return {
        "parameters": [
            {
                "model": each.model,
                "parameter": each.name,
                "value": each.value,
                "standard_error": each.standard_error,
            }
            for each in prediction.parameters
        ],
        "calibration": [
            {
                "frequency": each.frequency,
                "customers": each.customers,
                "expected": each.expected,
                "seen": each.seen,
            }
            for each in prediction.calibration
        ],
    }


def _movement_matrix(movement: Movement) -> list[dict[str, str]]:
    rows = []
    for before in (*movement.cells_before, None):
        row = {"before": told.cell_before(before)}
        row |= {words.plain(after): _or_dot(movement.of(before, after)) for after in movement.cells_after}
        row["no longer"] = _or_dot(movement.of(before, None)) if before else "–"
        rows.append(row | {"all": words.number(movement.was(before))})
    total = {words.plain(after): words.number(movement.became(after)) for after in movement.cells_after}
    everybody = words.number(movement.customers_after + movement.became(None))
    rows.append({"before": "all", **total, "no longer": words.number(movement.became(None)), "all": everybody})
    return rows


def _grid_rows(look: SegmentsLook) -> list[dict[str, str]]:
    assert look.profile is not None
    grid = look.profile.grid
    rows = []
    for r in range(grid.r_scores, 0, -1):
        row = {"recency": f"R {r}"}
        for f in range(1, grid.f_scores + 1):
            field = grid.fields[r, f]
            names = ", ".join(words.plain(cell) for cell in field.cells)
            row[f"F {f}"] = f"{words.number(field.customers)} {names}".rstrip()
        rows.append(row)
    return rows


def _spark(size: Size) -> Any:
    low, high = _extent(size)
    first, last = size.trend[0].as_of, size.trend[-1].as_of
    whole, height = (last - first).total_seconds(), high - low
    return charts.spark(
        [
            (
                (point.as_of - first).total_seconds() / whole if whole else 1.0,
                None if point.members is None else (point.members - low) / height if height else 0.5,
            )
            for point in size.trend
        ]
    )


def _extent(size: Size) -> tuple[int, int]:
    """Fewest and most members in the builds of the trend."""
    known = [point.members for point in size.trend if point.members is not None]
    return min(known, default=0), max(known, default=0)


def _top_share(movement: Movement) -> float:
    """The largest share of a row that changed cell: what the strongest colour stands for."""
    for fewest in (_SCALE_FROM, 1):
        shares = [
            movement.share(flow.before, flow.after) or 0
            for flow in movement.flows
            if flow.before is not None and movement.was(flow.before) >= fewest
        ]
        if shares:
            return max(shares)
    return 0.0


def _heat(share: float | None, top: float) -> str:
    """How much of the colour: 0 % to 100 % of what leaves a number readable."""
    return f"{100 * min((share or 0) / top, 1):.0f}%" if top else "0%"


def _or_dash(value: int | None) -> str:
    return "–" if value is None else words.number(value)


def _or_dot(value: int) -> str:
    return words.number(value) if value else "·"


def _iso(instant: Any) -> str:
    return f"{instant.isoformat().replace('+00:00', 'Z')}"
