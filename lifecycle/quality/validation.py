"""One frame against one suite, by Great Expectations."""

from __future__ import annotations

import functools
import logging
import os
import threading
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from lifecycle.quality.suites import Expected

if TYPE_CHECKING:
    import pandas as pd

_one_at_a_time = threading.Lock()  # the execution engine keeps the frame that it works on


def failures(frame: pd.DataFrame, suite: Sequence[Expected], *, now: datetime) -> list[tuple[Expected, list[int]]]:
    """For each expectation of `suite`, in its order, the indexes of the rows that fail it."""
    if frame.empty:
        return []
    with _one_at_a_time:
        result = (
            _batches()
            .get_batch({"dataframe": frame})
            .validate(
                _suite(tuple(suite)),
                result_format={"result_format": "COMPLETE"},
                expectation_parameters={"tomorrow": now + timedelta(days=1)},
            )
        )
    outcomes = {each.expectation_config.meta["name"]: each for each in result.results}
    return [(expected, _indexes(outcomes[expected.name])) for expected in suite]


def _indexes(outcome: Any) -> list[int]:
    if "unexpected_index_list" not in outcome.result:
        raise RuntimeError(f"an expectation could not be evaluated: {outcome.exception_info}")
    return [int(index) for index in outcome.result["unexpected_index_list"]]


@functools.cache
def _batches() -> Any:
    """A context that lives in memory and says nothing, with a place to put a frame."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the import itself uses deprecated modules
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    return asset.add_batch_definition_whole_dataframe("rows")


@functools.cache
def _suite(suite: tuple[Expected, ...]) -> Any:
    import great_expectations as gx
    import great_expectations.expectations as kinds
    from great_expectations.expectations.row_conditions import Column

    expectations = []
    for expected in suite:
        options = dict(expected.arguments)
        if "column_A" not in options:
            options["column"] = expected.column
        if expected.only_status:
            options["row_condition"] = Column("status").is_in(list(expected.only_status))
        kind = getattr(kinds, expected.kind)
        expectations.append(kind(**options, meta={"name": expected.name}))
    return gx.ExpectationSuite(name=suite[0].name, expectations=expectations)
