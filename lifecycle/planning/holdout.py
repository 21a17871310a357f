"""Who is left out on purpose, to measure: the same people every time, on every database and host.

A person's `seed` never changes; each experiment shuffles the seeds its own way, so that being left out of one
says nothing about another.
"""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from typing import Any

from sqlalchemy import ColumnElement

GLOBAL = "global"
_PRIME = 2**31 - 1
_BUCKETS = 10_000


def bucket(seed: Any, experiment: str) -> Any:
    """0 to 9,999, evenly spread. `seed`: an int, or a column of them, in [1, 2^31 - 1)."""
    digest = hashlib.sha256(experiment.encode()).digest()
    a = int.from_bytes(digest[:8], "big") % (_PRIME - 1) + 1
    b = int.from_bytes(digest[8:16], "big") % _PRIME
    return (seed * a + b) % _PRIME % _BUCKETS


def held_out(seed: ColumnElement[int], experiment: str, share: float) -> ColumnElement[bool]:
    return bucket(seed, experiment) < math.ceil(Fraction(str(share)) * _BUCKETS)
