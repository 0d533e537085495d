"""A ``RunConfig`` to cells to records. Knows no algorithm and no metric; rooms are reached through the registry.

A cell is one method with its options on one model, corpus slice, regime and seed: the unit of work and of resume. Its key
is the hash of everything that can change its numbers. One method may have several cells in a run: NAME@LABEL is the method
NAME under options of its own.
"""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch

from editbench.cost import Meter
from editbench.edit import Edit
from editbench.errors import (
    EditbenchError,
    MethodError,
    RecordError,
)
from editbench.eval import diagnostics, judge, probes
from editbench.models import LanguageModel, load_model
from editbench.plugin import Method
from editbench.records.environment import environment
from editbench.records.store import RunStore
from editbench.run import regimes
from editbench.run.baseline import Baseline
from editbench.run.config import RunConfig
from editbench.run.keys import cell_key, code_digest, machine, template_digest, versions_of
from editbench.run.plan import Plan
from editbench.run.scores import Rows, beside, curve_scores, retention_scores
from editbench.types import Case


def run(
    plan: Plan, model: LanguageModel, store: RunStore, on_cell: Callable[[str, str], None]
) -> Rows:
    """Computes the cells that are not done yet, each written as a whole; a method that fails leaves a failed cell.

    ``on_cell(method, state)`` hears ``start``, ``done``, ``kept`` (finished before) or ``failed``.

    Raises:
        EditbenchError: what no method could mend: the base cannot be scored (data of a task that cannot be had), a record
            cannot be written, the folder holds other facts or weights, a method spoiled the model for those after it and its
            weights cannot be read again.
    """
    config = plan.config
    weights, template = model.fingerprint(), template_digest(model)
    _check_same(plan, store, weights, model.precision, template)
    base = Baseline(plan, model, weights)
    summaries = []
    keys = {
        name: cell_key(plan, name, m, weights, model.precision, template)
        for name, m in plan.methods.items()
    }
    store.claim(keys)
    for name, method in plan.methods.items():
        key = keys[name]
        if store.done(key) and (found := store.read_summary(key))["status"] != "failed":
            on_cell(name, "kept")
            summaries.append(found)
            continue
        on_cell(name, "start")
        summary = {
            "method": name,
            "options": method.options(),
            **({"sources": files} if (files := method.sources()) else {}),
            "tuned": name in config.tuned,
            **({"tuning": config.tuned[name]} if name in config.tuned else {}),
            "model": {"name": model.name, "hash": weights, "precision": model.precision, "chat_template": template},
            "corpus": {"name": config.corpus, "hash": plan.slice_hash, "part": config.part, "n": len(plan.cases),
                       "form": plan.cases[0].fact.form},
            "tasks": plan.task_digests,
            "regime": config.regime,
            "seed": config.seed,
            "limit": config.limit,
            "versions": versions_of(config, method),
            **({"judge": {"model": config.judge_model}} if config.judge else {}),
            "environment": {**environment(), "code": code_digest(), **machine(model)},
        }  # fmt: skip
        try:
            found, tables = _cell(plan, name, method, model, weights, base)
        except Exception as error:  # one method's failure must not cost the others' results
            if isinstance(error, EditbenchError) and not base.measured:
                raise
            found, tables = _failed(error), {}
        try:
            store.write_cell(key, {**summary, **found}, tables)
        except EditbenchError:
            raise
        except Exception as error:  # a plug-in's diagnostics or records that no file can hold
            found = _failed(error)
            store.write_cell(key, {**summary, **found}, {})
        failed = found["status"] == "failed"
        on_cell(name, "failed" if failed else "done")
        summaries.append(store.read_summary(key))
        if failed and model.fingerprint() != weights and (why := _restored(model, weights, config)):
            raise MethodError(
                f"{name} failed and left the model's weights changed, so nothing can be measured after it ({found['note']}): "
                f"{why} Run again without it; finished methods are kept."
            )
    return summaries


def _restored(model: LanguageModel, weights: str, config: RunConfig) -> str:
    """Reads the weights again from where they came from, into ``model``; why that failed, else nothing."""
    try:
        fresh = load_model(
            config.model, precision=model.precision, device=str(model.device), layout=config.layout
        )
        with torch.no_grad():
            for name, parameter in model.model.named_parameters():
                parameter.copy_(fresh.weight(name))
    except (EditbenchError, OSError, RuntimeError, ValueError) as error:
        return f"they cannot be read again ({error})."
    return "" if model.fingerprint() == weights else f"{config.model} has others by now."


