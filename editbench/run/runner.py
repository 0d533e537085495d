"""Run cells: find those that are not done, have them computed, and write their records.

A cell is one method with its options on one model, corpus slice, regime and seed: the unit of
work and of resume. Its key is the hash of everything that can change its numbers. A run may hold
several cells of one method: NAME@LABEL is the method NAME with options of its own.

A run is computed in parts, which depend on each other only by what they return: the unedited
model's answers for each seed and the statistics, then the cells in any order
(``editbench.run.worker``). Several workers compute several parts at once. Records are written here
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from editbench.errors import DataError, EditbenchError, MethodError, RecordError
from editbench.files import write_json_atomic
from editbench.models import LanguageModel
from editbench.records.schema import ArtifactRecord, CellSummary
from editbench.records.store import RunStore
from editbench.run.keys import cell_key
from editbench.run.plan import Plan
from editbench.run.worker import Computed, Identity, Worker

OnCell = Callable[[str, str], None]
"""Called as ``on_cell(method, state)``; the state is ``start``, ``done``, ``kept`` (finished in an
earlier run) or ``failed``. With several workers it is called from several threads."""
Result = TypeVar("Result")


class Workers(Protocol):
    """What computes the parts of runs: a ``Worker``, or several (``editbench.run.cluster``).

    Each method returns when its part is computed. If ``size`` is above 1, as many threads may call
    them at once.
    """

    @property
    def size(self) -> int:
        """How many parts are computed at once."""

    @property
    def identity(self) -> Identity:
        """What all workers hold."""

    def check_artifacts(self, plan: Plan, names: Iterable[str]) -> dict[str, ArtifactRecord]:
        """As ``Worker.check_artifacts``."""

    def ask_tasks(self, plan: Plan) -> tuple[bytes, dict[str, str]]:
        """As ``Worker.ask_tasks``."""

    def ask_base(self, plan: Plan, samples: bytes) -> bytes:
        """As ``Worker.ask_base``."""

    def statistics(self, plan: Plan, keys: Mapping[str, str]) -> list[Callable[[], None]]:
        """Return the tasks that measure the statistics of the rows in ``keys``, before the cells.

        Args:
            plan: a run.
            keys: row -> key of its cell.
        """

    def compute(
        self, plan: Plan, name: str, key: str, answers: bytes, artifact: ArtifactRecord | None
    ) -> Computed:
        """As ``Worker.compute``."""

    def fail(
        self, plan: Plan, name: str, key: str, error: Exception, artifact: ArtifactRecord | None
    ) -> Computed:
        """As ``Worker.fail``."""


@dataclass
class Job:
    """The cells of one seed: a plan, the store that they go into, and who is told of them."""

    plan: Plan
    store: RunStore
    on_cell: OnCell
    artifacts: dict[str, ArtifactRecord] = field(default_factory=dict)
    """Row that is an artifact -> what its record says of it."""
    samples: bytes = b"{}"
    """What ``Worker.ask_tasks`` returned."""
    answers: bytes = b""
    """What ``Worker.ask_base`` returned; empty while no cell needs them."""
    broken: Exception | None = None
    """Why there are no answers: every cell fails with it."""

    def keys(self, identity: Identity) -> dict[str, str]:
        """Return row -> key of its cell."""
        return {
            name: cell_key(
                self.plan,
                name,
                method,
                identity.weights,
                identity.precision,
                identity.template,
                identity.chat,
            )
            for name, method in self.plan.methods.items()
        }

    def missing(self, identity: Identity) -> dict[str, str]:
        """Return row -> key of the cells that are not finished."""
        keys = self.keys(identity)
        return {name: key for name, key in keys.items() if not _is_finished(self.store, key)}


def run(
    plan: Plan,
    model: LanguageModel,
    store: RunStore,
    on_cell: OnCell,
    *,
    leave_out: bool = False,
) -> list[CellSummary]:
    """Compute the cells of one seed, as ``run_jobs`` does."""
    return run_jobs([Job(plan, store, on_cell)], Worker(model), leave_out=leave_out)


def run_jobs(
    jobs: Sequence[Job], workers: Workers, *, leave_out: bool = False
) -> list[CellSummary]:
    """Compute the cells that are not done yet, and return the summaries of all.

    Each cell is written as a whole. A method that fails leaves a failed cell.

    Args:
        jobs: one for each seed.
        workers: what computes them.
        leave_out: go on without a retention task that the base cannot be asked, for all methods
            and seeds alike, and write the reason to ``not_asked.json``; without all of them, the
            first is an error.

    Raises:
        EditbenchError: the base cannot be asked (for example because the data of a task cannot be
            loaded), an artifact does not fit the model, a record cannot be written, the folder
            holds results for other facts or weights, or a method changed the model and its weights
            cannot be loaded again.
    """
    identity = workers.identity
    for job in jobs:
        _check_same(job.plan, job.store, identity)
        # Now, and not when the methods before it have taken their hours.
        made = [name for name in job.missing(identity) if name in job.plan.artifacts]
        job.artifacts = workers.check_artifacts(job.plan, made) if made else {}
    if leave_out:
        _leave_out_tasks(jobs, workers)
    # Before the first cell is computed, so that whoever reads the run meanwhile no longer takes an
    # older cell of a method for the current one.
    for job in jobs:
        job.store.claim(job.keys(identity))
    unfinished = [job for job in jobs if job.missing(identity)]
    first: list[Callable[[], None]] = [partial(ask_base, job, workers) for job in unfinished]
    for job in unfinished:
        first += workers.statistics(job.plan, job.missing(identity))
    for _ in side_by_side(workers.size, first):
        pass
    return _cells(jobs, workers)


def side_by_side(count: int, tasks: Sequence[Callable[[], Result]]) -> Iterator[Result]:
    """Yield what ``tasks`` return as they end, with at most ``count`` of them under way.

    A single one runs in this thread. If one raises an error, those that have not begun are dropped.
    """
    if min(count, len(tasks)) <= 1:
        for task in tasks:
            yield task()
        return
    pool = ThreadPoolExecutor(count)
    try:
        # In the context of this thread, which has the reporter of progress.
        started = [pool.submit(copy_context().run, task) for task in tasks]
        for done in as_completed(started):
            yield done.result()
    finally:
        # Those under way end when their workers are closed.
        pool.shutdown(wait=False, cancel_futures=True)


def _leave_out_tasks(jobs: Sequence[Job], workers: Workers) -> None:
    """Ask the base the tasks, and drop those that one seed cannot be asked from all seeds."""
    unfinished = [job for job in jobs if job.missing(workers.identity)]

    def ask(job: Job) -> tuple[int, dict[str, str]]:
        job.samples, lost = workers.ask_tasks(job.plan)
        return job.plan.config.seed, lost

    found = dict(side_by_side(workers.size, [partial(ask, job) for job in unfinished]))
    # The reason is that of the first seed, whichever was asked first.
    lost = {
        task: why
        for job in reversed(unfinished)
        for task, why in found[job.plan.config.seed].items()
    }
    if not lost:
        return
    if len(lost) == len(jobs[0].plan.config.tasks):
        raise DataError(next(iter(lost.values())))
    for job in jobs:
        job.plan = job.plan.without(lost)
        write_json_atomic(job.store.path / "not_asked.json", job.plan.not_asked)


def ask_base(job: Job, workers: Workers) -> None:
    """Have the base asked what ``job`` asks, unless it was.

    Raises:
        EditbenchError: it cannot be asked.
    """
    if job.answers or job.broken is not None:
        return
    try:
        job.answers = workers.ask_base(job.plan, job.samples)
    except EditbenchError:
        raise  # no method is to blame
    except Exception as error:  # of a plug-in that is asked about the base: every cell tells it
        job.broken = error


def _cells(jobs: Sequence[Job], workers: Workers) -> list[CellSummary]:
    """Return the summaries of all cells, after computing and writing those that are not done."""
    rows = [(job, name, key) for job in jobs for name, key in job.keys(workers.identity).items()]
    summaries: dict[int, CellSummary] = {}
    todo: list[Callable[[], tuple[int, Computed]]] = []
    for i, (job, name, key) in enumerate(rows):
        if _is_finished(job.store, key):
            job.on_cell(name, "kept")
            summaries[i] = job.store.read_summary(key)
        else:
            todo.append(partial(_computed, i, job, name, key, workers))
    # Written in this thread, which alone stops the others when a record cannot be written.
    for i, cell in side_by_side(workers.size, todo):
        summaries[i] = _written(*rows[i], cell)
    return [summaries[i] for i in range(len(rows))]


def _computed(i: int, job: Job, name: str, key: str, workers: Workers) -> tuple[int, Computed]:
    job.on_cell(name, "start")
    artifact = job.artifacts.get(name)
    if job.broken is None:
        return i, workers.compute(job.plan, name, key, job.answers, artifact)
    return i, workers.fail(job.plan, name, key, job.broken, artifact)


def _written(job: Job, name: str, key: str, cell: Computed) -> CellSummary:
    """Write a computed cell and return its summary.

    Raises:
        RecordError: it cannot be written.
        MethodError: the cell's method left the model's weights changed for good.
    """
    job.store.write_files(key, cell.files)
    job.on_cell(name, "failed" if cell.failed else "done")
    summary = job.store.read_summary(key)
    if cell.spoiled:
        raise MethodError(
            f"{name} failed and left the model's weights changed, so nothing can be measured after "
            f"it ({summary['note']}): {cell.spoiled} Run again without it; finished methods are "
            "kept."
        )
    return summary


def _is_finished(store: RunStore, key: str) -> bool:
    # A failed cell is computed again: what made it fail may have been fixed.
    return store.done(key) and store.read_summary(key)["status"] != "failed"


def _check_same(plan: Plan, store: RunStore, identity: Identity) -> None:
    """Check that finished cells are of these facts, weights, precision and template.

    The names in ``run.json`` do not show this: a file of facts or weights may have changed.

    Raises:
        RecordError: a cell has other facts or weights, or another precision or template.
    """
    for summary in store.summaries():
        model = summary["model"]
        for what, old, new in (
            ("facts", summary["corpus"]["hash"], plan.slice_hash),
            ("weights", model["hash"], identity.weights),
            ("precision", model["precision"], identity.precision),
            # Older records have no template; they are taken to agree.
            ("chat template", model.get("chat_template", identity.template), identity.template),
        ):
            if old != new:
                # Earlier versions held all weights in float32, and wrote no type.
                held = model.get("dtype", "float32")
                hint = (
                    f" Its weights are held in {held}, and those here in {identity.dtype}: the same"
                    f" command with --dtype {held} goes on there."
                    if what == "weights" and held != identity.dtype
                    else ""
                )
                raise RecordError(
                    f"{store.path} holds results for other {what} under the same names ({old} "
                    f"there, {new} now). Use another --output.{hint}"
                )
