"""PEFT's and transformers' own loaders give the logits of the edited model."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from hostile.files import contents, full_disk
from transformers import AutoModelForCausalLM

from editbench import export as exporting
from editbench import inject
from editbench.edit import Edit
from editbench.errors import ModelError, OptionError, RecordError
from editbench.methods.memit import Memit
from editbench.models import quiet_transformers
from editbench.testing import FACTS, tiny_model, tiny_options, unchanged
from editbench.types import Fact

export = partial(exporting.export, base="owner/tiny")
FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gpt_neox"])
DOWN = "model.layers.1.mlp.down_proj.weight"
IDS = torch.tensor([[5, 80, 200, 33, 7]])


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def saved(model, folder):
    with quiet_transformers():
        model.model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder)


@FAMILIES
def test_peft_loads_the_adapter(family, tmp_path):
    from peft import PeftModel

    model = tiny_model(family)
    edit = Memit(**tiny_options(Memit), lam=0.5, layers=(0, 1)).inject(model, FACTS)
    with unchanged(model, "export"):
        folder = export(edit, model, "peft", tmp_path / "adapter")
    before = logits(model.model)
    with edit.applied(model):
        want = logits(model.model)
    plain = saved(model, tmp_path / "base").eval()
    adapted = PeftModel.from_pretrained(plain, folder).eval()
    torch.testing.assert_close(logits(adapted), want, rtol=1e-3, atol=1e-3)
    assert (want - before).abs().max() > 0.05
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(logits(merged), want, rtol=1e-3, atol=1e-3)


def test_more_facts_than_the_rank_of_the_weight(tmp_path):
    from peft import PeftModel

    model = tiny_model("llama")
    many = [
        Fact(f"f{i}", f"Item {i:03d} stands in hall", f"{i % 7}", f"Item {i:03d}")
        for i in range(40)
    ]
    edit = Memit(**{**tiny_options(Memit), "steps": 3, "prefixes": 0}).inject(model, many)
    folder = export(edit, model, "peft", tmp_path / "adapter")
    assert json.loads((folder / "adapter_config.json").read_text())["r"] <= 32
    with edit.applied(model):
        want = logits(model.model)
    adapted = PeftModel.from_pretrained(saved(model, tmp_path / "base"), folder).eval()
    torch.testing.assert_close(logits(adapted), want, rtol=1e-3, atol=1e-3)


@FAMILIES
def test_a_merged_folder(family, tmp_path):
    model = tiny_model(family)
    edit = Memit(**tiny_options(Memit), lam=0.5).inject(model, FACTS)
    with unchanged(model, "export"):
        folder = export(edit, model, "merged", tmp_path / "merged")
    with edit.applied(model):
        want = logits(model.model)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(folder).eval()), want)
    assert not list(folder.glob("*.bin"))


def test_what_no_adapter_can_hold(tmp_path):
    model = tiny_model("llama")
    full = inject(model, FACTS, "sft", epochs=1, min_steps=1)
    with pytest.raises(OptionError, match="Inject again with --option lora=16"):
        export(full, model, "peft", tmp_path / "one")
    with pytest.raises(OptionError, match="peft, merged"):
        export(full, model, "onnx", tmp_path / "one")
    context = inject(model, FACTS, "ice")
    with pytest.raises(OptionError, match="no weights"):
        export(context, model, "peft", tmp_path / "one")
    with pytest.raises(ModelError, match="nothing to merge"):
        export(context, model, "merged", tmp_path / "one")
    assert not (tmp_path / "one").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("change", [torch.zeros(32, 56), (torch.zeros(32, 0), torch.zeros(0, 56))])
def test_a_change_of_zeros_is_an_adapter_that_peft_loads(change, tmp_path):
    from peft import PeftModel

    model = tiny_model("llama")
    folder = export(by_hand(model, change), model, "peft", tmp_path / "adapter")
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 1
    plain = saved(model, tmp_path / "base").eval()
    want = logits(plain)
    assert torch.equal(logits(PeftModel.from_pretrained(plain, folder).eval()), want)


def by_hand(model, change):
    return Edit("by-hand", {}, model.name, model.fingerprint(), (), {DOWN: change})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ((torch.ones(32, 3), torch.ones(2, 56)), "have no product"),
        ((torch.ones(32, 2), torch.ones(2, 55)), "another architecture"),
        ((torch.ones(32, 2), torch.full((2, 56), torch.inf)), "would be infinite or NaN"),
        ((torch.ones(32, 2).double(), torch.full((2, 56), 1e300, dtype=torch.float64)), "infinite"),
    ],
)
def test_what_does_not_fit_the_model_is_not_exported(change, why, tmp_path):
    model = tiny_model("llama")
    for form in ("peft", "merged"):
        with pytest.raises(ModelError, match=f"{why}|infinite or NaN"):
            export(by_hand(model, change), model, form, tmp_path / "one")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["peft", "merged"])
def test_a_full_disk_leaves_the_old_export_or_nothing(form, tmp_path):
    model = tiny_model("llama")
    old = export(by_hand(model, torch.ones(32, 56)), model, form, tmp_path / "old")
    before, edit = contents(old), by_hand(model, torch.eye(32, 56))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="not an empty folder.*--overwrite"):
        export(edit, model, form, old)
    with full_disk(900):
        for place, overwrite in ((old, True), (tmp_path / "empty", False), (tmp_path / "a", False)):
            with pytest.raises(RecordError, match="could not be written"):
                export(edit, model, form, place, overwrite)
    assert contents(old) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "old"]
    assert not list((tmp_path / "empty").iterdir())
    export(edit, model, form, old, overwrite=True)
    assert contents(old).keys() == before.keys() and contents(old) != before


def test_another_model_and_a_full_folder(tmp_path):
    model, other = tiny_model("llama"), tiny_model("llama", seed=1)
    edit = Memit(**tiny_options(Memit)).inject(model, FACTS)
    with pytest.raises(ModelError, match="other weights"):
        export(edit, other, "peft", tmp_path / "one")
    assert not (tmp_path / "one").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    with pytest.raises(RecordError, match="not an empty folder"):
        export(edit, model, "peft", tmp_path / "full")
