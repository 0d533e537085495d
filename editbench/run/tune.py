"""Equal tuning: the same number of trials for every method, on dev facts, towards one objective.

Trial 0 is the method with its defaults. Optuna's TPE sampler proposes the others from the
``space`` that the method declares. Options that were given, or those of a recipe, hold in all
trials; what was given by name is not searched. Let E and G be efficacy and generalization (protocol
``generation``; E alone where the corpus has no paraphrases), R the mean over the retention tasks
of edited / base score, and r the required minimum of R. The value of a trial is

    (E + G) / 2     if R >= r
    R - r           otherwise: below 0, and higher the nearer R is to r
    -1              if the method failed

and the trial with the highest value is chosen; among equals, the first. Where no trial has any
recall, none is, and the method keeps its defaults. TPE: Bergstra et al. 2011;
Optuna: arXiv 1907.10902.

A search is a run folder with the cells METHOD@trial0, METHOD@trial1, ... The options of a trial
depend only on the seed and on the values of the trials before it. A search that was stopped
therefore goes on when it is started again: the sampler learns the values of the finished cells in
their order. At its end the search writes ``RUN/tuned.json``: ``{"digest": ..., "tuned": ...}`` with
a ``SearchRecord``, which ``editbench compare --tuned RUN`` reads.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict, cast

from editbench import registry
from editbench.errors import DataError, MethodError, OptionError, RecordError
from editbench.files import jsonable, write_json_atomic
from editbench.options import MAX_CELLS, check_count
from editbench.plugin import KEYWORDS, Choice, LogUniform, Method, Space, Uniform
from editbench.records.schema import CellSummary, CorpusRecord, ModelRecord, Tuning
from editbench.records.store import RunStore
from editbench.run import runner
from editbench.run.config import RunConfig, run_identity
from editbench.run.plan import Plan, make_plan
from editbench.run.worker import Identity
from editbench.stats import mean_ratio, number
from editbench.types import digest

if TYPE_CHECKING:
    import optuna

FAILED = -1.0
"""The value of a trial without scores. R - r cannot be lower, since R >= 0 and r <= 1. With r = 1 a
trial that keeps nothing has this value as well, but only that one can be chosen."""
STARTUP = 5
"""Number of trials, the defaults included, before the sampler starts to use their values."""
AGAIN = "Tune again, or leave --tuned out."


class Judged(TypedDict):
    """The judgement of one trial by its scores."""

    recall: float | None
    """Mean of efficacy and generalization; ``None`` if the trial failed, whatever its ``value``."""
    retention: float | None
    """Mean retention ratio."""
    feasible: bool
    """Whether the retention ratio reaches the minimum."""
    value: float
    status: str
    note: str
    seconds: float | None
    """Seconds of the injection."""


class Trial(Judged):
    """One trial of a method."""

    trial: int
    key: str
    """Its cell."""
    options: dict[str, object]
    """The searched options with their values."""


class MethodSearch(TypedDict):
    """The trials of one method."""

    space: dict[str, str]
    options: NotRequired[dict[str, object]]
    """Options that all trials share, as they were given; absent where there are none."""
    trials: list[Trial]
    chosen: Trial | None
    """``None`` if all trials failed, or none of them taught anything. A trial that keeps too little
    can be chosen; it is then not ``feasible``."""


class SearchRecord(TypedDict):
    """The field ``tuned`` of ``tuned.json``."""

    objective: str
    retention: float
    budget: int
    seed: int
    sampler: str
    model: ModelRecord
    corpus: CorpusRecord
    facts: list[str]
    """Ids of the facts that the trials taught."""
    regime: str
    tasks: list[str]
    limit: int | None
    methods: dict[str, MethodSearch]


@dataclass(frozen=True)
class Search:
    """The request behind ``editbench tune``, apart from the conditions of the run.

    Raises:
        UnknownNameError: there is no such method.
        OptionError: a method has nothing to tune or is named twice, an option is not one of the
            method's or of a method that is not tuned, or a number is out of range.
    """

    methods: tuple[str, ...]
    budget: int
    """Trials per method."""
    retention: float
    """Minimum mean retention ratio."""
    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Method -> options that all its trials share, such as ``recipe``."""

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise OptionError(
                f"--budget is {self.budget}; each method needs at least one trial, its defaults."
            )
        check_count("--budget", self.budget, MAX_CELLS)
        if not 0 < self.retention <= 1:
            raise OptionError(
                f"--retention is {self.retention}; it is a share of the base's score, above 0 and "
                "at most 1."
            )
        twice = next((m for i, m in enumerate(self.methods) if m in self.methods[:i]), None)
        if twice:
            raise OptionError(f"Method {twice!r} is listed twice. List it once.")
        for method in self.methods:
            if "@" in method:
                raise OptionError(
                    f"{method} is a variant. Tune the method: --methods {method.partition('@')[0]}."
                )
            chosen = registry.get("methods", method)
            if not chosen.space:
                raise OptionError(
                    f"{method} declares nothing to tune (its space is empty). Give the class a "
                    "`space`, or leave it out."
                )
            chosen.from_options(method, self.given(method))
            if not self.space(method):
                raise OptionError(f"--option sets all that tune searches for {method}.")
        if other := next((name for name in self.options if name not in self.methods), None):
            raise OptionError(
                f"--option {other}.… is for a method that is not tuned. "
                f"Tuned: {', '.join(self.methods)}."
            )

    def given(self, method: str) -> Mapping[str, object]:
        """Return the options that all trials of ``method`` share."""
        return self.options.get(method, {})

    def space(self, method: str) -> Space:
        """Return the values that are tried for each option that is not given.

        Nor is an option tried that a given one replaces (``Method.alternatives``).
        """
        cls, given = registry.get("methods", method), self.given(method)
        # The paper's name of an option works as well as the field's.
        fixed = {KEYWORDS.get(key, key) for key in given}
        fixed |= {cls.alternatives[key] for key in fixed if key in cls.alternatives}
        return {key: values for key, values in cls.space.items() if key not in fixed}

    def space_texts(self, method: str) -> dict[str, str]:
        """Return ``space`` with its values as text."""
        return {key: repr(values) for key, values in self.space(method).items()}

    def trials(self, method: str) -> tuple[str, ...]:
        """Return the names of the method's cells."""
        return tuple(f"{method}@trial{i}" for i in range(self.budget))

    def identity(self, config: RunConfig) -> dict[str, object]:
        """Return the content of ``run.json``: the conditions, and all that decides the trials."""
        spaces = {method: self.space_texts(method) for method in self.methods}
        search = {**asdict(self), "spaces": spaces, "sampler": sampler_name()}
        if not self.options:  # searches from before they could be given keep their identity
            del search["options"]
        return {**run_identity(config), "tune": search}


