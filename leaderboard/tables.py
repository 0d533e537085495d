"""Make the markdown tables of a page, cell by cell."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence

from editbench.leaderboard.comparisons import Comparison, Verdicts
from editbench.leaderboard.rows import (
    AXES,
    BASE,
    BASELINES,
    axes_of,
    axis_of,
    evaluators_of,
    family,
    title_of,
    without_facts,
)
from editbench.leaderboard.schema import Row, Summary
from editbench.records.reading import heading
from editbench.rows import IntervalRow
from editbench.stats import cells_text

Links = Mapping[str, Sequence[tuple[int, str]]]
"""Key of a row -> the seed and the link of each of its records."""


def table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Return a markdown table. All columns but the first are aligned to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def listing(lines: Sequence[Mapping[str, str]]) -> str:
    """Return rows of texts as a table. All rows have the same fields."""
    return table(list(lines[0]), [list(map(escape, line.values())) for line in lines])


def main_table(ranked: Sequence[Row], links: Links, verdicts: Verdicts) -> str:
    """Return the ranking."""
    evaluators = evaluators_of(ranked)
    # Without facts nothing is injected, and the score would be retention again.
    has_facts = not without_facts(ranked)
    header = [
        "Method",
        *titles(ranked),
        "Retention ↑",
        *map(escape, evaluators.values()),
        *(("Score ↑", "Seconds") if has_facts else ()),
        "Peak memory",
    ]
    body = [
        [
            named(row, links),
            *axis_cells(row, ranked, verdicts),
            cells_text(row["retention_mean"]),
            *(cells_text(row.get("evaluators", {}).get(name)) for name in evaluators),
            *((_score(row), _seconds(row)) if has_facts else ()),
            _memory(row["peak_memory_bytes"]),
        ]
        for row in ranked
    ]
    if all(row["method"] != BASE for row in ranked):
        body.append([BASE, *["–"] * (len(header) - 1)])
    return table(header, body)


def protocol_table(ranked: Sequence[Row], links: Links, verdicts: Verdicts) -> str:
    """Return the scores of a protocol other than the headline's."""
    body = [[named(row, links), *axis_cells(row, ranked, verdicts)] for row in ranked]
    return table(["Method", *titles(ranked)], body)


def retention_table(ranked: Sequence[Row], links: Links, verdicts: Verdicts) -> str:
    """Return the change in each task by method.

    The base does not change by definition, so its row shows its scores.
    """
    tasks = list(dict.fromkeys(task for row in ranked for task in row["retention"]))
    first = {
        task: next(row["retention"][task] for row in ranked if task in row["retention"])
        for task in tasks
    }
    header = ["Method"] + [
        f"{escape(heading(task))} ({escape(values.get('metric'))}, n = {escape(values.get('n'))})"
        for task, values in first.items()
    ]
    body = [
        [named(row, links), *(_task_cell(row, task, verdicts) for task in tasks)] for row in ranked
    ]
    # Without the base's cell, its scores are known from the other cells, which store them.
    if all(row["method"] != BASE for row in ranked):
        scores = (cells_text({"mean": values.get("base")}) for values in first.values())
        body.append([BASE, *(f"scores {score}" for score in scores)])
    return table(header, body)


def _task_cell(row: Row, task: str, verdicts: Verdicts) -> str:
    values = row["retention"].get(task)
    if values is None:
        return "–"
    if row["method"] == BASE:
        return f"scores {cells_text(values)}"
    change = {
        "mean": values.get("delta"),
        "low": values.get("delta_low"),
        "high": values.get("delta_high"),
    }
    text = _bold(cells_text(change, sign=True), verdicts.ahead(row["key"], task))
    if "lost" in values:  # absent in older records
        text += f" ({escape(values['lost'])}↓ {escape(values['gained'])}↑)"
    return text


def kinds_table(
    ranked: Sequence[Row], summaries: Sequence[Summary], protocol: str, links: Links
) -> str:
    """Return the metrics over single kinds of probes.

    ``n`` counts the probes of the first cell that has the metric.
    """
    scores: dict[str, dict[str, IntervalRow]] = {}
    for summary in summaries:
        scores[summary["key"]] = {
            name: by_protocol[protocol]
            for name, by_protocol in (summary.get("metrics") or {}).items()
            if "/" in name and protocol in by_protocol
        }
    # Reversed, so that the first cell is written last and wins.
    counts = {
        name: score["n"] for cell in reversed(scores.values()) for name, score in cell.items()
    }
    names = sorted(counts)
    header = ["Method", *(f"{escape(name)} (n = {escape(counts[name])})" for name in names)]
    body = [
        [named(row, links), *(cells_text(scores[row["key"]].get(name)) for name in names)]
        for row in ranked
    ]
    return table(header, body)


