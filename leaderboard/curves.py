"""Draw a run's scores against the number of facts, with one line for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from editbench.errors import RecordError
from editbench.leaderboard.loading import load_cells
from editbench.leaderboard.plots import check_can_draw, literal, saved
from editbench.leaderboard.rows import mean_retention
from editbench.records.schema import CellSummary, CurvePoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = ("efficacy", "generalization", "specificity", "retention")


def over_facts(run: Path, output: Path) -> list[Path]:
    """Draw the curves of ``run`` as ``output`` with the endings .png and .svg; return both paths.

    Efficacy, generalization and specificity (protocol generation) and mean retention (edited /
    base) have a panel each, with 95 % intervals as bars. A point shows the scores of the facts
    injected so far. A cross marks the end of a sequence that was stopped.

    Raises:
        MissingPackageError: without matplotlib.
        RecordError: if ``run`` is not readable or has no curves.
    """
    check_can_draw()
    config, summaries = load_cells(run)
    drawn = [summary for summary in summaries if summary.get("curve")]
    if not drawn:
        raise RecordError(
            f"{run} has no curve over the number of facts. Run with --curve 1,10,100."
        )
    return _draw(drawn, config, output)


def _draw(drawn: Sequence[CellSummary], config: Mapping[str, object], output: Path) -> list[Path]:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    ticks = config["curve"]
    counts = [int(count) for count in ticks] if isinstance(ticks, Sequence) else []
    figure = Figure(figsize=(4.2 * len(PANELS), 3.8), layout="constrained")
    grid = figure.subplots(1, len(PANELS))
    for axes, name in zip(grid, PANELS, strict=True):
        for i, summary in enumerate(drawn):
            _line(axes, summary, name, colormaps["tab10"](i % 10))
        axes.set(xscale="log", xlabel="facts", title=name)
        # A retention above 1 is possible, since it is a ratio.
        axes.set_ylim(-0.03, max(1.03, axes.get_ylim()[1]) if name == "retention" else 1.03)
        axes.set_xticks(counts, list(map(str, counts)))
        axes.minorticks_off()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    title = (
        f"{config['model']}, {config['corpus']} ({config['part']}), "
        f"regime {config['regime']}, seed {config['seed']}"
    )
    figure.suptitle(literal(title), fontsize=10)
    return saved(figure, output)


def _line(
    axes: Axes, summary: CellSummary, name: str, color: tuple[float, float, float, float]
) -> None:
    """Draw the curve of one cell in the panel ``name``; nothing if no point has that score."""
    points = [
        (point["facts"], *value)
        for point in summary.get("curve") or ()
        if (value := _value(point, name, summary["method"]))
    ]
    if not points:
        return
    facts, means, below, above = zip(*points, strict=True)
    axes.errorbar(
        facts,
        means,
        (below, above),
        label=literal(summary["method"]),
        elinewidth=0.7,
        color=color,
        linewidth=1.2,
        markersize=4,
        marker="o",
    )
    if summary["status"] == "stopped":
        axes.plot(facts[-1], means[-1], "x", color=color, markersize=10)


def _value(point: CurvePoint, name: str, method: str) -> tuple[float, float, float] | None:
    """Return the mean, and how far its interval reaches below and above it.

    Both distances are 0 if there is no interval. The result is ``None`` if there is no mean.
    """
    if name == "retention":
        score = mean_retention(method, point["retention"])
    else:
        scores = (point["metrics"].get(name) or {}).get("generation")
        if scores is None:
            return None
        score = scores
    mean = score["mean"]
    if mean is None:
        return None
    low, high = (mean if end is None else end for end in (score["low"], score["high"]))
    # Bonett and Price's intervals are centred on a shrunken mean, so the mean may lie outside, and
    # matplotlib refuses negative lengths.
    return mean, max(mean - low, 0.0), max(high - mean, 0.0)
