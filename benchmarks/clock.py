"""Measure where the CPU seconds of an evaluation go, and how near they are to the machine's best.

    OMP_NUM_THREADS=1 python benchmarks/clock.py [--limit 100] [--precision float32] [--save FILE]

The unedited default model answers the retention tasks and the probes of 50 facts of the demo
corpus, as ``compare`` asks them, and ``sft`` makes its first steps. All times are CPU seconds of
one thread, which other processes change little. ``share`` is the rate of the multiplications by
weight matrices in a whole phase, as a share of the rate of one large matrix product, which is
measured in the same run. ``--save`` keeps every score and answer, so that two versions of the code
can be compared item by item. A laptop without AVX-512 is imitated by

    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from editbench import registry
from editbench.eval import probes, retention
from editbench.models import load_model
from editbench.slices import slice_cases

FACTS, STEPS = 50, 12


class Products:
    """Counts the floating-point operations of all linear layers of a model."""

    def __init__(self, model: torch.nn.Module):
        self.operations = 0
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_hook(self._count)

    def _count(self, linear: Any, args: Any, _output: Any) -> None:
        self.operations += 2 * args[0].numel() * linear.out_features


def best_rate(precision: str) -> float:
    """Return the operations per CPU second of a matrix product of 1024 rows, the best of ten."""
    x = torch.randn(1024, 1024, dtype=getattr(torch, precision))
    w = torch.ops.mkldnn._reorder_linear_weight(torch.randn_like(x), None)
    seconds = []
    for _ in range(10):
        start = time.process_time()
        torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], "")
        seconds.append(time.process_time() - start)
    return 2 * 1024**3 / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--tasks", default="default")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(precision=options.precision)
    rate, products = best_rate(model.precision), Products(model.model)
    saved: dict[str, Any] = {}
    print(f"{model.precision}, one thread, best rate {rate / 1e9:.0f} GFLOP/s")
    print(f"{'phase':32} CPU s  GFLOP  share")

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        start, before = time.process_time(), products.operations
        yield
        seconds, operations = time.process_time() - start, products.operations - before
        saved.setdefault("seconds", {})[name] = round(seconds, 2)
        share = operations / seconds / rate
        print(f"{name:32} {seconds:5.1f} {operations / 1e9:6.0f} {share:6.2f}", flush=True)

    def ask(task: str) -> None:
        with model.compute(weights_fixed=True):
            samples = retention.evaluate(
                model.model,
                model.tokenizer,
                [task],
                limit=options.limit,
                batch_size=32,
                answering=model,
            )
        saved[task] = [asdict(sample) for sample in samples[task]]

    tasks = retention.resolve_tasks(options.tasks)
    with phase("importing lm-eval"):
        import editbench.eval.in_memory  # noqa: F401
    model.check_head()
    for task in tasks:
        with phase(task):
            ask(task)
    corpus = registry.get("corpora", "demo-counterfact")()
    cases = slice_cases(corpus.load(), "test", min(FACTS, options.limit), 0)
    asked = [*probes._questions(cases), *probes._distracted(cases)]
    rows: list[Any] = []
    with phase("probes"):
        rows = probes._ask_questions(model, asked, {})
    saved["probes"] = rows
    if model.chat:
        with phase("conversations"):
            saved["conversations"] = probes.ask_conversations(model, cases, rows, {})
    method = registry.get("methods", "sft").from_options("sft", {"stop_after": STEPS / 120})
    with phase(f"sft, {STEPS} steps and its report"):
        edit = method.inject(model, [case.fact for case in cases])
    saved["sft"] = {"final_loss": edit.diagnostics["final_loss"]}
    if options.save:
        options.save.write_text(json.dumps(saved, default=str))


if __name__ == "__main__":
    main()
