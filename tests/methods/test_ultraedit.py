"""UltraEdit against its equations and the authors' code, and what it keeps for a sequence."""

from __future__ import annotations

import importlib.util
import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from authors_code import apart
from hostile.sequences import reloaded

from editbench.changes import dense
from editbench.errors import MethodError
from editbench.methods.ultraedit import (
    STEPS,
    UltraEdit,
    edited_modules,
    read_tokens,
    spread,
    token_sums,
    update,
)
from editbench.stack import stacked
from editbench.testing import FACTS, tiny_model

LR = 3e-3


def pairs_of(model, facts):
    return [model.pair_ids(fact.prompt, fact.target, fact.form) for fact in facts]


def by_hand(model, facts, editor, tokens_before=()):
    """Return the change of each weight from the equations, with gradients of single texts."""
    modules = edited_modules(
        model, editor.edited_layers(model), editor.which(model, editor.edited_layers(model))
    )
    changes = {}
    for name, module in modules.items():
        rows = []
        for prompt, target in pairs_of(model, facts):
            seen = {}

            def keep(_module, args, output, seen=seen):
                seen["h"] = args[0].detach()
                seen["out"] = output.detach().requires_grad_(True)
                return seen["out"]

            hook = module.register_forward_hook(keep)
            logits = model.model(input_ids=torch.tensor([prompt + target])).logits[0]
            hook.remove()
            labels = torch.tensor(target)
            loss = torch.nn.functional.cross_entropy(
                logits[len(prompt) - 1 : -1], labels, reduction="sum"
            )
            (g,) = torch.autograd.grad(loss, seen["out"])
            h = seen["h"].reshape(-1, seen["h"].shape[-1])
            g = g.reshape(-1, g.shape[-1])
            rows.append(torch.cat([h, g], 1)[len(prompt) - 1 : -1].double().numpy())
        z, f = np.concatenate(rows), h.shape[1]
        every = np.concatenate([*[t[name] for t in tokens_before], z])
        hat = (z - every.mean(0)) / (every.std(0, ddof=1) + np.finfo(np.float32).eps)
        h_nf = z[:, :f]
        v = -LR * (hat[:, :f] ** 2).sum(1, keepdims=True) * hat[:, f:]
        delta = np.linalg.solve(h_nf.T @ h_nf + np.eye(f), h_nf.T @ v)
        changes[name] = (z, torch.tensor(delta.T if isinstance(module, torch.nn.Linear) else delta))
    return changes


