"""Compute the cells of a run and write their records.

A cell is one method with its options on one model, corpus slice, regime and seed: the unit of
work and of resume. Its key is the hash of everything that can change its numbers. A run may hold
several cells of one method: NAME@LABEL is the method NAME with options of its own.
"""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch

from editbench.cost import Meter
from editbench.edit import Edit
from editbench.errors import DataError, EditbenchError, MethodError, RecordError
from editbench.eval import diagnostics, judge, probes
from editbench.files import write_json_atomic
from editbench.models import LanguageModel, load_model
from editbench.plugin import Method
from editbench.records.environment import environment
from editbench.records.schema import CellSummary, Status
from editbench.records.store import RunStore
from editbench.report import sums
from editbench.rows import Work
from editbench.run import evaluators, regimes
from editbench.run.baseline import Baseline
from editbench.run.config import RunConfig
from editbench.run.keys import (
    cell_key,
    chat_record,
    code_digest,
    machine,
    template_digest,
    versions_of,
)
from editbench.run.plan import Plan
from editbench.run.scores import beside, curve_scores, retention_scores, right_after_scores
from editbench.types import Case

OnCell = Callable[[str, str], None]
"""Called as ``on_cell(method, state)``; the state is ``start``, ``done``, ``kept`` (finished in an
earlier run) or ``failed``."""
Tables = Mapping[str, Sequence[Mapping[str, object]]]


def run(
    plan: Plan,
    model: LanguageModel,
    store: RunStore,
    on_cell: OnCell,
    *,
    leave_out: bool = False,
) -> list[CellSummary]:
    """Compute the cells that are not done yet, and return the summaries of all.

    Each cell is written as a whole. A method that fails leaves a failed cell.

    Args:
        leave_out: go on without a retention task that the base cannot be asked, for all methods
            alike, and write the reason to ``not_asked.json``; without all of them, the first is an
            error.

    Raises:
        EditbenchError: the base cannot be asked (for example because the data of a task cannot be
            loaded), an artifact does not fit the model, a record cannot be written, the folder
            holds results for other facts or weights, or a method changed the model and its weights
            cannot be loaded again.
    """
    weights, template, chat = model.fingerprint(), template_digest(model), chat_record(model)
    _check_same(plan, store, weights, model.precision, template)
    base = Baseline(plan, model, weights)

    def keys_of(plan: Plan) -> dict[str, str]:
        return {
            name: cell_key(plan, name, method, weights, model.precision, template, chat)
            for name, method in plan.methods.items()
        }

    keys = keys_of(plan)
    # Now, and not when the methods before it have taken their hours.
    facts = [case.fact for case in plan.cases]
    made = {
        name: artifact.check(model, facts)
        for name, artifact in plan.artifacts.items()
        if not _is_finished(store, keys[name])
    }
    if leave_out and not all(_is_finished(store, key) for key in keys.values()):
        lost = base.ask_tasks()
        if lost and len(lost) == len(plan.config.tasks):
            raise DataError(next(iter(lost.values())))
        if lost:
            base.plan = plan = plan.without(lost)
            keys = keys_of(plan)
            write_json_atomic(store.path / "not_asked.json", plan.not_asked)
    # Before the first cell is computed, so that whoever reads the run meanwhile no longer takes an
    # older cell of a method for the current one.
    store.claim(keys)
    summaries = []
    for name, method in plan.methods.items():
        key = keys[name]
        if _is_finished(store, key):
            on_cell(name, "kept")
            summaries.append(store.read_summary(key))
            continue
        on_cell(name, "start")
        conditions = _conditions(plan, name, method, model, weights, template)
        if name in made:
            conditions["artifact"] = made[name]
        failed = _compute(plan, name, method, model, weights, base, store, key, conditions)
        on_cell(name, "failed" if failed else "done")
        summaries.append(store.read_summary(key))
        # After a method that did not fail, ``_cell`` has made this check.
        if failed and model.fingerprint() != weights:
            _restore(model, weights, plan.config, name, summaries[-1]["note"])
    return summaries


def _is_finished(store: RunStore, key: str) -> bool:
    # A failed cell is computed again: what made it fail may have been fixed.
    return store.done(key) and store.read_summary(key)["status"] != "failed"


