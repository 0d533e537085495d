"""The benchmark of sequences adds methods to a folder, and keeps what is finished."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from tiny import write_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def sequences(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("sequences", BENCHMARKS / "sequences.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_methods_are_added_and_shown_at_both_times(sequences, tmp_path, monkeypatch, capsys):
    model, result = write_model(tmp_path / "tiny"), tmp_path / "kept.json"

    def main(*methods):
        options = {"output": tmp_path / "runs", "model": model, "facts": 3, "chunk": 2}
        given = [f"--{name}={value}" for name, value in (options | {"result": result}).items()]
        monkeypatch.setattr(sys, "argv", ["sequences.py", *methods, *given])
        sequences.main()
        return capsys.readouterr()

    main("rome")
    said = main("ice", "rome")
    assert "| rome | " in said.out.split("facts held")[1]
    assert "rome: kept" in said.err and "ice: done" in said.err
    kept = json.loads(result.read_text())
    assert [cell["method"] for cell in kept["cells"]] == ["base", "ice", "rome"]
    assert kept["run"]["regime"] == "sequential:2"
    facts = {cell["method"]: cell["right_after"]["facts"] for cell in kept["cells"]}
    for line in (
        f"| rome, {facts['rome']} of 3 | generation | efficacy | ",
        f"| ice, {facts['ice']} of 3 | likelihood | specificity | ",
    ):
        assert line in said.out or not facts[line.split(",")[0][2:]]
