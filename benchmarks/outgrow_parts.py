"""Measure the own memory (RssAnon) of two parts of an injection, each in seconds.

    python benchmarks/outgrow_parts.py train     # a training of all weights, in bytes a parameter
    python benchmarks/outgrow_parts.py moments   # C of two wide layers, in matrices

What they printed is in ``benchmarks/results/outgrow.json`` (``parts``). Linux only.
"""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import usage


def own() -> int:
    """Return the bytes of this process that are in no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


class Peak(threading.Thread):
    """The highest own memory since it was started."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_bytes = self.bytes = own()
        self.start()

    def run(self) -> None:
        while True:
            self.bytes = max(self.bytes, own())
            time.sleep(0.01)


def train() -> None:
    """Make one step of AdamW over a Llama of 271M parameters, and its edit."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from editbench.methods._train.weights import trainable

    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=16,
        num_attention_heads=16,
        tie_word_embeddings=True,
    )
    peak = Peak()
    with torch.device("meta"):
        empty = LlamaForCausalLM(config)
    model = empty.to_empty(device="cpu")
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(0.5)
    n = sum(weight.numel() for weight in model.parameters())
    handle: Any = SimpleNamespace(model=model)
    with trainable(handle, None, None, 0) as trained:
        weights = list(trained.parameters.values())
        optimizer = torch.optim.AdamW(weights, fused=True)
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        optimizer.step()
        print(f"{n / 1e6:.0f}M parameters, {(peak.bytes - peak.start_bytes) / n:.2f} bytes each")
        optimizer.zero_grad()
        del optimizer
        changes = trained.changes()
        print(f"with its edit: {(peak.bytes - peak.start_bytes) / n:.2f}", len(changes))


def moments() -> None:
    """Measure C of two layers with f = 5632 on a short text."""
    from editbench.methods.statistics import second_moments
    from editbench.testing import TEXT, tiny_model

    model = tiny_model("llama", intermediate_size=5632)
    file = Path(os.environ["EDITBENCH_CACHE"]) / "text.txt"
    file.write_text("\n".join(TEXT * 20))
    peak, matrix = Peak(), 8 * 5632**2
    kept = second_moments(model, (0, 1), str(file), 300, 0)
    held, after = (size - peak.start_bytes for size in (peak.bytes, own()))
    print(f"{len(kept)} matrices: {held / matrix:.2f} were held, {after / matrix:.2f} afterwards")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EDITBENCH_CACHE"] = folder
        usage.run(__doc__, {"train": train, "moments": moments}, sys.argv[1:])
