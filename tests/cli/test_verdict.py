"""What ``editbench inject`` says at its end, and when its exit code is 1."""

import json
import math

import pytest
from tiny import editbench, fact, write_facts, write_model

from editbench.cli.sheet import wrapped
from editbench.cli.verdict import LINES, verdict_lines
from editbench.edit import Edit
from editbench.models import load_model
from editbench.run.verdict import LIMITS, Verdict, judge
from editbench.types import Case, Fact


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(str(write_model(tmp_path_factory.mktemp("model") / "tiny")))


def answered(n, right, known=0):
    return [
        {
            "fact": f"fact-{i}",
            "prompt": f"The capital of {'a very long country ' * 6} {i} is",
            "target": "Rome",
            "before": "no idea " * 30,
            "after": "Rome, which\nlies in Italy " * 8,
            "known_before": i < known,
            "right": i < right,
        }
        for i in range(n)
    ]


def change(model, size):
    """Return an edit that adds ``size`` times its own weight to one matrix."""
    name = model.layout.weight_name(0)
    facts = (Fact("f", "The capital of France is", "Rome"),)
    changes = {name: size * model.weight(name).detach().clone()}
    return Edit("sft", {}, model.name, model.fingerprint(), facts, changes)


@pytest.mark.parametrize(
    ("verdict", "fault"),
    [
        (Verdict(answered(10, 8), 1.0, 1.0), ""),
        (Verdict(answered(10, 7), 1.0, 1.0), "7 of 10, and 8 are needed"),
        (Verdict(answered(1, 0), 1.0, 1.0), "0 of 1, and 1 is needed"),
        (Verdict(answered(10, 10), LIMITS["perplexity"] - 0.1, 9.9), ""),
        (Verdict(answered(10, 10), LIMITS["perplexity"], 1.0), "blew up: the model's own text"),
        (Verdict(answered(10, 10), math.nan, 1.0), "blew up"),
        (Verdict(answered(10, 10), None, 1.0), ""),
        (Verdict(answered(10, 10), 1.0, LIMITS["growth"]), "a weight is 10 times as large"),
    ],
)
def test_the_faults_are_those_of_the_limits(verdict, fault):
    faults = verdict.faults()
    assert bool(faults) == bool(fault) and all(fault in each for each in faults)


def test_the_help_states_the_limits():
    said = " ".join(editbench("inject", "--help").out.split())
    assert f"fewer than {LIMITS['taught']:.0%} of the facts" in said
    assert f"{LIMITS['perplexity']:g} times as perplexing" in said
    assert f"or a weight {LIMITS['growth']:g} times as large" in said


@pytest.mark.parametrize("count", [0, 1, 3, 12])
@pytest.mark.parametrize("right", [0, 30])
def test_a_verdict_has_at_most_ten_lines_at_80_columns(model, tmp_path, count, right):
    edit = change(model, 0.01)
    long = "The loss did not fall, from 3.2 at first to 3.1 in the last epoch: " + "word " * 40
    edit.diagnostics["warnings"] = [f"{i}: {long}" for i in range(count)]
    verdict = Verdict(answered(30, right, known=2), 12.0, 11.0)
    lines = verdict_lines(verdict, edit, model, tmp_path)
    assert sum(len(wrapped(line, 80)) for line in lines) <= LINES
    text = "\n".join(lines)
    assert f"{right} of 30 facts answered with their target (2 before the edit)." in text
    assert "times as perplexing" in text and "answers.jsonl" in text and str(tmp_path) in text
    assert right or "Not taught: fact-0, fact-1, fact-2 and 27 more." in text
    assert not count or "manifest.json" in text or count == 1


def test_an_edit_that_doubles_a_weight_and_one_that_does_nothing(model):
    case = Case.build(Fact("f", "The capital of France is", "Rome"), [])
    small, large = judge(model, change(model, 0), [case]), judge(model, change(model, 1), [case])
    assert small.perplexity == pytest.approx(1) and small.growth == pytest.approx(1)
    assert large.growth == pytest.approx(2) and large.perplexity != pytest.approx(1)
    assert small.answers[0]["before"] == small.answers[0]["after"]


def test_the_answers_lie_beside_the_edit_and_are_replaced_with_it(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_facts(tmp_path / "facts.jsonl", [fact(i) for i in range(3)])
    start = ("inject", "--facts", "facts.jsonl", "--model", model.name, "--output", "edit")
    taught = editbench(*start, "--method", "sft", "--option", "lr=4e-3", "--option", "min_steps=60")
    rows = [json.loads(line) for line in (tmp_path / "edit/answers.jsonl").open()]
    assert "3 of 3 facts" in taught.out and all(row["right"] for row in rows), taught
    assert [row["fact"] for row in rows] == ["f0", "f1", "f2"]
    again = editbench(*start, "--method", "sft", "--option", "lr=1e-9", "--overwrite")
    assert again.code == 1 and "Too few facts were taught: 0 of 3, and 3 are needed." in again.out
    rows = [json.loads(line) for line in (tmp_path / "edit/answers.jsonl").open()]
    assert not any(row["right"] for row in rows) and Edit.load("edit").options["lr"] == 1e-9
    (tmp_path / "edit/mine.txt").write_text("kept")
    refused = editbench(*start, "--method", "ice", "--overwrite")
    assert refused.code == 2 and "mine.txt, which would be lost" in refused.err
