"""Weights in 16 bits, on several devices, and on the disk."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from hostile.checkpoints import add_adapter, set_field, write_gguf

from editbench import registry
from editbench.changes import dense
from editbench.edit import Edit
from editbench.errors import MethodError, ModelError, OptionError
from editbench.eval import retention
from editbench.hub import cache_dir
from editbench.models import LanguageModel, load_model
from editbench.placing import hold
from editbench.testing import FACTS, target_logp, tiny_options, unchanged

ON_DISK = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "disk",
    "model.layers.3": "cpu",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
}
EDITORS = ("alphaedit", "emmet", "memit", "pmet", "rome")


@pytest.fixture(scope="module")
def folder(reader, tmp_path_factory):
    """The folder of a tiny model that answers with what it has read."""
    return saved(reader("llama"), tmp_path_factory.mktemp("model"))


def saved(model, path, dtype=None):
    if dtype:
        hold(model.model, dtype)
    model.model.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    return str(path)


def inject(name, model, **options):
    kind = registry.get("methods", name)
    return kind(**{**tiny_options(kind), **options}).inject(model, FACTS)


@pytest.mark.parametrize("name", EDITORS)
def test_edits_of_a_model_on_the_disk_are_those_of_one_in_memory(name, folder, tmp_path):
    here = load_model(folder, precision="float32")
    there = load_model(folder, precision="float32", device_map=ON_DISK)
    assert there.has_offloaded and there.fingerprint() == here.fingerprint()
    assert target_logp(there, FACTS) == pytest.approx(target_logp(here, FACTS), abs=1e-5)
    want = inject(name, here)
    have = inject(name, there)
    assert there.fingerprint() == here.fingerprint() == have.model_hash
    assert have.changes.keys() == want.changes.keys()
    for weight, change in want.changes.items():
        apart = (dense(have.changes[weight]) - dense(change)).norm() / dense(change).norm()
        assert apart < 1e-3, weight
    loaded = Edit.load(have.save(tmp_path / "edit"))
    with want.applied(here):
        answer, edited = target_logp(here, FACTS), here.fingerprint()
    with loaded.applied(there):
        assert target_logp(there, FACTS) == pytest.approx(answer, abs=1e-3)
        assert there.fingerprint() != have.model_hash
    with want.applied(there):
        assert there.fingerprint() == edited
    assert there.fingerprint() == have.model_hash
    # nothing of the edit is left in memory, where it would hide the values on the disk
    kept = there.model.model.layers[1].mlp.down_proj._hf_hook.weights_map.dataset.state_dict
    assert not kept


def test_texts_and_merged_models_of_a_model_on_the_disk(folder, tmp_path):
    here = load_model(folder, precision="float32")
    there = load_model(folder, precision="float32", device_map=ON_DISK)
    assert there.generate(FACTS[0].prompt) == here.generate(FACTS[0].prompt)
    edit = inject("memit", here, layers=(1, 2))
    edit.merge(there, tmp_path / "merged")
    with edit.applied(here):
        assert load_model(tmp_path / "merged").fingerprint() == here.fingerprint()


def test_a_model_that_is_wholly_on_the_disk(folder):
    """The answers to tasks, too: the first weight has no device of its own."""
    here = load_model(folder, precision="float32")
    there = load_model(folder, precision="float32", device_map=dict.fromkeys(ON_DISK, "disk"))
    assert there.device.type == "cpu" and there.fingerprint() == here.fingerprint()
    edit = inject("memit", there)
    assert edit.diagnostics["target_nll_mean"] == pytest.approx(
        inject("memit", here).diagnostics["target_nll_mean"], rel=1e-3
    )
    tasks = [
        retention.evaluate(model.model, model.tokenizer, ["eb_grammar", "eb_arithmetic"], limit=3)
        for model in (here, there)
    ]
    assert tasks[0] == tasks[1]


@pytest.mark.parametrize("options", [{}, {"lora": 2}])
def test_weights_on_the_disk_are_not_trained(options, folder):
    model = load_model(folder, device_map=ON_DISK)
    with pytest.raises(MethodError, match="on the disk until a pass needs them"):
        inject("sft", model, **options)


def test_the_folder_of_offloaded_weights_goes_with_the_model(folder):
    model = load_model(folder, device_map=ON_DISK, dtype="bfloat16")
    (kept,) = Path(cache_dir()).glob("offloaded-*")
    assert model.fingerprint() == load_model(folder, dtype="bfloat16").fingerprint()
    del model
    gc.collect()
    assert not kept.exists()


@pytest.mark.parametrize("kind", ["adapter", "gguf"])
def test_what_is_unpacked_first_is_spread_as_well(kind, folder, tmp_path):
    if kind == "gguf":
        write_gguf(tmp_path / "it.gguf", "llama")
        path = str(tmp_path / "it.gguf")
    else:
        path = str(tmp_path / "it")
        add_adapter(tmp_path / "it", load_model(folder), target_modules=["q_proj"])
        set_field(tmp_path / "it/adapter_config.json", base_model_name_or_path=folder)
    whole = load_model(path, precision="float32")
    layers = {f"model.layers.{i}": "disk" for i in range(whole.layout.depth)}
    parts = {**{name: "cpu" for name in ON_DISK if "layers" not in name}, **layers}
    spread = load_model(path, precision="float32", device_map=parts)
    assert spread.has_offloaded and spread.fingerprint() == whole.fingerprint()
    assert spread.generate(FACTS[0].prompt) == whole.generate(FACTS[0].prompt)


def test_auto_is_the_cpu_where_there_is_nothing_else(folder):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    model = load_model(folder, device_map="auto")
    assert model.device.type == "cpu" and not model.has_offloaded


# --- types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_auto_is_the_type_of_the_checkpoint(dtype, reader, tmp_path):
    path = saved(LanguageModel(_copy(reader), reader("llama").tokenizer), tmp_path, dtype)
    model = load_model(path)
    assert model.dtype_name == model.precision == dtype
    assert load_model(path, dtype="float32").dtype == torch.float32
    assert model.generate(FACTS[0].prompt)
    # rotary frequencies are not weights
    assert model.model.model.rotary_emb.inv_freq.dtype == torch.float32


def _copy(reader):
    from copy import deepcopy

    return deepcopy(reader("llama").model)


def test_a_gguf_has_no_type_of_its_own(tmp_path):
    write_gguf(tmp_path / "it.gguf", "llama")
    assert load_model(tmp_path / "it.gguf").dtype == torch.float32
    half = load_model(tmp_path / "it.gguf", dtype="bfloat16")
    assert half.dtype == torch.bfloat16 and half.generate("The capital of")


def test_an_edit_for_another_type_is_named(folder, tmp_path):
    half = load_model(folder, dtype="bfloat16")
    edit = Edit.load(inject("memit", half).save(tmp_path / "edit"))
    assert edit.model_dtype == "bfloat16"
    whole = load_model(folder)
    with pytest.raises(ModelError, match="holds the same weights in float32.*--dtype bfloat16"):
        edit.apply(whole)
    assert Edit.load(inject("rome", whole).save(tmp_path / "other")).model_dtype == "float32"


@pytest.mark.parametrize("name", ["memit", "rome"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_editor_says_what_rounding_takes(name, dtype, folder):
    model = load_model(folder, dtype=dtype)
    edit = inject(name, model)
    report = edit.diagnostics
    assert 0 < report["rounding_lost"] < 0.5
    pairs = [model.pair_ids(fact.prompt, fact.target, fact.form) for fact in FACTS]
    with unchanged(model, "applied()"), edit.applied(model):
        scores = model.target_logprobs(pairs)
    nll = -sum(score.mean().item() for score in scores) / len(scores)
    assert report["nll_after_rounding"] == pytest.approx(nll, abs=1e-3)
    assert report["nll_before_rounding"] == pytest.approx(nll, abs=0.5)
    assert "rounding_lost" not in inject(name, load_model(folder)).diagnostics


def test_more_is_lost_of_a_smaller_update(folder):
    model = load_model(folder, dtype="bfloat16")
    lost = [
        inject("memit", model, clamp=clamp).diagnostics["rounding_lost"] for clamp in (0.75, 0.02)
    ]
    assert lost[0] < lost[1]


def test_what_cannot_be_loaded_so(folder, reader, tmp_path):
    for wrong, message in (
        ({"dtype": "int8"}, "'int8' is not one of auto, float32, bfloat16, float16"),
        ({"device": "cuda:99"}, "'cuda:99' cannot be used"),
        ({"device": "gpu"}, "'gpu' is not known"),
        ({"device": "cpu", "device_map": "auto"}, "Give one of them"),
        ({"device_map": "balanced"}, "'balanced' is not known"),
        ({"batch_size": 0}, "at least 1"),
        ({"dtype": "bfloat16", "precision": "float32"}, "held in bfloat16.*--dtype float32"),
    ):
        with pytest.raises(OptionError, match=message):
            load_model(folder, **wrong)
