"""Means with intervals, clustered by case. numpy only.

The probes of one case share a fact, so they are not independent: a case is the unit that is resampled. Every case
counts the same, however many probes it has. All functions are deterministic: same input and seed, same numbers, in
any order of the items.

Two situations where the percentile bootstrap misleads, and what is done instead:

- every cluster mean is 0 or 1 (one rewrite probe a case is the common one). The estimate is then a binomial share
  and its Wilson interval on the number of clusters is used: 50 of 50 right gives [0.93, 1.00], where the bootstrap
  gives [1.00, 1.00] and reads as certainty. It is used for 49 of 50 too, so that one miss never raises the lower end.
- no paired item changed (or all of them did, in one direction). See ``paired_delta``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval. NaN where undefined: ``mean`` if n is 0, the ends if clusters < 2."""

    mean: float
    low: float
    high: float
    n: int
    """Items scored."""
    clusters: int = 0
    """Cases they belong to; the sample size that the width rests on."""

    def to_dict(self, **extra: Any) -> dict[str, Any]:
        """JSON-ready form with ``extra`` fields (``protocol``, ``metric``); NaN becomes ``None``."""
        values = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}
        return {**values, **extra}


def clustered_mean(
    scores: Sequence[Any],
    clusters: Sequence[Any] | None = None,
    *,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Mean over clusters of each cluster's mean score, with a percentile bootstrap interval over clusters.

    Formula: ``mean_c(mean_{i in c}(score_i))``. NaN and ``None`` scores are left out; a cluster with none left drops
    out. The interval is Wilson's where every cluster mean is 0 or 1 (see the module). It never leaves the range of
    the scores, so a rate stays in [0, 1]. ``clusters=None``: each item is its own cluster.
    """
    (means,), n = _cluster_means([scores], clusters)
    k = means.size
    if k < 2:
        return Interval(float(means.mean()) if k else math.nan, math.nan, math.nan, n, k)
    if np.isin(means, (0.0, 1.0)).all():
        return Interval(float(means.mean()), *wilson(int(means.sum()), k, level), n, k)
    low, high = _percentiles(_resampled(means[None], seed, resamples)[0], level)
    return Interval(float(means.mean()), low, high, n, k)


def paired_delta(
    after: Sequence[Any],
    before: Sequence[Any],
    clusters: Sequence[Any] | None = None,
    *,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """``clustered_mean`` of ``after_i - before_i``; an item that is NaN on either side is left out.

    If every cluster's difference is 0, or every one is +1 or -1, the bootstrap has no width. The share of clusters that
    would behave otherwise is then bounded by Wilson's upper end for 0 of k, ``h = z^2 / (k + z^2)``, which gives
    ``0 +- h``, ``[1 - 2h, 1]`` and ``[-1, 2h - 1]``.
    """
    (a, b), n = _cluster_means([after, before], clusters)
    difference = a - b
    k = difference.size
    mean = float(difference.mean()) if k else math.nan
    if k < 2:
        return Interval(mean, math.nan, math.nan, n, k)
    if mean in (-1.0, 0.0, 1.0) and (difference == mean).all():
        h = wilson(0, k, level)[1]
        ends = {0.0: (-h, h), 1.0: (1 - 2 * h, 1.0), -1.0: (-1.0, 2 * h - 1)}[mean]
        return Interval(mean, *ends, n, k)
    return Interval(mean, *_percentiles(_resampled(difference[None], seed, resamples)[0], level), n, k)


def ratio(
    after: Sequence[Any],
    before: Sequence[Any],
    clusters: Sequence[Any] | None = None,
    *,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Mean of ``after`` / mean of ``before`` (ratio of means, not mean of ratios), paired bootstrap over clusters.

    NaN if the mean of ``before`` is 0. Resamples with a zero denominator are left out. Where no item changed, the ends
    are those of ``paired_delta`` divided by the mean of ``before``.
    """
    (a, b), n = _cluster_means([after, before], clusters)
    k = a.size
    base = float(b.mean()) if k else math.nan
    if not k or base == 0:
        return Interval(math.nan, math.nan, math.nan, n, k)
    mean = float(a.mean()) / base
    if k < 2:
        return Interval(mean, math.nan, math.nan, n, k)
    if (a == b).all():
        h = wilson(0, k, level)[1] / abs(base)
        return Interval(mean, max(0.0, 1 - h), 1 + h, n, k)
    above, below = _resampled(np.stack([a, b]), seed, resamples)
    defined = below != 0
    return Interval(mean, *_percentiles(above[defined] / below[defined], level), n, k)


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a binomial share, in [0, 1]; (NaN, NaN) if n is 0."""
    if n == 0:
        return math.nan, math.nan
    z2 = NormalDist().inv_cdf(0.5 + level / 2) ** 2
    p = successes / n
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # The ends are exact at 0 and n; computed, they miss by a rounding error.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def cells_text(interval: Interval | Mapping[str, Any] | None, sign: bool = False) -> str:
    """``0.95 [0.88, 1.00]`` as every table shows it; without ends ``0.95``; without a mean ``–``."""
    if isinstance(interval, Interval):
        interval = interval.to_dict()
    mean, low, high = (number((interval or {}).get(key)) for key in ("mean", "low", "high"))
    form = "{:+.2f}" if sign else "{:.2f}"
    if mean is None:
        return "–"
    text = form.format(_positive_zero(mean))
    if low is None or high is None:
        return text
    return f"{text} [{form.format(_positive_zero(low))}, {form.format(_positive_zero(high))}]"


def number(value: Any) -> float | None:
    """``value`` as a float; ``None`` for null, NaN and infinity, which a record stores as null."""
    return float(value) if value is not None and math.isfinite(value) else None


def _positive_zero(value: float) -> float:
    return 0.0 if abs(value) < 0.005 else value


def _cluster_means(columns: Sequence[Sequence[Any]], clusters: Sequence[Any] | None) -> tuple[list[Floats], int]:
    """Per column the mean of each cluster, clusters in sorted order, and the number of items kept."""
    values = [np.asarray(column, dtype=float) for column in columns]
    size = values[0].size
    if any(v.shape != (size,) for v in values) or (clusters is not None and len(clusters) != size):
        lengths = [v.size for v in values] + ([] if clusters is None else [len(clusters)])
        raise ValueError(f"Scores and clusters must have one length, got {', '.join(map(str, lengths))}.")
    kept = ~np.logical_or.reduce([np.isnan(v) for v in values])
    n = int(kept.sum())
    if clusters is None:
        order = np.lexsort([v[kept] for v in values])
        return [v[kept][order] for v in values], n
    if n == 0:
        return [np.empty(0) for _ in values], 0
    labels = np.array([str(c) for c in clusters])[kept]
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return [np.bincount(index, weights=v[kept]) / counts for v in values], n


def _resampled(means: Floats, seed: int, resamples: int) -> Floats:
    """Means of ``resamples`` draws of clusters with replacement; (columns, clusters) -> (columns, resamples)."""
    generator = np.random.default_rng(seed)
    k = means.shape[1]
    # Blocks bound the memory: 2000 x 20000 indices at once would be 320 MB.
    block = max(1, 4_000_000 // k)
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    return np.concatenate([means[:, generator.integers(0, k, (size, k))].mean(axis=2) for size in sizes], axis=1)


def _percentiles(values: Floats, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2 * 100
    low, high = np.percentile(values, (tail, 100 - tail))
    return float(low), float(high)
