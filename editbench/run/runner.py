"""A ``RunConfig`` to cells to records. Knows no algorithm and no metric; rooms are reached through the registry.

A cell is one method with its options on one model, corpus slice, regime and seed: the unit of work and of resume. Its key
is the hash of everything that can change its numbers. One method may have several cells in a run: NAME@LABEL is the method
NAME under options of its own.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import platform
import re
import statistics
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from editbench import progress, registry
from editbench.cost import Meter
from editbench.edit import Edit
from editbench.errors import EditbenchError, MethodError, OptionError, PluginError, RecordError
from editbench.models import PRECISIONS, LanguageModel, cache_dir, load_model
from editbench.own_text import own_texts
from editbench.plugin import Method, askable, check_seed, slice_cases
from editbench.records.store import RunStore, environment, heading, read_cases, write_json_atomic
from editbench.run import regimes
from editbench.run.api import check_subjects
from editbench.stats import retained
from editbench.types import Case, check_facts, digest

SCORING = 7
"""Version of what ``eval/``, the regimes and the intervals do; a change that can move a number raises it, and old cells are
computed anew."""

Rows = list[dict[str, Any]]
OWN_TEXT_TOKENS, OWN_TEXT_LENGTH = 512, 32


@dataclass(frozen=True)
class RunConfig:
    """What ``editbench compare`` was asked for. Every field is part of the run's identity."""

    methods: tuple[str, ...]
    """Names of methods, or NAME@LABEL for variants of one."""
    model: str
    corpus: str
    data: str | None = None
    part: str = "test"
    n: int = 50
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    """Documents per retention task, drawn by ``seed``."""
    regime: str = "batch"
    curve: tuple[int, ...] = ()
    """Numbers of facts after which the model is asked, too; see ``editbench.run.regimes``."""
    seed: int = 0
    precision: str = "auto"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Method or variant to option to value; a variant takes none from its method."""
    task_data: Mapping[str, str] = field(default_factory=dict)
    allow_conflicts: bool = False
    layout: Mapping[str, str] = field(default_factory=dict)
    diagnostics: tuple[str, ...] = ()
    """Names of what is measured beside the scores; see ``eval/diagnostics.py``."""
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Method whose ``options`` were searched for, to the record of that search; see ``tune.py``."""
    judge: str | None = None
    """The address of a language model that judges the answers, too; see ``eval/judge.py``."""
    judge_model: str | None = None
    repeats: int = 0
    """Further injections by each method, for the time alone: the seconds of an injection are then the median of all."""

    def __post_init__(self) -> None:
        regimes.check_curve(self.regime, self.curve, self.n)
        if self.tasks and self.regime == "single":
            raise OptionError(
                "Under --regime single each fact has a model of its own, none to ask tasks. Pass --tasks none."
            )
        if self.diagnostics and self.regime == "single":
            raise OptionError(
                "--diagnostics does not go with --regime single: they are of one edited model."
            )
        if self.repeats < 0:
            raise OptionError(f"--repeats is {self.repeats}; 0 is the least.")
        if self.repeats and self.regime != "batch":
            raise OptionError(
                f"--repeats times one injection again, and --regime {self.regime} has many. Use --regime batch."
            )
        if self.precision not in PRECISIONS:
            raise OptionError(
                f"Precision {self.precision!r} is not one of {', '.join(PRECISIONS)}."
            )
        check_seed(self.seed)
        if self.n < 1:
            raise OptionError(f"-n is {self.n}; at least one fact is needed.")
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"--limit is {self.limit}; at least one item per task is needed.")
        twice = next((m for i, m in enumerate(self.methods) if m in self.methods[:i]), None)
        if twice:
            raise OptionError(f"Method {twice!r} is listed twice. List it once.")
        for name in self.methods:
            if name.endswith("@"):
                raise OptionError(
                    f"Variant {name!r} has an empty label. Write it as NAME@LABEL, such as {name}slow."
                )
            if name.startswith("base@"):
                raise OptionError(
                    f"Variant {name!r} makes no sense: base is the unedited model. Leave it out."
                )
        for other in self.options:
            if other not in self.methods:
                compared = ", ".join(self.methods)
                raise OptionError(
                    f"--option {other}.… is for a method that is not compared. Compared: {compared}."
                )


