"""What is kept in files for a large model gives the very numbers that it gives in memory."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest
import torch

from editbench import edit as edit_module
from editbench import registry, tensors
from editbench.changes import dense
from editbench.edit import Edit
from editbench.errors import MethodError
from editbench.hub import cache_dir
from editbench.methods.statistics import second_moments
from editbench.models import load_model
from editbench.placing import hold
from editbench.run.chain import Chain
from editbench.testing import FACTS, tiny_model, tiny_options, unchanged


def made(name, model, **options):
    kind = registry.get("methods", name)
    method = kind(**{**tiny_options(kind), **options})
    with unchanged(model, "inject"):
        return method.inject(model, FACTS)


def same(one, other):
    assert one.changes.keys() == other.changes.keys() and one.changes
    for name, change in one.changes.items():
        assert torch.equal(dense(change), dense(other.changes[name])), name


def model_in(dtype):
    model = tiny_model("llama").model
    hold(model, dtype)
    return load_model(model, tiny_model("llama").tokenizer)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", [{}, {"l2": 0.1}, {"interpolation": 0.5}])
def test_a_training_with_copies_in_files(dtype, options, monkeypatch, tmp_path):
    model = model_in(dtype)
    want = made("sft", model, epochs=2, **options)
    monkeypatch.setattr(tensors, "FILED", 0)
    monkeypatch.setattr(tensors, "LARGE", 0)
    monkeypatch.setattr(edit_module, "AT_ONCE", 7)
    edit = made("sft", model, epochs=2, **options)
    same(edit, want)
    assert not list(cache_dir().glob("tmp*")), "the files have no names"
    loaded = Edit.load(edit.save(tmp_path / "edit"))
    same(loaded, want)
    hashes = []
    for each in (want, edit, loaded):
        with unchanged(model, "applied()"), each.applied(model):
            hashes.append(model.fingerprint())
    assert len(set(hashes)) == 1 and hashes[0] != edit.model_hash


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_full_disk_ends_a_training_in_one_sentence(dtype, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensors, "FILED", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    model = model_in(dtype)
    with (
        unchanged(model, "a refused inject"),
        pytest.raises(MethodError, match=r"no room for .* \(\d.*iB\) in .*No space left.*use lora"),
    ):
        made("sft", model, epochs=1)


@pytest.mark.parametrize("name", ["alphaedit", "memit", "rome"])
def test_statistics_in_files(name, monkeypatch):
    model = tiny_model("llama")
    options = {"covariance_tokens": 300, "steps": 3}
    want = made(name, model, **options)
    monkeypatch.setattr(tensors, "LARGE", 0)
    same(made(name, model, **options), want)
    # the same matrices, now measured and written to the cache as large ones
    before = second_moments(model, (0, 1), "self", 300, 1)
    for file in cache_dir().glob("statistics/*"):
        file.unlink()
    after = second_moments(model, (0, 1), "self", 300, 1)
    for layer, moment in before.items():
        assert torch.equal(moment.c_ff, after[layer].c_ff)
        assert torch.equal(moment.cholesky_ff, after[layer].cholesky_ff)


@pytest.mark.parametrize(("name", "options"), [("sft", {"lora": 2}), ("mixsd", {"lora": 2})])
def test_adapters_leave_weights_of_16_bits_as_they_are(name, options, monkeypatch):
    """They are float32, and no weight of the base becomes float32 beside them."""
    from editbench.methods._train.adapters import Adapters

    seen = []

    def constrain(self):
        bases = {p.dtype for n, p in self.wrapped.named_parameters() if "lora_" not in n}
        seen.append((bases, {p.dtype for p in self.parameters.values()}))

    monkeypatch.setattr(Adapters, "constrain", constrain)
    edit = made(name, model_in("bfloat16"), epochs=2, **options)
    assert edit.changes and set(map(str, seen)) == {str(({torch.bfloat16}, {torch.float32}))}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_fingerprint_is_one_digest_of_all_weights_in_order(dtype):
    """Edits that were saved earlier name it, so it never changes."""
    model, sha = tiny_model("gpt2"), hashlib.sha256()
    for name, weight in sorted(model.model.named_parameters()):
        values = weight.detach().to(dtype or weight.dtype).contiguous()
        sha.update(f"{name}{tuple(weight.shape)}{values.dtype}".encode())
        sha.update(values.view(-1).view(torch.uint8).numpy().tobytes())
    assert model.fingerprint(dtype) == sha.hexdigest()[:16]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_chain_with_copies_in_files(dtype, monkeypatch):
    model = model_in(dtype)
    kind = registry.get("methods", "sft")
    method = kind(**{**tiny_options(kind), "epochs": 1})

    def chained():
        with unchanged(model, "a chain"), Chain(model) as chain:
            for fact in FACTS[:2]:
                chain.add(method.inject(model, [fact]))
            return chain.as_one(method), chain.growth()

    want, growth = chained()
    monkeypatch.setattr(tensors, "FILED", 0)
    edit, again = chained()
    same(edit, want)
    assert again == growth
