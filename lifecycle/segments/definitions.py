"""Everything that `config/segments.yaml` defines, checked once and then told as of any instant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Integer, column

from lifecycle.errors import ConfigError, suggest
from lifecycle.segments import language as lang
from lifecycle.segments.cuts import Cut, Cuts, cut_points, top_share
from lifecycle.segments.metrics import Sources, window_columns
from lifecycle.segments.rules import Rules
from lifecycle.segments.scoring import cell, reached, scorable, score, score_values
from lifecycle.segments.vocabulary import PREDICTED, Columns, Gap, Metric, Real, Share, When, Word, vocabulary
from lifecycle.settings import Config
from lifecycle.settings.segments import Expressed, Recipe, Score, SegmentRule, Vip

_VERSION = 2
"""Of what the definitions mean: another one makes the next build a full one."""
_FILE = "config/segments.yaml"


@dataclass(frozen=True)
class Told:
    """The definitions as of an instant: row expressions over the columns of customers' state.

    `scores`: r, f, m. `cell`: its name. `conditions`: by segment, cells left out; they read the stored scores.
    `comparisons`: all that these are made of, by text.
    """

    as_of: datetime
    scores: Mapping[str, ColumnElement[int]]
    cell: ColumnElement[str]
    conditions: Mapping[str, ColumnElement[bool]]
    comparisons: Mapping[str, ColumnElement[bool]]

    def differs_from(self, other: Told) -> list[ColumnElement[bool]]:
        """Conditions of which one holds for everybody who, with the same columns, may be scored or placed
        differently at the other instant."""
        return [
            holds != other.comparisons[text]
            for text, holds in self.comparisons.items()
            if not holds.compare(other.comparisons[text])
        ]


@dataclass(frozen=True)
class Definitions:
    """Of one configuration, sound. Made by `define`."""

    recipe: Recipe
    sources: Sources
    currency: str
    """Of the amounts."""
    metrics: Mapping[str, Metric]
    scored: Mapping[str, tuple[Score, Metric]]
    rules: Mapping[str, SegmentRule | lang.Expression]
    names_used: frozenset[str]
    """Metrics that expressions ask for, by name."""
    columns_used: frozenset[str]
    """Columns of the state that a score or rule asks for."""
    text: str = field(repr=False)
    """All of it, canonical."""

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def segments(self) -> tuple[str, ...]:
        """Cells first, then the others, as written."""
        return (*self.recipe.names, *self.rules)

    @property
    def uses_predictions(self) -> bool:
        return bool(self.names_used & set(PREDICTED))

    @property
    def cut_names(self) -> set[str]:
        """What cut points are kept for: scores, and segments of a share."""
        return {*self.scored, *self._shares}

    @property
    def windows_used(self) -> tuple[int, ...]:
        """Further windows of which a rule or score asks a metric."""
        return tuple(days for days in self.sources.windows if self.columns_used & set(window_columns(days)))

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The columns whose values of all customers are needed for the cut points."""
        wanted = [column for _, metric in self.scored.values() for column in metric.columns]
        of_shares = ["orders_12m", "spend_12m_minor"] if self._shares else []
        return tuple(dict.fromkeys(["customer_id", *wanted, *of_shares]))

    def cuts(self, columns: Mapping[str, Any], as_of: datetime) -> Mapping[str, Cuts]:
        """Cut points of r, f, m and of the shares, by score and segment. `columns`: `score_columns` of everybody
        as arrays of whole numbers, instants as microseconds since 1970."""
        found: dict[str, Cuts] = {
            letter: cut_points(
                each,
                score_values(metric, columns, as_of),
                columns["customer_id"],
                reverse=letter == "r",
                digits=getattr(metric, "digits", 0),
            )
            for letter, (each, metric) in self.scored.items()
        }
        for segment, share in self._shares.items():
            found[segment] = (top_share(columns["spend_12m_minor"][columns["orders_12m"] > 0], share),)
        return found

    def tell(self, c: Columns, as_of: datetime, cuts: Mapping[str, Cuts]) -> Told:
        """`c`: the columns of customers' state, as attributes and by name."""
        scores = self.tell_scores(c, as_of, cuts)
        rules = Rules(self.rules, self.metrics, self.recipe.names, self.sources, c=c, as_of=as_of, cuts=cuts)
        conditions = {segment: rules.condition(segment) for segment in self.rules}
        return replace(scores, conditions=conditions, comparisons={**scores.comparisons, **rules.comparisons})

    def tell_scores(self, c: Columns, as_of: datetime, cuts: Mapping[str, Cuts]) -> Told:
        """Scores and cell only, for which the columns of metrics will do."""
        comparisons: dict[str, ColumnElement[bool]] = {}
        scores: dict[str, ColumnElement[int]] = {}
        for letter, (_, metric) in self.scored.items():
            at_cuts = reached(metric, c, cuts[letter], as_of)
            comparisons |= {f"{letter}, cut {i}": holds for i, holds in enumerate(at_cuts, start=1)}
            scores[letter] = score(at_cuts, reverse=letter == "r")
        return Told(as_of, scores, cell(self.recipe, scores), {}, comparisons)

    @property
    def _shares(self) -> Mapping[str, float]:
        return {
            segment: rule.top_share
            for segment, rule in self.rules.items()
            if isinstance(rule, Vip) and rule.top_share is not None
        }


