"""Compute the parts of a run on a model: the unedited model's answers, and cells.

A worker holds a model and writes no record: it returns the bytes of a cell's files. Thus the
process that computes a cell need not be the one that writes it.
"""

from __future__ import annotations

import gc
import json
import statistics
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass

import torch

from editbench.cost import Measured, Meter
from editbench.edit import Edit
from editbench.errors import EditbenchError
from editbench.eval import diagnostics, judge, probes
from editbench.models import LanguageModel, load_model
from editbench.placing import Loading
from editbench.plugin import Method
from editbench.records.environment import environment
from editbench.records.schema import ArtifactRecord, ChatRecord, Status
from editbench.records.store import cell_files
from editbench.report import sums
from editbench.rows import Work
from editbench.run import evaluators, regimes
from editbench.run.baseline import Baseline
from editbench.run.config import RunConfig, method_of
from editbench.run.keys import chat_record, code_digest, machine, template_digest, versions_of
from editbench.run.origin import origins
from editbench.run.plan import Plan
from editbench.run.scores import beside, curve_scores, retention_scores, right_after_scores
from editbench.types import Case

Tables = Mapping[str, Sequence[Mapping[str, object]]]


@dataclass(frozen=True)
class Identity:
    """What of a model is part of a cell's key."""

    weights: str
    """Fingerprint of the weights."""
    dtype: str
    """In which type they are held; their fingerprint depends on it."""
    precision: str
    template: str | None
    """Hash of the chat template, ``None`` without one."""
    chat: ChatRecord


@dataclass(frozen=True)
class Computed:
    """A cell that was computed, or that failed."""

    files: Mapping[str, bytes]
    """What ``RunStore.write_files`` takes."""
    failed: bool
    spoiled: str = ""
    """Why the worker's model cannot be used any more: a method left its weights changed, and they
    could not be loaded again. Empty for a model that is as it was."""


class Worker:
    """A model, and the parts of runs that are computed on it, one at a time."""

    size = 1

    def __init__(self, model: LanguageModel):
        self.model = model
        self.identity = Identity(
            model.fingerprint(),
            model.dtype_name,
            model.precision,
            template_digest(model),
            chat_record(model),
        )
        self._base: tuple[bytes, Baseline] | None = None

    def check_artifacts(self, plan: Plan, names: Iterable[str]) -> dict[str, ArtifactRecord]:
        """Return what the records of rows say of their artifacts, which fit the model.

        Raises:
            ModelError: an artifact does not fit, or cannot be read.
        """
        facts = [case.fact for case in plan.cases]
        return {name: plan.artifacts[name].check(self.model, facts) for name in names}

    def ask_tasks(self, plan: Plan) -> tuple[bytes, dict[str, str]]:
        """Return the unedited model's samples of the retention tasks, and the tasks without any.

        Returns:
            Task -> rows, as JSON, and task -> why it cannot be asked.
        """
        samples, lost = Baseline(plan, self.model, self.identity.weights).ask_tasks()
        return json.dumps(samples).encode(), lost

    def ask_base(self, plan: Plan, samples: bytes) -> bytes:
        """Return the unedited model's answers to all that ``plan`` asks, as JSON.

        Args:
            plan: a run.
            samples: what ``ask_tasks`` returned, or ``{}``; other tasks are asked.

        Raises:
            EditbenchError: the model cannot be asked.
        """
        base = Baseline(plan, self.model, self.identity.weights)
        return json.dumps(base.measure(json.loads(samples))).encode()

    def statistics(self, plan: Plan, keys: Mapping[str, str]) -> list[Callable[[], None]]:
        """Return no tasks: statistics are measured in the first cell that needs them."""
        return []

    def prepare(self, plan: Plan, names: Iterable[str]) -> dict[str, Measured]:
        """Measure and cache what rows need that does not depend on the facts.

        Return row -> what it took. A row that fails is left out, since its cell will tell why.
        """
        taken: dict[str, Measured] = {}
        for name in names:
            with suppress(Exception):
                with Meter(self.model) as meter, meter.phase("precompute"):
                    plan.methods[name].prepare(self.model)
                taken[name] = meter.measured()
        return taken

    def compute(
        self,
        plan: Plan,
        name: str,
        key: str,
        answers: bytes,
        artifact: ArtifactRecord | None,
        prepared: Measured | None = None,
    ) -> Computed:
        """Compute the cell ``key``, which is the row ``name`` of ``plan``.

        A method's error is a failed cell.

        Args:
            plan: a run.
            name: a row of it.
            key: the key of its cell.
            answers: what ``ask_base`` returned for ``plan``.
            artifact: what ``check_artifacts`` returned, where the row is an artifact.
            prepared: what ``prepare`` returned for the row, if it was called.
        """
        weights = self.identity.weights
        conditions = _conditions(plan, name, self.model, self.identity, artifact)
        try:
            base = self._taken(plan, answers)
            scores, tables = _cell(plan, name, self.model, weights, base, prepared)
            files = cell_files(key, {**conditions, **scores}, tables)
        # One method's failure must not cost the results of the others. A plug-in's report may also
        # be of types that no file can hold.
        except Exception as error:
            files = cell_files(key, {**conditions, **_failed(error)}, {})
            # After a method that did not fail, ``_cell`` has made this check.
            changed = self.model.fingerprint() != weights
            return Computed(
                files, True, _restore(self.model, weights, plan.config) if changed else ""
            )
        finally:
            gc.collect()  # cycles may keep a live edit, and its process with gigabytes of its own
        return Computed(files, False)

    def fail(
        self,
        plan: Plan,
        name: str,
        key: str,
        error: Exception,
        artifact: ArtifactRecord | None,
    ) -> Computed:
        """Return the cell that could not be computed because of ``error``."""
        conditions = _conditions(plan, name, self.model, self.identity, artifact)
        return Computed(cell_files(key, {**conditions, **_failed(error)}, {}), True)

    def _taken(self, plan: Plan, answers: bytes) -> Baseline:
        """Return the examiner with ``answers``, which the cells of a run share."""
        if self._base is None or self._base[0] != answers:
            base = Baseline(plan, self.model, self.identity.weights)
            base.take(json.loads(answers))
            self._base = answers, base
        self._base[1].plan = plan  # a run of other methods may ask the same
        return self._base[1]


