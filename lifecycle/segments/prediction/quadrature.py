"""Means over a beta distribution."""

from __future__ import annotations

import numpy as np

from lifecycle.segments.prediction.likelihood import Floats

NODES = 48
"""Ten digits of the expected orders of every model and history that is not far-fetched."""


def beta_nodes(a: float, b: Floats, nodes: int = NODES) -> tuple[Floats, Floats]:
    """Points in (0, 1] and their weights, a row for each of `b`: the weighted sum of a smooth function over the
    points is its mean under Beta(a, b). The weights of a row sum to 1.

    Gauss-Jacobi by Golub and Welsch (1969), with the recurrence of Jacobi polynomials moved to [0, 1]. scipy's
    roots_jacobi takes one b at a time and its weights overflow for large ones.
    """
    n = np.arange(1, nodes)
    at_one, at_zero = b[:, None] - 1, a - 1
    s = at_one + at_zero
    diagonal = np.concatenate(
        [
            a / (a + b[:, None]),
            (2 * n * (n + s + 1) + s * a) / ((2 * n + s) * (2 * n + s + 2)),
        ],
        axis=1,
    )
    # (n + s) / (2n + s - 1) is 1 for n = 1, also where it would be 0 / 0.
    last = np.concatenate([np.ones_like(s), (n[1:] + s) / (2 * n[1:] + s - 1)], axis=1)
    beside = np.sqrt(n * (n + at_one) * (n + at_zero) * last / ((2 * n + s) ** 2 * (2 * n + s + 1)))
    matrix = np.zeros((len(b), nodes, nodes))
    each = np.arange(nodes)
    matrix[:, each, each] = diagonal
    matrix[:, each[:-1], each[1:]] = matrix[:, each[1:], each[:-1]] = beside
    points, vectors = np.linalg.eigh(matrix)
    return np.clip(points, np.finfo(float).tiny, 1.0), vectors[:, 0, :] ** 2