def _failed(error: Exception) -> dict[str, Any]:
    return {"status": "failed", "note": f"{type(error).__name__}: {error}", "metrics": {}, "retention": {}, "seconds": {},
            "edit": {}, "traceback": "".join(traceback.format_exception(error))}  # fmt: skip


def _check_same(
    plan: Plan, store: RunStore, weights: str, precision: str, template: str | None
) -> None:
    """Makes sure that cells finished earlier are of these facts, weights, precision and template: names alone do not tell."""
    for summary in store.summaries():
        for what, old, new in (
            ("facts", summary["corpus"]["hash"], plan.slice_hash),
            ("weights", summary["model"]["hash"], weights),
            ("precision", summary["model"]["precision"], precision),
            ("chat template", summary["model"].get("chat_template", template), template),
        ):
            if old != new:
                raise RecordError(
                    f"{store.path} holds results for other {what} under the same names ({old} there, {new} now). "
                    "Use another --output."
                )


def _cell(
    plan: Plan, name: str, method: Method, model: LanguageModel, weights: str, base: Baseline
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    config, cases = plan.config, plan.cases
    base_probes, base_samples = base.measure()
    diagnosed, judged = {}, {}
    with Meter(model) as meter:
        with meter.phase("precompute"):
            method.prepare(model)
        done = regimes.inject(config.regime, config.curve, method, model, cases, base, meter.phase)
        last = done.points[-1]
        repeated = _repeated(config.repeats, method, model, cases, meter)
        if config.judge:
            with meter.phase("judge"):
                last.probes, judged = judge.judge(last.probes, config.judge, config.judge_model)
        if config.diagnostics:
            with meter.phase("diagnostics"):
                diagnosed = diagnostics.diagnose(
                    model, done.edit, config.diagnostics, base_probes=base_probes, probes=last.probes,
                    base_samples=base_samples, samples=last.samples, seed=config.seed,
                )  # fmt: skip
    if (now := model.fingerprint()) != weights:
        raise RuntimeError(f"{name} changed the base model's weights: {weights} became {now}")
    status, note = "done", ""
    if done.stopped:
        status = "stopped"
        note = f"taken back and stopped after {last.facts} of {len(cases)} facts: with the next chunk {done.stopped}"
    elif name != "base" and not done.moved:
        status, note = "no_effect", "the edit changes nothing"
    summary = {
        "status": status,
        "note": note,
        "metrics": probes.metrics(last.probes),
        "retention": retention_scores(last.samples, base_samples),
        "seconds": meter.seconds,
        **({"inject_seconds": repeated} if config.repeats else {}),
        "work": _work(meter, done.edit),
        "peak_memory_bytes": meter.peak,
        "peak_process_bytes": meter.peak_process,
        "edit": done.edit.summary(model),
        **({"trajectory": done.trajectory} if done.trajectory else {}),
        **({"curve": curve_scores(done.points, cases, base_samples)} if config.curve else {}),
        **({"diagnostics": diagnosed} if diagnosed else {}),
        **({"judge": judged} if judged else {}),
    }
    tables = {
        "probes": beside(last.probes, base_probes, ("case", "probe"), probes.PROTOCOLS),
        "retention": beside(
            last.samples, base_samples, ("task", "member", "doc_id"), ("score", "output")
        ),
        "edit_records": list(done.edit.records),
    }
    for kind in ("probes", "samples") if config.curve else ():
        rows = [
            {"facts": point.facts, **row}
            for point in done.points[:-1]
            for row in getattr(point, kind)
        ]
        tables |= {f"curve_{kind}": rows} if rows else {}
    return summary, tables


def _work(meter: Meter, edit: Edit) -> dict[str, dict[str, float]]:
    """The meter's counts, and beside those of the injection the tokens that it trained on (labels), where the edit says so."""
    labels = {name: number for name, number in edit.diagnostics.items() if name == "trained_tokens"}
    return {
        phase: {**counts, **labels} if phase == "inject" else counts
        for phase, counts in meter.work.items()
    }


def _repeated(
    repeats: int, method: Method, model: LanguageModel, cases: Sequence[Case], meter: Meter
) -> list[float]:
    """The seconds of each injection; ``meter`` is left with their median."""
    found = [meter.seconds["inject"]]
    for _ in range(repeats):
        before = meter.seconds.get("inject again", 0.0)
        with meter.phase("inject again"):
            method.inject(model, [case.fact for case in cases])
        found.append(meter.seconds["inject again"] - before)
    meter.seconds["inject"] = statistics.median(found)
    return found
