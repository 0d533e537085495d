"""Pool cells that differ only by their seed.

The means are over the seeds. The intervals cover the spread of the cases and of the seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import cast

import pandas

from editbench.leaderboard.comparisons import EVALUATORS, RETENTION, RIGHT_AFTER
from editbench.leaderboard.rows import (
    interval_row,
    keyed_options,
    mean_retention,
    mixing,
    warnings,
)
from editbench.leaderboard.schema import PooledSummary
from editbench.records.schema import ArtifactRecord, CellSummary, EvaluatorRow, RightAfter, Status
from editbench.rows import IntervalRow, Metrics, RetentionRow, TwiceRow, Work
from editbench.stats import Interval, asked_twice, clustered_mean, retained, unbounded_mean


def without_seed(options: Mapping[str, object] | None) -> dict[str, object]:
    """Return the options without the seed, or without the seeds of both parts of a pair."""
    return {
        name: value for name, value in (options or {}).items() if name.rpartition(".")[2] != "seed"
    }


def pooled(
    summaries: Sequence[CellSummary], tables: Sequence[pandas.DataFrame | None]
) -> tuple[PooledSummary, pandas.DataFrame | None]:
    """Return the summary of cells of several seeds, and all their items.

    A case that several seeds drew is one cluster. If a seed failed, the row counts as failed,
    because a mean over the others would describe only the seeds that went well. Without the items
    of all seeds there are means but no intervals.

    Args:
        tables: the ``comparisons.items`` of each cell.
    """
    first = summaries[0]
    failed = any(summary.get("status") == "failed" for summary in summaries)
    present = [table for table in tables if table is not None]
    complete = not failed and len(present) == len(tables)
    items = pandas.concat(present, ignore_index=True) if complete else None
    machines: list[Mapping[str, object]] = [s.get("environment") or {} for s in summaries]
    peaks = [s.get("peak_memory_bytes") or 0 for s in summaries]
    process_peaks = [s.get("peak_process_bytes") or 0 for s in summaries]
    merged: PooledSummary = {
        "key": "+".join(s["key"] for s in summaries),
        "method": first["method"],
        "options": without_seed(keyed_options(first)),
        "recipe": first.get("recipe"),
        "tuned": all(s.get("tuned") for s in summaries),
        # A search without a feasible trial comes first (False < True), so the row gets its mark.
        "tuning": min(
            (s.get("tuning") or {} for s in summaries),
            key=lambda search: bool(search.get("feasible", True)),
        ),
        "model": first["model"],
        "corpus": {
            "name": first["corpus"]["name"],
            "hash": [s["corpus"].get("hash") for s in summaries],
            "part": first["corpus"]["part"],
            "n": first["corpus"]["n"],
            "form": first["corpus"]["form"],
        },
        "tasks": first.get("tasks"),
        "versions": first.get("versions"),
        "regime": first["regime"],
        "seed": [s["seed"] for s in summaries],
        "limit": first.get("limit"),
        "status": _status(summaries),
        "note": "; ".join(f"seed {s['seed']}: {s['note']}" for s in summaries if s.get("note")),
        "metrics": {} if failed else _metrics(summaries, items),
        "retention": {} if failed else _retention(summaries, items),
        "retention_spread": None if failed else _retention_spread(summaries),
        "evaluators": {} if failed else _evaluators(summaries, items),
        "seconds": _means([s.get("seconds") or {} for s in summaries]),
        "work": _work(summaries),
        "peak_memory_bytes": max(peaks) or None,
        "peak_process_bytes": max(process_peaks) or None,
        "edit": {
            "warnings": [f"seed {s['seed']}: {text}" for s in summaries for text in warnings(s)]
        },
        "judge": {"model": (first.get("judge") or {}).get("model")},
        "environment": dict(machines[0]) if all(m == machines[0] for m in machines) else {},
        "environments": machines,
        "diagnostics": {},
        "curve": [],
        "trajectory": [],
    }
    if (artifact := _artifact(summaries)) is not None:
        merged["artifact"] = artifact
    if origins := first.get("origins"):
        merged["origins"] = origins
    shares = [mixing(summary) for summary in summaries]
    if shares[0]:
        effective = [share["effective_lambda"] if share else None for share in shares]
        merged["mixing"] = {"lam": shares[0]["lam"], "effective_lambda": _mean(effective)}
    if items is not None and (twice := _right_after(summaries, items)):
        merged["right_after"] = twice
    return merged, items


def _artifact(summaries: Sequence[CellSummary]) -> ArtifactRecord | None:
    """Return the artifact of all seeds, with the facts of all of them that it was made for."""
    parts = [made for summary in summaries if (made := summary.get("artifact")) is not None]
    if not parts:
        return None
    merged = parts[0].copy()
    if "taught" in merged:
        merged["taught"] = sum(part.get("taught", 0) for part in parts)
        merged["asked"] = sum(part.get("asked", 0) for part in parts)
    return merged


def _status(summaries: Sequence[CellSummary]) -> Status:
    statuses = [summary.get("status", "done") for summary in summaries]
    if "failed" in statuses:
        return "failed"
    return next((status for status in statuses if status != "done"), "done")


def _metrics(summaries: Sequence[CellSummary], items: pandas.DataFrame | None) -> Metrics:
    metrics: Metrics = {}
    scored = dict.fromkeys(
        (name, protocol)
        for summary in summaries
        for name, by_protocol in summary["metrics"].items()
        for protocol in by_protocol
    )
    for name, protocol in scored:
        parts = [(s["metrics"].get(name) or {}).get(protocol) for s in summaries]
        values = _means_of(parts, protocol)
        if items is not None and values["mean"] is not None:
            axis, _, kind = name.partition("/")
            chosen = items[(items["protocol"] == protocol) & (items["column"] == axis)]
            chosen = chosen[chosen["kind"] == kind] if kind else chosen
            if len(chosen):
                interval = interval_row(_estimate(chosen, shares=name != "fluency"))
                values = {**values, **interval}
        metrics.setdefault(name, {})[protocol] = values
    return metrics


def _means_of(parts: Sequence[IntervalRow | None], protocol: str) -> IntervalRow:
    """Return the mean and the spread of the seeds' means, without an interval."""
    means = [part.get("mean") if part else None for part in parts]
    return {
        "mean": _mean(means),
        "spread": _spread(means),
        "low": None,
        "high": None,
        "n": sum(part.get("n") or 0 for part in parts if part),
        "clusters": 0,
        "protocol": protocol,
    }