def define(config: Config) -> Definitions:
    """Raises ConfigError with every problem, one a line."""
    file = config.segments_file
    sources = Sources(file.counted_orders, tuple(sorted(file.windows)))
    currency = file.counted_orders.currency or config.base_currency
    metrics = vocabulary(currency, sources.windows)
    problems: list[str] = []
    scored = {}
    for letter, each in config.recipe.scored.items():
        if each.of in scorable(metrics):
            scored[letter] = (each, metrics[each.of])
        else:
            where = f'{_FILE}: recipes.{file.recipe}: {letter} is scored by "{each.of}", which is no whole number'
            problems.append(f"{where} that everybody has{suggest(each.of or '', scorable(metrics))}")
    rules: dict[str, SegmentRule | lang.Expression] = {}
    for segment, rule in file.segments.items():
        try:
            rules[segment] = lang.parse(rule.where) if isinstance(rule, Expressed) else rule
        except lang.LanguageError as error:
            problems.append(f"{_FILE}: segments.{segment}.where: {error}")
    expressions = {segment: rule for segment, rule in rules.items() if isinstance(rule, lang.Expression)}
    names = (*config.recipe.names, *file.segments)
    for segment, expression in expressions.items():
        found = [
            *lang.check_names(expression, metrics, names),
            *_misfits(expression, metrics),
        ]
        problems += [f"{_FILE}: segments.{segment}.where: {problem}" for problem in found]
    problems += _cycles(expressions)
    problems += _rough(file.segments)
    if problems:
        raise ConfigError("\n".join(problems))
    used = frozenset(name for expression in expressions.values() for name in lang.names(expression))
    text = _canonical(config)
    definitions = Definitions(config.recipe, sources, currency, metrics, scored, rules, used, frozenset(), text)
    return replace(definitions, columns_used=_asked_for(definitions))


class _Asked(dict[str, ColumnElement[Any]]):
    """Columns of a state that note which of them are asked for."""

    def __missing__(self, name: str) -> ColumnElement[Any]:
        self[name] = found = column(name, Integer)
        return found

    __getattr__ = dict.__getitem__


def _asked_for(definitions: Definitions) -> frozenset[str]:
    """Found by telling the definitions once."""
    cuts = {letter: (Cut(0, 0),) for letter in definitions.scored}
    cuts |= {segment: (Cut(0),) for segment in definitions.rules}
    asked = _Asked()
    definitions.tell(asked, datetime(2000, 1, 1, tzinfo=UTC), cuts)
    return frozenset(asked) | frozenset(definitions.score_columns)


