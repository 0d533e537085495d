"""Compare our editors with EasyEdit's at equal settings, and name what goes into one table.

    python benchmarks/easyedit.py equal tiny                    # four-layer Llama and GPT-2
    python benchmarks/easyedit.py equal MODEL N [PAIR ...]      # N facts of the demo corpus
    python benchmarks/easyedit.py show                          # the stored comparison as a table
    python benchmarks/easyedit.py methods                       # what can run here, ours and theirs
    python benchmarks/easyedit.py table RUN                     # the rows of that table, stored

EasyEdit is a checkout named by ``EDITBENCH_EASYEDIT`` (here zjunlp/EasyEdit at 14cea82), or the
installed package. ``equal`` gives both sides the same covariance, prefixes, layers and
hyper-parameters, and compares the changes of the weights: the norm of the difference as a share of
the norm of theirs, the largest over the weights. Seconds are those of the injection; theirs are
those in their code, without the start of the process and loading. A pair takes minutes on
SmolLM2-135M. Results are stored in ``benchmarks/results/easyedit.json``.

The table of all algorithms is a run like any other, which a second call resumes:

    editbench compare --methods "$(python benchmarks/easyedit.py methods)" \\
        --corpus counterfact --data FILE -n 20 --output runs/easyedit
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import usage

from editbench import registry
from editbench.changes import dense
from editbench.edit import Edit
from editbench.files import write_json_atomic
from editbench.models import LanguageModel, load_model
from editbench.slices import slice_cases
from editbench.testing import FACTS, teach_to_read, tiny_model
from editbench.types import Fact

RESULT = Path(__file__).parent / "results" / "easyedit.json"
TABLE = Path(__file__).parent / "results" / "easyedit_table.json"
GOAL = 1e-3
"""A larger difference needs a cause."""
SAME = {
    "steps": "v_num_grad_steps",
    "v_lr": "v_lr",
    "v_weight_decay": "v_weight_decay",
    "kl_factor": "kl_factor",
    "clamp": "clamp_norm_factor",
    "lam": "mom2_update_weight",
    "threshold": "nullspace_threshold",
    "ridge": "L2",
    "slack": "emmet_lambda",
}
"""Our option -> EasyEdit's field of the same meaning."""


@dataclass(frozen=True)
class Pair:
    """One of our methods beside EasyEdit's."""

    ours: str
    options: Mapping[str, object]
    """Besides ``recipe=paper``."""
    fields: tuple[str, ...] = ()
    """EasyEdit's fields that have no option here."""
    cause: str = ""
    """Why a difference may be larger than rounding."""


PAIRS = {
    "rome": Pair("rome", {}, ("mom2_adjustment=true",)),
    "memit": Pair("memit", {}),
    "memit, lambda 500": Pair("memit", {"lam": 500.0}),
    "alphaedit": Pair("alphaedit", {}),
    "emmet": Pair("emmet", {}, ("mom2_update_weight=1", "update_norm_lambda=0")),
    "pmet": Pair(
        "pmet",
        {},
        cause="In EasyEdit, as in PMET's own code, a fact's nll counts a tenth while all tokens of "
        "its target are the most probable ones, and its optimisation may end then "
        "(easyeditor/models/pmet/compute_zs.py, lines 204-209). Ours has no such rule. With these "
        "lines taken out of EasyEdit, two facts on SmolLM2-135M differ by 2.2e-05.",
    ),
    "pmet, 5 steps": Pair("pmet", {"steps": 5}),
}


def equal(which: str, n: str = "3", *labels: str) -> None:
    """Compare pairs, by default all, on the tiny models or on a model and ``n`` facts."""
    usage.check_names("pair", labels, PAIRS)
    for name, model, facts in _models(which, int(n)):
        for label in labels or PAIRS:
            pair = PAIRS[label]
            options = tiny_options(pair) if which == "tiny" else paper_options(pair)
            row = compare(model, facts, pair, options)
            print(name, label, row, flush=True)
            rows = stored()
            rows.setdefault("equal", {}).setdefault(name, {})[label] = row
            write_json_atomic(RESULT, rows)


def paper_options(pair: Pair) -> dict[str, object]:
    """Return the options of our method."""
    return {"recipe": "paper", **pair.options}


def tiny_options(pair: Pair) -> dict[str, object]:
    """Return the options of our method on a tiny model."""
    options = {**paper_options(pair), "covariance_tokens": 800}
    if pair.ours == "rome":
        return {**options, "layer": 1}
    if pair.ours == "alphaedit":  # 0.02 is below all second moments of a tiny model
        options["threshold"] = 1.0
    return {**options, "layers": (1,) if pair.ours == "emmet" else (1, 2)}


def stored() -> dict[str, Any]:
    """Return what is stored so far."""
    return dict(json.loads(RESULT.read_text(encoding="utf-8"))) if RESULT.is_file() else {}


def _models(which: str, n: int) -> list[tuple[str, LanguageModel, Sequence[Fact]]]:
    if which == "tiny":
        cloze = [fact for fact in FACTS if fact.form == "cloze"]
        families = ("llama", "gpt2")
        return [(f"tiny {f}", teach_to_read(tiny_model(f), FACTS), cloze) for f in families]
    cases = slice_cases(registry.get("corpora", "demo-counterfact")().load(), "test", n, 0)
    model = load_model(which, precision="float32")
    return [(which, model, [case.fact for case in cases])]


