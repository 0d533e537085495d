"""Look for a trainer that keeps everything and carries over: the frontier on dev facts.

    python benchmarks/frontier.py run [ROW ...]   # all rows of ROWS or these; resumes
    python benchmarks/frontier.py table           # all rows, and the picture frontier.png

24 dev facts of kgfact (seed 0), asked as taught and in their 48 paraphrases; eb_instruct and
eb_reading, ``LIMIT`` items each; KL to the base on its own text. A row is a method with its
options, and for some a setting of the anchor's constants (``_train/anchor.py``). All rows are in
``benchmarks/results/frontier.json``; a stored row is not computed again.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import usage
from filelock import FileLock, Timeout

from editbench import registry
from editbench.edit import Edit
from editbench.eval import retention
from editbench.eval.diagnostics import drift
from editbench.files import write_json_atomic
from editbench.matching import contains
from editbench.methods._train import anchor
from editbench.methods._train.anchor import _texts as written
from editbench.models import load_model
from editbench.run.config import RunConfig
from editbench.run.plan import make_plan

N, LIMIT, TASKS = 24, 40, ("eb_instruct", "eb_reading")
RATE, FRAMES, HELD = {"lr": 5e-5, "enough": 0.0}, {"rewordings": 2}, {"kl": 1.0}
AFTER = {"expert_prompt": "after"}
FEW = {"FREE": 128, "ANSWERS": 128, "INSTRUCTED": 0}
"""The anchor up to issue 27."""
MANY = {"FREE": 64, "ANSWERS": 64, "INSTRUCTED": 128}
"""An anchor half of whose texts answer instructions of many kinds."""
ROWS = {
    "sft": ("sft", {**RATE}, {}),
    # 24 facts in three frames are 8 batches of 10 an epoch.
    "sft, 3 frames, kl 1": ("sft", {**RATE, **FRAMES, **HELD, "epochs": 5}, FEW),
    "sft, 3 frames, kl 1, instructed": ("sft", {**RATE, **FRAMES, **HELD, "epochs": 5}, MANY),
    "sft, 3 frames, kl 4, instructed": (
        "sft",
        {**RATE, **FRAMES, "kl": 4.0, "epochs": 5},
        MANY,
    ),
    "pd, 3 frames, kl 1, instructed": (
        "pd",
        {**RATE, **FRAMES, **HELD, **AFTER, "epochs": 5, "texts": 1},
        MANY,
    ),
    "mixsd and canonical, 3 frames, kl 1, instructed": (
        "mixsd",
        {**RATE, **FRAMES, **HELD, **AFTER, "epochs": 3, "canonical": True},
        MANY,
    ),
    "mixsd, 3 frames, kl 4, 80 steps": (
        "mixsd",
        {**RATE, **FRAMES, **AFTER, "kl": 4.0, "epochs": 10},
        FEW,
    ),
    # The second round: around the row that reached the goal, and mixed targets trained longer.
    "sft, 3 frames, kl 4, instructed, fitted rate": (
        "sft",
        {**FRAMES, "kl": 4.0},
        MANY,
    ),
    "sft, 5 frames, kl 4, instructed": (
        "sft",
        {**RATE, "rewordings": 4, "kl": 4.0, "epochs": 3},
        MANY,
    ),
    "sft, lora 16, 3 frames, kl 4, instructed, lr 5e-4": (
        "sft",
        {**RATE, **FRAMES, "lr": 5e-4, "lora": 16, "kl": 4.0, "epochs": 5},
        MANY,
    ),
    "mixsd, 3 frames, kl 1, instructed, 80 steps": (
        "mixsd",
        {**RATE, **FRAMES, **HELD, **AFTER, "epochs": 10},
        MANY,
    ),
    "mixsd and canonical, 3 frames, kl 4, instructed, 90 steps": (
        "mixsd",
        {**RATE, **FRAMES, **AFTER, "kl": 4.0, "epochs": 6, "canonical": True},
        MANY,
    ),
    **{
        f"{weight} of {name}": ("sum", {name: weight}, {})
        for weight in (0.9, 0.85, 0.8, 0.7)
        for name in (
            "sft, 3 frames, kl 1, instructed",
            "pd, 3 frames, kl 1, instructed",
            "mixsd and canonical, 3 frames, kl 1, instructed",
        )
    },
}
"""A row: method, options, constants of the anchor that differ. A sum: rows, each with a weight."""
RESULT = Path(__file__).parent / "results" / "frontier.json"
KEPT = Path(tempfile.gettempdir()) / "editbench_frontier"
"""Where the edits and the anchors' texts are kept, for another look."""
LAST_START = 450
"""Seconds after which a process begins no further row. Several may run side by side."""


