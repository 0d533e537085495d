"""Tell a tracker of a run while it goes on (``--track``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from editbench.cli import console

if TYPE_CHECKING:
    from editbench.plugin import Tracker
    from editbench.records.schema import CellSummary
    from editbench.run.config import RunConfig
    from editbench.run.runner import Job, OnCell
    from editbench.run.worker import Identity


class Told:
    """Who is told of the cells of a run. An error of a tracker costs no result.

    The tracker is then told no more, and stderr says so.
    """

    def __init__(self, tracker: Tracker | None):
        self._tracker = tracker

    def try_to(self, what: str, call: Callable[[Tracker], None]) -> None:
        """Call ``call`` with the tracker, if there is one that has not failed."""
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except Exception as error:  # a plug-in's, or of a network that is down
            name, self._tracker = self._tracker.name, None
            reason = (str(error).strip().splitlines() or [""])[0]
            console.say(
                f"{name}: {what} failed ({type(error).__name__}: {reason}), so it is told no more"
                " of this run. The record is complete."
            )

    def of(self, jobs: Sequence[Job], identity: Identity) -> None:
        """Tell also the tracker of each finished cell of ``jobs``."""
        for job in jobs if self._tracker is not None else ():
            job.on_cell = partial(self._on_cell, job, job.on_cell, identity)

    def _on_cell(self, job: Job, shown: OnCell, identity: Identity, name: str, state: str) -> None:
        shown(name, state)
        if state != "start":
            self.cell(job.store.read_summary(job.keys(identity)[name]))

    def cell(self, summary: CellSummary) -> None:
        """Tell of a finished cell."""
        from editbench.leaderboard.flat import flat
        from editbench.leaderboard.rows import row

        ranked = row(summary)
        record = {"seed": summary["seed"], **flat(ranked, [ranked])}
        record |= {f"retention/{task}": kept["mean"] for task, kept in ranked["retention"].items()}
        self.try_to("telling it of a cell", lambda tracker: tracker.cell(record))


def tracker_of(name: str) -> Tracker | None:
    """Return the tracker called ``name``, ``None`` for an empty name.

    Raises:
        UnknownNameError: there is none.
        PluginError: it cannot be used, for example because a package is missing.
    """
    from editbench import registry

    return registry.get("trackers", name)() if name else None


@contextmanager
def telling(tracker: Tracker | None, folder: Path, config: RunConfig) -> Iterator[Told]:
    """Open and close the tracker's side of the run in ``folder``."""
    from editbench.files import jsonable
    from editbench.run.config import run_identity

    told = Told(tracker)
    run = {"folder": str(folder), **jsonable(run_identity(config))}
    told.try_to("opening it", lambda tracker: tracker.start(run))
    try:
        yield told
    finally:
        told.try_to("closing it", lambda tracker: tracker.finish())