def sampler_name() -> str:
    """Return the name of the sampler with its version, which decides the values that are tried."""
    return f"optuna {version('optuna')} TPESampler, independent, {STARTUP} start-up trials"


def tune(
    search: Search,
    plan: Plan,
    workers: runner.Workers,
    store: RunStore,
    on_cell: runner.OnCell,
) -> SearchRecord:
    """Run all trials that are not done yet, write ``tuned.json`` and return its content.

    With several workers the methods run side by side, and the trials of one method in their order.

    ``plan`` has the baselines and the cells of ``search``.

    Raises:
        OptionError: the base scores 0 on every retention task, or no task is asked.
        MethodError: the base could not be asked.
        EditbenchError: as ``runner.run_jobs``.
    """
    run = _Run(search, plan, workers, store, on_cell)
    base = run.base()
    run.measure_statistics()
    found = dict(
        runner.side_by_side(workers.size, [partial(run.trials, name) for name in search.methods])
    )
    methods: dict[str, MethodSearch] = {}
    for name in search.methods:
        methods[name] = {
            "space": search.space_texts(name),
            "trials": found[name],
            "chosen": chosen(found[name]),
        }
        if given := search.given(name):
            methods[name]["options"] = dict(given)
    record: SearchRecord = {
        "objective": "maximise the mean of efficacy and generalization (protocol generation) "
        f"subject to a mean retention ratio >= {search.retention}; below it the value is the "
        f"ratio - {search.retention}, of a failed trial {FAILED}; a failed trial is never chosen",
        "retention": search.retention,
        "budget": search.budget,
        "seed": plan.config.seed,
        "sampler": sampler_name(),
        "model": base["model"],
        "corpus": base["corpus"],
        "facts": [case.fact.id for case in plan.cases],
        "regime": plan.config.regime,
        "tasks": list(plan.config.tasks),
        "limit": plan.config.limit,
        "methods": methods,
    }
    # The digest must be that of the record as JSON gives it back.
    stored = cast("SearchRecord", jsonable(record))
    write_json_atomic(store.path / "tuned.json", {"digest": digest(stored), "tuned": stored})
    return stored


