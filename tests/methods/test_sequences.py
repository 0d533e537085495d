"""Edits on top of edits: what a later one takes from the model before all of them."""

from __future__ import annotations

import pytest
import torch
from hostile.sequences import edited_by, reloaded, trainer

from editbench import registry
from editbench.changes import dense
from editbench.methods._edit import options as _options
from editbench.methods._edit.options import WeightEditor
from editbench.methods.alphaedit import AlphaEdit
from editbench.methods.memit import Memit
from editbench.testing import FACTS, tiny_model, tiny_options

EDITORS = [
    name
    for name in registry.names("methods")
    if issubclass(registry.get("methods", name), WeightEditor)
]
LATE = "The prefixes were written by the edited model"


def editor_of(name, **options):
    method = registry.get("methods", name)
    return method(**{**tiny_options(method), "prefixes": 3, **options})


def warned(edit):
    return any(LATE in warning for warning in edit.diagnostics["warnings"])


@pytest.mark.parametrize("name", EDITORS)
def test_a_later_batch_reads_its_facts_behind_the_first_batchs_prefixes(name, monkeypatch):
    model, editor = tiny_model("llama"), editor_of(name)
    with edited_by([editor], model, FACTS[:2]) as (first,):
        second = editor.inject(model, FACTS[2:])
        base = first.diagnostics["prefixes"]
        assert editor.new_prefixes(model, 3) != base, "the edited model writes others"
        # The same batch with the base's prefixes given, whatever is applied.
        monkeypatch.setattr(_options, "kept_prefixes", lambda model, n: [])
        monkeypatch.setattr(type(editor), "new_prefixes", lambda self, model, n: base)
        want = editor.inject(model, FACTS[2:])
    assert second.diagnostics["prefixes"] == base and not warned(first) and not warned(second)
    for weight in want.changes:
        assert torch.equal(dense(second.changes[weight]), dense(want.changes[weight]))


def test_the_prefixes_of_a_third_batch_and_of_an_edit_from_a_file(tmp_path):
    model, editor = tiny_model("llama"), editor_of("alphaedit")
    with edited_by([editor, editor], model, FACTS[:1]) as (first, _):
        third = editor.inject(model, FACTS[2:])
        assert third.diagnostics["prefixes"] == first.diagnostics["prefixes"]
        fewer = editor_of("memit", prefixes=2, seed=1).inject(model, FACTS[2:])
        assert fewer.diagnostics["prefixes"] == first.diagnostics["prefixes"][:2]
    with reloaded(first, tmp_path / "edit").applied(model):
        later = editor.inject(model, FACTS[2:])
    assert later.diagnostics["prefixes"] == first.diagnostics["prefixes"]
    assert not any(map(warned, (third, fewer, later)))


def test_a_pair_of_methods_keeps_the_first_prefixes_too():
    model = tiny_model("llama")
    cls = registry.get("methods", "alphaedit+sft")
    pair = cls.from_options(
        cls.name,
        {
            f"{part}.{key}": value
            for part, method in cls.parts
            for key, value in {**tiny_options(method), "prefixes": 3}.items()
            if key != "prefixes" or method is AlphaEdit
        },
    )
    with edited_by([pair], model, FACTS) as (first,):
        second = pair.inject(model, FACTS)
    kept = [edit.diagnostics["alphaedit"]["prefixes"] for edit in (first, second)]
    assert kept[0] and kept[0] == kept[1]
    assert not warned(second)


@pytest.mark.parametrize("before", [[trainer()], [trainer(), Memit(**tiny_options(Memit))]])
def test_prefixes_of_an_edited_model_are_named(before):
    model, editor = tiny_model("llama"), editor_of("memit")
    with edited_by(before, model, FACTS[:2]):
        assert warned(editor.inject(model, FACTS[2:]))
        assert not warned(editor_of("memit", prefixes=0).inject(model, FACTS[2:]))
    with edited_by([editor_of("memit", prefixes=0)], model, FACTS[:2]):
        assert warned(editor.inject(model, FACTS[2:])), "no prefixes were kept"
