"""Test MixSD's claims on an invented world of 100 facts, every trainer tuned by the same trials.

    python benchmarks/kgfact_study.py tune [ROW ...]         # dev world; all rows or these; resumes
    python benchmarks/kgfact_study.py test SHARED [ROW ...]  # test world, the chosen settings
    python benchmarks/kgfact_study.py frontier [ROW ...]     # dev world, all eight tasks
    python benchmarks/kgfact_study.py openings              # dev world: answers begun for the model
    python benchmarks/kgfact_study.py table test|frontier

Tuning tries the learning rates of ``RATES`` for each row of ``ROWS``: 60 dev facts, retention on
eb_instruct, eb_reading and eb_knowledge, 40 items each. The test uses one rate for all, ``RATE``,
at which every row that has trials learned all dev facts (``tuned`` says which have trials); a row
may name a rate of its own. Weight editors and ice use their defaults. SHARED holds the real
retention tasks of the test. ``frontier`` holds what else was tried for the goal. All trials and
tests are in ``benchmarks/results/kgfact_{tune,test,frontier}.json``; a stored row is not computed
again.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import usage
from harness import changes

from editbench import progress, registry
from editbench.cli import console
from editbench.eval import retention
from editbench.files import write_json_atomic
from editbench.leaderboard.rows import diagnosed
from editbench.matching import contains
from editbench.models import load_model
from editbench.records.store import RunStore
from editbench.run import runner
from editbench.run.config import RunConfig, run_identity
from editbench.run.plan import make_plan
from editbench.stats import cells_text, clustered_mean, mean_ratio, paired_delta

RATES = (5e-5, 2e-5)
RATE = 5e-5
LONG = {"epochs": 14}
ROWS = {
    "sft": ("sft", LONG),
    "mixsd 0.3": ("mixsd", {**LONG, "lam": 0.3}),
    "mixsd adaptive": ("mixsd", {**LONG, "mode": "adaptive"}),
    "mixsd 0": ("mixsd", {**LONG, "lam": 0.0}),
    "mixsd 0.5": ("mixsd", {**LONG, "lam": 0.5}),
    "opsd": ("opsd", LONG),
    "sft, kl 1": ("sft", {**LONG, "kl": 1.0}),
    "mixsd 0.3, kl 1": ("mixsd", {**LONG, "lam": 0.3, "kl": 1.0}),
    "mixsd 0.3, kl 1, 3 frames": (
        "mixsd",
        {"epochs": 5, "lam": 0.3, "kl": 1.0, "rewordings": 2, "lr": 1e-4},
    ),
}
"""14 epochs of a fact in one frame are as many steps as 5 in three."""
HIGHER = ({"lr": 5e-5}, {"lr": 1e-4})
TRIALS = {
    "memit": ({"clamp": 2.0}, {"clamp": 4.0}),
    "sft, kl 1": HIGHER,
    "mixsd 0.3, kl 1, 3 frames": HIGHER,
}
"""As many trials of what has no learning rate, or bears a higher one, held to the base."""
FRONTIER = {
    "sft, kl 1": ("sft", {**LONG, "lr": RATE, "kl": 1.0}),
    "sft, kl 3, 3 frames": ("sft", {"epochs": 5, "lr": RATE, "kl": 3.0, "rewordings": 2}),
    "sft, lora 16, kl 1": ("sft", {**LONG, "lr": 5e-4, "lora": 16, "kl": 1.0}),
    "sft, lora 16, null space .5": ("sft", {**LONG, "lr": 5e-4, "lora": 16, "null_space": 0.5}),
}
"""60 dev facts, 100 items of each task of the offline pack."""
UNTUNED = {"base": ("base", {}), "memit": ("memit", {}), "ice": ("ice", {})}
AXES = ("efficacy", "generalization", "portability", "specificity")
DEV_TASKS, REAL = (
    ("eb_instruct", "eb_reading", "eb_knowledge"),
    ("hellaswag", "lambada_openai", "arc_easy"),
)
RESULTS = Path(__file__).parent / "results"
DIAGNOSTICS = ("supervision", "mixing", "fisher", "drift", "errors")
KEYS = (
    "status",
    "note",
    "metrics",
    "retention",
    "seconds",
    "peak_memory_bytes",
    "edit",
    "diagnostics",
)


def cell(loaded, method: str, options: dict, more=None, **config) -> dict:
    """Return one cell of a run that is not kept, by default on SmolLM2 and kgfact.

    Args:
        more: called with the run's folder and the whole cell while both are there; returns further
            fields to keep.
    """
    setting = {"model": "smollm2-135m", "corpus": "kgfact", **config}
    made = RunConfig(methods=(method,), options={method: options}, **setting)
    plan = make_plan(made)
    with tempfile.TemporaryDirectory() as folder, progress.reporting(console.Lines(60)):
        with RunStore(folder).open(run_identity(plan.config)) as store:
            (summary,) = runner.run(plan, loaded, store, lambda *_: None)
        further = more(Path(folder), summary) if more else {}
    for lost in ((summary.get("diagnostics") or {}).get("errors") or {}).values():
        for one in lost.values():
            one.pop("examples", None)  # texts of data sets that may not lie in this project
    kept = {key: summary[key] for key in KEYS if key in summary}
    return {**kept, **further, "commit": commit()}


def commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()


def say(name: str, options: dict, found: dict) -> None:
    axes = " ".join(
        f"{axis} {cells_text(found['metrics'][axis]['generation'])}"
        for axis in AXES
        if axis in found["metrics"]
    )
    kept = cells_text(mean_ratio(found["retention"]).to_dict())
    print(f"{name} {options}: {axes} kept {kept} {found['seconds']['inject']:.0f}s", flush=True)


def stored(of: str, study: str = "kgfact") -> list[dict]:
    path = RESULTS / f"{study}_{of}.json"
    return json.loads(path.read_text()) if path.exists() else []


def add(
    of: str, model, row: dict, method: str, options: dict, told: dict | None = None, **config
) -> None:
    """Measure one cell and store it as ``row``, with ``told`` about it; a stored row stays."""
    done = stored(of)
    if any(row.items() <= one.items() for one in done):
        return
    found = cell(model, method, options, **config)
    write_json_atomic(RESULTS / f"kgfact_{of}.json", [*done, {**row, **(told or {}), **found}])
    say(row["name"], options, found)


def tune(*names: str) -> None:
    model = load_model()
    for name in names or dict.fromkeys((*ROWS, *TRIALS)):
        method, options = ROWS.get(name) or UNTUNED[name]
        for trial in TRIALS.get(name, [{"lr": rate} for rate in RATES]):
            row, tried = {"name": name, **trial}, {**options, **trial}
            add("tune", model, row, method, tried, part="dev", n=60, tasks=DEV_TASKS, limit=40)


def frontier(*names: str) -> None:
    model, tasks = load_model(), retention.resolve_tasks("default", {})
    for name in names or FRONTIER:
        method, options = FRONTIER[name]
        add(
            "frontier",
            model,
            {"name": name},
            method,
            options,
            {"options": options},
            part="dev",
            n=60,
            tasks=tasks,
            limit=100,
        )


def openings() -> None:
    """Count the rephrased questions that are answered freely, and after the beginning of an answer.

    The beginning is what stands before the target in the text that was taught (``own``) or in
    sft's text (``sft``). Where nothing stands before it, ``own`` takes sft's; ``borrowed`` counts
    those.
    """
    path, model = RESULTS / "kgfact_openings.json", load_model()
    config = RunConfig(methods=("base",), model="smollm2-135m", corpus="kgfact", part="dev", n=60)
    cases = make_plan(config).cases
    asked = [
        (case.fact, probe) for case in cases for probe in case.probes if probe.axis == "paraphrase"
    ]
    found: dict[str, dict] = {}
    for name in ("sft", "mixsd 0.3"):
        method, options = ROWS[name]
        made = registry.get("methods", method).from_options(method, {"lr": RATE, **options})
        edit = made.inject(model, [case.fact for case in cases])
        taught = {
            record["fact"]: model.decode(record["ids"])
            for record in edit.records
            if "ids" in record
        }
        canonical = [before(fact.demonstration, fact.target) for fact, _ in asked]
        own = [before(taught.get(fact.id, fact.demonstration), fact.target) for fact, _ in asked]
        borrowed = sum(words is None for words in own)
        own = [words or known for words, known in zip(own, canonical, strict=True)]
        facts, right = [fact.id for fact, _ in asked], {}
        with edit.applied(model):
            for kind, begun in {"free": [""] * len(asked), "own": own, "sft": canonical}.items():
                prompts = [
                    opened(model, probe, words)
                    for (_, probe), words in zip(asked, begun, strict=True)
                ]
                answers = [model.decode(ids) for ids in model.generate_ids(prompts, 24)]
                right[kind] = [
                    contains(answer, fact.answers)
                    for (fact, _), answer in zip(asked, answers, strict=True)
                ]
        scores = {kind: clustered_mean(said, facts).to_dict() for kind, said in right.items()}
        gained = paired_delta(right["own"], right["free"], facts).to_dict()
        found[name] = {**scores, "own - free": gained, "borrowed": borrowed, "commit": commit()}
        told = {kind: cells_text(score) for kind, score in scores.items()}
        print(name, told, cells_text(gained, sign=True), borrowed, flush=True)
    write_json_atomic(path, found)


def opened(model, probe, words: str) -> list[int]:
    """Return the ids of the probe's prompt, and of the first words of its answer."""
    if not words:
        return model.prompt_ids(probe.prompt, probe.form)
    prompt_ids, opening_ids = model.pair_ids(probe.prompt, words, probe.form)
    return [*prompt_ids, *opening_ids]


