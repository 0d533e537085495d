"""EasyEdit's algorithms as methods: the contract, what they are given, and what bad input gets.

The algorithms of the PyPI package run where it is installed (``make setup``), those of a checkout
where ``EDITBENCH_EASYEDIT`` names one. Crashes and the like come from a checkout written here.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from tiny import editbench, write_facts, write_model

from editbench import helpers, registry
from editbench.changes import dense
from editbench.edit import Edit
from editbench.errors import MethodError, ModelError, OptionError
from editbench.methods import easyedit
from editbench.methods._easyedit.algorithms import ALGORITHMS
from editbench.methods._easyedit.process import Child, new_folder
from editbench.testing import FACTS, check_method, target_logp, tiny_model

QUICK = {
    "easyedit-memit": ("v_num_grad_steps=8", "mom2_update_weight=1"),
    "easyedit-rome": ("v_num_grad_steps=8",),
    "easyedit-r-rome": ("v_num_grad_steps=8", "mom2_adjustment=true"),
    "easyedit-memit-fe": ("v_num_grad_steps=8", "mom2_update_weight=1"),
    "easyedit-emmet": ("v_num_grad_steps=8", "mom2_update_weight=1"),
    "easyedit-eamet": ("v_num_grad_steps=8", "mom2_update_weight=1"),
    "easyedit-alphaedit": ("v_num_grad_steps=8", "nullspace_threshold=1", "v_lr=0.5", "L2=0.1"),
    "easyedit-sphere": ("v_num_grad_steps=8", "nullspace_threshold=1", "v_lr=0.5", "L2=0.1"),
    "easyedit-core": ("v_num_grad_steps=8", "mom2_update_weight=1"),
    "easyedit-pmet": ("v_num_grad_steps=8", "mom2_update_weight=1"),
    "easyedit-ft": ("num_steps=6",),
    "easyedit-lora": ("num_steps=6",),
    "easyedit-dpo": ("num_steps=6",),
}
"""Methods whose edit of a tiny model is a change of weights that helps, with few steps."""
PACKAGED = ["easyedit-rome", "easyedit-memit", "easyedit-ft", "easyedit-lora"]
CLOZE = [fact for fact in FACTS if fact.form == "cloze"]


def built(name, **options):
    """Return the method with few steps; skip the test if its algorithm cannot run here."""
    cls = registry.get("methods", name)
    if why := cls.lacks():
        pytest.skip(why)
    small = {"covariance_tokens": 800} if issubclass(cls, easyedit.WithCovariance) else {}
    return cls.from_options(name, {"override": QUICK.get(name), **small, **options})


# --- the contract -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUICK)
def test_the_contract(name, reader, tmp_path):
    method = built(name)
    options = {key: value for key, value in method.options().items() if value is not None}
    check_method(type(method), reader("llama"), FACTS, tmp_path, **options)


@pytest.mark.parametrize("name", PACKAGED)
def test_an_edit_in_another_layout_with_chat(name, reader):
    model = reader("gpt2", chat=True)
    edit = built(name).inject(model, FACTS)
    before = target_logp(model, FACTS)
    with edit.applied(model):
        assert target_logp(model, FACTS) > before


def test_an_adapter_comes_back_as_factors(reader):
    edit = built("easyedit-lora").inject(reader("llama"), FACTS[:1])
    ranks = {change[0].shape[1] for change in edit.changes.values()}  # a tensor has no [0].shape[1]
    assert ranks <= {8, 12}, "AdaLoRA begins with 12"


def test_every_algorithm_is_registered_and_said_to_be_what_it_is():
    assert set(registry.easyedit()) == set(easyedit.METHODS)
    for name in registry.easyedit():
        method = registry.get("methods", name)
        assert method.name == name and method.kind == "EasyEdit" and method.__doc__
        assert name not in registry.names("methods")
        assert method.live == (method.algorithm.result == "live")
    assert not set(registry.easyedit()) & set(registry.not_offered())


# --- what the algorithm is given ----------------------------------------------------------------


def test_the_hyperparameters_are_the_shipped_values_with_this_models_modules(reader):
    method = built("easyedit-memit", override=("v_lr=1e-1",))
    fields = method.fields(reader("gpt2"))
    assert (fields["v_lr"], fields["mom2_update_weight"]) == (0.1, 15_000)
    assert fields["rewrite_module_tmp"] == "transformer.h.{}.mlp.c_proj"
    assert fields["lm_head_module"] == "transformer.wte" and fields["v_loss_layer"] == 3
    ours = registry.get("methods", "memit")()
    assert tuple(fields["layers"]) == ours.edited_layers(reader("gpt2"))
    assert built("easyedit-memit", layers=(0, 3)).fields(reader("gpt2"))["layers"] == [0, 3]


def test_a_yaml_file_of_theirs_is_read(reader, tmp_path):
    given = {"alg_name": "FT", "lr": "2e-3", "layers": [2], "num_steps": 3, "device": 7}
    rest = {k: v for k, v in ALGORITHMS["FT"].values.items() if k not in given}
    file = tmp_path / "ft.yaml"
    file.write_text(yaml.safe_dump(given | rest))
    method = built("easyedit-ft", hparams=str(file), override=None)
    fields = method.fields(reader("llama"))
    assert (fields["lr"], fields["layers"], fields["device"]) == (2e-3, [2], "cpu")
    assert str(file) in method.sources()
    edit = method.inject(reader("llama"), CLOZE)
    assert list(edit.changes) == ["model.layers.2.mlp.down_proj.weight"]


def test_the_report_says_what_ran_and_what_its_code_does(reader):
    edit = built("easyedit-rome").inject(reader("llama"), CLOZE)
    assert edit.diagnostics["hyperparameters"]["v_num_grad_steps"] == 8
    assert any("first request only" in note for note in edit.diagnostics["notes"])
    assert len(edit.diagnostics["prefixes"]) == 20 and edit.diagnostics["easyedit_seconds"] > 0
    assert len(edit.diagnostics["code"]) == 12


def test_a_sequence_keeps_the_first_prefixes_and_the_keys_of_earlier_facts(reader):
    model, method = reader("llama"), built("easyedit-alphaedit")
    first = method.inject(model, CLOZE[:2])
    assert {keys.shape[1] for keys in first.keys.values()} == {2}
    with first.applied(model):
        second = method.inject(model, CLOZE[2:])
        without = method.run(model, CLOZE[2:], first.diagnostics["prefixes"])
    assert second.diagnostics["prefixes"] == first.diagnostics["prefixes"]
    name = next(iter(second.changes))
    assert torch.equal(dense(second.changes[name]), dense(without.changes[name]))
    alone = method.run(model, CLOZE[2:], first.diagnostics["prefixes"])
    assert not torch.allclose(dense(second.changes[name]), dense(alone.changes[name]))


# --- bad input ----------------------------------------------------------------------------------


def test_a_folder_that_is_no_easyedit(tmp_path, monkeypatch):
    method = registry.get("methods", "easyedit-rome")(source=str(tmp_path))
    with pytest.raises(OptionError, match=r"source=.* is no EasyEdit: .*models/rome is missing\."):
        method.sources()
    monkeypatch.setenv("EDITBENCH_EASYEDIT", str(tmp_path))
    with pytest.raises(OptionError, match="EDITBENCH_EASYEDIT=.* is no EasyEdit"):
        registry.get("methods", "easyedit-rome")().sources()


def test_a_missing_algorithm_or_package_is_one_sentence(tmp_path):
    source = checkout(tmp_path, "pass")
    missing = registry.get("methods", "easyedit-wise")(source=str(source))
    with pytest.raises(OptionError, match=r"easyedit-wise: The EasyEdit in .* does not have"):
        missing.sources()
    with (source / "easyeditor/models/ft/__init__.py").open("a") as file:
        file.write("import no_such_package\n")
    with pytest.raises(OptionError, match="easyedit-ft: It needs the package no_such_package"):
        registry.get("methods", "easyedit-ft")(source=str(source)).sources()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"override": ("lr",)}, "override='lr' is not FIELD=VALUE"),
        ({"override": ("warmth=1",)}, "FT has no field 'warmth'. Its fields: .*lr"),
        ({"layers": (9,)}, "layers names layer 9, and tiny-llama has the layers 0 to 3"),
        ({"override": ("rewrite_module_tmp=transformer.h.{}",)}, "which tiny-llama does not have"),
        ({"override": ("rewrite_module_tmp=3",)}, "the module '3', which tiny-llama does not have"),
        ({"override": ("rewrite_module_tmp=a.{x}",)}, r"the module 'a\.\{x\}', which tiny-llama"),
        ({"override": ("layers=[true]",)}, r"layers=\[True\] is no list of layer numbers"),
        ({"layers": ()}, "FT: layers names no layer"),
        ({"override": ("lr=[1",)}, r"override='lr=\[1' cannot be read as YAML"),
        ({"override": ("lr=!!python/object:os.system 1",)}, "could not determine a constructor"),
        ({"override": ("lr=fast",)}, "FT: lr='fast' is no number"),
        ({"override": ("objective_optimization=.nan",)}, "=nan is no finite number"),
        ({"override": ("max_length=2026-01-02",)}, r"max_length=datetime.* is no finite number"),
        ({"override": ("device=cuda:9",)}, "override cannot set device"),
        ({"hparams": "nowhere.yaml"}, "nowhere.yaml cannot be read as YAML"),
        ({"time_limit": 0}, "time_limit must be above 0"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(options, complaint, reader, tmp_path):
    cls = registry.get("methods", "easyedit-ft")
    with pytest.raises(OptionError, match=complaint) as error:
        cls.from_options(
            "easyedit-ft", {"source": str(checkout(tmp_path, "pass")), **options}
        ).fields(reader("llama"))
    assert "\n" not in str(error.value)


def test_a_yaml_of_another_algorithm_or_model(tmp_path, reader):
    source, file = str(checkout(tmp_path, "pass")), tmp_path / "hparams.yaml"
    cls = registry.get("methods", "easyedit-ft")
    file.write_text("alg_name: ROME\nlayers: [5]\n")
    with pytest.raises(OptionError, match=r"is for ROME, and this is FT\."):
        cls.from_options("easyedit-ft", {"hparams": str(file), "source": source})
    file.write_text("alg_name: FT\nlayers: [21]\nlr: 5e-4\nnum_steps: 2\n")
    with pytest.raises(OptionError, match="names layer 21, and tiny-llama has the layers 0 to 3"):
        cls(hparams=str(file), source=source).fields(reader("llama"))
    for text, complaint in (
        ("", "holds no hyper-parameters"),
        ("lr: 2026-13-01\n", "cannot be read as YAML: month must be"),
        ("lr: " + "[" * 5000, "cannot be read as YAML"),
        ("act_margin: 3\n", "act_margin=3 is no list of 3 numbers"),
    ):
        file.write_text(text)
        with pytest.raises(OptionError, match=complaint):
            cls.from_options("easyedit-ft", {"hparams": str(file), "source": source})
    file.write_text("warmth: 1\n")
    with pytest.raises(OptionError, match="FT has no field 'warmth'"):
        cls(hparams=str(file), source=source).sources()  # before any model is loaded
    file.write_text("- 1\n")
    with pytest.raises(OptionError, match="holds no hyper-parameters"):
        cls(hparams=str(file), source=source)


def test_an_architecture_that_it_cannot_edit():
    with pytest.raises(MethodError, match="EasyEdit cannot edit this architecture"):
        built("easyedit-memit").inject(tiny_model("gemma2", final_logit_softcapping=1.0), CLOZE)


def test_weights_that_are_stored_transposed_are_refused_where_the_code_fails(reader):
    with pytest.raises(ModelError, match=r"nn\.Linear only \(eamet_main\.py, line 299\)"):
        built("easyedit-eamet").fields(reader("gpt2"))


@pytest.mark.parametrize(
    ("name", "field", "text"),
    [
        ("easyedit-rome", "prompt", "In {x}, the capital of France is"),
        ("easyedit-rome", "target", "{{Rome}}"),  # its code would teach {Rome}
        ("easyedit-lora", "prompt", "In {}, the capital of France is"),
    ],
)
def test_a_brace_that_is_read_as_a_slot_is_refused(name, field, text, reader):
    given = {"subject": "France", "prompt": "The capital of France is", field: text}
    fact = replace(CLOZE[0], **given)
    with pytest.raises(MethodError, match=f"The {field} of fact {fact.id!r} has a brace"):
        built(name).inject(reader("llama"), [fact])


def test_a_method_that_reads_no_subject_takes_one_that_occurs_twice(reader):
    fact = replace(CLOZE[0], subject="France", prompt="France, the capital of France is")
    assert built("easyedit-ft").inject(reader("llama"), [fact]).changes
    with pytest.raises(MethodError, match="occurs 2 times"):
        built("easyedit-rome").inject(reader("llama"), [fact])


def test_what_is_not_offered_is_one_sentence():
    said = editbench("compare", "--methods", "easyedit-mend")
    assert said.code == 2 and "hypernetwork" in said.err and "Traceback" not in said.err


def test_the_list_shows_what_runs_and_what_the_others_lack(tmp_path, monkeypatch):
    monkeypatch.setenv("EDITBENCH_EASYEDIT", str(checkout(tmp_path, "pass")))
    records = {r["name"]: r for r in json.loads(editbench("list", "methods", "--json").out)}
    assert records["easyedit-ft"]["lacks"] is None and "lacks" not in records["memit"]
    assert "does not have this" in records["easyedit-wise"]["lacks"]
    assert "hypernetwork" in records["easyedit-mend"]["lacks"]
    said = editbench("list", "methods").out
    assert "methods by EasyEdit" in said and "cannot run here" in said


# --- a process that fails -----------------------------------------------------------------------

FAKE = """
import os, sys, time, torch
from dataclasses import dataclass
print("noise {" * 3)

