"""Adapters, fine-tuned folders and saved edits are read as edits that give the same logits."""

import shutil

import pytest
import torch
from hostile.artifacts import REFUSED, adapter, weights
from hostile.checkpoints import add_adapter, configure, rewrite, saved, saved_in_parts, set_field
from transformers import AutoModelForCausalLM

from editbench import inject
from editbench.artifacts import contents, kind_of, read
from editbench.errors import EditbenchError, ModelError
from editbench.models import load_model, quiet_transformers
from editbench.testing import FACTS, tiny_model


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "base"
    saved(folder)
    return folder


@pytest.fixture
def model(base):
    return load_model(base, precision="float32")


@torch.no_grad()
def logits(model):
    return model(input_ids=torch.arange(3, 30)[None]).logits


def applied(edit, model):
    with edit.applied(model):
        return logits(model.model)


def write_adapter(folder, base, config, family="llama"):
    """Train an adapter for a few steps with plain PEFT."""
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(0)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        train(model)
        model.save_pretrained(str(folder))


def train(model):
    ids = torch.arange(5, 40)[None]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def configs():
    from peft import IA3Config, LoHaConfig, LoraConfig

    both = {"r": 2, "target_modules": ["q_proj", "down_proj"]}
    return {
        "lora": (LoraConfig(**both, lora_alpha=3, task_type="CAUSAL_LM"), "PEFT adapter (LORA)"),
        "rslora": (LoraConfig(**both, use_rslora=True), "PEFT adapter (LORA)"),
        "a rank per layer": (
            LoraConfig(**both, rank_pattern={"down_proj": 4}, alpha_pattern={"q_proj": 5}),
            "PEFT adapter (LORA)",
        ),
        "pissa": (LoraConfig(**both, init_lora_weights="pissa"), "PEFT adapter (LORA)"),
        "dora": (LoraConfig(**both, use_dora=True), "PEFT adapter (DoRA)"),
        "loha": (LoHaConfig(**both), "PEFT adapter (LOHA)"),
        "ia3": (
            IA3Config(
                target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
            ),
            "PEFT adapter (IA3)",
        ),
    }


@pytest.mark.parametrize("case", configs())
def test_an_adapter_gives_the_logits_of_peft(case, base, model, tmp_path):
    from peft import PeftModel

    config, kind = configs()[case]
    write_adapter(tmp_path / "it", base, config)
    before, state = model.fingerprint(), torch.get_rng_state()
    reading = read(tmp_path / "it", model)
    assert torch.equal(torch.get_rng_state(), state)
    assert (reading.kind, reading.base) == (kind, str(base))
    assert reading.checked == "the weights of its base (it has no tokenizer)"
    with quiet_transformers():
        plain = AutoModelForCausalLM.from_pretrained(base)
        want = logits(PeftModel.from_pretrained(plain, str(tmp_path / "it")).eval())
    torch.testing.assert_close(applied(reading.edit, model), want, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(model.model), want, atol=1e-3)
    assert model.fingerprint() == before
    assert all(weight.requires_grad for weight in model.model.parameters())
    # Only plain LoRA is a product; what PEFT makes otherwise is kept whole.
    are_factors = {isinstance(change, tuple) for change in reading.edit.changes.values()}
    assert are_factors == {case in ("lora", "rslora", "a rank per layer")}