def before(text: str, target: str) -> str | None:
    """Return the text before ``target``; ``None`` where it does not occur, or begins the text."""
    opening, at, _ = text.partition(target)
    return opening.rstrip() or None if at else None


def test(data_folder: str, *names: str) -> None:
    shared, model = Path(data_folder), load_model()
    data = {
        "hellaswag": shared / "hellaswag" / "hellaswag_val_10042.jsonl",
        "lambada_openai": shared / "lambada" / "lambada_test.jsonl",
        "arc_easy": shared / "arc_easy_mc" / "arc_easy.jsonl",
    }
    tasks = (*retention.resolve_tasks("default", {}), *REAL)
    local = {task: str(file) for task, file in data.items()}
    more = {"tasks": tasks, "task_data": local, "diagnostics": DIAGNOSTICS}
    tuned = {name: (method, {"lr": RATE, **options}) for name, (method, options) in ROWS.items()}
    rows = {"base": UNTUNED["base"], **tuned, **UNTUNED}
    tried = {row["name"] for row in stored("tune")}
    for name in names or rows:
        method, options = rows[name]
        told = {"options": options, "tuned": name in tried}
        add(
            "test",
            model,
            {"name": name},
            method,
            options,
            told,
            part="test",
            n=100,
            limit=100,
            **more,
        )


