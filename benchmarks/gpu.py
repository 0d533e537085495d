"""Run every method on a GPU: the conformance battery, differences to the CPU, seconds and memory.

    python benchmarks/gpu.py                      # the default model on the first GPU
    python benchmarks/gpu.py MODEL --facts 20     # a folder or hub id
    python benchmarks/gpu.py --device cpu --methods rome,sft    # the script itself, without a GPU

The battery (``editbench.testing.check_method``) takes tiny models. Each method then injects the
same facts into the model on the CPU and on the device, both in float32, with few steps: their edits
differ by rounding alone. Seconds and peak memory are of ``prepare`` and ``inject`` on the device,
with an empty cache. Stored in ``benchmarks/results/gpu.json``; where there is no such device, each
method is "not run".
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from editbench import registry
from editbench.changes import dense
from editbench.cost import Meter
from editbench.edit import Edit
from editbench.errors import OptionError
from editbench.files import write_json_atomic
from editbench.hub import cache_dir
from editbench.models import LanguageModel, load_model
from editbench.testing import FACTS, check_method, teach_to_read, tiny_model
from editbench.types import Fact

RESULT = Path(__file__).parent / "results" / "gpu.json"
FEW = {
    **{"epochs": 2, "min_steps": 4, "lr": 1e-5, "enough": 0.0, "max_new_tokens": 16},
    **{"attempts": 1, "on_fail": "keep", "steps": 5, "covariance_tokens": 4096},
}
"""Options of all methods that have them: differences and memory do not depend on the number of
steps, and the same steps are made on both devices."""


def own_methods() -> list[str]:
    """Return the methods of editbench itself."""
    names = registry.names("methods")
    return [name for name in names if registry.get("methods", name).kind != "EasyEdit"]


def battery(name: str, device: str) -> str:
    """Return "passed", or what the battery found wrong with a method on tiny models there."""
    model = teach_to_read(tiny_model("llama"), FACTS)
    moved = LanguageModel(model.model.to(device), model.tokenizer)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        try:
            check_method(registry.get("methods", name), moved, FACTS, Path(folder))
        except Exception as error:  # the next method is asked all the same
            return f"{type(error).__name__}: {error}"
    return "passed"


def injected(name: str, model: str, facts: Sequence[Fact], device: str) -> tuple[Edit, Meter]:
    """Return the edit of ``facts`` on a device, and what it cost there."""
    method = registry.get("methods", name)
    known = {field.name for field in fields(method)}
    chosen = method.from_options(name, {k: v for k, v in FEW.items() if k in known})
    handle = load_model(model, device=device, precision="float32")
    with Meter(handle) as meter:
        with meter.phase("precompute"):
            chosen.prepare(handle)
        with meter.phase("inject"):
            edit = chosen.inject(handle, facts)
    return edit, meter


def difference(here: Edit, there: Edit) -> float:
    """Return ||there - here|| / ||here|| over all changed weights; 0 where nothing changes."""
    if here.changes.keys() != there.changes.keys():
        return float("inf")
    changes = [(dense(here.changes[k]), dense(there.changes[k])) for k in here.changes]
    apart = sum((a.double() - b.double()).pow(2).sum().item() for a, b in changes)
    size = sum(a.double().pow(2).sum().item() for a, _ in changes)
    return float((apart / size) ** 0.5) if size else 0.0


def measured(name: str, model: str, facts: Sequence[Fact], device: str) -> dict[str, object]:
    """Return what was measured of a method: on the CPU, on the device, and the difference."""
    here, _ = _fresh(lambda: injected(name, model, facts, "cpu"))
    there, meter = _fresh(lambda: injected(name, model, facts, device))
    return {
        "battery": _fresh(lambda: battery(name, device)),
        "difference": difference(here, there),
        "seconds": {phase: round(seconds, 2) for phase, seconds in meter.seconds.items()},
        "peak_bytes": meter.peak,
        "peak_process_bytes": meter.peak_process,
    }


def _fresh(work: Callable[[], Any]) -> Any:
    """Return what ``work`` returns with an empty cache: statistics of one device serve no other."""
    with tempfile.TemporaryDirectory() as cache:
        # an unpacked GGUF file is the same for all
        if (models := cache_dir() / "models").is_dir():
            (Path(cache) / "models").symlink_to(models)
        with mock.patch.dict(os.environ, {"EDITBENCH_CACHE": cache}):
            return work()


def missing(device: str) -> str:
    """Return why there is no such device, empty if there is one."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return ""


def study(model: str, device: str, methods: Sequence[str], n: int) -> list[dict[str, object]]:
    """Return a row for each method."""
    cases = registry.get("corpora", "demo-counterfact")().load()
    facts = [case.fact for case in cases if case.fact.subject][:n]
    lacking = missing(device)
    rows = []
    for name in methods:
        row: dict[str, object] = {"model": model, "device": device, "method": name, "facts": n}
        if lacking:
            row |= {"status": "not run", "why": lacking}
        else:
            try:
                row |= {"status": "run", **measured(name, model, facts, device)}
            except Exception as error:  # the next method is measured all the same
                row |= {"status": "failed", "why": f"{type(error).__name__}: {error}"}
        print({key: value for key, value in row.items() if key != "why"}, flush=True)
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["smollm2-135m"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--methods", default=",".join(own_methods()))
    parser.add_argument("--facts", type=int, default=8)
    parser.add_argument("--output", type=Path, default=RESULT)
    given = parser.parse_args(arguments)
    methods = [name for name in given.methods.split(",") if name]
    if unknown := [name for name in methods if name not in registry.names("methods")]:
        raise OptionError(f"There is no method {unknown[0]!r}.")
    rows = [
        row for model in given.models for row in study(model, given.device, methods, given.facts)
    ]
    environment = {
        "torch": torch.__version__,
        "card": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    write_json_atomic(given.output, {"environment": environment, "rows": rows})


if __name__ == "__main__":
    main()
