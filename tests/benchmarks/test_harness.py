"""What the harness benchmark keeps of a run, and how it shows the base."""

import importlib.util
import json
from pathlib import Path

import pytest

from editbench.records.store import RunStore
from editbench.stats import clustered_mean, retained

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "harness.py"


@pytest.fixture
def harness(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("harness", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    return module


def test_a_cell_keeps_its_key_and_the_base_has_no_interval_against_itself(
    harness, tmp_path, capsys
):
    config = {
        "methods": ["base", "sft"],
        "corpus": "c",
        "part": "test",
        "n": 4,
        "regime": "batch",
        "seed": 0,
        "limit": 4,
        "tasks": ["arc"],
    }
    scores = {"efficacy": {"generation": clustered_mean([1.0, 0.0, 1.0, 1.0]).to_dict()}}
    with RunStore(tmp_path / "run").open(config) as store:
        for method, after in (("base", [1, 0, 1, 1]), ("sft", [1, 0, 0, 1])):
            summary = {
                "method": method,
                "status": "done",
                "options": {},
                "model": {},
                "corpus": {},
                "seed": 0,
                "metrics": scores,
                "retention": {"arc": retained(after, [1, 0, 1, 1])},
                "seconds": {"inject": 2.0},
                "versions": {"scoring": 5, "method": 1},
            }
            store.write_cell(f"{method}-0", summary, {})
    harness.main(tmp_path / "run", "x")
    (base, sft) = json.loads((tmp_path / "harness_x.json").read_text())["cells"]
    stored = json.loads((tmp_path / "run" / "cells" / "sft-0" / "summary.json").read_text())
    assert (sft["key"], sft["digest"], sft["versions"]) == (
        "sft-0",
        stored["digest"],
        {"scoring": 5, "method": 1},
    )
    harness.table("x")
    lines = capsys.readouterr().out.splitlines()
    assert (
        sum(
            line.startswith("| base | generation |") and line.endswith("| 1.00 | 2 |")
            for line in lines
        )
        == 1
    )
    assert "| base | scores 0.75 [0.13, 0.98] |" in lines and any(
        line.startswith("| sft | -0.25 [") for line in lines
    )