@dataclass
class FTHyperParams:
    lr: float
    layers: list
    rewrite_module_tmp: str

def apply_ft_to_model(model, tok, requests, hparams, **kwargs):
    weight = model.model.layers[hparams.layers[0]].mlp.down_proj.weight
    with torch.no_grad():
        BODY
    return model, {}
"""


def checkout(folder: Path, body: str) -> Path:
    """Write a checkout whose FT does ``body``, and return it."""
    package = folder / "easyeditor"
    for name, text in {
        "models/rome/rome_main.py": "",
        "util/device.py": "",
        "models/ft/__init__.py": FAKE.replace("BODY", body.replace("\n", "\n" + " " * 8)),
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return folder


def edited(folder, body, model, **options) -> Edit:
    cls = registry.get("methods", "easyedit-ft")
    return cls(source=str(checkout(folder, body)), **options).inject(model, CLOZE)


def test_noise_does_no_harm(reader, tmp_path):
    body = 'print(\'{"error": 1}\', flush=True); os.write(2, b"\\xff\\n"); weight += 1'
    edit = edited(tmp_path, body, reader("llama"))
    (change,) = edit.changes.values()
    assert torch.equal(dense(change).round(), torch.ones(32, 56))


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("raise KeyError('gone\\nsecond line')", r"KeyError: .*\(easyeditor/models/ft/__init__"),
        (
            "print('last words'); os._exit(3)",
            "ended with exit code 3; it last printed 'last words'",
        ),
        ("os.kill(os.getpid(), 9)", "killed by SIGKILL, as the system does when memory runs out"),
        ("sys.exit(1)", "SystemExit: 1"),
        ("weight[0, 0] = float('nan')", "infinite or NaN"),
        ("time.sleep(60)", r"no answer within 1 seconds, so its process was ended"),
        (
            "import urllib.request; urllib.request.urlopen('http://example.com')",
            "it tried to reach example.com, and nothing is downloaded here",
        ),
        ("model.new = torch.nn.Linear(2, 2)", "has a new weight 'new.weight'"),
    ],
)
def test_a_failure_is_one_sentence_and_leaves_nothing(body, complaint, reader, tmp_path, own_cache):
    with pytest.raises(MethodError, match=complaint) as error:
        edited(tmp_path, body, reader("llama"), time_limit=1.0 if "sleep" in body else 60.0)
    assert "\n" not in str(error.value)
    # all that is left is the model, which is kept for the next edit
    left = [folder for folder in (own_cache / "easyedit").iterdir()]
    assert all([file.name for file in folder.iterdir()] == ["llama"] for folder in left)


def test_a_failed_row_stands_among_good_ones(tmp_path):
    model, facts = write_model(tmp_path / "model"), write_facts(tmp_path / "facts.jsonl")
    source = checkout(tmp_path / "source", "raise RuntimeError('no luck')")
    common = ["--model", model, "--facts", facts, "-n", "2", "--tasks", "none"]
    said = editbench(
        *("compare", "--methods", "easyedit-ft,rome", *common),
        *("--option", f"easyedit-ft.source={source}", "--option", "rome.covariance_tokens=300"),
        *("--option", "rome.steps=3", "--output", tmp_path / "run"),
    )
    assert said.code == 1, said.err
    cells = [json.loads(p.read_text()) for p in (tmp_path / "run" / "cells").glob("*/summary.json")]
    by_method = {cell["method"]: cell for cell in cells}
    assert "no luck" in by_method["easyedit-ft"]["note"]
    assert by_method["easyedit-ft"]["status"] == "failed"
    assert by_method["rome"]["status"] == "done"


def test_a_child_ends_with_its_last_reference(tmp_path):
    child = Child.start("easyedit-ft")
    pid, folder = child._pid, child.folder
    assert child.alive and folder.is_dir() and pid in helpers.PIDS  # for the meter
    del child
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not folder.exists() and pid not in helpers.PIDS


def test_only_what_ended_processes_of_this_machine_left_is_removed(own_cache):
    ended = subprocess.Popen(["true"])
    ended.wait()
    place, host = own_cache / "easyedit", socket.gethostname()
    names = {
        f"{host}.{ended.pid}-a": False,
        f"{host}.{os.getppid()}-a": True,
        f"elsewhere.{ended.pid}-a": True,  # another machine, where its process may run
    }
    for name in names:
        (place / name).mkdir(parents=True)
    assert new_folder() != new_folder()
    assert {name: (place / name).exists() for name in names} == names
