"""A row of a ranking as one flat record of numbers and short texts."""

from __future__ import annotations

from collections.abc import Sequence

from editbench.leaderboard.rows import axes_of, axis_of
from editbench.leaderboard.schema import Row


def flat(row: Row, ranked: Sequence[Row]) -> dict[str, object]:
    """Return ``row`` as one record, JSON-ready; ``None``: not measured.

    For each score that a table of ``ranked`` shows it has the mean under the score's name, the ends
    of its interval under NAME_low and NAME_high and, of several seeds, NAME_spread. Then come the
    score, the seconds of the injection, the peak memory in bytes, and the status.
    """
    record: dict[str, object] = {"method": row.get("label", row["method"])}
    for axis in axes_of(ranked):
        record |= _interval(axis, dict(axis_of(row, axis) or {}))
    record |= _interval("retention", dict(row["retention_mean"]))
    for name, score in (row.get("evaluators") or {}).items():
        record |= _interval(name, dict(score))
    return {
        **record,
        "score": row["score"],
        "seconds": row["seconds"],
        "peak_memory": row["peak_memory_bytes"],
        "status": row["status"],
    }


def _interval(name: str, score: dict[str, object]) -> dict[str, object]:
    ends = {f"{name}_{end}": score.get(end) for end in ("low", "high")}
    spread = {f"{name}_spread": score["spread"]} if "spread" in score else {}
    return {name: score.get("mean"), **ends, **spread}
