"""Every method, and the scoring, on a device that is not the CPU (``tests/pretend_device.py``)."""

from __future__ import annotations

import pretend_device
import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from hostile.checkpoints import add_adapter, set_field, write_gguf
from hostile.tasks import CHOICE, TEXT, choice, text, write_task
from tiny import write_facts, write_model

from editbench import artifacts, registry
from editbench.changes import dense
from editbench.edit import Edit
from editbench.eval import diagnostics, retention
from editbench.eval.diagnostics import drift
from editbench.eval.diagnostics import fisher as displacement
from editbench.eval.probes import ask
from editbench.export import export
from editbench.methods import memit
from editbench.methods._edit import fisher, refine
from editbench.methods._train import adapters, anchor
from editbench.methods.trace import heat_map, layer_curve, trace
from editbench.models import load_model
from editbench.records.store import RunStore
from editbench.run import runner
from editbench.run.config import RunConfig, run_identity
from editbench.run.plan import make_plan
from editbench.testing import FACTS, check_method, target_logp, tiny_options, unchanged
from editbench.testing import TEXT as SENTENCES
from editbench.types import Case, Probe

pytestmark = pytest.mark.skipif(
    not pretend_device.AVAILABLE, reason="this PyTorch takes no device from Python"
)
METHODS = registry.names("methods")
DEVICE = "pretend:1"
"""The one that refuses more: it has no float64."""


@pytest.fixture(scope="module")
def pair(reader):
    """Give a tiny chat model on the CPU, and its copy on the device.

    Attention is transformers' own code, which rounds alike on both.
    """
    pretend_device.register()
    here = pretend_device.moved(reader("llama", chat=True), "cpu")
    here.model.set_attn_implementation("eager")
    return here, pretend_device.moved(here, DEVICE)


@pytest.fixture(autouse=True)
def little_text(monkeypatch):
    """Measure on few tokens."""
    for number in ("FREE", "ANSWERS", "INSTRUCTED"):
        monkeypatch.setattr(anchor, number, 4)
    monkeypatch.setattr(adapters, "NULL_TOKENS", 800)
    monkeypatch.setattr(fisher, "TOKENS", 256)
    monkeypatch.setattr(memit, "TEXT_TOKENS", 256)
    monkeypatch.setattr(refine, "MIN_STEPS", 4)
    monkeypatch.setattr(displacement, "FISHER_TOKENS", 96)
    monkeypatch.setattr(drift, "DRIFT_TOKENS", 96)


@pytest.mark.parametrize("name", METHODS)
def test_the_contract(name, pair, tmp_path):
    edit = check_method(registry.get("methods", name), pair[1], FACTS, tmp_path, **fewer(name))
    # an edit is on the CPU, wherever it was made
    assert all(part.device.type == "cpu" for part in parts(edit))


