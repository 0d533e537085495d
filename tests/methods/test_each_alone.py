"""``inject_each``: the edits of single facts, found side by side."""

import pytest
import torch
from authors_code import apart

from editbench import registry
from editbench.changes import dense
from editbench.methods._edit.fast import linear
from editbench.testing import FACTS, teach_to_read, tiny_model, tiny_options, unchanged


def made(name, **options):
    method = registry.get("methods", name)
    return method.from_options(name, {**tiny_options(method), **options})


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rome", {}),
        ("rome", {"key": "original", "prefixes": 2}),
        ("memit", {"prefixes": 2}),
        ("memit", {"fact_token": "last"}),
        ("memit", {"norm_anchor": True}),
        ("alphaedit", {}),
        ("emmet", {}),
        ("pmet", {}),
        ("sft", {}),
    ],
)
def test_each_edit_is_that_of_its_fact_alone(name, options, family):
    """Other facts beside it move it by rounding alone, and so do edits applied in between."""
    model, method = teach_to_read(tiny_model(family), FACTS), made(name, **options)
    with unchanged(model, "inject_each"):
        edits = []
        for edit in method.inject_each(model, FACTS):
            edits.append(edit)
            with edit.applied(model):
                pass
    for fact, edit in zip(FACTS, edits, strict=True):
        alone = method.inject(model, [fact])
        assert edit.facts == alone.facts and edit.model_hash == alone.model_hash
        assert edit.changes.keys() == alone.changes.keys() and edit.keys.keys() == alone.keys.keys()
        for weight in alone.changes:
            assert apart(dense(edit.changes[weight]), dense(alone.changes[weight])) < 1e-4
        assert edit.diagnostics.keys() == alone.diagnostics.keys()
        assert edit.diagnostics["warnings"] == alone.diagnostics["warnings"]


def test_facts_whose_traces_find_other_layers(monkeypatch):
    """``layer=auto`` chooses for each fact; those of one layer are solved together."""
    model, method = tiny_model("llama"), made("rome", layer="auto")
    chosen = {fact.id: ((i % 2 + 1,), {"layer_curve": []}) for i, fact in enumerate(FACTS)}
    monkeypatch.setattr(
        type(method), "choose_layers", lambda _self, _model, facts: chosen[facts[0].id]
    )
    edits = list(method.inject_each(model, FACTS))
    assert [edit.diagnostics["layers"] for edit in edits] == [[1], [2], [1], [2]]
    assert {edit.diagnostics["facts_at_once"] for edit in edits} == {2}


def test_copies_of_a_written_weight_are_laid_out_anew():
    """Facts that are written one after the other share the copies of all other weights."""
    model = tiny_model("llama")
    model.model.requires_grad_(False)
    up, down = (
        getattr(model.layout.layer(model.model, 0).mlp, n) for n in ("up_proj", "down_proj")
    )
    states, laid = torch.randn(3, up.in_features), linear.LaidOut(model)
    with laid.used():
        up(states)
        down(torch.randn(3, down.in_features))
    copies = {one.linear: vars(one).get("weight_oi") for one in laid.layers}
    with torch.no_grad():
        up.weight.mul_(2)
    with laid.used():
        torch.testing.assert_close(up(states), torch.nn.functional.linear(states, up.weight))
    kept = {one.linear: vars(one).get("weight_oi") for one in laid.layers}
    assert kept[up] is not copies[up] and kept[down] is copies[down] is not None