def table(of: str) -> None:
    usage.check_names("table", [of], ("test", "frontier"))
    rows = sorted(stored(of), key=lambda row: row["name"] != "base")
    titles = (
        "row",
        *AXES,
        "retention",
        "target NLL",
        "rare",
        "displacement",
        "R",
        "KL",
        "words",
        "s",
        "commit",
    )
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        cells = [cells_text(row["metrics"].get(axis, {}).get("generation")) for axis in AXES]
        cells.append(cells_text(mean_ratio(row["retention"]).to_dict()))
        for part, name, form in (
            ("supervision", "nll", ".2f"),
            ("supervision", "rare", ".2f"),
            ("fisher", "displacement", ".2g"),
            ("fisher", "alignment_ratio", ".2f"),
            ("drift", "kl", ".3f"),
            ("drift", "words_after", ".0f"),
        ):
            value = diagnosed(row, part, name)
            value = value.get("mean") if isinstance(value, dict) else value
            cells.append("–" if value is None else format(value, form))
        cells += [f"{row['seconds']['inject']:.0f}", row.get("commit", "–")]
        lines.append(f"| {' | '.join([row['name'], *cells])} |")
    print("\n".join(lines) + "\n\n" + changes({row["name"]: row["retention"] for row in rows}))


def main() -> None:
    commands = (tune, frontier, test, openings, table)
    usage.run(__doc__, {command.__name__: command for command in commands}, sys.argv[1:])


if __name__ == "__main__":
    main()
