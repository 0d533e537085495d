"""A model that lives in a child process gives the numbers that the same weights give here."""

import math
import os
import signal
from dataclasses import dataclass, replace
from typing import ClassVar
from unittest import mock

import psutil
import pytest
import torch
from tiny import editbench as command
from tiny import write_facts, write_model

from editbench import registry
from editbench.errors import MethodError, ModelError, NotFiniteError, OptionError
from editbench.export import export
from editbench.methods._easyedit.live import live_edit
from editbench.models import load_model
from editbench.plugin import Method
from editbench.records.reading import read_rows
from editbench.records.store import RunStore
from editbench.run import runner
from editbench.run.config import RunConfig, run_identity
from editbench.run.plan import make_plan
from editbench.testing import FACTS

SIZE = 0.02
METHODS = ("near", "easyedit-grace")
FAKE = """
from dataclasses import dataclass

import torch

@dataclass
class GraceHyperParams:
    inner_params: list
    device: str
    edit_lr: float
    dist_fn: str

class Wrapper(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def __call__(self, **inputs):
        return self.model(**inputs)

    def generate(self, *args, **kwargs):
        return self.model.generate(*args, **kwargs)

@torch.no_grad()
def apply_grace_to_model(model, tok, requests, hparams, **_):
    print("noise on stdout")
    (request,) = requests
    size = float("inf") if request["target_new"] == hparams.dist_fn else hparams.edit_lr
    model.model.layers[1].mlp.down_proj.weight += size
    return Wrapper(model), None
"""
# An EasyEdit whose GRACE adds a number to one weight for each fact, or infinity for one target.


@dataclass(frozen=True)
class Near(Method):
    """What ``FAKE`` does, as a change of weights."""

    name: ClassVar[str] = "near"
    at: str = ""

    def inject(self, model, facts):
        name = model.layout.weight_name(1)
        weight = model.weight(name).detach().clone()
        for fact in facts:
            weight += math.inf if fact.target == self.at else SIZE
        return self.edit(model, facts, {name: weight - model.weight(name).detach()})


def far(at="nothing", **options):
    """Return options that make easyedit-grace the same as ``Near``."""
    return {"override": [f"edit_lr={SIZE}", f"dist_fn={at}"], "layers": [1], **options}


@pytest.fixture(scope="module", autouse=True)
def easyedit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("EasyEdit")
    for name, text in (
        ("models/grace/__init__.py", FAKE),
        ("models/rome/rome_main.py", ""),
        ("util/device.py", ""),
    ):
        file = folder / "easyeditor" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with mock.patch.dict(os.environ, {"EDITBENCH_EASYEDIT": str(folder)}):
        yield


def inject(model, **options):
    grace = registry.get("methods", "easyedit-grace")
    return grace.from_options("easyedit-grace", far(**options)).inject(model, FACTS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("models") / "tiny")
    return load_model(str(folder), precision="float32")


@pytest.fixture(scope="module")
def edits(model):
    return Near().inject(model, FACTS), inject(model)


@pytest.fixture
def config(tmp_path, model, monkeypatch):
    import editbench.methods

    monkeypatch.setitem(editbench.methods.BUILTINS, "near", f"{__name__}:Near")
    data = write_facts(tmp_path / "facts.jsonl")
    options = {"easyedit-grace": far()}
    return RunConfig(
        ("base", *METHODS),
        model.name,
        "local",
        str(data),
        n=4,
        precision="float32",
        options=options,
    )


def run(config, model, folder):
    weights, hooks = model.fingerprint(), len(model.base._forward_pre_hooks)
    with RunStore(folder).open(run_identity(config)) as store:
        summaries = runner.run(make_plan(config), model, store, lambda name, state: None)
    assert model.fingerprint() == weights and model.live is None and model.applied == ()
    assert len(model.base._forward_pre_hooks) == hooks
    return {summary["method"]: summary for summary in summaries}


