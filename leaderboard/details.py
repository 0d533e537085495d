"""What stands below a ranking: the curve over facts, and what each cell cost. Rows of texts, ready for any table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from editbench.leaderboard.rows import AXES, BASE
from editbench.stats import cells_text, mean_ratio, number


def curve(
    summaries: Sequence[Mapping[str, Any]], labels: Mapping[str, str], protocol: str
) -> list[dict[str, str]]:
    """A row for each cell and point of its curve: scores of the facts injected by then, and the vital signs of a sequence."""
    found = []
    for summary in summaries:
        signs = {one["facts"]: one for one in summary.get("trajectory") or ()}
        for point in summary.get("curve") or ():
            if summary["method"] == BASE:
                continue
            sign = signs.get(point["facts"], {})
            found.append(
                {
                    "method": labels.get(summary["key"], summary["method"]),
                    "facts": str(point["facts"]),
                    **{
                        axis: cells_text((point["metrics"].get(axis) or {}).get(protocol))
                        for axis in AXES
                    },
                    "retention": cells_text(mean_ratio(point["retention"]).to_dict()),
                    "own text's perplexity": _times(sign.get("perplexity_ratio")),
                    "largest weight": _times(sign.get("norm_growth")),
                }
            )
    return found


def costs(
    summaries: Sequence[Mapping[str, Any]], labels: Mapping[str, str]
) -> list[dict[str, str]]:
    """A row a cell: seconds by phase, tokens through the decoder layers while injecting, memory."""
    phases = dict.fromkeys(
        phase for summary in summaries for phase in summary.get("seconds") or () if phase != "total"
    )
    repeated = any("inject_seconds" in summary for summary in summaries)
    found = []
    for summary in summaries:
        on_gpu = (summary.get("environment") or {}).get("device") == "cuda"
        seconds, work = (
            summary.get("seconds") or {},
            (summary.get("work") or {}).get("inject") or {},
        )
        found.append(
            {
                "method": labels.get(summary["key"], summary["method"]),
                **{f"{phase}, s": _seconds(seconds.get(phase)) for phase in phases},
                **({"injections": _spread(summary.get("inject_seconds"))} if repeated else {}),
                "forward passes": _count(work.get("passes")),
                "tokens": _count(work.get("tokens")),
                "with gradients": _count(work.get("gradient_tokens")),
                "decoded": _count(work.get("decoded_tokens")),
                "trained": _count(work.get("trained_tokens")),
                "process, GiB": _gib(summary.get("peak_process_bytes")),
                "device, GiB": _gib(summary.get("peak_memory_bytes") if on_gpu else None),
            }
        )
    return found if any(summary.get("work") for summary in summaries) else []


def _seconds(value: float | None) -> str:
    return "–" if number(value) is None else f"{value:.1f}"


def _spread(seconds: Sequence[float] | None) -> str:
    return (
        f"median of {len(seconds)}: {min(seconds):.1f} to {max(seconds):.1f} s" if seconds else "–"
    )


def _times(value: float | None) -> str:
    return "–" if number(value) is None else f"× {value:.3g}"


def _count(value: float | None) -> str:
    return "–" if number(value) is None else f"{value:,.0f}"


def _gib(value: int | None) -> str:
    return "–" if not value else f"{value / 2**30:.1f}"
