"""Means with intervals, and paired tests, clustered by case.

The intervals are closed forms, and nothing depends on the order of the items.

The probes of one case share a fact, so they are not independent. The case is therefore the unit,
and each case counts the same, however many probes it has. Scores are between 0 and 1. NaN and
``None`` are left out, and so is a case that has nothing else. If the items come from several seeds,
an estimate is the mean over seeds of the mean over cases.

No bootstrap is used, paired or not, because it resamples only the cases that were seen. With few
cases, and near 0 and 1, its percentile interval covers too rarely (as little as 29 % at a nominal
95 %), and it depends on the draws. The closed forms below are paired and clustered in the same way;
t is the quantile of Student's distribution. ``benchmarks/coverage.md`` gives the coverage of all of
them, by simulation.

- A rate (``clustered_mean``) has Wilson's interval on its effective sample size: the 1 / n of
  Wilson's formula becomes V / (p (1 - p)), where V is the variance of the mean, estimated from the
  spread of the cases (Korn and Graubard 1998; Franco, Little, Louis and Slud 2019). We add three
  things. Only the cases that differ from the majority inform V, so their number gives t its degrees
  of freedom. V is at most p (1 - p) / (k - 1) for k cases, its value if each is wholly right or
  wrong. And V is at least the variance of the n scores / n, which is p (1 - p) / n for yes or no:
  if the probes within a case differ more than those of different cases, that is luck, and an
  effective sample is never larger than the number of items.
- A paired difference or ratio has a t interval, computed after adding one case that gained
  everything and one that lost everything (Bonett and Price 2012). If nothing changed in 50 cases,
  that does not show that nothing ever will.
- With several seeds, V grows by the variance of their means / their number (also our addition). V
  already contains the part of that variance that is due to the cases, so the interval errs on the
  wide side. This makes up for how little two or three seeds tell about their own spread.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import SupportsFloat

import numpy as np
from numpy.typing import NDArray

from editbench.rows import IntervalRow, RetentionRow, TwiceRow

Floats = NDArray[np.float64]
Scores = Collection[float | None]
"""One score for each item: a list, an array or a column of a table."""
Labels = Collection[object]
"""The case, or the seed, of each item."""
LEVEL = 0.95
"""Coverage of the intervals."""
POWER = 0.8
"""Power for which ``detectable`` states a difference."""
FLIPS = 20_000
"""Number of random sign flips in a permutation test. The smallest possible p is 1 / 20,001."""
# In names of arrays: S seeds, K cases


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    ``mean`` is NaN if n is 0; ``low`` and ``high`` are NaN if there are fewer than two clusters.
    """

    mean: float
    low: float
    high: float
    n: int
    """Number of items scored."""
    clusters: int = 0
    """Number of cases to which they belong: the sample size that determines the width."""

    def to_dict(self, protocol: str | None = None) -> IntervalRow:
        """Return a JSON object, with its protocol if given; NaN becomes ``None``."""
        row: IntervalRow = {
            "mean": _defined(self.mean),
            "low": _defined(self.low),
            "high": _defined(self.high),
            "n": self.n,
            "clusters": self.clusters,
        }
        if protocol is not None:
            row["protocol"] = protocol
        return row


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def clustered_mean(
    scores: Scores, clusters: Labels | None = None, seeds: Labels | None = None
) -> Interval:
    """Return the mean over cases of each case's mean score, with its 95 % interval, in [0, 1].

    Formula: ``mean_c(mean_{i in c}(score_i))``; the module explains the interval.

    Args:
        clusters: each item's case; ``None``: each item is a case of its own.
        seeds: each item's seed; ``None``: there is one seed.

    Raises:
        ValueError: if a score is outside [0, 1], or the lengths differ.
    """
    (y_SK, squares_SK), n = _grids([scores, np.asarray(scores, dtype=float) ** 2], clusters, seeds)
    mean, cases, between = _moments(y_SK)
    k = y_SK.shape[1]
    if k < 2:
        return Interval(mean, math.nan, math.nan, n, k)
    # The least V, the variance of the n scores / n, from E[y^2] - E[y]^2.
    least = (_moments(squares_SK)[0] - mean**2) / n
    shares_K = _weights(y_SK).sum(axis=0)
    # t^2 times the largest V, without its factor p (1 - p). With equal weights 1 / k the rest is
    # 1 / (k - 1).
    most = _t(k - 1) ** 2 * k / (k - 1) * float(shares_K @ shares_K)
    binomial = mean * (1 - mean)
    # All scores are 0, or all are 1: the cases show no spread, so the largest V is used.
    if binomial < 1e-12:
        return Interval(mean, *wilson(mean, most), n, k)
    # Degrees of freedom: the cases that are not wholly on the side of the majority.
    minority = int((np.nanmean(y_SK, axis=0) != round(mean)).sum())
    # wilson() multiplies by p (1 - p), so V t^2 is divided by it.
    spread = (
        min(most, _t(min(minority, k - 1)) ** 2 * max(cases, least) / binomial)
        + _t(k - 1) ** 2 * between / binomial
    )
    return Interval(mean, *wilson(mean, spread), n, k)


