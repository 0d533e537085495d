"""Measure how many tokens of statistics an edit needs, and whether the model's own text will do.

    python benchmarks/covariance.py SHARED          # about 15 minutes on two cores

memit edits 20 dev facts of ``benchmarks/weight_editors.py``; only what C is measured on changes.
KL(base || edited) is taken on Wikipedia text and on the model's own text, neither of which the
statistics saw (the last paragraphs, another seed). Stored in
``benchmarks/results/covariance.json``.
"""

import gzip
import json
import sys
import tempfile
from pathlib import Path

import torch
from weight_editors import cases, drift, log_probs, wiki

from editbench import progress, registry
from editbench.cli import console
from editbench.eval.probes import ask, metrics
from editbench.files import write_json_atomic
from editbench.methods import statistics as _covariance
from editbench.models import load_model
from editbench.plugin import Method

SETTINGS = [
    ("wiki", 200_000),
    ("wiki", 100_000),
    ("wiki", 20_000),
    ("wiki", 5_000),
    ("self", 60_000),
    ("self", 20_000),
    ("self", 5_000),
    ("self,wiki", 20_000),
    ("identity", 2),
]
AXES = ("efficacy", "generalization", "specificity", "portability")
RESULT = Path(__file__).parent / "results" / "covariance.json"


def main(shared: Path) -> None:
    """Measure every setting that is not stored yet."""
    done = json.loads(RESULT.read_text()) if RESULT.exists() else []
    editing, scoring = load_model(), load_model(precision="float32")
    chosen = cases(shared, "dev", 20)
    facts = [case.fact for case in chosen]
    own = [row[:128] for block in _covariance._written(editing, 3000, 99) for row in block]
    texts = {}
    for name, rows in (("wiki", wiki(shared, scoring)), ("own", own)):
        base = log_probs(scoring, rows)
        texts[name] = rows, base
    base_probes = ask(scoring, chosen)
    with tempfile.TemporaryDirectory() as folder, progress.reporting(console.Lines(60)):
        path = Path(folder) / "wiki.txt"
        with gzip.open(
            shared / "wiki_text" / "wiki_plain_combined.txt.gz", "rt", encoding="utf-8"
        ) as file:
            path.write_text(file.read(3_000_000), encoding="utf-8")
        for source, tokens in SETTINGS:
            if any((row["source"], row["budget"]) == (source, tokens) for row in done):
                continue
            options = {"covariance": source.replace("wiki", str(path)), "covariance_tokens": tokens}
            if source == "identity":  # of the size of C, so that lambda means the same
                own_moments = memit("self", 20_000).moments(editing, (4, 5, 6, 7, 8)).values()
                mean = torch.stack([moment.c_ff.diagonal().mean() for moment in own_moments]).mean()
                options = {"covariance": "identity", "lam": 512.0 * mean.item()}
            editor = registry.get("methods", "memit").from_options("memit", options)
            measured = editor.moments(editing, editor.edited_layers(editing))
            edit = editor.inject(editing, facts)
            with edit.applied(scoring, check=False):
                probes = ask(scoring, chosen, base_probes)
                found = {name: drift(scoring, *text) for name, text in texts.items()}
            scores = metrics(probes)
            done.append(
                {
                    "source": source,
                    "budget": tokens,
                    "tokens": next(iter(measured.values())).tokens,
                    "scores": scores,
                    "kl_wiki": found["wiki"]["kl"],
                    "kl_own": found["own"]["kl"],
                    "perplexity": found["wiki"]["perplexity"],
                }
            )
            write_json_atomic(RESULT, done)
            means = " ".join(f"{axis} {scores[axis]['generation']['mean']:.2f}" for axis in AXES)
            row = done[-1]
            print(
                f"{source} {row['tokens']}: {means} "
                f"kl wiki {row['kl_wiki']:.4f} own {row['kl_own']:.4f}",
                flush=True,
            )


def memit(source: str, tokens: int) -> Method:
    """Return memit with statistics of ``tokens`` tokens of ``source``."""
    return registry.get("methods", "memit").from_options(
        "memit", {"covariance": source, "covariance_tokens": tokens}
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
