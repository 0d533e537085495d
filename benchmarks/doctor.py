"""Compare the memory that ``editbench doctor`` predicts with measured peaks.

    python benchmarks/doctor.py 60m 135m          # both take about a minute a method on one core
    python benchmarks/doctor.py 135m:rome         # one method
    python benchmarks/doctor.py 0.4b 1.1b         # 8 and 22 GiB of free memory
    python benchmarks/doctor.py --page            # the table, benchmarks/doctor.md

Llamas with random weights and SmolLM2's tokenizer, facts of the demo corpus, each injection in a
process of its own with an empty cache. The prediction is made in that process before the model is
loaded; the peak is that of ``editbench.cost.Meter`` over ``prepare`` and ``inject``. Steps are few,
since memory does not depend on their number. Stored in ``benchmarks/results/doctor.json``.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "doctor.json"
PAGE = Path(__file__).parent / "doctor.md"
N = 20
SHAPES: dict[str, dict[str, Any]] = {
    "60m": {
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    # SmolLM2-135M
    "135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    # SmolLM2-360M
    "0.4b": {
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "tie_word_embeddings": True,
    },
    # TinyLlama
    "1.1b": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
}
SHORT = {"epochs": 1, "min_steps": 3, "lr": 1e-5}
SOLVED = {"steps": 3, "covariance_tokens": 8192}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", SHORT),
    # Random weights end no text, so each has the usual length.
    "mixsd": ("mixsd", {**SHORT, "max_new_tokens": 48, "attempts": 1, "on_fail": "keep"}),
    "sft, lora=16": ("sft", {**SHORT, "lora": 16}),
    "memit": ("memit", SOLVED),
    "rome": ("rome", SOLVED),
}


def write_model(shape: str, folder: Path) -> None:
    """Write a Llama of this shape with random weights, and SmolLM2's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from editbench.outline import read_tokenizer

    tokenizer = read_tokenizer("smollm2-135m")
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), **SHAPES[shape])
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(shape: str, label: str, folder: str) -> dict[str, Any]:
    """Predict, inject, and return both numbers."""
    from editbench import registry
    from editbench.cost import Meter
    from editbench.memory import Texts
    from editbench.models import load_model
    from editbench.outline import read_outline
    from editbench.pace import measure as measure_pace
    from editbench.prediction import predict

    name, options = METHODS[label]
    method = registry.get("methods", name).from_options(name, options)
    cases = registry.get("corpora", "demo-counterfact")().load()
    facts = [case.fact for case in cases if case.fact.subject][:N]
    outline = read_outline(folder)
    predicted = predict(method, outline, Texts.of(facts))
    assert predicted is not None
    model = load_model(folder)
    started, used = time.perf_counter(), time.process_time()
    with Meter(model) as meter:
        method.prepare(model)
        method.inject(model, facts)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    # Afterwards, so that the memory which it takes is not in the peak.
    pace, work = measure_pace(outline), method.work(outline, Texts.of(facts))
    assert pace is not None and work is not None
    needed = predicted.tightest.needed
    return {
        "shape": shape,
        "parameters": outline.parameters,
        "method": label,
        "options": options,
        "facts": N,
        "precision": model.precision,
        "device": model.device.type,
        "predicted_bytes": needed,
        "measured_bytes": meter.peak,
        "ratio": round(needed / meter.peak, 3),
        "phase": predicted.phase,
        "held": dict(predicted.tightest.held),
        "predicted_seconds": round(pace.seconds(work), 1),
        "parts": {
            f.name: round(getattr(pace, f.name) * getattr(work, f.name), 1) for f in fields(work)
        },
        "work": {f.name: round(getattr(work, f.name)) for f in fields(work)},
        "seconds": round(seconds, 1),
        # The prediction is for a machine without other work: on a busy one this is to compare.
        "cpu_seconds": round(used, 1),
    }


def write_page() -> None:
    """Write the stored rows as a table."""
    order = [(shape, method) for shape in SHAPES for method in METHODS]
    rows = sorted(
        json.loads(RESULT.read_text()), key=lambda r: order.index((r["shape"], r["method"]))
    )
    lines = [
        "# What `editbench doctor` predicts, and what was measured",
        "",
        f"`python benchmarks/doctor.py`: Llamas with random weights, {N} facts, one thread of a"
        " CPU, bfloat16. Memory is the peak of the process. Time is of `prepare` and `inject` with"
        " an empty cache; the prediction is for a machine without other work, so where others took"
        " turns it compares with the seconds of the core. An empty place was not measured."
        " The trainings here have four steps. The trainings of 135m were measured by a quiet clock;"
        " the other rows are older, at a load of 9 on two cores, and their seconds were predicted"
        " before hashes, own text in float32 and the optimizer's memory were counted.",
        "",
        "| shape | method | GiB predicted | measured | ratio | seconds predicted | of the core |"
        " by the clock |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        predicted, measured = (row[f"{k}_bytes"] / 2**30 for k in ("predicted", "measured"))
        timed = row.get("cpu_seconds") is not None
        lines.append(
            f"| {row['shape']} | {row['method']} | {predicted:.2f} | {measured:.2f} |"
            f" {row['ratio']:.2f} | {row['predicted_seconds'] if timed else ''} |"
            f" {row['cpu_seconds'] if timed else ''} | {row['seconds'] if timed else ''} |"
        )
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    if sys.argv[1] == "--page":
        write_page()
        return
    if sys.argv[1] == "--one":
        print(json.dumps(measure(*sys.argv[2:])))
        return
    if sys.argv[1] == "--write":
        write_model(sys.argv[2], Path(sys.argv[3]))
        return
    done = json.loads(RESULT.read_text()) if RESULT.exists() else []
    for argument in sys.argv[1:]:
        shape, _, wanted = argument.partition(":")
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, __file__, "--write", shape, folder], check=True)
            for label in filter(lambda label: wanted in ("", label), METHODS):
                with tempfile.TemporaryDirectory() as cache:
                    command = [sys.executable, __file__, "--one", shape, label, folder]
                    environment = {**os.environ, "EDITBENCH_CACHE": cache}
                    said = subprocess.run(
                        command, stdout=subprocess.PIPE, check=True, env=environment
                    ).stdout
                row = json.loads(said.splitlines()[-1])
                done = [r for r in done if (r["shape"], r["method"]) != (shape, label)] + [row]
                RESULT.write_text(json.dumps(done, indent=1) + "\n")
                print(
                    f"{shape} {label}: {row['predicted_bytes'] / 2**30:.2f} predicted,"
                    f" {row['measured_bytes'] / 2**30:.2f} GiB measured, ratio {row['ratio']};"
                    f" {row['predicted_seconds']} s predicted, {row['seconds']} s measured"
                    f" ({row['cpu_seconds']} s of the core)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
