"""A suite of a tiny model, for tests."""

import json
from collections.abc import Mapping
from pathlib import Path

from editbench.eval import retention
from editbench.models import load_model
from editbench.run.config import RunConfig
from editbench.run.keys import SCORING, template_digest
from editbench.run.plan import make_plan

TASK = "eb_grammar"


def write_suite(folder: Path, model: Path) -> Path:
    """Write a suite of two facts of the built-in corpus, three items of one task, and two seeds."""
    loaded = load_model(str(model), dtype="float32", precision="float32")
    slices = [
        make_plan(RunConfig(("base",), str(model), "demo-counterfact", n=2, seed=seed)).slice_hash
        for seed in (0, 1)
    ]
    fields: dict[str, object] = {
        "name": "tiny-1",
        "summary": "two facts",
        "scoring": SCORING,
        "model": {
            "name": str(model),
            "weights": loaded.fingerprint(),
            "dtype": "float32",
            "precision": "float32",
            "chat_template": template_digest(loaded) or "",
        },
        "facts": {"corpus": "demo-counterfact", "part": "test", "n": 2, "regime": "batch"},
        "seeds": {"0": slices[0], "1": slices[1]},
        "retention": {"limit": 3, "tasks": {TASK: retention.data_digest(TASK, None)}},
    }
    return write_fields(folder, fields)


def write_fields(folder: Path, fields: Mapping[str, object]) -> Path:
    """Write ``tiny-1.toml`` with ``fields``, and return it."""
    file = folder / "tiny-1.toml"
    file.write_text("".join(f"{key} = {inline(value)}\n" for key, value in fields.items()))
    return file


def inline(value: object) -> str:
    """Return ``value`` as TOML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {inline(each)}' for key, each in value.items()) + "}"
    return json.dumps(value)
