"""Turn estimates into rows of a record."""

from __future__ import annotations

import math

from editbench.rows import IntervalRow
from editbench.stats import Interval


def interval_row(interval: Interval) -> IntervalRow:
    """Return ``interval`` as a row, with ``None`` in place of NaN, which JSON does not have."""
    mean, low, high = (
        None if math.isnan(value) else value
        for value in (interval.mean, interval.low, interval.high)
    )
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "n": interval.n,
        "clusters": interval.clusters,
    }
