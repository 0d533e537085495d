"""Try every method on tiny random models of many architectures, and make a table of it.

    python benchmarks/architectures.py [NAME ...] [--json OUT]
    python benchmarks/architectures.py --table OUT          # the stored result as markdown

Each model is taught to read a note, as in the tests. A cell is then one of

- ``works``: the target becomes more probable, the edited model and the same edit merged and loaded
  with plain transformers give the same logits, and reverting restores every weight bit for bit;
- ``refused``: the method says in one sentence why it cannot edit this model;
- ``fails``: anything else, with the error.

A cell says nothing about how good an edit is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import TypedDict

os.environ.setdefault("OMP_NUM_THREADS", "1")  # more threads only slow models of this size down

import torch
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from hostile import architectures as tiny  # noqa: E402  # the folder is on the path only now

from editbench import registry  # noqa: E402
from editbench.checkpoints import quiet_transformers  # noqa: E402
from editbench.edit import Edit  # noqa: E402
from editbench.errors import EditbenchError  # noqa: E402
from editbench.models import LanguageModel  # noqa: E402
from editbench.testing import FACTS, teach_to_read, tiny_options  # noqa: E402

CHOSEN = FACTS[:2]
"""The facts of each cell: a cloze with its subject at the end, and one with it at the start."""
_EXPERTS: dict[str, object] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_num_experts": 4,
    "moe_k": 2,
    "moe_topk": 2,
    "moe_intermediate_size": 24,
    "n_group": 1,
    "topk_group": 1,
}
DENSE = (
    "apertus arcee cwm diffllama doge ernie4_5 exaone4 glm glm4 gpt_neox_japanese helium "
    "hunyuan_v1_dense jais2 ministral ministral3 nanochat nemotron olmo olmo3 persimmon seed_oss "
    "smollm3 vaultgemma"
).split()
EXPERTS = (
    "afmoe ernie4_5_moe exaone_moe flex_olmo glm4_moe gpt_oss granitemoe granitemoeshared "
    "jetmoe llama4_text minimax minimax_m2 olmoe phimoe qwen3_moe solar_open"
).split()
ARCHITECTURES = {
    **tiny.ARCHITECTURES,
    **{name: (name, tiny._LLAMA) for name in DENSE},
    **{name: (name, {**tiny._LLAMA, **_EXPERTS}) for name in EXPERTS},
}
"""Those of the tests, and more that need no settings of their own."""


class Cell(TypedDict):
    """What one method does on one architecture."""

    outcome: str
    why: str
    """The sentence of a refusal, or the error; empty where it works."""


def build(name: str) -> LanguageModel:
    """Return a tiny model of the architecture ``name`` that has learned to read a note."""
    tiny.ARCHITECTURES[name] = ARCHITECTURES[name]
    # Some configurations want an integer for every special token.
    model = tiny.build(name, bos_token_id=1, pad_token_id=2)
    return teach_to_read(model, FACTS)


def probability(model: LanguageModel) -> float:
    """Return the mean log-probability of the targets' tokens, in nats."""
    pairs = [model.pair_ids(fact.prompt, fact.target, fact.form) for fact in CHOSEN]
    return torch.cat(model.target_logprobs(pairs)).mean().item()


def logits(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    """Return the logits (T, V) of one text, by the model's own forward pass."""
    with torch.no_grad():
        output: torch.Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return output.float()


def merged_differs(edit: Edit, model: LanguageModel, ids: list[int]) -> float:
    """Return how far the merged model, loaded by plain transformers, is from the applied edit."""
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        edit.merge(model, Path(folder) / "merged")
        plain = AutoModelForCausalLM.from_pretrained(Path(folder) / "merged").eval()
        with edit.applied(model):
            applied = logits(model.model, ids)
        return (logits(plain, ids) - applied).abs().max().item() / applied.std().item()


def outcome(method: str, model: LanguageModel) -> Cell:
    """Return what ``method`` does on ``model``."""
    cls = registry.get("methods", method)
    weights = model.fingerprint()
    try:
        before = probability(model)
        edit = cls.from_options(method, tiny_options(cls)).inject(model, list(CHOSEN))
        with edit.applied(model):
            after = probability(model)
        prompt, target = model.pair_ids(CHOSEN[0].prompt, CHOSEN[0].target, CHOSEN[0].form)
        far = merged_differs(edit, model, prompt + target) if edit.changes else 0.0
    except EditbenchError as error:
        return {"outcome": "refused", "why": str(error)}
    except Exception as error:  # a traceback is what this table is there to find
        return {"outcome": "fails", "why": f"{type(error).__name__}: {str(error)[:200]}"}
    if model.fingerprint() != weights:
        return {"outcome": "fails", "why": "reverting changed the weights"}
    if far > 1e-3:
        return {"outcome": "fails", "why": f"merged differs from applied by {far:.1e} of a spread"}
    if after <= before:
        why = f"the targets went from {before:.2f} to {after:.2f} nats a token"
        return {"outcome": "fails", "why": why}
    return {"outcome": "works", "why": ""}


def row(name: str, methods: list[str]) -> dict[str, Cell]:
    """Return the cells of one architecture."""
    try:
        model = build(name)
    except Exception as error:  # as above
        cell: Cell = {"outcome": "fails", "why": f"{type(error).__name__}: {str(error)[:200]}"}
        return dict.fromkeys(methods, cell)
    return {method: outcome(method, model) for method in methods}


def table(rows: dict[str, dict[str, Cell]]) -> str:
    """Return the result as markdown: a row for each architecture, a column for each method."""
    methods = list(next(iter(rows.values())))
    lines = ["| architecture | " + " | ".join(methods) + " |", "| --- |" + " --- |" * len(methods)]
    for name, cells in rows.items():
        lines.append(f"| {name} | " + " | ".join(cells[m]["outcome"] for m in methods) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Fill the table and print each row as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text(encoding="utf-8"))))
        return
    warnings.simplefilter("ignore")
    methods = [name for name in registry.names("methods") if name != "base"]
    rows = {}
    for name in arguments.names or ARCHITECTURES:
        rows[name] = row(name, methods)
        counts = Counter(cell["outcome"] for cell in rows[name].values())
        print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in counts.items()), flush=True)
        for method, cell in rows[name].items():
            if cell["outcome"] == "fails":
                print(f"  {method}: {cell['why']}", flush=True)
        if arguments.json:
            lines = [f"{json.dumps(one)}: {json.dumps(rows[one])}" for one in rows]
            text = "{\n" + ",\n".join(lines) + "\n}\n"  # a line for each architecture
            arguments.json.write_text(text, encoding="utf-8")
    every = sum(all(c["outcome"] == "works" for c in cells.values()) for cells in rows.values())
    print(f"{every} of {len(rows)} architectures work with every method")


if __name__ == "__main__":
    main()