def test_an_adapter_of_transposed_weights(tmp_path):
    model = saved(tmp_path / "base", "gpt2")
    options = {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
    add_adapter(tmp_path / "it", tiny_model("gpt2"), **options)
    set_field(tmp_path / "it/adapter_config.json", base_model_name_or_path=tmp_path / "base")
    edit = read(tmp_path / "it", model).edit
    assert all(isinstance(change, tuple) for change in edit.changes.values())
    shutil.copytree(tmp_path / "base", tmp_path / "both")
    shutil.copytree(tmp_path / "it", tmp_path / "both", dirs_exist_ok=True)
    want = logits(load_model(tmp_path / "both", precision="float32").model)
    torch.testing.assert_close(applied(edit, model), want, rtol=1e-4, atol=1e-4)


def test_fields_that_this_peft_does_not_know_are_named(base, model, tmp_path):
    set_field(adapter(tmp_path / "it", base) / "adapter_config.json", brand_new=3)
    (note,) = read(tmp_path / "it", model).edit.diagnostics["warnings"]
    assert note == "the PEFT installed here does not know the fields 'brand_new' of its config"


@pytest.mark.parametrize("name", ["somewhere/base", "/elsewhere/BASE", "models--org--base/x/1"])
def test_a_base_that_is_not_here_is_compared_by_name(name, base, model, tmp_path):
    reading = read(adapter(tmp_path / "it", name), model)
    assert reading.base == name
    assert reading.checked == "the name of its base, shapes (it has no tokenizer)"


@pytest.mark.parametrize(
    ("name", "model_name"),
    [
        ("unsloth/tiny", "org/tiny"),
        ("/models/SmolLM2-135M", "smollm2-135m"),
        ("org/smollm2-135m", "smollm2-135m"),
    ],
)
def test_an_alias_or_a_hub_id_is_no_other_model_of_that_name(name, model_name, model, tmp_path):
    model.name = model_name
    with pytest.raises(ModelError, match=f"trained on '{name}', and this is '{model_name}'"):
        read(adapter(tmp_path / "it", name), model)


def fine_tuned(folder, base, **options):
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(base)
        train(model)
        model.to(options.pop("dtype", torch.float32)).save_pretrained(folder, **options)
    return folder


FOLDERS = {
    "one file": {},
    "several files": {"max_shard_size": "40KB"},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16 in several files": {"dtype": torch.float16, "max_shard_size": "40KB"},
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_fine_tuned_folder_is_scored_bit_for_bit(case, base, model, tmp_path, monkeypatch):
    folder = fine_tuned(tmp_path / "it", base, **FOLDERS[case])
    model.tokenizer.save_pretrained(folder)
    want = load_model(folder, dtype="float32").fingerprint()
    before = model.fingerprint()
    # No second model is loaded.
    monkeypatch.setattr("editbench.finetuned.load_weights", None)
    reading = read(folder, model)
    assert (reading.kind, reading.base) == ("fine-tuned weights", "")
    assert reading.checked == "architecture, configuration, shapes, tokenizer"
    with reading.edit.applied(model):
        assert model.fingerprint() == want
    assert model.fingerprint() == before


def test_only_weights_that_differ_are_kept(model, tmp_path):
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite(
        weights(tmp_path / "it"),
        lambda tensors: {n: t * (1.5 if n == name else 1) for n, t in tensors.items()},
    )
    edit = read(tmp_path / "it", model).edit
    assert list(edit.changes) == [name] and not edit.diagnostics
    torch.testing.assert_close(edit.changes[name], model.weight(name).detach() * 0.5)


def test_a_checkpoint_with_names_of_its_own_is_read_by_transformers(model, tmp_path):
    rewrite(
        weights(tmp_path / "it"),
        lambda tensors: {n.removeprefix("model."): t * 1.25 for n, t in tensors.items()},
    )
    edit = read(tmp_path / "it", model).edit
    with edit.applied(model):
        assert model.fingerprint() == load_model(tmp_path / "it").fingerprint()


def test_a_tied_weight_may_be_stored_under_both_names(model, tmp_path):
    folder, embeds = weights(tmp_path / "it"), "model.embed_tokens.weight"

    def head(scale):
        rewrite(folder, lambda tensors: {**tensors, "lm_head.weight": tensors[embeds] * scale})

    head(1)
    assert not read(folder, model).edit.changes
    head(2)
    with pytest.raises(ModelError, match="two different weights for 'model.embed_tokens.weight'"):
        read(folder, model)


def test_weights_of_another_training_and_another_template_are_named(model, tmp_path):
    weights(tmp_path / "it", seed=7, chat=True)
    edit = read(tmp_path / "it", model).edit
    template, far = edit.diagnostics["warnings"]
    assert "has a chat template of its own" in template
    assert "% of their norm, so it may have been made from another base" in far


@pytest.mark.parametrize("method", ["sft", "ice"])
def test_a_saved_edit(method, model, tmp_path):
    options = {"epochs": 2} if method == "sft" else {}
    edit = inject(model, FACTS[:2], method, **options)
    edit.save(tmp_path / "it")
    reading = read(tmp_path / "it", model)
    assert reading[1:] == (f"saved edit ({method})", model.name, "the fingerprint of its base")
    assert reading.edit.facts == FACTS[:2]
    prompt = FACTS[0].prompt
    with edit.applied(model):
        want = logits(model.model), model.prompt_ids(prompt)
    with reading.edit.applied(model):
        assert torch.equal(logits(model.model), want[0]) and model.prompt_ids(prompt) == want[1]


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_one_sentence(case, base, model, tmp_path):
    make, words = REFUSED[case]
    make(tmp_path / "it", base)
    before = model.fingerprint()
    with pytest.raises(EditbenchError, match=words) as refused:
        read(tmp_path / "it", model)
    assert "\n" not in str(refused.value) and str(tmp_path) in str(refused.value)
    assert model.fingerprint() == before and not model.applied


def test_the_contents_decide(base, tmp_path):
    first = contents(adapter(tmp_path / "it", base))
    assert [*first] == [
        str(tmp_path / "it" / name) for name in ("adapter_config.json", "adapter_model.safetensors")
    ]
    (tmp_path / "it/README.md").write_text("no part of it")
    assert contents(tmp_path / "it") == first
    set_field(tmp_path / "it/adapter_config.json", r=2.0)
    assert contents(tmp_path / "it") != first
    saved_in_parts(tmp_path / "parts")
    configure(tmp_path / "parts", use_cache=False)
    assert kind_of(tmp_path / "parts") == "weights" and len(contents(tmp_path / "parts")) > 3
