"""Compare MixSD, its rivals and the weight editors after one budget of tuning for each.

    python benchmarks/rivals.py tune COUNTERFACT_JSON [CORPUS ...] [ROW ...]
    python benchmarks/rivals.py compare COUNTERFACT_JSON [CORPUS ...] [ROW ...]
    python benchmarks/rivals.py steps [ROW ...]
    python benchmarks/rivals.py table tune|compare|steps

The model is SmolLM2-135M-Instruct. CORPUS is ``kgfact`` or ``counterfact`` (default: both), ROW a
name of ``TRIALS`` or ``UNTUNED`` (of ``STEPS``; default: all), so the work can be split as one
likes. ``tune`` measures the three settings of each row on 20 dev facts, with two retention tasks of
40 items. The setting with the best score (the leaderboard's) is chosen, among equals the first one;
a row's first setting is its defaults. ``compare`` measures each row at the chosen setting on 50
test facts, with the eight offline tasks of 40 items; the rows in ``UNTUNED`` need no trials and are
marked. ``steps`` trains disc, sdft and mixsd, which shows the fact in its paper's words, for as
many steps at one rate, on the 50 test facts of kgfact.

Each cell is a file of its own in ``benchmarks/results/rivals/``, without any text. It is written as
soon as it is computed, and a stored one is not computed again. Several processes may be started
with the same command: each takes the cells that no other one is at. A method that fails leaves a
cell that says why.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import usage
from filelock import FileLock, Timeout
from kgfact_study import RESULTS, cell
from rivals_table import print_table

from editbench import registry
from editbench.eval import retention
from editbench.files import write_json_atomic
from editbench.leaderboard.comparisons import PROTOCOLS, RETENTION, items
from editbench.leaderboard.rows import row
from editbench.models import load_model
from editbench.types import METRICS, digest

FOLDER = RESULTS / "rivals"
CORPORA = ("kgfact", "counterfact")
RATES = ({}, {"lr": 2e-5}, {"lr": 5e-5})
HIGHER = ({}, {"lr": 5e-5}, {"lr": 1e-4})
"""Of a loss that is a divergence, whose gradient is smaller."""
CLAMPS = ({}, {"clamp": 0.4}, {"clamp": 1.5})
ANCHORED = tuple({"norm_anchor": True, **one} for one in CLAMPS)
TRIALS: Mapping[str, tuple[Mapping[str, object], ...]] = {
    "sft": RATES,
    "mixsd": RATES,
    "opsd": HIGHER,
    "pd": HIGHER,
    # Its fitted rate taught nothing on kgfact; 2 is the paper's (rivals.md).
    "disc": ({}, {"lr": 1e-4}, {"lr": 1e-4, "temperature": 2.0}),
    "sdft": HIGHER,
    "locft": ({}, {"lr": 5e-4}, {"lr": 2e-3}),
    "rome": ({}, {"clamp": 2.0}, {"clamp": 8.0}),
    "memit": CLAMPS,
    "alphaedit": CLAMPS,
    "emmet": CLAMPS,
    "pmet": ({}, {"clamp": 0.75}, {"clamp": 4.0}),
    "ultraedit": ({}, {"lr": 1e-4}, {"lr": 4e-4}),
    "crispedit": ({}, {"energy": 0.95}, {"energy": 0.5}),
    "memit@norm_anchor": ANCHORED,
    "alphaedit@norm_anchor": ANCHORED,
}
"""Row -> its settings. A row is a method, or a variant of one (NAME@LABEL)."""
UNTUNED = ("base", "ice", "easyedit-rome", "easyedit-memit", "easyedit-ft", "easyedit-lora")
"""EasyEdit's rows have the values that it ships for its models."""
EQUAL = {
    # 24 passes over 50 facts in batches of 10: 120 steps, none of which is left out
    "epochs": 24,
    "batch_size": 10,
    "min_steps": 1,
    "enough": 0.0,
    "lr": 5e-5,
}
STEPS = {
    "disc": EQUAL,
    "mixsd@published": {**EQUAL, "expert_prompt": "paper"},
    "sdft": EQUAL,
}
KEPT = ("key", "method", "options", "corpus", "versions", "seed", "work", "peak_process_bytes")


def tune(data: str, *names: str) -> None:
    """Measure and store the trials that are not stored yet."""
    model = None
    for corpus, name in _chosen(names, TRIALS):
        for options in TRIALS[name]:
            path = _file("tune", corpus, name, options)
            model = model or load_model()
            how = {"part": "dev", "n": 20, "tasks": ("eb_instruct", "eb_reading"), "limit": 40}
            _measure(path, model, name, options, _scores, **_corpus(corpus, data), **how)


def compare(data: str, *names: str) -> None:
    """Measure and store the rows that are not stored yet, each at its best trial."""
    model, tasks = None, retention.resolve_tasks("default", {})
    for corpus, name in _chosen(names, [*TRIALS, *UNTUNED]):
        options = {} if name in UNTUNED else best(corpus, name)
        if options is None:
            print(f"{corpus} {name}: not all of its trials are stored; run tune first.")
            continue
        if (lacks := _lacks(name)) is not None:
            print(f"{corpus} {name}: {lacks}")
            continue
        model = model or load_model()
        how = {"part": "test", "n": 50, "tasks": tasks, "limit": 40}
        path = _file("compare", corpus, name)
        _measure(path, model, name, options, _items, **_corpus(corpus, data), **how)


