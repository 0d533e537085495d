"""Measure how much faster the batched target solver is than solvers of single facts.

    python benchmarks/solver_speed.py [--facts 32] [--naive 32]     # about 8 minutes on two cores
    python benchmarks/solver_speed.py --reference FOLDER [--facts 8]    # beside the authors' code
    python benchmarks/solver_speed.py table                         # all stored ratios

With ``--reference``, FOLDER has the checkouts ``rome`` and ``memit`` (``tests/authors_code.py``
says which). Whole calls are timed, in seconds of the processor and on one thread: theirs, and ours
with the settings of the papers (``recipe=paper``) in float32, so that both make the same edits. C
and the prefixes are given to both; in ours the call reads C from the cache and writes the prefixes
again. ``rome`` is timed for facts that are injected alone one after the other, for facts that are
written on top of each other, and for edits of single facts found side by side (``inject_each``).

The naive solver follows kmeng01/memit ``compute_z.py``: one fact at a time, full forward passes of
all prompts padded to one length, logits at every position from the model and once more from the
last layer's output, float32. Both get the same facts, prefixes, rate and number of iterations
(nothing stops early), in one run, and each result is compared with the naive one. The facts are the
demo corpus's dev slice. Stored in ``benchmarks/results/solver_speed.json``.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

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

RESULT = Path(__file__).parent / "results" / "solver_speed.json"
T = TypeVar("T")


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


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """Return what ``call`` returns, and its seconds of the processor."""
    started = time.process_time()
    result = call()
    return result, time.process_time() - started


def their_seconds(
    name: str, method, model, facts: Sequence, moments, prefixes
) -> tuple[dict, float]:
    """Return the change of each weight and the seconds of the authors' code, facts together."""
    import authors_code as authors

    with authors.checkout(name, authors.by_module(model, moments)) as load:
        main, hparams = load(f"{name}.{name}_main"), load(f"{name}.{name}_hparams")
        shared = authors.settings(method, model, list(moments))
        copied, tokenizer = authors.theirs(model)
        asked, prefixed = authors.requests(facts), authors.templates(prefixes)
        if name == "rome":
            main.CONTEXT_TEMPLATES_CACHE = ["{}", *prefixed]
            chosen = hparams.ROMEHyperParams(**shared, context_template_length_params=[])
            apply = main.apply_rome_to_model
        else:
            main.CONTEXT_TEMPLATES_CACHE = [["{}"], prefixed]
            chosen = hparams.MEMITHyperParams(
                **shared, layer_selection="all", mom2_update_weight=method.lam
            )
            apply = main.apply_memit_to_model
        with redirect_stdout(StringIO()):
            _, seconds = timed(lambda: apply(copied, tokenizer, asked, chosen))
        return authors.differences(model, copied, moments), seconds


def against_authors(name: str, model, facts: Sequence) -> dict[str, Any]:
    """Return seconds a fact of the authors' code and of ours, and how far the edits are apart."""
    import authors_code as authors

    from editbench.changes import dense

    method = registry.get("methods", name).from_options(name, {"recipe": "paper"})
    layers = method.edited_layers(model)
    moments, prefixes = method.moments(model, layers), method.context(model)
    n = len(facts)
    edit, together = timed(lambda: method.inject(model, facts))
    theirs, their = their_seconds(name, method, model, facts, moments, prefixes)
    apart = [authors.apart(dense(edit.changes[weight]), theirs[weight]) for weight in theirs]
    seconds = {"together": together / n}
    if name == "rome":
        alone = [timed(lambda fact=fact: method.inject(model, [fact])) for fact in facts]
        seconds["one call a fact"] = sum(one for _, one in alone) / n
        each, side = timed(lambda: list(method.inject_each(model, facts)))
        seconds["side by side"] = side / n
        apart += [
            authors.apart(dense(edit.changes[weight]), dense(one.changes[weight]))
            for edit, (one, _) in zip(each, alone, strict=True)
            for weight in one.changes
        ]
    return {
        "facts": n,
        "steps": method.steps,
        "prefixes": len(prefixes),
        "authors_seconds_per_fact": their / n,
        "seconds_per_fact": seconds,
        "times_as_fast": {way: their / n / each for way, each in seconds.items()},
        "apart": max(apart),
        "threads": torch.get_num_threads(),
        "hardware": processor(),
    }


def processor() -> str:
    """Return the name of the processor, and the widest instructions that torch uses on it."""
    lines = (
        Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    )
    named = next((line.partition(":")[2] for line in lines if line.startswith("model name")), "")
    return f"{named.strip() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def table(stored: dict[str, Any]) -> None:
    """Print the ratios: against the naive solver here, and against the authors' code."""
    kinds = [name for name, row in stored.items() if isinstance(row, dict) and "nll" in row]
    print(f"solver alone, against the naive one ({stored['facts']} facts, {stored['steps']} steps)")
    for kind in kinds:
        print(f"  {kind}: {stored[kind]['times_as_fast']:.1f}")
    for name, row in stored.get("authors", {}).items():
        print(
            f"{name}, whole call, against the authors' code ({row['facts']} facts, {row['steps']} "
            f"steps, {row['prefixes']} prefixes, float32, {row['threads']} thread, "
            f"{row['hardware']}; {row['authors_seconds_per_fact']:.1f} s a fact of theirs)"
        )
        for way, ratio in row["times_as_fast"].items():
            print(f"  {way}: {ratio:.1f}")


def measure_authors(folder: Path, n: int) -> None:
    """Measure rome and memit beside the authors' code, and store it."""
    os.environ["EDITBENCH_REFERENCE"] = str(folder)
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    torch.set_num_threads(1)
    cases = slice_cases(registry.get("corpora", "demo-counterfact")().load(), "dev", None, 0)
    # Their code wants the subject once in the prompt, and knows no chat template.
    usable = [
        case.fact
        for case in cases
        if case.fact.form == "cloze" and case.fact.prompt.count(case.fact.subject) == 1
    ]
    model = load_model(precision="float32")
    for name in ("rome", "memit"):
        row = against_authors(name, model, usable[:n])
        stored = json.loads(RESULT.read_text())
        write_json_atomic(RESULT, stored | {"authors": stored.get("authors", {}) | {name: row}})
        print(name, row, flush=True)
    table(json.loads(RESULT.read_text()))


def main() -> None:
    if sys.argv[1:] == ["table"]:
        return table(json.loads(RESULT.read_text()))
    parser = argparse.ArgumentParser()
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--facts", type=int)
    parser.add_argument("--naive", type=int, default=32)
    parser.add_argument("--at-once", type=int)
    options = parser.parse_args()
    if options.reference:
        return measure_authors(options.reference, options.facts or 8)
    cases = slice_cases(
        registry.get("corpora", "demo-counterfact")().load(), "dev", options.facts or 32, 0
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
    if options.naive:
        write_json_atomic(RESULT, {**json.loads(RESULT.read_text()), **result})
    table({**json.loads(RESULT.read_text()), **result})


if __name__ == "__main__":
    main()
