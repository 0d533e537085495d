"""Check a configuration: build its methods, load its cases, find its retention tasks."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

from editbench import registry
from editbench.aliases import ALIASES
from editbench.errors import DataError, OptionError, PluginError
from editbench.eval import diagnostics, judge, retention
from editbench.plugin import Corpus, Evaluator, Method
from editbench.run import regimes
from editbench.run.artifact import Artifact, artifacts_of
from editbench.run.config import RunConfig, method_of
from editbench.slices import NO_FACTS, askable, check_enough, slice_cases, with_new_answers
from editbench.types import Case, check_facts, digest


@dataclass(frozen=True)
class Plan:
    """A checked configuration with its methods and cases; no model is loaded yet."""

    config: RunConfig
    methods: Mapping[str, Method]
    cases: Sequence[Case]
    left_out: Sequence[str] = ()
    """Reasons why records of the corpus cannot be facts or probes cannot be asked, one for each."""
    remarks: Sequence[str] = ()
    """What the user should know about how the file of facts was read."""
    not_asked: Mapping[str, str] = field(default_factory=dict)
    """Requested retention task that cannot be asked, and so is not in ``config`` -> reason."""
    evaluators: Mapping[str, Evaluator] = field(default_factory=dict)

    @functools.cached_property
    def artifacts(self) -> dict[str, Artifact]:
        """The rows that are artifacts."""
        return artifacts_of(self.methods)

    @property
    def form(self) -> str:
        """Form of the facts' prompts."""
        return self.cases[0].fact.form if self.cases else "none"

    @functools.cached_property
    def slice_hash(self) -> str:
        """Hash of the cases with their probes."""
        return digest([case.to_dict() for case in self.cases])[:16]

    @functools.cached_property
    def task_digests(self) -> dict[str, str | None]:
        """Retention task -> hash of its data; ``None`` for data from the hub."""
        files = {task: Path(path) for task, path in self.config.task_data.items()}
        return {task: retention.data_digest(task, files.get(task)) for task in self.config.tasks}

    def without(self, lost: Mapping[str, str]) -> Plan:
        """Return the plan without the retention tasks in ``lost``: task -> why it is left out."""
        config = replace(
            self.config,
            tasks=tuple(task for task in self.config.tasks if task not in lost),
            task_data={
                task: path for task, path in self.config.task_data.items() if task not in lost
            },
        )
        return replace(self, config=config, not_asked={**self.not_asked, **lost})


def make_plan(config: RunConfig) -> Plan:
    """Check every name, option and record of ``config``, and return the plan.

    Raises:
        EditbenchError: one of them is wrong; the error is of the first.
    """
    methods = build_methods(config)
    # A cell's key is a hash of its options as JSON, and a plug-in may have options of any type.
    for name, method in methods.items():
        try:
            digest(method.options())
        except (TypeError, ValueError) as error:
            raise PluginError(
                f"The options of method {name!r} cannot be recorded as JSON: {error}."
            ) from error
    diagnostics.check_names(config.diagnostics)
    judge.check_endpoint(config.judge, config.judge_model)
    evaluators = {name: registry.get("evaluators", name)() for name in config.evaluators}
    if config.corpus == NO_FACTS:
        return Plan(replace(config, n=0), methods, [])
    corpus = _corpus(config)
    usable, same = with_new_answers(corpus.load(config.data))
    cases = slice_cases(usable, config.part, config.n, config.seed)
    check_enough(1, len(cases), len(usable), config.part)
    # Each model is taught one fact, so a probe that needs another one cannot be asked.
    if regimes.parse(config.regime)[0] == "single":
        cases = [askable(case, {case.fact.id}) for case in cases]
    facts = check_facts((case.fact for case in cases), config.allow_conflicts)
    for name, method in methods.items():
        method.check_subjects(name, facts)
    left_out = (*corpus.skipped, *same)
    # Checks the points of a curve as well, now that the number is known.
    config = replace(config, n=len(cases))
    return Plan(config, methods, cases, left_out, corpus.remarks, evaluators=evaluators)


def _corpus(config: RunConfig) -> Corpus:
    """Return the corpus of ``config``, told which columns hold which fields.

    Raises:
        OptionError: it does not read a file whose columns may have other names.
    """
    corpus = registry.get("corpora", config.corpus)()
    if config.columns and not corpus.own_file:
        raise OptionError(
            f"--{next(iter(config.columns))}-column names a column of your own file, and corpus "
            f"{config.corpus!r} has names of its own. Pass your file with --facts FILE."
        )
    corpus.columns = config.columns
    return corpus


