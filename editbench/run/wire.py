"""A checked plan as JSON, for a worker in another process or on another machine.

The cases travel with it; files that the plan names do not. Their hashes do, so that a worker that
sees other files says so.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from editbench import registry
from editbench.errors import DataError, PluginError
from editbench.plugin import Method
from editbench.run.artifact import Artifact
from editbench.run.config import RunConfig, method_of
from editbench.run.origin import code_of
from editbench.run.plan import Plan
from editbench.types import Case


def plan_to_json(plan: Plan) -> bytes:
    """Return ``plan`` with the hashes of its files and the versions of its plug-ins."""
    return json.dumps(
        {
            "config": asdict(plan.config),
            "cases": [case.to_dict() for case in plan.cases],
            "methods": {name: method.options() for name, method in plan.methods.items()},
            "artifacts": list(plan.artifacts),
            "not_asked": dict(plan.not_asked),
            "files": _files(plan),
            "versions": _versions(plan),
        }
    ).encode()


# Workers get the same plan with every cell, and to read it they hash its files.
@functools.lru_cache(maxsize=16)
def plan_from_json(data: bytes) -> Plan:
    """Return the plan that ``plan_to_json`` wrote, checked against the files seen from here.

    Raises:
        UnknownNameError: a method or evaluator is not installed here.
        PluginError: a plug-in has another version here.
        DataError: a file that the plan names is missing here, or has other contents.
        ModelError: an artifact is missing here.
    """
    record = json.loads(data)
    config = config_from(record["config"])
    methods: dict[str, Method] = {}
    for name, options in record["methods"].items():
        if name in record["artifacts"]:
            methods[name] = Artifact(seed=config.seed, path=config.artifacts[name])
        else:
            method = method_of(name)
            methods[name] = registry.get("methods", method).from_options(method, options)
    plan = Plan(
        config,
        methods,
        [Case.from_dict(case) for case in record["cases"]],
        not_asked=record["not_asked"],
        evaluators={name: registry.get("evaluators", name)() for name in config.evaluators},
    )
    if other := _differing(record["files"], _files(plan)):
        raise DataError(f"{other} is missing, or has other contents than where the run was started")
    if other := _differing(record["versions"], _versions(plan)):
        raise PluginError(
            f"plug-in {other} has another version or other code than where the run was started"
        )
    return plan


def config_from(record: Mapping[str, Any]) -> RunConfig:
    """Return the configuration whose fields JSON has given back."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }
    return RunConfig(**values)


def _files(plan: Plan) -> dict[str, str | None]:
    """Return the hash of each task's data, and of each file that a row names."""
    named = {
        file: sha for method in plan.methods.values() for file, sha in method.sources().items()
    }
    return {**plan.task_digests, **named}


def _versions(plan: Plan) -> dict[str, list[object]]:
    methods: dict[str, list[object]] = {
        name: [each.version, each.engine_version, code_of("methods", method_of(name))]
        for name, each in plan.methods.items()
    }
    return methods | {
        name: [each.version, code_of("evaluators", name)] for name, each in plan.evaluators.items()
    }


def _differing(there: Mapping[str, object], here: Mapping[str, object]) -> str | None:
    """Return the first name that does not stand for the same in both."""
    return next((name for name in {**there, **here} if there.get(name) != here.get(name)), None)
