"""CrispEdit: its projection against the definition, and its training against the authors' code."""

from __future__ import annotations

import copy
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from authors_code import apart

from editbench.changes import dense
from editbench.errors import EditbenchError, MethodError, OptionError
from editbench.methods.crispedit import CrispEdit, allowed_directions
from editbench.methods.statistics import Moment
from editbench.testing import FACTS, tiny_model

SMALL = {"covariance_tokens": 800, "layers": (1, 2), "lr": 3e-3}
CPU = torch.device("cpu")


def spd(n, seed):
    x = torch.randn(n, 3 * n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x @ torch.diag(torch.linspace(0.1, 3, 3 * n, dtype=torch.float64)) @ x.T


def test_the_projection_closes_the_directions_of_most_curvature():
    a, b, energy = spd(6, 0), spd(4, 1), 0.7
    allowed = allowed_directions(Moment(a, 1), b, energy, CPU)
    # By its definition, one direction u_b u_a^T after the other.
    a_values, a_vectors = np.linalg.eigh(a.numpy())
    b_values, b_vectors = np.linalg.eigh(b.numpy())
    pairs = sorted(
        ((b_values[j] * a_values[i], j, i) for i in range(6) for j in range(4)), reverse=True
    )
    total, closed = sum(pair[0] for pair in pairs), 0.0
    gradient = np.random.default_rng(0).standard_normal((4, 6))
    want = gradient.copy()
    for curvature, j, i in pairs:
        if closed >= energy * total:
            break
        closed += curvature
        direction = np.outer(b_vectors[:, j], a_vectors[:, i])
        want -= (gradient * direction).sum() * direction
    got = allowed.project(torch.tensor(gradient).float())
    assert apart(got, torch.tensor(want)) < 1e-5
    assert apart(allowed.project(got), got) < 1e-5


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_first_step_is_adam_on_the_projected_gradient(family):
    model = tiny_model(family)
    editor = CrispEdit(**SMALL, epochs=1)
    edit = editor.inject(model, FACTS)
    copied = copy.deepcopy(model.model).requires_grad_(True)
    loss, n = 0.0, 0
    for prompt, target in (model.pair_ids(f.prompt, f.target, f.form) for f in FACTS):
        logits = copied(input_ids=torch.tensor([prompt + target])).logits[0]
        loss = loss + torch.nn.functional.cross_entropy(
            logits[len(prompt) - 1 : -1], torch.tensor(target), reduction="sum"
        )
        n += len(target)
    (loss / n).backward()
    for layer, (moment, b) in editor.statistics(model, (1, 2)).items():
        name = model.layout.weight_name(layer)
        gradient = copied.get_parameter(name).grad
        allowed = allowed_directions(moment, b, editor.energy, CPU)
        turned = model.layout.transposed
        projected = allowed.project(gradient.T if turned else gradient)
        step = -editor.lr * projected / (projected.abs() + 1e-8)
        assert apart(dense(edit.changes[name]), step.T if turned else step) < 1e-3, name
    assert edit.diagnostics["first_loss"] == pytest.approx((loss / n).item(), rel=1e-4)


def test_it_ends_when_the_facts_are_learnt():
    model = tiny_model("llama")
    edit = CrispEdit(**{**SMALL, "energy": 0.3, "epochs": 400, "lr": 1e-2}).inject(model, FACTS)
    assert edit.diagnostics["final_loss"] < 0.01 and edit.diagnostics["steps"] < 400
    assert edit.changes.keys() == {model.layout.weight_name(layer) for layer in (1, 2)}


def test_bad_input_is_refused_in_one_sentence():
    model = tiny_model("llama")
    with pytest.raises(OptionError, match="energy must be a share"):
        CrispEdit.from_options("crispedit", {"energy": 1.0})
    with pytest.raises(MethodError, match="not layers of"):
        CrispEdit(layers=(9,)).inject(model, FACTS)
    with pytest.raises(MethodError, match=r"no direction is left outside of 0.9 .*Lower crispedit"):
        allowed_directions(Moment(torch.eye(1, dtype=torch.float64), 1), torch.eye(1), 0.9, CPU)
    with pytest.raises(EditbenchError, match="finite|became") as caught:
        CrispEdit(**{**SMALL, "lr": 3e38}).inject(model, FACTS)
    assert "\n" not in str(caught.value)


@pytest.fixture
def published():
    """The projection and the optimizer of the authors' code, from its source text."""
    inner = "CrispEdit/easyeditor/models/crispedit"
    folder = Path(os.environ.get("EDITBENCH_REFERENCE", "")) / inner
    if "EDITBENCH_REFERENCE" not in os.environ or not folder.is_dir():
        pytest.skip("EDITBENCH_REFERENCE names no folder with a checkout of CrispEdit")
    spec = importlib.util.spec_from_file_location("projected_adam", folder / "projected_adam.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (folder / "utils.py").read_text()
    scope = {"torch": torch}
    exec(text[text.index("def get_rank_and") : text.index("def get_cov_ab")], scope)
    return module.ProjectedAdam, scope["calculate_projection_cache_with_kfac"]


def test_it_is_the_published_code(published):
    projected_adam, directions = published
    model, steps = tiny_model("llama"), 5
    editor = CrispEdit(**SMALL, epochs=steps)
    edit = editor.inject(model, FACTS)
    copied = copy.deepcopy(model.model).requires_grad_(False)
    caches = {}
    for layer, (moment, b) in editor.statistics(model, (1, 2)).items():
        p = copied.get_parameter(model.layout.weight_name(layer)).requires_grad_(True)
        caches[p] = directions(moment.c_ff, b.double(), editor.energy)
    optimizer = projected_adam(list(caches), caches, lr=editor.lr)
    pairs = [model.pair_ids(f.prompt, f.target, f.form) for f in FACTS]
    for _ in range(steps):
        nll, n = 0.0, 0
        for prompt, target in pairs:
            ids = torch.tensor([prompt + target])
            labels = torch.tensor([[-100] * len(prompt) + target])
            nll = nll + copied(input_ids=ids, labels=labels).loss * len(target)
            n += len(target)
        optimizer.zero_grad(set_to_none=True)
        (nll / n).backward()
        optimizer.step()
    assert (nll / n).item() == pytest.approx(edit.diagnostics["final_loss"], rel=1e-4)
    for name, change in edit.changes.items():
        theirs = copied.get_parameter(name) - model.weight(name)
        assert apart(dense(change), theirs.detach()) < 1e-3, name
