"""The key of a cell: the hash of everything that can change its numbers.

Stored cells are found by their keys. A part that is added to the key must therefore be left out
where it is not used, so that older cells keep their keys. ``tests/run/test_keys.py`` computes the
keys of the published cells.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import platform
import re
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import torch

from editbench import registry
from editbench.models import LanguageModel
from editbench.plugin import Method
from editbench.records.schema import CellSummary, ChatRecord, StoredConfig, Versions
from editbench.run import regimes
from editbench.run.config import method_of, run_identity
from editbench.run.origin import code_of
from editbench.run.plan import Plan
from editbench.types import digest

SCORING = 9
"""Version of ``eval/``, the regimes and the intervals. Raise it with every change there that can
move a number: stored cells are then computed again."""


def cell_key(
    plan: Plan,
    name: str,
    method: Method,
    weights: str,
    precision: str,
    template: str | None = None,
    chat: ChatRecord | None = None,
) -> str:
    """Return the key of the cell of method ``name`` on a model.

    Args:
        plan: the run.
        name: the method, or its variant.
        method: the method with its options.
        weights: fingerprint of the model's weights.
        precision: precision of the forward passes.
        template: hash of the chat template, ``None`` without one.
        chat: how the template is used, where that is not as it stands.
    """
    config = plan.config
    summary: dict[str, object] = {
        "method": name,
        "options": method.options(),
        "left_out": method.left_out(),
        "sources": method.sources(),
        "versions": versions_of(plan, name, method),
        "model": {
            "hash": weights,
            "precision": precision,
            "chat_template": template,
            **({"chat": chat} if chat else {}),
        },
        "corpus": {"hash": plan.slice_hash},
        "tasks": plan.task_digests,
        "regime": config.regime,
        "seed": config.seed,
        "limit": config.limit,
    }
    # These are all the fields that ``key_of`` reads; no cell has been computed yet.
    return key_of(cast("CellSummary", summary), cast("StoredConfig", run_identity(config)))


def versions_of(plan: Plan, name: str, method: Method) -> Versions:
    """Return the versions of all code that can move a number of the cell of method ``name``."""
    versions: Versions = {"scoring": SCORING, "method": method.version}
    # Left out while it is 1: that is the key of cells from before engines had versions.
    if method.engine_version > 1:
        versions["engine"] = method.engine_version
    if plan.config.regime.startswith("sequential"):  # only sequences are watched and stopped
        versions["regime"] = regimes.VERSION
    if plan.evaluators:
        versions["evaluators"] = {
            name: evaluator.version for name, evaluator in plan.evaluators.items()
        }
    # Who writes a plug-in changes it all day, and does not raise its version each time.
    code = code_of("methods", method_of(name))
    for evaluator in plan.evaluators:
        code |= code_of("evaluators", evaluator)
    if code:
        versions["plugins"] = code
    return versions


def key_of(summary: CellSummary, config: StoredConfig) -> str:
    """Return the key of the cell with ``summary`` in a run whose ``run.json`` has ``config``.

    The key is the method's name and 12 hex digits of a hash.
    """
    versions, model, name = summary["versions"], summary["model"], summary["method"]
    left_out = summary.get("left_out", ())
    identity: list[object] = [
        versions["scoring"],
        name,
        versions["method"],
        {key: value for key, value in summary["options"].items() if key not in left_out},
        model["hash"],
        model["precision"],
        summary["corpus"]["hash"],
        summary["regime"],
        summary["seed"],
        # A task that the base could not be asked is in run.json, and not in the cell.
        [task for task in config["tasks"] if task in summary["tasks"]],
        summary["tasks"],
        summary["limit"],
        *_optional_parts(summary, config),
    ]
    method, at, label = name.partition("@")
    # The key is also a folder name, so the label is cut and odd characters are replaced. Labels
    # that become equal by this still differ in the hash, which covers the whole name.
    label = re.sub(r"[^A-Za-z0-9._=+-]", "_", at + label)[:80]
    return f"{method}{label}-{digest(identity)[:12]}"


def _optional_parts(summary: CellSummary, config: StoredConfig) -> list[object]:
    """Return the parts that a key has only where they are used. Their order is part of the hash."""
    versions, template = summary["versions"], summary["model"]["chat_template"]
    parts: list[object] = []
    if diagnostics := config.get("diagnostics"):
        parts.append(list(diagnostics))
    if curve := config.get("curve"):
        parts.append(list(curve))
    # From here on each part carries its name, so that no two of them can be mistaken.
    if judge := config.get("judge"):
        parts.append({"judge": judge, "model": config["judge_model"]})
    if template:
        parts.append({"chat template": template})
    if layout := config.get("layout"):
        parts.append({"layout": dict(layout)})
    if "regime" in versions:
        parts.append({"regime": versions["regime"]})
    if sources := summary.get("sources"):
        parts.append({"sources": sources})
    if "engine" in versions:
        parts.append({"engine": versions["engine"]})
    if evaluators := versions.get("evaluators"):
        parts.append({"evaluators": evaluators})
    if chat := summary["model"].get("chat"):
        parts.append({"chat": chat})
    # Cells from before have none: their plug-ins' code is not known, and they are computed again.
    if plugins := versions.get("plugins"):
        parts.append({"plugins": plugins})
    return parts


@functools.cache
def code_digest() -> str:
    """Return 16 hex digits of the SHA-256 of all Python files that can move a number.

    These are the files of the core, ``methods``, ``corpora`` and ``eval``. The digest is the same
    in a checkout and in an installed wheel. The data that the code reads is hashed separately.
    """
    hashes: dict[str, str] = {}
    for room in ("", *registry.ROOMS.values()):
        folder = _folder_of(f"editbench.{room}" if room else "editbench")
        for file in folder.rglob("*.py"):
            inner = file.relative_to(folder)
            # In a wheel the rooms are inside the core's folder, in a checkout next to it.
            if room or inner.parts[0] not in (*registry.ROOMS.values(), "leaderboard"):
                hashes[(Path(room) / inner).as_posix()] = hashlib.sha256(
                    file.read_bytes()
                ).hexdigest()
    return digest(sorted(hashes.items()))[:16]


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{package} is not an installed package")
    return Path(spec.submodule_search_locations[0])


class Machine(TypedDict):
    """The part of a machine that decides how a model's answers are rounded."""

    threads: int
    device: str
    hardware: str
    batch_size: NotRequired[int]
    """Where it was given."""
    devices: NotRequired[list[str]]
    """All devices of a model that is spread over several; ``disk`` for weights that are brought."""


def machine(model: LanguageModel) -> Machine:
    """Return the device of the model, its hardware, and the number of threads."""
    if model.device.type == "cuda":
        hardware = torch.cuda.get_device_name(model.device)
    else:
        # AVX2 and AVX-512, for example, sum in different orders.
        hardware = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    found: Machine = {
        "threads": torch.get_num_threads(),
        "device": model.device.type,
        "hardware": hardware,
    }
    if model.batches.given:
        found["batch_size"] = model.batches.given
    if len(model.devices) > 1 or model.has_offloaded:
        found["devices"] = [*map(str, model.devices), *(["disk"] if model.has_offloaded else [])]
    return found


def template_digest(model: LanguageModel) -> str | None:
    """Return the hash of the model's chat template, ``None`` without one."""
    return digest(model.tokenizer.chat_template)[:16] if model.chat else None


def chat_record(model: LanguageModel) -> ChatRecord:
    """Return what a record says of how the chat template is used; empty where it is as it stands.

    Raises:
        ModelError: The template cannot be used.
    """
    style = model.chat_style
    return cast("ChatRecord", style.record()) if style else {}
