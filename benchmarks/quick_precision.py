"""Measure how far ``quick`` edits in bfloat16 are from those in float32.

    python benchmarks/quick_precision.py [--facts 10]     # about 8 minutes on one core

The CPU must multiply bfloat16 in hardware (``native_precision``). memit and rome write facts of the
demo corpus's dev slice into SmolLM2-135M with ``quick``, once in float32 and once in bfloat16: each
fact alone, and all of them in one edit. The difference of two edits is ||A - B|| / ||A|| over all
written weights, A in float32; the cosine is that between A and B. Every edit is scored in float32:
the share of the facts whose target is the most probable text, token by token (``efficacy``), and
the target's mean nll in nats per token.

By default the model writes the text of its covariance itself, and so another one in each precision.
``together, one text`` uses one file of text in both. ``together, float32 twice`` compares float32
with itself, once without the fast paths: another order of the same sums. Stored in
``benchmarks/results/quick_precision.json``.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from editbench import registry
from editbench.changes import dense
from editbench.edit import Edit
from editbench.files import write_json_atomic
from editbench.methods._edit.fast import SWITCH
from editbench.methods.memit import Memit
from editbench.methods.rome import Rome
from editbench.models import LanguageModel, load_model, native_precision
from editbench.own_text import own_texts
from editbench.plugin import Method
from editbench.slices import slice_cases
from editbench.types import Fact

PRECISIONS = ("float32", "bfloat16")


def flat(edit: Edit) -> torch.Tensor:
    """Return all changes of an edit as one vector."""
    return torch.cat(
        [dense(change).double().flatten() for _, change in sorted(edit.changes.items())]
    )


def scores(model: LanguageModel, edit: Edit, facts: list[Fact]) -> list[tuple[bool, float]]:
    """Return for each fact whether its target is the most probable text, and its nll."""
    pairs = [model.pair_ids(fact.prompt, fact.target, fact.form) for fact in facts]
    with edit.applied(model):
        found = model.target_scores(pairs)
    return [
        (best == target, -logp.mean().item())
        for (logp, best), (_, target) in zip(found, pairs, strict=True)
    ]


def compared(
    models: dict[str, LanguageModel], method: Method, groups: list[list[Fact]]
) -> dict[str, Any]:
    """Return the differences of the edits of ``groups`` and their scores."""
    edits: dict[str, list[Edit]] = {}
    row: dict[str, Any] = {}
    for precision, model in models.items():
        os.environ[SWITCH] = "0" if "plain" in precision else "1"
        method.inject(model, groups[0][:1])  # measures the covariance, which is then cached
        started = time.perf_counter()
        edits[precision] = [method.inject(model, facts) for facts in groups]
        seconds = time.perf_counter() - started
        found = [
            one
            for edit, facts in zip(edits[precision], groups, strict=True)
            for one in scores(models["float32"], edit, facts)
        ]
        row[precision] = {
            "efficacy": sum(right for right, _ in found) / len(found),
            "nll": sum(nll for _, nll in found) / len(found),
            "seconds": round(seconds, 1),
        }
    vectors = [(flat(a), flat(b)) for a, b in zip(*edits.values(), strict=True)]
    differences = [((a - b).norm() / a.norm()).item() for a, b in vectors]
    row["relative_difference"] = {
        "mean": sum(differences) / len(differences),
        "largest": max(differences),
    }
    row["least_cosine"] = min((a @ b / a.norm() / b.norm()).item() for a, b in vectors)
    return row


def write_text(model: LanguageModel, path: Path) -> Path:
    """Write 20,000 tokens of the model's own text to ``path``, one text a line."""
    texts = [text for block in own_texts(model, 20_000, 0, 128) for text in block]
    lines = [" ".join(model.decode(opening + written).split()) for opening, written in texts]
    path.write_text("\n".join(lines))
    return path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--facts", type=int, default=10)
    count = parser.parse_args().facts
    if native_precision(torch.device("cpu")) != "bfloat16":
        raise SystemExit("This CPU has no bfloat16 units, so there is nothing to measure.")
    cases = slice_cases(registry.get("corpora", "demo-counterfact")().load(), "dev", count, 0)
    facts = [case.fact for case in cases]
    models = {precision: load_model(precision=precision) for precision in PRECISIONS}
    rows = {}
    for method in (Memit(quick=True), Rome(quick=True)):
        exact = {"float32": models["float32"], "float32, plain": models["float32"]}
        with tempfile.TemporaryDirectory() as folder:
            path = write_text(models["float32"], Path(folder) / "text.txt")
            rows[method.name] = {
                "single": compared(models, method, [[fact] for fact in facts]),
                "together": compared(models, method, [facts]),
                "together, one text": compared(
                    models, replace(method, covariance=str(path)), [facts]
                ),
                "together, float32 twice": compared(exact, method, [facts]),
            }
        print(method.name, rows[method.name], flush=True)
    path = Path(__file__).parent / "results" / "quick_precision.json"
    write_json_atomic(path, {"model": models["float32"].name, "facts": count, "methods": rows})


if __name__ == "__main__":
    main()