class _Sampler:
    """Proposes the options of a method's trials, and learns their values."""

    def __init__(self, first: Method, space: Space, seed: int):
        import optuna  # here, so that reading tuned.json does not wait for it

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.first, self.values = first, space
        self.space = {key: _distribution(values) for key, values in space.items()}
        # Independent sampling: some defaults lie outside every range (None stands for a value
        # derived from the model), so trial 0 lacks them, and joint sampling would then ignore the
        # option.
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=STARTUP, multivariate=False, seed=seed
        )
        self.study = optuna.create_study(direction="maximize", sampler=sampler)
        self.asked: optuna.Trial | None = None

    def propose(self, trial: int) -> dict[str, object]:
        """Return the searched options of a trial; those of trial 0 are the first method's."""
        if trial == 0:
            options = self.first.options()
            # A recipe may set options that replace searched ones.
            replaced = {
                key for by, key in self.first.alternatives.items() if options.get(by) is not None
            }
            return {key: options.get(key) for key in self.space if key not in replaced}
        self.asked = self.study.ask(self.space)
        return {key: _short(value) for key, value in self.asked.params.items()}

    def learn(self, options: Mapping[str, object], value: float) -> None:
        """Record the value of the trial that was proposed last."""
        import optuna

        if self.asked is not None:
            self.study.tell(self.asked, value)
            return
        # Trial 0: its options were not drawn, so only those that lie inside the space are recorded.
        params = {key: given for key, given in options.items() if given in self.values[key]}
        dimensions = {key: self.space[key] for key in params}
        self.study.add_trial(
            optuna.trial.create_trial(params=params, distributions=dimensions, value=value)
        )


class _Run:
    """A search that is under way."""

    def __init__(
        self,
        search: Search,
        plan: Plan,
        workers: runner.Workers,
        store: RunStore,
        on_cell: runner.OnCell,
    ):
        self.search, self.plan, self.workers = search, plan, workers
        self.store, self.on_cell = store, on_cell
        # What the base is asked does not depend on the method, so all trials share the answers.
        self._shared, self._asking = runner.Job(plan, store, on_cell), threading.Lock()

    def base(self) -> CellSummary:
        """Run the baselines and return the cell of the base, by whose scores trials are judged.

        Raises:
            OptionError: the base scores 0 on every retention task, no task is asked, or all answers
                are texts too long for protocol ``generation``.
            MethodError: the base could not be asked.
        """
        plan = self.plan
        recalled = [
            p for case in plan.cases for p in case.probes if p.axis in ("rewrite", "paraphrase")
        ]
        if not any(probe.scored_by("generation") for probe in recalled):
            raise OptionError(
                f"All targets of corpus {plan.config.corpus} are long texts, which protocol "
                "generation does not score, so there is no recall to tune for. Set the options by "
                "hand."
            )
        trials = {name for method in self.search.methods for name in self.search.trials(method)}
        rows = {name: method for name, method in plan.methods.items() if name not in trials}
        job = self._job(rows)
        summaries = runner.run_jobs([job], self.workers)
        self._shared.answers, self._shared.broken = job.answers, job.broken
        base = next(summary for summary in summaries if summary["method"] == "base")
        if base["status"] == "failed":
            raise MethodError(
                f"The base could not be asked ({base['note']}), so no trial can be judged."
            )
        # A task with base score 0 has no ratio; without any ratio, R is undefined for every trial.
        if number(mean_ratio(base["retention"]).mean) is None:
            asked = ", ".join(plan.config.tasks) or "none"
            raise OptionError(
                f"The base scores 0 on every retention task (asked: {asked}), so no share of it "
                "can be kept. Name other --tasks, or a larger --limit."
            )
        return base

    def measure_statistics(self) -> None:
        """Measure what the first trials need. Most later ones find it in the cache."""
        rows = {self.search.trials(name)[0]: self._built(name) for name in self.search.methods}
        job = self._job(rows)
        keys = {name: key for name, key in self._keys(job).items() if not self.store.done(key)}
        tasks = self.workers.statistics(job.plan, keys)
        for _ in runner.side_by_side(self.workers.size, tasks):
            pass

    def trials(self, method: str) -> tuple[str, list[Trial]]:
        """Return ``method`` with its trials in their order, computing those that are not done."""
        search = self.search
        space, seed = search.space(method), self.plan.config.seed
        sampler = _Sampler(
            self._cls(method).from_options(method, search.given(method)), space, seed
        )
        trials: list[Trial] = []
        for i, name in enumerate(search.trials(method)):
            options = sampler.propose(i)
            job = self._job({name: self._built(method, options)})
            key = self._keys(job)[name]
            # One by one: the options, and so the key, follow from the values of earlier trials.
            self.store.claim({name: key})
            # A failed cell is kept as well: computed again it might succeed, and the sampler would
            # then propose other trials after it.
            if self.store.done(key):
                summary = self.store.read_summary(key)
                self.on_cell(name, "kept")
            else:
                (summary,) = runner.run_jobs([self._asked(job)], self.workers)
            judged = judge(summary, search.retention)
            sampler.learn(options, judged["value"])
            trials.append({"trial": i, "key": key, "options": options, **judged})
        return method, trials

    def _cls(self, method: str) -> type[Method]:
        return registry.get("methods", method)

    def _built(self, method: str, options: Mapping[str, object] = {}) -> Method:  # noqa: B006
        """Return ``method`` with what all its trials share, and ``options``."""
        shared = {"seed": self.plan.config.seed, **self.search.given(method)}
        return self._cls(method).from_options(method, {**shared, **options})

    def _job(self, methods: Mapping[str, Method]) -> runner.Job:
        return runner.Job(replace(self.plan, methods=methods), self.store, self.on_cell)

    def _asked(self, job: runner.Job) -> runner.Job:
        """Return ``job`` with the base's answers, which are asked for once, when first needed."""
        with self._asking:
            runner.ask_base(self._shared, self.workers)
        job.answers, job.broken = self._shared.answers, self._shared.broken
        return job

    def _keys(self, job: runner.Job) -> dict[str, str]:
        return job.keys(self.workers.identity)