def build_methods(config: RunConfig) -> dict[str, Method]:
    """Return the methods and artifacts of ``config`` with their options, by name.

    Raises:
        ModelError: there is no such artifact, or it lacks something (``artifacts.kind_of``).
        UnknownNameError: there is no such method.
        OptionError: an option is unknown, or its value invalid.
    """
    built: dict[str, Method] = {}
    for name in config.methods:
        if name in config.artifacts:
            built[name] = Artifact(seed=config.seed, path=config.artifacts[name])
            continue
        # The run's seed, unless the method was given one of its own.
        options = {"seed": config.seed, **config.options.get(name, {})}
        method = method_of(name)
        built[name] = registry.get("methods", method).from_options(method, options)
    return built


def resolve(config: RunConfig, tasks: str) -> Plan:
    """Turn a request, as it was typed, into a checked plan.

    The plan's configuration names every local file by its absolute path, so that it means the same
    from any folder. It leaves out tasks that cannot be loaded; ``Plan.not_asked`` says why.

    Args:
        config: the request, with the baselines (``with_baselines``), with names and paths as they
            were typed, and without tasks.
        tasks: the text of ``--tasks``: ``default``, ``none``, or names and ``.yaml`` files
            separated by commas.

    Raises:
        EditbenchError: a name, option or record is wrong (the error is of the first one), or none
            of the tasks can be loaded.
    """
    if config.corpus != NO_FACTS:
        registry.check("corpora", config.corpus)
    local_data = {task: str(Path(path).resolve()) for task, path in config.task_data.items()}
    files = {task: Path(path) for task, path in local_data.items()}
    asked = tuple(retention.resolve_tasks(tasks, files))
    # An artifact's path is part of its record, and its files are hashed once.
    whole = {name: whole_path(path) for name, path in config.artifacts.items()}
    config = replace(config, tasks=asked, task_data=local_data, artifacts=whole)
    if config.corpus == NO_FACTS and not asked:
        raise OptionError("--facts none scores retention alone, and --tasks names no task.")
    checked = make_plan(config)
    lost = retention.unloadable(config.tasks, files, config.limit, config.seed)
    # A run may go on without some of its tasks, but not without all of them.
    if lost and len(lost) == len(config.tasks):
        raise DataError(next(iter(lost.values())))
    # Only now: the errors above name a file as it was typed.
    config = replace(
        checked.config,
        model=config.model if config.model in ALIASES else whole_path(config.model),
        data=whole_path(config.data) if _reads_data(config.corpus) else config.data,
        tasks=tuple(_whole_task(task) for task in config.tasks if task not in lost),
        task_data={
            _whole_task(task): path for task, path in local_data.items() if task not in lost
        },
        options={
            name: _whole_files(given, checked.methods[name].sources())
            for name, given in config.options.items()
        },
    )
    # The methods are built again, because their options now hold absolute paths.
    return replace(checked, config=config, methods=build_methods(config), not_asked=lost)


def _reads_data(corpus: str) -> bool:
    """Return whether the corpus reads ``--data`` as a path; to others it is a name of their own."""
    return corpus != NO_FACTS and registry.get("corpora", corpus).needs_data


@overload
def whole_path(text: str) -> str: ...
@overload
def whole_path(text: None) -> None: ...
def whole_path(text: str | None) -> str | None:
    """Return ``text`` as an absolute path where it names a local file or folder, else as it is.

    A record must not depend on the folder in which it was made. Links are not followed: the target
    of a link may have another file ending, and the ending says how to read the file.
    """
    if text and Path(text).expanduser().exists():
        return os.path.abspath(Path(text).expanduser())
    return text


def _whole_task(name: str) -> str:
    """Return the absolute path of a task file. Other names are not paths."""
    return whole_path(name) if name.endswith((".yaml", ".yml")) else name


def _whole_files(options: Mapping[str, object], files: Mapping[str, str]) -> dict[str, object]:
    """Return ``options`` with the ``files`` that their texts name as absolute paths.

    An option may name several files, separated by commas.
    """

    def whole(text: str) -> str:
        parts = text.split(",")
        return ",".join(
            whole_path(part.strip()) if part.strip() in files else part for part in parts
        )

    return {
        key: whole(value) if isinstance(value, str) else value for key, value in options.items()
    }
