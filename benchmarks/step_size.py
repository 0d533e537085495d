"""Choose how trainers fit their step size and when they stop: sweeps against the rule.

    python benchmarks/step_size.py MODEL sft,mixsd 5,50 2e-6,1e-5,auto   # resumes

Dev facts of demo-counterfact, the facts' own probes under protocol generation, no retention tasks.
``auto`` is the default: the fitted rate. A rate may be followed by options, as in
``1e-5:enough=0.1``. The mixed texts of a model are written once. ``kl`` is how far its own text
moved (``methods/_train/step_size.py``). ``benchmarks/results/step_size.json`` keeps all trials.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from editbench import registry
from editbench.asking import Question, answers
from editbench.eval.probe_rows import new_row
from editbench.files import write_json_atomic
from editbench.methods._train.lessons import lessons_of
from editbench.methods._train.loop import train_on_examples
from editbench.methods._train.step_size import OwnText
from editbench.models import LanguageModel, load_model
from editbench.rows import ProbeRow
from editbench.slices import slice_cases
from editbench.types import KEPT, Case

RESULT = Path(__file__).parent / "results" / "step_size.json"
AXES = {"rewrite": "efficacy", "paraphrase": "paraphrases", "neighborhood": "specificity"}


def ask(model: LanguageModel, cases: Sequence[Case], base: Sequence[ProbeRow] = ()) -> list:
    """Ask the probes of ``AXES``; return their rows."""
    before = {(row["case"], row["probe"]): row for row in base}
    asked = [(c, i, p) for c in cases for i, p in enumerate(c.probes) if p.axis in AXES]
    wanted = [(*p.answers, *(c.fact.answers if p.axis in KEPT else ())) for c, _, p in asked]
    questions = [
        Question(p.prompt, p.form, texts, p.max_new_tokens)
        for (_, _, p), texts in zip(asked, wanted, strict=True)
    ]
    texts = answers(model, questions)
    return [new_row(place, text, before) for place, text in zip(asked, texts, strict=True)]


def scores(rows: Sequence[ProbeRow]) -> dict[str, float]:
    """Return each axis: the mean over cases of the mean over a case's probes; and the leak."""
    found = {}
    for axis, name in AXES.items():
        by_case: dict[str, list[float]] = {}
        for row in rows:
            if row["axis"] == axis:
                by_case.setdefault(row["case"], []).append(row["generation"])
        means = [sum(values) / len(values) for values in by_case.values()]
        found[name] = round(sum(means) / len(means), 3)
    leaks = [bool(row["target_leaked"]) for row in rows if row["axis"] == "neighborhood"]
    return {**found, "leaked": round(sum(leaks) / len(leaks), 3)}


def run(source: str, methods: list[str], sizes: list[int], trials: list[str]) -> None:
    """Run the trials that are not stored yet."""
    model = load_model(source)
    own = OwnText(model, seed=1)  # other texts than those that the rule sees
    corpus = registry.get("corpora", "demo-counterfact")()
    for n in sizes:
        cases = slice_cases(corpus.load(None), "dev", n, 0)
        lessons = lessons_of(model, [case.fact for case in cases])
        base: list[ProbeRow] = []
        for name in methods:
            method = registry.get("methods", name)()
            examples = None
            for trial in trials:
                done = json.loads(RESULT.read_text()) if RESULT.exists() else []
                place = {"model": model.name, "facts": n, "method": name, "trial": trial}
                if any(place.items() <= row.items() for row in done):
                    continue
                base = base or ask(model, cases)
                if examples is None:
                    examples = (
                        [lesson.canonical() for lesson in lessons]
                        if name == "sft"
                        else [method._example(d) for d in method.targets(model, lessons)[0]]
                    )
                chosen = method_of(method, trial)
                started = time.perf_counter()
                changes, report = train_on_examples(chosen, model, examples)
                seconds = time.perf_counter() - started
                edit = chosen.edit(model, [case.fact for case in cases], changes, diagnostics={})
                with edit.applied(model):
                    row = {**place, **scores(ask(model, cases, base)), "kl": own.kl()}
                report = {k: v for k, v in report.items() if k != "warnings"}
                row = {**row, **report, "seconds": round(seconds, 1)}
                # Read again: another process may have added its trials.
                done = json.loads(RESULT.read_text()) if RESULT.exists() else []
                write_json_atomic(RESULT, [*done, row])
                print(json.dumps(row), flush=True)


def method_of(method, trial: str):
    """Return ``method`` with the options of a trial: ``RATE`` or ``RATE:KEY=VALUE``."""
    rate, *options = trial.split(":")
    values = {key: float(value) for key, value in (option.split("=") for option in options)}
    return replace(method, lr=None if rate == "auto" else float(rate), **values)


if __name__ == "__main__":
    source, methods, sizes, trials = sys.argv[1:]
    run(source, methods.split(","), [int(n) for n in sizes.split(",")], trials.split(","))
