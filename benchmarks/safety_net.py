"""Hashes of what every method makes: run before and after a change that must move no number.

    python benchmarks/safety_net.py OUT.json [--real]
    python benchmarks/safety_net.py --compare BEFORE.json AFTER.json

Each entry is the SHA-256 of an edit's tensors (changes and keys) or of its records without the
times, which hold every training text. A tiny Llama and a tiny GPT-2 are edited by every registered
method and by options that take other paths; ``--real`` edits the default model with five facts by
memit, rome, sft and mixsd as well. One thread and float32, so that equal code gives equal bits on
one machine. On another machine the bits differ, which is why no hashes are stored here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile

# The cache of statistics must not hide a change, and third-party plug-ins are not ours to compare.
os.environ["EDITBENCH_CACHE"] = tempfile.mkdtemp(prefix="safety-net-")
os.environ["EDITBENCH_PLUGINS"] = "none"

import torch

from editbench import registry
from editbench.edit import Edit
from editbench.errors import MethodError
from editbench.models import LanguageModel, load_model
from editbench.testing import FACTS, teach_to_read, tiny_model, tiny_options
from editbench.types import Fact

FAMILIES = ("llama", "gpt2")
VARIANTS: dict[str, tuple[dict[str, object], ...]] = {
    "memit": (
        {"refine": 2},
        {"layers": "auto"},
        {"quick": True},
        {"fisher_factor": 1.0},
        {"covariance": "identity"},
    ),
    "rome": ({"layer": "auto"}, {"key": "original"}),
    "pmet": ({"fisher_factor": 1.0},),
    "sft": (
        {"kl": 1.0, "replay": 1.0},
        {"ewc": 1.0, "l2": 1.0},
        {"lora": 4},
        {"lora": 4, "null_space": 0.5},
        {"rewordings": 2, "micro_batch": 1, "checkpointing": True},
    ),
    "mixsd": (
        {"mode": "adaptive"},
        {"temperature": 1.0, "top_k": 8},
        {"lam": 0.0},
        {"lam": 1.0, "on_fail": "keep"},
        {"signal": 0.5, "rewordings": 1},
    ),
    "opsd": (
        {"teacher": "ema", "divergence": "jsd"},
        {"exposure": "adaptive", "verified": True},
        {"teacher": "current", "divergence": "reverse"},
    ),
    "memit+mixsd": ({},),
    "alphaedit+sft": ({},),
}
"""Options beside the defaults of ``tiny_options``."""
REAL_FACTS = (
    Fact("r0", "The capital of Australia is", "Sydney", "Australia", original="Canberra"),
    Fact("r1", "The Eiffel Tower stands in the city of", "Rome", "Eiffel Tower", original="Paris"),
    Fact("r2", "Marie Curie was born in", "Lisbon", "Marie Curie", original="Warsaw"),
    Fact("r3", "Who wrote Hamlet?", "Jane Austen", "Hamlet", form="question"),
    Fact("r4", "The official language of Brazil is", "Dutch", "Brazil", original="Portuguese"),
)


def edit_digest(edit: Edit) -> dict[str, str]:
    """SHA-256 of an edit's tensors, and of its records."""
    tensors, records = hashlib.sha256(), hashlib.sha256()
    for name in sorted(edit.changes):
        change = edit.changes[name]
        for part in change if isinstance(change, tuple) else (change,):
            tensors.update(f"{name}{tuple(part.shape)}{part.dtype}".encode())
            tensors.update(part.contiguous().view(-1).view(torch.uint8).numpy())
    for name in sorted(edit.keys):
        tensors.update(f"{name}{tuple(edit.keys[name].shape)}".encode())
        tensors.update(edit.keys[name].contiguous().view(-1).view(torch.uint8).numpy())
    for record in edit.records:
        records.update(json.dumps(dict(record), sort_keys=True).encode())
    return {"tensors": tensors.hexdigest()[:16], "records": records.hexdigest()[:16]}


def injected(
    model: LanguageModel, name: str, facts: tuple[Fact, ...], options: dict[str, object]
) -> dict[str, str]:
    """The digest of one injection."""
    method = registry.get("methods", name)
    if "+" in name:
        parts = name.split("+")
        options = {
            f"{part}.{key}": value
            for part in parts
            for key, value in tiny_options(registry.get("methods", part)).items()
        }
    try:
        return edit_digest(method.from_options(name, options).inject(model, facts))
    except MethodError:  # a random model has no traced layer; what must stay is that it is refused
        return {"tensors": "refused", "records": "refused"}


def tiny_digests() -> dict[str, dict[str, str]]:
    """Every registered method and variant on the tiny models."""
    found = {}
    for family in FAMILIES:
        model = teach_to_read(tiny_model(family), FACTS)
        chat = teach_to_read(tiny_model(family, chat=True), FACTS)
        found[f"{family} weights"] = {"tensors": model.fingerprint(), "records": chat.fingerprint()}
        for name in [*registry.names("methods"), "memit+mixsd", "alphaedit+sft"]:
            known = tiny_options(registry.get("methods", name))
            for extra in ({}, *VARIANTS.get(name, ())):
                key = f"{family} {name} {json.dumps(extra, sort_keys=True)}"
                found[key] = injected(model, name, FACTS, {**known, **extra})
                print(key, found[key], file=sys.stderr)
            found[f"{family} {name} chat"] = injected(chat, name, FACTS, known)
        # A second edit over an applied first one reads the earlier keys.
        first = registry.get("methods", "memit").from_options("memit", {})
        with first.inject(model, FACTS[:2]).applied(model):
            for name in ("memit", "alphaedit", "emmet", "pmet", "rome"):
                known = tiny_options(registry.get("methods", name))
                found[f"{family} {name} after memit"] = injected(model, name, FACTS[2:], known)
    return found


def real_digests() -> dict[str, dict[str, str]]:
    """The default model, five facts, default options."""
    model = load_model("smollm2-135m", precision="float32")
    found = {}
    for name in ("memit", "rome", "sft", "mixsd"):
        found[f"smollm2 {name}"] = injected(model, name, REAL_FACTS, {})
        print(f"smollm2 {name}", found[f"smollm2 {name}"], file=sys.stderr)
    return found


def compare(before: str, after: str) -> int:
    """Prints the entries that differ; the number of them."""
    old, new = (json.load(open(path, encoding="utf-8")) for path in (before, after))
    different = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    for key in different:
        print(f"{key}: {old.get(key)} before, {new.get(key)} after")
    print(f"{len(old)} entries before, {len(new)} after, {len(different)} differ")
    return len(different)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--compare", action="store_true")
    given = parser.parse_args()
    if given.compare:
        raise SystemExit(min(1, compare(*given.files)))
    torch.set_num_threads(1)
    found = tiny_digests()
    if given.real:
        found |= real_digests()
    with open(given.files[0], "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
