"""The table of one setting and protocol as data for the site: columns, rows, values.

A column carries its definition and says whether more or less is better; a value carries its
interval and the text that every other page shows for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

from editbench.leaderboard.answers import place_of
from editbench.leaderboard.comparisons import Verdicts
from editbench.leaderboard.rows import (
    AXES,
    BASE,
    MORE,
    axes_of,
    axis_of,
    diagnostics,
    evaluators_of,
    look_up,
    title_of,
)
from editbench.leaderboard.schema import Row, Summary
from editbench.leaderboard.tooltips import ABOUT
from editbench.records.reading import heading
from editbench.stats import cells_text, number
from editbench.types import METRICS, MORE_METRICS

VIEWS = {
    "scores": "Scores",
    "tasks": "Tasks",
    "kinds": "Kinds of probe",
    "more": "More metrics",
    "sequence": "Right after and at the end",
    "diagnostics": "Diagnostics",
    "cost": "Cost",
}
"""Group of columns -> its name. A page shows one group at a time."""
Better = str | None
"""``high`` or ``low``; ``None`` where neither is better."""


class Column(TypedDict):
    """One column of a table."""

    id: str
    view: str
    title: str
    note: str
    """A second line of the heading, such as the metric and the number of items."""
    better: Better
    about: str
    """The definition."""
    texts: str
    """What the texts behind its values are: an axis, ``task:NAME``, or nothing."""


class Value(TypedDict):
    """One cell of a table."""

    mean: float | None
    low: float | None
    high: float | None
    text: str
    """As every page shows it."""
    ahead: NotRequired[bool]
    """Whether the row is ahead of every other method here."""


Values = dict[str, Value]
"""Column -> value."""
Part = tuple[list[Column], dict[str, Values]]
"""Columns, and their values by the key of the row."""


def parts(
    ranked: Sequence[Row],
    summaries: Sequence[Summary],
    protocol: str,
    verdicts: Verdicts,
    kept: Verdicts,
) -> Part:
    """Return all columns of a table and the values of its rows.

    Args:
        ranked: the rows.
        summaries: the records of the setting; those without a row are left out.
        protocol: the protocol of the scores.
        verdicts: who is ahead in the scores.
        kept: who is ahead in the retention tasks.
    """
    by_key = {row["key"]: row for row in ranked}
    cells = [summary for summary in summaries if summary["key"] in by_key]
    columns: list[Column] = []
    values: dict[str, Values] = {key: {} for key in by_key}
    for some_columns, some_values in (
        _scores(ranked, verdicts),
        _tasks(ranked, kept),
        _kinds(cells, protocol),
        _more(cells, protocol),
        _sequence(ranked),
        _diagnostics(cells),
        _costs(cells),
    ):
        columns += some_columns
        for key, row in some_values.items():
            values[key] |= row
    return columns, values


def _scores(ranked: Sequence[Row], verdicts: Verdicts) -> Part:
    columns = [
        _column(axis, "scores", title_of(axis, ranked), "high", ABOUT.get(axis, ""), METRICS[axis])
        for axis in axes_of(ranked)
    ]
    columns.append(_column("retention", "scores", "Retention ↑", "high", ABOUT["retention"],
                           "retention"))  # fmt: skip
    for name, title in evaluators_of(ranked).items():
        about = f"Mean over cases of the scores of the evaluator {name}."
        place = f"evaluator:{name}"
        columns.append(_column(place, "scores", title, "high", about, place))
    if axes_of(ranked):
        columns += [
            _column("score", "scores", "Score ↑", "high", ABOUT["score"], "all"),
            _column("seconds", "scores", "Seconds", "low", ABOUT["seconds"]),
        ]
    columns.append(_column("memory", "scores", "Peak memory", "low", ABOUT["memory"]))
    return columns, {row["key"]: _score_values(row, ranked, verdicts) for row in ranked}


def _score_values(row: Row, ranked: Sequence[Row], verdicts: Verdicts) -> Values:
    values: Values = {}
    for axis in axes_of(ranked):
        values[axis] = _interval(axis_of(row, axis))
        values[axis]["ahead"] = verdicts.ahead(row["key"], axis)
    values["retention"] = _interval(row["retention_mean"])
    for name, score in row.get("evaluators", {}).items():
        values[f"evaluator:{name}"] = _interval(score)
    values["score"] = _plain(row["score"], "{:.2f}")
    values["seconds"] = _seconds(row["seconds"])
    if row["precompute_seconds"]:
        values["seconds"]["text"] += f" + {_seconds(row['precompute_seconds'])['text']}"
    values["memory"] = _size(row["peak_memory_bytes"])
    return values


def _tasks(ranked: Sequence[Row], kept: Verdicts) -> Part:
    first = {task: row["retention"][task] for row in reversed(ranked) for task in row["retention"]}
    columns = [
        _column(place_of(task), "tasks", f"{heading(task)} ↑", "high", ABOUT["change"],
                place_of(task), f"{score.get('metric')}, n = {score.get('n')}")
        for task, score in sorted(first.items())
    ]  # fmt: skip
    values: dict[str, Values] = {}
    for row in ranked:
        values[row["key"]] = {}
        for task, score in row["retention"].items():
            change = {end: score.get(f"delta{tail}") for end, tail in
                      (("mean", ""), ("low", "_low"), ("high", "_high"))}  # fmt: skip
            if row["method"] == BASE:
                value = _interval(score)
                value["text"] = f"scores {value['text']}"
                value["mean"] = 0.0  # The base's change, by which the column sorts.
                value["low"] = value["high"] = None
            else:
                value = _interval(change, sign=True)
                value["ahead"] = kept.ahead(row["key"], task)
                if "lost" in score:
                    value["text"] += f" ({score['lost']}↓ {score['gained']}↑)"
            values[row["key"]][place_of(task)] = value
    return columns, values


def _kinds(cells: Sequence[Summary], protocol: str) -> Part:
    scores = {
        cell["key"]: {
            name: by_protocol[protocol]
            for name, by_protocol in (cell.get("metrics") or {}).items()
            if "/" in name and protocol in by_protocol
        }
        for cell in cells
    }
    counts = {name: one["n"] for cell in scores.values() for name, one in cell.items()}
    columns = []
    for name in sorted(counts):
        metric, _, kind = name.partition("/")
        about = f"{ABOUT.get(metric, '')} Here: the probes of the kind {kind} alone."
        texts, note = f"{METRICS.get(metric, 'all')}/{kind}", f"n = {counts[name]}"
        columns.append(_column(name, "kinds", f"{name} ↑", "high", about, texts, note))
    return columns, {
        key: {name: _interval(score) for name, score in cell.items()}
        for key, cell in scores.items()
    }


def _more(cells: Sequence[Summary], protocol: str) -> Part:
    metrics = {cell["key"]: cell.get("metrics") or {} for cell in cells}
    titles = MORE.get(protocol, {})
    shown = [name for name in titles if any(name in cell for cell in metrics.values())]
    columns = [
        _column(name, "more", titles[name], "low" if "↓" in titles[name] else "high",
                ABOUT[name], MORE_METRICS[name].axis if name in MORE_METRICS else "all")
        for name in shown
    ]  # fmt: skip
    return columns, {
        key: {name: _interval(cell.get(name, {}).get(protocol)) for name in shown}
        for key, cell in metrics.items()
    }


def _sequence(ranked: Sequence[Row]) -> Part:
    twice = {row["key"]: scores["scores"] for row in ranked if (scores := row.get("right_after"))}
    axes = [axis for axis in (*AXES, "portability", "in_context")
            if any(axis in scores for scores in twice.values())]  # fmt: skip
    columns = [
        _column(f"{when}:{axis}", "sequence", f"{axis.capitalize().replace('_', '-')}, {words} ↑",
                "high", f"{ABOUT.get(axis, '')} {more}", METRICS[axis])
        for axis in axes
        for when, words, more in (
            ("after", "right after", "Asked right after the fact's own chunk."),
            ("change", "change", "The end of the sequence minus right after, paired by probe."),
        )
    ]  # fmt: skip
    return columns, {
        key: {
            f"{when}:{axis}": _interval(
                score["right_after" if when == "after" else "change"], sign=when == "change"
            )
            for axis, score in scores.items()
            for when in ("after", "change")
        }
        for key, scores in twice.items()
    }


def _diagnostics(cells: Sequence[Summary]) -> Part:
    listed = diagnostics(cells, {cell["key"]: cell["key"] for cell in cells})
    titles = [title for title in (listed[0] if listed else ()) if title != "method"]
    columns = [
        _column(f"diagnostic:{title}", "diagnostics", title, None, ABOUT.get(title, ""))
        for title in titles
    ]
    return columns, {
        line["method"]: {f"diagnostic:{title}": _read(line[title]) for title in titles}
        for line in listed
    }


WORK = {
    "passes": "forward passes",
    "tokens": "tokens",
    "gradient_tokens": "with gradients",
    "decoded_tokens": "decoded",
    "trained_tokens": "trained",
}
"""Count of a summary's work -> its title."""


