"""Terminal output: progress on stderr, tables on stdout, plain lines when piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from editbench.records.reading import heading, remarks, visible
from editbench.stats import cells_text

if TYPE_CHECKING:
    from editbench.leaderboard.comparisons import Verdicts
    from editbench.leaderboard.schema import Row

PLAIN_WIDTH = 150
"""Columns of a table that goes to a pipe or a file."""
LONG_TEXT = 240
"""Number of characters above which only the beginning and the end of a text are shown."""
QUIET_SECONDS = 5
"""Without a terminal, steps that take less time than this are not reported."""
LINE_SECONDS = 10.0
"""Without a terminal, seconds between two lines about one step."""
CELL_STATES = {
    "start": "...",
    "done": "done",
    "kept": "kept from an earlier run",
    "failed": "FAILED",
}
MISSING = "–"


def out() -> Console:
    """Return the console for results."""
    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


def say(message: str) -> None:
    """Print ``message`` on stderr, with escapes for control characters that it may quote."""
    print("\n".join(map(visible, message.split("\n"))), file=sys.stderr, flush=True)


def say_remarks(runs: Sequence[Path]) -> None:
    """Report on stderr what readers of the runs' numbers should know about their files."""
    for run in runs:
        for remark in remarks(run):
            say(f"{run}: {remark}")


def tell_cell(name: str, state: str) -> None:
    """Report the state of the cell ``name``: one of ``CELL_STATES``."""
    say(f"{name}: {CELL_STATES[state]}")


def cells_of(prefix: str) -> Callable[[str, str], None]:
    """Return ``tell_cell`` for cells with ``prefix``, such as ``seed 1, ``, before their names."""
    return lambda name, state: tell_cell(prefix + name, state)


# --- progress -----------------------------------------------------------------------------------


def reporter() -> Bars | Lines:
    """Return live bars for a terminal, else a reporter that prints a line from time to time."""
    return Bars() if sys.stderr.isatty() else Lines()


class Bars:
    """Progress bars with the time left."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=Console(file=sys.stderr),
            transient=True,
        )
        self._open = 0

    @contextmanager
    def task(self, name: str, total: float | None, unit: str) -> Iterator[_Bar]:
        """Show a bar for one step; steps may nest."""
        # The display runs only while a step is open, so that it does not redraw over messages that
        # are printed in between.
        if self._open == 0:
            self._progress.start()
        self._open += 1
        task = self._progress.add_task(escape(name), total=total, count="")
        try:
            yield _Bar(self._progress, task, total, unit)
        finally:
            self._progress.remove_task(task)
            self._open -= 1
            if self._open == 0:
                self._progress.stop()

    def say(self, sentence: str) -> None:
        """Print a sentence above the bars."""
        self._progress.console.print(Text(visible(sentence)))


class _Bar:
    def __init__(self, bars: Progress, task: TaskID, total: float | None, unit: str) -> None:
        self._bars, self._task, self._total, self._unit, self._done = bars, task, total, unit, 0.0

    def advance(self, n: float = 1) -> None:
        self._done += n
        count = f"{self._done:.0f} of {self._total:.0f} {self._unit}" if self._total else ""
        self._bars.update(self._task, advance=n, count=count)


class Lines:
    """Lines on stderr about each step that takes long, with the time left."""

    def __init__(self, every: float = LINE_SECONDS) -> None:
        self._every = every

    @contextmanager
    def task(self, name: str, total: float | None, unit: str) -> Iterator[_Line]:
        """Report one step; steps may nest."""
        line = _Line(name, total, unit, self._every)
        yield line
        if line.shown:
            say(f"  {name}: done in {time.monotonic() - line.started:.0f} s")

    def say(self, sentence: str) -> None:
        """Print a sentence."""
        say(sentence)


class _Line:
    def __init__(self, name: str, total: float | None, unit: str, every: float) -> None:
        self._name, self._total, self._unit, self._every, self._done = name, total, unit, every, 0.0
        self.started = time.monotonic()
        self._next = self.started + QUIET_SECONDS
        self.shown = False

    def advance(self, n: float = 1) -> None:
        self._done += n
        now = time.monotonic()
        # Without a total no time can be estimated, and the end of a step has a line of its own.
        if now < self._next or not self._total or not 0 < self._done < self._total:
            return
        left = (now - self.started) / self._done * (self._total - self._done)
        say(
            f"  {self._name}: {self._done:.0f} of {self._total:.0f} {self._unit}, {left:.0f} s left"
        )
        self._next, self.shown = now + self._every, True


# --- the tables of a ranking --------------------------------------------------------------------


def fit(page: Console, table: Table) -> None:
    """Unless ``page`` is a terminal, widen it until ``table`` fits; else set a wide table tightly.

    What is too long then is broken over lines.
    """
    unlimited = page.options.update(max_width=10_000)
    needed = Measurement.get(page, unlimited, table).maximum
    if not sys.stdout.isatty():
        page.width = max(page.width, needed)
    elif needed > page.width:
        table.padding = 0
        for column in table.columns:
            column.overflow = "fold"


def results(ranked: Sequence[Row], scores: Verdicts, retention: Verdicts) -> list[Table]:
    """Return the table of scores and, where tasks were asked, the table of retention by task.

    Args:
        ranked: rows in their order in the table.
        scores: comparisons in the columns of scores; a method that is ahead gets a star.
        retention: the same for the retention tasks.
    """
    tables = [_score_table(ranked, scores)]
    tasks = list(dict.fromkeys(task for row in ranked for task in row["retention"]))
    if tasks:
        tables.append(_retention_table(ranked, tasks, retention))
    return tables


def _score_table(ranked: Sequence[Row], verdicts: Verdicts) -> Table:
    from editbench.leaderboard.rows import axes_of, axis_of, title_of, without_facts

    axes = axes_of(ranked)
    has_facts = not without_facts(ranked)
    evaluators = evaluator_titles(ranked)
    table = Table(caption=_caption(verdicts), caption_justify="left", caption_style="")
    # In a narrow terminal a score is broken over lines. Cut, as by no_wrap, it says nothing.
    table.add_column("Method", overflow="fold")
    for title in (
        *(title_of(axis, ranked) for axis in axes),
        "Retention ↑",
        *(escape(visible(title)) for title in evaluators.values()),
        *(("Inject s ↓",) if has_facts else ()),
        "Memory ↓",
    ):
        table.add_column(title, justify="right", overflow="fold")
    for row in ranked:
        status = "" if row["status"] == "done" else f" ({visible(row['status'])})"
        table.add_row(
            escape(_label(row) + status),
            *(
                cells_text(axis_of(row, axis)) + " *" * verdicts.ahead(row["key"], axis)
                for axis in axes
            ),
            cells_text(row["retention_mean"]),
            *(cells_text((row.get("evaluators") or {}).get(name)) for name in evaluators),
            *((_seconds(row),) if has_facts else ()),
            _gibibytes(row["peak_memory_bytes"]),
        )
    return table


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


def _retention_table(ranked: Sequence[Row], tasks: Sequence[str], verdicts: Verdicts) -> Table:
    # In reverse, so that the first row, which is shown on top, decides where rows differ.
    documents = {
        task: score["n"] for row in reversed(ranked) for task, score in row["retention"].items()
    }
    table = Table(
        title="Retention by task: score, and change against base",
        title_justify="left",
        title_style="bold",
        caption=_caption(verdicts),
        caption_justify="left",
        caption_style="",
    )
    table.add_column("Method", overflow="fold")
    for task in tasks:
        title = escape(f"{visible(heading(task))}, n={documents[task]}")
        table.add_column(title, justify="right", overflow="fold")
    for row in ranked:
        cells = (_task_cell(row, task) + " *" * verdicts.ahead(row["key"], task) for task in tasks)
        table.add_row(escape(_label(row)), *cells)
    return table


def _task_cell(row: Row, task: str) -> str:
    score = row["retention"].get(task)
    if score is None:
        return MISSING
    if row["method"] == "base":
        return f"{score['mean']:.2f}"
    delta = {"mean": score["delta"], "low": score["delta_low"], "high": score["delta_high"]}
    return f"{score['mean']:.2f}\n{cells_text(delta, sign=True)}"


def right_after(ranked: Sequence[Row]) -> Table | None:
    """Return the table of a sequence's facts right after their chunk and at the end, if any."""
    from editbench.leaderboard import definitions
    from editbench.leaderboard.details import TWICE, facts_text, twice_rows, twice_texts

    rows = twice_rows(ranked)
    if not rows:
        return None
    table = Table(
        title=f"Right after each chunk, and at the end (protocol {rows[0]['protocol']})",
        title_justify="left",
        title_style="bold",
        caption=definitions.TWICE,
        caption_justify="left",
        caption_style="",
    )
    table.add_column("Method", overflow="fold")
    for title in TWICE[1:]:
        table.add_column(title, justify="right", overflow="fold")
    for row in rows:
        lines = twice_texts(row)
        # Without scores the row has dashes, as on the page; above scores it is a heading.
        table.add_row(escape(_label(row)), facts_text(row), *["–"] * (0 if lines else 2))
        for line in lines:
            metric, *scores = line.values()
            table.add_row(f"  {metric}", *scores)
    return table