@dataclass(frozen=True)
class Plan:
    """A checked configuration: methods built, cases loaded; nothing heavy has happened yet."""

    config: RunConfig
    methods: Mapping[str, Method]
    cases: Sequence[Case]
    left_out: Sequence[str] = ()
    """Records of the corpus that cannot be facts, and probes that cannot be asked, one reason each."""
    not_asked: Mapping[str, str] = field(default_factory=dict)
    """Retention tasks that were asked for, cannot be loaded and are not among those of ``config``; why."""

    @functools.cached_property
    def slice_hash(self) -> str:
        return digest([case.to_dict() for case in self.cases])[:16]

    @functools.cached_property
    def task_digests(self) -> dict[str, str | None]:
        """Task to the hash of its data; None for data from the hub."""
        data = self.config.task_data
        asked = registry.get("eval", "task-digest")
        return {
            task: asked(task, Path(data[task]) if task in data else None)
            for task in self.config.tasks
        }


def with_baselines(methods: Sequence[str]) -> tuple[str, ...]:
    """``methods``, preceded by the baselines that are always in the table."""
    return (*(name for name in registry.baselines() if name not in methods), *methods)


def method_of(name: str) -> str:
    """The registered method behind ``name``: its part before the @."""
    return name.partition("@")[0]


def plan(config: RunConfig) -> Plan:
    """Checks every name, option and record of ``config``.

    Raises:
        EditbenchError: the first thing that is wrong.
    """
    methods = build_methods(config)
    for name, method in methods.items():
        try:
            digest(method.options())
        except (TypeError, ValueError) as error:
            raise PluginError(
                f"The options of method {name!r} cannot be recorded as JSON: {error}."
            ) from error
    registry.get("eval", "check-diagnostics")(config.diagnostics)
    registry.get("eval", "check-judge")(config.judge, config.judge_model)
    corpus = registry.get("corpora", config.corpus)()
    cases = slice_cases(corpus.load(config.data), config.part, config.n, config.seed)
    if regimes.parse(config.regime)[0] == "single":
        cases = [askable(case, {case.fact.id}) for case in cases]
    facts = check_facts((case.fact for case in cases), config.allow_conflicts)
    for name, method in methods.items():
        check_subjects(name, method, facts)
    return Plan(config, methods, cases, tuple(getattr(corpus, "skipped", ())))


def build_methods(config: RunConfig) -> dict[str, Method]:
    """The methods of ``config`` with their options.

    Raises:
        UnknownNameError: no such method.
        OptionError: an unknown option, or a bad value.
    """
    built = {}
    for name in config.methods:
        options = {"seed": config.seed, **config.options.get(name, {})}
        built[name] = registry.get("methods", method_of(name)).from_options(
            method_of(name), options
        )
    return built


def run(
    the_plan: Plan, model: LanguageModel, store: RunStore, on_cell: Callable[[str, str], None]
) -> Rows:
    """Computes the cells that are not done yet, each written as a whole; a method that fails leaves a failed cell.

    ``on_cell(method, state)`` hears ``start``, ``done``, ``kept`` (finished before) or ``failed``.

    Raises:
        EditbenchError: what no method could mend: the base cannot be scored (data of a task that cannot be had), a record
            cannot be written, the folder holds other facts or weights, a method spoiled the model for those after it and its
            weights cannot be read again.
    """
    config = the_plan.config
    weights, template = model.fingerprint(), template_digest(model)
    _check_same(the_plan, store, weights, model.precision, template)
    base = _Baseline(the_plan, model, weights)
    summaries = []
    keys = {
        name: cell_key(the_plan, name, m, weights, model.precision, template)
        for name, m in the_plan.methods.items()
    }
    store.claim(keys)
    for name, method in the_plan.methods.items():
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
            "corpus": {"name": config.corpus, "hash": the_plan.slice_hash, "part": config.part, "n": len(the_plan.cases),
                       "form": the_plan.cases[0].fact.form},
            "tasks": the_plan.task_digests,
            "regime": config.regime,
            "seed": config.seed,
            "limit": config.limit,
            "versions": _versions(config, method),
            **({"judge": {"model": config.judge_model}} if config.judge else {}),
            "environment": {**environment(), "code": code_digest(), **machine(model)},
        }  # fmt: skip
        try:
            found, tables = _cell(the_plan, name, method, model, weights, base)
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