def judge(summary: CellSummary, minimum: float) -> Judged:
    """Judge a cell as a trial; ``minimum`` is the required mean retention ratio."""
    recall, retention = _recall(summary), number(mean_ratio(summary["retention"]).mean)
    judged: Judged = {
        "recall": None,
        "retention": None,
        "feasible": False,
        "value": FAILED,
        "status": summary["status"],
        "note": summary["note"],
        "seconds": summary["seconds"].get("inject"),
    }
    if summary["status"] != "failed" and recall is not None and retention is not None:
        judged["recall"], judged["retention"] = recall, retention
        judged["feasible"] = retention >= minimum
        judged["value"] = recall if retention >= minimum else retention - minimum
    return judged


def _recall(summary: CellSummary) -> float | None:
    """Return the mean of efficacy and generalization, or of the one that was measured."""
    means = [
        number(summary["metrics"][metric]["generation"]["mean"])
        for metric in ("efficacy", "generalization")
        if "generation" in summary["metrics"].get(metric, {})
    ]
    known = [mean for mean in means if mean is not None]
    return sum(known) / len(known) if known else None


def chosen(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the highest value, or ``None`` if none taught anything."""
    return highest(trials) if any(trial["recall"] for trial in trials) else None


def highest(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the highest value, or ``None`` if none has scores."""
    scored = [trial for trial in trials if trial["recall"] is not None]
    # max returns the first of equals, so the defaults win a tie.
    return max(scored, key=lambda trial: trial["value"], default=None)


def _short(value: object) -> object:
    """Round a number to three digits: enough precision, and short enough to type."""
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _distribution(values: Uniform | Choice) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, Choice):
        return CategoricalDistribution(values.values)
    log = isinstance(values, LogUniform)
    if isinstance(values.low, int) and isinstance(values.high, int):
        return IntDistribution(values.low, values.high, log=log)
    return FloatDistribution(values.low, values.high, log=log)


# --- the result of a search, in another run ------------------------------------------------------


