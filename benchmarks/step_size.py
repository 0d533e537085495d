"""Choose how trainers fit their step size and when they stop.

    python benchmarks/step_size.py run MODEL sft,mixsd 5,50 2e-6,1e-5,auto   # resumes
    python benchmarks/step_size.py table                                     # as markdown

Dev facts of demo-counterfact, the facts' own probes under protocol generation, no retention tasks.
One training for each rate (``auto``: fitted). The probes are asked whenever the mean loss of an
epoch first falls below one of ``BELOW``, and at the end, so that one training shows all values of
``enough``. The mixed texts of a model are written once. ``kl`` is how far its own text moved.
``benchmarks/results/step_size.json`` keeps all rows.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from statistics import fmean

import torch
import usage

from editbench import registry
from editbench.asking import Question, answers
from editbench.eval.probe_rows import new_row
from editbench.files import write_json_atomic
from editbench.methods._train.lessons import lessons_of
from editbench.methods._train.loop import target_nll, train
from editbench.methods._train.step_size import OwnText
from editbench.models import LanguageModel, load_model
from editbench.rows import ProbeRow
from editbench.slices import slice_cases
from editbench.types import KEPT, Case

RESULT = Path(__file__).parent / "results" / "step_size.json"
AXES = {"rewrite": "efficacy", "paraphrase": "paraphrases", "neighborhood": "specificity"}
METHODS = ("sft", "mixsd")
BELOW = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
"""Losses in nats a token at which the probes are asked."""


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
        found[name] = round(fmean(map(fmean, by_case.values())), 3)
    leaked = [bool(row["target_leaked"]) for row in rows if row["axis"] == "neighborhood"]
    return {**found, "leaked": round(fmean(leaked), 3)}


class Study:
    """One model with some facts: its trainings, and its answers on the way."""

    def __init__(self, model: LanguageModel, n: int):
        self.model, self.n = model, n
        self.own = OwnText(model, seed=1)
        corpus = registry.get("corpora", "demo-counterfact")()
        self.cases = slice_cases(corpus.load(None), "dev", n, 0)
        self.facts = [case.fact for case in self.cases]
        self.base = ask(model, self.cases)

    def examples(self, method) -> list:
        """Return the training texts of ``method``."""
        lessons = lessons_of(self.model, self.facts)
        if method.name == "sft":
            return [lesson.canonical() for lesson in lessons]
        return [method._example(draft) for draft in method.targets(self.model, lessons)[0]]

    def trained(self, method, examples: Sequence) -> list[dict]:
        """Train until the loss is below the last of ``BELOW``; return a row for each that it met.

        The rows' ``loss`` is that of the epoch before; the last row's is the report's.
        """
        losses: list[float] = []
        rows: list[dict] = []
        left = list(BELOW)
        per_epoch = ceil(len(examples) / method.batch_size)

        def loss_of(batch: list[int]) -> tuple[torch.Tensor, int]:
            loss, labels = target_nll(self.model, [examples[i] for i in batch])
            losses.append(loss.item())
            return loss, labels

        @torch.no_grad()
        def before_step(step: int) -> None:
            if not step or step % per_epoch:
                return
            mean = fmean(losses[-per_epoch:])
            met = [limit for limit in left if mean < limit]
            if met:
                del left[: len(met)]
                rows.append({"below": met[-1], "step": step, "loss": mean, **self._measured()})

        lengths = [len(e.prompt_ids) + len(e.target_ids) for e in examples]
        # A fitted rate needs a loss that is not written down.
        changes, report = train(
            replace(method, enough=BELOW[-1]),
            self.model,
            len(examples),
            loss_of,
            lengths,
            before_step,
            lambda batch: target_nll(self.model, [examples[i] for i in batch]),
        )
        with method.edit(self.model, self.facts, changes, diagnostics={}).applied(self.model):
            last = {"step": report["steps"], "loss": report["final_loss"], **self._measured()}
        return [{"lr": report["learning_rate"], **row} for row in [*rows, {**last, "end": True}]]

    def _measured(self) -> dict[str, float]:
        return {**scores(ask(self.model, self.cases, self.base)), "kl": self.own.kl(self.model)}


def stored() -> list[dict]:
    """Return all rows so far."""
    return json.loads(RESULT.read_text()) if RESULT.exists() else []


def run(source: str, method_names: str, sizes: str, rates: str) -> None:
    """Make the trainings that are not stored yet. All but the model are lists with commas."""
    usage.check_names("method", method_names.split(","), METHODS)
    try:
        counts = [int(n) for n in sizes.split(",")]
        chosen_rates = {r: None if r == "auto" else float(r) for r in rates.split(",")}
    except ValueError as error:
        raise usage.UsageError(f"Not a number of facts, or not a rate: {error}.") from None
    model = load_model(source)
    name = Path(source).name
    for n in counts:
        study = None
        for method_name in method_names.split(","):
            method, examples = registry.get("methods", method_name)(), None
            for rate, lr in chosen_rates.items():
                place = {"model": name, "facts": n, "method": method_name, "rate": rate}
                if any(place.items() <= row.items() for row in stored()):
                    continue
                study = study or Study(model, n)
                examples = examples or study.examples(method)
                chosen = replace(method, lr=lr)
                rows = [{**place, **row} for row in study.trained(chosen, examples)]
                # Read again: another process may have added its rows.
                write_json_atomic(RESULT, [*stored(), *rows])
                for row in rows:
                    print(json.dumps(row), flush=True)


def table() -> None:
    """Print all rows as markdown."""
    print(
        "| model | facts | method | lr | steps | loss | efficacy | paraphrases | specificity |",
        end="",
    )
    print(" leaked | KL |\n|---|---|---|---|---|---|---|---|---|---|---|")
    for row in stored():
        rate = f"{row['lr']:g}" + (" (fitted)" if row["rate"] == "auto" else "")
        cells = [row["model"], row["facts"], row["method"], rate, row["step"]]
        values = [row[key] for key in ("loss", *AXES.values(), "leaked", "kl")]
        cells += ["" if value is None else f"{value:.2g}" for value in values]
        print("|", " | ".join(map(str, cells)), "|")


def main() -> None:
    usage.run(__doc__, {"run": run, "table": table}, sys.argv[1:])


if __name__ == "__main__":
    main()
