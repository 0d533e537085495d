"""The study of the rivals: cells that are shared and kept, choices, comparisons, claims."""

import importlib
import json
from pathlib import Path

import pytest

from editbench.stats import retained
from editbench.testing import FACTS, teach_to_read, tiny_model

STUDIES = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def rivals(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(STUDIES))
    module = importlib.import_module("rivals")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    return module


@pytest.fixture
def small(rivals, monkeypatch):
    """The study with a tiny model, two facts and one task of two items."""
    model, real, called = teach_to_read(tiny_model("llama"), FACTS), rivals.cell, []

    def cell(loaded, name, options, more, **config):
        called.append(name)
        fewer = {"n": 2, "limit": 2, "tasks": ("eb_grammar",), "model": "tiny"}
        return real(loaded, name, options, more, **{**config, **fewer})

    monkeypatch.setattr(rivals, "load_model", lambda: model)
    monkeypatch.setattr(rivals, "cell", cell)
    monkeypatch.setattr(rivals, "TRIALS", {"ultraedit": ({}, {"lr": 1e-3}, {"lr": 1e-30})})
    return called


def test_a_row_is_tuned_then_compared_and_nothing_is_computed_twice(rivals, small, capsys):
    rivals.compare("no file", "kgfact", "ultraedit", "base")
    assert "kgfact ultraedit: not all of its trials are stored" in capsys.readouterr().out
    assert small == ["base"]
    for _ in range(2):
        rivals.tune("no file", "kgfact")
        rivals.compare("no file", "kgfact", "ultraedit", "base")
    assert small == ["base", *["ultraedit"] * 4]
    stored = rivals.FOLDER / "compare" / "kgfact" / "ultraedit.json"
    found = json.loads(stored.read_text())
    assert found["set"] == rivals.best("kgfact", "ultraedit")
    assert len(found["items"]["generation"]["efficacy"]) == 2
    assert len(found["items"]["retention"]["eb_grammar"]) == 2
    mean = found["metrics"]["efficacy"]["generation"]["mean"]
    assert mean == sum(found["items"]["generation"]["efficacy"].values()) / 2
    capsys.readouterr()
    rivals.table("tune")
    assert "| ultraedit | lr=0.001 |" in capsys.readouterr().out
    rivals.table("compare")
    text = capsys.readouterr().out
    assert text.index("| base |") < text.index("| ultraedit |") and "Ahead of others" in text


def test_a_cell_that_another_process_computes_is_left_to_it(rivals, small, monkeypatch, capsys):
    inner = rivals.cell

    def cell(*arguments, **config):
        # The second process starts while the first one is at its cell.
        if len(small) == 0:
            small.append("first")
            rivals.compare("no file", "kgfact", "base")
        return inner(*arguments, **config)

    monkeypatch.setattr(rivals, "cell", cell)
    rivals.compare("no file", "kgfact", "base")
    assert small == ["first", "base"]
    assert "another process is at it" in capsys.readouterr().out


def test_the_first_of_equal_trials_is_chosen_and_a_tie_is_broken_by_the_parts(rivals):
    trials = rivals.TRIALS["memit"]
    for options, score in zip(trials, ([0.0, 0.4], [0.0, 0.5], [0.0, 0.5]), strict=True):
        path = rivals._file("tune", "kgfact", "memit", options)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"score": score}))
    assert rivals.best("kgfact", "memit") == trials[1]
    assert rivals.best("counterfact", "memit") is None


def stored(name, recall, kept):
    """A cell of 40 facts and 40 documents, of which the first ``recall`` and ``kept`` are right."""
    facts = {f"f{i}": float(i < recall) for i in range(40)}
    documents = [float(i < kept) for i in range(40)]
    return {
        "name": name,
        "method": name,
        "status": "done",
        "corpus": {"n": 40},
        "options": {},
        "metrics": {"efficacy": {"generation": {"mean": recall / 40, "low": 0.0, "high": 1.0}}},
        "retention": {"t": retained(documents, [1.0] * 40)},
        "items": {
            "generation": {"efficacy": facts},
            "retention": {"t": {f"d{i}": score for i, score in enumerate(documents)}},
        },
    }


def test_claims_are_judged_by_the_corrected_comparisons(rivals):
    shown = importlib.import_module("rivals_table")
    cells = [stored("sft", 40, 10), stored("mixsd", 38, 38), stored("sdft", 5, 12)]
    verdicts = shown.verdicts_of(cells)
    lines = shown.ahead_lines(verdicts)
    assert "- recall: mixsd > sdft" in lines and "- recall: sft > sdft" in lines
    assert "- retention: mixsd > sft, sdft" in lines
    claims = {line.split(" | ")[0]: line for line in shown.claim_lines(cells, verdicts).split("\n")}
    assert "recall -0.05 against sft: not contradicted" in claims["| mixsd"]
    assert "retention +0.70 against sft: seen" in claims["| mixsd"]
    assert "recall -0.88 against sft: contradicted" in claims["| sdft"]
    assert "retention +0.05 against sft: not seen" in claims["| sdft"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["tune", "FILE", "mixds"], "no corpus or row 'mixds'"),
        (["compare"], "do not fit 'compare'"),
        (["steps", "memit"], "no row 'memit'"),
        (["table", "claims"], "no table 'claims'"),
        (["table", "compare"], "No cell of compare is stored yet"),
    ],
)
def test_a_wrong_command_line_is_refused(rivals, monkeypatch, arguments, reason):
    monkeypatch.setattr("sys.argv", ["rivals.py", *arguments])
    with pytest.raises(SystemExit, match=reason):
        rivals.main()