def wilson(share: float, spread: float) -> tuple[float, float]:
    """Return Wilson's score interval, in [0, 1], where ``spread`` is z^2 / n.

    It consists of all true shares p with (share - p)^2 <= spread p (1 - p).
    """
    # the two roots of that quadratic in p
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    # At 0 and 1 the end is known exactly, whereas the formula would miss it by a rounding error.
    return (0.0 if share == 0 else centre - half), (1.0 if share == 1 else centre + half)


def paired_delta(
    after: Scores,
    before: Scores,
    clusters: Labels | None = None,
    seeds: Labels | None = None,
) -> Interval:
    """Return the mean over cases of ``after_i - before_i``, with its interval, in [-1, 1].

    An item that is NaN on either side is left out. The interval is Bonett and Price's (see the
    module). Its centre is the mean that includes the two added cases, which pull it towards 0.

    Raises:
        ValueError: as ``clustered_mean``.
    """
    (a_SK, b_SK), n = _grids([after, before], clusters, seeds)
    mean, k = _moments(a_SK - b_SK)[0], a_SK.shape[1]
    if k < 2:
        return Interval(mean, math.nan, math.nan, n, k)
    centre, error = _guarded(a_SK - b_SK)
    # k cases and the two added ones, minus 1
    half = _t(k + 1) * error
    return Interval(mean, max(-1.0, centre - half), min(1.0, centre + half), n, k)


def ratio(
    after: Scores,
    before: Scores,
    clusters: Labels | None = None,
    seeds: Labels | None = None,
) -> Interval:
    """Return r, the mean of ``after`` / the mean of ``before``, with its interval.

    This is a ratio of means, not a mean of ratios. It is NaN if the mean of ``before`` is 0. The
    interval is that of the mean of ``after_i - r before_i``, as in ``paired_delta``, divided by the
    mean of ``before``.

    Raises:
        ValueError: as ``clustered_mean``.
    """
    (a_SK, b_SK), n = _grids([after, before], clusters, seeds)
    k, base = a_SK.shape[1], _moments(b_SK)[0]
    if not base > 0:
        return Interval(math.nan, math.nan, math.nan, n, k)
    mean = _moments(a_SK)[0] / base
    if k < 2:
        return Interval(mean, math.nan, math.nan, n, k)
    # The delta method: r's error is that of the mean of a - r b, over the mean of b.
    half = _t(k + 1) * _guarded(a_SK - mean * b_SK)[1] / base
    return Interval(mean, max(0.0, mean - half), mean + half, n, k)


def unbounded_mean(scores: Scores, clusters: Labels, seeds: Labels | None = None) -> Interval:
    """Return the mean of ``clustered_mean`` with a t interval, for scores outside [0, 1].

    Examples are a KL divergence and a log-likelihood.
    """
    (y_SK,), n = _grids([scores], clusters, seeds, shares=False)
    mean, cases, between = _moments(y_SK)
    k = y_SK.shape[1]
    if k < 2:
        return Interval(mean, math.nan, math.nan, n, k)
    half = _t(k - 1) * math.sqrt(cases + between)
    return Interval(mean, mean - half, mean + half, n, k)


def retained(
    after: Collection[float],
    before: Collection[float],
    documents: Labels | None = None,
    seeds: Labels | None = None,
) -> RetentionRow:
    """Return the row that a record keeps of one retention task.

    It has the base and the edited score, their paired difference and ratio with intervals, and how
    many documents fell below one half or rose to it.
    """
    mean = clustered_mean(after, documents, seeds).to_dict()
    delta = paired_delta(after, before, documents, seeds)
    share = ratio(after, before, documents, seeds)
    return {
        "base": clustered_mean(before, documents, seeds).mean,
        "mean": mean["mean"],
        "low": mean["low"],
        "high": mean["high"],
        "n": mean["n"],
        "clusters": mean["clusters"],
        "delta": delta.mean,
        "delta_low": delta.low,
        "delta_high": delta.high,
        "ratio": share.mean,
        "ratio_low": share.low,
        "ratio_high": share.high,
        "lost": sum(b >= 0.5 > a for a, b in zip(after, before, strict=True)),
        "gained": sum(a >= 0.5 > b for a, b in zip(after, before, strict=True)),
    }


