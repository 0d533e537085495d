"""Facts that share a subject: where must an editor write them?

    python benchmarks/shared_subjects.py dev [NAME ...]   # 60 dev facts; all settings or these
    python benchmarks/shared_subjects.py test [NAME ...]  # 100 test facts, before and after
    python benchmarks/shared_subjects.py keys             # cosines by token and layer, dev facts
    python benchmarks/shared_subjects.py table dev|test|keys

Corpus kgfact, SmolLM2-135M. For each setting: the share of questions and of their rewordings whose
greedy answer has the target, the same for questions about the real world (specificity, of which the
unedited model answers ``base``), KL on own text (the diagnostic ``drift``), and the mean cosine, in
the metric of C^-1, between keys of facts that share a subject, at the first and at the last layer
that was written. Settings were chosen on dev facts. All are in
``benchmarks/results/shared_subjects.json``; a stored row is not computed again. ``looks`` there
holds the first trials, of a throw-away script: 60 dev facts, no prefixes, same questions and KL.
"header" is the prompt's last token, "word" the last word.
"""

import json
import subprocess
import sys
import time
from functools import partial
from itertools import combinations
from pathlib import Path

import torch
import usage

from editbench import registry, text
from editbench.eval.diagnostics import drift
from editbench.eval.intervals import interval_row
from editbench.files import write_json_atomic
from editbench.matching import contains
from editbench.methods._common.hooks import read_at
from editbench.methods.memit import Memit
from editbench.models import load_model
from editbench.run.config import RunConfig
from editbench.run.plan import make_plan
from editbench.stats import cells_text, clustered_mean

SIZES = {"dev": 60, "test": 100}
ANSWER_TOKENS = 24
AXES = {"paraphrase": "paraphrases", "neighborhood": "specificity"}
SETTINGS: dict[str, tuple[str, dict]] = {
    "base": ("base", {}),
    "subject": ("memit", {}),
    "last word": ("memit", {"fact_token": "auto"}),
    "last word, 6 to 14": (
        "memit",
        {"fact_token": "auto", "last_layers": tuple(range(6, 15)), "clamp": 1.0, "lam": 100.0},
    ),
    "last word, 8 to 16": (
        "memit",
        {"fact_token": "auto", "last_layers": tuple(range(8, 17)), "clamp": 1.5, "lam": 50.0},
    ),
    "last word, 4 to 16": (
        "memit",
        {"fact_token": "auto", "last_layers": tuple(range(4, 17)), "clamp": 1.5, "lam": 100.0},
    ),
    "subject, refined": ("memit", {"refine": 25}),
    "last word, 8 to 16, refined": (
        "memit",
        {
            "fact_token": "auto",
            "last_layers": tuple(range(8, 17)),
            "clamp": 1.5,
            "lam": 50.0,
            "refine": 25,
        },
    ),
    "last word, 6 to 14, refined": (
        "memit",
        {
            "fact_token": "auto",
            "last_layers": tuple(range(6, 15)),
            "clamp": 1.5,
            "lam": 100.0,
            "refine": 25,
        },
    ),
    "the pair": ("memit+mixsd", {}),
}
TESTED = ("base", "subject", "last word, 8 to 16, refined", "the pair")
"""The settings that are measured on test facts, once."""
RESULT = Path(__file__).parent / "results" / "shared_subjects.json"


def cases_of(part: str) -> list:
    config = RunConfig(
        methods=("base",), model="smollm2-135m", corpus="kgfact", part=part, n=SIZES[part]
    )
    return make_plan(config).cases


def share(model, asked: list[tuple]) -> dict:
    """Return the share of (fact, prompt, answers) that the model answers, clustered by fact."""
    prompts = [model.prompt_ids(prompt, "question") for _, prompt, _ in asked]
    answers = [model.decode(ids) for ids in model.generate_ids(prompts, ANSWER_TOKENS)]
    right = [contains(said, ok) for said, (_, _, ok) in zip(answers, asked, strict=True)]
    return interval_row(clustered_mean(right, [fact.id for fact, _, _ in asked]))


def cosines(edit, moments) -> list[float]:
    """Return the mean cosine of keys within a subject at the first and the last written layer."""
    pairs = [
        (i, j)
        for (i, first), (j, second) in combinations(enumerate(edit.facts), 2)
        if first.subject == second.subject
    ]
    found = []
    for layer in (min(moments), max(moments)):
        name = next(name for name in edit.keys if f".{layer}." in name)
        found.append(mean_cosine(moments[layer], edit.keys[name].double(), pairs))
    return found


def mean_cosine(moment, k_fN: torch.Tensor, pairs: list[tuple[int, int]]) -> float:
    product_NN = k_fN.T @ moment.solve(k_fN)
    norm_N = product_NN.diagonal().sqrt()
    return sum((product_NN[i, j] / norm_N[i] / norm_N[j]).item() for i, j in pairs) / len(pairs)


