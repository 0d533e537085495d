"""What the doctor predicts from a configuration, and what commands refuse before they load."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import astuple, dataclass, replace
from typing import ClassVar

import pytest
import torch
from tiny import editbench, write_facts, write_model
from transformers import LlamaConfig, LlamaForCausalLM

from editbench import registry
from editbench.aliases import DEFAULT
from editbench.asked import Batch, Evaluation
from editbench.cost import Meter
from editbench.doctor import check_memory, examine
from editbench.errors import MethodError, NoDenseMlp
from editbench.eval import counting, retention
from editbench.findings import findings
from editbench.memory import Texts, free_bytes, gibibytes, left_in_group
from editbench.methods._train import adapters
from editbench.methods._train.weights import trainable
from editbench.models import quiet_transformers
from editbench.outline import Outline, read_outline, read_tokenizer
from editbench.pace import Work, measure
from editbench.plugin import Method
from editbench.prediction import predict
from editbench.remedies import remedy
from editbench.testing import FACTS, FAMILIES, tiny_model, tiny_options

METHODS = [
    name for name in registry.names("methods") if registry.get("methods", name).kind != "EasyEdit"
]
HUGE = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 200}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def huge(folder, tmp_path):
    """Copy a model whose configuration says more than any machine holds, without its weights."""
    copy = shutil.copytree(folder, tmp_path / "huge")
    (copy / "model.safetensors").unlink()  # so that it can never be loaded
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **HUGE}))
    return copy


def outline_of(model) -> Outline:
    """Return the outline of a model in memory."""
    with torch.device("meta"):
        empty = type(model.model)(model.model.config)
    return Outline(model.name, empty, torch.device("cpu"), "float32", 2**33)


def built(name, **options):
    return registry.get("methods", name).from_options(name, options)


# --- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_an_outline_has_the_sizes_of_the_loaded_model(family):
    model = tiny_model(family)
    outline = outline_of(model)
    assert all(p.is_meta for p in outline.model.parameters())
    assert outline.parameters == sum(p.numel() for p in model.model.parameters())
    assert outline.layout == model.layout
    assert outline.vocabulary == len(model.model.get_input_embeddings().weight)
    head = model.model.get_output_embeddings().weight
    assert outline.tied == (head is model.model.get_input_embeddings().weight)


def test_an_outline_reads_no_weights(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"no weights at all")
    outline = read_outline(str(copy))
    assert outline.parameters == read_outline(str(folder)).parameters
    (said,) = [text for text in findings(outline, [], tmp_path) if "cannot be read" in text]
    assert "model.safetensors is damaged" in said


def test_an_adapter_has_the_outline_of_its_model(folder, tmp_path):
    settings = {"base_model_name_or_path": str(folder), "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert read_outline(str(tmp_path)).parameters == read_outline(str(folder)).parameters


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {}),
        ("llama", {"lora": 3}),
        ("llama", {"lora": 2, "null_space": 0.5}),
        ("mistral", {}),
        ("mistral", {"lora": 3}),
        ("gpt2", {"lora": 3}),
    ],
)
def test_a_training_holds_four_numbers_for_each_that_is_trained(family, options, monkeypatch):
    monkeypatch.setattr(adapters, "NULL_TOKENS", 300)
    model = tiny_model(family)
    method = built("sft", **options)
    memory = method.memory(outline_of(model), Texts.of(FACTS))
    with trainable(model, method.lora, method.null_space, 0) as trained:
        size = sum(p.nbytes for p in trained.parameters.values())
        kept = sum(before.nbytes for before in trained.before.values())
    held = memory.phases[-1].device
    assert memory.edit == size and held["AdamW's moments"] == 2 * size
    assert held["kept copy"] == kept and held["gradients"] >= size


@pytest.mark.parametrize("name", ["sft", "rome", "memit"])
def test_the_edit_is_as_large_as_predicted(name):
    model = tiny_model("llama")
    method = built(name, **tiny_options(registry.get("methods", name)))
    edit = method.inject(model, FACTS)
    tensors = [part for c in edit.changes.values() for part in (c if type(c) is tuple else [c])]
    size = sum(tensor.nbytes for tensor in [*tensors, *edit.keys.values()])
    assert size <= method.memory(outline_of(model), Texts.of(FACTS)).edit <= 1.5 * size + 10_000


@pytest.mark.parametrize("name", [*METHODS, "memit+mixsd"])
def test_every_method_says_what_it_holds(name):
    outline = outline_of(tiny_model("llama"))
    prediction = predict(built(name), outline, Texts(10))
    assert prediction.fits and prediction.tightest.held["weights"] == outline.weights
    more = predict(built(name), outline, Texts(10, prompt=4000, target=400, after=2000))
    assert more.tightest.needed > prediction.tightest.needed, "longer texts take more"


def test_weight_editors_hold_a_covariance_for_each_layer():
    outline = outline_of(tiny_model("llama", num_hidden_layers=20))

    def covariance(name, **options):
        phases = built(name, **options).memory(outline, Texts(1)).phases
        (solver,) = [phase for phase in phases if phase.name == "solver"]
        return solver.main["covariance"]

    matrix = 8 * outline.mlp_width**2
    assert covariance("rome") == 2 * matrix and covariance("memit") == 10 * matrix
    assert covariance("memit", layers="2,3") == 4 * matrix
    assert covariance("alphaedit", layers="2,3") == 6 * matrix, "with the eigenvectors"


def test_large_matrices_and_copies_are_in_files():
    config = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32}
    config |= {"num_hidden_layers": 10, "vocab_size": 32_000, "head_dim": 128}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**config))
    outline = replace(outline_of(tiny_model("llama")), model=model, free=2**40)
    memit = built("memit").memory(outline, Texts(10))
    (measured,) = [phase for phase in memit.phases if phase.name == "covariance"]
    (solver,) = [phase for phase in memit.phases if phase.name == "solver"]
    assert solver.main["covariance"] == 0 < 3 * 8 * 11008**2 < measured.main["covariance"]
    for dtype, copied in (("float32", 0), ("bfloat16", 2)):
        held_so = replace(outline, dtype=dtype)
        memory = built("sft").memory(held_so, Texts(10))
        end = memory.phases[-1].device
        held = end["kept copy"], end["AdamW's moments"], end["gradients"]
        assert held == tuple(n * outline.parameters for n in (copied, 8, 4))
        assert end["float32 weights"] + held_so.weights == 4 * outline.parameters
        assert memory.filed == memory.edit == 4 * outline.parameters


@dataclass(frozen=True)
class Silent(Method):
    """A plug-in from before methods said what they hold, with an option of that name."""

    name: ClassVar[str] = "silent"
    memory: int = 5  # type: ignore[assignment]
    lighter: int = 2  # type: ignore[assignment]

    def inject(self, model, facts):
        return self.edit(model, facts)


@dataclass(frozen=True)
class Faulty(Method):
    """A plug-in that fails to say what it holds."""

    name: ClassVar[str] = "faulty"

    def memory(self, model, texts):
        return {"weights": 1 // (texts.facts - texts.facts)}

    def inject(self, model, facts):
        return self.edit(model, facts)


def test_a_plug_in_that_fails_to_say_what_it_needs_is_passed_over(folder, tmp_path):
    methods = {"silent": Silent(), "faulty": Faulty()}
    check_memory(str(folder), methods, FACTS)
    report = examine(read_outline(str(folder)), methods, Texts(3), tmp_path)
    assert [row["fits"] for row in report["methods"]] == [None, None]
    silent, faulty = (row["note"] for row in report["methods"])
    assert "Silent.memory: TypeError" in silent
    assert "Faulty.memory: ZeroDivisionError: integer division or modulo by zero" in faulty


def test_sizes_are_told_in_the_unit_that_suits_them():
    sizes = [0, 50 * 2**10, 2**20, 200 * 2**20, 900 * 2**30, 3000 * 2**40]
    said = ["0", "50.0 KiB", "1.0 MiB", "0.2 GiB", "900.0 GiB", "3,000.0 TiB"]
    assert [gibibytes(size) for size in sizes] == said


# --- time ---------------------------------------------------------------------------------------

ALL_STEPS = {"sft": {"enough": 0.0}, "mixsd": {"enough": 0.0, "max_new_tokens": 8}}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sft", {}),
        ("sft", {"lora": 2, "kl": 1.0}),
        ("mixsd", {"attempts": 1, "on_fail": "keep"}),
        ("rome", {"steps": 4}),
        ("memit", {"steps": 4}),
        ("ultraedit", {}),
        ("crispedit", {}),
    ],
)
def test_the_work_is_what_the_meter_counts(name, options, tmp_path, monkeypatch):
    monkeypatch.setenv("EDITBENCH_CACHE", str(tmp_path))  # nothing is measured already
    model = tiny_model("llama")
    options = {**tiny_options(registry.get("methods", name)), **ALL_STEPS.get(name, {}), **options}
    method = built(name, **options)
    prompts = [model.prompt_ids(fact.prompt, fact.form) for fact in FACTS]
    length = max(len(model.tokenizer(fact.target).input_ids) for fact in FACTS)
    texts = Texts(len(FACTS), max(map(len, prompts)), length, after=2)
    with Meter(model) as meter:
        with meter.phase("both"):
            method.prepare(model)
            method.inject(model, FACTS)
    work, done = method.work(outline_of(model), texts), meter.work["both"]
    tokens = work.read + work.plain + work.trained + work.solved + work.written
    assert 0.5 < (work.trained + work.solved) / done["gradient_tokens"] < 2, (work, done)
    if work.written or done.get("decoded_tokens"):
        assert 0.5 < work.written / done["decoded_tokens"] < 2, (work, done)
    assert 0.5 < tokens / done["tokens"] < 2, (work, done)


@pytest.mark.parametrize("name", [*METHODS, "memit+mixsd"])
def test_every_method_says_what_it_computes(name):
    outline = outline_of(tiny_model("llama"))
    few, many = (built(name).work(outline, Texts(n)) for n in (10, 1000))
    assert all(0 <= a <= b for a, b in zip(astuple(few), astuple(many), strict=True))
    assert name in ("base", "ice") or sum(astuple(few)) < sum(astuple(many))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_layer_of_every_family_is_timed(family):
    outline = outline_of(tiny_model(family))
    for precision in ("float32", "bfloat16"):
        pace = measure(replace(outline, precision=precision))
        assert pace is not None, family
        assert all(math.isfinite(seconds) and seconds >= 0 for seconds in astuple(pace))
        assert pace.seconds(Work()) == 0
        assert pace.seconds(Work(trained=2)) == 2 * pace.trained > 0
    assert measure(replace(outline, free=100)) is None, "it would not fit"


def test_the_doctor_says_the_minutes(folder):
    report = json.loads(editbench("doctor", folder, "--methods", "sft,ice", "--json").out)
    sft, ice = report["methods"]
    assert 0 < sft["minutes"] < 60 and ice["minutes"] == 0
    assert "minutes" in editbench("doctor", folder, "--methods", "sft").out


def test_a_model_that_cannot_be_timed_has_no_minutes(huge, tmp_path):
    report = examine(
        replace(read_outline(str(huge)), free=2**30),
        {"sft": built("sft")},
        Texts(3),
        tmp_path,
        timed=True,
    )
    assert report["methods"][0]["minutes"] is None
    assert any("How long a method takes is not said" in line for line in report["findings"])


# --- what would make it fit ---------------------------------------------------------------------


def test_the_mildest_options_that_fit_are_named():
    outline = replace(outline_of(tiny_model("llama", vocab_size=30_000)), free=0)
    sft, texts = built("sft", batch_size=10, rewordings=1), Texts(5, prompt=600)
    needs = {
        key: predict(replace(sft, **options), outline, texts).tightest.needed
        for key, options in {
            "all": {},
            "part": {"micro_batch": 1},
            "lora": {"lora": 16, "micro_batch": 1, "checkpointing": True},
        }.items()
    }
    assert needs["lora"] < needs["part"] < needs["all"]
    process = predict(sft, outline, texts).tightest.free  # what it has already

    def named(key):
        room = replace(outline, free=needs[key] - process + 2**24)
        return remedy("sft", sft, room, texts)

    assert named("all") == []
    assert named("part") == ["--option sft.micro_batch=1"]
    assert remedy("sft", sft, replace(outline, free=-process), texts) is None


def test_memit_is_offered_fewer_layers():
    outline = outline_of(tiny_model("llama", num_hidden_layers=20))
    offered = list(built("memit").lighter(outline))
    assert offered[0] == {"prefixes": 0} and [len(o["layers"]) for o in offered[1:]] == [3, 1]


# --- commands -----------------------------------------------------------------------------------


def test_the_doctor_names_each_method_and_what_is_wrong(folder):
    said = editbench("doctor", folder, "--facts", 7)
    assert said.code == 0, said.err
    assert set(METHODS) <= set(said.out.split())
    assert "has no chat template" in said.out
    report = json.loads(editbench("doctor", folder, "--methods", "sft,rome", "--json").out)
    assert [row["method"] for row in report["methods"]] == ["sft", "rome"]
    assert all(row["fits"] and row["needed"] > report["weights"] for row in report["methods"])


def test_the_doctor_takes_options_of_methods(folder):
    def needed(*options):
        flags = [part for option in options for part in ("--option", option)]
        said = editbench("doctor", folder, "--methods", "memit", *flags, "--json")
        return json.loads(said.out)["methods"][0]["edit"]

    assert needed("memit.layers=0,1") > needed("memit.layers=0")
    said = editbench("doctor", folder, "--methods", "memit", "--option", "sft.lr=1")
    assert said.code == 2 and "--option sft is of a method" in said.err
    said = editbench("doctor", folder / "nothing")
    assert said.code == 2 and "There is no model folder" in said.err


def test_a_method_that_does_not_say_what_it_needs_is_no_failure(folder):
    said = editbench("doctor", folder, "--methods", "easyedit-rome", "--json")
    (row,) = json.loads(said.out)["methods"]
    assert said.code == 0 and row["fits"] is None
    said = editbench("doctor", folder, "--methods", "easyedit-rome")
    assert said.code == 0 and "- easyedit-rome: does not say what it needs." in said.out


def test_the_doctor_refuses_what_loading_would_refuse(folder, tmp_path):
    empty = shutil.copytree(folder, tmp_path / "empty")
    config = json.loads((empty / "config.json").read_text())
    (empty / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 0}))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    for arguments, sentence in (
        ([folder / "config.json"], "config.json is a file, and a model is a folder"),
        ([empty], "counts 0 layers"),
        ([adapter], "Write that into base_model_name_or_path"),
        ([folder, "--precision", "int8"], "Precision 'int8' is not one of"),
        ([folder, "--layout", "layers=nowhere"], "has no module 'nowhere'"),
    ):
        said = editbench("doctor", *arguments)
        assert said.code == 2 and sentence in said.err, said.err
        loaded = editbench(
            *("inject", "--method", "sft", "--facts", write_facts(tmp_path / "facts.jsonl")),
            *("--model", *arguments, "--output", tmp_path / "out"),
        )
        assert loaded.code == 2 and sentence in loaded.err, loaded.err


def test_an_adapter_of_a_gguf_file_has_its_tokenizer(tmp_path):
    settings = {"base_model_name_or_path": "smollm2-135m"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert read_tokenizer(str(tmp_path)).chat_template


@pytest.mark.parametrize("command", ["inject", "compare", "tune"])
def test_what_cannot_fit_is_refused_before_it_is_loaded(command, huge, tmp_path):
    facts = write_facts(tmp_path / "facts.jsonl")
    flag = "--method" if command == "inject" else "--methods"
    call = (command, flag, "sft", "--facts", facts, "--model", huge, "--output", tmp_path / "out")
    more = () if command == "inject" else ("--tasks", "eb_grammar")
    said = editbench(*call, *more)
    assert said.code == 2 and "GiB in float32, and" in said.err, said.err
    assert not (tmp_path / "out").exists()
    on = editbench(*call, *more, "--skip-memory-check")
    assert on.code == 2 and "could not be loaded" in on.err, on.err


def test_the_sentence_names_what_is_held_and_what_would_fit(folder, tmp_path):
    # Weights that fit, in a training that does not: 0.3 of what is free.
    config = {**json.loads((folder / "config.json").read_text()), "hidden_size": 128}
    rows = int(free_bytes(torch.device("cpu")) * 0.3 / 4 / config["hidden_size"])
    copy = shutil.copytree(folder, tmp_path / "wide")
    (copy / "model.safetensors").unlink()
    (copy / "config.json").write_text(json.dumps({**config, "vocab_size": rows}))
    facts = write_facts(tmp_path / "facts.jsonl")
    said = editbench(
        "inject", "--method", "sft", "--facts", facts, "--model", copy, "--output", tmp_path / "out"
    )  # fmt: skip
    assert said.code == 2 and "sft would need" in said.err and "AdamW's moments" in said.err


# --- what else is wrong -------------------------------------------------------------------------


def test_a_model_without_a_matrix_to_write_is_for_trainers_only(tmp_path):
    config = {"num_local_experts": 4, "num_experts_per_tok": 2, "hidden_size": 32}
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    heads = {"num_key_value_heads": 2, "vocab_size": 500}
    with torch.device("meta"):
        mixture = AutoModelForCausalLM.from_config(
            AutoConfig.for_model("mixtral", **config, **sizes, **heads)
        )
    outline = Outline("mixture", mixture, torch.device("cpu"), "float32", 2**33)
    with pytest.raises(NoDenseMlp):
        outline.layout.check_writable()
    model = tiny_model("llama")
    with quiet_transformers():
        model.tokenizer.save_pretrained(tmp_path)
        mixture.config.save_pretrained(tmp_path)
    outline = replace(outline, name=str(tmp_path))
    both = {"memit": built("memit"), "sft": built("sft")}
    memit, sft = examine(outline, both, Texts(5), tmp_path)["methods"]
    assert memit["needed"] is None and not memit["fits"] and sft["fits"]
    assert "cannot edit this model" in memit["note"]
    for methods, times in ((both, 0), ({"sft": built("sft")}, 1)):  # said once
        lines = examine(outline, methods, Texts(5), tmp_path)["findings"]
        assert sum("Weight editors cannot" in line for line in lines) == times


def test_templates_and_disks_are_looked_at(tmp_path):
    model = tiny_model("llama", chat=True)
    thinking = model.tokenizer.chat_template.replace(
        "assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"
    )
    with quiet_transformers():
        model.model.save_pretrained(tmp_path)
        model.tokenizer.chat_template = thinking
        model.tokenizer.save_pretrained(tmp_path)
    outline = read_outline(str(tmp_path))
    said = " ".join(findings(outline, [2**60], tmp_path))
    assert "It can think before it answers" in said and "free, and the edit takes" in said


def test_the_limit_of_a_container_counts(tmp_path):
    assert left_in_group(tmp_path) == []
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    assert left_in_group(tmp_path) == []
    (tmp_path / "memory.max").write_text("1000\n")
    assert left_in_group(tmp_path) == [300]
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert left_in_group(tmp_path) == [450]


# --- retention tasks ------------------------------------------------------------------------------


def test_tasks_are_counted_as_they_are_asked(monkeypatch):
    model = tiny_model("llama", chat=True)
    tasks = ["eb_grammar", "eb_instruct", "eb_arithmetic"]
    counted = counting.count(outline_of(model).model, model.tokenizer, tasks, 4, limit=6)
    with Meter(model) as meter, meter.phase("asked"), model.compute(weights_fixed=True):
        samples = retention.evaluate(
            model.model, model.tokenizer, tasks, limit=6, batch_size=4, answering=model
        )
    assert [len(rows) for rows in samples.values()] == [6, 6, 6]
    assert counted.requests == 12 + 6 + 6, "a choice is a request"
    work, done = counted.work, meter.work["asked"]
    # at most: a text may end before its room is used, and a shared beginning is read once
    assert 0.2 < done["tokens"] / (work.read + work.written) <= 1.05, (work, done)
    assert done["decoded_tokens"] <= work.written


def test_the_doctor_says_what_a_comparison_takes(folder):
    call = ("doctor", folder, "--methods", "sft,ice", "--facts", 10)
    said = editbench(*call, "--tasks", "eb_grammar,eb_arithmetic", "--limit", 10, "--json")
    report = json.loads(said.out)
    compared, (sft, _) = report["compare"], report["methods"]
    assert compared["requests"] == 30
    # the base, sft, and the facts in context, which change no answer to most tasks
    asked = 3 * compared["probes"] + 2 * compared["tasks"]
    assert compared["total"] == pytest.approx(asked + sft["minutes"])
    assert (
        "'editbench compare' with these methods takes"
        in editbench(*call, "--tasks", "eb_grammar").out
    )
    assert json.loads(editbench(*call, "--json").out)["compare"] is None
    unknown = editbench(*call, "--tasks", "eb_gramar")
    assert unknown.code == 2 and "eb_grammar" in unknown.err


def test_long_requests_are_asked_fewer_at_a_time():
    outline, ice, texts = outline_of(tiny_model("llama")), built("ice"), Texts(1, prompt=2)
    asked = Evaluation([Batch(32, 1000, 32)])
    needs = {
        size: predict(ice, outline, texts, asked.at_most(size)).tightest.needed
        for size in (32, 16, 8)
    }
    assert needs[8] < needs[16] < needs[32]
    process = predict(ice, outline, texts).tightest.free - outline.free
    room = replace(outline, free=needs[8] - process + 1000)
    assert not predict(ice, room, texts, asked).fits
    assert remedy("ice", ice, room, texts, asked) == ["--batch-size 8"]


# --- options of loading ---------------------------------------------------------------------------


def test_a_narrower_type_is_offered_and_fits_when_it_is_tried(folder, tmp_path, monkeypatch):
    """Everything but half of the weights is there."""
    from editbench import outline as outlines

    config = json.loads((folder / "config.json").read_text())
    copy = shutil.copytree(folder, tmp_path / "wide")
    (copy / "model.safetensors").unlink()
    (copy / "config.json").write_text(json.dumps({**config, "vocab_size": 400_000}))
    needed = {
        kind: predict(built("memit"), read_outline(str(copy), dtype=kind), Texts(3)).tightest
        for kind in ("float32", "bfloat16")
    }
    assert needed["bfloat16"].needed < needed["float32"].needed
    process = needed["float32"].held["this process"]
    room = (needed["bfloat16"].needed + needed["float32"].needed) // 2 - process
    monkeypatch.setattr(outlines, "free_bytes", lambda _device: room)
    memit = built("memit", prefixes=0)
    flags = remedy("memit", memit, read_outline(str(copy), dtype="float32"), Texts(3))
    assert flags == ["--dtype bfloat16"]
    tried = read_outline(str(copy), dtype="bfloat16")
    assert predict(memit, tried, Texts(3)).fits
    # passes in float32 over weights of 16 bits are refused by loading, so it is not offered
    given = read_outline(str(copy), precision="float32", dtype="float32")
    assert remedy("memit", memit, given, Texts(3)) is None


def test_weights_that_are_too_large_name_the_type_that_holds_them(folder, tmp_path, monkeypatch):
    from editbench import outline as outlines

    config = json.loads((folder / "config.json").read_text())
    copy = shutil.copytree(folder, tmp_path / "deep")
    (copy / "model.safetensors").unlink()
    (copy / "config.json").write_text(json.dumps({**config, "vocab_size": 100_000_000}))
    size = read_outline(str(copy), dtype="float32").weights  # far more than this process has
    monkeypatch.setattr(outlines, "free_bytes", lambda _device: int(0.7 * size))
    with pytest.raises(MethodError, match="Use --dtype bfloat16, a smaller model"):
        check_memory(str(copy), {"ice": built("ice")}, FACTS, dtype="float32")


@pytest.mark.parametrize(("free", "fits"), [([0.8, 0.8], True), ([0.8], False)])
def test_several_gpus_are_offered_where_the_weights_fit_together(free, fits, monkeypatch):
    """No GPU is at hand: the sizes alone are tried."""
    from editbench import prediction, remedies

    model = replace(outline_of(tiny_model("llama")), device=torch.device("cuda"))
    monkeypatch.setattr(prediction, "free_bytes", lambda _device: 2**34)
    sft, texts = built("sft", lora=2, micro_batch=1, checkpointing=True), Texts(2)
    needed = predict(sft, replace(model, free=1), texts).places[0].needed
    sizes = [int(share * needed) for share in free]
    monkeypatch.setattr(remedies, "free_on_all", lambda _kind: sizes)
    flags = remedy("sft", sft, replace(model, free=sizes[0]), texts)
    assert flags == (["--device-map auto"] if fits else None)


def test_without_a_model_it_is_the_default_one():
    # Refused after the model was read, or because it is not here, and before anything is timed.
    wrong = ("--layout", "layers=nosuch")
    bare, named = (editbench("doctor", *model, *wrong) for model in ([], [DEFAULT]))
    assert (bare.code, bare.err) == (named.code, named.err) and bare.code == 2
    assert "nosuch" in bare.err or "setup-model" in bare.err