def _costs(cells: Sequence[Summary]) -> Part:
    phases = dict.fromkeys(phase for cell in cells for phase in cell.get("seconds") or ())
    counted = [name for name in WORK if any(_work(cell, name) for cell in cells)]
    columns = [
        _column(f"phase:{phase}", "cost", f"{phase}, s", "low",
                f"Wall-clock seconds of the phase {phase}.")
        for phase in phases
    ]  # fmt: skip
    columns += [_column(f"work:{name}", "cost", WORK[name], "low", ABOUT[name])
                for name in counted]  # fmt: skip
    columns.append(_column("process", "cost", "process memory", "low",
                           ABOUT["process"]))  # fmt: skip
    values: dict[str, Values] = {}
    for cell in cells:
        seconds = cell.get("seconds") or {}
        values[cell["key"]] = {
            **{f"phase:{phase}": _plain(seconds.get(phase), "{:.1f}") for phase in phases},
            **{f"work:{name}": _plain(_work(cell, name), "{:,.0f}") for name in counted},
            "process": _size(cell.get("peak_process_bytes")),
        }
    return columns, values


def _work(cell: Summary, name: str) -> float | None:
    value = look_up(cell, ("work", "inject", name))
    return number(value) if isinstance(value, (int, float)) else None


# --- one column, one value ----------------------------------------------------------------------


