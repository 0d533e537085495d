"""Measure time and memory of one injection, by phase and number of facts.

    python benchmarks/scale.py memit 1 10 32 100         # full settings
    python benchmarks/scale.py memit:quick 1 10 32 100 1000
    python benchmarks/scale.py plot                      # benchmarks/results/scale.png, scale.md

The facts are those of the demo corpus with invented subjects, drawn by one seed, so that all counts
have facts of one kind and a larger count begins with the facts of a smaller one. Each count runs in
a process of its own, so that peaks do not add up. ``said`` is the share of ``SAMPLE`` evenly spread
facts that the edited model says by itself. Stored in ``benchmarks/results/scale.json``.
"""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from editbench.models import LanguageModel
    from editbench.types import Fact

RESULT = Path(__file__).parent / "results" / "scale.json"
PHASES = ("targets", "keys", "solve", "write")
SAMPLE = 200


def facts(n: int) -> list["Fact"]:
    """Return ``n`` facts of the demo corpus with invented subjects."""
    from editbench import Fact, registry

    loaded = [case.fact for case in registry.get("corpora", "demo-counterfact")().load()]
    usable = [fact for fact in loaded if fact.subject and fact.prompt.count(fact.subject) == 1]
    syllables = [
        a + b for a in "bdfgklmnprstv" for b in ("a", "e", "i", "o", "u", "an", "er", "il")
    ]
    made, seen, dice = [], set(), random.Random(0)
    while len(made) < n:
        fact = dice.choice(usable)
        words = ("".join(dice.choices(syllables, k=dice.randint(2, 4))) for _ in range(2))
        name = " ".join(word.capitalize() for word in words)
        if name not in seen:
            seen.add(name)
            made.append(
                Fact(
                    f"made-{len(made)}", fact.prompt.replace(fact.subject, name), fact.target, name
                )
            )
    return made


def said(model: "LanguageModel", sample: "list[Fact]") -> float:
    """Return the share of ``sample`` that the model says by itself."""
    from editbench.matching import contains

    written = model.generate_ids([model.prompt_ids(fact.prompt) for fact in sample], 8)
    return sum(
        contains(model.decode(ids), fact.answers) for ids, fact in zip(written, sample, strict=True)
    ) / len(sample)


def measure(method: str, n: int) -> dict[str, Any]:
    """Inject ``n`` facts and return the row: seconds, memory and how many are said."""
    import psutil

    from editbench import progress, registry
    from editbench.cli import console
    from editbench.cost import Meter
    from editbench.models import load_model

    name, _, preset = method.partition(":")
    editor = registry.get("methods", name).from_options(
        name, {"quick": True} if preset == "quick" else {}
    )
    model, chosen = load_model(), facts(n)
    editor.prepare(model)
    before = psutil.Process().memory_info().rss
    with progress.reporting(console.Lines(60)), Meter(model) as meter:
        started = time.perf_counter()
        edit = editor.inject(model, chosen)
        seconds = time.perf_counter() - started
    sample = chosen[:: -(-n // SAMPLE)]
    before_edit = said(model, sample)
    with edit.applied(model):
        after_edit = said(model, sample)
    kept = ("seconds_by_phase", "target_nll_mean", "reached_by_layer", "relative_update_by_layer")
    return {
        "method": method,
        "facts": n,
        "seconds": seconds,
        "seconds_per_fact": seconds / n,
        "model_bytes": before,
        "peak_bytes": meter.peak,
        "sample": len(sample),
        "said_before": before_edit,
        "said": after_edit,
        **{key: edit.diagnostics[key] for key in kept},
    }


def plot(rows: list[dict[str, Any]]) -> None:
    """Draw the rows as a picture, and write them as a table."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = sorted(
            (row for row in rows if row["method"] == method), key=lambda row: row["facts"]
        )
        counts = [row["facts"] for row in mine]
        time_axes.plot(counts, [row["seconds_per_fact"] for row in mine], marker="o", label=method)
        memory_axes.plot(
            counts, [row["peak_bytes"] / 2**30 for row in mine], marker="o", label=method
        )
    for axes, title in ((time_axes, "seconds for each fact"), (memory_axes, "peak memory, GiB")):
        axes.set(xscale="log", xlabel="facts in one batch", title=title, ylim=(0, None))
        axes.legend()
    figure.savefig(RESULT.with_suffix(".png"), dpi=120)
    titles = ("method", "facts", "seconds", "s a fact", *PHASES, "peak GiB", "said")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in sorted(rows, key=lambda row: (row["method"], row["facts"])):
        phases = " | ".join(f"{row['seconds_by_phase'].get(phase, 0):.1f}" for phase in PHASES)
        peak = row["peak_bytes"] / 2**30
        numbers = f"{row['seconds']:.1f} | {row['seconds_per_fact']:.2f} | {phases} | {peak:.1f}"
        numbers += f" | {row['said']:.2f} of {row['sample']}"
        lines.append(f"| {row['method']} | {row['facts']} | {numbers} |")
    RESULT.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    done = json.loads(RESULT.read_text()) if RESULT.exists() else []
    if sys.argv[1] == "plot":
        plot(done)
    elif sys.argv[1] == "--one":
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
    else:
        for n in map(int, sys.argv[2:]):
            command = [sys.executable, __file__, "--one", sys.argv[1], str(n)]
            row = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            done = [r for r in done if (r["method"], r["facts"]) != (row["method"], n)] + [row]
            RESULT.write_text(json.dumps(done, indent=1))
            print(
                row["method"],
                n,
                f"{row['seconds']:.1f} s, {row['peak_bytes'] / 2**30:.1f} GiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
