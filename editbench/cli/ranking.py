"""The tables of a ranking in a terminal: the scores, a sequence's facts twice, the tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from editbench.cli.sheet import Cell, Column, Sheet
from editbench.records.reading import heading, visible
from editbench.stats import cells_text, number

if TYPE_CHECKING:
    from editbench.leaderboard.comparisons import Verdicts
    from editbench.leaderboard.schema import Row

MISSING = "–"
AHEAD, BEHIND = "green", "red"
ELSEWHERE = " The page README.md of the run and --json have them."
COLOURS = (
    "Green: ahead of every other method, red: behind every other; of retention: the interval lies "
    "above or below that of base, 1."
)
CHANGES = "Green and red: gained and lost against base, where the interval excludes 0."


def results(ranked: Sequence[Row], scores: Verdicts, retention: Verdicts) -> list[Sheet]:
    """Return the table of scores and, where tasks were asked, the table of retention by task.

    Args:
        ranked: rows in their order in the table.
        scores: comparisons in the columns of scores; a method that is ahead gets a star.
        retention: the same for the retention tasks.
    """
    tables = [_scores(ranked, scores)]
    tasks = list(dict.fromkeys(task for row in ranked for task in row["retention"]))
    if tasks:
        tables.append(_tasks(ranked, tasks, retention))
    return tables


def _scores(ranked: Sequence[Row], verdicts: Verdicts) -> Sheet:
    from editbench.leaderboard import definitions
    from editbench.leaderboard.rows import axes_of, axis_of, title_of, without_facts
    from editbench.leaderboard.tables import is_infeasible, is_untuned

    def axis_cell(row: Row, axis: str) -> Cell:
        key = row["key"]
        ahead = verdicts.ahead(key, axis)
        style = AHEAD if ahead else BEHIND if verdicts.behind(key, axis) else ""
        return _interval(axis_of(row, axis), " *" * ahead, style)

    marks = [" †" if is_untuned(row) else " §" if is_infeasible(row) else "" for row in ranked]
    meant = {" †": definitions.UNTUNED, " §": definitions.INFEASIBLE}
    columns = [_methods(ranked, marks)]
    for axis in axes_of(ranked):
        cells = [axis_cell(row, axis) for row in ranked]
        columns.append(_numbers(title_of(axis, ranked), cells))
    kept = [_interval(row["retention_mean"], style=_against_base(row)) for row in ranked]
    columns.append(_numbers("Retention ↑", kept))
    for name, title in evaluator_titles(ranked).items():
        cells = [_interval((row.get("evaluators") or {}).get(name)) for row in ranked]
        columns.append(Column(visible(title), cells, number=True))
    cells = [Cell(cells_text({"mean": row["score"]})) for row in ranked]
    columns.append(Column("Score ↑", cells, number=True, least=2))
    if not without_facts(ranked):
        cells = [Cell(_seconds(row)) for row in ranked]
        columns.append(Column("Inject s ↓", cells, number=True, least=1))
    cells = [Cell(_gibibytes(row["peak_memory_bytes"])) for row in ranked]
    columns.append(Column("Memory ↓", cells, number=True, least=2))
    legend = [text for mark, text in meant.items() if mark in marks]
    caption = "\n".join(filter(None, [_caption(verdicts), *legend]))
    return Sheet(columns, caption=caption, colours=COLOURS, where_else=ELSEWHERE)


def _numbers(title: str, cells: Sequence[Cell]) -> Column:
    """Return a column of scores. One without any is the first that a narrow terminal leaves out."""
    is_empty = all(cell.text == MISSING for cell in cells)
    return Column(title, cells, number=True, least=3 * is_empty)


def _methods(ranked: Sequence[Row], marks: Sequence[str] = ()) -> Column:
    """Return the column of names; with the status of each row where ``marks`` are given."""

    def text(row: Row, mark: str) -> str:
        status = "" if row["status"] == "done" else f" ({visible(row['status'])})"
        return f"{_label(row)}{status}{mark}"

    names = map(text, ranked, marks) if marks else map(_label, ranked)
    return Column("Method", [Cell(name) for name in names])


def _interval(
    row: Mapping[str, object] | None, mark: str = "", style: str = "", sign: bool = False
) -> Cell:
    """Return an interval in one line, or in a narrow terminal with its ends on the second."""
    text = cells_text(row, sign=sign)
    without_ends = cells_text({**row, "low": None, "high": None}, sign=sign) if row else text
    if text == without_ends:
        return Cell(text + mark, style=style)
    ends = text[text.index("[") : text.index("]") + 1]
    return Cell(text + mark, f"{without_ends}{mark}\n{ends}", style)


def _against_base(row: Row) -> str:
    """Return the colour of a mean retention, a ratio to the base's, whose interval excludes 1."""
    low, high = row["retention_mean"]["low"], row["retention_mean"]["high"]
    return _colour(None if low is None else low - 1, None if high is None else high - 1)