def steps(*names: str) -> None:
    """Measure and store the rows of equal steps that are not stored yet."""
    usage.check_names("row", names, STEPS)
    model, tasks = load_model(), retention.resolve_tasks("default", {})
    for name in names or STEPS:
        how = {"corpus": "kgfact", "part": "test", "n": 50, "tasks": tasks, "limit": 40}
        path = _file("steps", "kgfact", name)
        _measure(path, model, name, STEPS[name], _items, **how)


def best(corpus: str, name: str) -> Mapping[str, object] | None:
    """Return the best setting of a row; ``None`` if not all of its trials are stored.

    Among equal scores, such as 0 where no paraphrase is answered, the mean of the parts decides.
    """
    files = [_file("tune", corpus, name, options) for options in TRIALS[name]]
    if not all(file.exists() for file in files):
        return None
    scores = [json.loads(file.read_text())["score"] for file in files]
    return TRIALS[name][scores.index(max(scores))]


def table(which: str) -> None:
    """Print the stored cells of a command."""
    usage.check_names("table", [which], ("tune", "compare", "steps"))
    if not any((FOLDER / which).glob("*/*.json")):
        raise usage.UsageError(f"No cell of {which} is stored yet.")
    for corpus in CORPORA:
        files = sorted((FOLDER / which / corpus).glob("*.json"))
        cells = [json.loads(file.read_text()) for file in files]
        order = ["base", *TRIALS, *STEPS, *UNTUNED]
        cells.sort(key=lambda one: order.index(one["name"]))
        if cells:
            print(f"## {which}, {corpus}\n")
            print_table(which, corpus, cells)


def _chosen(names: tuple[str, ...], known) -> list[tuple[str, str]]:
    """Return the corpora and rows that ``names`` select; of either all, if they name none."""
    usage.check_names("corpus or row", names, [*CORPORA, *known])
    corpora = [name for name in names if name in CORPORA] or CORPORA
    rows = [name for name in names if name not in CORPORA] or known
    return [(corpus, name) for corpus in corpora for name in rows]


def _corpus(name: str, data: str) -> dict[str, str | None]:
    return {"corpus": name, "data": data if name == "counterfact" else None}


def _lacks(name: str) -> str | None:
    """Return why an algorithm of EasyEdit cannot run here, if it cannot."""
    return registry.get("methods", name).lacks() if name in registry.easyedit() else None


def _file(which: str, corpus: str, name: str, options: Mapping[str, object] | None = None) -> Path:
    """Return the file of a cell; that of a trial is named by its options as well."""
    said = "".join(f" {key}={value}" for key, value in (options or {}).items())
    return FOLDER / which / corpus / f"{name}{said}.json"


def _measure(
    path: Path,
    model,
    name: str,
    options: Mapping[str, object],
    more: Callable[[Path, dict], dict],
    **config,
) -> None:
    """Compute a cell and write it to ``path``, unless it is there or another process is at it."""
    lock = Path(tempfile.gettempdir()) / f"editbench-rivals-{digest(str(path))[:16]}.lock"
    try:
        with FileLock(lock, timeout=0):
            if path.exists():
                return
            found = cell(model, name, dict(options), more, **config)
            # Of some thirty metrics, those that are shown.
            found["metrics"] = {
                metric: scores for metric, scores in found["metrics"].items() if metric in METRICS
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomic(path, {"name": name, "set": dict(options), **found})
            seconds = found["seconds"].get("total") or 0
            print(f"{path.relative_to(FOLDER)}: {found['status']} {seconds:.0f} s", flush=True)
    except Timeout:
        print(f"{path.relative_to(FOLDER)}: another process is at it", flush=True)


def _scores(folder: Path, summary: dict) -> dict:
    """Return the leaderboard's score of a trial, and the mean of what it is the harmonic mean of.

    Both are 0 for a trial that failed.
    """
    found = row(summary)
    parts = [
        (found["retention_mean"] if p == "retention_mean" else found[p])["mean"]
        for p in found["score_of"]
    ]
    if summary["status"] == "failed" or not parts:
        return {"score": [0.0, 0.0]}
    return {"score": [found["score"], sum(min(1.0, part) for part in parts) / len(parts)]}


def _items(folder: Path, summary: dict) -> dict:
    """Return what a comparison of two rows needs: the mean score of each fact and document.

    Protocol -> metric or task -> case -> mean score over its probes.
    """
    kept = {key: summary[key] for key in KEPT if key in summary}
    found = items(folder, summary)
    if found is None:
        return kept
    shown = found["protocol"].isin([*PROTOCOLS, RETENTION]) & found["score"].notna()
    shown &= found["column"].isin(METRICS) | (found["protocol"] == RETENTION)
    means = found[shown].groupby(["protocol", "column", "case"], sort=False)["score"].mean()
    nested: dict[str, dict[str, dict[str, float]]] = {}
    for (protocol, column, case), score in means.items():
        nested.setdefault(protocol, {}).setdefault(column, {})[case] = round(float(score), 4)
    return {**kept, "items": nested}


def main() -> None:
    commands = {"tune": tune, "compare": compare, "steps": steps, "table": table}
    usage.run(__doc__, commands, sys.argv[1:])


if __name__ == "__main__":
    main()