def asked_twice(
    first: Scores, last: Scores, clusters: Labels, protocol: str, seeds: Labels | None = None
) -> TwiceRow:
    """Return the mean of the first scores, the mean of the last ones, and their paired difference.

    An item without one of the two scores is left out of all three.

    Raises:
        ValueError: as ``clustered_mean``.
    """
    # An item that is NaN on one side makes the sum NaN.
    scored = ~np.isnan(np.asarray(first, dtype=float) + np.asarray(last, dtype=float))
    before, after = (np.where(scored, np.asarray(each, float), np.nan) for each in (first, last))
    return {
        "right_after": clustered_mean(before, clusters, seeds).to_dict(protocol),
        "at_end": clustered_mean(after, clusters, seeds).to_dict(protocol),
        "change": paired_delta(after, before, clusters, seeds).to_dict(protocol),
    }


def mean_ratio(retention: Mapping[str, RetentionRow]) -> Interval:
    """Return mean retention: the mean over tasks (``n``) of the ratio of edited to base score.

    Tasks without a ratio are left out. The tasks have different items, so their errors are treated
    as independent: for k tasks with half-widths h_i the half-width is sqrt(sum h_i^2) / k, as for
    normal errors. Methods are asked the same items, so overlapping intervals do not show that two
    methods are equal.
    """
    ratios, ends = [], []
    for task in retention.values():
        if (value := number(task.get("ratio"))) is not None:
            ratios.append(value)
            ends.append(number(task.get("ratio_high")))
    if not ratios:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = sum(ratios) / len(ratios)
    highs = [high for high in ends if high is not None]
    if len(highs) < len(ratios):
        return Interval(mean, math.nan, math.nan, len(ratios))
    # half-widths from the upper ends, because the lower ones may be cut off at 0
    widths = [high - value for high, value in zip(highs, ratios, strict=True)]
    half = math.hypot(*widths) / len(ratios)
    return Interval(mean, max(0.0, mean - half), mean + half, len(ratios))


