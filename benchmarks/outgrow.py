"""Edit a Llama of 1.1B parameters in bfloat16, and measure what each method holds and takes.

    python benchmarks/outgrow.py write FOLDER               # the model, random weights, 2.2 GB
    python benchmarks/outgrow.py inject FOLDER memit rome   # the command of that name, from outside
    python benchmarks/outgrow.py files FOLDER               # hash, save, load, restore; one pass
    python benchmarks/outgrow.py paper                      # 70B on 8 x 80 GB, from its sizes alone
    python benchmarks/outgrow.py page                       # the tables, benchmarks/outgrow.md

``inject`` starts ``editbench inject`` for 20 facts of the demo corpus, watches its resident memory,
and compares the highest with the doctor's prediction. Steps and tokens are few, since memory does
not depend on their number. Rows are stored in ``benchmarks/results/outgrow.json``.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import usage

RESULT = Path(__file__).parent / "results" / "outgrow.json"
PAGE = Path(__file__).parent / "outgrow.md"
N = 20
SHORT = {"epochs": 1, "min_steps": 1, "lr": 1e-5}
SOLVED = {"steps": 2, "covariance_tokens": 512}
WRITTEN = {"max_new_tokens": 8, "attempts": 1, "on_fail": "keep"}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "memit": ("memit", SOLVED),
    "rome": ("rome", SOLVED),
    "alphaedit": ("alphaedit", SOLVED),
    "sft-lora": ("sft", {**SHORT, "lora": 16}),
    "mixsd-lora": ("mixsd", {**SHORT, **WRITTEN, "lora": 16}),
    "sft": ("sft", SHORT),
}


def write(folder: str) -> None:
    """Write a random Llama of TinyLlama's shape, held in bfloat16, and SmolLM2's tokenizer."""
    import torch
    from doctor import SHAPES
    from transformers import AutoConfig, AutoModelForCausalLM

    from editbench.outline import read_tokenizer

    tokenizer = read_tokenizer("smollm2-135m")
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), **SHAPES["1.1b"])
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def inject(model: str, label: str) -> dict[str, Any]:
    """Run ``editbench inject`` and return its highest resident memory and its seconds."""
    name, options = METHODS[label]
    with tempfile.TemporaryDirectory() as folder:
        facts = Path(folder) / "facts.jsonl"
        facts.write_text("".join(json.dumps(fact.to_dict()) + "\n" for fact in demo_facts()))
        command = [sys.executable, "-m", "editbench", "inject", "--model", model]
        command += ["--method", name, "--facts", str(facts), "--output", f"{folder}/edit"]
        for key, value in options.items():
            command += ["--option", f"{key}={value}"]
        environment = {**os.environ, "EDITBENCH_CACHE": f"{folder}/cache"}
        started = time.perf_counter()
        child = psutil.Popen(command, env=environment, stderr=subprocess.PIPE)
        peak, anonymous = 0, 0
        while child.poll() is None:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{child.pid}/status").open())
            if "VmHWM" in status:
                peak, now = (int(status[key].split()[0]) for key in ("VmHWM", "RssAnon"))
                anonymous = max(anonymous, now)
            time.sleep(0.05)
        said = child.stderr.read().decode().splitlines()
        edit = Path(folder) / "edit" / "edit.safetensors"
        return {
            "what": label,
            "options": options,
            "exit": child.returncode,
            "seconds": round(time.perf_counter() - started, 1),
            "peak_bytes": peak * 1024,
            "anonymous_bytes": anonymous * 1024,
            "edit_bytes": edit.stat().st_size if edit.exists() else 0,
            "said": said[-2:],
            **predicted(model, label),
        }


def predicted(model: str, label: str) -> dict[str, Any]:
    """Return what the doctor predicts for it."""
    from editbench import registry
    from editbench.memory import Texts
    from editbench.outline import read_outline
    from editbench.prediction import predict

    name, options = METHODS[label]
    method = registry.get("methods", name).from_options(name, options)
    found = predict(method, read_outline(model), Texts.of(demo_facts()))
    assert found is not None
    held = {what: size for what, size in found.tightest.held.items() if size > 2**20}
    return {
        "predicted_bytes": found.tightest.needed,
        "phase": found.phase,
        "held": held,
        "predicted_edit_bytes": found.edit,
    }


def files(model: str) -> None:
    """Measure what the bookkeeping of two edits takes: of one matrix, and of all weights."""
    import torch

    from editbench.edit import Edit
    from editbench.models import load_model
    from editbench.tensors import filed

    seconds: dict[str, float] = {}

    def timed(what: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        made = work()
        seconds[what] = round(time.perf_counter() - started, 2)
        return made

    handle = timed("load the model", lambda: load_model(model))
    facts = demo_facts()
    pairs = [handle.pair_ids(fact.prompt, fact.target, fact.form) for fact in facts]
    handle.target_logprobs(pairs[:1])  # checks the head, once
    timed("one forward pass over the facts", lambda: handle.target_logprobs(pairs))
    weights = timed("hash", handle.fingerprint)
    timed("hash, as in float32", lambda: handle.fingerprint(torch.float32))
    shapes = {name: p.shape for name, p in handle.model.named_parameters()}
    name = handle.layout.weight_name(3)
    left, right = torch.randn(shapes[name][0], N), torch.randn(N, shapes[name][1])
    whole = filed(
        ((name, torch.full(shape, 1e-4)) for name, shape in shapes.items()),
        4 * sum(map(torch.Size.numel, shapes.values())),
    )
    for what, changes in (("one matrix", {name: (left, right)}), ("all weights", whole)):
        edit = Edit("sft", {}, handle.name, weights, tuple(facts), changes)
        edit = replace(edit, model_dtype=handle.dtype_name)
        with tempfile.TemporaryDirectory(dir=Path(model).parent) as folder:
            timed(f"save ({what})", partial(edit.save, f"{folder}/edit"))
            loaded = timed(f"load ({what})", partial(Edit.load, f"{folder}/edit"))
            revert = timed(f"apply ({what})", partial(loaded.apply, handle, check=False))
            timed(f"restore ({what})", revert)
    assert handle.fingerprint() == weights
    store({"what": "files", "seconds": seconds, "peak_bytes": _peak()})


def _peak() -> int:
    """Return the highest resident memory of this process, files that it maps included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return 1024 * int(line.split()[1])
    raise SystemExit("This needs Linux.")