def same(one, other):
    """Compare two values, numbers up to rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return one == pytest.approx(other, abs=1e-4, rel=1e-4, nan_ok=True)
    return one == other


def assert_same_cell(folder, found, *tables):
    for table in ("probes", "retention", *tables):
        near, far = (read_rows(folder, found[name]["key"], table) for name in METHODS)
        assert near and same(list(near), list(far)), table
    for field in ("status", "note", "metrics", "retention", "curve"):
        assert same(found["near"].get(field), found["easyedit-grace"].get(field)), field


def test_a_batch_scores_as_the_same_weights_do(config, model, tmp_path):
    tasks = ("eb_grammar", "eb_instruct")
    config = replace(config, tasks=tasks, limit=3, curve=(2,), diagnostics=("drift", "fisher"))
    found = run(config, model, tmp_path / "run")
    assert_same_cell(tmp_path / "run", found, "curve_probes", "curve_samples")
    near, far = (found[name]["diagnostics"] for name in METHODS)
    assert near["drift"]["kl"]["mean"] > 1e-4 and same(near["drift"], far["drift"])
    assert near["fisher"] is not None and far["fisher"] is None
    edit = found["easyedit-grace"]["edit"]
    assert "process of its own" in edit["live"] and "delta_norm" not in edit
    assert "probes" not in found["easyedit-grace"]["work"], (
        "passes elsewhere are not counted as none"
    )
    assert found["near"]["metrics"] != found["base"]["metrics"]


@pytest.mark.parametrize("regime", ["single", "sequential:2"])
def test_other_regimes_score_as_the_same_weights_do(config, model, tmp_path, regime):
    config = replace(config, regime=regime, n=2 if regime == "single" else 4)
    found = run(config, model, tmp_path / "run")
    rows = [list(read_rows(tmp_path / "run", found[name]["key"], "probes")) for name in METHODS]
    assert same(*rows) and same(found["near"]["metrics"], found["easyedit-grace"]["metrics"])
    assert "process of its own" in found["easyedit-grace"]["edit"]["live"]
    signs, signs_far = (found[name].get("trajectory", []) for name in METHODS)
    assert all(sign.pop("norm_growth") > 0 for sign in signs)
    assert all(sign.pop("norm_growth") is None for sign in signs_far)
    assert same(signs, signs_far)


def test_the_commands_compare_and_verify_a_live_edit(config, model, tmp_path):
    options = [f"easyedit-grace.override=edit_lr={SIZE},dist_fn=nothing", "easyedit-grace.layers=1"]
    compared = command(
        *("compare", "--methods", "easyedit-grace", "--model", model.name, "--facts", config.data),
        *("-n", 2, "--tasks", "none", "--output", tmp_path / "run"),
        *(part for option in options for part in ("--option", option)),
    )
    assert compared.code == 0 and "easyedit-grace" in compared.out, compared.err
    verified = command("verify", tmp_path / "run", "--rerun", 2)
    assert verified.code == 0, verified.out + verified.err
    assert "easyedit-grace" in verified.out and "computed again and compared" in verified.out


def test_the_last_chunk_of_a_sequence_is_taken_back(config, model, tmp_path):
    at = make_plan(replace(config, methods=("base",), options={})).cases[2].fact.target
    options = {"near": {"at": at}, "easyedit-grace": far(at)}
    config = replace(config, regime="sequential:1", options=options)
    found = run(config, model, tmp_path / "run")
    assert (
        found["easyedit-grace"]["status"] == "stopped"
        and "after 2 of 4 facts" in found["easyedit-grace"]["note"]
    )
    rows = [list(read_rows(tmp_path / "run", found[name]["key"], "probes")) for name in METHODS]
    assert same(*rows)


def test_samples_are_drawn_with_the_same_numbers(model, edits):
    prompts = [model.prompt_ids(fact.prompt, fact.form) for fact in FACTS]
    written = []
    for edit in edits:
        with edit.applied(model):
            dice = torch.Generator().manual_seed(0)
            written.append(
                model.generate_ids(prompts, 12, generator=dice, top_k=5, stop=False)
                + model.generate_ids(prompts, [3, 4, 5, 6], lines=[1, None, 2, 1])
            )
    assert written[0] == written[1] and len(set(map(tuple, written[0]))) > 3


def test_weights_that_exploded_give_nothing_to_draw_from(model, edits):
    with edits[1].applied(model):
        edit = inject(model, at=FACTS[0].target)
    with edit.applied(model), pytest.raises(NotFiniteError):
        model.generate_ids([[5, 6]], 3, generator=torch.Generator(), top_k=5)
    with edit.applied(model):
        assert model.target_logprobs([([5, 6], [7])])[0].isnan().all()


def test_no_forward_pass_shows_the_base_in_its_place(model, edits):
    near, far = edits
    ids = torch.tensor([[5, 6]])
    with far.applied(model):
        for ask in (model.hidden, model.states, lambda ids, mask: model.model(input_ids=ids)):
            with pytest.raises(ModelError, match="lives in a process of its own"):
                ask(ids, torch.ones_like(ids))
        with pytest.raises(ModelError, match="changes weights"):
            near.apply(model)
        with pytest.raises(MethodError, match="lives in another process"):
            live_edit(Near(), model, FACTS, None, time_limit=1)
    assert model.hidden(ids, torch.ones_like(ids)).isfinite().all()


def test_such_an_edit_cannot_be_stored(model, edits, tmp_path, config):
    far = edits[1]
    for attempt in (
        lambda folder: far.save(folder),
        lambda folder: far.merge(model, folder),
        lambda folder: export(far, model, "peft", folder),
        lambda folder: export(far, model, "merged", folder),
    ):
        with pytest.raises(ModelError, match="no change of weights, so it cannot be"):
            attempt(tmp_path / "edit")
    assert not (tmp_path / "edit").exists()
    with pytest.raises(OptionError, match="cannot be a part of"):
        registry.get("methods", "near+easyedit-grace")
    done = command(
        "inject", "--method", "easyedit-grace", "--facts", config.data, "--output", tmp_path / "e"
    )
    assert done.code == 2 and "cannot be saved" in done.err


def test_a_process_that_does_not_answer_costs_its_own_cell_alone(config, model, tmp_path):
    # less than the edit takes
    options = {"easyedit-grace": far(time_limit=0.001)}
    config = replace(config, n=1, methods=METHODS[::-1], options=options)
    found = run(config, model, tmp_path / "run")
    assert found["easyedit-grace"]["status"] == "failed" and found["near"]["status"] == "done"
    assert "no answer within 0.001 seconds" in found["easyedit-grace"]["note"]


def test_a_process_that_dies_while_it_is_asked_is_one_sentence(model):
    edit = inject(model)
    with edit.applied(model):
        os.kill(edit.live.child._pid, signal.SIGKILL)
        with pytest.raises(MethodError, match="easyedit-grace: its process was killed by SIGKILL"):
            model.generate(FACTS[0].prompt)
    assert model.live is None


def test_the_process_ends_with_the_last_edit(model):
    edit = inject(model)
    pid, folder = edit.live.child._pid, edit.live.child.folder
    copy = replace(edit, diagnostics={})
    del edit
    assert psutil.pid_exists(pid) and folder.exists()
    del copy
    assert not psutil.pid_exists(pid) and not folder.exists()
