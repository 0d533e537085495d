"""A run in parts that could be computed in several processes: bytes in, bytes out."""

import json

import pytest
from tiny import write_facts, write_model

from editbench.models import load_model
from editbench.records.reading import load_run
from editbench.records.store import RunStore
from editbench.run import runner
from editbench.run.config import RunConfig, run_identity
from editbench.run.plan import make_plan
from editbench.run.worker import Worker

TABLES = ("probes", "retention", "curve_probes", "curve_samples", "right_after")


@pytest.mark.parametrize(("regime", "curve"), [("batch", ()), ("sequential:2", (2,))])
def test_a_cell_is_the_same_whichever_worker_asked_the_base(tmp_path, monkeypatch, regime, curve):
    folder = str(write_model(tmp_path / "tiny"))
    config = RunConfig(
        ("base", "sft"),
        folder,
        "local",
        str(write_facts(tmp_path / "facts.jsonl")),
        n=4,
        tasks=("eb_grammar",),
        limit=4,
        regime=regime,
        curve=curve,
        options={"sft": {"epochs": 2}},
        precision="float32",
    )
    plan = make_plan(config)
    with RunStore(tmp_path / "run").open(run_identity(config)) as store:
        runner.run(plan, load_model(folder, precision="float32"), store, lambda name, state: None)
    first, second = (Worker(load_model(folder, precision="float32")) for _ in range(2))
    assert first.identity == second.identity
    monkeypatch.setenv("EDITBENCH_CACHE", str(tmp_path / "empty"))  # as on another machine
    samples, lost = first.ask_tasks(plan)
    answers = first.ask_base(plan, samples)
    assert lost == {} and len(json.loads(answers)["samples"]["eb_grammar"]) == 4
    for summary in load_run(tmp_path / "run")[1]:
        cell = second.compute(plan, summary["method"], summary["key"], answers, None)
        again = json.loads(cell.files["summary.json"])
        assert not cell.failed and again["key"] == summary["key"]
        for name in TABLES:
            assert again["tables"].get(name) == summary["tables"].get(name), name
        assert again["metrics"] == summary["metrics"], "written and computed alike"
        assert list(cell.files)[-1] == "summary.json"