def trial(model, cases: list, method: str, options: dict) -> dict:
    started = time.time()
    made = registry.get("methods", method).from_options(method, options)
    edit = made.inject(model, [case.fact for case in cases])
    row: dict = {"method": method, "options": options, "seconds": round(time.time() - started)}
    asked = {"efficacy": [(case.fact, case.fact.prompt, case.fact.answers) for case in cases]}
    for axis, name in AXES.items():
        asked[name] = [
            (case.fact, probe.prompt, probe.answers)
            for case in cases
            for probe in case.probes
            if probe.axis == axis
        ]
    with edit.applied(model, check=False):
        row |= {name: share(model, of) for name, of in asked.items()}
    if edit.changes:
        row["kl"] = drift.measure(model, edit, 0)["kl"]
    report = edit.diagnostics
    for name in ("layers", "target_nll_mean", "clamped_share", "reached_by_layer", "refined"):
        if name in report:
            row[name] = report[name]
    if isinstance(made, Memit) and edit.keys:
        row["cosines"] = cosines(edit, made.moments(model, tuple(report["layers"])))
    head = ["git", "rev-parse", "--short", "HEAD"]
    row["commit"] = subprocess.run(head, capture_output=True, text=True).stdout.strip()
    return row


def stored() -> dict:
    return json.loads(RESULT.read_text()) if RESULT.exists() else {}


def keep(part: str, name: str, row: dict) -> None:
    done = stored()
    done.setdefault(part, {})[name] = row
    write_json_atomic(RESULT, done)


def run(part: str, *names: str) -> None:
    usage.check_names("setting", names, SETTINGS)
    model, cases = load_model(), cases_of(part)
    for name in names or (SETTINGS if part == "dev" else TESTED):
        if name in stored().get(part, {}):
            continue
        keep(part, name, trial(model, cases, *SETTINGS[name]))
        print(line(name, stored()[part][name]), flush=True)


def line(name: str, row: dict) -> str:
    cells = [cells_text(row.get(axis)) for axis in ("efficacy", *AXES.values())]
    kl = f"{row['kl']['mean']:.3f}" if "kl" in row else "–"
    cosine = " / ".join(f"{value:.2f}" for value in row.get("cosines", ())) or "–"
    reached = f"{row['reached_by_layer'][-1]:.2f}" if "reached_by_layer" in row else "–"
    nll = f"{row['target_nll_mean']:.2f}" if "target_nll_mean" in row else "–"
    told = " ".join(f"{key}={value}" for key, value in row["options"].items())
    cells = [name, f"{row['method']} {told}", *cells, kl, cosine, nll, reached, str(row["seconds"])]
    return f"| {' | '.join(cells)} |"


def keys() -> None:
    """Compare keys at several tokens and layers of the unedited model.

    ``distinct`` is the harmonic mean over facts of 1 / (G^-1)_ii, G = K^T C^-1 K: what of a key no
    other fact's key shares. Writing values R exactly moves own text by sum_i ||r_i||^2 / that.
    """
    model = load_model()
    facts = [case.fact for case in cases_of("dev")]
    layers = tuple(range(4, model.layout.depth - 6, 4))
    moments = Memit().moments(model, layers)
    pairs = [
        (i, j)
        for (i, first), (j, second) in combinations(enumerate(facts), 2)
        if first.subject == second.subject
    ]
    rendered = [model.render(fact.prompt, "question") for fact in facts]
    rows = [text.ids(model.tokenizer, each) for each in rendered]
    marks = [
        text.token_at(model.tokenizer, each, each.start + len(fact.prompt) - 1)
        for each, fact in zip(rendered, facts, strict=True)
    ]
    places = {
        "subject's last": [model.subject_last(fact) for fact in facts],
        "last word": [mark - 1 for mark in marks],
        "question mark": marks,
        "prompt's last": [len(row) - 1 for row in rows],
    }
    for layer in layers:
        projection = model.layout.out_projection(model.model, layer)
        for token, at in places.items():
            k_fN = read_at(model, projection, "input", rows, at).double().T
            gram_NN = k_fN.T @ moments[layer].solve(k_fN)
            row = {
                "key": gram_NN.diagonal().mean().item(),
                "distinct": 1 / torch.linalg.inv(gram_NN).diagonal().mean().item(),
                "within": mean_cosine(moments[layer], k_fN, pairs),
            }
            keep("keys", f"{token}, {layer}", {name: round(v, 2) for name, v in row.items()})
            print(token, layer, row, flush=True)


def table(part: str) -> None:
    usage.check_names("stored table", [part], [key for key in stored() if key != "looks"])
    rows = stored()[part]
    if part == "keys":
        print("| token, layer | k^T C^-1 k | of it distinct | cosine within a subject |")
        print("|---|---|---|---|")
        for name, row in rows.items():
            print(f"| {name} | {' | '.join(map(str, row.values()))} |")
        return
    print(
        "| setting | options | efficacy | paraphrases | specificity | KL | cosines | target nll "
        "| reached | s |"
    )
    print("|---" * 10 + "|")
    for name, row in rows.items():
        print(line(name, row))


def main() -> None:
    parts = {part: partial(run, part) for part in SIZES}
    usage.run(__doc__, {**parts, "keys": keys, "table": table}, sys.argv[1:])


if __name__ == "__main__":
    main()