def pairs_table(comparisons: Sequence[Comparison], labels: Mapping[str, str]) -> str:
    """Return the difference and the adjusted p of each pair of methods in each column."""
    columns = list(dict.fromkeys(c.column for c in comparisons))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for c in comparisons:
        p = "p < 0.001" if c.p < 0.001 else f"p {c.p:.3f}"
        text = f"{cells_text({'mean': c.difference}, sign=True)}, {p}"
        cells.setdefault((c.one, c.other), {})[c.column] = text
    body = [
        [
            f"{escape(labels[one])} − {escape(labels[other])}",
            *(by_column.get(column, "–") for column in columns),
        ]
        for (one, other), by_column in cells.items()
    ]
    return table(["Pair", *map(escape, map(heading, columns))], body)


def detectable_line(verdicts: Verdicts) -> list[str]:
    """Return a line on the differences that the table could have shown; nothing without pairs.

    ``editbench verify`` compares these lines with those of stored pages, so their text is fixed.
    """
    if not verdicts.detectable:
        return []
    count = len(verdicts.comparisons)
    # Two shares cannot differ by more than 1, so a larger number means that nothing could show.
    differences = ", ".join(
        f"{escape(heading(name))} {f'{difference:.2f}' if difference <= 1 else 'none'}"
        for name, difference in verdicts.detectable.items()
    )
    return [
        f"Detectable with 80 % power at 5 % corrected for {count} comparison{'s' * (count > 1)}: "
        f"{differences}."
    ]


def titles(ranked: Sequence[Row]) -> list[str]:
    """Return the headings of the axes that a table of ``ranked`` shows."""
    return [title_of(axis, ranked) for axis in axes_of(ranked)]


def axis_cells(row: Row, ranked: Sequence[Row], verdicts: Verdicts) -> list[str]:
    """Return the scores of ``row``. A score is bold where the row is ahead."""
    return [
        _bold(cells_text(axis_of(row, axis)), verdicts.ahead(row["key"], axis))
        for axis in axes_of(ranked)
    ]


def named(row: Row, links: Links) -> str:
    """Return the first cell of a row: its label, its records, its status and its marks."""
    label = label_of(row)
    records = links[row["key"]]
    if len(records) > 1:
        seeds = ", ".join(f"[{escape(seed)}]({place})" for seed, place in records)
        name = f"{label} (seeds {seeds})"
    else:
        name = f"[{label}]({records[0][1]})"
    status = "" if row["status"] == "done" else f" ({escape(row['status'].replace('_', ' '))})"
    mark = " †" if is_untuned(row) else " §" if is_infeasible(row) else ""
    return f"{name}{status}{mark}"


def label_of(row: Row) -> str:
    """Return the label of a row, escaped for markdown."""
    return escape(row.get("label", row["method"]))


def is_untuned(row: Row) -> bool:
    """Return whether a method that should be tuned was not. Baselines and artifacts need none."""
    is_method = family(row["method"]) not in BASELINES and "artifact" not in row
    return is_method and not row["tuned"]


def is_infeasible(row: Row) -> bool:
    """Return whether a search chose the options although no trial kept the required retention."""
    return row["tuning"].get("feasible") is False


def is_partial(row: Row) -> bool:
    """Return whether the score leaves out a part that was not measured."""
    return "no_facts" not in row and 0 < len(row["score_of"]) < len(AXES) + 1


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


def _score(row: Row) -> str:
    return cells_text({"mean": row["score"]}) + (" ‡" if is_partial(row) else "")


def _seconds(row: Row) -> str:
    def text(seconds: float) -> str:
        return f"{seconds:.1f}" if seconds < 100 else f"{seconds:.0f}"

    if row["seconds"] is None:
        return "–"
    cached = row["precompute_seconds"]
    return text(row["seconds"]) + (f" + {text(cached)}" if cached else "")


def _memory(size: int | None) -> str:
    if not size:
        return "–"
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def escape(value: object) -> str:
    """Return ``value`` as literal text in one table cell: no markup, HTML, line break or border."""
    text = "–" if value is None else str(value)
    text = " ".join(re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", text).split())
    text = re.sub(r"([\\`*_\[\]~$])", r"\\\1", html.escape(text, quote=False))
    # Not ``\|``: renderers disagree about a backslash before a bar.
    return text.replace("|", "&#124;")


def unescaped(text: str) -> str:
    """Return a text with markdown's escapes as plain text: the inverse of ``escape``."""
    return html.unescape(re.sub(r"\\([\\`*_\[\]~$])", r"\1", text))
