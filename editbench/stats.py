"""Means with intervals, and paired tests, clustered by case. Closed forms; nothing depends on the order of the items.

The probes of one case share a fact, so they are not independent: a case is the unit, and every case counts the same,
however many probes it has. Scores are between 0 and 1; NaN and ``None`` are left out, and so is a case with none left.
Where items come from several seeds, an estimate is the mean over seeds of the mean over cases.

No bootstrap, paired or not, where one is usual: it draws from the cases that were seen alone, so with few cases, and near 0
and 1, its percentile interval covers too rarely (down to 29 % where 95 % is meant), and it depends on the draws. Closed forms,
paired and clustered as it would be, take its place, with t the quantile of Student's distribution (``benchmarks/coverage.md``
has the coverage of all of them by simulation):

- A rate (``clustered_mean``) has Wilson's interval on its effective sample size: the 1 / n of Wilson's formula becomes
  V / (p (1 - p)), V the variance of the mean from the spread of the cases (Korn and Graubard 1998; Franco, Little, Louis and
  Slud 2019). Three things are ours: V is known from the cases that differ from the majority alone, so their number gives t its
  degrees of freedom; V is at most p (1 - p) / (k - 1) for k cases, which it is where each is wholly right or wrong; and V is
  at least the variance of the n scores / n, p (1 - p) / n of yes or no: probes of a case that differ more than those of two
  cases are luck, and no sample is larger than the number of its items.
- A paired difference or ratio has a t interval, after a case that gained all and a case that lost all were added (Bonett
  and Price 2012): that nothing changed in 50 cases does not show that nothing ever will.
- Several seeds add the variance of their means / their number to V (ours, too). What the cases have done to those means is in
  V already, so this errs on the wide side, which makes up for how little two or three seeds tell of their own spread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.95
POWER = 0.8
FLIPS = 20_000
"""Random sign flips of a permutation test: the smallest p is 1 / 20,001."""
# S seeds, K cases


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
        values = {
            k: None if isinstance(v, float) and math.isnan(v) else v
            for k, v in asdict(self).items()
        }
        return {**values, **extra}


def clustered_mean(
    scores: Sequence[Any], clusters: Sequence[Any] | None = None, seeds: Sequence[Any] | None = None
) -> Interval:
    """Mean over cases of each case's mean score, with its 95 % interval (see the module); in [0, 1].

    Formula: ``mean_c(mean_{i in c}(score_i))``. ``clusters`` and ``seeds`` name each item's case and seed; ``None``: each
    item is its own case, and there is one seed.

    Raises:
        ValueError: a score outside [0, 1], or sequences of unequal length.
    """
    (y_SK, squares_SK), n = _grids([scores, np.asarray(scores, dtype=float) ** 2], clusters, seeds)
    mean, cases, between = _moments(y_SK)
    k = y_SK.shape[1]
    if k < 2:
        return Interval(mean, math.nan, math.nan, n, k)
    least = (_moments(squares_SK)[0] - mean**2) / n
    shares_K = _weights(y_SK).sum(axis=0)
    most = _t(k - 1) ** 2 * k / (k - 1) * float(shares_K @ shares_K)
    binomial = mean * (1 - mean)
    if binomial < 1e-12:
        return Interval(mean, *wilson(mean, most), n, k)
    minority = int((np.nanmean(y_SK, axis=0) != round(mean)).sum())
    spread = (
        min(most, _t(min(minority, k - 1)) ** 2 * max(cases, least) / binomial)
        + _t(k - 1) ** 2 * between / binomial
    )
    return Interval(mean, *wilson(mean, spread), n, k)


def wilson(share: float, spread: float) -> tuple[float, float]:
    """Wilson's score interval, in [0, 1], where ``spread`` is z^2 / n: all true shares p with
    (share - p)^2 <= spread p (1 - p)."""
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    # The ends are exact at 0 and 1; computed, they miss by a rounding error.
    return (0.0 if share == 0 else centre - half), (1.0 if share == 1 else centre + half)


def paired_delta(
    after: Sequence[Any],
    before: Sequence[Any],
    clusters: Sequence[Any] | None = None,
    seeds: Sequence[Any] | None = None,
) -> Interval:
    """Mean over cases of ``after_i - before_i``, in [-1, 1]; an item that is NaN on either side is left out.

    The interval is that of Bonett and Price (see the module); it is about the mean that the two added cases pull towards 0.
    """
    (a_SK, b_SK), n = _grids([after, before], clusters, seeds)
    mean, k = _moments(a_SK - b_SK)[0], a_SK.shape[1]
    if k < 2:
        return Interval(mean, math.nan, math.nan, n, k)
    centre, error = _guarded(a_SK - b_SK)
    half = _t(k + 1) * error
    return Interval(mean, max(-1.0, centre - half), min(1.0, centre + half), n, k)


def ratio(
    after: Sequence[Any],
    before: Sequence[Any],
    clusters: Sequence[Any] | None = None,
    seeds: Sequence[Any] | None = None,
) -> Interval:
    """Mean of ``after`` / mean of ``before``, r (a ratio of means, not a mean of ratios). NaN if the latter is 0.

    The interval is that of the mean of ``after_i - r before_i``, as in ``paired_delta``, over the mean of ``before``.
    """
    (a_SK, b_SK), n = _grids([after, before], clusters, seeds)
    k, base = a_SK.shape[1], _moments(b_SK)[0]
    if not base > 0:
        return Interval(math.nan, math.nan, math.nan, n, k)
    mean = _moments(a_SK)[0] / base
    if k < 2:
        return Interval(mean, math.nan, math.nan, n, k)
    half = _t(k + 1) * _guarded(a_SK - mean * b_SK)[1] / base
    return Interval(mean, max(0.0, mean - half), mean + half, n, k)


def unbounded_mean(
    scores: Sequence[Any], clusters: Sequence[Any], seeds: Sequence[Any] | None = None
) -> Interval:
    """As ``clustered_mean``, of scores that are no shares (a KL, a log-likelihood): t interval."""
    (y_SK,), n = _grids([scores], clusters, seeds, shares=False)
    mean, cases, between = _moments(y_SK)
    k = y_SK.shape[1]
    if k < 2:
        return Interval(mean, math.nan, math.nan, n, k)
    half = _t(k - 1) * math.sqrt(cases + between)
    return Interval(mean, mean - half, mean + half, n, k)


def retained(
    after: Sequence[Any],
    before: Sequence[Any],
    documents: Sequence[Any] | None = None,
    seeds: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """One retention task as a record keeps it: base and edited score, paired difference and ratio, with their intervals, and
    how many documents fell below one half, or rose to it."""
    mean, delta, share = (
        clustered_mean(after, documents, seeds),
        paired_delta(after, before, documents, seeds),
        ratio(after, before, documents, seeds),
    )
    return {
        "base": clustered_mean(before, documents, seeds).mean,
        **mean.to_dict(),
        "delta": delta.mean,
        "delta_low": delta.low,
        "delta_high": delta.high,
        "ratio": share.mean,
        "ratio_low": share.low,
        "ratio_high": share.high,
        "lost": sum(b >= 0.5 > a for a, b in zip(after, before, strict=True)),
        "gained": sum(a >= 0.5 > b for a, b in zip(after, before, strict=True)),
    }


def mean_ratio(retention: Mapping[str, Mapping[str, Any]]) -> Interval:
    """Mean retention: the mean over tasks (``n``) of the ratio edited / base, of the tasks that have one.

    The tasks' items are different ones, so their errors are taken as independent: for k tasks whose ratios have intervals of
    half-width h_i, the half-width is sqrt(sum h_i^2) / k, as for normal errors. The methods share the items, so overlapping
    intervals do not show that two methods are equal.
    """
    tasks = [task for task in retention.values() if number(task.get("ratio")) is not None]
    if not tasks:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = sum(task["ratio"] for task in tasks) / len(tasks)
    highs = [number(task.get("ratio_high")) for task in tasks]
    if None in highs:
        return Interval(mean, math.nan, math.nan, len(tasks))
    # the upper ends: the lower ones may be cut off at 0
    half = math.hypot(
        *(high - task["ratio"] for high, task in zip(highs, tasks, strict=True))
    ) / len(tasks)
    return Interval(mean, max(0.0, mean - half), mean + half, len(tasks))


def paired_p(
    one: Sequence[Any],
    other: Sequence[Any],
    clusters: Sequence[Any],
    seeds: Sequence[Any] | None = None,
) -> float:
    """Two-sided p of the sign-flip permutation test of the mean difference, flipped case by case over all its seeds.

    It asks: if the two methods were exchangeable within each case, how often would they differ on average as much as they do
    (Phipson and Smyth 2010 for the + 1)? Of the seeds that were run it is true; other seeds it cannot speak for.
    """
    (a_SK, b_SK), _ = _grids([one, other], clusters, seeds)
    shares_K = np.nansum((a_SK - b_SK) * _weights(a_SK), axis=0)
    shares_K = shares_K[shares_K != 0]
    generator = np.random.default_rng(0)
    hits, block = 0, 1000  # blocks bound the memory
    for _ in range(FLIPS // block):
        signs = generator.integers(0, 2, (block, shares_K.size), dtype=np.int8) * 2.0 - 1
        hits += int((np.abs(signs @ shares_K) >= abs(shares_K.sum()) - 1e-12).sum())
    return (1 + hits) / (1 + FLIPS)


def holm(p: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number, in the order given: those <= 0.05 hold together at a family-wise 5 %
    (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, stepped)
    return adjusted.tolist()


def detectable(
    one: Sequence[Any],
    other: Sequence[Any],
    clusters: Sequence[Any],
    seeds: Sequence[Any] | None = None,
    *,
    comparisons: int,
) -> float:
    """The difference in means that as many cases, differing as much as these do, show with 80 % power at a level of
    5 % / ``comparisons``: (t_{1 - level / 2} + t_{0.8}) times the standard error of ``paired_delta``; NaN for one case."""
    (a_SK, b_SK), _ = _grids([one, other], clusters, seeds)
    k = a_SK.shape[1]
    if k < 2:
        return math.nan
    return (_t(k + 1, 1 - (1 - LEVEL) / 2 / comparisons) + _t(k + 1, POWER)) * _guarded(
        a_SK - b_SK
    )[1]


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


def _grids(
    columns: Sequence[Sequence[Any]],
    clusters: Sequence[Any] | None,
    seeds: Sequence[Any] | None,
    shares: bool = True,
) -> tuple[list[Floats], int]:
    """Per column the mean of each case under each seed, NaN where it was not asked, and the number of items kept."""
    values = [np.asarray(column, dtype=float) for column in columns]
    size = values[0].size
    given = [labels for labels in (clusters, seeds) if labels is not None]
    if any(v.shape != (size,) for v in values) or any(len(labels) != size for labels in given):
        lengths = ", ".join(str(len(one)) for one in (*values, *given))
        raise ValueError(f"Scores, clusters and seeds must have one length, got {lengths}.")
    kept = ~np.logical_or.reduce([np.isnan(v) for v in values])
    values = [v[kept] for v in values]
    if shares and any(((v < 0) | (v > 1)).any() for v in values):
        raise ValueError("Scores must be between 0 and 1.")
    case, k = _numbered(range(size) if clusters is None else clusters, kept)
    seed, s = _numbered(np.zeros(size) if seeds is None else seeds, kept)
    place = seed * k + case
    counts = np.bincount(place, minlength=s * k)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of a case that was not asked
        grids = [
            (np.bincount(place, weights=v, minlength=s * k) / counts).reshape(s, k) for v in values
        ]
    return grids, int(kept.sum())


def _numbered(labels: Sequence[Any], kept: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    names = np.asarray(labels)
    unique, index = np.unique(
        names[kept].astype(str) if names.dtype == object else names[kept], return_inverse=True
    )
    return index, unique.size


def _weights(y_SK: Floats) -> Floats:
    """What each entry counts in the mean over seeds of the mean over cases."""
    asked = ~np.isnan(y_SK)
    return asked / (asked.sum(axis=1, keepdims=True) * len(y_SK))


def _moments(y_SK: Floats) -> tuple[float, float, float]:
    """The mean over seeds of the mean over cases, and the variance that it has from the cases and from the seeds; NaN where
    there are none."""
    s, k = y_SK.shape
    if k == 0:
        return math.nan, math.nan, math.nan
    mean_S = np.nanmean(y_SK, axis=1)
    parts_K = np.nansum((y_SK - mean_S[:, None]) * _weights(y_SK), axis=0)
    cases = k / (k - 1) * float(parts_K @ parts_K) if k > 1 else math.nan
    return float(mean_S.mean()), cases, float(mean_S.var(ddof=1)) / s if s > 1 else 0.0


def _guarded(d_SK: Floats) -> tuple[float, float]:
    """The mean and its standard error after a case that gained all and one that lost all were added under each seed."""
    ends = np.tile([1.0, -1.0], (len(d_SK), 1))
    mean, cases, between = _moments(np.hstack([d_SK, ends]))
    return mean, math.sqrt(cases + between)


@cache
def _t(freedom: int, p: float = 0.5 + LEVEL / 2) -> float:
    from scipy.special import stdtrit  # a quarter of a second that --help does not need

    return float(stdtrit(freedom, p))
