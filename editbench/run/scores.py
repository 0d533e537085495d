"""Scores of a cell, from the rows that its evaluation wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from editbench.eval import probes
from editbench.run import regimes
from editbench.stats import retained
from editbench.types import Case

Rows = list[dict[str, Any]]


def curve_scores(
    points: Sequence[regimes.Point], cases: Sequence[Case], base: Rows
) -> list[dict[str, Any]]:
    """The scores after so many facts, of the facts injected by then, by the probes that need no later one."""
    curve = []
    for point in {
        point.facts: point for point in points
    }.values():  # a stopped sequence ends where it was asked before
        taught = {case.fact.id for case in cases[: point.facts]}
        early = {
            (c.fact.id, i)
            for c in cases
            for i, probe in enumerate(c.probes)
            if not taught.issuperset(probe.needs)
        }
        asked = [
            row
            for row in point.probes
            if row["case"] in taught and (row["case"], row["probe"]) not in early
        ]
        metrics = probes.metrics(asked) if asked else {}
        curve.append(
            {
                "facts": point.facts,
                "metrics": metrics,
                "retention": retention_scores(point.samples, base),
            }
        )
    return curve


def retention_scores(
    samples: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Task -> base and edited score, paired difference and ratio, with 95 % intervals; documents lost and gained.

    Lost: scored at least 0.5 before and less after. Gained: the other way.
    """
    scores: dict[str, dict[str, Any]] = {}
    for task in dict.fromkeys(row["task"] for row in samples):
        after = [row["score"] for row in samples if row["task"] == task]
        before = [row["score"] for row in base if row["task"] == task]
        scores[task] = {
            **retained(after, before),
            "metric": next(row["metric"] for row in samples if row["task"] == task),
        }
    return scores


def beside(
    rows: Sequence[Mapping[str, Any]],
    base: Sequence[Mapping[str, Any]],
    place: Sequence[str],
    columns: Sequence[str],
) -> list[dict[str, Any]]:
    """``rows``, each with ``columns`` of the base's row at the same ``place`` as ``base_...``: a record explains itself."""
    before = {tuple(row[key] for key in place): row for row in base}
    return [
        {**row, **{f"base_{c}": before[tuple(row[key] for key in place)][c] for c in columns}}
        for row in rows
    ]
