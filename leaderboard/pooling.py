"""Cells that differ in nothing but the seed, as one: means over the seeds, with intervals that hold cases and seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas

from editbench.leaderboard.comparisons import RETENTION
from editbench.leaderboard.rows import warnings
from editbench.stats import clustered_mean, retained, unbounded_mean


def without_seed(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options but for the seed, or for those of both parts of a pair."""
    return {
        name: value for name, value in (options or {}).items() if name.rpartition(".")[2] != "seed"
    }


def pooled(
    summaries: Sequence[Mapping[str, Any]], tables: Sequence[pandas.DataFrame | None]
) -> tuple[dict[str, Any], pandas.DataFrame | None]:
    """The summary of cells of several seeds and all their items. ``seed`` and the corpus' ``hash`` become lists;
    ``environments`` has one a seed.

    A case that several seeds drew is one cluster. If a seed failed, so did the row: a mean over the others would be of the
    seeds that went well. Without the items of all seeds there are means and no intervals. What is told of each model alone
    (diagnostics, trajectory, curve) is left out.
    """
    first = summaries[0]
    failed = [s for s in summaries if s.get("status") == "failed"]
    items = (
        None
        if failed or any(table is None for table in tables)
        else pandas.concat(tables, ignore_index=True)
    )
    machines = [summary.get("environment") or {} for summary in summaries]
    merged = {
        **first,
        "key": "+".join(s["key"] for s in summaries),
        "options": without_seed(first.get("options")),
        "tuned": all(s.get("tuned") for s in summaries),
        "tuning": min(
            (s.get("tuning") or {} for s in summaries),
            key=lambda search: search.get("feasible", True),
        ),
        "corpus": {**first["corpus"], "hash": [s["corpus"].get("hash") for s in summaries]},
        "seed": [s["seed"] for s in summaries],
        "status": next(
            (s["status"] for s in (*failed, *summaries) if s.get("status") != "done"), "done"
        ),
        "note": "; ".join(f"seed {s['seed']}: {s['note']}" for s in summaries if s.get("note")),
        "metrics": {} if failed else _metrics(summaries, items),
        "retention": {} if failed else _retention(summaries, items),
        "seconds": _means(summaries, "seconds"),
        "work": {
            phase: _means([s.get("work") or {} for s in summaries], phase)
            for phase in first.get("work") or ()
        },
        "peak_memory_bytes": max(s.get("peak_memory_bytes") or 0 for s in summaries) or None,
        "peak_process_bytes": max(s.get("peak_process_bytes") or 0 for s in summaries) or None,
        "edit": {
            "warnings": [f"seed {s['seed']}: {one}" for s in summaries for one in warnings(s)]
        },
        "judge": {"model": (first.get("judge") or {}).get("model")},
        "environment": machines[0] if all(machine == machines[0] for machine in machines) else {},
        "environments": machines,
        **{
            name: {} for name in ("diagnostics", "curve", "trajectory")
        },  # of one cell each: they are not pooled
    }
    merged.pop("inject_seconds", None)
    return merged, items


def _metrics(
    summaries: Sequence[Mapping[str, Any]], items: pandas.DataFrame | None
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    asked = dict.fromkeys(
        (name, protocol) for s in summaries for name, of in s["metrics"].items() for protocol in of
    )
    for name, protocol in asked:
        parts = [(s["metrics"].get(name) or {}).get(protocol) or {} for s in summaries]
        value = {
            "mean": _mean([p.get("mean") for p in parts]),
            "n": _total(parts),
            "protocol": protocol,
        }
        if items is not None and value["mean"] is not None:
            axis, _, kind = name.partition("/")
            chosen = items[(items["protocol"] == protocol) & (items["column"] == axis)]
            chosen = chosen[chosen["kind"] == kind] if kind else chosen
            if len(chosen):
                interval = unbounded_mean if name == "fluency" else clustered_mean
                value = interval(chosen["score"], chosen["case"], chosen["seed"]).to_dict(
                    protocol=protocol
                )
        found.setdefault(name, {})[protocol] = value
    return found


def _retention(
    summaries: Sequence[Mapping[str, Any]], items: pandas.DataFrame | None
) -> dict[str, dict[str, Any]]:
    found = {}
    for task, first in (summaries[0].get("retention") or {}).items():
        if items is None:
            parts = [s["retention"][task] for s in summaries]
            value = {
                name: _mean([p.get(name) for p in parts])
                for name in ("base", "mean", "delta", "ratio")
            }
            value["n"] = _total(parts)
        else:
            chosen = items[(items["protocol"] == RETENTION) & (items["column"] == task)]
            value = retained(chosen["score"], chosen["base"], chosen["case"], chosen["seed"])
        found[task] = {**value, "metric": first.get("metric")}
    return found


def _means(summaries: Sequence[Mapping[str, Any]], part: str) -> dict[str, float | None]:
    return {
        name: _mean([(s.get(part) or {}).get(name) for s in summaries])
        for name in summaries[0].get(part) or ()
    }


def _total(parts: Sequence[Mapping[str, Any]]) -> int:
    return sum(p.get("n") or 0 for p in parts)


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, ``None`` where a seed has none: fewer seeds would be another mean."""
    return math.fsum(values) / len(values) if None not in values else None
