"""Maximum likelihood of positive parameters, with standard errors or with the reason why there are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize  # type: ignore[import-untyped]

Floats = NDArray[np.float64]
LogLikelihood = Callable[[Floats], tuple[float, Floats]]
"""Of the parameters: the sum over all customers, and its derivatives."""

_FARTHEST = 15.0
"""From the start, in logs: a parameter 3 million times larger or smaller has run away."""
_STEEPEST = 1e-5
"""Slope of the mean log-likelihood of a customer, by the log of a parameter, that still counts as a summit."""
_WIDEST = 3.0
"""Standard error of the log of a parameter that still says anything: 95 % of a factor of 400 to either side."""
_FLATTEST = 1e-12
_STEP = 1e-4


class Undetermined(Exception):
    """The data do not tell the parameters; the message is a sentence without its end."""


@dataclass(frozen=True)
class Estimate:
    """By name of the parameter. The log-likelihood is the sum over all customers, without any penalty."""

    values: Mapping[str, float]
    standard_errors: Mapping[str, float]
    log_likelihood: float


def maximise(
    log_likelihood: LogLikelihood, start: Mapping[str, float], *, customers: int, penalty: float = 0.0
) -> Estimate:
    """The parameters that maximise the mean log-likelihood less `penalty` times the sum of their squared logs.

    The search is over logs, so that every parameter stays positive. Standard errors come from the Hessian at the
    summit, by the delta method. Raises Undetermined when no summit is found or it is too flat to tell.
    """
    names, first = tuple(start), np.log(np.array(list(start.values())))

    def loss(logs: Floats) -> tuple[float, Floats]:
        total, slope = log_likelihood(np.exp(logs))
        gradient = -slope * np.exp(logs) / customers + 2 * penalty * logs
        return -total / customers + penalty * float(logs @ logs), gradient

    bounds = [(each - _FARTHEST, each + _FARTHEST) for each in first]
    options = {"maxiter": 1_000, "ftol": 1e-15, "gtol": 1e-9}
    found: Floats = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    if np.abs(loss(found)[1]).max() > _STEEPEST:
        raise Undetermined("the search for the most likely parameters did not settle")
    widths = _widths(loss, found, customers)
    vague = [name for name, width in zip(names, widths, strict=True) if not width <= _WIDEST]
    if vague:
        raise Undetermined(f"the orders do not tell the size of {', '.join(vague)}")
    values = np.exp(found)
    return Estimate(
        dict(zip(names, values.tolist(), strict=True)),
        dict(zip(names, (values * widths).tolist(), strict=True)),
        float(log_likelihood(values)[0]),
    )


def _widths(loss: Callable[[Floats], tuple[float, Floats]], summit: Floats, customers: int) -> Floats:
    """Standard errors of the logs, huge along directions in which the summit is none."""
    steps = _STEP * np.eye(len(summit))
    hessian = np.array([(loss(summit + step)[1] - loss(summit - step)[1]) / (2 * _STEP) for step in steps])
    curvatures, directions = np.linalg.eigh(customers * (hessian + hessian.T) / 2)
    lowest = max(curvatures.max() * _FLATTEST, np.finfo(float).tiny)
    return np.sqrt((directions**2 / np.maximum(curvatures, lowest)).sum(axis=1))