def compare(
    model: LanguageModel, facts: Sequence[Fact], pair: Pair, options: Mapping[str, object]
) -> dict[str, Any]:
    """Return the difference of the changes, seconds of both, and their ratio."""
    method = registry.get("methods", pair.ours).from_options(pair.ours, options)
    method.prepare(model)
    start = time.perf_counter()
    ours = method.inject(model, facts)
    seconds = time.perf_counter() - start
    theirs = run_theirs(model, facts, pair, method, ours)
    apart = difference(ours, theirs)
    their_seconds = theirs.diagnostics["easyedit_seconds"]
    return {
        "facts": len(facts),
        "difference": float(f"{max(apart.values()):.2e}"),
        **({"cause": pair.cause} if max(apart.values()) >= GOAL else {}),
        "by_weight": {name: float(f"{value:.2e}") for name, value in apart.items()},
        "seconds": round(seconds, 2),
        "easyedit_seconds": round(their_seconds, 2),
        "ratio": round(their_seconds / seconds, 2),
    }


def run_theirs(
    model: LanguageModel, facts: Sequence[Fact], pair: Pair, method: Any, ours: Edit
) -> Edit:
    """Return EasyEdit's edit with the settings, layers, prefixes and covariance of ``ours``."""
    name = f"easyedit-{pair.ours}"
    given = {option: getattr(method, option, None) for option in SAME}
    override = [f"{SAME[option]}={value}" for option, value in given.items() if value is not None]
    layers = [i for i in model.layout.writable if model.layout.weight_name(i) in ours.changes]
    theirs = registry.get("methods", name).from_options(
        name,
        {
            "layers": tuple(layers),
            "override": (*override, *pair.fields),
            "covariance_tokens": method.covariance_tokens,
            "seed": method.seed,
        },
    )
    prefixes = ours.diagnostics.get("prefixes", [])
    edit: Edit = theirs.run(model, facts, prefixes)  # type: ignore[attr-defined]
    return edit


def difference(ours: Edit, theirs: Edit) -> dict[str, float]:
    """Return ||ours - theirs|| / ||theirs|| of each changed weight."""
    shares = {}
    for name in sorted({*ours.changes, *theirs.changes}):
        both = [dense(edit.changes[name]).double() for edit in (ours, theirs)]
        shares[name] = float((both[0] - both[1]).norm() / both[1].norm())
    return shares


def methods() -> None:
    """Print each algorithm that can run here, ours before theirs, as ``--methods`` takes them."""
    names: list[str] = []
    for name in registry.easyedit():
        method: Any = registry.get("methods", name)
        if method.lacks() is None:
            ours = name.removeprefix("easyedit-")
            names += [ours, name] if ours in registry.names("methods") else [name]
    print(",".join([*names, "sft"]))


def show() -> None:
    """Print the stored comparison as a table."""
    heads = ("model", "method", "facts", "difference", "ours, s", "EasyEdit, s", "ratio")
    print(f"| {' | '.join(heads)} |\n" + "|---" * len(heads) + "|")
    for model, rows in stored()["equal"].items():
        for label, row in rows.items():
            print(
                f"| {model} | {label} | {row['facts']} | {row['difference']:.1e} | "
                f"{row['seconds']} | {row['easyedit_seconds']} | {row['ratio']} |"
            )
    causes = {
        row["cause"]
        for rows in stored()["equal"].values()
        for row in rows.values()
        if "cause" in row
    }
    print("\n" + "\n".join(sorted(causes)))


def table(run: str) -> None:
    """Store the scores of the finished cells of ``run`` without any text, and print them."""
    cells = [json.loads(path.read_text()) for path in Path(run).glob("cells/*/summary.json")]
    names = methods_in_order()
    rows = {
        cell["method"]: {key: cell[key] for key in ("status", "note", "metrics", "retention")}
        | {"seconds": cell["seconds"].get("inject")}
        for cell in sorted(cells, key=lambda cell: names.index(cell["method"]))
    }
    write_json_atomic(TABLE, rows)
    tasks = list(rows["base"]["retention"])
    heads = ("method", "efficacy", "generalization", "specificity", *tasks, "inject, s")
    print(f"| {' | '.join(heads)} |\n" + "|---" * len(heads) + "|")
    for name, row in rows.items():
        scores = [_cell(row["metrics"].get(axis, {}).get("generation")) for axis in heads[1:4]]
        kept = [_kept(row["retention"].get(task), name) for task in tasks]
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        print(f"| {' | '.join([name, *scores, *kept, seconds])} |")


def methods_in_order() -> list[str]:
    """Return all rows that the table may have, in its order."""
    ours = ["base", "ice", "sft", *registry.names("methods")]
    return list(dict.fromkeys([*ours, *registry.easyedit()]))


def _cell(score: dict[str, float] | None) -> str:
    if score is None:
        return "–"
    return f"{score['mean']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"


def _kept(task: dict[str, float] | None, name: str) -> str:
    if task is None:
        return "–"
    if name == "base":
        return f"scores {task['mean']:.2f}"
    return f"{task['delta']:+.2f} [{task['delta_low']:+.2f}, {task['delta_high']:+.2f}]"


def main() -> None:
    torch.set_num_threads(1)
    commands = {"equal": equal, "show": show, "methods": methods, "table": table}
    usage.run(__doc__, commands, sys.argv[1:])


if __name__ == "__main__":
    main()
