"""Measure which share of an evaluation is the model's own work, and which is spent around it.

    python benchmarks/overhead.py          # about 3 minutes on one core

The unedited default model answers the probes of 50 facts of the demo corpus and two retention
tasks: one compares choices, one writes. ``forward`` is the CPU seconds inside the model's forward
passes, by hooks on the model, its decoder and its head; ``cpu`` is the CPU seconds in all. Both are
CPU time of one thread, which other processes do not change. The rest is tokenizing, batching,
matching, work on the logits (softmax and argmax over the vocabulary) and on the rows of the cache,
and in the tasks lm-eval. Stored in ``benchmarks/results/overhead.json``.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from editbench import registry
from editbench.eval import probes, retention
from editbench.files import write_json_atomic
from editbench.models import load_model
from editbench.records.environment import environment
from editbench.slices import slice_cases

RESULT = Path(__file__).parent / "results" / "overhead.json"
FACTS = 50
TASKS = ("eb_completion", "eb_instruct")


class ForwardClock:
    """Count CPU seconds of this thread inside forward passes; a nested module counts once."""

    def __init__(self, model: Any):
        self.seconds, self.passes, self._depth = 0.0, 0, 0
        for module in (model, model.base_model, model.get_output_embeddings()):
            module.register_forward_pre_hook(self._enter)
            module.register_forward_hook(self._leave)

    def _enter(self, *_: Any) -> None:
        if self._depth == 0:
            self._start = time.thread_time()
        self._depth += 1

    def _leave(self, *_: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.thread_time() - self._start
            self.passes += 1

    def split(self, work: Callable[[], Any]) -> dict[str, float]:
        """Return what ``work`` costs, inside and around the passes."""
        forward, passes, start = self.seconds, self.passes, time.thread_time()
        work()
        cpu, forward = time.thread_time() - start, self.seconds - forward
        return {
            "cpu": cpu,
            "forward": forward,
            "calls": self.passes - passes,
            "overhead": 1 - forward / cpu,
        }


def main() -> None:
    torch.set_num_threads(1)
    model = load_model()
    cases = slice_cases(registry.get("corpora", "demo-counterfact")().load(), "test", FACTS, 0)

    def ask(task: str, limit: int | None = None) -> None:
        with model.compute(weights_fixed=True):
            retention.evaluate(model.model, model.tokenizer, [task], limit=limit, batch_size=32)

    probes.ask(model, cases[:1])
    for task in TASKS:
        ask(task, 2)  # imports and first calls are not what is measured
    clock = ForwardClock(model.model)
    found = {f"probes of {FACTS} facts": clock.split(lambda: probes.ask(model, cases))}
    for task in TASKS:
        found[task] = clock.split(lambda task=task: ask(task))
    cpu, forward = (sum(cost[key] for cost in found.values()) for key in ("cpu", "forward"))
    found["all"] = {
        "cpu": cpu,
        "forward": forward,
        "calls": clock.passes,
        "overhead": 1 - forward / cpu,
    }
    for name, cost in found.items():
        print(
            f"{name}: {cost['cpu']:.1f} s CPU, "
            f"{cost['overhead']:.1%} of it around the forward passes"
        )
    write_json_atomic(
        RESULT,
        {
            "model": model.name,
            "precision": model.precision,
            "phases": found,
            "environment": environment(),
        },
    )


if __name__ == "__main__":
    main()
