"""Low-rank adapters: the layers that get them, and edits of unusual models that can be used."""

from __future__ import annotations

import pytest
import torch
from hostile.architectures import build
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from editbench import registry
from editbench.edit import Edit
from editbench.errors import MethodError
from editbench.methods._train.adapters import Adapters
from editbench.models import quiet_transformers
from editbench.testing import FACTS, FAMILIES, tiny_model, tiny_options, unchanged

EXPERTS = ["mixtral", "qwen2_moe", "qwen3_moe_dense", "gpt_oss", "jetmoe", "dbrx", "phimoe"]
STATES = ["mamba", "mamba2", "rwkv", "falcon_h1", "nemotron_h", "zamba2", "lfm2", "qwen3_next"]


def method(name="sft", **options):
    cls = registry.get("methods", name)
    return cls.from_options(name, {**tiny_options(cls), "lora": 3, **options})


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 20)[None], use_cache=False).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_ordinary_models_have_them_where_peft_puts_them(family):
    model = tiny_model(family)
    ours = Adapters(model, 2, None, seed=0)
    names = set(ours.layers)
    ours.restore()
    assert ours.warnings == []
    with quiet_transformers():
        theirs = get_peft_model(model.model, LoraConfig(r=2, target_modules="all-linear"))
    assert names == {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default")
        for name, _ in theirs.named_modules()
        if name.endswith(".lora_A.default")
    }


@pytest.mark.parametrize("name", [*EXPERTS, *STATES])
def test_an_edit_with_adapters_is_applied_saved_and_merged(name, tmp_path):
    model = build(name, bos_token_id=1, pad_token_id=2)
    before = logits(model.model)
    with unchanged(model, "inject"):
        edit = method().inject(model, FACTS[:2])
    edit.save(tmp_path / "edit")
    with unchanged(model, "applied()"), Edit.load(tmp_path / "edit").applied(model):
        want = logits(model.model)
    assert not torch.allclose(want, before)
    with quiet_transformers():
        edit.merge(model, tmp_path / "merged")
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(plain), want, rtol=1e-4, atol=1e-4)
    # neither what chooses among experts, nor experts that are one tensor
    assert not any("router" in changed or ".gate." in changed for changed in edit.changes)
    warned = [warning for warning in edit.diagnostics["warnings"] if "stay as they are" in warning]
    assert len(warned) == (name in EXPERTS)


@pytest.mark.parametrize(
    ("trainer", "name"), [("mixsd", "mixtral"), ("opsd", "qwen3_moe"), ("opsd", "mamba")]
)
def test_the_other_trainers_have_them_too(trainer, name):
    model = build(name)
    with unchanged(model, "inject"):
        edit = method(trainer).inject(model, FACTS[:2])
    with edit.applied(model):
        assert edit.changes


def test_a_shared_expert_and_a_dense_layer_are_adapted():
    shared = method().inject(build("qwen2_moe"), FACTS[:1]).changes
    assert "model.layers.1.mlp.shared_expert.down_proj.weight" in shared
    assert "model.layers.1.mlp.shared_expert_gate.weight" not in shared
    dense = method().inject(build("qwen3_moe_dense"), FACTS[:1]).changes
    assert [f"model.layers.{i}.mlp.gate_proj.weight" in dense for i in range(4)] == [
        True,
        False,
        True,
        False,
    ]


def test_a_model_without_linear_layers_is_refused():
    model = tiny_model("llama")
    for layer in model.model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, module in list(part.named_children()):
                if isinstance(module, torch.nn.Linear):
                    setattr(part, name, torch.nn.Sequential())
    with pytest.raises(MethodError, match="has no linear layers to put adapters on"):
        Adapters(model, 2, None, seed=0)


def test_a_null_space_needs_the_output_matrix_of_an_mlp():
    edit = method(null_space=0.5).inject(build("qwen3_moe_dense"), FACTS[:1])
    assert set(edit.changes) == {f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 2)}
    with pytest.raises(MethodError, match="no layer of MambaForCausalLM has one"):
        method(null_space=0.5).inject(build("mamba"), FACTS[:1])