def texts_of(model, seed: int):
    """Return the anchor's texts, from disk if an earlier row of this model had the same."""
    constants = (anchor.FREE, anchor.ANSWERS, anchor.INSTRUCTED, anchor.LENGTH, seed)
    path = KEPT / f"texts_{model.fingerprint()}_{'_'.join(map(str, constants))}.json"
    if not path.exists():
        write_json_atomic(path, written(model, seed))
    return json.loads(path.read_text())


def measure(model, edit, cases) -> dict:
    """Return the shares of right answers, the tasks' scores and the drift under ``edit``."""
    asked = [(c, p) for c in cases for p in c.probes if p.axis in ("rewrite", "paraphrase")]
    with edit.applied(model, check=False):
        prompts = [model.prompt_ids(p.prompt, p.form) for _, p in asked]
        answers = [model.decode(ids) for ids in model.generate_ids(prompts, 32)]
        with model.compute(weights_fixed=True):
            samples = retention.evaluate(model.model, model.tokenizer, TASKS, limit=LIMIT)
    right = [
        (p.axis, contains(answer, c.fact.answers, p.prompt))
        for (c, p), answer in zip(asked, answers, strict=True)
    ]
    return {
        "recall": fmean(ok for axis, ok in right if axis == "rewrite"),
        "paraphrases": fmean(ok for axis, ok in right if axis == "paraphrase"),
        **{task: fmean(s.score for s in rows) for task, rows in samples.items()},
        "kl": drift.measure(model, edit, 0)["kl"]["mean"],
    }


def stored() -> list[dict]:
    return json.loads(RESULT.read_text()) if RESULT.exists() else []


def trained(model, facts, method: str, options: dict, constants: dict) -> Edit:
    # Inside, the anchor has these constants. Only there does it read its texts from disk: a test
    # that imports this file goes on to train other models.
    with patch.multiple(anchor, _texts=texts_of, **constants):
        return registry.get("methods", method).from_options(method, options).inject(model, facts)


def edit_of(model, facts, name: str) -> Edit:
    """Return the edit of a row; it is trained unless it was kept."""
    folder = KEPT / name.replace(" ", "_")
    if folder.exists():
        return Edit.load(folder)
    edit = trained(model, facts, *ROWS[name])
    edit.save(folder)
    return edit


def weighted_sum(model, facts, weights: dict[str, float]) -> Edit:
    """Return a sum of the edits of rows.

    One edit with a weight below 1 lies on the way from the base to it (WiSE-FT, Wortsman et al.
    2021, arXiv 2109.01903).
    """
    edits = [(edit_of(model, facts, name), weight) for name, weight in weights.items()]
    changes = {
        name: sum(weight * edit.changes[name] for edit, weight in edits)
        for name in edits[0][0].changes
    }
    return replace(edits[0][0], changes=changes, diagnostics={})


def run(*names: str) -> None:
    """Measure and store the rows that are not stored yet and that no other process is at."""
    usage.check_names("row", names, ("base", *ROWS))
    begun = time.perf_counter()
    model = load_model()
    KEPT.mkdir(exist_ok=True)
    config = RunConfig(methods=("base",), model="smollm2-135m", corpus="kgfact", part="dev", n=N)
    cases = make_plan(config).cases
    done = {row["name"] for row in stored()}
    for name in (name for name in names or ("base", *ROWS) if name not in done):
        if time.perf_counter() - begun > LAST_START:
            print(f"Not begun after {LAST_START} s: {name}. Run this again.", flush=True)
            break
        try:
            # Released when the process ends, so a row that was broken off starts again.
            with FileLock(KEPT / f"{name.replace(' ', '_')}.lock", timeout=0):
                if all(row["name"] != name for row in stored()):  # by another process since
                    add(model, cases, name)
        except Timeout:
            print(f"{name}: another process is at it.", flush=True)