def _column(
    name: str, view: str, title: str, better: Better, about: str, texts: str = "", note: str = ""
) -> Column:
    return {
        "id": name, "view": view, "title": title, "note": note,
        "better": better, "about": about, "texts": texts,
    }  # fmt: skip


def _interval(score: Mapping[str, object] | None, sign: bool = False) -> Value:
    row = score or {}
    mean, low, high = (number(row.get(end)) for end in ("mean", "low", "high"))
    return {"mean": mean, "low": low, "high": high, "text": cells_text(row, sign)}


def _plain(value: float | None, form: str) -> Value:
    finite = number(value)
    text = "–" if finite is None else form.format(finite)
    return {"mean": finite, "low": None, "high": None, "text": text}


def _seconds(value: float | None) -> Value:
    return _plain(value, "{:.1f}" if value is None or value < 100 else "{:.0f}")


def _size(value: int | None) -> Value:
    """Return a size in GiB, or in MiB where it is below one GiB."""
    if not value:
        return _plain(None, "")
    size = _plain(value / 2**30, "{:.1f} GiB")
    if value < 2**30:
        size["text"] = f"{value / 2**20:.0f} MiB"
    return size


def _read(text: str) -> Value:
    """Return a text of three digits as a value, and other texts without a number."""
    try:
        return {**_plain(float(text), "{:g}"), "text": text}
    except ValueError:
        return {"mean": None, "low": None, "high": None, "text": text}
