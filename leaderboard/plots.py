"""Run folders in, one picture out: what is memorized against what is retained."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from editbench.errors import RecordError
from editbench.leaderboard.rows import BASE, family, refuse_mixture, rows
from editbench.records.reading import load_run

PANELS = ("efficacy", "generalization")
PLACES = (
    (6, 5, "left", "bottom"),
    (6, -5, "left", "top"),
    (-6, 5, "right", "bottom"),
    (-6, -5, "right", "top"),
)
"""Where a point's label may stand, best first: offset in points, and the corner of the text that is there."""
NAN = math.nan


def trade_off(runs: Sequence[Path], output: Path) -> list[Path]:
    """Draws all cells of ``runs`` as ``output`` with the endings .png and .svg; returns both paths.

    One panel for efficacy, one for generalization (protocol generation) against mean retention, the ratio edited / base. A
    colour is a method; the variants of one method in one run are joined in the order of the run, those that differ in
    ``stop_after`` as the points of one training. Crosses are 95 % intervals.

    Raises:
        RecordError: no readable run, cells that cannot share a ranking, or none with both efficacy and retention.
    """
    cells: dict[str, dict[str, Any]] = {}
    places: dict[str, Path] = {}
    limits: dict[str, Any] = {}
    for path in map(Path, runs):
        config, summaries = load_run(path)
        for summary in summaries:
            key = summary["key"]
            if (
                key not in cells or cells[key].get("status") == "failed"
            ):  # else another run holds the same cell
                cells[key], places[key], limits[key] = summary, path, config.get("limit")
    refuse_mixture(list(cells.values()), "retention limit", list(limits.values()))
    found = {row["key"]: row for row in rows(list(cells.values()))}
    drawn = [found[key] for key in cells if found[key]["retention_mean"]["mean"] is not None]
    if all(row["efficacy"]["mean"] is None for row in drawn):
        named = ", ".join(map(str, runs))
        raise RecordError(
            f"No cell of {named} has both efficacy and retention, so there is nothing to draw. Run with --tasks."
        )
    return _draw(drawn, places, next(iter(cells.values())), output)


