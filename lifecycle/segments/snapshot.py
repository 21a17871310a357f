"""Everybody as of any instant, straight from the orders: no build is needed, nothing is stored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from lifecycle.db.arrays import Arrays, arrays
from lifecycle.db.schema import customers
from lifecycle.segments.cuts import Cuts
from lifecycle.segments.definitions import Definitions, Told
from lifecycle.segments.evaluate import Lookup, evaluate, everywhere
from lifecycle.segments.metrics import metrics
from lifecycle.segments.moments import At
from lifecycle.segments.state import Compute, profile_columns, state_columns

Predict = Callable[[Connection, datetime, NDArray[np.int64]], Arrays]
"""`customer_predictions` of these customers as of an instant, column by column."""


@dataclass(frozen=True)
class Snapshot:
    """One place per customer with a counted order, by customer_id. `columns`: the state, r, f, m and rfm_segment
    included; `members`: by rule segment, whether the customer is in it."""

    as_of: datetime
    columns: Arrays
    cuts: Mapping[str, Cuts]
    members: Mapping[str, NDArray[np.bool_]]

    def counts(self, definitions: Definitions) -> dict[str, int]:
        """Members of every segment."""
        cells, found = np.unique(self.columns["rfm_segment"].astype(str), return_counts=True)
        counted = dict(zip(cells.tolist(), found.tolist(), strict=True))
        counted |= {segment: int(held.sum()) for segment, held in self.members.items()}
        return {segment: counted.get(segment, 0) for segment in definitions.segments}


def take_snapshot(
    connection: Connection,
    definitions: Definitions,
    as_of: datetime,
    *,
    landed_by: datetime | None = None,
    predict: Predict | None = None,
    wanted: Collection[str] | None = None,
    compute: Compute | None = None,
) -> Snapshot:
    """`landed_by`: as it could be known then: only orders that had been landed here by that instant. `wanted`:
    columns of metrics, among them those that the definitions ask for; None: all. `compute`: where the metrics are
    computed; None: by the database of `connection`."""
    sources = replace(definitions.sources, landed_by=landed_by)
    query = metrics(sources, At(as_of), wanted).subquery("metrics")
    ordered = select(query).order_by(query.c.customer_id)
    columns = compute(ordered) if compute else arrays(connection, ordered)
    columns |= profiles(connection, definitions, columns["customer_id"])
    columns |= predictions(connection, definitions, as_of, columns["customer_id"], predict)
    cuts = definitions.cuts(columns, as_of)
    told = definitions.tell(state_columns(definitions).c, as_of, cuts)
    found_in = lookup(connection)
    columns |= score(told, columns, found_in)
    return Snapshot(as_of, columns, cuts, place(told, columns, found_in))


def score(told: Told, columns: Arrays, found_in: Lookup) -> dict[str, NDArray[Any]]:
    """r, f, m (0 where the recipe has none) and rfm_segment."""
    length = len(columns["customer_id"])
    scores = {name: everywhere(evaluate(each, columns, found_in), length) for name, each in told.scores.items()}
    scores.setdefault("m", np.zeros(length, dtype=np.int64))
    return {**scores, "rfm_segment": everywhere(evaluate(told.cell, columns, found_in), length)}


def place(told: Told, columns: Arrays, found_in: Lookup) -> dict[str, NDArray[np.bool_]]:
    length = len(columns["customer_id"])
    return {
        segment: everywhere(evaluate(condition, columns, found_in), length).astype(bool)
        for segment, condition in told.conditions.items()
    }


def lookup(connection: Connection) -> Lookup:
    """Whom a subquery names; the same subquery is asked once."""
    known: dict[str, NDArray[np.int64]] = {}

    def customers_in(query: Any) -> NDArray[np.int64]:
        text = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
        if text not in known:
            found = query.element if hasattr(query, "element") else query
            known[text] = np.fromiter(connection.execute(found).scalars(), dtype=np.int64)
        return known[text]

    return customers_in


def profiles(connection: Connection, definitions: Definitions, ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """What rules ask of the customers themselves, in the order of `ids`, which go up."""
    wanted = profile_columns(definitions)
    if not wanted:
        return {}
    query = select(customers.c.customer_id, *(value.label(name) for name, value in wanted.items()))
    found = arrays(connection, query.order_by(customers.c.customer_id))
    where = np.searchsorted(found["customer_id"], ids)
    return {name: found[name][where] for name in wanted}


def predictions(
    connection: Connection,
    definitions: Definitions,
    as_of: datetime,
    ids: NDArray[np.int64],
    predict: Predict | None,
) -> Arrays:
    if not definitions.uses_predictions or predict is None:
        return {}
    return predict(connection, as_of, ids)
