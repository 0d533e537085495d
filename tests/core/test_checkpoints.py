"""Checkpoints that lack weights or hold others, adapters, GGUF files and their cache."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import contextmanager

import pytest
import torch
from hostile.checkpoints import (
    add_adapter,
    configure,
    rewrite,
    saved,
    saved_in_parts,
    saved_with_images,
    set_field,
    write_gguf,
)
from tiny import write_facts
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from editbench import gguf
from editbench.errors import ModelError, OptionError
from editbench.export import export
from editbench.methods.rome import Rome
from editbench.methods.sft import Sft
from editbench.models import LanguageModel, load_model, quiet_transformers
from editbench.records.store import RunStore
from editbench.run import runner
from editbench.run.config import RunConfig, run_identity
from editbench.run.plan import make_plan
from editbench.testing import FACTS, tiny_model, tiny_options, tiny_tokenizer

IDS = torch.arange(5, 20)[None]


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def without(part):
    return lambda tensors: {name: t for name, t in tensors.items() if part not in name}


def prefixed(prefix):
    return lambda tensors: {prefix + name: t for name, t in tensors.items()}


def plus(**shapes):
    """Add tensors of ones; two underscores in a name stand for a dot."""
    added = {name.replace("__", "."): torch.ones(shape) for name, shape in shapes.items()}
    return lambda tensors: {**tensors, **added}


# --- missing and unused weights -------------------------------------------------------------------

LACKING = {
    "one weight": (
        "llama",
        without("layers.2.mlp.up"),
        {},
        r"lacks one weight of LlamaForCausalLM.*random: model\.layers\.2\.mlp\.up_proj\.weight\.",
    ),
    "a prefix of DataParallel": (
        "llama",
        prefixed("module."),
        {},
        r"lacks 38 weights.*and 35 more.*with 'module\.' before their names",
    ),
    "a prefix of compile": ("gpt2", prefixed("_orig_mod."), {}, r"lacks .*with '_orig_mod\.'"),
    "a prefix of PEFT": (
        "mistral",
        prefixed("base_model.model."),
        {},
        r"lacks .*with 'base_model\.model\.'",
    ),
    "an untied head": (
        "mistral",
        without("lm_head"),
        {},
        r"lacks one weight of .*lm_head\.weight\. If .*tie_word_embeddings",
    ),
    "tied embeddings": (
        "llama",
        without("embed_tokens"),
        {},
        r"lacks one weight of .*random: model\.embed_tokens\.weight",
    ),
    "biases": (
        "qwen2",
        without("q_proj.bias"),
        {},
        r"lacks 4 weights.*layers\.0\.self_attn\.q_proj\.bias",
    ),
    "layers that the configuration counts": (
        "llama",
        dict,
        {"num_hidden_layers": 6},
        r"lacks 18 weights.*model\.layers\.4.*Whole layers are missing",
    ),
    "the right shapes": (
        "llama",
        dict,
        {"intermediate_size": 48},
        r"12 weights in other shapes.*down_proj\.weight \(32, 56\) instead of \(32, 48\)",
    ),
}
LEFT_OUT = {
    "a layer": (dict, {"num_hidden_layers": 3}, r"decoder layers after the last.*model\.layers\.3"),
    "a layer of the base model": (
        lambda tensors: {name.removeprefix("model."): t for name, t in tensors.items()},
        {"num_hidden_layers": 3},
        r"decoder layers after the last.*model\.layers\.3",
    ),
    "a bias": (
        plus(model__layers__1__self_attn__q_proj__bias=32),
        {},
        r"one weight that LlamaForCausalLM .*leaves out: model\.layers\.1\.self_attn\.q_proj\.bias",
    ),
    "a norm in a layer": (
        plus(model__layers__1__self_attn__q_norm__weight=8),
        {},
        r"leaves out: .*q_norm\.weight",
    ),
    "a bias of the last norm": (plus(model__norm__bias=32), {}, r"leaves out: model\.norm\.bias"),
    "an adapter that nobody merged": (
        plus(model__layers__0__mlp__up_proj__lora_A__default__weight=(2, 32)),
        {},
        r"leaves out: .*lora_A",
    ),
}


@pytest.mark.parametrize("case", LACKING)
def test_a_checkpoint_that_lacks(case, tmp_path):
    family, change, config, message = LACKING[case]
    saved(tmp_path / "it", family)
    rewrite(tmp_path / "it", change)
    configure(tmp_path / "it", **config)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(tmp_path / "it")
    assert str(tmp_path / "it") in str(caught.value)


@pytest.mark.parametrize("case", LEFT_OUT)
def test_a_checkpoint_of_which_the_model_leaves_out(case, tmp_path):
    change, config, message = LEFT_OUT[case]
    saved(tmp_path / "it")
    rewrite(tmp_path / "it", change)
    configure(tmp_path / "it", **config)
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "it")


def with_prediction_layer(tensors):
    """Add a fifth layer with one weight more than a decoder layer, as DeepSeek-V3 and GLM have."""
    layer = {n.replace(".3.", ".4."): t.clone() for n, t in tensors.items() if ".layers.3." in n}
    return {**tensors, **layer, "model.layers.4.eh_proj.weight": torch.ones(32, 64)}


def with_head_alone(tensors):
    return {n.replace("model.embed_tokens", "lm_head"): t for n, t in tensors.items()}


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("llama", dict),
        ("mistral", dict),
        ("llama", prefixed("model.")),  # transformers reads these
        ("llama", lambda tensors: {n.removeprefix("model."): t for n, t in tensors.items()}),
        ("gemma3", with_head_alone),
        ("llama", with_prediction_layer),
        ("llama", plus(score__weight=(2, 32), v_head__summary__bias=1)),
        ("llama", plus(vision_tower__encoder__layers__0__mlp__up_proj__weight=(4, 4))),
        ("llama", plus(mtp__layers__0__mlp__up_proj__weight=(4, 4))),
        ("llama", plus(model__layers__1__self_attn__rotary_emb__inv_freq=4)),
        ("gpt2", plus(transformer__h__1__attn__bias=(1, 1, 8, 8))),
        ("gptj", plus(transformer__h__1__attn__bias=(1, 1, 8, 8), transformer__h__1__attn__m=1)),
        ("gpt_neox", plus(gpt_neox__layers__1__attention__masked_bias=1)),
    ],
)
def test_a_whole_checkpoint_with_something_harmless_more(family, change, tmp_path):
    model = saved(tmp_path / "it", family)
    rewrite(tmp_path / "it", change)
    assert load_model(tmp_path / "it").fingerprint() == model.fingerprint()


# --- adapters -------------------------------------------------------------------------------------

ADAPTERS = {
    "lora": ("llama", {"target_modules": ["q_proj", "down_proj"]}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "dora": ("llama", {"target_modules": ["q_proj"], "use_dora": True}),
    "tied head": ("llama", {"target_modules": ["lm_head"]}),
    "saved head": ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
}


@pytest.mark.parametrize("case", ADAPTERS)
def test_an_adapter_beside_a_model_is_added_to_its_weights(case, tmp_path):
    from peft import PeftModel

    family, options = ADAPTERS[case]
    saved(tmp_path / "base", family)
    shutil.copytree(tmp_path / "base", tmp_path / "both")
    add_adapter(tmp_path / "both", tiny_model(family), **options)
    with quiet_transformers():
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        adapted = PeftModel.from_pretrained(base, str(tmp_path / "both")).eval()
    model = load_model(tmp_path / "both", precision="float32")
    torch.testing.assert_close(logits(model.model), logits(adapted), rtol=1e-4, atol=1e-4)
    assert "adapter of" in model.adapter and str(tmp_path / "both") in model.adapter
    assert all(weight.requires_grad for weight in model.model.parameters())
    # the edited model that is written has the adapter and the edit, and needs neither
    edit = Rome(**tiny_options(Rome)).inject(model, FACTS[:1])
    with edit.applied(model):
        want = logits(model.model)
    merged = load_model(export(edit, model, "merged", tmp_path / "merged"), precision="float32")
    assert merged.adapter is None
    torch.testing.assert_close(logits(merged.model), want)
    with pytest.raises(OptionError, match="in the place of that adapter. Use --format merged"):
        export(edit, model, "peft", tmp_path / "adapter")


def test_an_adapter_is_recorded(tmp_path):
    model = saved(tmp_path / "both")
    add_adapter(tmp_path / "both", model, target_modules=["q_proj"])
    facts = write_facts(tmp_path / "facts.jsonl")
    config = RunConfig(
        ("base",), str(tmp_path / "both"), "local", str(facts), n=2, precision="float32"
    )
    loaded = load_model(tmp_path / "both", precision="float32")
    with RunStore(tmp_path / "run").open(run_identity(config)) as store:
        (summary,) = runner.run(make_plan(config), loaded, store, lambda name, state: None)
    assert summary["model"]["adapter"] == loaded.adapter


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("layers.1.self_attn.q_proj.lora_A"), r"lacks weights: .*layers\.1.*lora_A.*1 in"),
        (plus(base_model__model__model__layers__9__x__lora_A__weight=2), r"find no place.*9\.x"),
    ],
)
def test_an_adapter_that_does_not_fit(change, message, tmp_path):
    add_adapter(tmp_path / "both", saved(tmp_path / "both"), target_modules=["q_proj"])
    os.rename(tmp_path / "both/model.safetensors", tmp_path / "kept")
    os.rename(tmp_path / "both/adapter_model.safetensors", tmp_path / "both/model.safetensors")
    rewrite(tmp_path / "both", change)
    os.rename(tmp_path / "both/model.safetensors", tmp_path / "both/adapter_model.safetensors")
    os.rename(tmp_path / "kept", tmp_path / "both/model.safetensors")
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "both")


def test_the_base_of_an_adapter_is_checked_too(tmp_path):
    add_adapter(tmp_path / "both", saved(tmp_path / "both"), target_modules=["q_proj"])
    rewrite(tmp_path / "both", without("layers.2.mlp.up"))
    with pytest.raises(ModelError, match=r"lacks one weight.*layers\.2\.mlp\.up_proj"):
        load_model(tmp_path / "both")


def test_a_model_object_with_an_adapter_is_not_merged(tmp_path):
    from peft import LoraConfig

    model = tiny_model("llama")
    model.model.add_adapter(LoraConfig(target_modules=["q_proj"]))
    edit = Rome(**tiny_options(Rome)).inject(model, FACTS[:1])
    with pytest.raises(ModelError, match="has a PEFT adapter beside its weights"):
        edit.merge(model, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


# --- GGUF files -----------------------------------------------------------------------------------

GGUF_FILES = {
    "one weight": ({"change": without("blk.2.ffn_up")}, r"lacks one weight.*layers\.2\.mlp\.up"),
    "layers": ({"metadata": {"llama.block_count": 6}}, r"lacks 18 weights.*layers\.4"),
    "its last layer": ({"metadata": {"llama.block_count": 3}}, r"layer 3 \(blk\.3\).* 3 layers"),
    "a bias": ({"change": plus(blk__1__attn_q__bias=32)}, r"biases.*blk\.1\.attn_q\.bias"),
    "part 1": ({"change": without("blk.3"), "part": (0, 2)}, r"part 1 of 2\. Join the parts"),
    "part 2": ({"change": without("blk.0"), "part": (1, 2)}, r"part 2 of 2\. Join the parts"),
    "part 1, its number lost": ({"change": without("blk.3")}, r"lacks 9 weights.*Whole layers"),
}


@pytest.mark.parametrize("case", GGUF_FILES)
def test_an_incomplete_gguf_is_refused_and_not_kept(case, tmp_path, own_cache):
    made, message = GGUF_FILES[case]
    write_gguf(tmp_path / "it.gguf", **made)
    for _ in range(2):
        with pytest.raises(ModelError, match=rf"it\.gguf .*{message}"):
            load_model(tmp_path / "it.gguf")
    assert not list(own_cache.rglob("*.*"))


@pytest.mark.parametrize(
    ("family", "made"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": False}),
        ("llama", {"part": (0, 1)}),
        ("llama", {"change": plus(rope_freqs__weight=4)}),
        ("qwen2", {}),
    ],
)
def test_a_whole_gguf_gives_the_same_weights_afresh_and_from_the_cache(
    family, made, tmp_path, own_cache
):
    model = write_gguf(tmp_path / "it.gguf", family, **made)
    # an adapter that happens to lie beside the file is not part of it
    add_adapter(tmp_path, tiny_model(family), target_modules=["q_proj"])
    assert load_model(tmp_path / "it.gguf").fingerprint() == model.fingerprint()
    (kept,) = (own_cache / "models").iterdir()
    written = (kept / "model.safetensors").stat().st_mtime_ns
    assert load_model(tmp_path / "it.gguf").fingerprint() == model.fingerprint()
    assert (kept / "model.safetensors").stat().st_mtime_ns == written


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        ("model.safetensors", flip),
        ("model.safetensors", lambda file: os.truncate(file, 50_000)),
        ("model.safetensors", os.remove),
        ("config.json", flip),
        ("tokenizer.json", os.remove),
        ("conversion.json", lambda file: file.write_text("[]")),
        ("conversion.json", os.remove),  # as earlier versions left it, perhaps with random weights
    ],
)
def test_a_damaged_conversion_is_made_again(file, harm, tmp_path, own_cache):
    want = write_gguf(tmp_path / "it.gguf").fingerprint()
    load_model(tmp_path / "it.gguf")
    (kept,) = (own_cache / "models").iterdir()
    whole = {path.name: path.read_bytes() for path in kept.iterdir()}
    harm(kept / file)
    assert load_model(tmp_path / "it.gguf").fingerprint() == want
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == whole


@contextmanager
def small_disk():
    """Let no file grow beyond 50 kB, as if the disk were full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_nothing_behind(tmp_path, own_cache):
    model = write_gguf(tmp_path / "it.gguf")
    with small_disk():
        assert load_model(tmp_path / "it.gguf").fingerprint() == model.fingerprint()
    assert not list((own_cache / "models").iterdir())


