"""Compute a cell's metrics from the rows of its probes. ``DEFINITIONS.md`` has every formula."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import harmonic_mean
from typing import SupportsFloat, cast

from editbench.eval.intervals import interval_row
from editbench.rows import IntervalRow, Metrics, ProbeRow
from editbench.stats import clustered_mean, unbounded_mean
from editbench.types import METRICS, MORE_METRICS, PROTOCOLS

__all__ = ["PROTOCOLS", "counterfact_score", "denied_answers", "metrics"]


def metrics(rows: Sequence[ProbeRow]) -> Metrics:
    """Compute every metric that ``rows`` have probes for, with 95 % intervals clustered by case.

    Returns:
        Metric -> protocol -> estimate. A metric without a probe is absent. A metric of
        ``MORE_METRICS`` is also absent if no row has a score. Rows that were judged also have the
        protocol ``judge``.
    """
    axes = {row["axis"] for row in rows}
    protocols = (*PROTOCOLS, *(["judge"] if rows and "judge" in rows[0] else []))
    table: Metrics = {}
    for name, axis in METRICS.items():
        if axis in axes:
            on_axis = [row for row in rows if row["axis"] == axis]
            table[name] = {p: _mean(on_axis, p, p) for p in protocols}
            for kind in sorted({row["kind"] for row in on_axis if row["kind"] is not None}):
                of_kind = [row for row in on_axis if row["kind"] == kind]
                table[f"{name}/{kind}"] = {p: _mean(of_kind, p, p) for p in protocols}
    for name, (axis, protocol, column) in MORE_METRICS.items():
        if axis in axes:
            estimate = _mean([row for row in rows if row["axis"] == axis], column, protocol)
            # All scores are NaN where, say, a corpus has no reference texts for consistency.
            if estimate["n"]:
                table[name] = {protocol: estimate}
    if score := counterfact_score(table):
        table["counterfact_score"] = {"likelihood": score}
    return table


def denied_answers(rows: Sequence[ProbeRow]) -> dict[str, int]:
    """Count the answers that name an accepted answer only to deny or correct it, by axis.

    Axes without such an answer are absent. Conversations do not count: there a denial is what is
    asked for. Rows of older records, which have no column ``denied``, count as none.
    """
    questions = (*METRICS.values(), "distracted")
    counts = {
        axis: sum(row["axis"] == axis and row.get("denied") is True for row in rows)
        for axis in questions
    }
    return {axis: count for axis, count in counts.items() if count}


def _mean(rows: Sequence[ProbeRow], column: str, protocol: str) -> IntervalRow:
    """Average ``column`` over rows of one axis, so that every case counts the same."""
    # The entropy of a free text, in bits, is the only score that is not between 0 and 1.
    in_bits = rows[0]["axis"] == "fluency" and column == "generation"
    interval = (unbounded_mean if in_bits else clustered_mean)(
        [_number(row, column) for row in rows], [row["case"] for row in rows]
    )
    return {**interval_row(interval), "protocol": protocol}


def _number(row: Mapping[str, object], column: str) -> float:
    """Return a score, or NaN where a stored row has ``None``."""
    value = row[column]
    return math.nan if value is None else float(cast(SupportsFloat, value))


def counterfact_score(table: Metrics) -> IntervalRow | None:
    """Compute ROME's score S, without an interval.

    S is the harmonic mean of ES, PS and NS: efficacy, generalization and specificity under protocol
    ``likelihood`` (Meng et al. 2022, arXiv 2202.05262).

    Returns:
        ``None`` if one of the three was not measured. ``n`` counts the probes of all three;
        ``clusters`` is the smallest number of cases behind one of them.
    """
    parts = [
        table.get(name, {}).get("likelihood")
        for name in ("efficacy", "generalization", "specificity")
    ]
    known = [part for part in parts if part is not None]
    means = [part["mean"] for part in known if part["mean"] is not None]
    if len(means) < len(parts):
        return None
    return {
        "mean": harmonic_mean(means),  # 0 if one of them is 0
        "low": None,
        "high": None,
        "n": sum(part["n"] for part in known),
        "clusters": min(part["clusters"] for part in known),
        "protocol": "likelihood",
    }
