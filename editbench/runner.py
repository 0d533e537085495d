"""A ``RunConfig`` to cells to records. Knows no algorithm and no metric; rooms are reached through the registry.

A cell is one method with its options on one model, corpus slice, regime and seed: the unit of work and of resume. Its key
is the hash of everything that can change its numbers. One method may have several cells in a run: NAME@LABEL is the method
NAME under options of its own.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from editbench import progress, registry
from editbench.api import check_subjects
from editbench.errors import EditbenchError, MethodError, OptionError, PluginError, RecordError
from editbench.models import PRECISIONS, LanguageModel, cache_dir
from editbench.plugin import Method, check_seed, slice_cases
from editbench.records import RunStore, environment, write_json_atomic
from editbench.stats import retained
from editbench.types import Case, check_facts, digest

SCORING = 3
"""Version of what ``eval/`` does; a change that can move a number raises it, and old cells are computed anew."""
REGIMES = ("batch",)


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
    """Documents per retention task."""
    regime: str = "batch"
    seed: int = 0
    precision: str = "auto"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Method or variant to option to value; a variant takes none from its method."""
    task_data: Mapping[str, str] = field(default_factory=dict)
    allow_conflicts: bool = False
    layout: Mapping[str, str] = field(default_factory=dict)
    diagnostics: tuple[str, ...] = ()
    """Names of what is measured beside the scores; see ``eval/diagnostics.py``."""

    def __post_init__(self) -> None:
        if self.regime not in REGIMES:
            raise OptionError(f"Regime {self.regime!r} is not one of {', '.join(REGIMES)}.")
        if self.precision not in PRECISIONS:
            raise OptionError(f"Precision {self.precision!r} is not one of {', '.join(PRECISIONS)}.")
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
                raise OptionError(f"Variant {name!r} has an empty label. Write it as NAME@LABEL, such as {name}slow.")
            if name.startswith("base@"):
                raise OptionError(f"Variant {name!r} makes no sense: base is the unedited model. Leave it out.")
        for other in self.options:
            if other not in self.methods:
                compared = ", ".join(self.methods)
                raise OptionError(f"--option {other}.… is for a method that is not compared. Compared: {compared}.")


@dataclass(frozen=True)
class Plan:
    """A checked configuration: methods built, cases loaded; nothing heavy has happened yet."""

    config: RunConfig
    methods: Mapping[str, Method]
    cases: Sequence[Case]
    left_out: Sequence[str] = ()
    """Records of the corpus that cannot be facts, one reason each."""

    @cached_property
    def slice_hash(self) -> str:
        return digest([case.to_dict() for case in self.cases])[:16]

    @cached_property
    def task_digests(self) -> dict[str, str | None]:
        """Task to the hash of its data; None for data from the hub."""
        data = self.config.task_data
        asked = registry.get("eval", "task-digest")
        return {task: asked(task, Path(data[task]) if task in data else None) for task in self.config.tasks}


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
    methods = {}
    for name in config.methods:
        options = {"seed": config.seed, **config.options.get(name, {})}
        methods[name] = registry.get("methods", method_of(name)).from_options(method_of(name), options)
    for name, method in methods.items():
        try:
            digest(method.options())
        except (TypeError, ValueError) as error:
            raise PluginError(f"The options of method {name!r} cannot be recorded as JSON: {error}.") from error
    registry.get("eval", "check-diagnostics")(config.diagnostics)
    corpus = registry.get("corpora", config.corpus)()
    cases = slice_cases(corpus.load(config.data), config.part, config.n, config.seed)
    facts = check_facts((case.fact for case in cases), config.allow_conflicts)
    for name, method in methods.items():
        check_subjects(name, method, facts)
    return Plan(config, methods, cases, tuple(getattr(corpus, "skipped", ())))