OPTIONS = {
    "sft kept near": (
        "sft",
        {"kl": 1.0, "replay": 0.5, "l2": 0.1, "ewc": 0.1, "rewordings": 1, "epochs": 1},
    ),
    "sft adapters": (
        "sft",
        {"lora": 2, "null_space": 0.5, "checkpointing": True, "micro_batch": 1},
    ),
    "mixsd adaptive": ("mixsd", {"mode": "adaptive", "on_fail": "drop", "lora": 2}),
    "mixsd sampled": ("mixsd", {"mode": "alternate", "temperature": 0.7}),
    "mixsd one branch": ("mixsd", {"lam": 1.0}),
    "opsd slow teacher": ("opsd", {"teacher": "ema", "exposure": "adaptive", "divergence": "jsd"}),
    "opsd verified": (
        "opsd",
        {"teacher": "current", "verified": True, "top_k": None, "divergence": "reverse"},
    ),
    "memit refined": ("memit", {"refine": 1}),
    "memit shrunk": ("memit", {"shrink": 1e-9}),
    "memit traced": ("memit", {"layers": "auto", "quick": True}),
    "alphaedit": ("alphaedit", {"covariance": "FILE"}),
    "rome traced": ("rome", {"layer": "auto", "quick": True}),
    "rome": ("rome", {"key": "original", "covariance": "FILE"}),
    "emmet": ("emmet", {"covariance": "identity"}),
    "pmet": ("pmet", {"fisher_factor": 1.0}),
    "a pair": ("memit+mixsd", {}),
    "another pair": ("rome+sft", {}),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_the_edit_is_that_of_the_cpu(case, pair, tmp_path):
    """The same random numbers are drawn, so the edits differ by rounding alone."""
    name, options = OPTIONS[case]
    (tmp_path / "text.txt").write_text("\n".join(SENTENCES * 20), encoding="utf-8")
    if options.get("covariance") == "FILE":
        options = {**options, "covariance": str(tmp_path / "text.txt")}
    given = [
        {f"{part}.{key}" if "+" in name else key: value for key, value in small(part).items()}
        for part in name.split("+")
    ]
    kind = registry.get("methods", name)
    method = kind.from_options(name, {k: v for each in given for k, v in each.items()} | options)
    edits = []
    for model in pair:
        with unchanged(model, "inject"):
            edits.append(method.inject(model, FACTS))
    here, there = edits
    assert there.model_hash == here.model_hash and there.changes.keys() == here.changes.keys()
    for weight, change in here.changes.items():
        want, made = dense(change), dense(there.changes[weight])
        assert (made - want).norm() < 0.02 * want.norm(), weight


def small(name):
    return {**tiny_options(registry.get("methods", name)), **fewer(name)}


def fewer(name):
    """Return options that spare time: they make one edit of the battery take half a second."""
    kind = registry.get("methods", name)
    less = {"epochs": 2, "max_new_tokens": 4}
    if kind.kind == "weight editor":
        less |= {"steps": 3, "covariance_tokens": 300}
    return {key: value for key, value in less.items() if key in tiny_options(kind)}


def parts(edit):
    for change in edit.changes.values():
        yield from (change if isinstance(change, tuple) else (change,))


@pytest.fixture(scope="module")
def edit(pair):
    return memit.Memit(**small("memit")).inject(pair[1], FACTS)


def test_an_edit_made_there_works_here_and_back(pair, edit, tmp_path):
    here, there = pair
    made_here = memit.Memit(**small("memit")).inject(here, FACTS)
    loaded = Edit.load(edit.save(tmp_path / "edit"))
    for model in pair:
        for each in (loaded, made_here):
            with unchanged(model, "applied()"), each.applied(model):
                assert model.fingerprint() != each.model_hash
    loaded.merge(there, tmp_path / "merged")
    export(loaded, there, "peft", tmp_path / "adapter", base="owner/tiny")
    merged = load_model(tmp_path / "merged", device="cpu", precision="float32")
    again = load_model(tmp_path / "merged", device=DEVICE, precision="float32")
    with loaded.applied(there), loaded.applied(here):
        assert merged.fingerprint() == again.fingerprint() == there.fingerprint()
        assert here.fingerprint() == there.fingerprint()
        assert str(again.device) == DEVICE


def test_generation_and_sampling(pair):
    prompts = [model.prompt_ids(fact.prompt, fact.form) for model in pair[:1] for fact in FACTS]
    for sampling in ({}, {"temperature": 0.9, "top_k": 5}):
        here, there = (
            model.generate_ids(
                prompts,
                8,
                generator=torch.Generator().manual_seed(0) if sampling else None,
                **sampling,
            )
            for model in pair
        )
        assert here == there


def test_probes_of_every_protocol(pair, edit):
    fact = FACTS[0]
    cases = [
        Case.build(
            fact,
            [
                Probe("paraphrase", "Velmora has the capital", (fact.target,), fact.original),
                Probe("neighborhood", "The capital of Australia is", ("Canberra",), fact.target),
                Probe("portability", "Who built it?", ("the king",), form="question"),
            ],
        )
    ]
    scored = []
    for model in pair:
        base = ask(model, cases)
        with edit.applied(model):
            scored.append([*base, *ask(model, cases, base)])
    here, there = scored
    exact = ("text", "base_text", "generation", "argmax", "likelihood", "argmax_ids")
    for want, row in zip(here, there, strict=True):
        assert {key: row[key] for key in exact} == {key: want[key] for key in exact}
        assert row["answer_logprob"] == pytest.approx(want["answer_logprob"], abs=1e-4)


def test_retention_through_lm_eval(pair, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [choice(), choice("Italy", label=1)]
    tasks = [
        write_task(tmp_path, CHOICE, rows, "chosen"),
        write_task(tmp_path, TEXT, [text(), text("Italy", answer="Rome")], "written"),
    ]
    here, there = (
        retention.evaluate(model.model, model.tokenizer, tasks, limit=2, batch_size=2)
        for model in pair
    )
    assert [s.output for t in there for s in there[t]] == [s.output for t in here for s in here[t]]


def test_diagnostics_and_tracing(pair, edit, tmp_path):
    here, there = pair
    nothing = {"base_probes": [], "probes": [], "base_samples": [], "samples": []}
    with unchanged(there, "diagnose"):
        measured = diagnostics.diagnose(there, edit, diagnostics.NAMES, seed=0, **nothing)
    assert measured["fisher"]["displacement"] > 0 and measured["drift"]["kl"]["n"] > 0
    traced = trace(there, FACTS[0])
    heat_map(traced, str(tmp_path / "heat.png"))
    for kind, scores in trace(here, FACTS[0]).scores.items():
        torch.testing.assert_close(traced.scores[kind], scores, equal_nan=True)
    assert len(layer_curve(there, FACTS[:1])) == there.layout.depth


def test_a_whole_run(tmp_path):
    pretend_device.register()
    folder = write_model(tmp_path / "model")
    config = RunConfig(
        ("base", "memit"),
        str(folder),
        "local",
        str(write_facts(tmp_path / "facts.jsonl")),
        n=2,
        options={"memit": small("memit")},
        precision="float32",
        regime="sequential:1",
    )
    there = load_model(str(folder), device=DEVICE, precision="float32")
    with RunStore(tmp_path / "run").open(run_identity(config)) as store:
        summaries = runner.run(make_plan(config), there, store, lambda name, state: None)
    assert [s["status"] for s in summaries] == ["done"] * 2, [s["note"] for s in summaries]
    assert summaries[0]["environment"]["device"] == "pretend"


@pytest.mark.parametrize("kind", ["bfloat16 by autocast", "bfloat16 weights", "gguf"])
def test_other_models(kind, reader, tmp_path):
    pretend_device.register()
    if kind == "gguf":
        write_gguf(tmp_path / "it.gguf", "llama")
        model = load_model(tmp_path / "it.gguf", device=DEVICE, precision="float32")
    elif kind == "bfloat16 weights":
        model = pretend_device.moved(reader("llama", chat=True), DEVICE)
        model.model.to(torch.bfloat16)
    else:
        model = pretend_device.moved(reader("llama", chat=True), DEVICE, precision="bfloat16")
    name, options = ("mixsd", {"lora": 2}) if "autocast" in kind else ("memit", {})
    edit = registry.get("methods", name)(**small(name), **options).inject(model, FACTS)
    with unchanged(model, "applied()"), edit.applied(model):
        assert model.fingerprint() != edit.model_hash
        model.generate(FACTS[0].prompt)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ice", {}),
        ("memit", {}),
        ("memit", {"refine": 1}),
        ("alphaedit", {"layers": (0, 1, 2)}),
        ("rome", {"fisher_factor": 1.0, "layer": "auto"}),
        ("mixsd", {}),
        ("sft", {"lora": 2}),
    ],
)
def test_a_model_over_two_devices(name, options, reader):
    """As ``device_map="auto"`` makes it on a machine with several GPUs."""
    pretend_device.register()
    model = pretend_device.moved(reader("mistral"))
    layers = list(model.model.model.layers)
    # The first layer is with the embeddings, so that an edit of several layers is on both devices.
    for module in (*layers[1:], model.model.model.norm):
        module.to("pretend:1")
        add_hook_to_module(module, AlignDevicesHook("pretend:1"))
    add_hook_to_module(layers[0], AlignDevicesHook("pretend:0"))
    add_hook_to_module(model.model.lm_head, AlignDevicesHook("pretend:0"))
    facts = FACTS[:2]
    before = target_logp(model, facts)
    assert before == pytest.approx(target_logp(reader("mistral"), facts), abs=1e-4)
    assert list(map(str, model.devices)) == ["pretend:0", "pretend:1"]
    method = registry.get("methods", name)(**{**small(name), **options})
    edit = method.inject(model, facts)
    with unchanged(model, "applied()"), edit.applied(model):
        assert target_logp(model, facts) > before
    if name != "mixsd":  # whose texts may differ where rounding decides
        want = method.inject(reader("mistral"), facts).changes
        assert edit.changes.keys() == want.keys()
        for weight, change in want.items():
            apart = (dense(edit.changes[weight]) - dense(change)).norm()
            assert apart < 0.02 * dense(change).norm(), weight


@pytest.mark.parametrize("what", ["adapter", "weights", "edit"])
def test_what_was_made_elsewhere_is_read_as_on_the_cpu(what, pair, tmp_path):
    here, there = pair
    edit = registry.get("methods", "sft").from_options("sft", small("sft")).inject(here, FACTS[:1])
    if what == "edit":
        edit.save(tmp_path / "it")
    elif what == "weights":
        edit.merge(here, tmp_path / "it")
    else:
        add_adapter(tmp_path / "it", pretend_device.moved(here, "cpu"), target_modules=["q_proj"])
        set_field(tmp_path / "it/adapter_config.json", base_model_name_or_path=here.name)
    want = artifacts.read(tmp_path / "it", here).edit
    with unchanged(there, "read"):
        made = artifacts.read(tmp_path / "it", there).edit
    assert all(part.device.type == "cpu" for part in parts(made))
    assert made.changes.keys() == want.changes.keys() and made.changes
    for name, change in want.changes.items():
        torch.testing.assert_close(dense(made.changes[name]), dense(change), rtol=1e-5, atol=1e-6)
    with made.applied(there):
        pass
