"""A customer's state: every column that scores and rules may ask for, in the database and as arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    and_,
    case,
    cast,
    column,
    func,
    literal,
    select,
    table,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.types import Text, TypeEngine

from lifecycle.db.schema import (
    Big,
    Instant,
    Real,
    customer_metrics,
    customer_predictions,
    customer_windows,
    customers,
)
from lifecycle.segments.definitions import Definitions
from lifecycle.segments.metrics import window_columns

Compute = Callable[[Select[Any]], dict[str, NDArray[Any]]]
"""Runs a query of metrics where the orders are and gives its result as arrays: the database itself, or an engine
of lifecycle.segments.engines."""
PREDICTIONS = ("alive", "expected_orders", "expected_spend_minor", "next_order_at")


class JsonText(FunctionElement[str]):
    """The text of a key of a JSON object; null where it is not there."""

    type = Text()
    inherit_cache = True


@compiles(JsonText)
def _(element: JsonText, compiler: Any, **options: Any) -> str:
    document, key = (compiler.process(clause, **options) for clause in element.clauses)
    return f"json_extract({document}, '$.' || {key})"


@compiles(JsonText, "postgresql")
def _(element: JsonText, compiler: Any, **options: Any) -> str:
    document, key = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({document} ->> cast({key} as text))"


def metric_columns(definitions: Definitions) -> dict[str, TypeEngine[Any]]:
    """Names and types of the columns of `metrics`, in the order of `customer_metrics`, then the windows."""
    stored = {c.name: c.type for c in customer_metrics.c if c.name not in ("r", "f", "m", "rfm_segment")}
    windows = [name for days in definitions.sources.windows for name in window_columns(days)]
    return stored | dict.fromkeys(windows, Big)


def profile_columns(definitions: Definitions) -> dict[str, ColumnElement[str]]:
    """What rules ask of `customers`, by name. It is known as of today only, whatever the instant."""
    start = func.substr(customers.c.locale, 1, 3)
    language = func.lower(case((start.like("___") & ~start.like("__-"), start), else_=func.substr(start, 1, 2)))
    found: dict[str, ColumnElement[str]] = {"country": customers.c.country, "language": language}
    used = {name: found[name] for name in found if name in definitions.names_used}
    for name in sorted(definitions.names_used):
        if name.startswith("attributes."):
            used[name] = cast(JsonText(customers.c.attributes, literal(name.removeprefix("attributes."))), Text)
    return used


def stored_state(definitions: Definitions, among: FromClause | None = None) -> FromClause:
    """The state as the newest build left it, of everybody or of the customers in `among`."""
    columns: list[ColumnElement[Any]] = list(customer_metrics.c)
    source: FromClause = customer_metrics
    if among is not None:
        source = among.join(customer_metrics, customer_metrics.c.customer_id == among.c.customer_id)
    for days in definitions.windows_used:
        window = customer_windows.alias(f"window_{days}")
        same = window.c.customer_id == customer_metrics.c.customer_id
        source = source.outerjoin(window, and_(window.c.days == days, same))
        values = zip(window_columns(days), (window.c.orders, window.c.spend_minor), strict=True)
        columns += [func.coalesce(value, 0).label(name) for name, value in values]
    if profile := profile_columns(definitions):
        source = source.join(customers, customers.c.customer_id == customer_metrics.c.customer_id)
        columns += [value.label(name) for name, value in profile.items()]
    if definitions.uses_predictions:
        same = customer_predictions.c.customer_id == customer_metrics.c.customer_id
        source = source.outerjoin(customer_predictions, same)
        columns += [customer_predictions.c[name] for name in PREDICTIONS]
    return select(*columns).select_from(source).subquery("state")


class NamedColumns(dict[str, ColumnElement[Any]]):
    """Columns by name and as attributes, from wherever they come."""

    __getattr__ = dict.__getitem__


def stored_scorable(definitions: Definitions) -> NamedColumns:
    """What scores may ask for, in terms of the rows of `customer_metrics` alone."""
    columns = NamedColumns({each.name: each for each in customer_metrics.c})
    for days in definitions.windows_used:
        same = and_(
            customer_windows.c.days == days, customer_windows.c.customer_id == customer_metrics.c.customer_id
        )
        values = (customer_windows.c.orders, customer_windows.c.spend_minor)
        for name, value in zip(window_columns(days), values, strict=True):
            columns[name] = func.coalesce(select(value).where(same).scalar_subquery(), 0)
    return columns


def state_columns(definitions: Definitions) -> FromClause:
    """The same columns with nothing behind them: what `evaluate` looks up in arrays."""
    types: dict[str, Any] = metric_columns(definitions)
    types |= {"r": Big, "f": Big, "m": Big, "rfm_segment": Text()}
    types |= dict.fromkeys(profile_columns(definitions), Text())
    types |= {"alive": Real, "expected_orders": Real, "expected_spend_minor": Big, "next_order_at": Instant()}
    return table("state", *(column(name, kind) for name, kind in types.items()))
