"""Make the tables below a ranking, as text.

They are the scores right after each chunk, the curve over facts, and the cost of each cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from editbench.leaderboard.rows import AXES, BASE, interval_row, look_up
from editbench.leaderboard.schema import Row, Summary
from editbench.records.schema import CurvePoint, VitalSigns
from editbench.stats import cells_text, mean_ratio, number

TWICE = ("Metric", "Right after", "At the end", "Change")
"""Columns of the table of a sequence's facts that were asked twice."""


def right_after(ranked: Sequence[Row]) -> list[dict[str, str]]:
    """Return a row for each method and metric of a sequence, right after each chunk and at the end.

    There are no rows if no cell of ``ranked`` was asked twice.
    """
    return [
        {"Method": row.get("label", row["method"]), "Facts": facts_text(row), **scores}
        for row in twice_rows(ranked)
        for scores in twice_texts(row) or [dict.fromkeys(TWICE, "–")]
    ]


def twice_rows(ranked: Sequence[Row]) -> list[Row]:
    """Return the rows of a sequence that was asked right after its chunks.

    If there are any, edits whose older records lack these answers are among them.
    """
    edited = [row for row in ranked if row["method"] != BASE and row["status"] != "failed"]
    return edited if any("right_after" in row for row in edited) else []


def facts_text(row: Row) -> str:
    """Return how many facts of a sequence are compared, and why the others are not."""
    twice = row.get("right_after")
    if twice is None:
        return "not asked right after"
    left = {"not injected": twice["not_injected"], "replaced": twice["replaced"]}
    reasons = [f"{count} {why}" for why, count in left.items() if count]
    counts = f"{twice['facts']} of {twice['facts'] + sum(left.values())} facts"
    return ", ".join([counts, *reasons])


def twice_texts(row: Row) -> list[dict[str, str]]:
    """Return a line with the columns ``TWICE`` for each metric that was asked twice."""
    twice = row.get("right_after")
    lines = [
        (
            f"{axis} ↑",
            cells_text(scores["right_after"]),
            cells_text(scores["at_end"]),
            cells_text(scores["change"], sign=True),
        )
        for axis, scores in (twice["scores"] if twice else {}).items()
    ]
    return [dict(zip(TWICE, line, strict=True)) for line in lines]


def curve(
    summaries: Sequence[Summary], labels: Mapping[str, str], protocol: str
) -> list[dict[str, str]]:
    """Return a row for each point of each cell's curve.

    It has the scores of the facts injected so far and, for a sequence, its vital signs.
    """
    lines = []
    for summary in summaries:
        if summary["method"] == BASE:
            continue
        signs = {signs["facts"]: signs for signs in summary.get("trajectory") or ()}
        for point in summary.get("curve") or ():
            label = labels.get(summary["key"], summary["method"])
            lines.append(_point(label, point, signs.get(point["facts"]), protocol))
    return lines


def _point(
    label: str, point: CurvePoint, signs: VitalSigns | None, protocol: str
) -> dict[str, str]:
    metrics = point["metrics"]
    return {
        "method": label,
        "facts": str(point["facts"]),
        **{axis: cells_text((metrics.get(axis) or {}).get(protocol)) for axis in AXES},
        "retention": cells_text(interval_row(mean_ratio(point["retention"]))),
        "own text's perplexity": _times(signs.get("perplexity_ratio") if signs else None),
        "largest weight": _times(signs.get("norm_growth") if signs else None),
    }


def costs(summaries: Sequence[Summary], labels: Mapping[str, str]) -> list[dict[str, str]]:
    """Return a row for each cell; no rows if no cell has counted its work.

    It has the seconds by phase, the tokens through the decoder layers while injecting, and the peak
    memory.
    """
    if not any(summary.get("work") for summary in summaries):
        return []
    phases = dict.fromkeys(
        phase for summary in summaries for phase in summary.get("seconds") or () if phase != "total"
    )
    repeated = any("inject_seconds" in summary for summary in summaries)
    return [
        _cost(labels.get(summary["key"], summary["method"]), summary, list(phases), repeated)
        for summary in summaries
    ]


def _cost(label: str, summary: Summary, phases: Sequence[str], repeated: bool) -> dict[str, str]:
    seconds = summary.get("seconds") or {}
    work = (summary.get("work") or {}).get("inject") or {}
    repeats = look_up(summary, ("inject_seconds",))
    on_gpu = look_up(summary, ("environment", "device")) == "cuda"
    return {
        "method": label,
        **{f"{phase}, s": _seconds(seconds.get(phase)) for phase in phases},
        **({"injections": _spread(repeats)} if repeated else {}),
        "forward passes": _count(work.get("passes")),
        "tokens": _count(work.get("tokens")),
        "with gradients": _count(work.get("gradient_tokens")),
        "decoded": _count(work.get("decoded_tokens")),
        "trained": _count(work.get("trained_tokens")),
        "process, GiB": _gib(summary.get("peak_process_bytes")),
        # Without a GPU this is the peak of the process, which already has a column.
        "device, GiB": _gib(summary.get("peak_memory_bytes") if on_gpu else None),
    }


def _seconds(value: float | None) -> str:
    finite = number(value)
    return "–" if finite is None else f"{finite:.1f}"


def _spread(seconds: object) -> str:
    if not isinstance(seconds, Sequence) or not seconds:
        return "–"
    return f"median of {len(seconds)}: {min(seconds):.1f} to {max(seconds):.1f} s"


def _times(value: float | None) -> str:
    finite = number(value)
    return "–" if finite is None else f"× {finite:.3g}"


def _count(value: float | None) -> str:
    finite = number(value)
    return "–" if finite is None else f"{finite:,.0f}"


def _gib(value: int | None) -> str:
    return f"{value / 2**30:.1f}" if value else "–"