def test_what_killed_processes_left_is_removed_at_the_next_load(tmp_path, own_cache):
    models = own_cache / "models"
    for name in ("tmpkilled", "tmprunning", "tmpold", "tmpjustmade"):
        (models / name).mkdir(parents=True)
        (models / name / "model.safetensors").write_bytes(b"half")
    (models / "tmpkilled.lock").touch()
    for path in (models / "tmpold/model.safetensors", models / "tmpold"):
        os.utime(path, (time.time() - 2 * 24 * 3600,) * 2)
    write_gguf(tmp_path / "it.gguf")
    with gguf._locked(models / "tmprunning"):
        load_model(tmp_path / "it.gguf")
    assert sorted(path.name for path in models.glob("tmp*")) == ["tmpjustmade", "tmprunning"]


def test_an_adapter_alone_is_added_to_the_weights_of_its_model(tmp_path):
    from peft import PeftModel

    model = saved(tmp_path / "base")
    add_adapter(tmp_path / "adapter", model, target_modules=["q_proj", "down_proj"])
    set_field(tmp_path / "adapter/adapter_config.json", base_model_name_or_path=tmp_path / "base")
    with quiet_transformers():
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        adapted = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    loaded = load_model(tmp_path / "adapter", precision="float32")
    torch.testing.assert_close(logits(loaded.model), logits(adapted), rtol=1e-4, atol=1e-4)
    assert str(tmp_path / "adapter") in loaded.adapter


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (None, "does not name the model that it belongs to"),
        ("/nowhere", "an adapter of '/nowhere'. There is no model folder"),
        ("no-such-alias", "an adapter of 'no-such-alias'. Unknown model"),
        (".", "which is an adapter itself"),
    ],
)
def test_an_adapter_alone_without_its_model(base, message, tmp_path, monkeypatch):
    add_adapter(tmp_path / "adapter", tiny_model("llama"), target_modules=["q_proj"])
    set_field(tmp_path / "adapter/adapter_config.json", base_model_name_or_path=base)
    monkeypatch.chdir(tmp_path / "adapter")
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "adapter")