@functools.cache
def code_digest() -> str:
    """SHA-256 of the Python files that can move a number, 16 hex digits: the core's, methods', corpora's and eval's.

    The same in a checkout and in an installed wheel; data that code reads has hashes of its own.
    """
    hashes: dict[str, str] = {}
    for room in ("", *registry.KINDS):
        spec = importlib.util.find_spec(f"editbench.{room}" if room else "editbench")
        folder = Path(spec.submodule_search_locations[0])
        for file in folder.rglob("*.py"):
            inner = file.relative_to(folder)
            # in a wheel the rooms lie inside the core's folder, in a checkout beside it
            if room or inner.parts[0] not in (*registry.KINDS, "leaderboard"):
                hashes[(Path(room) / inner).as_posix()] = hashlib.sha256(file.read_bytes()).hexdigest()
    return digest(sorted(hashes.items()))[:16]


def machine(model: LanguageModel) -> dict[str, Any]:
    """What the rounding of the model's answers hangs on: the device, which one, and the number of threads."""
    if model.device.type == "cuda":
        hardware = torch.cuda.get_device_name(model.device)
    else:
        hardware = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {"threads": torch.get_num_threads(), "device": model.device.type, "hardware": hardware}


def template_digest(model: LanguageModel) -> str | None:
    """Hash of the chat template; ``None`` where there is none."""
    return digest(model.tokenizer.chat_template)[:16] if model.chat else None


def _check_same(
    the_plan: Plan, store: RunStore, weights: str, precision: str, template: str | None
) -> None:
    """Makes sure that cells finished earlier are of these facts, weights, precision and template: names alone do not tell."""
    for summary in store.summaries():
        for what, old, new in (
            ("facts", summary["corpus"]["hash"], the_plan.slice_hash),
            ("weights", summary["model"]["hash"], weights),
            ("precision", summary["model"]["precision"], precision),
            ("chat template", summary["model"].get("chat_template", template), template),
        ):
            if old != new:
                raise RecordError(
                    f"{store.path} holds results for other {what} under the same names ({old} there, {new} now). "
                    "Use another --output."
                )


def cell_key(
    the_plan: Plan,
    name: str,
    method: Method,
    weights: str,
    precision: str,
    template: str | None = None,
) -> str:
    """The name of a cell: its method, and the hash of all that can change its numbers."""
    summary = {
        "method": name, "options": method.options(), "sources": method.sources(),
        "versions": _versions(the_plan.config, method),
        "model": {"hash": weights, "precision": precision, "chat_template": template},
        "corpus": {"hash": the_plan.slice_hash}, "tasks": the_plan.task_digests,
        **{what: getattr(the_plan.config, what) for what in ("regime", "seed", "limit")},
    }  # fmt: skip
    return key_of(summary, identity(the_plan.config))


def _versions(config: RunConfig, method: Method) -> dict[str, int]:
    watched = {"regime": regimes.VERSION} if config.regime.startswith("sequential") else {}
    return {"scoring": SCORING, "method": method.version, **watched}


