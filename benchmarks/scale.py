"""Measure time and memory of one injection, by phase and number of facts.

    python benchmarks/scale.py memit 1 10 32 100         # full settings
    python benchmarks/scale.py memit:quick=true 1 10 32 100 1000
    python benchmarks/scale.py tiny memit 100 1000 5000  # on the tiny model: does a fact cost the
    python benchmarks/scale.py tiny sft:lora=16 100 1000 5000    # same whatever their number?
    python benchmarks/scale.py plot                      # benchmarks/results/scale.png, scale.md

The facts are those of the demo corpus with invented subjects, drawn by one seed, so that all counts
have facts of one kind and a larger count begins with the facts of a smaller one. Each count runs in
a process of its own, so that peaks do not add up. ``said`` is the share of ``SAMPLE`` evenly spread
facts that the edited model says by itself. Options stand behind the method, between commas.

The tiny model is the random Llama of the tests, so nothing is asked of it. Its seconds are those of
the processor, on one thread, and what a fact takes of them and of the memory beyond the model shows
what grows with the number of facts. Stored in ``benchmarks/results/scale.json``.
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


def measure(which: str, method: str, n: int) -> dict[str, Any]:
    """Inject ``n`` facts and return the row: seconds, memory and how many are said."""
    import psutil
    import torch

    from editbench import progress, registry
    from editbench.cli import console
    from editbench.cost import Meter
    from editbench.models import load_model
    from editbench.testing import tiny_model

    name, _, settings = method.partition(":")
    options = dict(pair.split("=") for pair in settings.split(",") if pair)
    editor = registry.get("methods", name).from_options(name, options)
    tiny = which == "tiny"
    if tiny:
        torch.set_num_threads(1)
    model, chosen = tiny_model() if tiny else load_model(), facts(n)
    editor.prepare(model)
    before = psutil.Process().memory_info().rss
    with progress.reporting(console.Lines(60)), Meter(model) as meter:
        clock = time.process_time if tiny else time.perf_counter
        started = clock()
        edit = editor.inject(model, chosen)
        seconds = clock() - started
    measured = {
        **({"model": which} if tiny else {}),
        "method": method,
        "facts": n,
        "seconds": seconds,
        "seconds_per_fact": seconds / n,
        "model_bytes": before,
        "peak_bytes": meter.peak,
        "bytes_per_fact": (meter.peak - before) / n,
    }
    if tiny:
        kept = ("seconds_by_phase", "steps", "epochs")
        return measured | {key: edit.diagnostics[key] for key in kept if key in edit.diagnostics}
    sample = chosen[:: -(-n // SAMPLE)]
    before_edit = said(model, sample)
    with edit.applied(model):
        after_edit = said(model, sample)
    kept = ("seconds_by_phase", "target_nll_mean", "reached_by_layer", "relative_update_by_layer")
    return {
        **measured,
        "sample": len(sample),
        "said_before": before_edit,
        "said": after_edit,
        **{key: edit.diagnostics[key] for key in kept if key in edit.diagnostics},
    }


def plot(rows: list[dict[str, Any]]) -> None:
    """Draw the rows of the default model as a picture, and write all as tables."""
    from matplotlib.figure import Figure

    small = [row for row in rows if row.get("model")]
    rows = [row for row in rows if not row.get("model")]
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
        by_phase = row.get("seconds_by_phase", {})
        phases = " | ".join(f"{by_phase.get(phase, 0):.1f}" for phase in PHASES)
        peak = row["peak_bytes"] / 2**30
        numbers = f"{row['seconds']:.1f} | {row['seconds_per_fact']:.2f} | {phases} | {peak:.1f}"
        numbers += f" | {row['said']:.2f} of {row['sample']}"
        lines.append(f"| {row['method']} | {row['facts']} | {numbers} |")
    titles = ("tiny model", "facts", "seconds", "ms a fact", "MiB beyond the model", "KiB a fact")
    lines += ["", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in sorted(small, key=lambda row: (row["method"], row["facts"])):
        beyond = row["bytes_per_fact"] * row["facts"] / 2**20
        lines.append(
            f"| {row['method']} | {row['facts']} | {row['seconds']:.1f} | "
            f"{1000 * row['seconds_per_fact']:.1f} | {beyond:.0f} | "
            f"{row['bytes_per_fact'] / 2**10:.0f} |"
        )
    RESULT.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    done = json.loads(RESULT.read_text()) if RESULT.exists() else []
    if sys.argv[1] == "plot":
        plot(done)
    elif sys.argv[1] == "--one":
        print(json.dumps(measure(*sys.argv[2:4], int(sys.argv[4]))))
    else:
        which, method, *counts = sys.argv[1:] if sys.argv[1] == "tiny" else ("", *sys.argv[1:])
        for n in map(int, counts):
            command = [sys.executable, __file__, "--one", which, method, str(n)]
            row = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            done = [each for each in done if _key(each) != _key(row)] + [row]
            RESULT.write_text(json.dumps(done, indent=1))
            size = f"{row['peak_bytes'] / 2**30:.1f} GiB"
            print(which, method, n, f"{row['seconds']:.1f} s, {size}", flush=True)


def _key(row: dict[str, Any]) -> tuple[str | None, str, int]:
    return row.get("model"), row["method"], row["facts"]


if __name__ == "__main__":
    main()
