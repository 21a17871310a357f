"""A report as one HTML file, as Markdown, as a tidy CSV table, as rows for a terminal."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from lifecycle.db.schema import VERDICTS
from lifecycle.planning.records import TO_SEND
from lifecycle.reports import charts, words
from lifecycle.reports.pages import page_environment
from lifecycle.reports.plain_tables import csv_text, markdown_text
from lifecycle.reports.records import Figures, Group, RunReport
from lifecycle.reports.statistics import Rate

_TERMINAL = ("audience", "selected", "sent", "refused", "unknown", "opened", "clicked", "unsubscribed", "orders")


class VerdictRow(NamedTuple):
    verdict: str
    rule: str | None
    """None: the verdict as a whole."""
    people: list[int]


def to_html(report: RunReport) -> str:
    """One file that needs nothing else: no network, no script."""
    environment = page_environment()
    environment.globals.update(
        charts=charts,
        words=words,
        funnel=funnel,
        verdict_rows=verdict_rows,
        slot_rows=slot_rows,
        to_send=TO_SEND,
        scale=_scale,
        pull_columns=_pull_columns,
    )
    for name in ("number", "percent", "bounds", "money", "round_money", "duration", "moment", "plain", "language"):
        environment.filters[name] = getattr(words, name)
    return environment.get_template("report.html.j2").render(report=report)


def funnel(figures: Figures) -> list[tuple[str, int, Rate | None]]:
    """The way from the audience to the order: label, number, and its share of what it is a part of.

    Who clicked need not have been seen to open: mail programs hide pictures. So both are shares of the accepted.
    """
    clicked, buyers = figures.clicked["person"], figures.of("buyers")
    return [
        ("Audience", figures.audience, None),
        ("Selected", figures.selected, _share(figures.selected, figures.audience)),
        ("Accepted by their mailbox", figures.accepted, _share(figures.accepted, figures.selected)),
        ("Opened by people", figures.opened["person"], _share(figures.opened["person"], figures.accepted)),
        ("Clicked by people", clicked, _share(clicked, figures.accepted)),
        ("Ordered after the click", buyers, _share(buyers, clicked)),
    ]


def _share(part: int, whole: int) -> Rate | None:
    return Rate(part, whole) if part <= whole else None


def verdict_rows(report: RunReport) -> list[VerdictRow]:
    """Every verdict with its rules below it; people per campaign, then of all."""
    names = [group.name for group in report.campaigns]
    people: Counter[tuple[str, str | None, str]] = Counter()
    for why in report.why:
        people[why.verdict, None, why.campaign] += why.people
        if why.rule:
            people[why.verdict, why.rule, why.campaign] += why.people
    rules = sorted({(verdict, rule) for verdict, rule, _ in people if rule})
    return [
        VerdictRow(verdict, rule, [people[verdict, rule, name] for name in names])
        for verdict in VERDICTS
        for rule in (None, *(rule for owner, rule in rules if owner == verdict))
    ]


def summary_rows(report: RunReport) -> list[dict[str, Any]]:
    """A row per campaign and one for all, for a terminal or a Prefect table."""
    groups = [*report.campaigns, report.total] if len(report.campaigns) != 1 else list(report.campaigns)
    return [_summary(group, report.currency) for group in groups]


def to_markdown(report: RunReport) -> str:
    lines = [f"# {markdown_text(words.headline(report))}", ""]
    run_id, moment = markdown_text(report.run_id), words.moment(report.as_of)
    lines += [f"Run {run_id}, {report.state}, numbers as of {moment}.", ""]
    lines += [f"- **Problem:** {markdown_text(problem)}" for problem in report.problems]
    for title, groups in (
        ("Campaigns", (*report.campaigns, report.total)),
        ("Segments", report.segments),
        ("Languages", report.languages),
    ):
        rows = [_summary(group, report.currency) for group in groups]
        lines += ["", f"## {title}", "", *_md_table(rows)]
    left_out = [
        {
            "campaign": why.campaign,
            "verdict": words.VERDICT_WORDS[why.verdict],
            "rule": why.rule,
            "people": why.people,
        }
        for why in report.why
        if why.verdict not in TO_SEND
    ]
    lines += ["", "## Why people got nothing", "", *_md_table(left_out)]
    if report.quota_slots:
        lines += ["", "## What the slots of quotas were worth", "", *_md_table(slot_rows(report))]
    return "\n".join(lines).rstrip() + "\n"


def slot_rows(report: RunReport) -> list[dict[str, Any]]:
    """A row per campaign, quota and group: how many slots there were, who took them, and what one more would have
    brought."""
    return [
        {
            "campaign": each.campaign,
            "quota": each.slots.rule,
            "of": each.slots.group,
            "limit": each.slots.limit,
            "used before": each.slots.used,
            "wanted": each.slots.wanted,
            "taken": each.slots.taken,
            "last slot's worth": words.worth(each.slots.last_minor, report.currency),
            "next one's": words.worth(each.slots.next_minor, report.currency),
        }
        for each in report.quota_slots
    ]


def to_csv(report: RunReport) -> str:
    """One row per number: scope, name, measure, value, low, high. Money in minor units of the base currency."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    table.writerow(("scope", "name", "measure", "value", "low", "high"))
    for group in (report.total, *report.campaigns, *report.segments, *report.languages):
        for measure, value, low, high in _measures(group.figures):
            table.writerow((group.scope, csv_text(group.name), measure, value, low, high))
    for why in report.why:
        measure = f"verdict {why.verdict} by {why.rule or 'no rule'}"
        table.writerow(("campaign", csv_text(why.campaign), measure, why.people, "", ""))
    for each in report.quota_slots:
        for name in ("limit", "used", "wanted", "taken", "last_minor", "next_minor"):
            measure = f"quota {each.slots.rule} of {each.slots.group}: {name}"
            table.writerow(("campaign", csv_text(each.campaign), measure, getattr(each.slots, name), "", ""))
    for refusal in report.refusals:
        measure = f"refused: {refusal.reason}"
        table.writerow(("campaign", csv_text(refusal.campaign), measure, refusal.messages, "", ""))
    for link in report.links:
        table.writerow(("link", csv_text(link.url), f"clicked by people, {link.campaign}", link.people, "", ""))
    return out.getvalue()


