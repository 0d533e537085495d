"""Measure the rows behind the claims about MixSD: three seeds, all offline tasks, test facts.

    python benchmarks/published.py kgfact [ROW ...]          # 100 facts of the invented world
    python benchmarks/published.py demo [ROW ...]            # 50 facts of demo-counterfact
    python benchmarks/published.py gemma CHECKPOINT [ROW ..] # 50 of demo-counterfact, Gemma-3-270m
    python benchmarks/published.py table kgfact|demo|gemma

A seed is the method's own: it changes the order of the batches, the coins and the prefixes, and
neither the facts nor the items of the tasks, so all rows of a set are paired. Rows are stored in
``benchmarks/results/published_SET.json``; a stored row is not computed again. Several processes may
work on one set, each on rows of its own.
"""

import sys
from functools import partial
from pathlib import Path

import usage
from filelock import FileLock
from harness import changes
from kgfact_study import RESULTS, cell, stored

from editbench.eval import retention
from editbench.files import write_json_atomic
from editbench.models import load_model
from editbench.stats import cells_text, mean_ratio

SEEDS = (0, 1, 2)
PAPER = {"recipe": "paper"}
COMMON = {
    "base": ("base", {}),
    "sft": ("sft", {}),
    "mixsd": ("mixsd", {}),
    "opsd": ("opsd", {}),
}
ROWS = {
    "kgfact": {
        **COMMON,
        "memit": ("memit", {}),
        "sft, paper": ("sft", PAPER),
        "mixsd, paper": ("mixsd", PAPER),
        "sft, keep": ("sft", {"recipe": "keep"}),
    },
    "demo": {**COMMON, "memit": ("memit", {})},
    "gemma": {**COMMON, "rome": ("rome", {})},
}
CORPUS = {
    "kgfact": ("kgfact", 100),
    "demo": ("demo-counterfact", 50),
    "gemma": ("demo-counterfact", 50),
}
DIAGNOSTICS = ("supervision", "mixing", "fisher", "drift", "errors")
AXES = ("efficacy", "generalization", "portability", "specificity")


def measure(of: str, model_name: str, *names: str) -> None:
    """Measure and store the rows of a set that are not stored yet, seed after seed."""
    usage.check_names("row", names, ROWS[of])
    model, tasks = load_model(model_name), retention.resolve_tasks("default", {})
    corpus, n = CORPUS[of]
    path = RESULTS / f"published_{of}.json"
    for seed in SEEDS:
        for name in names or ROWS[of]:
            method, options = ROWS[of][name]
            row = {"name": name, "seed": seed, "method": method, "options": options}
            done = {(one["name"], one["seed"]) for one in stored(of, "published")}
            if (name, seed) in done or (method == "base" and seed):
                continue
            found = cell(
                model,
                method,
                options if method == "base" else {**options, "seed": seed},
                model=model_name,
                corpus=corpus,
                part="test",
                n=n,
                tasks=tasks,
                limit=100,
                diagnostics=DIAGNOSTICS,
            )
            with FileLock(f"{path}.lock"):
                write_json_atomic(path, [*stored(of, "published"), {**row, **found}])
            print(f"{name} seed {seed}: {said(found)}", flush=True)


def said(row: dict) -> str:
    """Return the scores of a row in one line."""
    axes = [
        f"{axis} {cells_text(row['metrics'][axis]['generation'])}"
        for axis in AXES
        if axis in row["metrics"]
    ]
    kept = cells_text(mean_ratio(row["retention"]).to_dict())
    return " ".join([*axes, f"kept {kept} {row['seconds']['inject']:.0f} s"])


def table(of: str) -> None:
    """Print each row, seed by seed, and the change of each task."""
    usage.check_names("set", [of], ROWS)
    if not stored(of, "published"):
        raise usage.UsageError(f"No row of {of} is stored yet.")
    rows = sorted(
        stored(of, "published"), key=lambda row: (row["name"] != "base", row["name"], row["seed"])
    )
    for row in rows:
        print(f"{row['name']} seed {row['seed']}: {said(row)}")
    print(
        "\n"
        + changes({f"{r['name']} {r['seed']}".removesuffix(" 0"): r["retention"] for r in rows})
    )


def gemma(checkpoint: str, *names: str) -> None:
    """Measure the rows of the second model, which lies in the folder ``checkpoint``."""
    measure("gemma", str(Path(checkpoint).resolve()), *names)


def main() -> None:
    sets = {of: partial(measure, of, "smollm2-135m") for of in ("kgfact", "demo")}
    usage.run(__doc__, {**sets, "gemma": gemma, "table": table}, sys.argv[1:])


if __name__ == "__main__":
    main()
