"""Terminal output: progress on stderr, tables on stdout, plain lines when piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

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

from editbench.cli.sheet import Cell, Column, Sheet, wrapped
from editbench.records.reading import remarks, visible

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
    """Print ``message`` on stderr, with escapes for control characters that it may quote.

    In a terminal it is broken at words. A line that begins with blanks, such as a command to copy,
    stays whole.
    """
    lines = list(map(visible, message.split("\n")))
    if sys.stderr.isatty():
        width = Console(file=sys.stderr).width
        lines = [
            part
            for line in lines
            for part in ([line] if line.startswith("  ") else wrapped(line, width))
        ]
    print("\n".join(lines), file=sys.stderr, flush=True)


def say_remarks(runs: Sequence[Path]) -> None:
    """Report on stderr what readers of the runs' numbers should know about their files."""
    for run in runs:
        for remark in remarks(run):
            say(f"{run}: {remark}")


def tell_cell(name: str, state: str) -> None:
    """Report the state of the cell ``name``: one of ``CELL_STATES``."""
    say(f"{name}: {CELL_STATES[state]}")


def cells_of(seed: int) -> Callable[[str, str], None]:
    """Return ``tell_cell`` for the cells of one of several seeds."""
    return lambda name, state: tell_cell(f"seed {seed}, {name}", state)


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


# --- tables ---------------------------------------------------------------------------------------


def fit(page: Console, sheet: Sheet) -> None:
    """Unless ``page`` is a terminal, widen it until ``sheet`` fits."""
    if not sys.stdout.isatty():
        unlimited = page.options.update(max_width=10_000)
        page.width = max(page.width, Measurement.get(page, unlimited, sheet).maximum)


def listing(
    records: Sequence[Mapping[str, object]], title: str, least: Sequence[str] = (), where: str = ""
) -> Sheet:
    """Return ``records`` as a table with a column for each field; a missing field is left empty.

    Args:
        records: the rows.
        title: the line above the table.
        least: fields that a narrow terminal leaves out, the most important of them first.
        where: a sentence on where these fields are shown, after a blank.
    """
    names = list(dict.fromkeys(name for record in records for name in record)) or ["name"]
    columns = [
        Column(
            _text(name),
            [Cell(_text(record.get(name))) for record in records],
            least=least.index(name) + 1 if name in least else 0,
        )
        for name in names
    ]
    return Sheet(columns, _text(title), where_else=where)


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
