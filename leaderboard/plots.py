"""Draw memorization against retention, for the cells of several runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from editbench.errors import RecordError, check_package
from editbench.files import replacing
from editbench.leaderboard.loading import load_cells
from editbench.leaderboard.rows import BASE, axis_of, family, refuse_mixture, rows, without_facts
from editbench.leaderboard.schema import AxisRow, Row
from editbench.records.schema import CellSummary
from editbench.rows import IntervalRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

PANELS = ("efficacy", "generalization")
PLACES = (
    (6, 5, "left", "bottom"),
    (6, -5, "left", "top"),
    (-6, 5, "right", "bottom"),
    (-6, -5, "right", "top"),
)
"""Places of a point's label, best first: its offset in points, and the alignment of the text."""
Color = str | tuple[float, float, float, float]
Point = tuple[float, float]


def check_can_draw() -> None:
    """Raise a ``MissingPackageError`` without matplotlib."""
    check_package("A picture", "matplotlib", "plot")


def trade_off(runs: Sequence[Path], output: Path) -> list[Path]:
    """Draw all cells of ``runs`` as ``output`` with the endings .png and .svg; return both paths.

    Efficacy and generalization (protocol generation) have a panel each, against mean retention
    (the ratio edited / base). Each method has a colour. A line joins the variants of one method in
    one run, in the order of the run. Variants that differ in ``stop_after`` are the points of one
    training. Crosses are 95 % intervals.

    Raises:
        MissingPackageError: without matplotlib.
        RecordError: if a run is not readable, if cells cannot share a ranking, or if no cell has
            both efficacy and retention.
    """
    check_can_draw()
    cells: dict[str, CellSummary] = {}
    places: dict[str, Path] = {}
    limits: dict[str, object] = {}
    for path in map(Path, runs):
        config, summaries = load_cells(path)
        for summary in summaries:
            key = summary["key"]
            # A key is the hash of a cell's inputs, so another run with it holds the same cell.
            if key not in cells or cells[key].get("status") == "failed":
                cells[key], places[key], limits[key] = summary, path, config.get("limit")
    refuse_mixture(list(cells.values()), "retention limit", list(limits.values()))
    by_key = {row["key"]: row for row in rows(list(cells.values()))}
    drawn = [by_key[key] for key in cells if by_key[key]["retention_mean"]["mean"] is not None]
    if all(row["efficacy"]["mean"] is None for row in drawn):
        named = ", ".join(map(str, runs))
        advice = "Run with facts." if without_facts(list(by_key.values())) else "Run with --tasks."
        raise RecordError(
            f"No cell of {named} has both efficacy and retention, so there is nothing to draw. "
            f"{advice}"
        )
    return _draw(drawn, places, next(iter(cells.values())), output)


