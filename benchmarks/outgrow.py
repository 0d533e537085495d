"""Edit a Llama of 1.1B parameters in bfloat16, and measure what each method holds and takes.

    python benchmarks/outgrow.py write FOLDER               # the model, random weights, 2.2 GB
    python benchmarks/outgrow.py inject FOLDER memit rome   # the command of that name, from outside
    python benchmarks/outgrow.py files FOLDER               # hash, save, load, restore; one pass

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
from pathlib import Path
from typing import Any

import psutil

RESULT = Path(__file__).parent / "results" / "outgrow.json"
N = 20
SHORT = {"epochs": 1, "min_steps": 3, "lr": 1e-5}
SOLVED = {"steps": 3, "covariance_tokens": 2048}
WRITTEN = {"max_new_tokens": 16, "attempts": 1, "on_fail": "keep"}
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
            "said": said[-1:],
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


def demo_facts() -> list[Any]:
    """Return the facts that are injected."""
    from editbench import registry

    cases = registry.get("corpora", "demo-counterfact")().load()
    return [case.fact for case in cases if case.fact.subject][:N]


def main() -> None:
    what, folder, *labels = sys.argv[1:]
    if what == "write":
        write(folder)
        return
    for label in labels or METHODS:
        store(inject(folder, label))


def store(row: dict[str, Any]) -> None:
    """Put a row into the file of results, in place of an earlier one, and print it."""
    done = json.loads(RESULT.read_text()) if RESULT.exists() else []
    done = [old for old in done if old["what"] != row["what"]] + [row]
    RESULT.write_text(json.dumps(done, indent=1) + "\n")
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
