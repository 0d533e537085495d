"""MixSD's claims on an invented world: 100 kgfact facts, every trainer tuned by the same trials, then tested once.

    python benchmarks/kgfact_study.py tune           # dev world; resumes
    python benchmarks/kgfact_study.py test SHARED    # test world, the chosen settings; real tasks from SHARED
    python benchmarks/kgfact_study.py table

Tuning: the learning rates of ``RATES`` for each row of ``ROWS``, 60 dev facts, retention on eb_instruct, eb_reading and
eb_knowledge, 40 items each. Tested with one rate for all, ``RATE``, at which every row learned all dev facts; weight editors
and ice with their defaults. All trials and tests are in ``benchmarks/results/kgfact_{tune,test}.json``.
"""

import json
import sys
import tempfile
from pathlib import Path

from editbench import console, progress, registry, runner
from editbench.models import load_model
from editbench.records import RunStore, write_json_atomic

RATES = (2e-5, 5e-5)
RATE = 5e-5
LONG = {"epochs": 14}
ROWS = {
    "sft": ("sft", LONG),
    "mixsd 0.3": ("mixsd", {**LONG, "lam": 0.3}),
    "mixsd adaptive": ("mixsd", {**LONG, "mode": "adaptive"}),
    "sft, kl 1": ("sft", {**LONG, "kl": 1.0}),
    "mixsd 0.3, kl 1": ("mixsd", {**LONG, "lam": 0.3, "kl": 1.0}),
}
UNTUNED = {"base": ("base", {}), "memit": ("memit", {}), "ice": ("ice", {})}
DEV_TASKS, REAL = ("eb_instruct", "eb_reading", "eb_knowledge"), ("hellaswag", "lambada_openai", "arc_easy")
RESULTS = Path(__file__).parent / "results"
KEYS = ("status", "note", "metrics", "retention", "seconds", "peak_memory_bytes", "edit")


def cell(model, method: str, options: dict, **config) -> dict:
    """One cell of a run that is not kept."""
    made = runner.RunConfig(methods=(method,), model="smollm2-135m", corpus="kgfact", options={method: options}, **config)
    plan = runner.plan(made)
    with tempfile.TemporaryDirectory() as folder, progress.reporting(console.Lines(60)):
        with RunStore(folder).open(runner.identity(plan.config)) as store:
            (summary,) = runner.run(plan, model, store, lambda *_: None)
    return {key: summary[key] for key in KEYS if key in summary}


def mean(found: dict, axis: str) -> float:
    return found["metrics"][axis]["generation"]["mean"]


def kept(found: dict) -> float:
    ratios = [task["ratio"] for task in found["retention"].values()]
    return sum(ratios) / len(ratios)


def say(name: str, options: dict, found: dict) -> None:
    axes = " ".join(f"{axis} {mean(found, axis):.2f}" for axis in found["metrics"] if "generation" in found["metrics"][axis])
    print(f"{name} {options}: {axes} kept {kept(found):.2f} {found['seconds']['inject']:.0f}s", flush=True)


def tune() -> None:
    path = RESULTS / "kgfact_tune.json"
    done, model = json.loads(path.read_text()) if path.exists() else [], load_model()
    for rate in RATES:
        for name, (method, options) in ROWS.items():
            if any((row["name"], row["lr"]) == (name, rate) for row in done):
                continue
            found = cell(model, method, {**options, "lr": rate}, part="dev", n=60, tasks=DEV_TASKS, limit=40)
            done.append({"name": name, "lr": rate, **found})
            write_json_atomic(path, done)
            say(name, {"lr": rate}, found)


def test(shared: Path) -> None:
    path = RESULTS / "kgfact_test.json"
    done, model = json.loads(path.read_text()) if path.exists() else [], load_model()
    data = {
        "hellaswag": shared / "hellaswag" / "hellaswag_val_10042.jsonl",
        "lambada_openai": shared / "lambada" / "lambada_test.jsonl",
        "arc_easy": shared / "arc_easy_mc" / "arc_easy.jsonl",
    }
    tasks = (*registry.get("eval", "resolve-tasks")("default", {}), *REAL)
    tuned = {name: (method, {**options, "lr": RATE}) for name, (method, options) in ROWS.items()}
    rows = {"base": UNTUNED["base"], **tuned, **UNTUNED}
    for name, (method, options) in rows.items():
        if any(row["name"] == name for row in done):
            continue
        local = {task: str(file) for task, file in data.items()}
        found = cell(model, method, options, part="test", n=100, tasks=tasks, limit=100, task_data=local)
        done.append({"name": name, "options": options, "tuned": name in ROWS, **found})
        write_json_atomic(path, done)
        say(name, options, found)


def table() -> None:
    def shown(found: dict | None) -> str:
        if not found or found.get("mean") is None:
            return "-"
        return f"{found['mean']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"

    rows = json.loads((RESULTS / "kgfact_test.json").read_text())
    axes = ("efficacy", "generalization", "portability", "specificity", "in_context")
    lines = [f"| row | lr | {' | '.join(axes)} | target NLL | seconds |", "|---" * 9 + "|"]
    for row in rows:
        cells = [shown(row["metrics"].get(axis, {}).get("generation")) for axis in axes]
        nll = row["edit"].get("target_nll")
        last = ["-" if nll is None else f"{nll:.2f}", f"{row['seconds']['inject']:.0f}"]
        lines.append(f"| {' | '.join([row['name'], str(row['options'].get('lr', 'defaults')), *cells, *last])} |")
    tasks = list(rows[0]["retention"])
    lines += ["", f"| row | {' | '.join(tasks)} |", "|---" * (1 + len(tasks)) + "|"]
    for row in rows:
        cells = [f"{r['ratio']:.2f} [{r['ratio_low']:.2f}, {r['ratio_high']:.2f}]" for r in row["retention"].values()]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    print("\n".join(lines))


if __name__ == "__main__":
    {"tune": tune, "test": lambda: test(Path(sys.argv[2])), "table": table}[sys.argv[1]]()
