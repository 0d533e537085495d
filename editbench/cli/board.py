"""One display for the cells of a run on several workers: running, done, failed, time left."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from editbench.cli import console


class Board:
    """The states of all cells. A context manager, which shows a bar on a terminal.

    Elsewhere each line about a cell ends with the numbers.
    """

    def __init__(self, total: int, workers: int):
        """Count ``total`` cells, of which ``workers`` are computed at once."""
        self._total, self._workers = total, workers
        self._live = sys.stderr.isatty()  # the bar puts something else in its place
        self._lock = threading.Lock()  # cells are told of from several threads
        self._started: dict[str, float] = {}
        self._seconds: list[float] = []
        self._done = self._failed = 0
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=Console(file=sys.stderr),
            transient=True,
            disable=not self._live,
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Board:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def cells(self, prefix: str = "") -> Callable[[str, str], None]:
        """Return what to call about a cell: with its name and its state."""
        return lambda name, state: self._tell(prefix + name, state)

    def _tell(self, name: str, state: str) -> None:
        with self._lock:
            if state == "start":
                self._started[name] = time.monotonic()
            else:
                self._done, self._failed = self._done + 1, self._failed + (state == "failed")
                if name in self._started:
                    self._seconds.append(time.monotonic() - self._started.pop(name))
            text = self._text()
            shown = console.CELL_STATES[state]
            console.say(f"{name}: {shown}" if self._live else f"{name}: {shown} ({text})")
            self._bar.update(self._task, completed=self._done, description=escape(text))

    def _text(self) -> str:
        text = (
            f"{min(len(self._started), self._workers)} running, {self._done} of {self._total} done"
        )
        if self._failed:
            text += f", {self._failed} failed"
        if self._seconds and self._done < self._total:
            mean = sum(self._seconds) / len(self._seconds)
            left = mean * (self._total - self._done) / self._workers
            text += f", about {left / 60:.0f} min left" if left >= 90 else f", {left:.0f} s left"
        return text