def _canonical(config: Config) -> str:
    file = config.segments_file
    text = file.model_dump(mode="json") | {"base_currency": config.base_currency, "version": _VERSION}
    del text["recipes"], text["engine"]
    text["recipe"] = {file.recipe: config.recipe.model_dump(mode="json")}
    return json.dumps(text, sort_keys=True, default=str)


def cuts_as_json(cuts: Mapping[str, Cuts]) -> dict[str, Any]:
    return {name: [[cut.value, cut.customer_id] for cut in each] for name, each in cuts.items()}


def cuts_from_json(stored: Mapping[str, Any]) -> dict[str, Cuts]:
    return {name: tuple(Cut(value, customer_id) for value, customer_id in each) for name, each in stored.items()}


def _misfits(expression: lang.Expression, metrics: Mapping[str, Metric]) -> Iterator[str]:
    """Comparisons of a metric with a value that it can never be."""
    for leaf in lang.leaves(expression):
        values: tuple[lang.Value, ...]
        match leaf:
            case lang.Compare(name, op, value):
                values, ordered = (value,), op not in ("=", "!=")
            case lang.Between(name, low, high):
                values, ordered = (low, high), True
            case lang.OneOf(name, given):
                values, ordered = given, False
            case _:
                continue
        is_attribute = name.startswith("attributes.")
        metric = Word((name,)) if is_attribute else metrics.get(name)
        if metric is not None:
            found = (_misfit(name, metric, value, ordered, is_attribute) for value in values)
            yield from dict.fromkeys(filter(None, found))


def _misfit(name: str, metric: Metric, value: lang.Value, ordered: bool, is_attribute: bool) -> str | None:
    shown = lang.to_text(lang.Compare(name, "=", value)).removeprefix(f"{name} = ")
    if isinstance(metric, Word):
        if ordered:
            return f"{name} is a word and can only be equal or not; use =, != or in"
        if not is_attribute and not isinstance(value, str):
            return f"{name} is a word, {shown} is none; write it in quotes if it is meant"
        return None
    if isinstance(metric, When):
        return (
            None
            if isinstance(value, datetime)
            else f"{name} is an instant; compare it with a date, like 2026-01-01"
        )
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return f"{name} is a number, {shown} is none"
    if isinstance(metric, Share | Gap | Real) and (
        abs(Decimal(value)) > 10**9 or Decimal(value) != round(Decimal(value), 4)
    ):
        return (
            f"{name} is compared with at most four digits after the point and at most a billion, not with {shown}"
        )
    return None


def _cycles(expressions: Mapping[str, lang.Expression]) -> Iterator[str]:
    """Segments that build on themselves, each ring once."""
    uses = {segment: list(lang.segments(each)) for segment, each in expressions.items()}
    told: set[frozenset[str]] = set()

    def walk(path: list[str]) -> Iterator[str]:
        for segment in uses.get(path[-1], ()):
            if segment in path:
                ring = path[path.index(segment) :]
                if frozenset(ring) not in told:
                    told.add(frozenset(ring))
                    way = " → ".join([*ring, segment])
                    yield f"{_FILE}: segments.{ring[0]}.where: builds on itself: {way}; take one step out"
            elif segment in uses and len(path) <= len(uses):
                yield from walk([*path, segment])

    for segment in uses:
        yield from walk([segment])


def _rough(rules: Mapping[str, SegmentRule]) -> Iterator[str]:
    """Rhythms finer than a hundredth: seconds times them must stay within 64 bits."""
    for segment, rule in rules.items():
        rhythm = getattr(rule, "rhythm", None)
        if isinstance(rhythm, Decimal) and rhythm != round(rhythm, 2):
            yield f"{_FILE}: segments.{segment}.rhythm {rhythm}: at most two digits after the point"
