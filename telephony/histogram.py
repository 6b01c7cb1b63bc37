"""Histograms of fixed buckets: what a distribution costs is a few additions for each thing measured.

Source: docs/metrics.md.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import Final

from prometheus_client.utils import floatToGoString

ANSWER_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""From a disk that syncs at once, over the 20 ms that are promised, to where proxies give up."""


class Histogram:
    """How often a value fell into each bucket.

    Attributes:
        bounds: upper bounds of the buckets, ascending; a value on a bound is in its bucket. One more has no bound.
        counts: values in each bucket.
        sum: of all values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value; nothing measured is below 0."""
        value = max(0.0, value)
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """Return how many values were counted."""
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Return upper bounds as Prometheus writes them, each with the number of values up to it."""
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))
