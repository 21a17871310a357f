"""Rates with their uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """`hits` of `of`, with the bounds of its 95 % interval; all three are None where `of` is 0."""

    hits: int
    of: int

    @property
    def value(self) -> float | None:
        return self.hits / self.of if self.of else None

    @property
    def low(self) -> float | None:
        return wilson(self.hits, self.of)[0] if self.of else None

    @property
    def high(self) -> float | None:
        return wilson(self.hits, self.of)[1] if self.of else None


def wilson(hits: int, of: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927, JASA 22:209; recommended by Brown, Cai, DasGupta 2001).

    Stays within [0, 1] and is not empty at 0 or `of` hits, unlike the textbook interval.
    """
    share, z2 = hits / of, _Z_95**2
    centre = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z_95 / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(0.0, centre - half), min(1.0, centre + half)