def _conditions(
    plan: Plan, name: str, model: LanguageModel, identity: Identity, artifact: ArtifactRecord | None
) -> dict[str, object]:
    """Return the fields of a cell's summary that are known before it is computed."""
    method = plan.methods[name]
    config, sources = plan.config, method.sources()
    return {
        "method": name,
        "options": method.options(),
        **({"left_out": left_out} if (left_out := method.left_out()) else {}),
        **({"recipe": recipe} if (recipe := method.recipe_name()) else {}),
        **({"sources": sources} if sources else {}),
        **({"origins": made_by} if (made_by := origins(method_of(name))) else {}),
        "tuned": name in config.tuned,
        **({"tuning": config.tuned[name]} if name in config.tuned else {}),
        "model": {
            "name": model.name,
            "hash": identity.weights,
            "precision": identity.precision,
            **({"dtype": model.dtype_name} if model.dtype != torch.float32 else {}),
            "chat_template": identity.template,
            **({"chat": identity.chat} if identity.chat else {}),
            **({"adapter": model.adapter} if model.adapter else {}),
        },
        "corpus": {
            "name": config.corpus,
            "hash": plan.slice_hash,
            "part": config.part,
            "n": len(plan.cases),
            "form": plan.form,
        },
        "tasks": plan.task_digests,
        "regime": config.regime,
        "seed": config.seed,
        "limit": config.limit,
        "versions": versions_of(plan, name, method),
        **({"judge": {"model": config.judge_model}} if config.judge else {}),
        "environment": {**environment(), "code": code_digest(), **machine(model)},
        **({"artifact": artifact} if artifact is not None else {}),
    }


def _restore(model: LanguageModel, weights: str, config: RunConfig) -> str:
    """Load the weights again into ``model``, which a method left changed.

    Return why they cannot be loaded again, empty if they are.
    """
    try:
        how = model.loading or Loading()
        fresh = load_model(config.model, dtype=how.dtype, device="cpu", layout=config.layout)
        # In place, because the caller and the baseline hold this object.
        for parameter_name, _ in model.model.named_parameters():
            model.write(parameter_name, fresh.weight(parameter_name))
        return "" if model.fingerprint() == weights else f"{config.model} now has other weights."
    except (EditbenchError, OSError, RuntimeError, ValueError) as error:
        return f"they cannot be read again ({error})."


def _failed(error: Exception) -> dict[str, object]:
    """Return the fields of a failed cell's summary."""
    return {
        "status": "failed",
        "note": f"{type(error).__name__}: {error}",
        "metrics": {},
        "retention": {},
        "seconds": {},
        "edit": {},
        "traceback": "".join(traceback.format_exception(error)),
    }


