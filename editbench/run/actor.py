"""What runs in a worker process of a cluster. It knows nothing of Ray, which starts it.

Arguments and results are bytes and texts, and errors come back as JSON, so that neither side
unpickles an object of the other.
"""

from __future__ import annotations

import functools
import json
import socket
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import torch

from editbench import errors, progress
from editbench.errors import EditbenchError
from editbench.hub import cache_dir
from editbench.records.environment import packages
from editbench.run.keys import code_digest, machine
from editbench.run.loading import check_memory, load_planned
from editbench.run.wire import plan_from_json
from editbench.run.worker import Worker


class _Listener(progress.Silent):
    """A reporter that shows no steps, and keeps what is said."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def say(self, sentence: str) -> None:
        self.heard.append(sentence)


def _said(method: Callable[..., Any]) -> Callable[..., tuple[Any, str, list[str]]]:
    """Have ``method`` return its result, the error that it raised, and what it said to the user.

    The error is JSON; it is empty without one.
    """

    @functools.wraps(method)
    def said(self: Actor, *arguments: Any) -> tuple[Any, str, list[str]]:
        listener = _Listener()
        with progress.reporting(listener):
            try:
                return method(self, *arguments), "", listener.heard
            except Exception as error:  # raised here, it would be pickled
                return None, said_of(error), listener.heard

    return said


def said_of(error: Exception) -> str:
    return json.dumps({"name": type(error).__name__, "text": str(error)})


class Actor:
    """A ``Worker`` in a process of its own."""

    worker: Worker

    def __init__(self, threads: int):
        torch.set_num_threads(threads)
        self.machine = f"{socket.gethostname()}:{cache_dir()}"

    @_said
    def about(self) -> str:
        """Return what this process runs, as JSON."""
        return json.dumps(
            {
                "host": socket.gethostname(),
                "machine": self.machine,
                "code": code_digest(),
                "packages": packages(),
            }
        )

    @_said
    def load(self, plans: list[bytes], name: str, device: str, skip_memory_check: bool) -> str:
        """Check all that the plans name, load their model, and return its identity as JSON."""
        checked = [plan_from_json(plan) for plan in plans]
        for plan in () if skip_memory_check else checked:
            check_memory(plan, device)
        model = load_planned(checked[0].config, device)
        if checked[0].config.layout:
            model.layout  # noqa: B018 - a wrong name is reported now, not in a cell
        model.name = name
        self.worker = Worker(model)
        return json.dumps(
            {
                "identity": asdict(self.worker.identity),
                "computes": machine(model),
                "warnings": [*([model.adapter] if model.adapter else []), *model.warnings],
            }
        )

    @_said
    def check_artifacts(self, plan: bytes, names: str) -> str:
        """As ``Worker.check_artifacts``."""
        return json.dumps(self.worker.check_artifacts(plan_from_json(plan), json.loads(names)))

    @_said
    def ask_tasks(self, plan: bytes) -> tuple[bytes, str]:
        """As ``Worker.ask_tasks``."""
        samples, lost = self.worker.ask_tasks(plan_from_json(plan))
        return samples, json.dumps(lost)

    @_said
    def ask_base(self, plan: bytes, samples: bytes) -> bytes:
        """As ``Worker.ask_base``."""
        return self.worker.ask_base(plan_from_json(plan), samples)

    @_said
    def prepare(self, plan: bytes, names: str) -> str:
        """As ``Worker.prepare``."""
        return json.dumps(self.worker.prepare(plan_from_json(plan), json.loads(names)))

    @_said
    def compute(
        self, plan: bytes, name: str, key: str, answers: bytes, artifact: str, prepared: str
    ) -> tuple[dict[str, bytes], bool, str]:
        """As ``Worker.compute``; ``prepared`` has what each machine has measured for the row."""
        measured = json.loads(prepared).get(self.machine)
        cell = self.worker.compute(
            plan_from_json(plan), name, key, answers, json.loads(artifact), measured
        )
        return dict(cell.files), cell.failed, cell.spoiled

    @_said
    def fail(self, plan: bytes, name: str, key: str, error: str, artifact: str) -> dict[str, bytes]:
        """As ``Worker.fail``."""
        cell = self.worker.fail(
            plan_from_json(plan), name, key, error_of(error), json.loads(artifact)
        )
        return dict(cell.files)


def error_of(text: str, where: str = "") -> Exception:
    """Return the error that ``said_of`` wrote, of the same class where it is one of ours."""
    said = json.loads(text)
    known = getattr(errors, said["name"], None)
    if isinstance(known, type) and issubclass(known, EditbenchError):
        # The message of some is built by their ``__init__``, and it is there already.
        plain = known if known.__init__ is Exception.__init__ else EditbenchError
        return plain(where + said["text"])
    return cast("Exception", type(said["name"], (Exception,), {})(where + said["text"]))
