"""One training in one process and in two: loss by step, the edit, and the memory of each process.

    python benchmarks/over_processes.py

A random Llama of 26M parameters in float32, on gloo. Memory is what the peak of the process grows
by in ``inject``, so the model itself, which each process has loaded, is not in it. Freed memory is
given back at once (MALLOC_MMAP_THRESHOLD_), or the peak would count what malloc keeps for later.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

METHODS = {
    "sft": {"lr": 1e-4},
    "sft lora=16": {"lr": 1e-3, "lora": 16},
    "mixsd": {"lr": 1e-4, "max_new_tokens": 8, "attempts": 2},
}
SHARED = {"epochs": 2, "min_steps": 1, "batch_size": 2, "enough": 0.0}


def main() -> None:
    """Start the processes and print a table."""
    print("| training | loss by step, 1 process | largest difference | of the edit, at most "
          "| bytes a parameter, 1 process | each of 2 |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- |")
    for which in METHODS:
        with tempfile.TemporaryDirectory() as folder:
            (one,), two = _run(which, 1, folder), _run(which, 2, folder)
            print("|", " | ".join([which, *_row(one, two, Path(folder))]), "|", flush=True)


def _run(which: str, n: int, folder: str) -> list[dict[str, list[float]]]:
    """Train in ``n`` processes; return what each reports."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = [
        subprocess.Popen(
            [sys.executable, __file__, which, folder],
            env={**os.environ, "WORLD_SIZE": str(n), "RANK": str(rank), "LOCAL_RANK": str(rank),
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
                 "MALLOC_MMAP_THRESHOLD_": "1000000"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(n)
    ]  # fmt: skip
    return [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]


def _row(one: dict[str, list[float]], two: list[dict[str, list[float]]], folder: Path) -> list[str]:
    from editbench.changes import dense
    from editbench.edit import Edit

    apart = max(abs(a - b) for a, b in zip(one["losses"], two[0]["losses"], strict=True))
    edits = [Edit.load(folder / name).changes for name in ("1", "2")]
    largest = max(
        (dense(edits[0][name]) - dense(edits[1][name])).abs().max().item() for name in edits[0]
    )
    size = max(dense(change).abs().max().item() for change in edits[0].values())
    return [
        " ".join(f"{loss:.4f}" for loss in one["losses"]),
        f"{apart:.1e}",
        f"{largest:.1e} of {size:.1e}",
        f"{one['memory'][0]:.1f}",
        ", ".join(f"{process['memory'][0]:.1f}" for process in two),
    ]


def train(which: str, folder: str) -> None:
    """Train as one of the processes, and print losses and memory as JSON."""
    from editbench import processes, registry
    from editbench.methods._train import loop
    from editbench.testing import FACTS, tiny_model

    processes.join()
    model = tiny_model("llama", hidden_size=512, intermediate_size=1536, num_hidden_layers=8,
                       num_attention_heads=8, num_key_value_heads=8)  # fmt: skip
    losses: list[float] = []
    step = loop._Optimization.step

    def noted(*args: object) -> tuple[float, int, bool]:
        done = step(*args)  # type: ignore[arg-type]
        losses.append(done[0])
        return done

    loop._Optimization.step = noted  # type: ignore[method-assign, assignment]
    name = which.split()[0]
    method = registry.get("methods", name).from_options(name, {**SHARED, **METHODS[which]})
    # Once on a small model, so that all libraries are loaded before anything is measured.
    method.inject(tiny_model("llama"), FACTS)
    losses.clear()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again at what is held now
    before = _status("VmRSS")
    edit = method.inject(model, FACTS)
    grown = (_status("VmHWM") - before) / sum(p.numel() for p in model.model.parameters())
    if processes.is_first():
        edit.save(Path(folder) / str(processes.count()))
    print(json.dumps({"losses": losses, "memory": [grown]}))


def _status(field: str) -> int:
    """Return a figure of this process's memory in bytes (Linux): VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(*sys.argv[1:])
    else:
        main()