def _conditions(
    plan: Plan, name: str, method: Method, model: LanguageModel, weights: str, template: str | None
) -> dict[str, object]:
    """Return the fields of a cell's summary that are known before it is computed."""
    config, sources = plan.config, method.sources()
    return {
        "method": name,
        "options": method.options(),
        **({"left_out": left_out} if (left_out := method.left_out()) else {}),
        **({"recipe": recipe} if (recipe := method.recipe_name()) else {}),
        **({"sources": sources} if sources else {}),
        "tuned": name in config.tuned,
        **({"tuning": config.tuned[name]} if name in config.tuned else {}),
        "model": {
            "name": model.name,
            "hash": weights,
            "precision": model.precision,
            "chat_template": template,
            **({"chat": chat} if (chat := chat_record(model)) else {}),
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
        "versions": versions_of(plan, method),
        **({"judge": {"model": config.judge_model}} if config.judge else {}),
        "environment": {**environment(), "code": code_digest(), **machine(model)},
    }


def _compute(
    plan: Plan,
    name: str,
    method: Method,
    model: LanguageModel,
    weights: str,
    base: Baseline,
    store: RunStore,
    key: str,
    conditions: Mapping[str, object],
) -> bool:
    """Compute the cell of one method and write it; return whether the method failed."""
    try:
        scores, tables = _cell(plan, name, method, model, weights, base)
    except Exception as error:  # one method's failure must not cost the results of the others
        # Until the base has its answers, no method is to blame.
        if isinstance(error, EditbenchError) and not base.measured:
            raise
        scores, tables = _failed(error), {}
    try:
        store.write_cell(key, {**conditions, **scores}, tables)
    except EditbenchError:
        raise
    except Exception as error:  # a plug-in's report or records are of types that no file can hold
        scores = _failed(error)
        store.write_cell(key, {**conditions, **scores}, {})
    return scores["status"] == "failed"


def _restore(model: LanguageModel, weights: str, config: RunConfig, name: str, note: str) -> None:
    """Load the weights again into ``model``, which the method ``name`` left changed.

    Raises:
        MethodError: the weights cannot be loaded, or have changed on disk since.
    """
    try:
        fresh = load_model(
            config.model, precision=model.precision, device=str(model.device), layout=config.layout
        )
        # In place, because the caller and the baseline hold this object.
        with torch.no_grad():
            for parameter_name, parameter in model.model.named_parameters():
                parameter.copy_(fresh.weight(parameter_name))
        why = "" if model.fingerprint() == weights else f"{config.model} now has other weights."
    except (EditbenchError, OSError, RuntimeError, ValueError) as error:
        why = f"they cannot be read again ({error})."
    if why:
        raise MethodError(
            f"{name} failed and left the model's weights changed, so nothing can be measured after "
            f"it ({note}): {why} Run again without it; finished methods are kept."
        )


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


def _check_same(
    plan: Plan, store: RunStore, weights: str, precision: str, template: str | None
) -> None:
    """Check that finished cells are of these facts, weights, precision and template.

    The names in ``run.json`` do not show this: a file of facts or weights may have changed.

    Raises:
        RecordError: a cell has other facts or weights, or another precision or template.
    """
    for summary in store.summaries():
        model = summary["model"]
        for what, old, new in (
            ("facts", summary["corpus"]["hash"], plan.slice_hash),
            ("weights", model["hash"], weights),
            ("precision", model["precision"], precision),
            # Older records have no template; they are taken to agree.
            ("chat template", model.get("chat_template", template), template),
        ):
            if old != new:
                raise RecordError(
                    f"{store.path} holds results for other {what} under the same names ({old} "
                    f"there, {new} now). Use another --output."
                )


def _cell(
    plan: Plan, name: str, method: Method, model: LanguageModel, weights: str, base: Baseline
) -> tuple[dict[str, object], Tables]:
    """Inject, ask and score; return the computed fields of the summary, and the tables.

    Raises:
        RuntimeError: the method changed the weights of the base model.
    """
    config, cases = plan.config, plan.cases
    base.measure()
    # These stay empty unless they were asked for.
    diagnosed: Mapping[str, object] = {}
    judged: Mapping[str, object] = {}
    is_made = name in plan.artifacts
    with Meter(model) as meter:

        def phase(step: str) -> AbstractContextManager[None]:
            # To read an artifact takes other seconds than it took to make it.
            return meter.phase("read" if is_made and step == "inject" else step)

        # Timed apart from the injection: it does not depend on the facts, and its result is cached.
        if not is_made:
            with phase("precompute"):
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
