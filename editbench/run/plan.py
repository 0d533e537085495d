"""A configuration, checked: methods built, cases loaded, retention tasks found."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from editbench import registry
from editbench.aliases import ALIASES
from editbench.errors import (
    DataError,
    PluginError,
)
from editbench.eval import diagnostics, judge, retention
from editbench.plugin import Method
from editbench.run import regimes
from editbench.run.config import RunConfig, method_of, with_baselines
from editbench.slices import askable, slice_cases
from editbench.types import Case, check_facts, digest


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
        asked = retention.data_digest
        return {
            task: asked(task, Path(data[task]) if task in data else None)
            for task in self.config.tasks
        }


def make_plan(config: RunConfig) -> Plan:
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
    diagnostics.check_names(config.diagnostics)
    judge.check_endpoint(config.judge, config.judge_model)
    corpus = registry.get("corpora", config.corpus)()
    cases = slice_cases(corpus.load(config.data), config.part, config.n, config.seed)
    if regimes.parse(config.regime)[0] == "single":
        cases = [askable(case, {case.fact.id}) for case in cases]
    facts = check_facts((case.fact for case in cases), config.allow_conflicts)
    for name, method in methods.items():
        method.check_subjects(name, facts)
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


def resolve(
    names: Sequence[str],
    options: Mapping[str, Mapping[str, Any]],
    tasks: str,
    task_data: Mapping[str, str],
    **conditions: Any,
) -> Plan:
    """The checked plan of ``names`` and the baselines, with local files by their whole paths, without the tasks that cannot be
    loaded."""
    corpus = conditions["corpus"]
    registry.check("corpora", corpus)
    local_data = {task: str(Path(path).resolve()) for task, path in task_data.items()}
    files = {task: Path(path) for task, path in local_data.items()}
    chosen = retention.resolve_tasks(tasks, files)
    config = RunConfig(
        methods=with_baselines(names),
        tasks=tuple(chosen),
        options=options,
        task_data=local_data,
        **conditions,
    )
    checked = make_plan(config)
    lost = retention.unloadable(config.tasks, files)
    if lost and len(lost) == len(config.tasks):
        raise DataError(next(iter(lost.values())))
    # only now, so that errors name a file as it was typed
    whole: dict[str, Any] = {} if config.model in ALIASES else {"model": whole_path(config.model)}
    if registry.get("corpora", corpus).needs_data:  # of others it is no path
        whole["data"] = whole_path(config.data)
    whole["tasks"] = tuple(_whole_task(task) for task in config.tasks if task not in lost)
    whole["task_data"] = {
        _whole_task(task): path for task, path in local_data.items() if task not in lost
    }
    whole["options"] = {
        name: _whole_files(given, checked.methods[name].sources())
        for name, given in config.options.items()
    }
    config = replace(config, **whole)
    return replace(checked, config=config, methods=build_methods(config), not_asked=lost)


def whole_path(text: str | None) -> str | None:
    """``text``, where it names a local file or folder as its absolute path: a record must not depend on where it was made.
    Links are left as they are, since what they lead to may have another ending."""
    return (
        os.path.abspath(Path(text).expanduser())
        if text and Path(text).expanduser().exists()
        else text
    )


def _whole_task(name: str) -> str:
    """``name``, that of a task file as its whole path; others are no paths."""
    return whole_path(name) if name.endswith((".yaml", ".yml")) else name


def _whole_files(options: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """``options`` with those of ``files`` that their texts name, several between commas, by their whole paths."""

    def whole(value: str) -> str:
        return ",".join(
            whole_path(part.strip()) if part.strip() in files else part for part in value.split(",")
        )

    return {
        key: whole(value) if isinstance(value, str) else value for key, value in options.items()
    }
