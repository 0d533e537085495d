"""The norm anchor: against the authors' code, in a sequence, and with files of facts."""

from __future__ import annotations

import json
import os

import pytest
import torch
from authors_code import apart, run_nas
from hostile.sequences import edited_by, reloaded, trainer
from tiny import targets_of

from editbench import registry
from editbench.errors import DataError, OptionError
from editbench.methods._edit.norm_anchor import anchored, mean_norm, mlp_part
from editbench.methods._edit.options import WeightEditor
from editbench.methods._edit.prepare import prepare_facts
from editbench.methods._edit.value import Targets
from editbench.methods.memit import Memit
from editbench.testing import FACTS, tiny_model, tiny_options

EDITORS = [
    name
    for name in registry.names("methods")
    if issubclass(registry.get("methods", name), WeightEditor)
]


def editor_of(name, **options):
    method = registry.get("methods", name)
    return method.from_options(name, {**tiny_options(method), "norm_anchor": True, **options})


def contributions(editor, model, edit):
    """Return v of each fact: what its layer's MLP is to add, before the edit is applied."""
    layer = edit.records[0]["value_layer"]
    prepared = prepare_facts(model, edit.facts, edit.diagnostics["prefixes"])
    start = targets_of(editor, model, edit.facts, layer, edit.diagnostics["prefixes"])
    v0 = mlp_part(model, layer, editor.sites[0], prepared, start)
    return v0 + edit.values - start.start_ND, layer


@pytest.mark.parametrize("name", [name for name in EDITORS if name != "rome"])
def test_every_value_has_the_mean_norm(name):
    model, editor = tiny_model("llama"), editor_of(name)
    edit = editor.inject(model, FACTS)
    v, layer = contributions(editor, model, edit)
    anchor = edit.diagnostics["norm_anchor_by_layer"][layer]
    assert torch.allclose(v.norm(dim=1), torch.full((len(FACTS),), anchor), rtol=1e-4)


def test_rome_measures_all_facts_before_it_writes_one():
    model, editor = tiny_model("llama"), editor_of("rome")
    edit = editor.inject(model, FACTS)
    layer = edit.records[0]["value_layer"]
    anchor = edit.diagnostics["norm_anchor_by_layer"][layer]
    plain = targets_of(editor, model, FACTS, layer, edit.diagnostics["prefixes"])
    assert anchor == pytest.approx(mean_norm(plain.value_ND, layer), rel=1e-4)
    assert torch.allclose(edit.values.norm(dim=1), torch.full((len(FACTS),), anchor), rtol=1e-4)


@pytest.mark.parametrize("name", EDITORS)
def test_a_later_edit_has_the_norm_of_the_first(name, tmp_path):
    model, editor = tiny_model("llama"), editor_of(name)
    first = editor.inject(model, FACTS[:2])
    (anchor,) = first.diagnostics["norm_anchor_by_layer"].values()
    with reloaded(first, tmp_path / "first").applied(model):
        second = editor.inject(model, FACTS[2:])
    assert list(second.diagnostics["norm_anchor_by_layer"].values()) == [anchor]
    assert not any("norm anchor" in warning for warning in second.diagnostics["warnings"])


def test_an_anchor_of_an_edited_model_is_named():
    model, editor = tiny_model("llama"), editor_of("memit", prefixes=0)
    with edited_by([trainer()], model, FACTS[:2]):
        edit = editor.inject(model, FACTS[2:])
    assert any("norm anchor was measured on the edited" in w for w in edit.diagnostics["warnings"])


def test_values_that_are_too_large_are_not_written():
    rows = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 20.0]])
    zeros, three = torch.zeros(3, 2), torch.zeros(3)
    targets = Targets(zeros + 1, rows + 1, three, three.bool(), three.long(), three.long())
    scaled, skipped = anchored(targets, zeros, 5.0)
    assert skipped.tolist() == [False, False, True]
    assert torch.allclose(scaled.value_ND - 1, torch.tensor([[5.0, 0], [0, 5], [0, 0]]))


def test_the_largest_norms_are_left_out_of_the_mean():
    v = torch.ones(20, 1)
    v[7] = 1000
    assert mean_norm(v, 0) == 1.0


def test_norm_facts_give_the_norm(tmp_path):
    model, path = tiny_model("llama"), tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(fact.to_dict()) + "\n" for fact in FACTS[1:]))
    alone = editor_of("memit").inject(model, FACTS[1:])
    editor = editor_of("memit", norm_facts=str(path))
    edit = editor.inject(model, FACTS[:1])
    (want,), (got,) = (e.diagnostics["norm_anchor_by_layer"].values() for e in (alone, edit))
    assert got == pytest.approx(want, rel=1e-4)
    assert list(editor.sources()) == [str(path)]


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"prompt": "a"}', '{"prompt": "a", "target": 3}', '"fact"']
)
def test_norm_facts_of_another_form_are_refused_in_one_sentence(text, tmp_path):
    path = tmp_path / "facts.jsonl"
    path.write_text(text)
    for attempt in (
        editor_of("memit", norm_facts=str(path)).sources,
        lambda: editor_of("rome", norm_facts=str(path)).inject(tiny_model("llama"), FACTS),
    ):
        with pytest.raises(DataError, match="norm_facts=.*facts.jsonl") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_norm_facts_that_are_missing_or_unused_are_refused(tmp_path):
    with pytest.raises(DataError, match="not a readable UTF-8 file"):
        editor_of("memit", norm_facts=str(tmp_path / "none")).sources()
    with pytest.raises(OptionError, match="norm_facts needs norm_anchor=true"):
        editor_of("memit", norm_anchor=False, norm_facts="facts.jsonl")


def test_keys_of_cells_without_it_stay_as_they_were():
    assert {"norm_anchor", "norm_facts"} <= set(Memit().left_out())


@pytest.mark.skipif(
    not os.environ.get("EDITBENCH_REFERENCE"),
    reason="EDITBENCH_REFERENCE names no folder with the authors' code",
)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_it_is_the_published_code(family):
    model, cloze = tiny_model(family), [fact for fact in FACTS if fact.form == "cloze"]
    editor = editor_of("alphaedit", layers=(1, 2), recipe="paper", threshold=1.0, v_lr=0.5)
    edit = editor.inject(model, cloze)
    anchor = edit.diagnostics["norm_anchor_by_layer"][2]
    wanted = run_nas(editor, model, cloze, edit.diagnostics["prefixes"], anchor)
    assert apart(edit.values, wanted) < 1e-4