def _colour(low: float | None, high: float | None) -> str:
    """Return the colour of a change with these ends: none where the interval holds 0."""
    if low is None or high is None:
        return ""
    # As it is shown: an end of less than half a hundredth reads 0.00.
    return AHEAD if low >= 0.005 else BEHIND if high <= -0.005 else ""


def _seconds(row: Row) -> str:
    return MISSING if row["seconds"] is None else f"{row['seconds']:.0f}"


def evaluator_titles(ranked: Sequence[Row]) -> dict[str, str]:
    """Return the evaluator plug-ins that scored any of the rows, with their column headings."""
    # In reverse, so that the first row decides where rows differ.
    return {
        name: str(score.get("title") or name)
        for row in reversed(ranked)
        for name, score in (row.get("evaluators") or {}).items()
    }


def _gibibytes(size: int | None) -> str:
    return f"{size / 2**30:.1f} GiB" if size else MISSING


def _tasks(ranked: Sequence[Row], tasks: Sequence[str], verdicts: Verdicts) -> Sheet:
    # In reverse, so that the first row, which is shown on top, decides where rows differ.
    documents = {
        task: score["n"] for row in reversed(ranked) for task, score in row["retention"].items()
    }
    columns = [_methods(ranked)]
    for task in tasks:
        cells = [_task_cell(row, task, verdicts) for row in ranked]
        title = f"{visible(heading(task))}, n={documents[task]}"
        columns.append(Column(title, cells, number=True))
    return Sheet(
        columns,
        title="Retention by task: score, and change against base",
        caption=_caption(verdicts),
        colours=CHANGES,
    )


def _task_cell(row: Row, task: str, verdicts: Verdicts) -> Cell:
    score = row["retention"].get(task)
    if score is None:
        return Cell(MISSING)
    if row["method"] == "base":
        return _interval({key: score[key] for key in ("mean", "low", "high")})
    mean = cells_text({"mean": score["mean"]})
    change = {"mean": score["delta"], "low": score["delta_low"], "high": score["delta_high"]}
    style = _colour(number(score["delta_low"]), number(score["delta_high"]))
    mark = " *" * verdicts.ahead(row["key"], task)
    cell = _interval(change, mark, style, sign=True)
    narrow = f"{mean} {cell.narrow}" if cell.narrow else None
    return Cell(f"{mean}\n{cell.text}", narrow, style)


def right_after(ranked: Sequence[Row]) -> Sheet | None:
    """Return the table of a sequence's facts right after their chunk and at the end, if any."""
    from editbench.leaderboard import definitions
    from editbench.leaderboard.details import TWICE, facts_text, twice_rows, twice_texts

    rows = twice_rows(ranked)
    if not rows:
        return None
    lines: list[list[str]] = []
    for row in rows:
        scored = twice_texts(row)
        # Without scores the row has dashes, as on the page; above scores it is a heading.
        lines.append([_label(row), facts_text(row), *["" if scored else MISSING] * 2])
        for line in scored:
            metric, *scores = line.values()
            lines.append([f"  {metric}", *scores])
    titles = ("Method", *TWICE[1:])
    columns = [
        Column(title, [Cell(line[i]) for line in lines], number=i > 0)
        for i, title in enumerate(titles)
    ]
    return Sheet(
        columns,
        title=f"Right after each chunk, and at the end (protocol {rows[0]['protocol']})",
        caption=definitions.TWICE,
    )


def _label(row: Row) -> str:
    return visible(row.get("label") or row["method"])


def _caption(verdicts: Verdicts) -> str:
    if verdicts.missing:
        names = ", ".join(verdicts.missing)
        return visible(
            f"No methods are compared: the tables of {names} are missing from the records."
        )
    if not verdicts.comparisons:
        return ""
    count = len(verdicts.comparisons)
    text = (
        "* ahead of every other method, base and ice aside; paired by case,"
        f" {count} comparison{'s' * (count > 1)}, wrong in at most 5 % of such tables (Holm)."
    )
    # Scores lie between 0 and 1, so no difference can exceed 1.
    sizes = verdicts.detectable.items()
    found = ", ".join(f"{heading(name)} {size:.2f}" for name, size in sizes if size <= 1)
    lost = ", ".join(heading(name) for name, size in sizes if size > 1)
    text += f" Differences that are found four times out of five: {found}." if found else ""
    return visible(text + (f" Too few to find any difference: {lost}." if lost else ""))