def key_of(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The key of the cell of ``summary`` in a run whose ``run.json`` has ``config``."""
    name, versions, model = summary["method"], summary["versions"], summary["model"]
    tasks, diagnostics, curve, judge, layout = map(
        config.get, ("tasks", "diagnostics", "curve", "judge", "layout")
    )
    identity = [
        versions["scoring"], name, versions["method"], summary["options"], model["hash"], model["precision"],
        summary["corpus"]["hash"], summary["regime"], summary["seed"], list(tasks), summary["tasks"], summary["limit"],
        *([list(diagnostics)] if diagnostics else []), *([list(curve)] if curve else []),
        *([{"judge": judge, "model": config["judge_model"]}] if judge else []),
        *([{"chat template": model["chat_template"]}] if model["chat_template"] else []),
        *([{"layout": dict(layout)}] if layout else []),
        *([{"regime": versions["regime"]}] if "regime" in versions else []),
        *([{"sources": summary["sources"]}] if summary.get("sources") else []),
    ]  # fmt: skip
    method_name, at, label = name.partition("@")
    label = re.sub(r"[^A-Za-z0-9._=+-]", "_", at + label)[
        :80
    ]  # part of a folder's name; the hash has it unchanged
    return f"{method_name}{label}-{digest(identity)[:12]}"


def _cell(
    the_plan: Plan, name: str, method: Method, model: LanguageModel, weights: str, base: _Baseline
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    config, cases = the_plan.config, the_plan.cases
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
                last.probes, judged = registry.get("eval", "judge")(
                    last.probes, config.judge, config.judge_model
                )
        if config.diagnostics:
            with meter.phase("diagnostics"):
                diagnosed = registry.get("eval", "diagnostics")(
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
        "metrics": registry.get("eval", "metrics")(last.probes),
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
        "probes": _beside(
            last.probes, base_probes, ("case", "probe"), registry.get("eval", "protocols")
        ),
        "retention": _beside(
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


def curve_scores(
    points: Sequence[regimes.Point], cases: Sequence[Case], base: Rows
) -> list[dict[str, Any]]:
    """The scores after so many facts, of the facts injected by then, by the probes that need no later one."""
    curve = []
    for point in {
        point.facts: point for point in points
    }.values():  # a stopped sequence ends where it was asked before
        taught = {case.fact.id for case in cases[: point.facts]}
        early = {
            (c.fact.id, i)
            for c in cases
            for i, probe in enumerate(c.probes)
            if not taught.issuperset(probe.needs)
        }
        asked = [
            row
            for row in point.probes
            if row["case"] in taught and (row["case"], row["probe"]) not in early
        ]
        metrics = registry.get("eval", "metrics")(asked) if asked else {}
        curve.append(
            {
                "facts": point.facts,
                "metrics": metrics,
                "retention": retention_scores(point.samples, base),
            }
        )
    return curve


def _beside(
    rows: Sequence[Mapping[str, Any]],
    base: Sequence[Mapping[str, Any]],
    place: Sequence[str],
    columns: Sequence[str],
) -> list[dict[str, Any]]:
    """``rows``, each with ``columns`` of the base's row at the same ``place`` as ``base_...``: a record explains itself."""
    before = {tuple(row[key] for key in place): row for row in base}
    return [
        {**row, **{f"base_{c}": before[tuple(row[key] for key in place)][c] for c in columns}}
        for row in rows
    ]


class _Baseline:
    """The unedited model's answers: computed once for each model, group of cases, task setting, software and machine, and kept
    in the cache."""

    def __init__(self, the_plan: Plan, model: LanguageModel, weights: str):
        self.plan, self.model = the_plan, model
        # An upgrade or another machine moves answers by rounding: base and edited rows shall come from the same.
        made = [environment()["packages"], code_digest(), machine(model)]
        self.setting = [SCORING, weights, model.precision, template_digest(model), *made]
        self.measured = False
        """Whether the base has its scores, so that an error after that is the method's."""

    def measure(self) -> tuple[Rows, Rows]:
        """The rows of the probes and of the retention tasks."""
        if not self.measured:
            self.model.check_head()  # two passes that would be counted as the work of whoever comes first
            self._retention = (
                self._base_retention()
            )  # first: a task that cannot be asked is told before an hour of probes
            self._probes = self._base_probes()
            self._whole = [
                row
                for group in self._groups(len(self.plan.cases))
                for row in self._probes[_ids(group)]
            ]
            if regimes.parse(self.plan.config.regime)[0] == "sequential":
                texts = own_texts(
                    self.model, OWN_TEXT_TOKENS, self.plan.config.seed, OWN_TEXT_LENGTH
                )
                self._own_text = [pair for block in texts for pair in block]
                self._base_nll = self._nll()
                self._base_targets = dict(
                    zip(_ids(self.plan.cases), self._targets(self.plan.cases), strict=True)
                )
            self.measured = True
        return self._whole, self._retention

    def ask(self, cases: Sequence[Case], moved: bool) -> Rows:
        """The rows of the probes of ``cases``, of the model as it is: the base's own where nothing has ``moved``.

        ``cases`` are one of the groups of ``regimes.asked_together``, at a point of the curve or at the end.
        """
        base = self._probes[_ids(cases)]
        return (
            registry.get("eval", "probes")(self.model, cases, base, self.plan.cases)
            if moved
            else base
        )

    def retain(self, moved: bool) -> Rows:
        """The rows of the retention tasks, as ``ask``; the base's own, too, for tasks that only a context could change and
        does not."""
        if not moved:
            return self._retention
        if any(edit.context is None for edit in self.model.applied):
            return self._samples(self.plan.config.tasks)
        place = itemgetter("task", "member", "doc_id")
        asked = {
            place(row): row for row in self._samples(self.plan.config.tasks, changed_only=True)
        }
        return [asked.get(place(row), row) for row in self._retention]

    def own_text_nll(self) -> tuple[float, float]:
        """Mean negative log-likelihood (nats a token) of the base's own text: under the model as it is, under the base."""
        return self._nll(), self._base_nll

    def target_nlls(self, cases: Sequence[Case]) -> tuple[list[float], list[float]]:
        """So of the target of each of ``cases``, the mean over its tokens."""
        return self._targets(cases), [self._base_targets[one] for one in _ids(cases)]

    def _targets(self, cases: Sequence[Case]) -> list[float]:
        pairs = [
            self.model.pair_ids(case.fact.prompt, case.fact.target, case.fact.form)
            for case in cases
        ]
        return [-logp.mean().item() for logp, _ in self.model.target_scores(pairs)]

    def _nll(self) -> float:
        return (
            -torch.cat([logp for logp, _ in self.model.target_scores(self._own_text)])
            .double()
            .mean()
            .item()
        )

    def _groups(self, count: int) -> list[Sequence[Case]]:
        """The first ``count`` cases as they are asked."""
        return regimes.asked_together(self.plan.config.regime, self.plan.cases[:count])

    def _base_probes(self) -> dict[tuple[str, ...], Rows]:
        """The rows by the ids of the group that was asked, for every group that an edited model will be asked in."""
        ask, every = registry.get("eval", "probes"), self.plan.cases
        groups = [
            group
            for count in sorted({*self.plan.config.curve, len(every)})
            for group in self._groups(count)
        ]
        found = {}
        with progress.task(
            "the base, asked as the edited models will be", len(groups), "groups"
        ) as bar:
            for group in groups:
                found[_ids(group)] = _cached(
                    ["probes", *self.setting, self.plan.slice_hash, list(_ids(group))],
                    lambda group=group: ask(self.model, group, None, every),
                )
                bar.advance()
        return found

    def _base_retention(self) -> Rows:
        config = self.plan.config
        return [
            row
            for task in config.tasks
            for row in _cached(
                [
                    "retention",
                    *self.setting,
                    task,
                    self.plan.task_digests[task],
                    config.limit,
                    config.seed,
                ],
                lambda task=task: self._samples([task]),
            )
        ]

    def _samples(self, tasks: Sequence[str], changed_only: bool = False) -> list[dict[str, Any]]:
        if not tasks:
            return []
        config, context = self.plan.config, self.model.context_for
        bars, bar, shown = ExitStack(), None, None

        def advance(task: str, done: int, total: int) -> None:
            nonlocal bar, shown
            if shown != (task, total):
                bars.close()
                bar, shown = (
                    bars.enter_context(
                        progress.task(f"retention: {heading(task)}", total, "requests")
                    ),
                    (task, total),
                )
            bar.advance()
            if done == total:
                bars.close()
                shown = None

        with bars, self.model.compute(weights_fixed=True):
            found = registry.get("eval", "retention")(
                self.model.model,
                self.model.tokenizer,
                tasks,
                limit=config.limit,
                seed=config.seed,
                batch_size=32,
                context=None
                if context is None
                else lambda prompt: f"{note}\n\n" if (note := context(prompt)) else None,
                progress=advance,
                task_data={name: Path(path) for name, path in config.task_data.items()},
                changed_only=changed_only,
            )
        return [
            {**asdict(sample), "task": task, "member": sample.task}
            for task, samples in found.items()
            for sample in samples
        ]


def _ids(cases: Sequence[Case]) -> tuple[str, ...]:
    return tuple(case.fact.id for case in cases)


def retention_scores(
    samples: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Task -> base and edited score, paired difference and ratio, with 95 % intervals; documents lost and gained.

    Lost: scored at least 0.5 before and less after. Gained: the other way.
    """
    scores: dict[str, dict[str, Any]] = {}
    for task in dict.fromkeys(row["task"] for row in samples):
        after = [row["score"] for row in samples if row["task"] == task]
        before = [row["score"] for row in base if row["task"] == task]
        scores[task] = {
            **retained(after, before),
            "metric": next(row["metric"] for row in samples if row["task"] == task),
        }
    return scores


def _cached(key: Sequence[Any], compute: Callable[[], Rows]) -> Rows:
    """The rows that ``compute`` gives, from the cache where they were computed before. An entry that is damaged, edited or
    another key's is computed anew."""
    path = cache_dir() / "base" / f"{digest(list(key))[:24]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        entry = json.loads(path.read_bytes())
        if entry["key"] == list(key) and entry["sha256"] == digest(entry["rows"]):
            return entry["rows"]
    rows = json.loads(json.dumps(compute()))  # as it will be read back: NaN stays NaN
    with suppress(OSError):  # a read-only or full cache costs time, not results
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(
            json.dumps({"key": key, "sha256": digest(rows), "rows": rows}), encoding="utf-8"
        )
        temporary.replace(path)
    return rows


def no_empty_run(path: Path) -> AbstractContextManager[None]:
    """To be called before the run folder is opened, and entered after, when its lock is held: where an error comes before
    the first finished cell of a new run, nothing of it stays."""
    fresh = not os.path.exists(path / "run.json")
    made = [folder for folder in (path, *path.parents) if not os.path.exists(folder)]

    @contextmanager
    def guard() -> Iterator[None]:
        try:
            yield
        except (EditbenchError, OSError):
            if fresh and not any((path / "cells").glob("*/summary.json")):
                with suppress(OSError):
                    for name in ("cases.json", "cells.json", "not_asked.json", "run.json", ".lock"):
                        (path / name).unlink(missing_ok=True)
                    (path / "cells").rmdir()
                    for folder in made:
                        folder.rmdir()
            raise

    return guard()


def identity(config: RunConfig) -> dict[str, Any]:
    """The configuration as it is stored in ``run.json``: a run folder is resumed only by the same one."""
    # left out where not used: older runs are found again
    later = ("diagnostics", "curve", "tuned", "judge", "judge_model", "repeats")
    return {name: value for name, value in asdict(config).items() if value or name not in later}


def save_cases(path: Path, the_plan: Plan) -> None:
    """Writes the slice's facts beside the run, so that every record can be traced to what was injected, and which tasks are
    not asked.

    Raises:
        RecordError: those of other facts are there.
    """
    if the_plan.not_asked:
        write_json_atomic(path / "not_asked.json", the_plan.not_asked)
    else:
        (path / "not_asked.json").unlink(missing_ok=True)
    stored = None
    with suppress(
        RecordError
    ):  # none, or a damaged one, is written anew: the cells hold the hash of theirs
        stored = digest(read_cases(path))[:16]
    if stored == the_plan.slice_hash:
        return
    if stored is not None:
        raise RecordError(
            f"{path} holds results for other facts under the same names ({stored} there, {the_plan.slice_hash} now). "
            "Use another --output."
        )
    write_json_atomic(path / "cases.json", [case.to_dict() for case in the_plan.cases])


def default_output(config: RunConfig, stored: Mapping[str, Any]) -> Path:
    """``runs/MODEL_CORPUS_nN_HASH``, the hash that of what ``run.json`` has: the same command finds its run again."""
    model = Path(config.model).name.replace(".gguf", "")
    return Path("runs") / f"{model}_{config.corpus}_n{config.n}_{digest(stored)[:8]}"
