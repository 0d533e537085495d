"""Measure the weight editors on real CounterFact facts: what they gain and what they move.

    python benchmarks/weight_editors.py SHARED dev     # rows for choosing settings, 20 dev facts
    python benchmarks/weight_editors.py SHARED test    # the table: 20 and 100 test facts
    python benchmarks/weight_editors.py SHARED dev memit.lam=1536 alphaedit.null_space=0.9
    python benchmarks/weight_editors.py table          # both as markdown

Other rows are written METHOD.KEY=VALUE;KEY=VALUE, or METHOD.COUNT:KEY=VALUE where COUNT is not 20.
SHARED holds ``counterfact/counterfact-edit.json``, ``counterfact/counterfact_qna.json`` and
``wiki_text``. The facts are the records of the first that have a question in the second, in this
project's dev and test slices. The axes are efficacy, generalization (the rephrased prompt) and
specificity as in the harness, and ``chat`` (the question through the chat template), all with 95 %
intervals; KL(base || edited) per token and perplexity on ``WIKI_TOKENS`` tokens of Wikipedia text
that no statistics saw. Scores are in float32. Every row is kept in
``benchmarks/results/weight_editors_{dev,test}.json``; a stored row is not computed again.
"""

import gzip
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from editbench import progress, registry
from editbench.cli import console
from editbench.eval.probes import ask, metrics
from editbench.files import write_json_atomic
from editbench.models import LanguageModel, batched, load_model
from editbench.slices import slice_cases
from editbench.text import pad_left
from editbench.types import Case, Probe

WIKI_TOKENS, WIKI_LENGTH = 5000, 128
EASYEDIT = {"lam": 15000.0, "clamp": 4.0, "v_lr": 0.5}
ROWS = {
    "dev": [("memit", {}, 20), ("alphaedit", {}, 20), ("emmet", {}, 20), ("pmet", {}, 20)],
    "test": [
        *[(method, {}, 20) for method in ("base", "memit", "alphaedit", "emmet", "pmet")],
        ("memit", {"quick": True}, 20),
        ("memit", EASYEDIT, 20),
        *[(method, {}, 100) for method in ("base", "memit", "alphaedit", "emmet", "pmet")],
        ("memit", EASYEDIT, 100),
        ("rome", {}, 1),
        ("rome", {"covariance": "identity"}, 1),
        ("rome", {"key": "original"}, 1),
    ],
}
"""(method, options, facts at once). On the command line, ``memit.20x3:`` is sixty facts in
batches of twenty, each batch alone."""


def usual_times(n: int) -> int:
    """Return how many batches of ``n`` facts a row has: twenty of single facts, one of more."""
    return 20 if n == 1 else 1


def cases(shared: Path, part: str, n: int) -> list[Case]:
    """Return the first ``n`` cases of the slice that have a chat question.

    The question becomes a probe of the axis portability.
    """
    folder = shared / "counterfact"
    asked = json.loads((folder / "counterfact_qna.json").read_text())
    questions = {(r["question"], r["answer"]): r["qna_question"] for r in asked}
    found = []
    loaded = registry.get("corpora", "counterfact")().load(str(folder / "counterfact-edit.json"))
    for case in slice_cases(loaded, part, None, 0):
        question = questions.get((case.fact.prompt, case.fact.target))
        if question and case.fact.prompt.count(case.fact.subject) == 1:
            chat = Probe("portability", question, case.fact.answers, case.fact.original, "question")
            found.append(replace(case, probes=(*case.probes, chat)))
    return found[:n]


def wiki(shared: Path, model: LanguageModel) -> list[list[int]]:
    """Return the last paragraphs of the Wikipedia text; statistics are measured on the first."""
    lines = (
        gzip.open(shared / "wiki_text" / "wiki_plain_combined.txt.gz", "rt", encoding="utf-8")
        .read()
        .split("\n")
    )
    rows, budget = [], WIKI_TOKENS
    for line in reversed(lines):
        if len(line) > 200 and budget > 0:
            rows.append(model.prompt_ids(line)[:WIKI_LENGTH])
            budget -= len(rows[-1])
    return rows


@torch.no_grad()
def log_probs(model: LanguageModel, rows: list[list[int]]) -> list[torch.Tensor]:
    """Return the log-probabilities (T - 1, V) of each text."""
    found = []
    for chunk in batched(rows, 4):
        ids_BT, mask_BT = pad_left(chunk, model.device)
        logp_BTV = model.logits(model.hidden(ids_BT, mask_BT)).log_softmax(-1)
        found += [logp_BTV[i, -len(row) : -1].clone() for i, row in enumerate(chunk)]
    return found


def drift(
    model: LanguageModel, rows: list[list[int]], base: list[torch.Tensor]
) -> dict[str, float]:
    """Return KL to the base per token, and perplexity."""
    kl = nll = tokens = 0.0
    for i, chunk in enumerate(batched(rows, 4)):
        for row, want, have in zip(
            chunk, base[4 * i : 4 * i + 4], log_probs(model, chunk), strict=True
        ):
            kl += (want.exp() * (want - have)).sum().item()
            nll -= have.gather(-1, torch.tensor(row[1:])[:, None]).sum().item()
            tokens += len(have)
    return {"kl": kl / tokens, "perplexity": torch.tensor(nll / tokens).exp().item()}


def score(scorer: LanguageModel, chosen: list[Case], base: list[dict]) -> list[dict]:
    return ask(scorer, chosen, base)


