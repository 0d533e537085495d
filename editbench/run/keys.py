"""The key of a cell: the hash of everything that can change its numbers."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from editbench import registry
from editbench.models import LanguageModel
from editbench.plugin import Method
from editbench.run import regimes
from editbench.run.config import RunConfig, run_identity
from editbench.run.plan import Plan
from editbench.types import digest

SCORING = 7
"""Version of what ``eval/``, the regimes and the intervals do; a change that can move a number raises it, and old cells are
computed anew."""


def cell_key(
    plan: Plan,
    name: str,
    method: Method,
    weights: str,
    precision: str,
    template: str | None = None,
) -> str:
    """The name of a cell: its method, and the hash of all that can change its numbers."""
    summary = {
        "method": name, "options": method.options(), "sources": method.sources(),
        "versions": versions_of(plan.config, method),
        "model": {"hash": weights, "precision": precision, "chat_template": template},
        "corpus": {"hash": plan.slice_hash}, "tasks": plan.task_digests,
        **{what: getattr(plan.config, what) for what in ("regime", "seed", "limit")},
    }  # fmt: skip
    return key_of(summary, run_identity(plan.config))


def versions_of(config: RunConfig, method: Method) -> dict[str, int]:
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


@functools.cache
def code_digest() -> str:
    """SHA-256 of the Python files that can move a number, 16 hex digits: the core's, methods', corpora's and eval's.

    The same in a checkout and in an installed wheel; data that code reads has hashes of its own.
    """
    hashes: dict[str, str] = {}
    for room in ("", *registry.ROOMS.values()):
        spec = importlib.util.find_spec(f"editbench.{room}" if room else "editbench")
        folder = Path(spec.submodule_search_locations[0])
        for file in folder.rglob("*.py"):
            inner = file.relative_to(folder)
            # in a wheel the rooms lie inside the core's folder, in a checkout beside it
            if room or inner.parts[0] not in (*registry.ROOMS.values(), "leaderboard"):
                hashes[(Path(room) / inner).as_posix()] = hashlib.sha256(
                    file.read_bytes()
                ).hexdigest()
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