def run(the_plan: Plan, model: LanguageModel, store: RunStore, on_cell: Callable[[str, str], None]) -> list[dict[str, Any]]:
    """Computes the cells that are not done yet, each written as a whole; a method that fails leaves a failed cell.

    ``on_cell(method, state)`` hears ``start``, ``done``, ``kept`` (finished before) or ``failed``.

    Raises:
        EditbenchError: what no method could mend: the base cannot be scored (data of a task that cannot be had), a record
            cannot be written, the folder holds other facts or weights, a method spoiled the model for those after it.
    """
    config = the_plan.config
    weights = model.fingerprint()
    _check_same(the_plan, store, weights, model.precision)
    base = _Baseline(the_plan, model, weights)
    summaries = []
    for name, method in the_plan.methods.items():
        key = cell_key(the_plan, name, method, weights, model.precision)
        if store.done(key) and (found := store.read_summary(key))["status"] != "failed":
            on_cell(name, "kept")
            summaries.append(found)
            continue
        on_cell(name, "start")
        summary = {
            "method": name,
            "options": method.options(),
            "tuned": False,
            "model": {"name": model.name, "hash": weights, "precision": model.precision},
            "corpus": {"name": config.corpus, "hash": the_plan.slice_hash, "part": config.part, "n": len(the_plan.cases),
                       "form": the_plan.cases[0].fact.form},
            "regime": config.regime,
            "seed": config.seed,
            "limit": config.limit,
            "environment": environment(),
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
        if failed and model.fingerprint() != weights:
            raise MethodError(
                f"{name} failed and left the model's weights changed, so nothing can be measured after it ({found['note']}). "
                "Run again without it; finished methods are kept."
            )
    return summaries


def _failed(error: Exception) -> dict[str, Any]:
    return {"status": "failed", "note": f"{type(error).__name__}: {error}", "metrics": {}, "retention": {}, "seconds": {},
            "edit": {}, "traceback": "".join(traceback.format_exception(error))}  # fmt: skip


def _check_same(the_plan: Plan, store: RunStore, weights: str, precision: str) -> None:
    """Makes sure that cells finished earlier are of these facts, weights and precision: names alone do not tell."""
    for summary in store.summaries():
        for what, old, new in (
            ("facts", summary["corpus"]["hash"], the_plan.slice_hash),
            ("weights", summary["model"]["hash"], weights),
            ("precision", summary["model"]["precision"], precision),
        ):
            if old != new:
                raise RecordError(
                    f"{store.path} holds results for other {what} under the same names ({old} there, {new} now). "
                    "Use another --output."
                )


def cell_key(the_plan: Plan, name: str, method: Method, weights: str, precision: str) -> str:
    """The name of a cell: its method, and the hash of all that can change its numbers."""
    config = the_plan.config
    identity = [
        SCORING, name, method.version, method.options(), weights, precision, the_plan.slice_hash, config.regime,
        config.seed, list(config.tasks), the_plan.task_digests, config.limit,
        *([list(config.diagnostics)] if config.diagnostics else []),
    ]  # fmt: skip
    method_name, at, label = name.partition("@")
    label = re.sub(r"[^A-Za-z0-9._=+-]", "_", at + label)[:80]  # part of a folder's name; the hash has it unchanged
    return f"{method_name}{label}-{digest(identity)[:12]}"


def _cell(
    the_plan: Plan, name: str, method: Method, model: LanguageModel, weights: str, base: _Baseline
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    config, facts = the_plan.config, [case.fact for case in the_plan.cases]
    base_probes, base_retention = base.measure()
    with Meter(model) as meter:
        with meter.phase("precompute"):
            method.prepare(model)
        with meter.phase("inject"):
            edit = method.inject(model, facts)
        with edit.applied(model):
            with meter.phase("probes"):
                probes = base_probes if not edit.changes and edit.context is None else base.ask(base_probes)
            with meter.phase("retention"):
                samples = base_retention if not edit.changes and edit.context is None else base.retain(base_retention)
        diagnosed = {}
        if config.diagnostics:
            with meter.phase("diagnostics"):
                diagnosed = registry.get("eval", "diagnostics")(
                    model, edit, config.diagnostics, base_probes=base_probes, probes=probes, base_samples=base_retention,
                    samples=samples, seed=config.seed,
                )  # fmt: skip
    if (now := model.fingerprint()) != weights:
        raise RuntimeError(f"{name} changed the base model's weights: {weights} became {now}")
    moved = bool(edit.changes) or edit.context is not None
    summary = {
        "status": "no_effect" if name != "base" and not moved else "done",
        "note": "" if name == "base" or moved else "the edit changes nothing",
        "metrics": registry.get("eval", "metrics")(probes),
        "retention": retention_scores(samples, base_retention),
        "seconds": meter.seconds,
        "peak_memory_bytes": meter.peak,
        "edit": edit.summary(model),
        **({"diagnostics": diagnosed} if diagnosed else {}),
    }
    return summary, {"probes": probes, "retention": samples, "edit_records": list(edit.records)}


class _Baseline:
    """The unedited model's answers: computed once for each model, slice and task setting, and kept in the cache."""

    def __init__(self, the_plan: Plan, model: LanguageModel, weights: str):
        self.plan, self.model = the_plan, model
        self.setting = [SCORING, weights, model.precision, model.chat]
        self.measured = False
        """Whether the base has its scores, so that an error after that is the method's."""

    def measure(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The rows of the probes and of the retention tasks."""
        if not self.measured:
            self._rows = self.probes(), self.retention()
            self.measured = True
        return self._rows

    def probes(self) -> list[dict[str, Any]]:
        return _cached(["probes", *self.setting, self.plan.slice_hash], lambda: self.ask(None))

    def ask(self, base: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
        return registry.get("eval", "probes")(self.model, self.plan.cases, base)

    def retention(self) -> list[dict[str, Any]]:
        config = self.plan.config
        return [
            row
            for task in config.tasks
            for row in _cached(
                ["retention", *self.setting, task, self.plan.task_digests[task], config.limit, config.seed],
                lambda task=task: self._samples([task]),
            )
        ]

    def retain(self, base: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        before = {(row["task"], row["member"], row["doc_id"]): row for row in base}
        rows = self._samples(self.plan.config.tasks)
        return [{**row, "base_score": before[row["task"], row["member"], row["doc_id"]]["score"]} for row in rows]

    def _samples(self, tasks: Sequence[str]) -> list[dict[str, Any]]:
        if not tasks:
            return []
        config, context = self.plan.config, self.model.context_for
        bars, bar, shown = ExitStack(), None, None

        def advance(task: str, done: int, total: int) -> None:
            nonlocal bar, shown
            if shown != (task, total):
                bars.close()
                bar, shown = bars.enter_context(progress.task(f"retention: {task}", total, "requests")), (task, total)
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
                context=None if context is None else lambda prompt: f"{note}\n\n" if (note := context(prompt)) else None,
                progress=advance,
                task_data={name: Path(path) for name, path in config.task_data.items()},
            )
        return [
            {**asdict(sample), "task": task, "member": sample.task} for task, samples in found.items() for sample in samples
        ]


def retention_scores(
    samples: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Task -> base and edited score, paired difference and ratio, with 95 % intervals."""
    scores: dict[str, dict[str, Any]] = {}
    for task in dict.fromkeys(row["task"] for row in samples):
        after = [row["score"] for row in samples if row["task"] == task]
        before = [row["score"] for row in base if row["task"] == task]
        scores[task] = {
            **retained(after, before),
            "metric": next(row["metric"] for row in samples if row["task"] == task),
        }
    return scores


def _cached(key: Sequence[Any], compute: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    path = cache_dir() / "base" / f"{digest(list(key))[:24]}.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        rows = json.loads(json.dumps(compute()))  # as it will be read back: NaN stays NaN
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8", errors="replace")
            temporary.replace(path)
        except OSError:
            pass  # a read-only or full cache costs time, not results
    return rows


class Meter:
    """Seconds by phase and the peak of memory while it is open: resident memory on a CPU, allocated memory on a GPU."""

    def __init__(self, model: LanguageModel):
        self.cuda = model.device.type == "cuda"
        self.seconds: dict[str, float] = {}
        self.peak = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started

    def __enter__(self) -> Meter:
        self._start, self._stop = time.perf_counter(), threading.Event()
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.peak = max(self.peak, process.memory_info().rss)
            if self._stop.wait(0.1):
                return

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watcher.join()
        self.seconds["total"] = time.perf_counter() - self._start
        if self.cuda:
            import torch

            self.peak = torch.cuda.max_memory_allocated()


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
                    for name in ("cases.json", "run.json", ".lock"):
                        (path / name).unlink(missing_ok=True)
                    (path / "cells").rmdir()
                    for folder in made:
                        folder.rmdir()
            raise

    return guard()


def identity(config: RunConfig) -> dict[str, Any]:
    """The configuration as it is stored in ``run.json``: a run folder is resumed only by the same one."""
    found = asdict(config)
    if not config.diagnostics:
        del found["diagnostics"]  # so that runs from before there were any are found again
    return found


def save_cases(path: Path, the_plan: Plan) -> None:
    """Writes the slice's facts beside the run, so that every record can be traced to what was injected."""
    write_json_atomic(path / "cases.json", [case.to_dict() for case in the_plan.cases])


def default_output(config: RunConfig) -> Path:
    """``runs/MODEL_CORPUS_nN_HASH``: the same command finds its run again."""
    model = Path(config.model).name.replace(".gguf", "")
    return Path("runs") / f"{model}_{config.corpus}_n{config.n}_{digest(identity(config))[:8]}"
