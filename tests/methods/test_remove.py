"""A fact is taken out of an edit: the rest is as it would be without that fact."""

from __future__ import annotations

import pytest
import torch

from editbench import inject, registry, remove
from editbench.changes import dense
from editbench.run.life import steps_without
from editbench.testing import FACTS, tiny_model, tiny_options, unchanged

BATCH = ("memit", "alphaedit", "emmet", "pmet")


def apart(one, other):
    """Return the largest difference of two edits' changes, as a share of the change's norm."""
    assert one.changes.keys() == other.changes.keys()
    return max(
        float((dense(change).double() - dense(one.changes[name]).double()).norm())
        / float(dense(change).double().norm())
        for name, change in other.changes.items()
    )


def made(name, model, facts, **options):
    chosen = {**tiny_options(registry.get("methods", name)), **options}
    return inject(model, facts, name, **chosen)


@pytest.mark.parametrize(
    ("name", "family", "refine"),
    [
        *((name, family, 0) for name in BATCH for family in ("llama", "gpt2")),
        pytest.param("memit", "llama", 1, marks=pytest.mark.slow),  # 60 steps of training
    ],
)
def test_batch_editors_give_the_edit_without_it(name, family, refine):
    model = tiny_model(family)
    edit = made(name, model, FACTS, refine=refine)
    rest = [fact for fact in FACTS if fact.id != "bridge"]
    with unchanged(model, "remove"):
        left = remove(edit, "bridge", model)
    assert [fact.id for fact in left.facts] == ["moon", "river", "asked"]
    assert left.diagnostics["kept_values"] == 3
    assert apart(left, made(name, model, rest, refine=refine)) < 1e-5


def test_rome_keeps_the_values_of_the_facts_behind_it():
    # Each fact was solved on the model with those before it, so only what comes after differs.
    model = tiny_model("llama")
    edit = made("rome", model, FACTS)
    last = remove(edit, "asked", model)
    assert apart(last, made("rome", model, FACTS[:3])) < 1e-5
    first = remove(edit, "moon", model)
    assert first.diagnostics["kept_values"] == 3
    assert torch.equal(first.values, edit.values[1:])


def test_a_value_holds_only_where_its_fact_is_written():
    # "a" and "b" share a subject, so both are written at their last word; "a" alone is not.
    from editbench.types import Fact

    facts = [
        Fact("a", "The capital of Velmora is", "Karsk", "Velmora"),
        Fact("b", "The river through Velmora is the", "Ilme", "Velmora"),
        Fact("c", "Tollan Bridge was built by", "Irene Voss", "Tollan Bridge"),
    ]
    model = tiny_model("llama")
    edit = made("memit", model, facts, fact_token="auto")
    left = remove(edit, "b", model)
    assert left.diagnostics["kept_values"] == 1  # that of "c"
    assert apart(left, made("memit", model, [facts[0], facts[2]], fact_token="auto")) < 1e-5


def test_trainers_train_on_the_rest_anew():
    model = tiny_model("llama")
    options = {"epochs": 1, "min_steps": 2}
    edit = inject(model, FACTS, "sft", **options)
    (step,) = steps_without(edit, ["moon"])
    assert step.words() == "sft: keeps nothing for single facts, so 3 facts are injected anew."
    left = remove(edit, "moon", model)
    assert apart(left, inject(model, FACTS[1:], "sft", **options)) == 0


def test_the_edits_above_are_made_again_and_those_below_stay():
    model = tiny_model("llama")
    options = tiny_options(registry.get("methods", "memit"))
    first = inject(model, FACTS[:2], "memit", **options)
    stack = inject(model, FACTS[2:], on=first)
    above = remove(stack, "river", model)
    assert above.parts[0] is stack.parts[0] and len(above.parts[1].facts) == 1
    below = remove(stack, "moon", model)
    again = inject(model, FACTS[1:2], "memit", **options)
    assert apart(below.parts[0], again) < 1e-5
    assert below.parts[1].diagnostics["kept_values"] == 2
    assert below.parts[1].model_hash != stack.parts[1].model_hash
    alone = remove(stack, ["moon", "bridge"], model)  # the first edit has no fact left
    assert not alone.parts and alone.model_hash == model.fingerprint()
    assert alone.facts == FACTS[2:]
