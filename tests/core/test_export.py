"""PEFT's and transformers' own loaders give the logits of the edited model."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from editbench import inject
from editbench.errors import ModelError, OptionError, RecordError
from editbench.export import export
from editbench.methods.memit import Memit
from editbench.models import quiet_transformers
from editbench.testing import FACTS, tiny_model, tiny_options, unchanged
from editbench.types import Fact

FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gpt_neox"])
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
    with pytest.raises(OptionError, match="not the weight of a linear layer. Use --format merged"):
        export(full, model, "peft", tmp_path / "one")
    with pytest.raises(OptionError, match="peft, merged"):
        export(full, model, "onnx", tmp_path / "one")
    context = inject(model, FACTS, "ice")
    with pytest.raises(OptionError, match="no weights"):
        export(context, model, "peft", tmp_path / "one")
    with pytest.raises(ModelError, match="nothing to merge"):
        export(context, model, "merged", tmp_path / "one")
    assert not (tmp_path / "one").exists()


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