def _draw(
    drawn: Sequence[Row], places: Mapping[str, Path], summary: CellSummary, output: Path
) -> list[Path]:
    from matplotlib.figure import Figure

    colors = _colors(drawn)
    panels = [axis for axis in PANELS if _measured(drawn, axis)]
    figure = Figure(figsize=(1.6 + 4.6 * len(panels), 4.4), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    labels: list[tuple[Axes, Annotation]] = []
    points: dict[Axes, list[Point]] = {}
    for axes, axis in zip(grid, panels, strict=True):
        here = _measured(drawn, axis)
        points[axes] = [_point(row, axis) for row in here]
        labels += [(axes, note) for note in _panel(axes, axis, here, places, colors)]
    tasks = max(row["retention_mean"]["n"] for row in drawn)
    grid[0].set_ylabel(f"retention: edited / base, mean of {tasks} task{'s' * (tasks > 1)}")
    # Empty plots make one entry of the legend for each method, not for each cell.
    for name, color in colors.items():
        grid[0].plot([], [], linestyle="", label=name, color=color, marker=_marker(name))
    figure.legend(loc="outside right upper", frameon=False)
    corpus = summary["corpus"]
    conditions = (
        f"{summary['model']['name']}, {corpus['name']} ({corpus['part']}), n = {corpus['n']}, "
        "protocol generation"
    )
    figure.suptitle(literal(f"Memorization against retention\n{conditions}"), fontsize=10)
    _place(figure, labels, points)
    return saved(figure, output)


def _colors(drawn: Sequence[Row]) -> dict[str, Color]:
    """Return a colour for each method, in the order of the run; black for the base."""
    from matplotlib import colormaps

    families = list(dict.fromkeys(family(row["method"]) for row in drawn if row["method"] != BASE))
    colors: dict[str, Color] = {name: colormaps["tab10"](i % 10) for i, name in enumerate(families)}
    if any(row["method"] == BASE for row in drawn):
        colors[BASE] = "black"
    return colors


def _marker(name: str) -> str:
    return "D" if name == BASE else "o"


def saved(figure: Figure, output: Path) -> list[Path]:
    """Write ``output`` with the endings .png and .svg, and return both paths."""
    from matplotlib import rc_context

    output.parent.mkdir(parents=True, exist_ok=True)
    written = [output.with_suffix(".png"), output.with_suffix(".svg")]
    # With a fixed salt and without a date, the SVG file is the same each time. Its text stays text.
    with rc_context({"svg.hashsalt": "editbench", "svg.fonttype": "none"}):
        with replacing(written[0]) as png, replacing(written[1]) as svg:
            figure.savefig(png, dpi=150)
            figure.savefig(svg, metadata={"Date": None})
    return written


def _measured(drawn: Sequence[Row], axis: str) -> list[Row]:
    """Return the rows that have a score of ``axis``."""
    scores = [(row, axis_of(row, axis)) for row in drawn]
    return [row for row, score in scores if score is not None and score["mean"] is not None]


def _point(row: Row, axis: str) -> Point:
    """Return the position of a row in the panel of ``axis``; NaN where it has no score."""
    score = axis_of(row, axis)
    return _known(score["mean"] if score else None), _known(row["retention_mean"]["mean"])


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _ends(score: AxisRow | IntervalRow | None) -> list[list[float]]:
    """Return how far the interval of ``score`` reaches below and above its mean."""
    if score is None or (mean := score["mean"]) is None:
        return [[math.nan], [math.nan]]
    ends = (score["low"], score["high"])
    return [[math.nan if end is None else abs(mean - end)] for end in ends]


def _panel(
    axes: Axes,
    axis: str,
    here: Sequence[Row],
    places: Mapping[str, Path],
    colors: Mapping[str, Color],
) -> list[Annotation]:
    """Draw the points, crosses and lines of one metric. Return the labels, not yet placed."""
    labels = []
    axes.axhline(1, color="0.8", linewidth=0.8, zorder=0)
    for line in _lines(here, places):
        x, y = zip(*(_point(row, axis) for row in line), strict=True)
        axes.plot(x, y, color=colors[family(line[0]["method"])], alpha=0.5)
    for row in here:
        name = family(row["method"])
        x_mean, y_mean = _point(row, axis)
        axes.errorbar(
            x_mean,
            y_mean,
            _ends(row["retention_mean"]),
            _ends(axis_of(row, axis)),
            markersize=5,
            linewidth=0.7,
            alpha=0.9,
            color=colors[name],
            marker=_marker(name),
        )
        if text := row.get("label", name).removeprefix(name).lstrip("@ "):
            note = axes.annotate(
                literal(text), (x_mean, y_mean), (0, 0), textcoords="offset points", fontsize=7
            )
            note.set(color=colors[name], in_layout=False)
            labels.append(note)
    axes.set(xlabel=f"{axis} (95 % interval)", xlim=(-0.03, 1.03))
    return labels


def _lines(here: Sequence[Row], places: Mapping[str, Path]) -> list[list[Row]]:
    """Return the rows that each line joins: the variants of one method in one run, in its order.

    Variants with different ``stop_after`` are points of trainings. Each training gets a line.
    """
    variants: dict[tuple[str, Path], list[Row]] = {}
    for row in here:
        if "@" in row["method"]:
            variants.setdefault((family(row["method"]), places[row["key"]]), []).append(row)
    lines: list[list[Row]] = []
    for line in variants.values():
        if len({row["options"].get("stop_after") for row in line}) == 1:
            lines.append(line)
            continue
        trainings: dict[str, list[Row]] = {}
        for row in sorted(line, key=_stop_after):
            # Equal options except for ``stop_after`` mean the same training.
            training = json.dumps({**row["options"], "stop_after": None}, sort_keys=True)
            trainings.setdefault(training, []).append(row)
        lines += trainings.values()
    return lines


def _stop_after(row: Row) -> float:
    """Return the share of its steps after which a training was stopped."""
    share = row["options"]["stop_after"]
    return share if isinstance(share, (int, float)) else math.nan


def _place(
    figure: Figure,
    labels: Sequence[tuple[Axes, Annotation]],
    points: Mapping[Axes, Sequence[Point]],
) -> None:
    """Move each label to a place where nothing overlaps it and its own point is the nearest.

    Other labels, points and the border count. A label without such a place is hidden.
    """
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # before this, the layout is not known
    shown: dict[Axes, list[Point]] = {
        axes: [tuple(axes.transData.transform(point)) for point in given]
        for axes, given in points.items()
    }
    taken: dict[Axes, list[Bbox]] = {
        axes: [Bbox.from_bounds(x - 3, y - 3, 6, 6) for x, y in given]
        for axes, given in shown.items()
    }
    for axes, note in labels:
        own, border = tuple(axes.transData.transform(note.xy)), axes.bbox
        for x, y, across, up in PLACES:
            note.set(position=(x, y), horizontalalignment=across, verticalalignment=up)
            box = note.get_window_extent()
            # The end of the text that is next to its point.
            end = (box.x0 if across == "left" else box.x1, (box.y0 + box.y1) / 2)
            inside = (
                border.x0 <= box.x0
                and box.x1 <= border.x1
                and border.y0 <= box.y0
                and box.y1 <= border.y1
            )
            nearest = all(math.dist(end, point) >= math.dist(end, own) for point in shown[axes])
            if inside and nearest and not box.count_overlaps(taken[axes]):
                taken[axes].append(box)
                break
        else:
            note.set_visible(False)


def literal(text: str) -> str:
    """Return ``text`` so that matplotlib reads no mathematics in it."""
    return text.replace("$", r"\$")
