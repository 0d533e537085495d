"""What the terminal shows: progress on stderr, tables on stdout. Plain lines when piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

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

from editbench.records.reading import heading, visible
from editbench.stats import cells_text

PLAIN_WIDTH = 150
LONG = 240
"""Characters of a text; of a longer one the beginning and the end are shown."""
QUIET_SECONDS = 5
"""Steps shorter than this are not announced in plain mode."""


def out() -> Console:
    """The console of results."""
    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


def say(message: str) -> None:
    """What is going on, on stderr; texts of a model or of data in it as ``visible``."""
    print("\n".join(map(visible, message.split("\n"))), file=sys.stderr, flush=True)


def reporter() -> Bars | Lines:
    """Live bars on a terminal, a line every now and then elsewhere."""
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
    def __init__(self, bars: Progress, task: TaskID, total: float | None, unit: str):
        self._bars, self._task, self._total, self._unit, self._done = bars, task, total, unit, 0.0

    def advance(self, n: float = 1) -> None:
        self._done += n
        count = f"{self._done:.0f} of {self._total:.0f} {self._unit}" if self._total else ""
        self._bars.update(self._task, advance=n, count=count)


class Lines:
    """A line on stderr for each step that takes longer than a few seconds, repeated with the time left."""

    def __init__(self, every: float = 10.0):
        self._every = every

    @contextmanager
    def task(self, name: str, total: float | None, unit: str) -> Iterator[_Line]:
        line = _Line(name, total, unit, self._every)
        yield line
        if line.shown:
            say(f"  {name}: done in {time.monotonic() - line.started:.0f} s")


class _Line:
    def __init__(self, name: str, total: float | None, unit: str, every: float):
        self._name, self._total, self._unit, self._every, self._done = name, total, unit, every, 0.0
        self.started = time.monotonic()
        self._next = self.started + QUIET_SECONDS
        self.shown = False

    def advance(self, n: float = 1) -> None:
        self._done += n
        now = time.monotonic()
        if now < self._next or not self._total or self._done >= self._total or self._done <= 0:
            return
        left = (now - self.started) / self._done * (self._total - self._done)
        say(
            f"  {self._name}: {self._done:.0f} of {self._total:.0f} {self._unit}, {left:.0f} s left"
        )
        self._next, self.shown = now + self._every, True


def fit(page: Console, table: Table) -> None:
    """Widens ``page``, where it is no terminal, so that no number of ``table`` is cut off."""
    if not sys.stdout.isatty():
        page.width = max(
            page.width, Measurement.get(page, page.options.update(max_width=10_000), table).maximum
        )


def results(rows: Sequence[Mapping[str, Any]], verdicts: Any, kept: Any) -> list[Table]:
    """The table of scores, and the table of retention by task where tasks were asked, with the ``Verdicts`` on each; who is
    ahead is starred."""
    scores = Table(caption=_caption(verdicts), caption_justify="left", caption_style="")
    axes = [
        axis
        for axis in ("efficacy", "generalization", "specificity", "portability", "in_context")
        if axis in rows[0]
    ]
    titles = [f"{axis.capitalize().replace('_', '-')} ↑" for axis in axes]
    for column in ("Method", *titles, "Retention ↑", "Inject s ↓", "Memory ↓"):
        scores.add_column(column, justify="left" if column == "Method" else "right", no_wrap=True)
    for row in rows:
        scores.add_row(
            escape(
                _named(row) + ("" if row["status"] == "done" else f" ({visible(row['status'])})")
            ),
            *(cells_text(row[axis]) + " *" * verdicts.ahead(row["key"], axis) for axis in axes),
            cells_text(row["retention_mean"]),
            "–" if row["seconds"] is None else f"{row['seconds']:.0f}",
            "–" if not row["peak_memory_bytes"] else f"{row['peak_memory_bytes'] / 2**30:.1f} GiB",
        )
    tables = [scores]
    tasks = list(dict.fromkeys(task for row in rows for task in row["retention"]))
    if tasks:
        numbers = {
            task: found["n"] for row in reversed(rows) for task, found in row["retention"].items()
        }
        changes = Table(
            title="Retention by task: score, and change against base", title_justify="left", title_style="bold",
            caption=_caption(kept), caption_justify="left", caption_style="",
        )  # fmt: skip
        changes.add_column("Method", no_wrap=True)
        for task in tasks:
            changes.add_column(
                escape(f"{visible(heading(task))}, n={numbers[task]}"), justify="right"
            )
        for row in rows:
            stars = (" *" * kept.ahead(row["key"], task) for task in tasks)
            cells = (_task_cell(row, task) + star for task, star in zip(tasks, stars, strict=True))
            changes.add_row(escape(_named(row)), *cells)
        tables.append(changes)
    return tables


def _named(row: Mapping[str, Any]) -> str:
    return visible(row.get("label") or row["method"])


def _caption(verdicts: Any) -> str | None:
    if verdicts.missing:
        return escape(
            visible(
                f"Nobody is compared: the records hold no tables of {', '.join(verdicts.missing)}."
            )
        )
    if not verdicts.comparisons:
        return None
    pairs = f"{len(verdicts.comparisons)} comparisons"
    about = f"* ahead of every other method (base and ice take no part): paired by case, {pairs}, Holm, 5 %."
    # no two shares differ by more than 1
    seen = ", ".join(
        f"{heading(name)} {f'{d:.2f}' if d <= 1 else 'none'}"
        for name, d in verdicts.detectable.items()
    )
    return escape(visible(about + (f" Detectable with 80 % power: {seen}." if seen else "")))


def _task_cell(row: Mapping[str, Any], task: str) -> str:
    found = row["retention"].get(task)
    if found is None:
        return "–"
    if row["method"] == "base":
        return f"{found['mean']:.2f}"
    delta = {"mean": found["delta"], "low": found["delta_low"], "high": found["delta_high"]}
    return f"{found['mean']:.2f}\n{cells_text(delta, sign=True)}"


def listing(records: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Records as a table, one column a field of any; what a record lacks is empty. No text in it is markup, whatever it
    holds."""
    table = Table(title=Text(_text(title)), title_justify="left", title_style="bold")
    columns = dict.fromkeys(column for record in records for column in record) or ("name",)
    for column in columns:
        table.add_column(Text(_text(column)))
    for record in records:
        table.add_row(*(Text(_text(record.get(column))) for column in columns))
    return table


def shortened(record: Mapping[str, Any]) -> dict[str, str]:
    """The texts of ``record``, the middle of ``LONG`` ones left out; of a long prompt the end tells what was asked."""
    texts = {key: _text(value) for key, value in record.items()}
    return {
        k: f"{t[: LONG // 4]} […] {t[-3 * LONG // 4 :]}" if len(t) > LONG else t
        for k, t in texts.items()
    }


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    return "" if value is None else visible(str(value))
