"""Measure how much faster the batched target solver is than a faithful solver of single facts.

    python benchmarks/solver_speed.py [--facts 32] [--naive 32]     # about 8 minutes on two cores

The naive solver follows kmeng01/memit ``compute_z.py``: one fact at a time, full forward passes of
all prompts padded to one length, logits at every position from the model and once more from the
last layer's output, float32. Both get the same facts, prefixes, rate and number of iterations
(nothing stops early), in one run, and each result is compared with the naive one. The facts are the
demo corpus's dev slice. Stored in ``benchmarks/results/solver_speed.json``.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from editbench import registry
from editbench.files import write_json_atomic
from editbench.layout import hidden_of, replace_hidden
from editbench.methods._edit.batch import BatchBench
from editbench.methods._edit.layers import default_layers
from editbench.methods._edit.prepare import STAND_IN, context_prefixes, prepare_facts
from editbench.methods._edit.value import Targets, optimize
from editbench.methods.memit import Memit, memit_solve
from editbench.models import load_model
from editbench.slices import slice_cases


def naive(model, fact, layer, prefixes, solver):
    """Return v* of one fact and its loss, by full forward passes."""
    hf = model.model.requires_grad_(False)  # restored by main
    rows, positions, labels = [], [], []
    for prefix in ("", *prefixes):
        prompt, target = model.pair_ids(fact.prompt, fact.target, fact.form, prefix=prefix)
        rows.append(prompt + target[:-1])
        positions.append(model.subject_last(fact, prefix))
        labels.append(target)
    kl_ids = prepare_facts(model, [fact], [])[0].kl_ids
    kl_position = len(kl_ids) - 1
    essence = f"{fact.subject} is a"
    whole = (model.prompt_ids(prefix + essence) for prefix in ("", STAND_IN))
    rows.append(next(row for row in whole if row[: len(kl_ids)] == kl_ids))
    positions.append(kl_position)
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    delta = torch.zeros(model.layout.width, requires_grad=True)
    seen = {}

    def add(_module, _args, output):
        states = hidden_of(output).clone()
        if "start" not in seen:
            seen["start"] = states[0, positions[0]].detach().clone()
        for row, position in enumerate(positions):
            states[row, position] = states[row, position] + delta
        return replace_hidden(output, states)

    def keep(_module, _args, output):
        seen["last"] = hidden_of(output)

    norm = hf.base_model.norm
    hooks = [
        model.layout.layer(hf, layer).register_forward_hook(add),
        model.layout.layer(hf, model.layout.depth - 1).register_forward_hook(keep),
    ]
    optimizer, base = None, None
    try:
        for step in range(solver.steps):
            logits = hf(input_ids=ids, attention_mask=mask, use_cache=False).logits
            logp_kl = logits[-1, kl_position].log_softmax(-1)
            base = logp_kl.detach() if base is None else base
            kl = torch.nn.functional.kl_div(base, logp_kl, log_target=True, reduction="sum")
            logp = hf.lm_head(norm(seen["last"][:-1])).log_softmax(-1)
            nll = 0.0
            for row, target in enumerate(labels):
                first = len(rows[row]) - len(target)
                nll = nll - sum(
                    logp[row, first + t, token] for t, token in enumerate(target)
                ) / len(target) / len(labels)
            size = seen["start"].norm()
            loss = nll + solver.kl_factor * kl + solver.weight_decay * delta.norm() / size**2
            if step == solver.steps - 1:
                break
            if optimizer is None:
                optimizer = torch.optim.Adam(
                    [delta], lr=solver.rates(size[None], len(delta)).item()
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                delta.mul_((solver.clamp * size / delta.norm()).clamp(max=1.0))
    finally:
        for hook in hooks:
            hook.remove()
    return seen["start"] + delta.detach(), nll.item()


def compare(found: Targets, wanted: torch.Tensor, rows: int) -> dict[str, Any]:
    """Return how close the values are to the naive ones, and their loss."""
    moved = found.value_ND[:rows] - found.start_ND[:rows]
    cosine = torch.nn.functional.cosine_similarity(moved, wanted - found.start_ND[:rows], dim=-1)
    if not rows:
        return {"nll": found.nll_N.mean().item()}
    low, mean = cosine.min().item(), cosine.mean().item()
    return {"cosine_to_naive": {"mean": mean, "least": low}, "nll": found.nll_N.mean().item()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--facts", type=int, default=32)
    parser.add_argument("--naive", type=int, default=32)
    parser.add_argument("--at-once", type=int)
    options = parser.parse_args()
    cases = slice_cases(
        registry.get("corpora", "demo-counterfact")().load(), "dev", options.facts, 0
    )
    facts = [case.fact for case in cases]
    model, bf16 = (
        load_model(precision=precision, batch_size=options.at_once)
        for precision in ("float32", "bfloat16")
    )
    layer = default_layers(model.layout.depth)[-1]
    prefixes = context_prefixes(model, 5, 0)
    solver = replace(Memit().solver(0.75), stop_below=0.0)
    quick = Memit(quick=True)
    wanted, seconds = [], []
    if options.naive:
        naive(model, facts[0], layer, prefixes, replace(solver, steps=2))  # warm-up
    for fact in facts[: options.naive]:
        start = time.perf_counter()
        value, nll = naive(model, fact, layer, prefixes, solver)
        seconds.append(time.perf_counter() - start)
        wanted.append(value)
        print(f"naive: {seconds[-1]:.2f} s, nll {nll:.3f}", flush=True)
    naive_seconds = sum(seconds) / len(seconds) if seconds else float("nan")
    wanted = torch.stack(wanted) if wanted else torch.zeros(0, model.layout.width)
    model.model.requires_grad_(True)  # autocast keeps only casts of trainable weights
    result = {
        "facts": len(facts),
        "naive_facts": len(seconds),
        "naive_seconds_per_fact": naive_seconds,
        "steps": solver.steps,
    }
    kept = {}
    for name, handle, settings, before in (
        ("fp32", model, solver, prefixes),
        ("bf16", bf16, solver, prefixes),
        ("bf16 with early stop", bf16, replace(solver, stop_below=0.05), prefixes),
        ("quick", bf16, quick.solver(0.75), quick.context(bf16)),
    ):
        two = prepare_facts(handle, facts[:2], before)
        optimize(handle, two, layer, ("residual",), replace(settings, steps=2))
        start = time.perf_counter()
        prepared = prepare_facts(handle, facts, before)
        found = optimize(handle, prepared, layer, ("residual",), settings)
        each = (time.perf_counter() - start) / len(facts)
        result[name] = {"seconds_per_fact": each, "times_as_fast": naive_seconds / each}
        result[name] |= {
            **compare(found, wanted, len(wanted)),
            "mean_steps": found.steps_N.float().mean().item(),
        }
        kept[name] = found
        print(name, result[name], flush=True)
    # the update that MEMIT's equation makes of the two solvers' values, with the same keys and C
    bench = BatchBench(Memit(layers=(layer,)), bf16, facts)
    a_fN = memit_solve(bench.moments[layer], bench.keys(layer), bf16.layout.mlp_width / 3)
    one, two = ((t.value_ND - t.start_ND).double().T @ a_fN.T for t in (kept["fp32"], kept["bf16"]))
    result["cosine_of_updates_fp32_bf16"] = torch.nn.functional.cosine_similarity(
        one.flatten(), two.flatten(), dim=0
    ).item()
    print(result["cosine_of_updates_fp32_bf16"], flush=True)
    path = Path(__file__).parent / "results" / "solver_speed.json"
    if options.naive:
        write_json_atomic(path, result)


if __name__ == "__main__":
    main()
