"""Terminal output: progress on stderr, tables on stdout, plain lines when piped."""

from __future__ import annotations

import codecs
import importlib
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich import table
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

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
MISSING = "–"
PLAIN = {
    **{"↑": "^", "↓": "v", "→": ">"},
    **{"−": "-", "–": "-", "—": "-"},
    **{"†": "+", "§": "#"},
}
"""What stands for a sign of ours that an encoding lacks: one character, so that tables stay
straight. Windows pipes and files, for example, have no arrows (cp1252)."""


def accept_any_encoding() -> None:
    """Let stdout and stderr take every text, whatever their encoding."""
    codecs.register_error("editbench.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's has not
            stream.reconfigure(errors="editbench.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return what to write in place of characters that the encoding lacks, and where to go on."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    written = [PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking]
    return "".join(written), error.end


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


def begin() -> None:
    """Say at once that the command has begun, and load the slow libraries that it needs."""
    from editbench import progress

    say("Checking methods, options and facts.")
    with progress.reporting(reporter()), progress.task("loading libraries"):
        importlib.import_module("editbench.models")


# --- progress -----------------------------------------------------------------------------------


def is_live() -> bool:
    """Return whether stderr is a terminal, where progress bars take the place of lines."""
    return sys.stderr.isatty()


def reporter() -> Bars | Lines:
    """Return live bars for a terminal, else (a pipe, a file, a notebook) lines."""
    return Bars() if is_live() else Lines()


def duration(seconds: float) -> str:
    """Return ``0.3 s``, ``42 s``, ``3 min`` or ``2 h 5 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class _Count:
    """How far a step is, and how long the rest will take."""

    def __init__(self, name: str, total: float | None, unit: str) -> None:
        self.name, self.total, self.unit, self.done = name, total, unit, 0.0
        self.started = self.advanced = time.monotonic()

    def advance(self, n: float = 1) -> None:
        """Count ``n`` more units as done."""
        self.done += n
        self.advanced = time.monotonic()

    def rename(self, name: str) -> None:
        """Call the step ``name`` from now on."""
        self.name = name

    @property
    def left(self) -> float | None:
        """Seconds that are left, if that can be said: it moves on between two units."""
        if not self.total or not self.unit or not 0 < self.done < self.total:
            return None
        spent = self.advanced - self.started
        return max(0.0, spent / self.done * (self.total - self.done) - self._since())

    def _since(self) -> float:
        return time.monotonic() - self.advanced

    @property
    def counted(self) -> str:
        """Units done, of all; empty where a step has no unit, as its name then says it."""
        if not self.total or not self.unit:
            return ""
        return f"{self.done:.0f} of {self.total:.0f} {self.unit}"


class Bars:
    """Progress bars with count and time left."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=12),
            _TimeColumn(table_column=table.Column(no_wrap=True)),
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
        bar = _Bar(self._progress, name, total, unit)
        try:
            yield bar
        finally:
            self._progress.remove_task(bar.task)
            self._open -= 1
            if self._open == 0:
                self._progress.stop()

    def say(self, sentence: str) -> None:
        """Print a sentence above the bars."""
        self._progress.console.print(Text(visible(sentence)))


class _TimeColumn(ProgressColumn):
    """The count, the time taken and the time left of a step."""

    def render(self, task: Task) -> Text:
        """Return the text of the column."""
        count: _Count = task.fields["count"]
        left = count.left
        parts = [
            count.counted,
            duration(time.monotonic() - count.started),
            "" if left is None else f"{duration(left)} left",
        ]
        return Text(", ".join(part for part in parts if part))


class _Bar(_Count):
    def __init__(self, bars: Progress, name: str, total: float | None, unit: str) -> None:
        super().__init__(name, total, unit)
        self._bars = bars
        self.task: TaskID = bars.add_task(escape(name), total=total, count=self)

    def advance(self, n: float = 1) -> None:
        super().advance(n)
        self._bars.update(self.task, completed=self.done)

    def rename(self, name: str) -> None:
        super().rename(name)
        self._bars.update(self.task, description=escape(name), refresh=True)


class Lines:
    """Lines on stderr about each step that takes long, so that no long silence comes up."""

    def __init__(self, every: float = LINE_SECONDS) -> None:
        self._every = every
        self._open: list[_Count] = []
        self._told: set[_Count] = set()
        self._next = 0.0
        self._end: threading.Event | None = None

    @contextmanager
    def task(self, name: str, total: float | None, unit: str) -> Iterator[_Count]:
        """Report one step; steps may nest."""
        step = _Count(name, total, unit)
        self._open.append(step)
        self._next = max(self._next, step.started + min(QUIET_SECONDS, self._every))
        if self._end is None:
            self._end = threading.Event()
            threading.Thread(target=self._watch, args=(self._end,), daemon=True).start()
        try:
            yield step
            if step in self._told:
                say(f"  {step.name}: done in {duration(time.monotonic() - step.started)}")
        finally:
            self._open.remove(step)
            if not self._open and self._end is not None:
                self._end.set()
                self._end = None

    def _watch(self, end: threading.Event) -> None:
        """Print a line about the innermost step from time to time, until ``end`` is set.

        A thread of its own: a step that counts nothing, such as loading a model, is told of, too.
        """
        while not end.wait(min(1.0, self._every)):
            now, steps = time.monotonic(), [step for step in self._open if step.name]
            if now >= self._next and steps:
                step, left = steps[-1], steps[-1].left
                parts = [step.counted, duration(now - step.started) + " so far"]
                parts = [part for part in parts if part]
                parts += [] if left is None else [f"{duration(left)} left"]
                say(f"  {step.name}: {', '.join(parts)}")
                self._told.add(step)
                self._next = now + self._every

    def say(self, sentence: str) -> None:
        """Print a sentence."""
        say(sentence)


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