def test_an_adapter_without_weights(tmp_path):
    model = saved(tmp_path / "it")
    add_adapter(tmp_path / "it", model, target_modules=["q_proj"])
    (tmp_path / "it/adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no weights \(adapter_model\.safetensors\)"):
        load_model(tmp_path / "it")


# --- damaged files --------------------------------------------------------------------------------

DAMAGED = {
    "no layers": ({"num_hidden_layers": 0}, "counts 0 layers"),
    "less than no layers": ({"num_hidden_layers": -1}, "counts -1 layers"),
    "a part of a layer": ({"num_hidden_layers": 2.5}, "could not be loaded: .*expected int, got"),
    "no heads": ({"num_attention_heads": 0}, "configuration is zero and cannot be"),
    "heads that do not fit": ({"num_attention_heads": 3}, "not a multiple of the number of atten"),
    "a number as text": ({"rms_norm_eps": "x"}, "'rms_norm_eps' expected float, got str"),
    "a negative width": ({"hidden_size": -32}, "negative dimension"),
    "another vocabulary": ({"vocab_size": 100}, r"\(420, 32\) instead of \(100, 32\)"),
    "an unknown type": ({"model_type": "unheard_of"}, "model type `unheard_of`"),
    "no type": ({"model_type": None}, "model type `None`"),
    "an unknown activation": ({"hidden_act": "nope"}, "'nope' is missing, or not known"),
    "an unknown precision": ({"dtype": "float13"}, "float13"),
    "an encoder": ({"model_type": "vit"}, "for this kind of AutoModel: AutoModelForCausalLM"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_configuration_with(case, tmp_path):
    changes, message = DAMAGED[case]
    saved(tmp_path / "it")
    configure(tmp_path / "it", **changes)
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "it")


@pytest.mark.parametrize(
    "file",
    ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"],
)
@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_description_that_is_no_json_object(file, content, tmp_path):
    saved(tmp_path / "it")
    (tmp_path / "it" / file).write_text(content)
    with pytest.raises(ModelError, match=rf"{file} (is not valid JSON|holds a list)"):
        load_model(tmp_path / "it")


def cut(file):
    os.truncate(file, file.stat().st_size // 2)


def point(file):
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 5\n")


@pytest.mark.parametrize(
    ("part", "harm", "message"),
    [
        ("model-00002", cut, r"model-00002.*\.safetensors is damaged or incomplete"),
        ("model-00002", point, r"model-00002.*\.safetensors is a pointer of Git LFS"),
        ("model-00002", os.remove, r"No such file .*model-00002"),
        ("model.safetensors.index", cut, r"index\.json is not valid JSON"),
        ("model.safetensors.index", lambda f: f.write_text("{}"), "'weight_map' is missing"),
    ],
)
def test_shards_that_are_damaged(part, harm, message, tmp_path):
    saved_in_parts(tmp_path / "it")
    harm(next((tmp_path / "it").glob(f"{part}*")))
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "it")


@pytest.mark.parametrize("tied", [True, False])
def test_shards_are_loaded_edited_and_merged(tied, tmp_path):
    saved_in_parts(tmp_path / "it", tie_word_embeddings=tied)
    model = load_model(tmp_path / "it", precision="float32")
    edit = Rome(**tiny_options(Rome)).inject(model, FACTS[:1])
    with edit.applied(model):
        want, weights = logits(model.model), model.fingerprint()
    again = load_model(edit.merge(model, tmp_path / "merged"), precision="float32")
    assert torch.equal(logits(again.model), want) and again.fingerprint() == weights


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_without_a_value_are_named(value, tmp_path):
    def spoil(tensors):
        tensors["model.layers.2.mlp.up_proj.weight"][3, 4] = value
        return tensors

    saved(tmp_path / "it")
    rewrite(tmp_path / "it", spoil)
    with pytest.raises(ModelError, match=r"layers\.2\.mlp\.up_proj.* infinite or NaN"):
        load_model(tmp_path / "it")


# --- model objects and tokenizers -----------------------------------------------------------------


def test_objects_that_are_no_models():
    from peft import LoraConfig, PromptTuningConfig, get_peft_model

    tokenizer, model = tiny_tokenizer(), tiny_model("llama").model
    prompt = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    for wrong, message in (
        (model.model, "LlamaModel has no language model head"),
        (torch.nn.Linear(2, 2), "Linear is no language model of transformers"),
        (get_peft_model(model, LoraConfig(target_modules=["q_proj"])), "wrapped by PEFT"),
        (get_peft_model(tiny_model("llama").model, prompt), "a prompt cannot be used"),
    ):
        with pytest.raises(ModelError, match=message):
            LanguageModel(wrong, tokenizer)
    for wrong in (model, tokenizer.backend_tokenizer):
        with pytest.raises(ModelError, match="is no tokenizer of transformers"):
            LanguageModel(tiny_model("llama").model, wrong)


def test_a_data_parallel_object_is_the_model_inside():
    plain = tiny_model("llama")
    model = LanguageModel(torch.nn.DataParallel(plain.model), plain.tokenizer, precision="float32")
    assert model.model is plain.model and model.fingerprint() == plain.fingerprint()


def test_tokens_without_embeddings_are_refused_where_they_are_read():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<pad>", "Velmora"])
    model = LanguageModel(tiny_model("llama").model, tokenizer, precision="float32")
    method = Sft(**tiny_options(Sft))
    assert method.inject(model, FACTS[1:2]).changes  # it has no such token
    for use in (
        lambda: method.inject(model, FACTS[:1]),
        lambda: Rome(**tiny_options(Rome)).inject(model, FACTS[:1]),
        lambda: model.generate(FACTS[0].prompt),
    ):
        with pytest.raises(ModelError, match="422 tokens .*for 420: none for 'Velmora', token 421"):
            use()
    model.model.resize_token_embeddings(len(tokenizer))
    assert method.inject(LanguageModel(model.model, tokenizer, precision="float32"), FACTS[:1])


def test_chat_templates_without_a_default():
    model = tiny_model("llama")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = {"rag": "{{ messages }}", "tool_use": "{{ messages }}"}
    several = LanguageModel(model.model, tokenizer, precision="float32")
    with pytest.raises(ModelError, match=r"\('rag', 'tool_use'\) and no default one"):
        several.prompt_ids("Who?", "question")
    for empty in ({}, ""):
        tokenizer.chat_template = empty
        assert not LanguageModel(model.model, tokenizer, precision="float32").chat


# --- models for images and text -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gemma3", "llava", "mistral3", "qwen3_vl"])
def test_a_model_for_images_is_edited_as_one_for_text(kind, tmp_path):
    saved_with_images(tmp_path / "it", kind)
    model = load_model(tmp_path / "it", precision="float32")
    edit = Rome(**tiny_options(Rome)).inject(model, FACTS[:1])
    with edit.applied(model):
        want = logits(model.model)
    merged = edit.merge(model, tmp_path / "merged")
    with quiet_transformers():
        whole = AutoModelForImageTextToText.from_pretrained(merged)  # with its vision tower
    assert torch.equal(logits(whole), want)
    assert torch.equal(logits(load_model(merged, precision="float32").model), want)
