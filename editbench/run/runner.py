"""Run cells: find those that are not done, have them computed, and write their records.

A cell is one method with its options on one model, corpus slice, regime and seed: the unit of
work and of resume. Its key is the hash of everything that can change its numbers. A run may hold
several cells of one method: NAME@LABEL is the method NAME with options of its own.

A run is computed in parts, which depend on each other only by what they return: the unedited
model's answers for each seed, then the cells in any order (``editbench.run.worker``). Records are
written here alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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
earlier run) or ``failed``."""


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

    def missing(self, identity: Identity) -> list[str]:
        """Return the rows whose cells are not finished."""
        keys = self.keys(identity)
        return [name for name, key in keys.items() if not _is_finished(self.store, key)]


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


def run_jobs(jobs: Sequence[Job], worker: Worker, *, leave_out: bool = False) -> list[CellSummary]:
    """Compute the cells that are not done yet, and return the summaries of all.

    Each cell is written as a whole. A method that fails leaves a failed cell.

    Args:
        jobs: one for each seed.
        worker: the model.
        leave_out: go on without a retention task that the base cannot be asked, for all methods
            and seeds alike, and write the reason to ``not_asked.json``; without all of them, the
            first is an error.

    Raises:
        EditbenchError: the base cannot be asked (for example because the data of a task cannot be
            loaded), an artifact does not fit the model, a record cannot be written, the folder
            holds results for other facts or weights, or a method changed the model and its weights
            cannot be loaded again.
    """
    identity = worker.identity
    for job in jobs:
        _check_same(job.plan, job.store, identity)
        # Now, and not when the methods before it have taken their hours.
        made = [name for name in job.missing(identity) if name in job.plan.artifacts]
        job.artifacts = worker.check_artifacts(job.plan, made)
    if leave_out:
        _leave_out_tasks(jobs, worker)
    # Before the first cell is computed, so that whoever reads the run meanwhile no longer takes an
    # older cell of a method for the current one.
    for job in jobs:
        job.store.claim(job.keys(identity))
    for job in jobs:
        if job.missing(identity):
            _ask_base(job, worker)
    return [
        _finished(job, name, key, worker)
        for job in jobs
        for name, key in job.keys(identity).items()
    ]


def _leave_out_tasks(jobs: Sequence[Job], worker: Worker) -> None:
    """Ask the base the tasks, and drop those that one seed cannot be asked from all seeds."""
    lost: dict[str, str] = {}
    for job in jobs:
        if job.missing(worker.identity):
            job.samples, its_lost = worker.ask_tasks(job.plan)
            lost = {**its_lost, **lost}
    if not lost:
        return
    if len(lost) == len(jobs[0].plan.config.tasks):
        raise DataError(next(iter(lost.values())))
    for job in jobs:
        job.plan = job.plan.without(lost)
        write_json_atomic(job.store.path / "not_asked.json", job.plan.not_asked)


def _ask_base(job: Job, worker: Worker) -> None:
    try:
        job.answers = worker.ask_base(job.plan, job.samples)
    except EditbenchError:
        raise  # no method is to blame
    except Exception as error:  # of a plug-in that is asked about the base: every cell tells it
        job.broken = error


def _finished(job: Job, name: str, key: str, worker: Worker) -> CellSummary:
    """Return the summary of a cell, after computing and writing it if it is not done."""
    if _is_finished(job.store, key):
        job.on_cell(name, "kept")
        return job.store.read_summary(key)
    job.on_cell(name, "start")
    artifact = job.artifacts.get(name)
    if job.broken is None:
        cell = worker.compute(job.plan, name, key, job.answers, artifact)
    else:
        cell = worker.fail(job.plan, name, key, job.broken, artifact)
    return _written(job, name, key, cell)


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
                raise RecordError(
                    f"{store.path} holds results for other {what} under the same names ({old} "
                    f"there, {new} now). Use another --output."
                )
