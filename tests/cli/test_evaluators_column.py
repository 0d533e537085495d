"""An evaluator that a test defines inline adds a column to the tables of ``compare``."""

from __future__ import annotations

import json

import pytest
from tiny import editbench as run_command
from tiny import write_facts, write_model

import editbench.eval
from editbench.plugin import Evaluator, Score


class Brief(Evaluator):
    """Share of answers of at most three words."""

    name = "brief"
    title = "Brief ↑"
    summary = "share of answers of at most three words"

    def score(self, model, cases):
        answers = [model.generate(case.fact.prompt, case.fact.form) for case in cases]
        return [
            Score(case.fact.id, float(len(answer.split()) <= 3), answer)
            for case, answer in zip(cases, answers, strict=True)
        ]


@pytest.fixture
def compare(tmp_path, monkeypatch):
    monkeypatch.setitem(editbench.eval.BUILTINS, "brief", f"{__name__}:Brief")
    model, facts = write_model(tmp_path / "model"), write_facts(tmp_path / "facts.jsonl")
    return (
        *("compare", "--methods", "sft", "--model", model, "--corpus", "local", "--data", facts),
        *("-n", 2, "--tasks", "none", "--option", "sft.epochs=1", "--option", "sft.min_steps=1"),
        *("--evaluators", "brief", "--output", tmp_path / "run"),
    )


def test_its_title_heads_a_column_of_the_terminal_and_of_the_page(compare, tmp_path):
    said = run_command(*compare)
    assert said.code == 0, said.err
    headings = next(line for line in said.out.splitlines() if "Efficacy" in line)
    assert headings.index("Retention") < headings.index("Brief ↑") < headings.index("Inject")
    page = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    header = next(line for line in page.splitlines() if line.startswith("| Method"))
    assert "| Brief ↑ |" in header
    rows = json.loads(run_command(*compare, "--json").out)["rows"]
    assert {row["method"] for row in rows} == {"base", "ice", "sft"}
    for row in rows:
        assert row["evaluators"]["brief"]["n"] == 2
        assert 0 <= row["evaluators"]["brief"]["mean"] <= 1