@dataclass(frozen=True)
class Tuned:
    """A finished search, read back."""

    folder: Path
    digest: str
    record: SearchRecord

    @classmethod
    def read(cls, folder: Path) -> Tuned:
        """Read the ``tuned.json`` in ``folder``.

        Raises:
            RecordError: the file is missing or corrupt, or was changed after ``tune`` wrote it.
        """
        path = folder / "tuned.json"
        try:
            content = json.loads(path.read_bytes())
            same = digest(content["tuned"]) == content["digest"]
        except FileNotFoundError:
            raise RecordError(
                f"{folder} has no tuned.json. Run its 'editbench tune' command to the end."
            ) from None
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise RecordError(
                f"{path} is corrupt: it is not as 'editbench tune' wrote it. Run that command "
                "again."
            )
        return cls(folder, content["digest"], content["tuned"])

    def options(
        self, methods: Sequence[str], given: Mapping[str, Mapping[str, object]]
    ) -> tuple[dict[str, Mapping[str, object]], dict[str, Tuning]]:
        """Return ``given`` with the chosen options of ``methods``, and the record of each search.

        Raises:
            OptionError: none of the methods was tuned, or a tuned method also has options in
                ``given``, which no trial has tried.
        """
        best = {name: search["chosen"] for name, search in self.record["methods"].items()}
        available = {name: trial for name, trial in best.items() if trial is not None}
        tuned = {name: available[name] for name in methods if name in available}
        if not tuned:
            names = ", ".join(available) or "no method"
            raise OptionError(
                f"{self.folder} has chosen options for {names}; compared are {', '.join(methods)}."
            )
        for name in tuned:
            if name in given:
                key = next(iter(given[name]))
                raise OptionError(
                    f"--option {name}.{key} and --tuned {self.folder} both set options of {name}. "
                    f"Give a variant its own: --methods {name},{name}@mine "
                    f"--option {name}@mine.{key}=VALUE."
                )
        searches = self.record["methods"]
        options = {
            name: {**searches[name].get("options", {}), **trial["options"]}
            for name, trial in tuned.items()
        }
        records = {name: self._record_of(trial) for name, trial in tuned.items()}
        return {**given, **options}, records

    def _record_of(self, trial: Trial) -> Tuning:
        """Return the record of the search that goes into a cell with its options."""
        return {
            "budget": self.record["budget"],
            "retention": self.record["retention"],
            "seed": self.record["seed"],
            "regime": self.record["regime"],
            "tasks": self.record["tasks"],
            "digest": self.digest,
            "n": self.record["corpus"]["n"],
            "trial": trial["trial"],
            "feasible": trial["feasible"],
        }

    def check_facts(self, plan: Plan) -> None:
        """Check that ``plan`` has the regime and the corpus of the search, and none of its facts.

        The retention tasks may differ: a tuned cell records those of the search.

        Raises:
            RecordError: ``plan`` has another regime or corpus, the search had other data, or the
                two have a fact in common.
        """
        config, corpus = plan.config, self.record["corpus"]
        if self.record["regime"] != config.regime:
            raise RecordError(
                f"{self.folder} was tuned under regime {self.record['regime']}, not "
                f"{config.regime}. {AGAIN}"
            )
        if corpus["name"] != config.corpus:
            raise RecordError(
                f"{self.folder} was tuned on corpus {corpus['name']}, not {config.corpus}. {AGAIN}"
            )
        if (now := self._hash_now(config)) != corpus["hash"]:
            what = f"its {corpus['n']} {corpus['part']} facts of {corpus['name']}"
            raise RecordError(
                f"{self.folder} was tuned on other data: {what} were {corpus['hash']}, now {now}. "
                f"{AGAIN}"
            )
        both = sorted(set(self.record["facts"]) & {case.fact.id for case in plan.cases})
        if both:
            raise RecordError(
                f"{len(both)} of these facts ({both[0]!r}) are among those of {self.folder}. "
                "Scores on facts that the options were tuned on say nothing. Use --part test."
            )

    def _hash_now(self, config: RunConfig) -> str:
        """Return the hash that the search's slice has now, in the data that ``config`` names."""
        corpus = self.record["corpus"]
        same = RunConfig(
            ("base",),
            config.model,
            config.corpus,
            config.data,
            corpus["part"],
            corpus["n"],
            seed=self.record["seed"],
            allow_conflicts=True,  # only the hash is wanted here
            columns=config.columns,
        )
        try:
            return make_plan(same).slice_hash
        except DataError:
            return "no such slice"

    def check_model(self, model: Identity, name: str) -> None:
        """Check that the model called ``name`` has the weights and the precision of the search.

        Raises:
            RecordError: the weights or the precision differ.
        """
        there = self.record["model"]
        if there["hash"] != model.weights:
            raise RecordError(
                f"{self.folder} was tuned on {there['name']} with weights {there['hash']}; those "
                f"of {name} are {model.weights}. {AGAIN}"
            )
        if there["precision"] != model.precision:
            raise RecordError(
                f"{self.folder} was tuned in {there['precision']}, not in {model.precision}. "
                f"{AGAIN}"
            )


def chosen_options(
    searches: Sequence[Tuned],
    methods: Sequence[str],
    given: Mapping[str, Mapping[str, object]],
) -> tuple[dict[str, Mapping[str, object]], dict[str, Tuning]]:
    """Combine ``Tuned.options`` of several searches, each of which tuned methods of its own.

    Raises:
        OptionError: as ``Tuned.options``, or two searches tuned the same method.
    """
    options: dict[str, Mapping[str, object]] = dict(given)
    records: dict[str, Tuning] = {}
    folders: dict[str, Path] = {}
    for search in searches:
        more_options, more_records = search.options(methods, given)
        for name in more_records:
            if name in folders:
                both = f"--tuned {folders[name]} and --tuned {search.folder}"
                raise OptionError(f"{both} both have options for {name}. Leave one out.")
            folders[name] = search.folder
        options |= more_options
        records |= more_records
    return options, records
