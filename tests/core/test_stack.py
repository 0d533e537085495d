"""A stack of edits: one edit of the base that keeps each of its parts, and how it is saved."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from editbench import inject, remove
from editbench.changes import dense
from editbench.edit import Edit
from editbench.errors import EditbenchError, FactError, ModelError, OptionError, RecordError
from editbench.stack import applied_parts, parts_of, stacked
from editbench.testing import FACTS, tiny_model, unchanged

QUICK = {"steps": 4, "prefixes": 0, "covariance": "identity"}


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama")


@pytest.fixture(scope="module")
def stack(model):
    first = inject(model, FACTS[:2], "memit", **QUICK)
    second = inject(model, FACTS[2:3], on=first)
    return inject(model, FACTS[3:], "sft", on=second, epochs=1, min_steps=2, lora=2)


def test_it_is_one_edit_of_the_base(model, stack):
    assert [part.method for part in parts_of(stack)] == ["memit", "memit", "sft"]
    assert stack.method == "memit, sft" and stack.facts == FACTS
    assert stack.parts[1].options == stack.parts[0].options  # without a method, that of the last
    assert stack.model_hash == stack.parts[0].model_hash == model.fingerprint()
    with unchanged(model, "a stack"):
        with applied_parts(stack.parts, model):
            want = {name: model.weight(name).detach().clone() for name in stack.changes}
        with stack.applied(model):
            for name, weight in want.items():
                torch.testing.assert_close(model.weight(name).detach(), weight)
    assert (
        "cost" in stack.parts[0].diagnostics and stack.parts[0].diagnostics["cost"]["seconds"] > 0
    )


def test_saving_keeps_it(stack, tmp_path):
    stack.save(tmp_path / "stack")
    loaded = Edit.load(tmp_path / "stack")
    assert [part.facts for part in loaded.parts] == [part.facts for part in stack.parts]
    assert torch.equal(loaded.parts[0].values, stack.parts[0].values)
    for name, change in stack.changes.items():
        assert torch.equal(dense(loaded.changes[name]), dense(change))
    # A plain edit takes its place, and nothing of the stack is left.
    stack.parts[0].save(tmp_path / "stack", overwrite=True)
    assert not (tmp_path / "stack/parts").exists()
    assert Edit.load(tmp_path / "stack").parts == ()


def missing(parts):
    shutil.rmtree(parts / "2")


def swapped(parts):
    shutil.rmtree(parts / "2")
    shutil.copytree(parts / "1", parts / "2")


def damaged(parts):
    (parts / "2/edit.safetensors").write_bytes(b"x")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (missing, r"part 2 of its 3 parts .* is missing"),
        (swapped, "part 2 of its 3 parts .* is not the one"),
        (damaged, "part 2 of its 3 parts .* cannot be read"),
    ],
)
def test_a_middle_that_is_missing_or_another(stack, tmp_path, damage, says):
    stack.save(tmp_path / "stack")
    damage(tmp_path / "stack/parts")
    with pytest.raises(RecordError, match=says):
        Edit.load(tmp_path / "stack")


def test_an_edit_from_before_is_read_and_its_facts_taken_out(model, stack, tmp_path):
    from editbench.types import digest

    edit = stack.parts[0]
    folder = replace(edit, values=None).save(tmp_path / "old")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["digest"]
    manifest["format"] = 2
    manifest["digest"] = digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    old = Edit.load(folder)
    assert old.values is None
    left = remove(old, "moon", model)
    assert left.facts == FACTS[1:2] and left.values is not None


def test_every_base_is_checked(model, stack):
    other = tiny_model("llama", seed=1)
    with unchanged(other, "a refused stack"):
        with pytest.raises(ModelError, match=r"Edit 1 of the stack .* the base of tiny-llama give"):
            inject(other, FACTS[:1], "memit", on=replace(stack, facts=()), **QUICK)
    shuffled = replace(stack, parts=(stack.parts[0], stack.parts[2], stack.parts[1]))
    with unchanged(model, "a refused stack"):
        with pytest.raises(ModelError, match=r"Edit 2 of the stack \(sft, 1 fact\)"):
            remove(shuffled, "moon", model)


def test_facts_that_are_there_already(model, stack):
    with pytest.raises(OptionError, match="Fact id 'moon' is taken: .*The capital of Velmora is"):
        inject(model, FACTS[:1], on=stack)
    with pytest.raises(FactError, match="To change a fact, take the old one out first"):
        inject(model, [replace(FACTS[0], id="new", target="Elm")], on=stack)


def test_context_and_weights_do_not_go_together(model, stack):
    context = inject(model, FACTS[:1], "ice")
    with pytest.raises(ModelError, match="ice and memit cannot be stacked"):
        stacked([context, stack.parts[1]])
    both = inject(model, FACTS[1:2], on=context)
    assert len(both.parts) == 2 and both.context is not None
    assert "Karsk" in both.context.context(FACTS[0].prompt)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (["mon"], "has no fact 'mon'. Did you mean 'moon'?"),
        (["moon", "bridge", "river", "asked"], "all 4 facts of the edit"),
    ],
)
def test_what_cannot_be_taken_out(model, stack, facts, says):
    with pytest.raises(OptionError) as caught:
        remove(stack, facts, model)
    assert says in str(caught.value)
    assert isinstance(caught.value, EditbenchError)