def _measures(figures: Figures) -> Iterator[tuple[str, object, object, object]]:
    counts = {
        "audience": figures.audience,
        **{f"verdict {verdict}": people for verdict, people in figures.verdicts.items()},
        "accepted": figures.accepted,
        "refused": figures.refused,
        "unknown": figures.unknown,
        "held": figures.held,
        "delivered": figures.delivered,
        **{f"opened by {class_}": count for class_, count in figures.opened.items()},
        **{f"clicked by {class_}": count for class_, count in figures.clicked.items()},
        "unsubscribed": figures.unsubscribed,
        "orders": figures.orders,
        "revenue_minor": figures.revenue_minor,
    }
    for name, count in counts.items():
        yield name, count, "", ""
    for name, rate in figures.rates.items():
        yield f"rate {name}", _decimal(rate.value), _decimal(rate.low), _decimal(rate.high)


def _summary(group: Group, currency: str) -> dict[str, Any]:
    figures = group.figures
    values = (
        figures.audience,
        figures.selected,
        figures.accepted,
        figures.refused,
        figures.unknown,
        figures.opened["person"],
        figures.clicked["person"],
        figures.unsubscribed,
        figures.orders,
    )
    row = {
        group.scope if group.scope != "total" else "campaign": group.name,
        **dict(zip(_TERMINAL, values, strict=True)),
    }
    return row | {"revenue": words.money(figures.revenue_minor, currency)}


def _md_table(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["Nothing."]
    lines = [" | ".join(rows[0]), " | ".join("---:" if isinstance(v, int) else "---" for v in rows[0].values())]
    for row in rows:
        cells = (f"{v:,}" if isinstance(v, int) else markdown_text(str(v or "")) for v in row.values())
        lines.append(" | ".join(cells))
    return [f"| {line} |" for line in lines]


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _scale(groups: tuple[Group, ...], rate: str) -> float:
    """The end of an axis on which the intervals of all groups have room."""
    return max((group.figures.rates[rate].high or 0 for group in groups), default=0)


def _pull_columns(report: RunReport) -> list[str]:
    """What the pulls counted, the usual words first."""
    usual = ("rows", "new", "changed", "equal", "superseded", "rejected", "guests", "lines", "rejected_lines")
    found = {name for pull in report.pulls for name in pull.counts}
    return [*(name for name in usual if name in found), *sorted(found.difference(usual))]
