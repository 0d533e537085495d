"""Equal tuning: the same number of trials for every method, on dev facts, towards one objective.

Trial 0 is the method with its defaults; Optuna's TPE sampler proposes the others from the method's own ``space``. With E and
G efficacy and generalization (protocol ``generation``; E alone where the corpus asks no paraphrases), R the mean over the
retention tasks of edited / base score, and r what is wanted of it, the value of a trial is

    (E + G) / 2     where R >= r
    R - r           where it is not: below 0, and the nearer the better
    -1              where the method failed

and the trial of the highest value is chosen, the first of equals. Bergstra et al. 2011 (TPE); Optuna, arXiv 1907.10902.

A tune run is a run folder whose cells are METHOD@trial0, METHOD@trial1, ... What a trial tries follows from the seed and from
the values before it, so a stopped run goes on by doing the same again: finished cells are read, and told to the sampler in
their order. Last comes

    RUN/tuned.json     {"digest", "tuned": {"objective", "retention", "budget", "seed", "sampler", "model", "corpus", "facts",
                        "regime", "tasks", "limit", "methods": {method: {"space", "trials": [...], "chosen": trial or null}}}}

which ``editbench compare --tuned RUN`` reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editbench import registry
from editbench.errors import DataError, MethodError, OptionError, RecordError
from editbench.files import jsonable, write_json_atomic
from editbench.plugin import Choice, LogUniform, Uniform
from editbench.records.store import RunStore
from editbench.run import runner
from editbench.run.config import RunConfig, run_identity
from editbench.run.keys import cell_key, template_digest
from editbench.run.plan import Plan, make_plan
from editbench.stats import mean_ratio, number
from editbench.types import digest

if TYPE_CHECKING:
    import optuna

    from editbench.models import LanguageModel

FAILED = -1.0
"""The value of a trial without scores: no share that is kept can miss ``retention`` by more."""
STARTUP = 5
"""Trials, the defaults among them, before the sampler goes by their values."""


@dataclass(frozen=True)
class Search:
    """What ``editbench tune`` was asked for, beside the conditions of a run.

    Raises:
        UnknownNameError: no such method.
        OptionError: a method that has nothing to tune or is named twice, no trial, or no share.
    """

    methods: tuple[str, ...]
    budget: int
    """Trials of each method."""
    retention: float
    """Least mean retention ratio."""

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise OptionError(
                f"--budget is {self.budget}; each method needs at least one trial, its defaults."
            )
        if not 0 < self.retention <= 1:
            raise OptionError(
                f"--retention is {self.retention}; it is a share of the base's score, above 0 and at most 1."
            )
        twice = next((m for i, m in enumerate(self.methods) if m in self.methods[:i]), None)
        if twice:
            raise OptionError(f"Method {twice!r} is listed twice. List it once.")
        for method in self.methods:
            if "@" in method:
                raise OptionError(
                    f"{method} is a variant. Tune the method: --methods {method.partition('@')[0]}."
                )
            if not registry.get("methods", method).space:
                raise OptionError(
                    f"{method} declares nothing to tune (its space is empty). Leave it out."
                )

    def trials(self, method: str) -> tuple[str, ...]:
        """The names of its cells."""
        return tuple(f"{method}@trial{i}" for i in range(self.budget))

    def identity(self, config: RunConfig) -> dict[str, Any]:
        """What ``run.json`` has: the conditions, and all that decides what is tried."""
        spaces = {method: space_of(method) for method in self.methods}
        return {
            **run_identity(config),
            "tune": {**asdict(self), "spaces": spaces, "sampler": sampler_name()},
        }


def space_of(method: str) -> dict[str, str]:
    """Option to the values that are tried, as text."""
    return {key: repr(values) for key, values in registry.get("methods", method).space.items()}


def sampler_name() -> str:
    return f"optuna {version('optuna')} TPESampler, independent, {STARTUP} start-up trials"


def tune(
    search: Search,
    plan: Plan,
    model: LanguageModel,
    store: RunStore,
    on_cell: Callable[[str, str], None],
) -> dict[str, Any]:
    """Runs all trials that are not done yet, writes ``tuned.json`` and returns its content.

    ``plan`` has the baselines and the cells of ``search``; ``on_cell`` as in ``runner.run``.

    Raises:
        OptionError: no retention task is asked of which the base gets anything right.
        MethodError: the base could not be asked.
        EditbenchError: as ``runner.run``.
    """
    config = plan.config
    trials = {name for method in search.methods for name in search.trials(method)}
    baselines = {name: method for name, method in plan.methods.items() if name not in trials}
    base = next(
        s
        for s in runner.run(replace(plan, methods=baselines), model, store, on_cell)
        if s["method"] == "base"
    )
    if base["status"] == "failed":
        raise MethodError(
            f"The base could not be asked ({base['note']}), so no trial can be judged."
        )
    if number(mean_ratio(base["retention"]).mean) is None:
        raise OptionError(
            f"The base scores 0 on every retention task (asked: {', '.join(config.tasks) or 'none'}), so no share of it can "
            "be kept. Name other --tasks, or a larger --limit."
        )
    weights = base["model"]["hash"]
    methods = {}
    for name in search.methods:
        tried = _tried(search, name, plan, model, weights, store, on_cell)
        methods[name] = {"space": space_of(name), "trials": tried, "chosen": chosen(tried)}
    found = jsonable({
        "objective": f"maximise the mean of efficacy and generalization (protocol generation) subject to a mean retention "
                     f"ratio >= {search.retention}; below it the value is the ratio - {search.retention}, "
                     f"of a failed trial {FAILED}",
        "retention": search.retention,
        "budget": search.budget,
        "seed": config.seed,
        "sampler": sampler_name(),
        "model": base["model"],
        "corpus": base["corpus"],
        "facts": [case.fact.id for case in plan.cases],
        "regime": config.regime,
        "tasks": config.tasks,
        "limit": config.limit,
        "methods": methods,
    })  # fmt: skip
    write_json_atomic(store.path / "tuned.json", {"digest": digest(found), "tuned": found})
    return found


def _tried(
    search: Search, method: str, plan: Plan, model: LanguageModel, weights: str, store: RunStore,
    on_cell: Callable[[str, str], None],
) -> list[dict[str, Any]]:  # fmt: skip
    """The trials of ``method`` in their order, those that are not done yet computed."""
    import optuna  # here, so that reading tuned.json does not wait for it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    cls, seed = registry.get("methods", method), plan.config.seed
    space = {key: _distribution(values) for key, values in cls.space.items()}
    # Independent: the defaults of some methods lie in no range (None: derived), and joint sampling would pass over the option.
    sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP, multivariate=False, seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    tried = []
    for i, name in enumerate(search.trials(method)):
        asked = study.ask(space) if i else None
        options = (
            {key: _short(value) for key, value in asked.params.items()} if asked else _defaults(cls)
        )
        built = cls.from_options(method, {"seed": seed, **options})
        cell = cell_key(plan, name, built, weights, model.precision, template_digest(model))
        store.claim({name: cell})
        if store.done(
            cell
        ):  # a failed one, too: tried again it might not fail, and other trials would follow
            summary = store.read_summary(cell)
            on_cell(name, "kept")
        else:
            (summary,) = runner.run(replace(plan, methods={name: built}), model, store, on_cell)
        judged = judge(summary, search.retention)
        if asked:
            study.tell(asked, judged["value"])
        else:
            known = {key: value for key, value in options.items() if value in cls.space[key]}
            dimensions = {key: space[key] for key in known}
            study.add_trial(
                optuna.trial.create_trial(
                    params=known, distributions=dimensions, value=judged["value"]
                )
            )
        tried.append({"trial": i, "key": cell, "options": options, **judged})
    return tried


def judge(summary: Mapping[str, Any], least: float) -> dict[str, Any]:
    """What a cell is worth: recall, retention, whether that is at least ``least``, and the value (see the module)."""
    what = {
        "status": summary["status"],
        "note": summary["note"],
        "seconds": summary["seconds"].get("inject"),
    }
    if summary["status"] == "failed":
        return {"recall": None, "retention": None, "feasible": False, "value": FAILED, **what}
    found = (
        summary["metrics"].get(axis, {}).get("generation", {})
        for axis in ("efficacy", "generalization")
    )
    recall, retention = (
        _mean([one.get("mean") for one in found]),
        number(mean_ratio(summary["retention"]).mean),
    )
    value = recall if retention >= least else retention - least
    return {
        "recall": recall,
        "retention": retention,
        "feasible": retention >= least,
        "value": value,
        **what,
    }


def chosen(trials: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The trial of the highest value, the first of equals; ``None`` where all failed."""
    best = max(trials, key=lambda trial: trial["value"])
    return best if best["status"] != "failed" else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in map(number, values) if value is not None]
    return sum(known) / len(known) if known else None