LLAMA_70B = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
ON_PAPER = {
    "memit": ("memit", {}),
    "sft-lora": ("sft", {"lora": 16}),
    "sft": ("sft", {}),
}


def paper() -> None:
    """Say what the doctor predicts of Llama 70B in bfloat16 on 8 devices of 80 GB.

    It takes them for one device: ``--device-map`` spreads the layers evenly, and what of them a
    single device holds is not predicted.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from editbench import registry
    from editbench.asked import answering
    from editbench.memory import Texts
    from editbench.outline import Outline

    config = AutoConfig.for_model("llama", **LLAMA_70B)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    pool = 8 * 80 * 10**9
    outline = Outline("llama-70b", empty, torch.device("cuda"), "bfloat16", pool, dtype="bfloat16")
    rows = {}
    texts = Texts.of(demo_facts())
    for label, (name, options) in ON_PAPER.items():
        method = registry.get("methods", name).from_options(name, options)
        memory, work = method.memory(outline, texts), method.work(outline, texts)
        assert memory is not None and work is not None
        phases = [*memory.phases, answering(outline, memory, texts)]
        worst = max(phases, key=lambda phase: sum(phase.device.values()))
        held = {"weights": outline.weights, **worst.device}
        rows[label] = {
            "phase": worst.name,
            "devices": {what: round(size / 1e9, 1) for what, size in held.items() if size},
            "on_devices": round(sum(held.values()) / 1e9, 1),
            "in_main_memory": round(max(sum(p.main.values()) for p in phases) / 1e9, 1),
            "fits": sum(held.values()) <= pool,
            "edit": round(memory.edit / 1e9, 2),
            "work": {what: round(amount) for what, amount in vars(work).items() if amount},
        }
    store({"what": "paper", "parameters": outline.parameters, "methods": rows})


def demo_facts() -> list[Any]:
    """Return the facts that are injected."""
    from editbench import registry

    cases = registry.get("corpora", "demo-counterfact")().load()
    return [case.fact for case in cases if case.fact.subject][:N]


def main() -> None:
    commands = {"write": write, "inject": measure, "files": files, "paper": paper, "page": page}
    usage.run(__doc__, commands, sys.argv[1:])


def measure(folder: str, *labels: str) -> None:
    """Measure and store the methods of these names, or all."""
    usage.check_names("method", labels, METHODS)
    for label in labels or METHODS:
        store(inject(folder, label))


def page() -> None:
    """Write the stored rows as tables."""
    rows = {row["what"]: row for row in json.loads(RESULT.read_text())}
    lines = [
        "# What a model of 1.1B parameters in bfloat16 takes",
        "",
        f"`python benchmarks/outgrow.py`: a random Llama of TinyLlama's shape, `inject` of {N}"
        " facts, one thread of a CPU that others used as well. `resident` is the highest memory of"
        " the process, with the pages of files that it maps, which the system can take back; `own`"
        " is without them. The doctor predicts what is own. Steps and tokens are few, so seconds"
        " say nothing"
        " about a whole edit.",
        "",
        "| method | resident GB | own GB | predicted GB | phase | edit MB | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for label in METHODS:
        if (row := rows.get(label)) is None:
            row = predicted(sys.argv[2], label) if len(sys.argv) > 2 else None
            if row is not None:
                size = f"{row['predicted_bytes'] / 1e9:.1f}"
                lines.append(f"| {label} | not measured | | {size} | {row['phase']} | | |")
            continue
        sizes = [row[f"{k}_bytes"] / 1e9 for k in ("peak", "anonymous", "predicted")]
        done = row["exit"] in (0, 1)  # 1: the verdict, since two steps teach nothing
        texts = [f"{size:.1f}" for size in sizes] if done else ["refused", "", f"{sizes[2]:.1f}"]
        edit = f"{row['edit_bytes'] / 1e6:.1f}" if done else ""
        lines.append(
            f"| {label} | {' | '.join(texts)} | {row['phase']} | {edit} | {row['seconds']} |"
        )
    if "parts" in rows:
        lines += ["", "## Measured part by part (`benchmarks/outgrow_parts.py`)", ""]
        lines += [f"- {line}" for line in rows["parts"]["said"]]
    if "sft" in rows:
        lines += ["", "The refusal:", "", *(f"> {line}" for line in rows["sft"]["said"])]
    if "files" in rows:
        lines += ["", "## Bookkeeping", "", "| what | seconds |", "|---|---|"]
        lines += [f"| {what} | {spent} |" for what, spent in rows["files"]["seconds"].items()]
    if "paper" in rows:
        lines += [
            "",
            "## Llama 70B in bfloat16 on 8 devices of 80 GB, on paper",
            "",
            "What the doctor's sums say of a machine that was not there. All devices count as one"
            " pool of 640 GB; how evenly a device map fills them is not predicted. Nor is the time:"
            " the doctor measures the pace of the machine that it runs on, and here it has none to"
            " measure.",
            "",
            "| method | GB on all devices | of them | fits | GB of main memory | edit GB |",
            "|---|---|---|---|---|---|",
        ]
        for label, row in rows["paper"]["methods"].items():
            parts = ", ".join(f"{what} {size}" for what, size in row["devices"].items())
            lines.append(
                f"| {label} | {row['on_devices']} | {parts} | {'yes' if row['fits'] else 'no'} |"
                f" {row['in_main_memory']} | {row['edit']} |"
            )
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def store(row: dict[str, Any]) -> None:
    """Put a row into the file of results, in place of an earlier one, and print it."""
    done = json.loads(RESULT.read_text()) if RESULT.exists() else []
    done = [old for old in done if old["what"] != row["what"]] + [row]
    RESULT.write_text(json.dumps(done, indent=1) + "\n")
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