def _estimate(chosen: pandas.DataFrame, shares: bool) -> Interval:
    """Return the mean of ``score`` over seeds and cases.

    Args:
        shares: whether scores lie in [0, 1]. Entropies do not.
    """
    columns = chosen["score"].tolist(), chosen["case"].tolist(), chosen["seed"].tolist()
    return clustered_mean(*columns) if shares else unbounded_mean(*columns)


def _retention(
    summaries: Sequence[CellSummary], items: pandas.DataFrame | None
) -> dict[str, RetentionRow]:
    tasks = {}
    for task, first in (summaries[0].get("retention") or {}).items():
        values: dict[str, object]
        if items is None:
            parts: list[Mapping[str, object]] = [s["retention"][task] for s in summaries]
            values = {
                name: _mean([_number(part.get(name)) for part in parts])
                for name in ("base", "mean", "delta", "ratio")
            }
            values["n"] = sum(s["retention"][task].get("n") or 0 for s in summaries)
        else:
            chosen = items[(items["protocol"] == RETENTION) & (items["column"] == task)]
            values = dict(
                retained(
                    chosen["score"].tolist(),
                    chosen["base"].tolist(),
                    chosen["case"].tolist(),
                    chosen["seed"].tolist(),
                )
            )
        # Without items there are no interval ends and no counts of lost and gained documents. These
        # fields stay absent, as in old records.
        tasks[task] = cast(RetentionRow, {**values, "metric": first.get("metric")})
    return tasks


def _retention_spread(summaries: Sequence[CellSummary]) -> float | None:
    """Return the standard deviation of the seeds' mean ratios edited / base."""
    ratios = [mean_retention(s["method"], s.get("retention") or {})["mean"] for s in summaries]
    return _spread(ratios)


def _evaluators(
    summaries: Sequence[CellSummary], items: pandas.DataFrame | None
) -> dict[str, EvaluatorRow]:
    """Return the mean of each evaluator plug-in that scored all seeds."""
    pooled_scores: dict[str, EvaluatorRow] = {}
    for name, first in (summaries[0].get("evaluators") or {}).items():
        parts = [(summary.get("evaluators") or {}).get(name) for summary in summaries]
        values = _means_of(parts, first.get("protocol", name))
        if items is not None and values["mean"] is not None:
            chosen = items[(items["protocol"] == EVALUATORS) & (items["column"] == name)]
            if chosen["seed"].nunique() == len(summaries):
                interval = interval_row(_estimate(chosen, shares=True))
                values.update(interval)
        pooled_scores[name] = {
            **values,
            "title": first["title"],
            "base": _mean([part["base"] if part else None for part in parts]),
        }
    return pooled_scores


def _right_after(summaries: Sequence[CellSummary], items: pandas.DataFrame) -> RightAfter | None:
    """Return the scores right after each chunk and at the end; ``None`` if a seed lacks them."""
    parts = [part for summary in summaries if (part := summary.get("right_after"))]
    if len(parts) < len(summaries):
        return None
    scores: dict[str, dict[str, TwiceRow]] = {}
    for axis, protocol in dict.fromkeys(
        (axis, protocol)
        for part in parts
        for axis, named in part["scores"].items()
        for protocol in named
    ):
        on_axis = items[items["column"] == axis]
        both = on_axis[on_axis["protocol"] == RIGHT_AFTER + protocol].merge(
            on_axis[on_axis["protocol"] == protocol],
            on=["seed", "case", "item"],
            suffixes=("", "_end"),
        )
        scores.setdefault(axis, {})[protocol] = asked_twice(
            both["score"].tolist(),
            both["score_end"].tolist(),
            both["case"].tolist(),
            protocol,
            both["seed"].tolist(),
        )
    return {
        "facts": sum(part["facts"] for part in parts),
        "replaced": sum(part["replaced"] for part in parts),
        "not_injected": sum(part["not_injected"] for part in parts),
        "scores": scores,
    }


def _work(summaries: Sequence[CellSummary]) -> dict[str, Work]:
    pooled_work = {}
    for phase in summaries[0].get("work") or {}:
        parts: list[Mapping[str, object]] = [
            (s.get("work") or {}).get(phase, {}) for s in summaries
        ]
        pooled_work[phase] = cast(Work, _means(parts))
    return pooled_work


def _means(parts: Sequence[Mapping[str, object]]) -> dict[str, float | None]:
    """Return the mean of each field that the first part has."""
    return {name: _mean([_number(part.get(name)) for part in parts]) for name in parts[0]}


def _number(value: object) -> float | None:
    return value if isinstance(value, (int, float)) else None


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean, or ``None`` if a seed has no value.

    A mean over the other seeds would be a different figure.
    """
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


def _spread(values: Sequence[float | None]) -> float | None:
    """Return the standard deviation (n - 1), or ``None`` if a seed has no value."""
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) == len(values) > 1 else None
