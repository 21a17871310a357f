"""Row expressions of SQLAlchemy Core over arrays, so that what the database computes for one build is the same
definition that a backfill computes for every day of a year.

Only what definitions are made of is understood: columns, values, comparisons, and/or/not, sums, products, case,
in. A comparison with something unknown is never reached unguarded: see lifecycle.segments.vocabulary.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.sql import elements, operators

from lifecycle.db.arrays import NULL, Arrays
from lifecycle.db.instants import DAY_US, Elapsed, Quotient, WholeDays
from lifecycle.db.schema import microseconds

Lookup = Callable[[Any], NDArray[np.int64]]
"""The customers whom a subquery names."""

_COMPUTED: Mapping[Any, Callable[[Any, Any], Any]] = {
    operators.eq: operator.eq,
    operators.ne: operator.ne,
    operators.lt: operator.lt,
    operators.le: operator.le,
    operators.gt: operator.gt,
    operators.ge: operator.ge,
    operators.add: operator.add,
    operators.sub: operator.sub,
    operators.mul: operator.mul,
}

_JOINED: Mapping[Any, Callable[[Any, Any], Any]] = {operators.and_: np.logical_and, operators.or_: np.logical_or}


def evaluate(expression: Any, columns: Arrays, customers_in: Lookup) -> Any:
    """The value of `expression` for each place of the arrays; an array, or one value for all of them."""

    def value(node: Any) -> Any:
        match node:
            case elements.ColumnClause():
                return columns[node.name]
            case elements.BindParameter():
                return microseconds(node.value) if isinstance(node.value, datetime) else node.value
            case elements.True_():
                return np.True_
            case elements.False_():
                return np.False_
            case elements.Null():
                return None
            case elements.Grouping() | elements.AsBoolean():
                return value(node.element)
            case elements.Cast():
                return value(node.clause)
            case elements.ExpressionClauseList():  # of and, or, sums of several
                return reduce(_JOINED.get(node.operator) or _COMPUTED[node.operator], map(value, node.clauses))
            case elements.UnaryExpression() if node.operator is operators.inv:
                return np.logical_not(value(node.element))
            case elements.BinaryExpression():
                return _binary(node, value, customers_in)
            case elements.Case():
                return _case(node, value)
            case Elapsed():
                earlier, later = map(value, node.clauses)
                return later - earlier
            case WholeDays():
                earlier, later = map(value, node.clauses)
                return (later - earlier) // DAY_US
            case Quotient():
                return _cut(*map(value, node.clauses))
        raise NotImplementedError(f"no array form of {type(node).__name__}: {node}")

    return value(expression)


def everywhere(found: Any, length: int) -> NDArray[Any]:
    """One value for all places as an array."""
    return np.broadcast_to(found, (length,)) if np.ndim(found) == 0 else found


def _binary(node: Any, value: Callable[[Any], Any], customers_in: Lookup) -> Any:
    left = value(node.left)
    if node.operator in (operators.is_, operators.is_not):
        unknown = _unknown(left)
        return unknown if node.operator is operators.is_ else np.logical_not(unknown)
    if node.operator in (operators.in_op, operators.not_in_op):
        right: Any = node.right
        among: Any = right.value if isinstance(right, elements.BindParameter) else customers_in(right)
        return np.isin(left, among, invert=node.operator is operators.not_in_op)
    return _COMPUTED[node.operator](left, value(node.right))


def _unknown(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype == object:
        return values == np.array(None, dtype=object)
    return np.isnan(values) if values.dtype.kind == "f" else values == NULL


def _case(node: Any, value: Callable[[Any], Any]) -> Any:
    """The first that holds; with a value, `case code when …`, whose whens are all of one kind."""
    otherwise: Any = None if node.else_ is None else value(node.else_)
    conditions, results = zip(*((when, value(then)) for when, then in node.whens), strict=True)
    if node.value is not None:
        subject = value(node.value)
        held = [subject == value(when) for when in conditions]
    else:
        held = [value(when) for when in conditions]
    arrays = [each for each in held if np.ndim(each)]
    if not arrays:
        return next((then for holds, then in zip(held, results, strict=True) if holds), otherwise)
    return np.select([everywhere(each, len(arrays[0])) for each in held], list(results), default=otherwise)


def _cut(dividend: Any, divisor: Any) -> Any:
    """Towards zero, as the databases do."""
    return np.sign(dividend) * np.sign(divisor) * (np.abs(dividend) // np.abs(divisor))
