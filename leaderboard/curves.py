"""A run with --curve in, one picture out: every score against the number of facts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editbench.errors import RecordError
from editbench.leaderboard.plots import literal, saved
from editbench.leaderboard.rows import mean_retention
from editbench.records.reading import load_run

PANELS = ("efficacy", "generalization", "specificity", "retention")


def over_facts(run: Path, output: Path) -> list[Path]:
    """Draws the curves of ``run`` as ``output`` with the endings .png and .svg; returns both paths.

    A panel for efficacy, generalization and specificity (protocol generation, bars: 95 % intervals) and one for mean retention
    (edited / base) against the number of facts injected by then, of which alone the scores are. A cross ends the curve of a
    sequence that was stopped.

    Raises:
        RecordError: no readable run, or one without curves.
    """
    config, summaries = load_run(run)
    drawn = [summary for summary in summaries if summary.get("curve")]
    if not drawn:
        raise RecordError(
            f"{run} has no curve over the number of facts. Run with --curve 1,10,100."
        )
    return _draw(drawn, config, output)


def _draw(drawn: list[dict[str, Any]], config: Mapping[str, Any], output: Path) -> list[Path]:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(PANELS), 3.8), layout="constrained")
    grid = figure.subplots(1, len(PANELS))
    for axes, name in zip(grid, PANELS, strict=True):
        for i, summary in enumerate(drawn):
            points = [
                (at["facts"], *value)
                for at in summary["curve"]
                if (value := _value(at, name, summary["method"]))
            ]
            if not points:
                continue
            facts, means, below, above = zip(*points, strict=True)
            style = {
                "color": colormaps["tab10"](i % 10),
                "linewidth": 1.2,
                "markersize": 4,
                "marker": "o",
            }
            axes.errorbar(
                facts,
                means,
                (below, above),
                label=literal(summary["method"]),
                elinewidth=0.7,
                **style,
            )
            if summary["status"] == "stopped":
                axes.plot(facts[-1], means[-1], "x", color=style["color"], markersize=10)
        axes.set(xscale="log", xlabel="facts", title=name)
        axes.set_ylim(-0.03, max(1.03, axes.get_ylim()[1]) if name == "retention" else 1.03)
        axes.set_xticks(config["curve"], map(str, config["curve"]))
        axes.minorticks_off()
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    about = f"{config['model']}, {config['corpus']} ({config['part']}), regime {config['regime']}, seed {config['seed']}"
    figure.suptitle(literal(about), fontsize=10)
    return saved(figure, output)


def _value(at: Mapping[str, Any], name: str, method: str) -> tuple[float, float, float] | None:
    """Mean, and how far its interval reaches below and above (NaN where it has none)."""
    if name == "retention":
        found = mean_retention(method, at["retention"])
    else:
        found = (at["metrics"].get(name) or {}).get("generation")
    if not found or found["mean"] is None:
        return None
    low, high = (found["mean"] if end is None else end for end in (found["low"], found["high"]))
    return found["mean"], max(found["mean"] - low, 0.0), max(high - found["mean"], 0.0)