@pytest.mark.parametrize("projections", ["in", "out"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_it_is_the_equation(family, projections):
    model, editor = tiny_model(family), UltraEdit(lr=LR, layers=(1, 2), projections=projections)
    if (family, projections) == ("opt", "in"):  # its MLP is no module of its own
        with pytest.raises(MethodError, match="Use ultraedit.projections=out"):
            editor.inject(model, FACTS)
        return
    edit = editor.inject(model, FACTS)
    want = by_hand(model, FACTS, editor)
    assert edit.changes.keys() == want.keys() and len(want) == {"llama": 4}.get(
        family * (projections == "in"), 2
    )
    for name, (_, change) in want.items():
        assert apart(dense(edit.changes[name]), change) < 1e-4, name


def test_mean_and_std_go_on_in_a_sequence_and_from_files(tmp_path):
    model, editor = tiny_model("llama"), UltraEdit(lr=LR, layers=(2,), projections="out")
    first = editor.inject(model, FACTS[:2])
    before = {name: z for name, (z, _) in by_hand(model, FACTS[:2], editor).items()}
    with reloaded(first, tmp_path / "first").applied(model):
        second = editor.inject(model, FACTS[2:])
        ((name, (_, want)),) = by_hand(model, FACTS[2:], editor, [before]).items()
    assert apart(dense(second.changes[name]), want) < 1e-4
    assert second.diagnostics["earlier_tokens"] == first.diagnostics["tokens"]
    # a stack, from a file as well, stands for both
    both = reloaded(stacked([first, second]), tmp_path / "stack")
    assert torch.equal(both.sums[name], first.sums[name] + second.sums[name])


@pytest.mark.parametrize(("family", "which"), [("llama", "in"), ("gpt2", "in"), ("opt", "out")])
def test_the_default_reads_the_residual_where_the_mlp_does(family, which):
    model, editor = tiny_model(family), UltraEdit()
    edit = editor.inject(model, FACTS)
    assert edit.diagnostics["projections"] == which
    assert edit.diagnostics["learning_rate"] * (64 if which == "out" else 32) == STEPS[which]


def test_mean_and_std_come_from_sums():
    h, g = torch.randn(7, 3), torch.randn(7, 2) + 5
    mean, std = spread(token_sums(h[:4], g[:4]) + token_sums(h[4:], g[4:]))
    z = torch.cat([h, g], 1).double()
    assert torch.allclose(mean, z.mean(0)) and torch.allclose(std, z.std(0))


def test_more_tokens_than_inputs_are_solved_on_the_other_side():
    h, g = torch.randn(40, 8), torch.randn(40, 5)
    sums = token_sums(h, g)
    mean, std = spread(sums)
    hat = (torch.cat([h, g], 1).double() - mean) / std
    v = -LR * hat[:, :8].square().sum(1, keepdim=True) * hat[:, 8:]
    for n in (40, 6):
        h_n = h[:n].double()
        want = torch.linalg.solve(h_n.T @ h_n + torch.eye(8), h_n.T @ v[:n]).T
        assert apart(dense(update(h[:n], g[:n], sums, LR)), want) < 1e-5, n


def test_one_token_has_no_spread_and_says_so():
    model = tiny_model("llama")
    short = replace(FACTS[0], target="a")
    assert len(pairs_of(model, [short])[0][1]) == 1
    edit = UltraEdit(lr=LR).inject(model, [short])
    assert "there is only one" in edit.diagnostics["warnings"][-1]


def test_an_update_that_is_not_finite_is_refused_in_one_sentence():
    with pytest.raises(MethodError, match=r"not finite in torch.float32. Lower ultraedit.lr"):
        UltraEdit(lr=3e38).inject(tiny_model("llama"), FACTS)


@pytest.fixture
def published():
    """The normaliser and the solver of the authors' code, from its source text."""
    folder = Path(os.environ.get("EDITBENCH_REFERENCE", "")) / "UltraEdit"
    if "EDITBENCH_REFERENCE" not in os.environ or not folder.is_dir():
        pytest.skip("EDITBENCH_REFERENCE names no folder with a checkout of UltraEdit")
    spec = importlib.util.spec_from_file_location("ultraedit_nets", folder / "nets.py")
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    text = (folder / "editor" / "ultraedit.py").read_text()
    start, end = text.index("def pad_tensor"), text.index("class ULTRAEDIT")
    body = text[text.index("    def predict_param_shifts") : text.index("    def cache(")]
    scope = {"torch": torch, "math": math, "Dict": dict}
    exec(text[start:end] + "class Solver:\n" + body, scope)
    return SimpleNamespace(scope=scope, normalizer=nets.RunningMeanStd)


@pytest.mark.parametrize("projections", ["in", "out"])
def test_it_is_the_published_code(published, projections, monkeypatch):
    model = tiny_model("llama")
    editor = UltraEdit(lr=LR, layers=(1, 2), projections=projections)
    modules = edited_modules(model, (1, 2), projections)
    pairs = pairs_of(model, FACTS)
    read, _ = read_tokens(model, modules, pairs)
    n = sum(len(target) for _, target in pairs)
    # One batch, whose loss is a mean over its tokens, and whose variance has a factor n / (n - 1).
    lr = LR * (n / (n - 1)) ** 1.5
    monkeypatch.setitem(
        published.scope, "get_module", lambda model, name: model.get_submodule(name)
    )
    monkeypatch.setitem(
        published.scope, "get_shape", lambda module: tuple(module.weight.shape[::-1])
    )
    stored: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(torch, "load", lambda path: stored[path.rsplit("/", 1)[1]])
    ours = editor.inject(model, FACTS).changes
    for name, (h, g) in read.items():
        normalizer = published.normalizer(h.shape[1] + g.shape[1])
        normalizer.update(torch.cat((h, g / n), -1))
        stored |= {"0_0_keys.pth": h, "0_0_values_grad.pth": g / n}
        solver = published.scope["Solver"]()
        solver.model = model.model
        solver.lifelong_normalizer = {str((h.shape[1], g.shape[1])): normalizer}
        solver.config = SimpleNamespace(
            num_seq=1,
            editor_device="cpu",
            model=SimpleNamespace(edit_modules=[name.removesuffix(".weight")], name="m"),
            dataset=SimpleNamespace(n_edits=1, batch_size=1, name="d"),
            editor=SimpleNamespace(cache_dir="c", name="u", batch_size=1024, lr=lr),
        )
        (theirs,) = solver.predict_param_shifts().values()
        assert apart(dense(ours[name]), theirs.T) < 1e-4, name