def _label(row: Row) -> str:
    return visible(row.get("label") or row["method"])


def _caption(verdicts: Verdicts) -> str | None:
    if verdicts.missing:
        names = ", ".join(verdicts.missing)
        return escape(
            visible(f"No methods are compared: the tables of {names} are missing from the records.")
        )
    if not verdicts.comparisons:
        return None
    count = len(verdicts.comparisons)
    text = (
        "* ahead of every other method, base and ice aside; paired by case,"
        f" {count} comparison{'s' * (count > 1)}, Holm, 5 %."
    )
    # Scores lie between 0 and 1, so no difference can exceed 1.
    smallest = ", ".join(
        f"{heading(column)} {f'{difference:.2f}' if difference <= 1 else 'none'}"
        for column, difference in verdicts.detectable.items()
    )
    return escape(visible(text + (f" Detectable with 80 % power: {smallest}." if smallest else "")))


# --- other tables -------------------------------------------------------------------------------


def listing(records: Sequence[Mapping[str, object]], title: str) -> Table:
    """Return ``records`` as a table with a column for each field; a missing field is left empty.

    No text in it is read as markup.
    """
    table = Table(title=Text(_text(title)), title_justify="left", title_style="bold")
    columns = dict.fromkeys(column for record in records for column in record) or ("name",)
    for column in columns:
        table.add_column(Text(_text(column)))
    for record in records:
        table.add_row(*(Text(_text(record.get(column))) for column in columns))
    return table


def shortened(record: Mapping[str, object]) -> dict[str, str]:
    """Return the texts of ``record``, each as ``cut`` returns it."""
    return {key: cut(value) for key, value in record.items()}


def cut(value: object) -> str:
    """Return the text of a value, without its middle if it is longer than ``LONG_TEXT``.

    A long prompt ends with the question, so more is kept of the end than of the beginning.
    """
    text = _text(value)
    if len(text) <= LONG_TEXT:
        return text
    return f"{text[: LONG_TEXT // 4]} […] {text[-3 * LONG_TEXT // 4 :]}"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    return "" if value is None else visible(str(value))