def paired_p(
    first: Scores,
    second: Scores,
    clusters: Labels,
    seeds: Labels | None = None,
) -> float:
    """Return the two-sided p of a sign-flip permutation test of the mean difference.

    If the two methods were exchangeable within each case, how often would their means differ as
    much as they do? Each flip exchanges all items of a case, over all its seeds. The + 1 is that of
    Phipson and Smyth (2010). The answer holds for the seeds that were run; it says nothing about
    other seeds.
    """
    (a_SK, b_SK), _ = _grids([first, second], clusters, seeds)
    shares_K = np.nansum((a_SK - b_SK) * _weights(a_SK), axis=0)
    # Flipping a difference of 0 changes nothing.
    shares_K = shares_K[shares_K != 0]
    # A fixed seed: the same records always give the same p.
    generator = np.random.default_rng(0)
    hits, block = 0, 1000  # drawing the flips in blocks bounds the memory
    for _ in range(FLIPS // block):
        signs = generator.integers(0, 2, (block, shares_K.size), dtype=np.int8) * 2.0 - 1
        # 1e-12: a flip that gives the same sum up to rounding must count as a tie
        hits += int((np.abs(signs @ shares_K) >= abs(shares_K.sum()) - 1e-12).sum())
    return (1 + hits) / (1 + FLIPS)


def holm(p: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number, in the order given (Holm 1979).

    Adjusted values of at most 0.05 are significant together, at a family-wise error rate of 5 %.
    """
    # The smallest of m is multiplied by m, the next by m - 1, ...; the running maximum keeps a
    # larger p from getting a smaller adjusted value.
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, stepped)
    return [float(value) for value in adjusted]


def detectable(
    first: Scores,
    second: Scores,
    clusters: Labels,
    seeds: Labels | None = None,
    *,
    comparisons: int,
) -> float:
    """Return the difference in means that a test would detect with 80 % power.

    The test has the number of cases and the spread of these scores, and a level of
    5 % / ``comparisons``. Formula: (t_{1 - level / 2} + t_{0.8}) times the standard error of
    ``paired_delta``. NaN if there are fewer than two cases.
    """
    (a_SK, b_SK), _ = _grids([first, second], clusters, seeds)
    k = a_SK.shape[1]
    if k < 2:
        return math.nan
    quantiles = _t(k + 1, 1 - (1 - LEVEL) / 2 / comparisons) + _t(k + 1, POWER)
    return quantiles * _guarded(a_SK - b_SK)[1]


def cells_text(interval: Interval | Mapping[str, object] | None, sign: bool = False) -> str:
    """Return ``0.95 [0.88, 1.00]``, as every table shows an interval.

    Without ends it is ``0.95``, without a mean ``–``. ``±0.02`` follows where the row has the
    ``spread`` of several seeds. ``sign`` also writes plus signs.
    """
    row: Mapping[str, object] = (
        interval.to_dict() if isinstance(interval, Interval) else interval or {}
    )
    names = ("mean", "low", "high", "spread")
    mean, low, high, spread = (number(row.get(key)) for key in names)
    form = "{:+.2f}" if sign else "{:.2f}"
    if mean is None:
        return "–"
    text = form.format(_positive_zero(mean))
    if low is not None and high is not None:
        text += f" [{form.format(_positive_zero(low))}, {form.format(_positive_zero(high))}]"
    return text if spread is None else f"{text} ±{spread:.2f}"


def number(value: object) -> float | None:
    """Return ``value`` as a float; ``None`` for NaN and infinity, which a record stores as null.

    Raises:
        TypeError: if ``value`` is not a number.
    """
    if value is None:
        return None
    if not isinstance(value, SupportsFloat):
        raise TypeError(f"{value!r} is not a number.")
    finite = float(value)
    return finite if math.isfinite(finite) else None


def _positive_zero(value: float) -> float:
    """Return 0 for a value that would be printed as -0.00 or 0.00."""
    return 0.0 if abs(value) < 0.005 else value


def _grids(
    columns: Sequence[Scores],
    clusters: Labels | None,
    seeds: Labels | None,
    shares: bool = True,
) -> tuple[list[Floats], int]:
    """Return the mean of each case under each seed, for each column, and the number of items kept.

    A mean is NaN if the case was not asked under that seed. An item is kept if no column lacks it.

    Raises:
        ValueError: if lengths differ, or if ``shares`` and a score is outside [0, 1].
    """
    values: list[Floats] = [np.asarray(column, dtype=float) for column in columns]
    size = values[0].size
    given = [labels for labels in (clusters, seeds) if labels is not None]
    if any(v.shape != (size,) for v in values) or any(len(labels) != size for labels in given):
        lengths = ", ".join(str(len(items)) for items in (*values, *given))
        raise ValueError(f"Scores, clusters and seeds must have one length, got {lengths}.")
    kept = ~np.logical_or.reduce([np.isnan(v) for v in values])
    values = [v[kept] for v in values]
    if shares and any(((v < 0) | (v > 1)).any() for v in values):
        raise ValueError("Scores must be between 0 and 1.")
    case, k = _numbered(range(size) if clusters is None else clusters, kept)
    seed, s = _numbered([0] * size if seeds is None else seeds, kept)
    # Index into the S x K grid, flattened: bincount then sums each entry in one pass.
    place = seed * k + case
    counts = np.bincount(place, minlength=s * k)
    with np.errstate(invalid="ignore"):  # 0 / 0 gives NaN for a case that was not asked
        grids = [
            (np.bincount(place, weights=v, minlength=s * k) / counts).reshape(s, k) for v in values
        ]
    return grids, int(kept.sum())


def _numbered(labels: Labels, kept: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Return the kept labels as numbers from 0, and the number of different labels."""
    names = np.asarray(labels)
    # Text and None cannot be sorted together, so object labels are compared as text.
    unique, index = np.unique(
        names[kept].astype(str) if names.dtype == object else names[kept], return_inverse=True
    )
    return index, unique.size


def _weights(y_SK: Floats) -> Floats:
    """Return the weight of each entry in the mean over seeds of the mean over cases."""
    asked = ~np.isnan(y_SK)
    weights: Floats = asked / (asked.sum(axis=1, keepdims=True) * len(y_SK))
    return weights


def _moments(y_SK: Floats) -> tuple[float, float, float]:
    """Return the mean over seeds of the mean over cases, and its variances by cases and by seeds.

    A result is NaN if there are too few cases for it.
    """
    s, k = y_SK.shape
    if k == 0:
        return math.nan, math.nan, math.nan
    mean_S = np.nanmean(y_SK, axis=1)
    # What each case adds to the estimate's error. Summed over the seeds first, because its items
    # under different seeds are not independent.
    parts_K = np.nansum((y_SK - mean_S[:, None]) * _weights(y_SK), axis=0)
    cases = k / (k - 1) * float(parts_K @ parts_K) if k > 1 else math.nan
    return float(mean_S.mean()), cases, float(mean_S.var(ddof=1)) / s if s > 1 else 0.0


def _guarded(d_SK: Floats) -> tuple[float, float]:
    """Return the mean and its standard error after adding two cases under each seed.

    One of them gained everything, and the other lost everything (Bonett and Price 2012).
    """
    ends = np.tile([1.0, -1.0], (len(d_SK), 1))
    mean, cases, between = _moments(np.hstack([d_SK, ends]))
    return mean, math.sqrt(cases + between)


@cache
def _t(freedom: int, p: float = 0.5 + LEVEL / 2) -> float:
    """Return the quantile ``p`` of Student's distribution with ``freedom`` degrees of freedom."""
    from scipy.special import stdtrit  # takes a quarter of a second, which --help need not spend

    return float(stdtrit(freedom, p))