def _cell(
    plan: Plan,
    name: str,
    model: LanguageModel,
    weights: str,
    base: Baseline,
    prepared: Measured | None,
) -> tuple[dict[str, object], Tables]:
    """Inject, ask and score; return the computed fields of the summary, and the tables.

    Raises:
        RuntimeError: the method changed the weights of the base model.
    """
    config, cases, method = plan.config, plan.cases, plan.methods[name]
    # These stay empty unless they were asked for.
    diagnosed: Mapping[str, object] = {}
    judged: Mapping[str, object] = {}
    is_made = name in plan.artifacts
    with Meter(model, prepared) as meter:

        def phase(step: str) -> AbstractContextManager[None]:
            # To read an artifact takes other seconds than it took to make it.
            return meter.phase("read" if is_made and step == "inject" else step)

        # Timed apart from the injection: it does not depend on the facts, and its result is cached.
        # Where a task before has measured it, the record says what that took.
        if not is_made:
            with nullcontext() if prepared else phase("precompute"):
                method.prepare(model)
        done = regimes.inject(config.regime, config.curve, method, model, cases, base, phase)
        last = done.points[-1]
        repeated = [] if is_made else _repeat(config.repeats, method, model, cases, meter)
        if config.judge and config.judge_model:
            with meter.phase("judge"):
                last.probes, judged = judge.judge(last.probes, config.judge, config.judge_model)
        if config.diagnostics:
            with meter.phase("diagnostics"):
                diagnosed = _diagnose(config, model, done, base)
    # A method or evaluator that leaves a trace in the weights would spoil all cells after it.
    if (now := model.fingerprint()) != weights:
        raise RuntimeError(f"{name} changed the base model's weights: {weights} became {now}")
    status, note = _status(name, done, len(cases))
    titles = {key: evaluator.title or key for key, evaluator in plan.evaluators.items()}
    evaluated = evaluators.summarize(titles, last.scores, base.scores)
    curve = curve_scores(done.points, cases, base.samples) if config.curve else []
    first, n = done.right_after, len(cases)
    summary: dict[str, object] = {
        "status": status,
        "note": note,
        "metrics": probes.metrics(last.probes),
        **({"denied": denied} if (denied := probes.denied_answers(last.probes)) else {}),
        "retention": retention_scores(last.samples, base.samples),
        **({"evaluators": evaluated} if evaluated else {}),
        "seconds": meter.seconds,
        **({"inject_seconds": repeated} if config.repeats and not is_made else {}),
        "work": _work(meter, method, done.edit),
        "peak_memory_bytes": meter.peak,
        "peak_process_bytes": meter.peak_process,
        "edit": done.edit.summary(model),
        **({"trajectory": done.trajectory} if done.trajectory else {}),
        **({"curve": curve} if curve else {}),
        **({} if first is None else {"right_after": right_after_scores(first, last.probes, n)}),
        **({"diagnostics": diagnosed} if diagnosed else {}),
        **({"judge": judged} if judged else {}),
    }
    return summary, _tables(done, base)


def _diagnose(
    config: RunConfig, model: LanguageModel, done: regimes.Outcome, base: Baseline
) -> Mapping[str, object]:
    """Return the diagnostics of an edit; ``model`` does not have it applied."""
    last = done.points[-1]
    return diagnostics.diagnose(
        model,
        done.edit,
        config.diagnostics,
        base_probes=base.probes,
        probes=last.probes,
        base_samples=base.samples,
        samples=last.samples,
        seed=config.seed,
    )


def _status(name: str, done: regimes.Outcome, total: int) -> tuple[Status, str]:
    """Return the status of a cell that did not fail, and its reason."""
    if done.stopped:
        return "stopped", (
            f"taken back and stopped after {done.points[-1].facts} of {total} facts: with the next "
            f"chunk {done.stopped}"
        )
    if name != "base" and not done.moved:
        return "no_effect", "the edit changes nothing"
    return "done", ""


def _tables(done: regimes.Outcome, base: Baseline) -> Tables:
    """Return the tables of a cell; those of evaluators and of a curve only where they have rows."""
    # The last point is the cell itself; only the earlier ones need tables of the curve.
    *earlier, last = done.points
    document = ("task", "member", "doc_id")
    tables: dict[str, Sequence[Mapping[str, object]]] = {
        "probes": beside(last.probes, base.probes, ("case", "probe"), probes.PROTOCOLS),
        "retention": beside(last.samples, base.samples, document, ("score", "output")),
        "edit_records": list(done.edit.records),
    }
    more: dict[str, Sequence[Mapping[str, object]]] = {
        "scores": beside(last.scores, base.scores, ("evaluator", "case"), ("score",)),
        "curve_probes": [{"facts": at.facts, **row} for at in earlier for row in at.probes],
        "curve_samples": [{"facts": at.facts, **row} for at in earlier for row in at.samples],
        "right_after": done.right_after or [],
    }
    return tables | {name: rows for name, rows in more.items() if rows}


def _work(meter: Meter, method: Method, edit: Edit) -> dict[str, Work]:
    """Return the counts of the meter by phase; the injection also has the method's own sums."""
    figures = sums(method.figures, [edit.diagnostics])
    return {
        phase: {**counts, **figures} if phase == "inject" else counts
        for phase, counts in meter.work.items()
    }


def _repeat(
    repeats: int, method: Method, model: LanguageModel, cases: Sequence[Case], meter: Meter
) -> list[float]:
    """Inject ``repeats`` more times and return the seconds of each injection, the first included.

    The phase ``inject`` of ``meter`` gets their median.
    """
    seconds = [meter.seconds["inject"]]
    for _ in range(repeats):
        # A phase of its own, so that the work counted under ``inject`` is that of one injection.
        before = meter.seconds.get("inject again", 0.0)
        with meter.phase("inject again"):
            method.inject(model, [case.fact for case in cases])
        seconds.append(meter.seconds["inject again"] - before)
    meter.seconds["inject"] = statistics.median(seconds)
    return seconds
