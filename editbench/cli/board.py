"""One display for the cells of a run: what runs, what is done and in which time, the time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from editbench import progress, registry
from editbench.cli import console

if TYPE_CHECKING:
    from editbench.run.plan import Plan

STATES = {
    "start": "...",
    "done": "done",
    "kept": "kept from an earlier run",
    "failed": "FAILED",
}


class Board:
    """The states of all cells, for one worker or several. A context manager.

    Each finished cell has a line with its seconds. A terminal also has a bar with the time left of
    the whole run; elsewhere it is in the lines.
    """

    def __init__(self, workers: int):
        """Tell of cells of which ``workers`` are computed at once."""
        self._workers = workers
        self._lock = threading.Lock()  # cells are told of from several threads
        self._started: dict[str, float] = {}
        self._seconds: list[float] = []
        """Of finished cells; those of baselines take no time to speak of, and foretell none."""
        self._total = self._done = self._failed = 0
        self._slow = 0
        """Cells to be computed that are no baselines."""
        self._open = ExitStack()
        self._bar: progress.Bar | None = None

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def of(self, plans: Sequence[Plan]) -> Callable[[str], Callable[[str, str], None]]:
        """Count the cells of ``plans``; return prefix of their names -> what to call about them."""
        names = [name for plan in plans for name in plan.methods]
        self._total, self._slow = len(names), sum(map(_is_slow, names))
        return lambda prefix: lambda name, state: self._tell(prefix, name, state)

    def _tell(self, prefix: str, name: str, state: str) -> None:
        with self._lock:
            what, now = prefix + name, time.monotonic()
            told = f"{what}: {STATES[state]}"
            if state == "start":
                self._started[what] = now
                if self._bar is None:
                    self._bar = self._open.enter_context(progress.task("", self._total))
                    self._bar.advance(self._done)  # those that are kept
            else:
                self._done, self._failed = self._done + 1, self._failed + (state == "failed")
                if what in self._started:
                    seconds = now - self._started.pop(what)
                    told += f" in {console.duration(seconds)}"
                    self._seconds += [seconds] * _is_slow(name)
                else:
                    self._slow -= _is_slow(name)
            text = self._text()
            console.say(told if console.is_live() or state == "kept" else f"{told} ({text})")
            if self._bar is not None:
                self._bar.rename(text)
                self._bar.advance(state != "start")

    def _text(self) -> str:
        running = min(len(self._started), self._workers)
        text = f"{running} running, " * (self._workers > 1)
        text += f"{self._done} of {self._total} done"
        if self._failed:
            text += f", {self._failed} failed"
        if self._seconds and (rest := self._slow - len(self._seconds)) > 0:
            mean = sum(self._seconds) / len(self._seconds)
            text += f", about {console.duration(mean * rest / self._workers)} left"
        return text


def _is_slow(name: str) -> bool:
    return name.partition("@")[0] not in registry.baselines()