def one_row(
    shared: Path,
    part: str,
    method: str,
    options: dict,
    n: int,
    times: int,
    models: tuple,
    texts: tuple,
) -> dict:
    editing, scoring = models
    rows, base_logp, base_drift = texts
    chosen = cases(shared, part, n * times)
    base = ask(scoring, chosen)
    started, edits, probes, drifts = time.perf_counter(), [], [], []
    editor = registry.get("methods", method).from_options(method, options)
    editor.prepare(editing)
    prepared = time.perf_counter() - started
    seconds = cpu_seconds = 0.0
    for group in batched(chosen, n):
        began, cpu_began = time.perf_counter(), time.process_time()
        edit = editor.inject(editing, [case.fact for case in group])
        seconds += time.perf_counter() - began
        cpu_seconds += time.process_time() - cpu_began
        with edit.applied(scoring, check=False):  # the same weights, another precision
            ids = {case.fact.id for case in group}
            probes += score(scoring, group, [row for row in base if row["case"] in ids])
            drifts.append(drift(scoring, rows, base_logp) if edit.changes else base_drift)
        edits.append(edit.diagnostics)
    scores = metrics(probes)
    same = [row["text"] == row["base_text"] for row in probes if row["axis"] == "neighborhood"]
    kept = (
        "lambda",
        "reached_by_layer",
        "relative_update_by_layer",
        "target_nll_mean",
        "clamped_share",
        "seconds_by_phase",
        "shrunk",
    )
    return {
        "method": method,
        "options": {key: str(value) for key, value in options.items()},
        "all_options": editor.options(),
        "facts": n,
        "cases": len(chosen),
        "scores": scores,
        "neighbors_unchanged": sum(same) / len(same),
        "kl": sum(d["kl"] for d in drifts) / len(drifts),
        "kl_max": max(d["kl"] for d in drifts),
        "perplexity": sum(d["perplexity"] for d in drifts) / len(drifts),
        "base_perplexity": base_drift["perplexity"],
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "prepare_seconds": prepared,
        "diagnostics": {key: edits[0][key] for key in kept if key in edits[0]},
    }


def say(row: dict) -> None:
    def both(axis: str) -> str:
        found = row["scores"][axis]
        return "/".join(f"{found[p]['mean']:.2f}" for p in ("generation", "likelihood"))

    print(
        f"{row['method']} {row['options']} n={row['facts']} of {row['cases']}: "
        f"efficacy {both('efficacy')} generalization {both('generalization')} "
        f"specificity {both('specificity')} chat {both('portability')} "
        f"same {row['neighbors_unchanged']:.2f} "
        f"ppl {row['perplexity'] / row['base_perplexity'] - 1:+.1%} kl {row['kl']:.4f} "
        f"{row['seconds']:.0f}s, of the processor {row.get('cpu_seconds', 0):.0f}s",
        flush=True,
    )


def table(rows: list[dict]) -> str:
    """Return the rows as markdown, with 95 % intervals."""
    axes = ("efficacy", "generalization", "specificity", "portability")
    costs = ("neighbors unchanged", "KL", "perplexity")
    titles = ("method", "options", "facts", "protocol", *axes[:3], "chat", *costs)
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        for protocol in ("generation", "argmax", "likelihood"):
            cells = []
            if protocol not in row["scores"]["efficacy"]:  # rows from before it was measured
                continue
            for axis in axes:
                found = row["scores"][axis][protocol]
                known = found["mean"] is not None
                cells.append(
                    f"{found['mean']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
                    if known
                    else "-"
                )
            options = (
                " ".join(f"{key}={value}" for key, value in row["options"].items()) or "defaults"
            )
            times = row["cases"] // row["facts"]
            facts = f"{row['facts']}" if times == 1 else f"{row['facts']}, {times} times"
            if protocol == "generation":
                change = row["perplexity"] / row["base_perplexity"] - 1
                costs = [f"{row['neighbors_unchanged']:.2f}", f"{row['kl']:.4f}", f"{change:+.1%}"]
            else:
                costs = [""] * 3
            lines.append(
                f"| {' | '.join([row['method'], options, facts, protocol, *cells, *costs])} |"
            )
    return "\n".join(lines)


def main() -> None:
    results = Path(__file__).parent / "results"
    if sys.argv[1:] == ["table"]:
        for part in (
            "test",
            "dev",
        ):  # "wiki" among the options: the first 3,000,000 characters of SHARED/wiki_text
            stored = json.loads((results / f"weight_editors_{part}.json").read_text())
            print(f"\n## {part} facts\n\n{table(stored)}")
        return
    shared, part, *extra = sys.argv[1:]
    shared = Path(shared)
    wanted = [(*row, usual_times(row[2])) for row in ROWS[part]]
    if extra:
        wanted = []
        for text in extra:
            method, _, settings = text.partition(".")
            count, _, settings = (
                settings.partition(":") if ":" in settings else ("20", "", settings)
            )
            options = dict(pair.split("=") for pair in settings.split(";")) if settings else {}
            count, _, times = count.partition("x")
            wanted.append((method, options, int(count), int(times or usual_times(int(count)))))
    path = results / f"weight_editors_{part}.json"
    done = json.loads(path.read_text()) if path.exists() else []
    models = load_model(), load_model(precision="float32")
    rows = wiki(shared, models[1])
    base_logp = log_probs(models[1], rows)
    texts = rows, base_logp, drift(models[1], rows, base_logp)
    with progress.reporting(console.Lines(60)):
        for method, options, n, times in wanted:
            words = {key: str(value) for key, value in options.items()}
            mine = (method, n, n * times, words)
            known = [r for r in done if (r["method"], r["facts"], r["cases"], r["options"]) == mine]
            row = (
                known[0]
                if known
                else one_row(shared, part, method, options, n, times, models, texts)
            )
            if not known:
                done.append(row)
                write_json_atomic(path, done)
            say(row)


if __name__ == "__main__":
    main()
