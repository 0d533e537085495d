"""Compute the scores of a cell from the rows that its evaluation wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from editbench.eval import probes
from editbench.records.schema import CurvePoint, RightAfter
from editbench.rows import ProbeRow, RetentionRow, SampleRow, TwiceRow
from editbench.run.regimes import Point
from editbench.stats import asked_twice, retained
from editbench.types import METRICS, PROTOCOLS, Case


def curve_scores(
    points: Sequence[Point], cases: Sequence[Case], base: Sequence[SampleRow]
) -> list[CurvePoint]:
    """Return the scores at each point of a curve.

    At each point only facts that were injected by then count, and only probes that need no later
    fact.

    Args:
        points: the rows of each point.
        cases: all cases of the run, in the order in which their facts are injected.
        base: the retention samples of the unedited model.
    """
    # A sequence that stops may have been asked at that number of facts already. Its last point, in
    # which all facts are asked, then takes the place of the earlier one.
    last_at = {point.facts: point for point in points}
    return [
        {
            "facts": point.facts,
            "metrics": probes.metrics(asked) if (asked := _taught(point, cases)) else {},
            "retention": retention_scores(point.samples, base),
        }
        for point in last_at.values()
    ]


def _taught(point: Point, cases: Sequence[Case]) -> list[ProbeRow]:
    """Return the rows of the facts that were injected, without probes that need a later fact."""
    taught = {case.fact.id for case in cases[: point.facts]}
    too_early = {
        (case.fact.id, i)
        for case in cases
        for i, probe in enumerate(case.probes)
        if not taught.issuperset(probe.needs)
    }
    return [
        row
        for row in point.probes
        if row["case"] in taught and (row["case"], row["probe"]) not in too_early
    ]


def right_after_scores(first: Sequence[ProbeRow], last: Sequence[ProbeRow], n: int) -> RightAfter:
    """Return the scores of a sequence's facts right after their chunk and at the end, paired.

    Facts that were not injected, or that a later fact replaced, count in neither.

    Args:
        first: the rows asked right after each chunk (``regimes.Outcome.right_after``).
        last: the rows asked at the end.
        n: number of facts of the run.
    """
    at_end = {(row["case"], row["probe"]): row for row in last}
    kept = [row for row in first if not row["replaced"]]
    scores: dict[str, dict[str, TwiceRow]] = {}
    for name, axis in METRICS.items():
        pairs = [(row, at_end[row["case"], row["probe"]]) for row in kept if row["axis"] == axis]
        if pairs:
            scores[name] = {protocol: _twice(pairs, protocol) for protocol in PROTOCOLS}
    asked, compared = ({row["case"] for row in rows} for rows in (first, kept))
    return {
        "facts": len(compared),
        "replaced": len(asked) - len(compared),
        "not_injected": n - len(asked),
        "scores": scores,
    }


def _twice(pairs: Sequence[tuple[Mapping[str, object], ...]], protocol: str) -> TwiceRow:
    first, last = ([cast("float | None", pair[i][protocol]) for pair in pairs] for i in (0, 1))
    return asked_twice(first, last, [pair[0]["case"] for pair in pairs], protocol)


def retention_scores(
    samples: Sequence[SampleRow], base: Sequence[SampleRow]
) -> dict[str, RetentionRow]:
    """Return the scores of each retention task (``rows.RetentionRow``), with 95 % intervals.

    Args:
        samples: the documents as the edited model answered them.
        base: the same documents as the unedited model answered them, in the same order.
    """
    scores: dict[str, RetentionRow] = {}
    for task in dict.fromkeys(row["task"] for row in samples):
        after = [row["score"] for row in samples if row["task"] == task]
        before = [row["score"] for row in base if row["task"] == task]
        metric = next(row["metric"] for row in samples if row["task"] == task)
        scores[task] = {**retained(after, before), "metric": metric}
    return scores


def beside(
    rows: Sequence[Mapping[str, object]],
    base: Sequence[Mapping[str, object]],
    place: Sequence[str],
    columns: Sequence[str],
) -> list[dict[str, object]]:
    """Return ``rows`` with columns of the unedited model, so that a record explains itself.

    Args:
        rows: rows of the edited model.
        base: rows of the unedited model.
        place: the columns that name the item of a row; rows of one item are matched.
        columns: the columns of ``base`` to add, as ``base_COLUMN``.
    """
    before = {tuple(row[key] for key in place): row for row in base}
    return [
        {**row, **{f"base_{c}": before[tuple(row[key] for key in place)][c] for c in columns}}
        for row in rows
    ]
