"""A model that lives in a child process gives the numbers that the same weights give here."""

import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from tiny import write_facts, write_model

import editbench
from editbench.errors import MethodError, ModelError, NotFiniteError, OptionError
from editbench.eval.diagnostics import diagnose
from editbench.export import export
from editbench.methods._easyedit.live import child_of, live_edit
from editbench.methods._easyedit.process import Child
from editbench.models import load_model
from editbench.plugin import Method
from editbench.records.reading import read_rows
from editbench.records.store import RunStore
from editbench.run import runner
from editbench.run.config import RunConfig, run_identity
from editbench.run.plan import make_plan
from editbench.testing import FACTS

SCRIPT = Path(__file__).with_name("live_child.py")
SIZE = 0.02


def start():
    """Return a ``Child`` that runs ``live_child.py``."""
    folder = Path(tempfile.mkdtemp())
    to_child, requests = os.pipe()
    replies, from_child = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", SCRIPT, str(to_child), str(from_child)],
        cwd=folder,
        pass_fds=(to_child, from_child),
        start_new_session=True,
    )
    os.close(to_child)
    os.close(from_child)
    return Child("far", folder, process, (requests, replies))


@dataclass(frozen=True)
class Near(Method):
    """Each edit adds a number to one weight, or infinity at fact ``at``."""

    name: ClassVar[str] = "near"
    at: str = ""

    def size(self, facts):
        return math.inf if any(fact.id == self.at for fact in facts) else SIZE * len(facts)

    def inject(self, model, facts):
        name = model.layout.weight_name(1)
        change = torch.full_like(model.weight(name), self.size(facts)).cpu()
        return self.edit(model, facts, {name: change})


@dataclass(frozen=True)
class Far(Near):
    """The same in a child process."""

    name: ClassVar[str] = "far"
    live: ClassVar[bool] = True
    time_limit: float = 60.0
    sleep: bool = False

    def inject(self, model, facts):
        child = child_of(model) or start()
        weight = model.layout.weight_name(1)
        request = {"do": "edit", "model": model.name, "weight": weight, "sleep": self.sleep}
        reply = child.ask({**request, "size": float(self.size(facts))}, self.time_limit)
        number = reply.get("number", 0)
        return live_edit(self, model, facts, child, number=number, time_limit=self.time_limit)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("models") / "tiny")
    return load_model(str(folder), precision="float32")


@pytest.fixture(scope="module")
def edits(model):
    return Near().inject(model, FACTS), Far().inject(model, FACTS)


@pytest.fixture
def config(tmp_path, model, monkeypatch):
    import editbench.methods

    for method in (Near, Far):
        name = f"{__name__}:{method.__name__}"
        monkeypatch.setitem(editbench.methods.BUILTINS, method.name, name)
    data = write_facts(tmp_path / "facts.jsonl")
    methods = ("base", "near", "far")
    return RunConfig(methods, model.name, "local", str(data), n=4, precision="float32")


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
        near, far = (read_rows(folder, found[name]["key"], table) for name in ("near", "far"))
        assert near and same(list(near), list(far)), table
    for field in ("status", "note", "metrics", "retention", "curve"):
        assert same(found["near"].get(field), found["far"].get(field)), field


def test_a_batch_scores_as_the_same_weights_do(config, model, tmp_path):
    tasks = ("eb_grammar", "eb_instruct", "eb_toolcall")
    config = replace(config, tasks=tasks, limit=6, curve=(2,), diagnostics=("drift", "fisher"))
    found = run(config, model, tmp_path / "run")
    assert_same_cell(tmp_path / "run", found, "curve_probes", "curve_samples")
    near, far = (found[name]["diagnostics"] for name in ("near", "far"))
    assert near["drift"]["kl"]["mean"] > 1e-4 and same(near["drift"], far["drift"])
    assert near["fisher"] is not None and far["fisher"] is None
    edit = found["far"]["edit"]
    assert "process of its own" in edit["live"] and "delta_norm" not in edit
    assert "probes" not in found["far"]["work"], "passes elsewhere are not counted as none"
    assert found["near"]["metrics"] != found["base"]["metrics"]