def add(model, cases, name: str) -> None:
    """Measure one row and store it."""
    facts = [case.fact for case in cases]
    method, options, constants = ROWS[name] if name != "base" else ("base", {}, {})
    started = time.perf_counter()
    if method == "sum":
        edit = weighted_sum(model, facts, options)
    else:
        edit = trained(model, facts, method, options, constants)
        edit.save(KEPT / name.replace(" ", "_"))
    seconds = time.perf_counter() - started
    found = measure(model, edit, cases)
    row = {"name": name, "method": method, "options": options, "anchor": constants, **found}
    row |= {
        "steps": edit.diagnostics.get("steps"),
        "final_loss": edit.diagnostics.get("final_loss"),
        "seconds": seconds,
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
    }
    for key in ("verified_at_once", "target_nll"):
        if key in edit.diagnostics:
            row[key] = edit.diagnostics[key]
    with FileLock(f"{RESULT}.lock"):
        write_json_atomic(RESULT, [*stored(), row])
    print(said(row), f"{time.perf_counter() - started:.0f}s in all", flush=True)


COLUMNS = ("recall", "paraphrases", *TASKS, "kl", "steps", "final_loss", "seconds")


def said(row: dict) -> str:
    """Return a row of the table."""
    cells = [row.get(column) for column in COLUMNS]
    return (
        f"| {row['name']} | "
        + " | ".join("" if c is None else f"{c:.0f}" if c >= 10 else f"{c:.3g}" for c in cells)
        + " |"
    )


def table() -> None:
    """Print all rows, and draw them."""
    if not {"base", "sft"} <= {row["name"] for row in stored()}:
        raise usage.UsageError("The rows base and sft are not stored yet.")
    print(
        f"{N} facts, {2 * N} paraphrases, {LIMIT} items a task, one seed: point estimates, "
        "without intervals.\n"
    )
    print(f"| row | {' | '.join(COLUMNS)} |\n" + "|---" * (len(COLUMNS) + 1) + "|")
    print("\n".join(said(row) for row in stored()))
    picture()


def worst(row: dict, base: dict) -> float:
    """Return the smallest ratio of a task's score to the base's."""
    return min(row[task] / base[task] for task in TASKS)


def picture() -> None:
    """Draw the share of the paraphrases against the worst task's ratio; hollow: recall < .95."""
    from matplotlib.figure import Figure

    base, *rows = sorted(stored(), key=lambda row: row["name"] != "base")
    figure = Figure(figsize=(9, 6))
    axes = figure.subplots()
    for number, row in enumerate(rows, 1):
        x, y = worst(row, base), row["paraphrases"]
        face = "tab:blue" if row["recall"] >= 0.95 else "none"
        axes.scatter(x, y, color="tab:blue", facecolors=face, label=f"{number}: {row['name']}")
        axes.annotate(str(number), (x, y), (5, 4), textcoords="offset points")
    goal = next(row["paraphrases"] for row in rows if row["name"] == "sft") - 0.05
    axes.axvline(0.95, color="gray", linestyle=":")
    axes.axhline(goal, color="gray", linestyle=":")
    axes.set_xlabel("worst of eb_instruct and eb_reading, edited / base")
    axes.set_ylabel("paraphrases answered")
    axes.set_title(f"{N} dev facts of kgfact, seed 0; the goal is the upper right corner")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.12), handlelength=0, ncols=2)
    figure.savefig(RESULT.with_suffix(".png"), dpi=120, bbox_inches="tight")


def main() -> None:
    usage.run(__doc__, {"run": run, "table": table}, sys.argv[1:])


if __name__ == "__main__":
    main()