def _defaults(cls: Any) -> dict[str, Any]:
    options = cls().options()
    return {key: options.get(key) for key in cls.space}


def _short(value: Any) -> Any:
    """Three digits are all that a rate needs, and can be typed."""
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _distribution(values: Uniform | Choice) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, Choice):
        return CategoricalDistribution(values.values)
    whole = isinstance(values.low, int) and isinstance(values.high, int)
    return (IntDistribution if whole else FloatDistribution)(
        values.low, values.high, log=isinstance(values, LogUniform)
    )


# --- what was found, in another run ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Tuned:
    """A finished tune run, read back."""

    folder: Path
    digest: str
    record: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Tuned:
        """What ``tune`` has written into ``folder``.

        Raises:
            RecordError: it is not there, or not as it was written.
        """
        path = folder / "tuned.json"
        try:
            found = json.loads(path.read_bytes())
            same = digest(found["tuned"]) == found["digest"]
        except FileNotFoundError:
            raise RecordError(
                f"{folder} has no tuned.json. Run its 'editbench tune' command to the end."
            ) from None
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise RecordError(
                f"{path} is corrupt: it is not as 'editbench tune' wrote it. Run that command again."
            )
        return cls(folder, found["digest"], found["tuned"])

    def options(
        self, methods: Sequence[str], given: Mapping[str, Mapping[str, Any]]
    ) -> tuple[dict[str, Mapping[str, Any]], dict[str, dict[str, Any]]]:
        """``given`` with the chosen options of ``methods``, and of each tuned one the record for its cells.

        Raises:
            OptionError: none of them was tuned, or one has options in ``given``, with which nothing was tried.
        """
        chosen = {
            name: found["chosen"]
            for name, found in self.record["methods"].items()
            if found["chosen"]
        }
        tuned = {name: chosen[name] for name in methods if name in chosen}
        if not tuned:
            names = ", ".join(chosen) or "no method"
            raise OptionError(
                f"{self.folder} has chosen options for {names}; compared are {', '.join(methods)}."
            )
        for name in tuned:
            if name in given:
                key = next(iter(given[name]))
                raise OptionError(
                    f"--option {name}.{key} and --tuned {self.folder} both set options of {name}. Give a variant its own: "
                    f"--methods {name},{name}@mine --option {name}@mine.{key}=VALUE."
                )
        about = {
            what: self.record[what] for what in ("budget", "retention", "seed", "regime", "tasks")
        }
        about |= {"digest": self.digest, "n": self.record["corpus"]["n"]}
        return (
            {**given, **{name: trial["options"] for name, trial in tuned.items()}},
            {
                name: {**about, "trial": trial["trial"], "feasible": trial["feasible"]}
                for name, trial in tuned.items()
            },
        )

    def check_facts(self, plan: Plan) -> None:
        """Makes sure that ``plan`` has the same regime and corpus, and none of the facts that were tuned on. The retention
        tasks may be others: the record of a tuned cell names those of the search.

        Raises:
            RecordError: it has another regime or corpus, or a fact in common.
        """
        config, there = plan.config, self.record["corpus"]
        if self.record["regime"] != config.regime:
            raise RecordError(
                f"{self.folder} was tuned under regime {self.record['regime']}, not {config.regime}. {AGAIN}"
            )
        if there["name"] != config.corpus:
            raise RecordError(
                f"{self.folder} was tuned on corpus {there['name']}, not {config.corpus}. {AGAIN}"
            )
        same = RunConfig(
            ("base",), config.model, config.corpus, config.data, there["part"], there["n"], seed=self.record["seed"],
            allow_conflicts=True,
        )  # fmt: skip
        try:
            now = make_plan(same).slice_hash
        except DataError:
            now = "no such slice"
        if now != there["hash"]:
            what = f"its {there['n']} {there['part']} facts of {there['name']}"
            raise RecordError(
                f"{self.folder} was tuned on other data: {what} were {there['hash']}, now {now}. {AGAIN}"
            )
        both = sorted(set(self.record["facts"]) & {case.fact.id for case in plan.cases})
        if both:
            raise RecordError(
                f"{len(both)} of these facts ({both[0]!r}) are among those of {self.folder}, and a table on what was tuned on "
                "says nothing. Use --part test."
            )

    def check_model(self, model: LanguageModel) -> None:
        """Makes sure that ``model`` has the weights and the precision that were tuned on.

        Raises:
            RecordError: it has others.
        """
        there, now = self.record["model"], model.fingerprint()
        if there["hash"] != now:
            raise RecordError(
                f"{self.folder} was tuned on {there['name']} with weights {there['hash']}; those of {model.name} are {now}. "
                f"{AGAIN}"
            )
        if there["precision"] != model.precision:
            raise RecordError(
                f"{self.folder} was tuned in {there['precision']}, not in {model.precision}. {AGAIN}"
            )


AGAIN = "Tune again, or leave --tuned out."


def chosen_options(
    searches: Sequence[Tuned], methods: Sequence[str], given: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Mapping[str, Any]], dict[str, dict[str, Any]]]:
    """``Tuned.options`` of several searches, each of methods of its own.

    Raises:
        OptionError: as ``Tuned.options``, and for a method that two of them tuned.
    """
    options, records, where = dict(given), {}, {}
    for search in searches:
        found, about = search.options(methods, given)
        for name in about:
            if name in where:
                both = f"--tuned {where[name]} and --tuned {search.folder}"
                raise OptionError(f"{both} both have options for {name}. Leave one out.")
            where[name] = search.folder
        options |= found
        records |= about
    return options, records