def _draw(
    drawn: Sequence[Mapping[str, Any]],
    places: Mapping[str, Path],
    summary: Mapping[str, Any],
    output: Path,
) -> list[Path]:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    families = list(dict.fromkeys(family(row["method"]) for row in drawn if row["method"] != BASE))
    styles = {
        name: {"color": colormaps["tab10"](i % 10), "marker": "o"}
        for i, name in enumerate(families)
    }
    if any(row["method"] == BASE for row in drawn):
        styles[BASE] = {"color": "black", "marker": "D"}
    panels = [axis for axis in PANELS if any(row[axis]["mean"] is not None for row in drawn)]
    figure = Figure(figsize=(1.6 + 4.6 * len(panels), 4.4), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    labels, points = [], {}
    for axes, axis in zip(grid, panels, strict=True):
        here = [row for row in drawn if row[axis]["mean"] is not None]
        points[axes] = [(row[axis]["mean"], row["retention_mean"]["mean"]) for row in here]
        labels += _panel(axes, axis, here, places, styles)
    tasks = max(row["retention_mean"]["n"] for row in drawn)
    grid[0].set_ylabel(f"retention: edited / base, mean of {tasks} task{'s' * (tasks > 1)}")
    for name, style in styles.items():
        grid[0].plot([], [], linestyle="", label=name, **style)
    figure.legend(loc="outside right upper", frameon=False)
    corpus = summary["corpus"]
    about = f"{summary['model']['name']}, {corpus['name']} ({corpus['part']}), n = {corpus['n']}, protocol generation"
    figure.suptitle(literal(f"Memorization against retention\n{about}"), fontsize=10)
    _place(figure, labels, points)
    return saved(figure, output)


def saved(figure: Any, output: Path) -> list[Path]:
    """Writes ``output`` with the endings .png and .svg, and returns both paths."""
    from matplotlib import rc_context

    output.parent.mkdir(parents=True, exist_ok=True)
    written = [output.with_suffix(".png"), output.with_suffix(".svg")]
    with rc_context(
        {"svg.hashsalt": "editbench", "svg.fonttype": "none"}
    ):  # the same file each time, its text kept as text
        figure.savefig(written[0], dpi=150)
        figure.savefig(written[1], metadata={"Date": None})
    return written


def _panel(
    axes: Any,
    axis: str,
    here: Sequence[Mapping[str, Any]],
    places: Mapping[str, Path],
    styles: Mapping[str, Mapping[str, Any]],
) -> list[Any]:
    """Draws the points, crosses and lines of one metric; returns the points' labels, not yet in their places."""
    labels = []
    axes.axhline(1, color="0.8", linewidth=0.8, zorder=0)
    for line in _lines(here, places):
        color = styles[family(line[0]["method"])]["color"]
        axes.plot(
            [row[axis]["mean"] for row in line],
            [row["retention_mean"]["mean"] for row in line],
            color=color,
            alpha=0.5,
        )
    for row in here:
        name, x, y = family(row["method"]), row[axis], row["retention_mean"]
        ends_x, ends_y = (
            [[NAN if at[end] is None else abs(at["mean"] - at[end])] for end in ("low", "high")]
            for at in (x, y)
        )
        axes.errorbar(
            x["mean"],
            y["mean"],
            ends_y,
            ends_x,
            markersize=5,
            linewidth=0.7,
            alpha=0.9,
            **styles[name],
        )
        if text := row["label"].removeprefix(name).lstrip("@ "):
            note = axes.annotate(
                literal(text),
                (x["mean"], y["mean"]),
                (0, 0),
                textcoords="offset points",
                fontsize=7,
            )
            note.set(color=styles[name]["color"], in_layout=False)
            labels.append(note)
    axes.set(xlabel=f"{axis} (95 % interval)", xlim=(-0.03, 1.03))
    return labels


def _lines(
    here: Sequence[Mapping[str, Any]], places: Mapping[str, Path]
) -> list[list[Mapping[str, Any]]]:
    """The variants of one method in one run, in its order; points along trainings (``stop_after``) are a line a training."""
    variants, lines = {}, []
    for row in here:
        if "@" in row["method"]:
            variants.setdefault((family(row["method"]), places[row["key"]]), []).append(row)
    for line in variants.values():
        if len({row["options"].get("stop_after") for row in line}) == 1:
            lines.append(line)
            continue
        trainings = {}
        for row in sorted(line, key=lambda row: row["options"]["stop_after"]):
            trainings.setdefault(
                json.dumps({**row["options"], "stop_after": None}, sort_keys=True), []
            ).append(row)
        lines += trainings.values()
    return lines


def _place(
    figure: Any, labels: Sequence[Any], points: Mapping[Any, Sequence[tuple[float, float]]]
) -> None:
    """Moves each label to where it meets no other label, no point and no border, and stands nearest to its own point; one
    without such a place is not shown."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # the layout is known only then
    shown = {
        axes: [tuple(axes.transData.transform(point)) for point in found]
        for axes, found in points.items()
    }
    taken = {
        axes: [Bbox.from_bounds(x - 3, y - 3, 6, 6) for x, y in found]
        for axes, found in shown.items()
    }
    for note in labels:
        own, border = tuple(note.axes.transData.transform(note.xy)), note.axes.bbox
        for x, y, across, up in PLACES:
            note.set(position=(x, y), horizontalalignment=across, verticalalignment=up)
            box = note.get_window_extent()
            end = (
                box.x0 if across == "left" else box.x1,
                (box.y0 + box.y1) / 2,
            )  # of the text, towards its point
            inside = (
                border.x0 <= box.x0
                and box.x1 <= border.x1
                and border.y0 <= box.y0
                and box.y1 <= border.y1
            )
            nearest = all(
                math.dist(end, other) >= math.dist(end, own) for other in shown[note.axes]
            )
            if inside and nearest and not box.count_overlaps(taken[note.axes]):
                taken[note.axes].append(box)
                break
        else:
            note.set_visible(False)


def literal(text: str) -> str:
    """``text`` without mathematics."""
    return text.replace("$", r"\$")
